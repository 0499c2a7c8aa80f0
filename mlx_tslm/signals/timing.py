"""When samples were taken: from a column of times to a sampling rate, or to what speaks against one."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.dates import Moments

Array = NDArray[np.float64]

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {
    "ns": "ns nsec nanos nanosecond nanoseconds",
    "us": "us µs μs usec micros microsecond microseconds",
    "ms": "ms msec msecs millis millisec millisecond milliseconds msek millisekunden",
    "s": "s sec secs second seconds sek sekunde sekunden secondes segundos",
    "min": "min mins minute minutes minuten",
    "h": "h hr hrs hour hours stunde stunden",
    "d": "d day days tag tage jours",
}
UNIT_OF = {word: unit for unit, words in _WORDS.items() for word in words.split()}
_DATE_WORDS = {"date", "datum", "fecha", "datetime", "dato", "data", "day", "yyyymmdd", "yyyymmddhh"}
_STRONG = _DATE_WORDS | {
    "time", "times", "timestamp", "timestamps", "datetime", "zeit", "uhrzeit", "zeitstempel", "zeitpunkt",
    "temps", "heure", "tiempo", "hora", "tempo", "tijd", "tid", "clock", "epoch", "unix", "unixtime", "utc",
    "elapsed", "timer", "secs", "seconds", "sec", "msec", "millis", "milliseconds", "microseconds", "nanoseconds",
    "usec", "year", "years", "jahr", "month", "monat", "minutes", "minuten", "sekunden", "index", "idx",
}  # fmt: skip
_WEAK = {"t", "s", "ms", "us", "µs", "ns", "min", "h", "hour", "hours", "hr", "d", "days"}
_COUNTS = {
    "index", "idx", "sample", "samples", "sampleindex", "step", "row", "frame", "frames", "counter", "packet",
    "count", "no", "nr", "n", "id", "nseq", "seq", "sequence", "#", "laps", "lap", "epoch", "sampleno",
    "samplenumber", "framenumber", "framecount", "rownumber", "recordnumber", "obs", "observation", "level", "",
}  # fmt: skip
_YEARS = {"year", "years", "jahr", "annee", "année", "ano", "año", "yr"}


@dataclass(frozen=True)
class Timing:
    """What a column of times says.

    Attributes:
        seconds: float64 `[T]`, or None where the column's unit is not known.
        rate: samples a second where the steps are even and their unit is known.
        start: when the first sample was taken, where dates are known.
        order: 1 forward, -1 newest first, 0 neither.
        even: whether the steps are.
        notes: for a person.
    """

    seconds: Array | None
    rate: float | None
    start: datetime | None
    order: int
    even: bool
    notes: tuple[str, ...] = ()


def words(name: str) -> list[str]:
    """A name's words in lower case: "ElapsedTime_ms" has elapsed, time and ms."""
    spaced = re.sub(r"(?<=[a-zµ])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.findall(r"[^\W\d_]+|#", spaced)]


def is_constant(values: Array | None) -> bool:
    """Whether all numbers are the same."""
    return values is not None and bool(len(values)) and bool((values == values[0]).all())


def is_called_time(name: str) -> bool:
    """Whether a name is one of a time column."""
    own = words(name)
    return bool(own) and bool(set(own) & _STRONG) and not ({"rate", "interval", "reaction", "temp"} & set(own))


def may_be_time(name: str) -> bool:
    """Whether a name is one that time columns have, among others: t, ms, min."""
    return name.strip() in _WEAK


def is_called_count(name: str) -> bool:
    """Whether a name is one of a column that numbers the rows."""
    joined = "".join(words(name))
    return name.casefold().startswith("unnamed") or joined in _COUNTS or joined.endswith(("counter", "sampleindex"))


def counts(values: Array) -> bool:
    """Whether whole numbers go up by one, perhaps over and over again from the same first one."""
    if len(values) < 2 or not np.isfinite(values).all() or (values != np.rint(values)).any():
        return False
    steps = np.diff(values)
    back = steps != 1
    return not back.any() or bool(
        len(values) > 8
        and (steps[back] < 0).all()
        and np.ptp(values[1:][back]) == 0
        and back.sum() < len(values) / 4
    )


def rises_evenly(values: Array) -> bool:
    """Whether numbers rise in steps that are even within the decimals they are written with."""
    if len(values) < 3 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        return False
    return _spread(values) <= 1.05 * max(resolution(values), 1e-9 * float(np.ptp(values)))


def is_epoch(values: Array) -> bool:
    """Whether all numbers are Unix times (1990 to 2100) in s, ms, µs or ns."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and any(
        6.3e8 * scale <= finite.min() and finite.max() <= 4.2e9 * scale for scale in (1, 1e3, 1e6, 1e9)
    )


def from_moments(name: str, at: Moments) -> Timing:
    """The timing of a column of dates or clock times."""
    seconds = at.seconds
    notes = []
    if at.clock and np.isfinite(seconds).any():
        steps = np.diff(seconds)
        seconds = seconds + 86400 * np.concatenate([[0], np.cumsum(steps < -43200)])
        if (steps > 43200).sum() and (np.diff(seconds) <= 0).mean() > 0.5:
            seconds = at.seconds - 86400 * np.concatenate([[0], np.cumsum(steps > 43200)])
    if at.calendar:
        return replace(
            _timing(name, seconds, 86400.0, not at.clock), rate=None, notes=(f"one row a {at.calendar}",)
        )
    timing = _timing(name, seconds, 1.0 if at.dates_only else None, not at.clock)
    if at.doubt is not None:
        other = _timing(name, at.doubt, 1.0, True)
        days = (
            f"column {name!r}: day and month could be exchanged; --time {name!r}=dmy or =mdy says which comes first"
        )
        notes.append(days)
        if other.rate != timing.rate or timing.order != other.order:
            timing = replace(timing, rate=None)
        timing = replace(timing, start=None)
    return replace(timing, notes=(*timing.notes, *notes))


def from_numbers(name: str, unit: str, values: Array) -> Timing:
    """The timing of a column of numbers, whose unit is judged by the column's name, its own unit and its size.

    Args:
        unit: of `SECONDS`, or whatever the file says; "" where it says nothing.
    """
    finite = values[np.isfinite(values)]
    whole = bool(len(finite)) and bool((finite == np.rint(finite)).all())
    stated = UNIT_OF.get(unit.casefold()) or next(
        (UNIT_OF[word] for word in reversed(words(name)) if word in UNIT_OF), None
    )
    dated = set(words(name)) & _DATE_WORDS
    if not len(finite):
        return Timing(None, None, None, 0, False)
    if whole and set(words(name)) & _YEARS and finite.min() >= 1000 and finite.max() <= 2200:
        timing = _timing(name, values, 1.0, False)
        return replace(timing, seconds=None, rate=None, notes=("one row a year",) if timing.even else timing.notes)
    if whole and (dates := digits(values)) is not None and stated in (None, "d"):
        monthly = finite.max() < 1e6
        timing = _timing(name, dates, 1.0, True)
        return replace(timing, rate=None, notes=("one row a month",)) if monthly else timing
    if whole and (hourly := digits(values * 100)) is not None and finite.max() < 2.2e9 and dated - {"data"}:
        return _timing(name, hourly, 60.0, True)
    if not unit and is_epoch(finite) and (stated is None or _fits_epoch(finite, stated)):
        scale = next(s for s in (1, 1e3, 1e6, 1e9) if 6.3e8 * s <= finite.min() and finite.max() <= 4.2e9 * s)
        timing = _timing(name, values / scale, None, True)
        of = {1: "s", 1e3: "ms", 1e6: "µs", 1e9: "ns"}[scale]
        return replace(timing, notes=(*timing.notes, f"column {name!r} was taken for Unix time in {of}"))
    if stated in (None, "d") and (day := _serial_days(finite, bool(dated), whole)):
        timing = _timing(name, (values - day[0]) * 86400.0, 86400.0 if whole else 1e-3, True)
        return replace(timing, notes=(*timing.notes, f"column {name!r} was taken for {day[1]} day numbers"))
    if stated is not None:
        return _timing(name, values * SECONDS[stated], resolution(values) * SECONDS[stated], False)
    if not whole and len(finite) > 1 and 0 < abs(finite[-1] - finite[0]) / (len(finite) - 1) < 1:
        timing = _timing(name, values, None, False)
        if timing.rate is None:
            return timing
        return replace(timing, notes=(*timing.notes, f"column {name!r} was taken for seconds"))
    timing = _timing(name, values, None, False)
    said = f"column {name!r} states no unit, so the rate is not known; --time {name!r}=s (or ms, min, …) states it"
    if not timing.even:
        return replace(timing, seconds=None)
    return replace(timing, seconds=None, rate=None, notes=(said,))


def in_unit(name: str, values: Array, unit: str) -> Timing:
    """The timing of a column of numbers whose unit a person stated.

    Raises:
        TSLMError: there is no such unit.
    """
    if unit not in SECONDS:
        raise TSLMError(
            f"--time {name}={unit}: there is no unit {unit!r}; choose from {', '.join(SECONDS)}, dmy or mdy"
        )
    return _timing(name, values * SECONDS[unit], resolution(values) * SECONDS[unit], is_epoch(values))


def resolution(values: Array) -> float:
    """The step of ten that all numbers are multiples of, as far as they are: 0.001 for times rounded to ms."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 1.0
    finite = finite[:2000] - np.floor(finite[0])
    noise = 4 * float(np.spacing(np.abs(values[np.isfinite(values)]).max()))
    for power in range(10):
        step = 10.0**-power
        if (np.abs(finite / step - np.rint(finite / step)) <= 1e-6 + noise / step).all():
            return step
    return 1e-9


def _timing(name: str, seconds: Array, grain: float | None, dated: bool) -> Timing:
    """Order, evenness, rate and start of times in seconds. `grain`: what they are rounded to; None judges it."""
    finite = seconds[np.isfinite(seconds)]
    start = _start(finite) if dated else None
    if len(finite) < 2:
        return Timing(seconds, None, start, 1, False)
    if len(finite) < len(seconds):
        return Timing(seconds, None, start, _order(finite), False, (f"column {name!r} lacks some times",))
    steps = np.diff(seconds)
    order = _order(seconds)
    grain = grain if grain is not None else resolution(seconds)
    ahead = seconds if order >= 0 else seconds[::-1]
    start = _start(ahead) if dated else None
    if dated and np.median(np.abs(steps)) >= 28 * 86400 * 0.99 and _same_day(ahead):
        return Timing(seconds, None, start, order, True, (f"column {name!r} goes in months or years",))
    changes = np.flatnonzero(np.diff(ahead) != 0)
    if not len(changes):
        return Timing(seconds, None, start, 1, False, (f"column {name!r} does not change",))
    repeated = bool((steps == 0).any())
    if repeated and (len(changes) < 2 or not _regular(changes)):
        return Timing(seconds, None, start, order, False, (_uneven(name, ahead),))
    if repeated:  # several samples under each rounded time
        grain = max(grain, float(np.median(np.abs(np.diff(ahead)[changes]))))
        step = (ahead[changes[-1] + 1] - ahead[changes[0] + 1]) / (changes[-1] - changes[0])
    else:
        step = float(np.polyfit(np.arange(len(ahead)), ahead - ahead[0], 1)[0])
    if step <= 0:
        return Timing(seconds, None, start, order, False)
    off = ahead - ahead[0] - step * np.arange(len(ahead))
    spread = float(np.ptp(off))
    exact = spread <= (2.05 if repeated else 1.3) * grain + 1e-9 * abs(float(ahead[-1] - ahead[0]))
    if exact and (repeated or spread <= 0.9 * step):
        noise = 4 * float(np.spacing(np.abs(seconds).max()))  # of times since 1970 as floats
        rate = _round(1 / step, grain if spread > 1e-3 * step + noise else noise, len(ahead) * step)
        return Timing(seconds, rate, start, order or 1, True)
    jitters = step < 3600 and np.abs(np.diff(ahead) - step).max() <= 0.5 * step
    if spread <= step and len(ahead) > 3 and jitters and not repeated:
        said = f"the steps of column {name!r} vary about {step:.4g} s, by up to {spread:.2g} s"
        return Timing(seconds, _round(1 / step, grain, len(ahead) * step), start, order or 1, True, (said,))
    return Timing(seconds, None, start, order, False, (_uneven(name, ahead),))


def _uneven(name: str, seconds: Array) -> str:
    steps = np.diff(seconds)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    back = np.flatnonzero(steps < 0)
    if len(back) == 1 and abs(steps[back[0]] + 3600) <= usual:
        return (
            f"column {name!r} goes back an hour at sample {back[0] + 1}, as clocks do in autumn; no rate was taken"
        )
    gaps = np.flatnonzero(steps > 1.5 * usual)
    where = ""
    if len(gaps):
        widest = int(gaps[np.argmax(steps[gaps])])
        where = f", with {len(gaps)} gaps, the widest of {steps[widest]:.6g} s at sample {widest + 1}"
    return (
        f"the steps of column {name!r} are uneven, {usual:.4g} s as a rule{where}, so the rate is not known; "
        "--rate HZ makes them even"
    )


def _regular(changes: NDArray[np.intp]) -> bool:
    """Whether each rounded time stands over as many samples as the next, but for one."""
    counts = np.diff(changes)
    return bool(np.ptp(counts) <= 1 and counts.mean() > 1.2)


def _order(seconds: Array) -> int:
    steps = np.diff(seconds)
    if (steps >= 0).all():
        return 1
    return -1 if (steps <= 0).all() else 0


def _spread(values: Array) -> float:
    slope = np.polyfit(np.arange(len(values)), values - values[0], 1)[0]
    return float(np.ptp(values - values[0] - slope * np.arange(len(values))))


def _round(rate: float, grain: float, span: float) -> float:
    """The roundest rate within what the times' own rounding leaves open."""
    room = max(1.5 * grain / max(span, 1e-30), 1e-9)
    for digits in range(7):
        if (near := round(rate, digits)) > 0 and abs(near - rate) <= room * rate and (digits or near >= 1):
            return near
    step = 1 / rate
    near = round(step)
    return 1 / near if near and abs(near - step) <= max(room * step, 1e-6) else rate


def _start(seconds: Array) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(seconds[0]), UTC).replace(tzinfo=None)
    except (ValueError, OSError, OverflowError, IndexError):
        return None


