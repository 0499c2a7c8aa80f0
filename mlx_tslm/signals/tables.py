"""Recordings in delimited text: cells to columns. `layout` finds the table, `columns` tells what it means."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import cells as cell
from mlx_tslm.signals import dates, layout
from mlx_tslm.signals.column import Column
from mlx_tslm.signals.columns import interpret
from mlx_tslm.signals.cut import Cut, places
from mlx_tslm.signals.layout import Layout
from mlx_tslm.signals.preamble import Facts
from mlx_tslm.signals.source import Channel, How, Source

Cells = list[str] | Cut | NDArray[np.float64]

_LONG = 200_000  # characters from which on a table is worth another way
_CHUNK = 20_000  # rows that are held as text at once


def read_text(text: str, how: How) -> Source:
    """The channels of a table in delimited text, see `signals.read`.

    Raises:
        TSLMError: there is no table, or it can be read in two ways (says which option decides).
    """
    text = layout.prepare(text, how.skip_lines)
    try:
        found = layout.find(text, how)
        notes = list(found.notes)
        begun = _empatica(found)
        if begun is not None:
            found = replace(found, first=found.first + 2, facts=replace(found.facts, rates=[begun[1]]))
            notes.append(f"the first two lines are the start and the rate, {begun[1]:g} Hz")
        body, rows = _quick(text, found) or _columns(text, found, notes)
    except csv.Error as error:
        raise TSLMError(f"cannot be read as a table: {error}") from None
    source = table(body, rows, found, notes, how)
    return replace(source, start=begun[0]) if begun else source


def table(body: Sequence[Cells], rows: Sequence[int], found: Layout, notes: list[str], how: How) -> Source:
    """The channels of columns of cells.

    Args:
        body: cells, one list a column, or its numbers.
        rows: what to call each row in a message.
    """
    if not body or not len(body[0]):
        raise TSLMError("there is a header but no rows" if found.names else "there is no table of numbers")
    if len(body[0]) == 1 and found.names is None and len(body) > 1:  # all samples of one series in one line
        body, rows = [[column[0] for column in body]], (rows[0],) * len(body)
    elif turned := _turned(body, found, how):
        return turned
    names, units = found.names or [""] * len(body), list(found.units) + [""] * len(body)
    columns = []
    for at, column in enumerate(body):
        name, unit = cell.split_unit((names[at] if at < len(names) else "").strip().strip("'\""))
        columns.append(
            _column(name, units[at] or unit, names[at] if at < len(names) else "", column, found.decimal)
        )
    again = [column.name for column in columns]
    columns = [
        replace(column, name=column.label)
        if column.name and again.count(column.name) > 1 and column.label
        else column
        for column in columns
    ]
    return interpret(columns, rows, found.facts, notes, how, found.names is not None)


def _quick(text: str, found: Layout) -> tuple[list[Cells], Sequence[int]] | None:
    """The same as `_columns` at NumPy's speed, of a long table with nothing odd in it; None of another."""
    if len(text) < _LONG or '"' in text or found.delimiter == " " or found.width > 200:
        return None
    line, _ = next(_body(text, found), (0, []))
    begin = 0
    for _ in range(line - 1):
        begin = text.index("\n", begin) + 1
    body = text[begin:].replace("\r\n", "\n").rstrip("\n")
    if found.decimal == ",":
        if "." in body or found.delimiter == ",":
            return None
        body = body.replace(",", ".")
    odd = any(f"\n{mark}" in body for mark in ("#", "%", "//", "\n"))
    raw = body.encode()
    around = None if odd else places(raw, found.delimiter, found.width)
    if around is None:
        return None
    whole = [row for row in found.rows if len(row) == found.width]
    plain = [
        at for at in range(found.width) if all(_is_float(row[at].replace(found.decimal, ".")) for row in whole)
    ]
    if not plain:
        return None
    try:
        values = np.loadtxt(
            io.BytesIO(raw), delimiter=found.delimiter, usecols=plain, ndmin=2, comments=None, encoding="utf-8"
        )
    except ValueError:
        return None
    columns: list[Cells] = [
        values[:, plain.index(at)] if at in plain else Cut(raw, around[:, at] + 1, around[:, at + 1])
        for at in range(found.width)
    ]
    return columns, range(line, line + len(values))


