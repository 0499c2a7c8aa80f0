"""What the columns of a table mean: times, counters, keys of several series, and channels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import timing
from mlx_tslm.signals.dates import Moments, moments
from mlx_tslm.signals.preamble import Facts
from mlx_tslm.signals.source import Channel, How, SeveralCases, Source
from mlx_tslm.signals.timing import Timing

Array = NDArray[np.float64]

_KEYS = set(
    "subject subjectid patient patientid participant person user userid animal series sensor sensorid device deviceid "
    "channel symbol ticker station stationid metric measurement field item itemid parameter variable name group case "
    "caseid run trial session unit machine engine batch record recordid recording store region country state city "
    "site location tag entity host instance type kind category id stayid hadmid".split()
)
_PARTS = ("year", "month", "day", "hour", "minute", "second")
_PART_NAMES = {
    "yr": "year", "yyyy": "year", "jahr": "year", "yy": "year", "mo": "month", "mm": "month", "mon": "month", "monat": "month",
    "dd": "day", "dy": "day", "tag": "day", "hr": "hour", "hh": "hour", "stunde": "hour", "min": "minute", "mins": "minute",
    "minutes": "minute", "sec": "second", "ss": "second", "seconds": "second", "hours": "hour", "mday": "day",
}  # fmt: skip
_FOOTERS = set(
    "total totals grand total sum mean average avg sd std stdev std dev std. dev. min max minimum maximum median count "
    "summary gesamt summe mittelwert mittel durchschnitt somme moyenne end eof".split()
) | {"grand total", "std dev", "std. dev.", "end of file", "standard deviation", "subtotal"}


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
        named: whether the columns have names.

    Raises:
        SeveralCases: the table holds several series below each other, and `how` chooses none.
        TSLMError: only times are left as numbers; the rows are not in order.
    """
    notes = list(notes)
    columns = [column for column in columns if _filled(column)]
    if not columns:
        raise TSLMError("there is no column of numbers: all cells are empty")
    columns, rows = _trim(columns, rows, notes, how)
    time, spent = _time(columns, how, named)
    key = _key(columns, time, spent)
    if key is not None:
        columns, rows = _one_case(columns, key, rows, how)
        time, spent = _time(columns, how, named)
        spent = [*spent, *(column for column in columns if column.name == key)]
    elif how.case is not None:
        raise TSLMError(f"there is one series in it, so --case {how.case} chooses nothing")
    if time is not None and time.timing.order < 0 and len(columns[0]) > 1:
        back = np.arange(len(columns[0]))[::-1]
        notes.append(
            f"the rows run from the newest to the oldest (column {time.name!r}), so their order was reversed"
        )
        columns = [column.take(back) for column in columns]
        spent = [column.take(back) for column in spent]
        rows = None if rows is None else [rows[at] for at in back]
        time = replace(
            time,
            timing=replace(
                time.timing, seconds=None if time.timing.seconds is None else time.timing.seconds[::-1], order=1
            ),
        )
    elif time is not None and time.timing.order == 0 and time.timing.seconds is not None:
        _refuse_disorder(time, rows)
    gone = {column.label or column.name for column in spent}
    counters = [column for at, column in enumerate(columns) if _is_counter(column, at, columns, named, spent)]
    plain = [
        column
        for column in columns
        if column.values is not None and column not in counters and not _among(column, spent)
    ]
    if not plain and counters and time is None and not spent:
        plain, counters = counters, []
    texts = {
        column.name or column.label: _example(column)
        for column in columns
        if column.values is None and not _among(column, spent)
    }
    if not plain:
        _refuse_empty(time, counters, texts, columns)
    rate, said = _rate(time, stated)
    notes += said
    place = {id(column): at + 1 for at, column in enumerate(columns)}
    called = lambda column: repr(column.label or column.name or place.get(id(column)))  # noqa: E731
    for column in spent:
        notes.append(f"left out column {called(column)}: it holds {'dates' if column.moments else 'times'}")
    for column in counters:
        notes.append(f"left out column {called(column)}: it holds an index")
    for column in columns:
        if column.values is None and not _among(column, spent):
            notes.append(f"left out column {called(column)}: it holds {_example(column)}")
        notes += column.notes
    names = [column.name or str(at) for at, column in enumerate(plain)]
    if not named and len(stated.names) == len(plain):
        names = list(stated.names)
    units = [column.unit for column in plain]
    if not any(units):
        units = (
            stated.units
            if len(stated.units) == len(plain)
            else stated.units * len(plain)
            if len(stated.units) == 1
            else units
        )
    channels = []
    for column, name, unit in zip(plain, names, units, strict=True):
        values, faults = _without_marks(column, notes)
        channels.append(Channel(name, values, unit, rate, faults, column.label))
    others = [
        Channel(column.name or column.label, column.values, column.unit, rate, column.faults, column.label)
        for column in (*spent, *counters)
        if column.values is not None
    ]
    del gone
    uneven = time is not None and rate is None and not time.timing.even and time.timing.seconds is not None
    times = None
    if uneven and time is not None and time.timing.seconds is not None and np.isfinite(time.timing.seconds).all():
        times = time.timing.seconds - time.timing.seconds[0]
    start = _begun(time)
    return Source(
        channels,
        others,
        times if times is not None and (np.diff(times) > 0).all() else None,
        start,
        rows,
        tuple(notes),
        texts,
    )


