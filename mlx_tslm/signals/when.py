"""When the rows of a table were taken: which of its columns say so, and what they say together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import timing
from mlx_tslm.signals.column import Column, among
from mlx_tslm.signals.dates import Moments, moments
from mlx_tslm.signals.source import How
from mlx_tslm.signals.timing import Timing

Array = NDArray[np.float64]

_PARTS = ("year", "month", "day", "hour", "minute", "second")
_PART_NAMES = {
    "yr": "year", "yyyy": "year", "jahr": "year", "yy": "year", "mo": "month", "mm": "month", "mon": "month",
    "monat": "month", "dd": "day", "dy": "day", "tag": "day", "hr": "hour", "hh": "hour", "stunde": "hour",
    "min": "minute", "mins": "minute", "minutes": "minute", "sec": "second", "ss": "second",
    "seconds": "second", "hours": "hour", "mday": "day",
}  # fmt: skip


@dataclass(frozen=True)
class When:
    """The rows' timing, and the name of the column (or columns) that it was taken from."""

    name: str
    timing: Timing


def when(columns: Sequence[Column], how: How, named: bool) -> tuple[When | None, list[Column]]:
    """The time of the rows, or None, and all columns that do nothing but say when.

    Args:
        named: whether the columns have names.

    Raises:
        TSLMError: `how.time` names no column, or one without times.
    """
    if how.time == "none":
        return None, []
    if how.time is not None:
        return _chosen(columns, how.time)
    columns = list(columns)
    parts = _date_parts(columns, named)
    dated = [(column, column.moments) for column in columns if column.moments is not None]
    numeric = [
        column
        for at, column in enumerate(columns)
        if not among(column, list(parts.values())) and _is_time(column, at, columns, named)
    ]
    days = [(column, at) for column, at in dated if at.dates_only]
    days += [
        (column, at)
        for column in columns
        if timing.is_called_time(column.name) and (at := _whole_dates(column)) is not None
    ]
    clocks = [(column, at) for column, at in dated if at.clock]
    clocks += [(column, at) for column in columns if days and (at := _whole_clock(column)) is not None]
    found = []
    if parts:
        found.append(When("+".join(column.name for column in parts.values()), _joined_parts(parts)))
    if days and clocks:
        found.append(When(f"{days[0][0].name} {clocks[0][0].name}".strip(), _together(days[0], clocks[0])))
    found += [When(column.name, timing.from_moments(column.name, at)) for column, at in dated]
    found += [
        When(column.name, timing.from_numbers(column.name, column.unit, column.values))
        for column in numeric
        if column.values is not None
    ]
    spent: list[Column] = []
    for column in (
        *(column for column, _ in dated),
        *parts.values(),
        *numeric,
        *(column for column, _ in (*days, *clocks)),
    ):
        if not among(column, spent):
            spent.append(column)
    return _best(found), spent


def _best(found: Sequence[When]) -> When | None:
    """The timing that says most: a rate, else even steps, else an order; the first of several."""
    if not found:
        return None
    start = next((one.timing.start for one in found if one.timing.start is not None), None)
    moving = [one for one in found if one.timing.seconds is not None and len(np.unique(one.timing.seconds)) > 1]
    ranked = sorted(
        moving or found,
        key=lambda one: (one.timing.rate is None, one.timing.order == 0, not one.timing.even),
    )
    rated = [one for one in found if one.timing.rate is not None]
    best = rated[0] if rated else ranked[0]
    return When(best.name, replace(best.timing, start=best.timing.start or start))


def _together(day: tuple[Column, Moments], clock: tuple[Column, Moments]) -> Timing:
    """The timing of a column of dates and one of clock times."""
    ahead = clock[1].seconds
    both = replace(
        day[1],
        seconds=day[1].seconds + ahead,
        dates_only=False,
        doubt=None if day[1].doubt is None else day[1].doubt + ahead,
    )
    return timing.from_moments(day[0].name, both)


def _whole_dates(column: Column) -> Moments | None:
    """The dates in a column of numbers such as 20240131."""
    if column.values is None or not np.isfinite(column.values).all() or column.values.min() < 19000101:
        return None
    if column.values.max() > 21001231 or (column.values != np.rint(column.values)).any():
        return None
    seconds = timing.digits(column.values)
    return None if seconds is None else Moments(seconds, dates_only=True)