def _is_float(one: str) -> bool:
    try:
        return bool(np.isfinite(float(one))) and "_" not in one
    except ValueError:
        return False


def _columns(text: str, found: Layout, notes: list[str]) -> tuple[Sequence[Cells], Sequence[int]]:
    """All rows' cells, one list a column, and the rows' numbers in the file.

    A row of nothing but delimiters is a row of missing values, and a blank line is one in a table of one column;
    below the last row both are nothing.
    """
    columns: list[list[str]] = [[] for _ in range(found.width)]
    numbers: list[int] = []
    remarks: list[str] = []
    cut: tuple[int, int] | None = None
    empty = [""] * found.width
    waiting: list[int] = []  # blank rows that count once another row follows
    stream = _body(text, found)
    while chunk := list(islice(stream, _CHUNK)):
        good: list[list[str]] = []
        for at, row in chunk:
            if not any(row):
                if (row or found.width == 1) and (numbers or good):
                    waiting.append(at)
                continue
            if cut is not None:
                raise _ragged(*cut, found)
            if len(row) > found.width:
                rest = [one for one in row[found.width :] if one.strip()]
                if len(rest) > 1 or (rest and not (rest[0].lstrip().startswith("#") and numbers)):
                    raise _ragged(at, len(row), found)
                remarks += [f"{rest[0].lstrip('#* ')!r} (row {at})"] if rest else []
                row = row[: found.width]
            elif len(row) < found.width:
                cut = (at, len(row))
                continue
            if waiting:
                good += [empty] * len(waiting)
                numbers += waiting
                waiting = []
            good.append(row)
            numbers.append(at)
        for column, values in zip(columns, zip(*good, strict=True), strict=True) if good else ():
            column.extend(values)
    if cut is not None:
        if not numbers:
            raise _ragged(*cut, found)
        notes.append(f"left out the last row, {cut[0]}: it is cut off after {cut[1]} of {found.width} cells")
    if remarks:
        shown = ", ".join(remarks[:3]) + (", …" if len(remarks) > 3 else "")
        notes.append(f"left out remarks at the ends of rows: {shown}")
    if found.width == 1 and columns[0].count("") >= 0.4 * len(numbers):  # each line ends twice, as \r\r\n does
        kept = [at for at, one in enumerate(columns[0]) if one]
        columns, numbers = [[columns[0][at] for at in kept]], [numbers[at] for at in kept]
    return columns, numbers


def _body(text: str, found: Layout) -> Iterator[tuple[int, list[str]]]:
    """The records from the first row on, blank ones among them."""
    above = found.first
    for at, row in layout.records(text, found.delimiter, blank=True):
        if above and any(row):
            above -= 1
        elif not above:
            yield at, row


def _ragged(at: int, cells: int, found: Layout) -> TSLMError:
    mark = "blanks" if found.delimiter == " " else repr(found.delimiter)
    return TSLMError(
        f"row {at} has {cells} cells where the others have {found.width}; if the table begins below it, "
        f"--skip-lines leaves out what is above; if {mark} is not what parts the "
        "columns, --delimiter says what does"
    )


def _column(name: str, unit: str, label: str, column: Cells, decimal: str) -> Column:
    """A column of numbers, times or text, whichever most of its cells are."""
    if isinstance(column, np.ndarray):
        return Column(name, label, unit, column)
    truth = cell.booleans(column) if column[0].strip().casefold() in ("true", "false", "") else None
    if truth is not None:
        return Column(name, label, unit, truth, notes=(f"column {name!r}: TRUE was taken for 1 and FALSE for 0",))
    half = len(column) // 2
    looked = column if len(column) <= 500 else [*column[:200], *column[half : half + 200], *column[-50:]]
    sample = [one for one in looked if not cell.is_missing(one)]
    forms = [dates.form_of(one) for one in sample]
    dated = sum(form is not None for form in forms)
    counted = sum(cell.number(one, decimal) is not None for one in sample)
    if sample and dated > 0.5 * len(sample) and dated > counted:
        at = dates.moments(column, forms[0] if all(form == forms[0] for form in forms) else None)
        if at is not None:
            missing = np.flatnonzero(np.isnan(at.seconds)).tolist()
            faults = {row: column[row] for row in missing if not cell.is_missing(column[row])}
            return Column(name, label, unit, moments=at, text=column, faults=faults)
    if sample and counted < 0.5 * len(sample):
        return Column(name, label, unit, text=column)
    values, faults, units = cell.numbers(column, decimal)
    units.discard("") if len(units) == 1 else None
    if len(units) > 1 and not unit:
        mixed = ", ".join(sorted(repr(one) for one in units))
        if units - {""}:
            return Column(name, label, unit, text=column, notes=(f"column {name!r} mixes units: {mixed}",))
    return Column(name, label, unit or (units.pop() if len(units) == 1 else ""), values, faults=faults)