@dataclass(frozen=True)
class _Time:
    name: str
    timing: Timing


def _filled(column: Column) -> bool:
    if column.values is not None:
        return bool(np.isfinite(column.values).any()) or bool(column.faults) or bool(np.isinf(column.values).any())
    return any(cell.strip() for cell in column.text or ())


def _among(column: Column, others: Sequence[Column]) -> bool:
    return any(column is other for other in others)


def _example(column: Column) -> str:
    filled = next((cell for cell in column.text or () if cell.strip()), "")
    return "dates" if column.moments is not None else f"text such as {filled.strip()[:30]!r}"


def _trim(
    columns: list[Column], rows: Sequence[int] | None, notes: list[str], how: How
) -> tuple[list[Column], Sequence[int] | None]:
    """The table without rows above and below that belong to no time: settings, totals, averages."""
    count = len(columns[0])
    leads = [
        column
        for column in columns
        if column.moments is not None
        or column.values is not None
        and (column is columns[0] or timing.is_called_time(column.name))
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
    return [column.take(kept) for column in columns], None if rows is None else [rows[at] for at in kept]


def _time(columns: Sequence[Column], how: How, named: bool) -> tuple[_Time | None, list[Column]]:
    """The time of the rows, and all columns that only say when."""
    if how.time == "none":
        return None, []
    if how.time is not None:
        return _chosen_time(columns, how.time)
    dated = [column for column in columns if column.moments is not None]
    parts = _date_parts(columns)
    numeric = [column for at, column in enumerate(columns) if _is_time(column, at, columns, named)]
    found: list[_Time] = []
    if parts:
        found.append(_Time("+".join(column.name for column in parts.values()), _joined_parts(parts)))
    days = [
        column for column in dated if column.moments and (column.moments.dates_only) and not column.moments.clock
    ]
    clocks = [column for column in dated if column.moments and column.moments.clock]
    if days and clocks and days[0].moments and clocks[0].moments:
        both = replace(
            days[0].moments, seconds=days[0].moments.seconds + clocks[0].moments.seconds, dates_only=False
        )
        if both.doubt is not None:
            both = replace(both, doubt=both.doubt + clocks[0].moments.seconds)
        found.append(_Time(f"{days[0].name} {clocks[0].name}".strip(), timing.from_moments(days[0].name, both)))
    for column in (*dated, *numeric):
        if column.moments is not None:
            found.append(_Time(column.name, timing.from_moments(column.name, column.moments)))
        elif column.values is not None:
            found.append(_Time(column.name, timing.from_numbers(column.name, column.unit, column.values)))
    spent = [*dated, *(parts.values() if parts else ()), *numeric]
    spent = [column for at, column in enumerate(spent) if not _among(column, spent[:at])]
    if not found:
        return None, []
    ranked = sorted(found, key=lambda one: (one.timing.rate is None, not one.timing.even, one.timing.order == 0))
    best = ranked[0]
    start = next((one.timing.start for one in found if one.timing.start is not None), None)
    moving = [one for one in ranked if one.timing.seconds is not None and len(np.unique(one.timing.seconds)) > 1]
    if best.timing.rate is None and moving:
        best = sorted(moving, key=lambda one: (one.timing.order == 0, not one.timing.even))[0]
    return _Time(best.name, replace(best.timing, start=best.timing.start or start)), spent


def _chosen_time(columns: Sequence[Column], chosen: str) -> tuple[_Time, list[Column]]:
    name, _, unit = chosen.rpartition("=") if "=" in chosen else (chosen, "", "")
    found = [column for column in columns if name.casefold() in (column.name.casefold(), column.label.casefold())]
    if not found and name.isdigit() and int(name) < len(columns):
        found = [columns[int(name)]]
    if not found:
        raise TSLMError(
            f"--time {chosen}: there is no column {name!r}; there are {', '.join(c.name or str(at) for at, c in enumerate(columns))}"
        )
    column = found[0]
    if column.values is not None:
        got = (
            timing.in_unit(name, column.values, unit)
            if unit
            else timing.from_numbers(name, column.unit, column.values)
        )
    elif column.moments is not None and column.text is not None:
        at = moments(list(column.text), None, unit) if unit else column.moments
        got = timing.from_moments(name, at or column.moments)
    else:
        raise TSLMError(f"--time {chosen}: column {name!r} holds no times, but {_example(column)}")
    spent = [column, *(other for other in columns if other.moments is not None and other is not column)]
    return _Time(column.name, got), spent


def _is_time(column: Column, at: int, columns: Sequence[Column], named: bool) -> bool:
    """Whether a column of numbers says when its rows were taken."""
    if column.values is None or column.faults or not np.isfinite(column.values).any():
        return False
    values = column.values[np.isfinite(column.values)]
    steps = np.diff(values)
    alone = sum(one.values is not None for one in columns) == 1
    known = column.name if named else ""
    one_way = len(values) > 1 and bool((steps >= 0).all() or (steps <= 0).all()) and values[0] != values[-1]
    if named and timing.is_called_time(known):
        if timing.is_called_count(known) and timing.counts(column.values):
            return False
        restarts = len(values) > 3 and (steps > 0).mean() > 0.5 and np.ptp(values) > 0
        return one_way or bool(restarts)
    if alone and not named:
        return False
    if timing.is_epoch(column.values) and one_way:
        return True
    if named and timing.may_be_time(known) and not timing.is_called_count(known):
        return one_way and timing.rises_evenly(column.values if steps[0] > 0 else -column.values)
    if alone:
        return False
    if not named:
        return at == 0 and timing.rises_evenly(column.values) and not timing.counts(column.values)
    starts = values[0] == 0 or (len(values) > 1 and abs(values[0] - steps[0]) < 1e-9)
    return (
        at == 0
        and starts
        and len(values) >= 16
        and timing.rises_evenly(column.values)
        and not timing.counts(column.values)
    )


def _is_counter(column: Column, at: int, columns: Sequence[Column], named: bool, spent: Sequence[Column]) -> bool:
    if column.values is None or column.faults or _among(column, spent) or len(column) < 2:
        return False
    if sum(one.values is not None for one in columns) == 1:
        return False
    if named and column.name and column.name.strip():
        if not timing.is_called_count(column.name):
            return False
        return timing.counts(column.values) or (at == 0 and bool((np.diff(column.values) > 0).all()))
    return at == 0 and timing.counts(column.values)


def _date_parts(columns: Sequence[Column]) -> dict[str, Column]:
    """Year, month, day, hour, ... in columns of their own: a year and a month at least, or none."""
    found: dict[str, Column] = {}
    for column in columns:
        name = column.name.strip().strip("#").strip().casefold()
        part = name if name in _PARTS else _PART_NAMES.get(name, "")
        if part and part not in found and column.values is not None and np.isfinite(column.values).all():
            if (column.values == np.rint(column.values)).all() or part == "second":
                found[part] = column
    months = found.get("month")
    if (
        "year" not in found
        or months is None
        or months.values is None
        or months.values.max() > 12
        or months.values.min() < 1
    ):
        return {}
    chain: dict[str, Column] = {}
    for part in _PARTS:
        if part not in found:
            break
        chain[part] = found[part]
    return chain


def _joined_parts(parts: dict[str, Column]) -> Timing:
    own = {part: column.values for part, column in parts.items()}
    year = np.asarray(own["year"])
    year = np.where(year < 100, np.where(year < 70, year + 2000, year + 1900), year)
    months = ((year - 1970) * 12 + np.asarray(own["month"]) - 1).astype("int64").astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + np.asarray(own.get("day", np.ones(len(year)))) - 1
    zero = np.zeros(len(year))
    seconds = days * 86400.0 + own.get("hour", zero) * 3600 + own.get("minute", zero) * 60 + own.get("second", zero)  # type: ignore[operator]
    at = Moments(seconds, dates_only="hour" not in own, calendar="" if "day" in own else "month")
    return timing.from_moments("date", at)


def _key(columns: Sequence[Column], time: _Time | None, spent: Sequence[Column]) -> str | None:
    """The name of the column that tells several series below each other apart, or None where there is one series."""
    count = len(columns[0])
    seconds = time.timing.seconds if time is not None else None
    disordered = seconds is not None and (
        time is not None and time.timing.order == 0 or bool((np.diff(seconds) == 0).any())
    )
    if time is not None and seconds is None and time.timing.order == 0:
        disordered = True
    for column in columns:
        if _among(column, spent) and column.moments is not None:
            continue
        word = "".join(timing.words(column.name))
        whole = column.values is not None and (column.values == np.rint(column.values)).all()
        if column.values is not None and not (whole and (word in _KEYS)):
            continue
        labels = _labels(column)
        kinds = list(dict.fromkeys(labels))
        if not 2 <= len(kinds) <= count / 2:
            continue
        if disordered and seconds is not None:
            if _orders(labels, kinds, seconds):
                return column.name
        elif (disordered or time is None) and word in _KEYS and _blocks(labels, kinds):
            return column.name
    return None


def _labels(column: Column) -> list[str]:
    if column.values is not None:
        return [f"{value:g}" for value in column.values]
    return [cell.strip() for cell in column.text or ()]


def _orders(labels: Sequence[str], kinds: Sequence[str], seconds: Array) -> bool:
    """Whether time goes one way, without standing still, within each series."""
    array = np.array(labels)
    for kind in kinds:
        steps = np.diff(seconds[array == kind])
        if not ((steps > 0).all() or (steps < 0).all()):
            return False
    return True


def _blocks(labels: Sequence[str], kinds: Sequence[str]) -> bool:
    changes = sum(a != b for a, b in zip(labels, labels[1:], strict=False))
    return changes == len(kinds) - 1 or changes > len(labels) / 2


def _one_case(
    columns: Sequence[Column], key: str, rows: Sequence[int] | None, how: How
) -> tuple[list[Column], Sequence[int] | None]:
    labels = _labels(next(column for column in columns if column.name == key))
    kinds = list(dict.fromkeys(labels))
    case = choose_case(f"several series stand below each other, as column {key!r} tells", kinds, how.case)
    kept = np.flatnonzero(np.array(labels) == case)
    taken = [column.take(kept) for column in columns if column.name != key]
    return taken, None if rows is None else [rows[at] for at in kept]


def choose_case(problem: str, cases: Sequence[str], case: str | int | None) -> str:
    """The case that a person chose, by its name or its number from 0.

    Raises:
        SeveralCases: none was chosen.
        TSLMError: there is no such case.
    """
    if case is None:
        raise SeveralCases(problem, cases)
    if str(case) in cases:
        return str(case)
    if str(case).isdigit() and int(case) < len(cases):
        return cases[int(case)]
    raise TSLMError(
        f"there is no case {str(case)!r}; there are {len(cases)}: {', '.join(cases[:8])}{', …' if len(cases) > 8 else ''}"
    )


def _refuse_disorder(time: _Time, rows: Sequence[int] | None) -> None:
    seconds = time.timing.seconds
    assert seconds is not None
    finite = np.flatnonzero(np.isfinite(seconds))
    steps = np.diff(seconds[finite])
    back = int(finite[np.flatnonzero(steps < 0)[0] + 1])
    ahead = int((steps < 0).sum())
    if (
        ahead == 1
        and -4000 <= steps.min() <= -3000
        or ahead < 0.02 * len(steps)
        and abs(steps.min()) < 3 * np.median(np.abs(steps))
    ):
        return  # an hour that comes twice, or stamps that overtake each other: said in a note, without a rate
    at = f"row {rows[back]}" if rows is not None else f"sample {back}"
    raise TSLMError(
        f"time goes back at {at} (column {time.name!r}): either the rows are not in order, or several series stand below "
        "each other and no column tells them apart; sort or split them, or leave time aside with --time none"
    )


def _refuse_empty(
    time: _Time | None, counters: Sequence[Column], texts: dict[str, str], columns: Sequence[Column]
) -> None:
    held = "; ".join(f"column {name!r} holds {what}" for name, what in texts.items())
    notes = "; ".join(note for column in columns for note in column.notes)
    if time is not None or counters:
        own = time.name if time is not None else counters[0].name
        raise TSLMError(
            f"there is no column of numbers but {own!r}, which says when{'; ' + held if held else ''}"
            f"{'; ' + notes if notes else ''}; --time none takes it for a channel all the same"
        )
    raise TSLMError(
        f"there is no column of numbers: {held or 'all cells are empty'}{'; ' + notes if notes else ''}"
    )


def _rate(time: _Time | None, stated: Facts) -> tuple[float | None, list[str]]:
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
            f"the file states {listed}, but its times are {own:g} Hz apart: no rate was taken; --source-rate decides"
        )
        return None, notes
    if len(stated.rates) > 1:
        listed = ", ".join(f"{rate:g} Hz" for rate in stated.rates)
        return None, [*notes, f"the file states several rates ({listed}): none was taken; --source-rate decides"]
    if time is not None and not time.timing.even and time.timing.seconds is not None and time.timing.order != 0:
        notes.append(f"the file states {stated.rates[0]:g} Hz, which was taken")
    return stated.rates[0], notes


def _begun(time: _Time | None) -> datetime | None:
    return time.timing.start if time is not None else None


_MARKS = (
    -200.0,
    -99.0,
    -999.0,
    -9999.0,
    -99999.0,
    9999.0,
    99999.0,
    -99.99,
    -999.99,
    -9999.99,
    -999.9,
    -999.25,
    999.9,
    9999.9,
    -32768.0,
)


def _without_marks(column: Column, notes: list[str]) -> tuple[Array, dict[int, str]]:
    """The values, missing where a number far from all others stands for "no value", as -9999 does."""
    values = column.values
    assert values is not None
    for mark in _MARKS:
        hit = values == mark
        if not 2 <= hit.sum() < 0.9 * len(values):
            continue
        rest = values[~hit & np.isfinite(values)]
        if len(rest) < 5:
            continue
        low, high = float(rest.min()), float(rest.max())
        if max(low - mark, mark - high) > 3 * max(high - low, abs(high) * 0.05):
            notes.append(
                f"column {column.name!r}: {mark:g} stands {int(hit.sum())} times, far from all else, and was taken for a missing value"
            )
            return np.where(hit, np.nan, values), column.faults
    return values, column.faults
