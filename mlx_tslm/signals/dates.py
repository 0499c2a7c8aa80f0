"""Dates and clock times as people and devices write them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.signals.cut import Cut

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
_CLOCK = (
    r"(?P<h>\d{1,2})[:.](?P<mi>\d{2})(?:[:.](?P<s>\d{2})(?:[.,:](?P<f>\d{1,9}))?)?\s*(?P<ap>[AaPp](?:\.?[Mm]\.?)?)?"
)
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
    "record clock": r"\[(?P<h>\d{1,2}):(?P<mi>\d{2}):(?P<s>\d{2})(?:\.(?P<f>\d+))? "
    r"(?P<a>\d\d)(?P<sep>/)(?P<b>\d\d)/(?P<y>\d{4})\]",
}
_FORMS = {name: re.compile(pattern) for name, pattern in _DATES.items()}
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
    """The times in a column, or None where no cell holds one, or some hold dates and others clock times alone.

    Args:
        form: the column's form, from `form_of`; None takes each cell's own.
        order: "dmy" or "mdy" for dates such as 01/02/2024; "" lets the column itself decide.
    """
    parts = (_alike(cells, form) if form else None) or _each(cells, form)
    if not parts.forms or len({name in _CLOCKS for name in parts.forms}) > 1:
        return None
    clock = parts.forms <= set(_CLOCKS)
    if parts.forms & {"abY", "record clock"} and not order:
        seconds, doubt = _day_first(parts)
    else:
        seconds, doubt = _seconds(parts, order or "dmy"), None
    calendar = "month" if parts.forms <= {"ym", "by"} else "quarter" if parts.forms <= {"yq"} else ""
    timed = bool(np.isfinite(parts.of("h")).any())
    return Moments(seconds, clock, not clock and not timed, calendar, doubt)


@dataclass(frozen=True)
class _Parts:
    """The numbers in a column of times, by the names of the forms' groups; NaN where there is none."""

    count: int
    numbers: dict[str, NDArray[np.float64]]
    forms: set[str]
    marks: str = ""  # what stands between two numbers of a date, and p for AM or PM

    def of(self, name: str, default: float = np.nan) -> NDArray[np.float64]:
        """The numbers of one part."""
        if name not in self.numbers:
            return np.full(self.count, default)
        return np.where(np.isnan(self.numbers[name]), default, self.numbers[name])


def _alike(cells: Sequence[str], form: str) -> _Parts | None:
    """The parts of cells that differ in their digits only, at NumPy's speed; None for any others."""
    first = cells[0].strip()
    found = _FORMS[form].fullmatch(first)
    if found is None or found.groupdict().get("w"):
        return None
    codes: NDArray[Any] | None
    if isinstance(cells, Cut):
        codes = cells.block()
    else:
        alike = all(len(cell) == len(first) for cell in cells)
        codes = np.array(cells).view(np.uint32).reshape(len(cells), len(first)) if alike else None
    if codes is None:
        return None
    digits = np.zeros(len(first), bool)
    numbers = {}
    for name, text in found.groupdict().items():
        if text and text.isdigit():
            begin, end = found.span(name)
            digits[begin:end] = True
            part = codes[:, begin:end].astype(np.int64) - ord("0")
            if part.min() < 0 or part.max() > 9:
                return None
            numbers[name] = (part @ 10 ** np.arange(end - begin)[::-1]).astype(np.float64)
            if name == "f":
                numbers[name] /= 10.0 ** (end - begin)
    if (codes[:, ~digits] != codes[0, ~digits]).any():
        return None
    whole = _numbers(found.groupdict())
    for name in ("z", "ap"):
        if name in whole:
            numbers[name] = np.full(len(cells), whole[name])
    if "y" in numbers and len(found["y"]) == 2:
        numbers["y"] += np.where(numbers["y"] < 70, 2000, 1900)
    return _Parts(len(cells), numbers, {form}, (found.groupdict().get("sep") or "") + "p" * ("ap" in whole))


