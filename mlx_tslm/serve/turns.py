"""Taking turns at the device: who has work for it waits in line, and a long job lets others in between steps."""

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A lock that is given in the order in which it was asked for.

    A search holds it for one forward pass at a time, the answers that share a batch likewise: so neither waits for
    more than what is being computed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()

    def __enter__(self) -> "Turns":
        mine = threading.Event()
        with self._lock:
            self._line.append(mine)
            if len(self._line) == 1:
                mine.set()
        mine.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._line.popleft()
            if self._line:
                self._line[0].set()

    def pass_on(self) -> None:
        """Let everybody who waits have a turn; only whoever has the turn may call it."""
        self.__exit__(None, None, None)
        self.__enter__()
