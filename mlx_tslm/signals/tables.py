"""Recordings in tables: delimited text, and columns of cells in general."""

import csv
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.recording import Recording, find_channel

_DELIMITERS = (",", "\t", ";", "|", " ")
# A calendar date, perhaps with a time behind it, or a clock time: 1949-01, 2021-05-01T00:30Z, 01/10/1990, 12:30:05.
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([ T].*)?|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?")
_INDEX_NAMES = {"", "index", "idx", "id", "time", "t", "date", "datetime", "timestamp", "year", "month", "day"}
_INDEX_NAMES |= {"sample", "sample #", "samples", "seconds", "sec", "s", "ms", "step", "elapsed time"}


def read_delimited(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """Numeric columns of a delimited text file, see `signals.read`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TSLMError(f"{path} is not text: byte {error.start} is no UTF-8") from None
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        raise TSLMError(f"{path} is empty")
    numbers, rows = zip(*lines, strict=True)
    try:
        delimiter = _sniff(rows[:50])
        cells = [[cell.strip() for cell in row] for row in _split(rows, delimiter)]
    except csv.Error as error:
        raise TSLMError(f"{path} cannot be read as a table: {error}") from None
    if delimiter == ";":  # where ; parts the columns, a comma is a decimal comma
        cells = [[cell.replace(",", ".") for cell in row] for row in cells]
    has_header = _has_header(cells)
    width = len(cells[0])
    for number, row in zip(numbers, cells, strict=False):  # fewer cells: a quoted cell spans lines
        if len(row) != width:
            raise TSLMError(f"{path}: row {number} has {len(row)} cells where the first has {width}")
    header = cells[0] if has_header else None
    skip = 1 if has_header else 0
    columns = [list(column) for column in zip(*cells[skip:], strict=True)]
    if not columns:
        raise TSLMError(f"{path} has a header but no rows")
    if len(cells) == 1:  # all samples of one series in one line
        columns, numbers = [cells[0]], (numbers[0],) * width
    return from_columns(header, columns, channels, rows=numbers[skip:])


def from_columns(
    header: Sequence[str] | None,
    columns: Sequence[Sequence[str]],
    channels: Sequence[str | int] | None,
    rows: Sequence[int],
) -> Recording:
    """A recording from columns of cells.

    Args:
        header: the columns' names, or None; then they are numbered from 0 once those without values are out.
        columns: one list of cells a column, all of one length.
        channels: which to take; None takes every numeric column. Only these are checked cell by cell.
        rows: what to call each row in a message.
    """
    kinds = [_kind(column) for column in columns]
    if kinds.count("number") > 1 and _is_index(header[0] if header else None, columns[0], kinds[0]):
        kinds[0] = "an index"
    kept = [index for index, kind in enumerate(kinds) if kind == "number"]
    names = [header[index] if header else str(place) for place, index in enumerate(kept)]
    notes = [
        f"left out column {(header[index] if header else '') or index + 1!r}: it holds {kind}"
        for index, kind in enumerate(kinds)
        if kind not in ("number", "nothing")
    ]
    if not kept:
        raise TSLMError(f"there is no column of numbers: {'; '.join(notes) or 'all cells are empty'}")
    chosen = range(len(kept)) if channels is None else [find_channel(channel, names) for channel in channels]
    if not chosen:
        raise TSLMError("no channel was chosen")
    values = [_numbers(columns[kept[place]], names[place], rows) for place in chosen]
    return Recording(values, tuple(names[place] for place in chosen), notes=tuple(notes))


def _split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))


def _sniff(lines: Sequence[str]) -> str:
    """The first delimiter that cuts every line into the same number of cells, more than one."""
    for delimiter in _DELIMITERS:
        widths = {len(row) for row in _split(lines, delimiter)}
        if len(widths) == 1 and widths != {1}:
            return delimiter
    # Not consistent: take what occurs most, so that the message can name the row that differs.
    counts = {delimiter: sum(line.count(delimiter) for line in lines) for delimiter in _DELIMITERS[:-1]}
    return max(counts, key=lambda delimiter: counts[delimiter])


def _has_header(cells: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: a cell of it is neither number nor date where those below are."""
    first, below = cells[0], cells[1:21]
    if not below:
        return not any(_is_number(cell) or _DATE.fullmatch(cell) for cell in first)
    return any(
        not (_is_number(cell) or _DATE.fullmatch(cell))
        and all(_is_number(row[index]) or _DATE.fullmatch(row[index]) for row in below if index < len(row))
        for index, cell in enumerate(first)
    )


def _kind(column: Sequence[str]) -> str:
    filled = [cell for cell in column if cell]
    if not filled:
        return "nothing"
    if any(_is_number(cell) for cell in filled):
        return "number"  # perhaps with faulty cells, which are reported when the column is used
    return "dates" if all(_DATE.fullmatch(cell) for cell in filled) else "text"


def _is_index(name: str | None, column: Sequence[str], kind: str) -> bool:
    """Whether a first column counts or times the rows: it rises, and is called so or steps evenly."""
    if kind != "number" or not all(_is_number(cell) for cell in column):
        return False
    values = [float(cell) for cell in column]
    steps = [after - before for before, after in pairwise(values)]
    if not steps or min(steps) <= 0:
        return False
    if name is not None:
        bare = re.sub(r"[\[(].*", "", name).strip(" '\"").casefold()
        return bare in _INDEX_NAMES or bare.startswith("unnamed")
    return max(steps) - min(steps) <= 1e-6 * max(steps)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(column: Sequence[str], name: str, rows: Sequence[int]) -> list[float]:
    try:
        values = [float(cell) for cell in column]
    except ValueError:
        values = [float(cell) if _is_number(cell) else math.nan for cell in column]
    for row, cell, value in zip(rows, column, values, strict=True):
        if not math.isfinite(value):
            fault = f"is {cell!r}, not a finite number" if cell else "is empty"
            raise TSLMError(f"row {row}, column {name!r} {fault}; fill or cut out missing values first")
    return values