def _each(cells: Sequence[str], form: str | None) -> _Parts:
    """The parts of cells of any forms."""
    numbers: dict[str, NDArray[np.float64]] = {}
    forms, marks = set(), set()
    for at, cell in enumerate(cells):
        bare = cell.strip().strip("'")
        name = form if form and _FORMS[form].fullmatch(bare) else form_of(bare)
        found = _FORMS[name].fullmatch(bare) if name else None
        if name is None or found is None:
            continue
        forms.add(name)
        groups = found.groupdict()
        marks |= {groups.get("sep") or "", "p" if groups.get("ap") else ""}
        for part, value in _numbers(groups).items():
            numbers.setdefault(part, np.full(len(cells), np.nan))[at] = value
    return _Parts(len(cells), numbers, forms, "".join(marks))


def _numbers(groups: dict[str, str | None]) -> dict[str, float]:
    """The numbers of one cell: a month's name, AM or PM and a zone become numbers, too."""
    out: dict[str, float] = {}
    for name, text in groups.items():
        if not text or name == "sep":
            continue
        if name == "w":
            out["m"] = _MONTHS[text.casefold()]
        elif name == "ap":
            out["ap"] = 12.0 if text[0] in "pP" else 0.0
        elif name == "f":
            out["f"] = float(f"0.{text}")
        elif name == "z":
            bare = text[1:].replace(":", "").ljust(4, "0")
            offset = int(bare[:2]) * 3600.0 + int(bare[2:]) * 60.0 if text[0] in "+-" else 0.0
            out["z"] = -offset if text[0] == "-" else offset
        elif name == "y" and len(text) == 2:
            out["y"] = float(text) + (2000 if int(text) < 70 else 1900)
        else:
            out[name] = float(text)
    return out


def _day_first(parts: _Parts) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Seconds, and those of the other reading where that is possible, of dates such as 01/02/2024.

    The day is the number beyond 12, else what makes the dates run evenly, else what dots and AM and PM tell.
    """
    ways = {way: _seconds(parts, way) for way in ("dmy", "mdy")}
    if np.nanmax(parts.of("a")) > 12 or "." in parts.marks:
        return ways["dmy"], None
    if np.nanmax(parts.of("b")) > 12 or ("p" in parts.marks and "/" in parts.marks):
        return ways["mdy"], None  # 4/12/2016 12:00:00 AM is written in America
    if np.array_equal(ways["dmy"], ways["mdy"], equal_nan=True):
        return ways["dmy"], None
    steps = {way: np.abs(np.diff(seconds[np.isfinite(seconds)])) for way, seconds in ways.items()}
    even = [way for way, step in steps.items() if len(step) > 1 and np.ptp(step) <= 0.01 * step.max()]
    if even == ["mdy"]:
        return ways["mdy"], ways["dmy"]
    return ways["dmy"], ways["mdy"]


def _seconds(parts: _Parts, way: str) -> NDArray[np.float64]:
    """Seconds since 1970, or since midnight or a start where there are no dates; NaN for days that are none."""
    total = np.zeros(parts.count)
    if "y" in parts.numbers:
        month, day = parts.of("m"), parts.of("d", 1)
        if "a" in parts.numbers:
            first, second = (parts.of("b"), parts.of("a")) if way == "dmy" else (parts.of("a"), parts.of("b"))
            month = np.where(np.isnan(first), month, first)
            day = np.where(np.isnan(second), day, second)
        if "q" in parts.numbers:
            month = np.where(np.isnan(parts.of("q")), month, 3 * parts.of("q") - 2)
        good = np.isfinite(month) & (month >= 1) & (month <= 12) & np.isfinite(parts.of("y"))
        months = np.where(good, (parts.of("y") - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
        begin = months.astype("datetime64[D]").astype(np.int64)
        length = (months + 1).astype("datetime64[D]").astype(np.int64) - begin
        good &= (day >= 1) & (day <= length)
        total = np.where(good, (begin + day - 1) * 86400.0, np.nan)
    else:
        total = np.where(np.isfinite(parts.of("mi")), total, np.nan)
    hour = parts.of("h", 0)
    half = parts.of("ap")
    hour = np.where(np.isnan(half), hour, hour % 12 + half)
    total = total + parts.of("days", 0) * 86400 + hour * 3600 + parts.of("mi", 0) * 60
    return total + parts.of("s", 0) + parts.of("f", 0) - parts.of("z", 0)
