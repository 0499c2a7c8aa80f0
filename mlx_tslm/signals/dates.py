"""Dates and clock times as people and devices write them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_MONTHS = {
    word: at
    for at, words in enumerate(
        (
            "jan january januar janvier enero",
            "feb february februar février febrero",
            "mar march mär märz mrz mars marzo",
            "apr april avril abril",
            "may mai mayo",
            "jun june juni juin junio",
            "jul july juli juillet julio",
            "aug august août agosto",
            "sep sept september septembre septiembre",
            "oct october okt oktober octobre octubre",
            "nov november novembre noviembre",
            "dec december dez dezember décembre diciembre",
        ),
        1,
    )
    for word in words.split()
}
_CLOCK = r"(?P<h>\d{1,2})[:.](?P<mi>\d{2})(?:[:.](?P<s>\d{2})(?:[.,:](?P<f>\d{1,9}))?)?\s*(?P<ap>[AaPp]\.?[Mm]\.?)?"
_ZONE = r"\s*(?P<z>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?"
_COLON_CLOCK = _CLOCK.replace("[:.](?P<mi>", ":(?P<mi>").replace("(?:[:.](?P<s>", "(?:[:](?P<s>")
_AFTER = rf"(?:(?:[ T]+|, ?){_COLON_CLOCK}{_ZONE})?"
_WORD = r"[^\W\d_]+"
_DATES = {
    "ymd": rf"(?P<y>\d{{4}})(?P<sep>[-/.])(?P<m>\d{{1,2}})(?P=sep)(?P<d>\d{{1,2}}){_AFTER}",
    "ym": r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})",
    "yq": r"(?P<y>\d{4})[- ]?[Qq](?P<q>[1-4])",
    "abY": rf"(?P<a>\d{{1,2}})(?P<sep>[-/.])(?P<b>\d{{1,2}})(?P=sep)(?P<y>\d{{4}}|\d{{2}}){_AFTER}",
    "bdy": rf"(?:{_WORD}, )?(?P<w>{_WORD})\.? (?P<d>\d{{1,2}}),? (?P<y>\d{{4}}){_AFTER}",
    "dby": rf"(?:{_WORD}, )?(?P<d>\d{{1,2}})[-. ]+(?P<w>{_WORD})[-. ]+(?P<y>\d{{4}}|\d{{2}}){_AFTER}",
    "by": rf"(?P<w>{_WORD})[- ](?P<y>\d{{4}}|\d{{2}})",
    "clock": rf"{_COLON_CLOCK}{_ZONE}",
    "long clock": r"(?:(?P<days>\d+) days?,? )?(?P<h>\d{1,4}):(?P<mi>\d{2}):(?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?",
    "minutes": r"(?P<mi>\d{1,4}):(?P<s>\d{2})[.,](?P<f>\d{1,9})",
    "dotted clock": r"(?P<h>\d{1,2})\.(?P<mi>\d{2})\.(?P<s>\d{2})",
    "record clock": r"\[(?P<h>\d{1,2}):(?P<mi>\d{2}):(?P<s>\d{2})(?:\.(?P<f>\d+))? (?P<a>\d\d)(?P<sep>/)(?P<b>\d\d)/(?P<y>\d{4})\]",
}
_FORMS = {name: re.compile(pattern) for name, pattern in _DATES.items()}
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)?")
_CLOCKS = ("clock", "long clock", "minutes", "dotted clock")


@dataclass(frozen=True)
class Moments:
    """A column of times.

    Attributes:
        seconds: float64 `[T]` since 1970-01-01 (of dates, in UTC where they state a zone), since midnight (of clock
            times) or since a start (of durations); NaN where there is none.
        clock: whether there are no dates, so that midnight starts over.
        dates_only: whether no cell has a time of day.
        calendar: "month" or "quarter" where no cell has a day.
        doubt: that day and month could be exchanged, with the other reading's seconds.
    """

    seconds: NDArray[np.float64]
    clock: bool = False
    dates_only: bool = False
    calendar: str = ""
    doubt: NDArray[np.float64] | None = None


def is_date(cell: str) -> bool:
    """Whether a cell is a date, a clock time or both."""
    return form_of(cell) is not None


def form_of(cell: str) -> str | None:
    """The name of a cell's form, or None where it is no time."""
    cell = cell.strip().strip("'")
    if not cell or not (cell[0].isdigit() or cell[0].isalpha() or cell[0] == "[") or len(cell) > 45:
        return None
    for name, form in _FORMS.items():
        if found := form.fullmatch(cell):
            groups = found.groupdict()
            if groups.get("w") and groups["w"].casefold() not in _MONTHS:
                continue
            if int(groups.get("m") or 1) > 12 or (int(groups.get("mi") or 0) > 59 and name != "minutes"):
                continue
            return name
    return None


