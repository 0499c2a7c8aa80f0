"""The cells of a long table in the bytes of its text: found at NumPy's speed, made into text when looked at."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

_CHUNK = 50_000  # rows that are copied at once


class Cut(Sequence[str]):
    """A column's cells, white space around them left out.

    Args:
        raw: the table's rows as UTF-8.
        begin, end: int64 `[T]`: where each cell stands in them.
    """

    def __init__(self, raw: bytes, begin: NDArray[np.int64], end: NDArray[np.int64]) -> None:
        self._raw, self._begin, self._end = raw, begin, end

    def __len__(self) -> int:
        return len(self._begin)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        return self._raw[self._begin[at] : self._end[at]].decode().strip()

    def __iter__(self) -> Iterator[str]:
        for begin, end in zip(self._begin.tolist(), self._end.tolist(), strict=True):
            yield self._raw[begin:end].decode().strip()

    def block(self) -> NDArray[np.uint8] | None:
        """The characters `[T, width]` of cells that are all of one width, ASCII and padded alike; else None."""
        if not len(self):
            return None
        first = self._raw[self._begin[0] : self._end[0]]
        ahead = self._begin + len(first) - len(first.lstrip())
        sizes = self._end - len(first) + len(first.rstrip()) - ahead
        width = int(sizes[0])
        if not width or (sizes != width).any():
            return None
        codes, offsets = np.frombuffer(self._raw, np.uint8), np.arange(width)
        block = np.empty((len(self), width), np.uint8)
        for at in range(0, len(self), _CHUNK):
            block[at : at + _CHUNK] = codes[ahead[at : at + _CHUNK, None] + offsets]
        return None if (block[:, (0, -1)] <= 32).any() or block.max() > 127 else block


def places(raw: bytes, delimiter: str, width: int) -> NDArray[np.int64] | None:
    """What stands around each cell of rows of so many: int64 `[T, width + 1]`; None where a row has other cells.

    Column `at` of a row lies behind `[:, at]`, before `[:, at + 1]`.
    """
    if not delimiter.isascii():
        return None
    codes = np.frombuffer(raw, np.uint8)
    ends = np.append(np.flatnonzero(codes == ord("\n")), len(codes))
    begins = np.append(-1, ends[:-1])
    marks = np.flatnonzero(codes == ord(delimiter))
    if len(marks) != len(ends) * (width - 1):
        return None
    inner = marks.reshape(len(ends), width - 1)
    if width > 1 and ((inner[:, 0] < begins).any() or (inner[:, -1] > ends).any()):
        return None
    return np.column_stack([begins, inner, ends])
