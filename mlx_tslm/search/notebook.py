"""How a search goes on, for a person in a notebook."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_tslm.search.api import Progress

_PATIENCE = 1.0  # seconds without a word
_EVERY = 0.25


@contextmanager
def shown(
    progress: "Callable[[Progress], bool | None] | None",
) -> "Iterator[Callable[[Progress], bool | None] | None]":
    """`progress`, or in a notebook where there is none, one that writes a line and takes it away at the end."""
    if progress is not None or not _in_kernel():
        yield progress
        return
    line = _Line()
    try:
        yield line
    finally:
        line.clear()


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class _Line:
    """One line of output that is written over."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._said = 0.0

    def __call__(self, progress: "Progress") -> bool:
        now = time.monotonic()
        if progress.seconds > _PATIENCE and now - self._said > _EVERY:
            self._said = now
            done = progress.rollouts / max(progress.budget, 1)
            self._show(
                f"{'█' * round(20 * done):░<20} {progress.rollouts} of {progress.budget} answers, "
                f"{progress.tokens / max(progress.seconds, 1e-9):.0f} tokens/s"
            )
        return True

    def _show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._handle is not None:
            self._show("")