def _turned(body: Sequence[Cells], found: Layout, how: How) -> Source | None:
    """The channels of a table whose rows are channels, each perhaps named by its first cell; None for any other."""
    count, width = len(body[0]), len(body)
    if any(isinstance(column, np.ndarray) for column in body):
        return None
    labels = [str(one) for one in body[0]]
    named = all(cell.number(one, found.decimal) is None and not dates.is_date(one) for one in labels)
    if found.names is None and named and len(set(labels)) == count and width > 3 and width > 2 * count:
        values = [cell.numbers([column[row] for column in body[1:]], found.decimal) for row in range(count)]
        if sum(len(faults) for _, faults, _ in values):
            return None
        channels = [Channel(label.strip(), value[0]) for label, value in zip(labels, values, strict=True)]
        return Source(channels, notes=("each row was taken for a channel that its first cell names",))
    if found.names is not None and layout.is_years([found.names, *found.rows[:20]]):
        years = [name for name in found.names if name.strip().isdigit()]
        raise TSLMError(
            f"each row seems to be a series of its own, from {years[0]} to {years[-1]}: turn the table round, so "
            "that a column holds a series"
        )
    if found.names is None and width > count and width > 3:
        values = [cell.numbers([column[row] for column in body], found.decimal) for row in range(count)]
        if any(len(faults) for _, faults, _ in values):
            return None
        if width < 4 * count:
            return None
        channels = [Channel(str(row), value[0]) for row, value in enumerate(values)]
        return Source(channels, notes=(f"each of the {count} rows was taken for a channel of {width} samples",))
    return None


def _empatica(found: Layout) -> tuple[datetime, float] | None:
    """Empatica's CSV: the first line is the start (Unix time), the second the rate, once for each column."""
    if found.names is not None or len(found.rows) < 3:
        return None
    top = [[cell.number(one, ".") for one in row] for row in found.rows[:3]]
    if any(one is None for row in top for one in row):
        return None
    began, rate, first = ([one[0] for one in row if one] for row in top)
    alike = len(set(began)) == 1 == len(set(rate)) and len(began) == len(rate) == found.width
    if not alike or not 9e8 <= began[0] <= 4.2e9 or not 0 < rate[0] <= 10_000 or max(map(abs, first)) > 9e8:
        return None
    return datetime.fromtimestamp(began[0], UTC).replace(tzinfo=None), rate[0]


def from_arrays(cells: Mapping[str, Any], how: How, units: Mapping[str, str] | None = None) -> Source:
    """The channels of a table whose columns are arrays already, or lists of texts."""
    columns = []
    for name, value in cells.items():
        bare, unit = cell.split_unit(name)
        unit = (units or {}).get(name, unit)
        if isinstance(value, list):
            columns.append(_column(bare, unit, name, value, "."))
        elif value.dtype.kind == "M":
            seconds = np.where(np.isnat(value), np.nan, value.astype(np.int64) / 1e6)
            at = dates.Moments(seconds, dates_only=bool((seconds % 86400 == 0).all()))
            columns.append(Column(bare, name, unit, moments=at, text=[str(one) for one in value]))
        else:
            columns.append(Column(bare, name, unit, value.astype(np.float64)))
    return interpret(columns, None, Facts(), [], how, True)
