"""One split of a stage's data set: rows that are read when they are asked for."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from mlx_tslm.data.published.csv_index import MalformedRow
from mlx_tslm.errors import TSLMError
from mlx_tslm.stages import Stage

Row = dict[str, Any]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_MOST_MALFORMED = 0.01  # of the rows
_log = logging.getLogger("mlx_tslm.data")


class Dataset:
    """Rows of one split, in the published order: `dataset[i]`, `len(dataset)`, `for row in dataset`.

    A row is a dict with the columns of the published data set, its lists of numbers as float32 arrays;
    `dataset.stage.from_row(row)` makes the prompt and the reference answer of it. Nothing is held in memory.

    A row that cannot be read is never passed over in silence: it is logged with its file and line
    (logger "mlx_tslm.data") and kept in `malformed`. `dataset[i]` raises it; iterating goes on without it,
    unless such rows are more than 1 % of all.

    Args:
        size: rows, malformed ones included.
        read: makes the row of a number from 0.
        malformed: what was found to be no row at all when the files were opened.
        total: rows of these files, of all their splits. By default `size`.

    Raises:
        TSLMError: more than 1 % of the rows are malformed.
    """

    def __init__(
        self,
        stage: Stage,
        split: str,
        size: int,
        read: Callable[[int], Row],
        malformed: Iterable[MalformedRow] = (),
        total: int | None = None,
    ) -> None:
        self.stage, self.split = stage, split
        self.malformed = list(malformed)
        self._size, self._read = size, read
        self._bad: set[int] = set()
        for row in self.malformed:
            _log.warning("malformed row: %s", row)
        self._check(len(self.malformed), (size if total is None else total) + len(self.malformed))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        """The row of this number, from the end where negative.

        Raises:
            IndexError: there are not so many rows.
            MalformedRow: it cannot be read (a TSLMError that names file and line).
        """
        if not -self._size <= index < self._size:
            raise IndexError(f"row {index} of {self._size}")
        return self._read(index % self._size)

    def get(self, index: int) -> Row | None:
        """The row of this number, or None where it is malformed; that is reported, and counted.

        Raises:
            TSLMError: by now more than 1 % of the rows are malformed, or a file that the row names is missing.
        """
        try:
            return self[index]
        except MalformedRow as row:
            if index % self._size not in self._bad:
                self._bad.add(index % self._size)
                self.malformed.append(row)
                _log.warning("malformed row: %s", row)
            self._check(len(self._bad), self._size)
            return None

    def __iter__(self) -> Iterator[Row]:
        """The rows in order, without the malformed ones; see `get`."""
        for index in range(self._size):
            row = self.get(index)
            if row is not None:
                yield row

    def _check(self, bad: int, total: int) -> None:
        if bad > _MOST_MALFORMED * total:
            raise TSLMError(
                f"{bad} of {total} rows are malformed, more than 1 %, so the data cannot be trusted; "
                f"the last of them: {self.malformed[-1]}"
            )
