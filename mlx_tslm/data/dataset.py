"""One split of a stage's data set: rows that are read when they are asked for."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from mlx_tslm.data.csv_index import MalformedRow
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
        malformed: what is no row at all in the split's file, found when it was opened.

    Raises:
        TSLMError: more than 1 % of the rows are malformed.
    """

    def __init__(
        self,
        stage: Stage,
        split: Split,
        size: int,
        read: Callable[[int], Row],
        malformed: Iterable[MalformedRow] = (),
    ) -> None:
        self.stage, self.split = stage, split
        self.malformed: list[MalformedRow] = []
        self._size, self._read = size, read
        self._seen: set[str] = set()
        malformed = list(malformed)
        self._total = size + len(malformed)
        for row in malformed:
            self._report(row)
        self._check()

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
            self._report(row)
            self._check()
            return None

    def __iter__(self) -> Iterator[Row]:
        """The rows in order, without the malformed ones; see `get`."""
        for index in range(self._size):
            row = self.get(index)
            if row is not None:
                yield row

    def _report(self, row: MalformedRow) -> None:
        if str(row) not in self._seen:  # iterating twice counts once
            self._seen.add(str(row))
            self.malformed.append(row)
            _log.warning("malformed row: %s", row)

    def _check(self) -> None:
        if len(self.malformed) > _MOST_MALFORMED * self._total:
            raise TSLMError(
                f"{len(self.malformed)} of {self._total} rows are malformed, more than 1 %, so the data cannot be "
                f"trusted; the first: {self.malformed[0]}"
            )
