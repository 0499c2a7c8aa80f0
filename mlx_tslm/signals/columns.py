"""What the columns of a table mean, all together: a recording's channels, its rate, its start."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.cases import find_key, is_called_key, one_case
from mlx_tslm.signals.column import Column, among
from mlx_tslm.signals.preamble import Facts
from mlx_tslm.signals.rows import trim, without_marks
from mlx_tslm.signals.source import Channel, How, Source
from mlx_tslm.signals.timing import is_constant
from mlx_tslm.signals.when import When, is_counter, when


def interpret(
    columns: Sequence[Column],
    rows: Sequence[int] | None,
    stated: Facts,
    notes: Sequence[str],
    how: How,
    named: bool,
) -> Source:
    """Tell times, counters and keys from channels, and take the rate from the times.

    Args:
        rows: what to call each row in a message; None where samples are counted.
        stated: what the file says of itself beside the table.
        notes: what a person should know already.
        named: whether the columns have names.

    Raises:
        SeveralCases: the table holds several series below each other, and `how` chooses none.
        TSLMError: only times are left as numbers; the rows are not in order.
    """
    said = list(notes)
    columns = [column for column in columns if _filled(column)]
    if not columns:
        raise TSLMError("there is no column of numbers: all cells are empty")
    columns, rows = trim(columns, rows, said)
    time, spent = when(columns, how, named)
    key = find_key(columns, None if time is None else time.timing, spent)
    if key is not None:
        columns, rows = one_case(columns, key, rows, how)
        time, spent = when(columns, how, named)
    elif how.case is not None:
        raise TSLMError(f"there is one series in it, so --case {how.case} chooses nothing")
    if time is not None and time.timing.order < 0 and len(columns[0]) > 1:
        said.append(
            f"the rows run from the newest to the oldest (column {time.name!r}), so their order was reversed"
        )
        columns = [column.take(np.arange(len(column))[::-1]) for column in columns]
        rows = None if rows is None else list(rows)[::-1]
        time, spent = when(columns, how, named)
    elif time is not None and time.timing.order == 0 and time.timing.seconds is not None:
        _refuse_disorder(time, rows)
    counters = [column for at, column in enumerate(columns) if is_counter(column, at, columns, named, spent)]
    plain = [
        column
        for column in columns
        if column.values is not None and not among(column, counters) and not among(column, spent)
    ]
    ids = [column for column in plain if is_called_key(column.name) and is_constant(column.values)]
    plain = [column for column in plain if not among(column, ids)] or plain
    if not plain and counters and time is None and not spent:
        plain, counters = counters, []
    if not plain:
        _refuse_empty(time, counters, spent, columns)
    rate, of_rate = _rate(time, stated)
    said += of_rate
    for at, column in enumerate(columns):
        if not among(column, plain):
            called = repr(column.label or column.name) if column.label or column.name else str(at + 1)
            said.append(f"left out column {called}: it holds {_role(column, spent, counters, ids)}")
        said += column.notes
    channels = _channels(plain, stated, rate, named, said)
    others = [
        Channel(column.name or column.label, column.values, column.unit, rate, column.faults, column.label)
        for column in columns
        if column.values is not None and not among(column, plain)
    ]
    texts = {column.name or column.label: column.example() for column in columns if column.values is None}
    start = time.timing.start if time is not None else None
    return Source(channels, others, _uneven(time, rate), start, rows, tuple(said), texts)


def _channels(
    plain: Sequence[Column], stated: Facts, rate: float | None, named: bool, notes: list[str]
) -> list[Channel]:
    count = len(plain)
    names = [column.name or str(at) for at, column in enumerate(plain)]
    if len(stated.names) == count and (not named or (count == 1 and not plain[0].name)):
        names = list(stated.names)
    units = [column.unit for column in plain]
    if not any(units) and len(stated.units) in (1, count):
        units = list(stated.units) * (count // len(stated.units))
    channels = []
    for column, name, unit in zip(plain, names, units, strict=True):
        values, note = without_marks(column)
        notes += [note] if note else []
        channels.append(Channel(name, values, unit, rate, column.faults, column.label))
    return channels


def _role(column: Column, spent: Sequence[Column], counters: Sequence[Column], ids: Sequence[Column]) -> str:
    if among(column, spent):
        return "dates" if column.moments is not None and not column.moments.clock else "times"
    if among(column, counters):
        return "an index"
    return "an id" if among(column, ids) else column.example()


def _uneven(time: When | None, rate: float | None) -> NDArray[np.float64] | None:
    """Seconds from the first sample where the steps are uneven, which only then a recording keeps."""
    if time is None or rate is not None or time.timing.even or time.timing.seconds is None:
        return None
    times = time.timing.seconds - time.timing.seconds[0]
    return times if np.isfinite(times).all() and (np.diff(times) > 0).all() else None


def _filled(column: Column) -> bool:
    if column.values is not None:
        return bool(np.isfinite(column.values).any()) or bool(column.faults) or bool(np.isinf(column.values).any())
    return any(cell.strip() for cell in column.text or ())


def _refuse_disorder(time: When, rows: Sequence[int] | None) -> None:
    seconds = time.timing.seconds
    assert seconds is not None
    finite = np.flatnonzero(np.isfinite(seconds))
    steps = np.diff(seconds[finite])
    back = int(finite[np.flatnonzero(steps < 0)[0] + 1])
    ahead = int((steps < 0).sum())
    if (ahead == 1 and -4000 <= steps.min() <= -3000) or (
        ahead < 0.02 * len(steps) and abs(steps.min()) < 3 * np.median(np.abs(steps))
    ):
        return  # an hour that comes twice, or stamps that overtake each other: said in a note, without a rate
    at = f"row {rows[back]}" if rows is not None else f"sample {back}"
    raise TSLMError(
        f"time goes back at {at} (column {time.name!r}): either the rows are not in order, or several series "
        "stand below each other and no column tells them apart; sort or split them, or leave time aside "
        "with --time none"
    )


def _refuse_empty(
    time: When | None, counters: Sequence[Column], spent: Sequence[Column], columns: Sequence[Column]
) -> None:
    texts = [column for column in columns if column.values is None and not among(column, spent)]
    held = "; ".join(f"column {column.name or column.label!r} holds {column.example()}" for column in texts)
    notes = "; ".join(note for column in columns for note in column.notes)
    more = "".join(f"; {part}" for part in (held, notes) if part)
    if time is not None or counters:
        own = time.name if time is not None else counters[0].name
        raise TSLMError(
            f"there is no column of numbers but {own!r}, which says when{more}; --time none takes it for a "
            "channel all the same"
        )
    raise TSLMError(
        f"there is no column of numbers: {held or 'all cells are empty'}{'; ' + notes if notes else ''}"
    )


def _rate(time: When | None, stated: Facts) -> tuple[float | None, list[str]]:
    """The rate that the file states or its times give, and what a person should know of it."""
    own = time.timing.rate if time is not None else None
    notes = list(time.timing.notes) if time is not None else []
    if not stated.rates:
        return own, notes
    notes = [note for note in notes if "states no unit" not in note]
    if own is not None:
        near = [rate for rate in stated.rates if abs(rate - own) <= 0.05 * own]
        if near:
            return near[0], notes
        listed = ", ".join(f"{rate:g} Hz" for rate in stated.rates)
        notes.append(
            f"the file states {listed}, but its times are {own:g} Hz apart, so no rate was taken; "
            "--source-rate decides"
        )
        return None, notes
    if len(stated.rates) > 1:
        listed = ", ".join(f"{rate:g} Hz" for rate in stated.rates)
        return None, [*notes, f"the file states several rates ({listed}): none was taken; --source-rate decides"]
    if time is None or time.timing.even or time.timing.seconds is None:
        return stated.rates[0], notes
    widest = float(np.abs(np.diff(time.timing.seconds)).max())
    if widest > max(10 / stated.rates[0], 0.5):
        return None, [
            *notes,
            f"the file states {stated.rates[0]:g} Hz, but its times have gaps of up to {widest:.4g} s",
        ]
    return stated.rates[0], [
        f"the file states {stated.rates[0]:g} Hz, which was taken, though its times are uneven"
    ]