def _same_day(seconds: Array) -> bool:
    days = (seconds[:400] // 86400).astype("int64").astype("datetime64[D]")
    day = (days - days.astype("datetime64[M]")).astype(int)
    after = (days + 1 - (days + 1).astype("datetime64[M]")).astype(int)
    return bool(np.ptp(day) == 0 or (after == 0).all())


def digits(values: Array) -> Array | None:
    """Seconds of dates written as whole numbers: 20240131, 202401311230, 20240131123000, 202401."""
    if not np.isfinite(values).all():
        return None
    size = len(str(int(abs(values.max()))))
    if size not in (6, 8, 12, 14) or len(str(int(abs(values.min())))) != size or values.min() < 0:
        return None
    whole = values.astype(np.int64) * (100 if size == 6 else 1) + (1 if size == 6 else 0)
    whole *= 10 ** (14 - max(size, 8))
    year, month, day = whole // 10**10, whole // 10**8 % 100, whole // 10**6 % 100
    hour, minute, second = whole // 10**4 % 100, whole // 100 % 100, whole % 100
    good = (year >= 1900) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    if not (good & (hour <= 24) & (minute < 60) & (second < 60)).all():
        return None
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    return np.asarray(days * 86400.0 + hour * 3600 + minute * 60 + second, np.float64)


def _fits_epoch(finite: Array, stated: str) -> bool:
    scale = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}.get(stated)
    return scale is not None and 6.3e8 * scale <= finite.min() and finite.max() <= 4.2e9 * scale


def _serial_days(finite: Array, dated: bool, whole: bool) -> tuple[float, str] | None:
    """(the day number of 1970-01-01, whose numbers these are) for days since 1900 (Excel) or year 0 (MATLAB)."""
    step = abs(float(finite[-1] - finite[0])) / max(len(finite) - 1, 1)
    if not (dated or (not whole and 0 < step < 0.05)):
        return None
    if finite.min() >= 20000 and finite.max() <= 75000:
        return 25569.0, "Excel"
    if finite.min() >= 700000 and finite.max() <= 760000:
        return 719529.0, "MATLAB"
    return None
