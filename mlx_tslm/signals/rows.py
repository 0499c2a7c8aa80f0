"""Rows and cells of a table that are no samples: settings above, totals below, numbers that stand for "missing"."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.signals import timing
from mlx_tslm.signals.column import Column

Array = NDArray[np.float64]

_FOOTERS = {
    "total", "totals", "sum", "mean", "average", "avg", "sd", "std", "stdev", "min", "max", "minimum", "maximum",
    "median", "count", "summary", "gesamt", "summe", "mittelwert", "mittel", "durchschnitt", "somme", "moyenne",
    "end", "eof", "grand total", "std dev", "std. dev.", "end of file", "standard deviation", "subtotal",
}  # fmt: skip
# Numbers that devices and archives write where they have none.
_MARKS = (
    -99.0, -200.0, -999.0, -9999.0, -99999.0, 9999.0, 99999.0, -99.99, -999.99, -9999.99, -999.9,
    -999.25, 999.9, 9999.9, -32768.0,
)  # fmt: skip


def trim(
    columns: list[Column], rows: Sequence[int] | None, notes: list[str]
) -> tuple[list[Column], Sequence[int] | None]:
    """The table without rows above and below that belong to no time: settings, totals, averages."""
    count = len(columns[0])
    leads = [
        column
        for column in columns
        if column.moments is not None
        or (column.values is not None and (column is columns[0] or timing.is_called_time(column.name)))
    ]
    first, last = 0, count
    for column in columns[:1]:
        if column.text is not None and column.moments is None:
            while last > 1 and column.text[last - 1].strip(" :").casefold() in _FOOTERS:
                last -= 1
    for column in leads:
        values = column.moments.seconds if column.moments is not None else column.values
        if values is None or np.isfinite(values).mean() < 0.5:
            continue
        timed = (
            column.moments is not None or timing.is_called_time(column.name) or timing.is_called_count(column.name)
        )
        end = last
        while (
            end > 1
            and np.isnan(values[end - 1])
            and (timed or column.faults.get(end - 1, "").strip(" :").casefold() in _FOOTERS)
        ):
            if not timed and len(columns) == 1 and end - 1 not in column.faults:
                break
            end -= 1
        if count - end <= max(10, 0.2 * count):
            last = min(last, end)
        if column.moments is not None:
            begin = 0
            while begin < last and np.isnan(values[begin]):
                begin += 1
            if begin <= max(30, 0.2 * count) and begin < last:
                first = max(first, begin)
    if (first, last) == (0, count):
        return columns, rows
    called = lambda at: f"row {rows[at]}" if rows is not None else f"row {at + 1}"  # noqa: E731
    if last < count:
        heads = [
            next(
                (
                    column.faults.get(at) or (column.text[at] if column.text is not None else "")
                    for column in columns[:1]
                ),
                "",
            )
            for at in range(last, count)
        ]
        labels = ", ".join(repr(head.strip()) for head in heads if head.strip())
        notes.append(f"left out what stands below the samples, from {called(last)}: {labels or 'it has no time'}")
    if first:
        notes.append(f"left out what stands above the samples, down to {called(first - 1)}: it has no time")
    kept = np.arange(first, last)
    return [column.take(kept) for column in columns], None if rows is None else [rows[int(at)] for at in kept]


def without_marks(column: Column) -> tuple[Array, str]:
    """The values, missing where a number far from all others stands for "no value", as -9999 does; and a note."""
    values = column.values
    assert values is not None
    for mark in _MARKS:
        hit = values == mark
        if not 2 <= hit.sum() < 0.9 * len(values):
            continue
        rest = values[~hit & np.isfinite(values)]
        if len(rest) < 20 or rest.min() == rest.max():
            continue
        low, high = float(rest.min()), float(rest.max())
        if max(low - mark, mark - high) > 3 * max(high - low, abs(high) * 0.05):
            note = (
                f"column {column.name!r}: {mark:g} stands {int(hit.sum())} times, far from all else, and was taken "
                "for a missing value"
            )
            return np.where(hit, np.nan, values), note
    return values, ""
