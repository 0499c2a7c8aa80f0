"""A column of a table, once its cells are told apart."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.signals.dates import Moments

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Column:
    """A column: numbers, or times, or text.

    Attributes:
        label: its name as the file spells it, unit included.
        values: float64 `[T]` of a column of numbers, NaN where one is missing.
        moments: of a column of dates or clock times.
        text: the cells of a column that is no numbers.
        faults: cells that are neither a number (a time) nor missing, by row.
    """

    name: str
    label: str = ""
    unit: str = ""
    values: Array | None = None
    moments: Moments | None = None
    text: Sequence[str] | None = None
    faults: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(part for part in (self.values, self.text) if part is not None))

    def take(self, rows: NDArray[np.intp]) -> "Column":
        """These rows of the column."""
        place = {int(row): at for at, row in enumerate(rows)} if self.faults else {}
        at = self.moments
        return replace(
            self,
            values=None if self.values is None else self.values[rows],
            text=None if self.text is None else [self.text[row] for row in rows],
            moments=at
            and replace(at, seconds=at.seconds[rows], doubt=None if at.doubt is None else at.doubt[rows]),
            faults={place[row]: text for row, text in self.faults.items() if row in place},
        )

    def example(self) -> str:
        """What a column that is no numbers holds, for a message."""
        filled = next((cell for cell in self.text or () if cell.strip()), "")
        return "dates" if self.moments is not None else f"text such as {filled.strip()[:30]!r}"

    def labels(self) -> list[str]:
        """Its cells as texts."""
        if self.values is not None:
            return [f"{value:g}" for value in self.values]
        return [cell.strip() for cell in self.text or ()]


def among(column: Column, others: Sequence[Column]) -> bool:
    """Whether this very column is one of the others."""
    return any(column is other for other in others)