def moments(cells: Sequence[str], form: str | None = None, order: str = "") -> Moments | None:
    """The times in a column, or None where some cell holds neither a time nor nothing.

    Args:
        form: the columns' form, from `form_of`; None takes each cell's own.
        order: "dmy" or "mdy" for dates such as 01/02/2024; "" lets the column itself decide.
    """
    stripped = [cell.strip() for cell in cells]
    if form == "ymd" and (quick := _iso(stripped)) is not None:
        return quick
    parts: list[dict[str, str] | None] = []
    kinds = set()
    for cell in stripped:
        bare = cell.strip("'")
        name = form if form and _FORMS[form].fullmatch(bare) else form_of(cell) if cell else None
        found = _FORMS[name].fullmatch(bare) if name else None
        if name is not None:
            kinds.add(name)
        parts.append(found.groupdict() if found else None)
    if not kinds or len({kind in _CLOCKS for kind in kinds}) > 1:
        return None
    clock = all(kind in _CLOCKS for kind in kinds)
    open_order = bool(kinds & {"abY", "record clock"}) and not order
    seconds = {way: _seconds(parts, way) for way in (("dmy", "mdy") if open_order else (order or "dmy",))}
    way, doubt = order, None
    if open_order:
        way, doubt = _day_first(parts, seconds)
    calendar = "month" if kinds <= {"ym", "by"} else "quarter" if kinds <= {"yq"} else ""
    timed = any(part and part.get("h") for part in parts)
    return Moments(seconds[way or "dmy"], clock, not clock and not timed, calendar, doubt)


def _iso(cells: Sequence[str]) -> Moments | None:
    """ISO dates, all alike and perhaps in UTC, at NumPy's speed; None for any others."""
    for zone in ("Z", "+00:00", ""):
        if cells[0].endswith(zone) and all(cell.endswith(zone) for cell in cells):
            bare = [cell[: len(cell) - len(zone)] for cell in cells]
            if not all(map(_ISO.fullmatch, bare)):
                return None
            try:
                at = np.array(bare, dtype="datetime64[us]").astype(np.int64) / 1e6
            except ValueError:
                return None
            return Moments(at, dates_only=all(len(cell) == 10 for cell in bare))
    return None


def _day_first(
    parts: Sequence[dict[str, str] | None], seconds: dict[str, NDArray[np.float64]]
) -> tuple[str, NDArray[np.float64] | None]:
    """Which of two numbers is the day: the one beyond 12, else what runs evenly, else what dots and slashes mean."""
    rows = [part for part in parts if part and part.get("a")]
    if any(int(part["a"]) > 12 for part in rows) or any(part.get("sep") == "." for part in rows):
        return "dmy", None
    if any(int(part["b"]) > 12 for part in rows):
        return "mdy", None
    ways = {way: values[np.isfinite(values)] for way, values in seconds.items()}
    steps = {way: np.abs(np.diff(values)) for way, values in ways.items()}
    if any(len(values) == 0 for values in ways.values()):
        return next(way for way, values in ways.items() if len(values)) if any(
            map(len, ways.values())
        ) else "dmy", None
    if any(part.get("ap") for part in rows) and any(part.get("sep") == "/" for part in rows):
        return "mdy", None  # 4/12/2016 12:00:00 AM is written in America
    if all((one == other).all() for one, other in [ways.values()] if len(one) == len(other)):
        return "dmy", None
    even = [way for way, step in steps.items() if len(step) > 1 and np.ptp(step) <= 0.01 * step.max()]
    if len(even) == 1:
        return even[0], seconds["mdy" if even[0] == "dmy" else "dmy"]
    return "dmy", seconds["mdy"]


def _seconds(parts: Sequence[dict[str, str] | None], way: str) -> NDArray[np.float64]:
    out = np.full(len(parts), np.nan)
    for at, part in enumerate(parts):
        if part is not None:
            out[at] = _second(part, way)
    return out


@lru_cache(4096)
def _midnight(year: int, month: int, day: int) -> float:
    try:
        return (date(year, month, day) - date(1970, 1, 1)).days * 86400.0
    except ValueError:
        return math.nan


def _second(part: dict[str, str], way: str) -> float:
    total = 0.0
    if part.get("y"):
        year = int(part["y"])
        if len(part["y"]) == 2:
            year += 2000 if year < 70 else 1900
        if part.get("w"):
            month, day = _MONTHS[part["w"].casefold()], int(part.get("d") or 1)
        elif part.get("a"):
            month, day = (int(part["b"]), int(part["a"])) if way == "dmy" else (int(part["a"]), int(part["b"]))
        elif part.get("q"):
            month, day = 3 * int(part["q"]) - 2, 1
        else:
            month, day = int(part["m"]), int(part.get("d") or 1)
        total = _midnight(year, month, day)
    hour = int(part.get("h") or 0)
    if part.get("ap"):
        hour = hour % 12 + (12 if part["ap"][0] in "pP" else 0)
    total += int(part.get("days") or 0) * 86400 + hour * 3600 + int(part.get("mi") or 0) * 60
    total += int(part.get("s") or 0) + (float(f"0.{part['f']}") if part.get("f") else 0.0)
    zone = part.get("z") or ""
    if zone[:1] in ("+", "-"):
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        total -= offset if zone[0] == "+" else -offset
    return total