def _whole_clock(column: Column) -> Moments | None:
    """The clock times in a column of numbers that is called time, such as 93000 or 930, or of hours (HH)."""
    known = set(timing.words(column.name)) & {"time", "hour", "hours", "hh", "hhmm", "hhmmss", "zeit", "uhrzeit"}
    if column.values is None or not known or not np.isfinite(column.values).all():
        return None
    whole = column.values.astype(np.int64)
    if (whole != column.values).any() or whole.min() < 0:
        return None
    if whole.max() <= 24:
        hour, minute, second = whole, whole * 0, whole * 0
    elif whole.max() <= 2400:
        hour, minute, second = whole // 100, whole % 100, whole * 0
    else:
        hour, minute, second = whole // 10000, whole // 100 % 100, whole % 100
    if hour.max() > 24 or minute.max() > 59 or second.max() > 59:
        return None
    return Moments((hour * 3600 + minute * 60 + second).astype(np.float64), clock=True)


def _chosen(columns: Sequence[Column], chosen: str) -> tuple[When, list[Column]]:
    name, _, unit = chosen.rpartition("=") if "=" in chosen else (chosen, "", "")
    found = [column for column in columns if name.casefold() in (column.name.casefold(), column.label.casefold())]
    if not found and name.isdigit() and int(name) < len(columns):
        found = [columns[int(name)]]
    if not found:
        raise TSLMError(
            f"--time {chosen}: there is no column {name!r}; there are "
            f"{', '.join(column.name or str(at) for at, column in enumerate(columns))}"
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
        raise TSLMError(f"--time {chosen}: column {name!r} holds no times, but {column.example()}")
    spent = [column, *(other for other in columns if other.moments is not None and other is not column)]
    return When(column.name, got), spent


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
    if column.unit.casefold() in timing.UNIT_OF and timing.rises_evenly(column.values):
        return True
    if not named and at > 0:
        return len(values) >= 16 and abs(values[0]) > 1e9 and timing.rises_evenly(column.values)
    if not named:
        return timing.rises_evenly(column.values) and not timing.counts(column.values)
    starts = values[0] == 0 or (len(values) > 1 and abs(values[0] - steps[0]) < 1e-9)
    return (
        at == 0
        and starts
        and len(values) >= 16
        and timing.rises_evenly(column.values)
        and not timing.counts(column.values)
    )


def is_counter(column: Column, at: int, columns: Sequence[Column], named: bool, spent: Sequence[Column]) -> bool:
    if column.values is None or column.faults or among(column, spent) or len(column) < 2:
        return False
    if sum(one.values is not None for one in columns) == 1:
        return False
    if named and column.name and column.name.strip():
        if not timing.is_called_count(column.name):
            return False
        return timing.counts(column.values) or (at == 0 and bool((np.diff(column.values) > 0).all()))
    return at == 0 and timing.counts(column.values)


def _date_parts(columns: Sequence[Column], named: bool) -> dict[str, Column]:
    """Year, month, day, hour, ... in columns of their own: a year and a month at least, or none."""
    found: dict[str, Column] = {}
    if not named and len(columns) > 2 and _years_and_months(columns[0].values, columns[1].values):
        rest = [column for column in columns[2:] if column.values is not None]
        decimal = [column for column in rest if _same_years(column, columns[0])]
        return {"year": columns[0], "month": columns[1]} | ({"decimal": decimal[0]} if decimal else {})
    for column in columns:
        name = column.name.strip().strip("#").strip().casefold()
        part = name if name in _PARTS else _PART_NAMES.get(name, "")
        part = "minute" if name == "mm" and "month" in found else part
        if not part or part in found or column.values is None or not np.isfinite(column.values).all():
            continue
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


def _years_and_months(years: Array | None, months: Array | None) -> bool:
    """Whether two columns without names are years and the months 1 to 12, over and over again."""
    if years is None or months is None or len(years) < 13:
        return False
    joined = years * 12 + months
    return bool(1500 < years[0] < 2200 and set(months) <= set(range(1, 13)) and (np.diff(joined) == 1).all())


def _same_years(column: Column, years: Column) -> bool:
    """Whether a column holds decimal years: 1958.04 beside 1958."""
    if column.values is None or years.values is None:
        return False
    return bool((np.floor(column.values) == years.values).all() and (np.diff(column.values) > 0).all())
