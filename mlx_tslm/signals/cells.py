"""What a cell of a table says: a number in one of the world's spellings, a missing value, a unit."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# Spreadsheets', statistics packages' and loggers' words for "no value", in lower case.
_MISSING = {"", "na", "n/a", "#n/a", "#na", "nan", "null", "none", "nil", "nat", "<na>", "n.a.", "n.d.", "missing"}
_MISSING |= {"-", "--", "---", ".", "..", "...", "?", "#value!", "#div/0!", "#num!", "#null!", "#ref!", "\\n"}
_BOOLEANS = {"true": 1.0, "false": 0.0}
_MINUS = str.maketrans({"−": "-", "–": "-", "‒": "-", "﹣": "-", "－": "-"})

_GROUPED = {".": r"[1-9]\d{0,2}(?:[,'’   ]\d{3})+", ",": r"[1-9]\d{0,2}(?:[.'’   ]\d{3})+"}
_NUMBER = {
    mark: rf"(?:(?:{_GROUPED[mark]}|\d+)(?:{re.escape(mark)}\d*)?|{re.escape(mark)}\d+)(?:[eEdD][+-]?\d+)?"
    for mark in (".", ",")
}
_BASE = (
    r"(?:[fpnuµμmcdhk]?(?:V|A|g|s|Hz|m|Pa|W|Wh|J|N|T|L|l|mol|Ω|ohms?|Ohms?|S|bar|sec)|[MG](?:Hz|Pa|W|Wh|J|Ω|V)|"
    r"in\.?Hg|mmHg|cmH2O|inH2O|bpm|BPM|brpm|rpm|dB[A-Za-z]?|°|°C|°F|℃|degC|degF|deg|rad|dps|%|‰|kcal|cal|ppm|ppb|"
    r"lux|lx|lb|lbs|oz|ft|mph|kph|knots?|kt|mi|min|h|hr|d|G|Torr|psi|au|a\.u\.|AU|NU|nu|n\.u\.|adu|counts?|steps?|"
    r"C|F|K|IU|U|u|mEq|breaths|beats|[Vv]olts?|[Ww]atts?|[Mm]icrovolts?|[Mm]illivolts?|hertz|Hertz|gauss|uEinstein)"
)
_POWER = r"(?:\^?[23]|[²³])?"
_UNIT = re.compile(rf"(?:1|{_BASE}{_POWER})?(?:[/*·.]\(?{_BASE}{_POWER}\)?)*(?:/{_BASE})?", re.ASCII)
_BRACKETED = re.compile(r"(.*?)\s*(?:\[([^\[\]]*)\]|\(([^()]*)\)|[_ ](?=°)(\S+))\s*$")
_WITH_UNIT = {mark: re.compile(rf"([$€£¥]?)\s*([+-]?)({number})\s*(\D\S*)?") for mark, number in _NUMBER.items()}


def is_unit(text: str) -> bool:
    """Whether a text is a unit of measure: mV, m/s², mmHg, %, °C, counts."""
    return bool(text) and _UNIT.fullmatch(text) is not None


def split_unit(name: str) -> tuple[str, str]:
    """A name and the unit that it states: "ecg [uV]" and "SpO2 (%)". Square brackets do, round ones may."""
    found = _BRACKETED.fullmatch(name)
    if found is None or not found[1]:
        return name, ""
    square, rounded, degree = found[2], found[3], found[4]
    unit = (square or rounded or degree or "").strip()
    if square is not None:
        return (found[1], unit) if unit and len(unit) <= 16 and not unit.isdigit() else (name, "")
    return (found[1], unit) if is_unit(unit) else (name, "")


def number(cell: str, decimal: str) -> tuple[float, str] | None:
    """(value, unit) of a cell; NaN where it says that a value is missing; None where it holds no number.

    Args:
        decimal: "." or ",": the decimal mark; the other may part thousands.
    """
    text = cell.strip().translate(_MINUS)
    if text.casefold() in _MISSING:
        return math.nan, ""
    if decimal == "." and "_" not in text:
        try:
            return float(text), ""
        except ValueError:
            pass
    negative = text.startswith("(") and text.endswith(")")
    if negative:
        text = text[1:-1].strip()
    sign = -1.0 if negative else 1.0
    if text[:1] in "+-" and text[1:2] in ("$", "€", "£", "¥"):
        sign, text = (-sign if text[0] == "-" else sign), text[1:]
    found = _WITH_UNIT[decimal].fullmatch(text)
    if found is None:
        return None
    currency, minus, digits, unit = found.groups()
    if unit and not is_unit(unit):
        return None
    plain = re.sub(r"['’   ,]" if decimal == "." else r"['’   .]", "", digits).replace(",", ".")
    value = float(plain.replace("d", "e").replace("D", "e"))
    return sign * (-value if minus == "-" else value), unit or currency


def numbers(cells: Sequence[str], decimal: str) -> tuple[NDArray[np.float64], dict[int, str], set[str]]:
    """The values of a column (NaN where there is none), the cells that hold none by their places, and the units."""
    try:
        return _plain(cells, decimal), {}, set()
    except ValueError:
        pass
    values = np.full(len(cells), np.nan)
    faults: dict[int, str] = {}
    units: set[str] = set()
    for at, cell in enumerate(cells):
        got = number(cell, decimal)
        if got is None:
            faults[at] = cell
        else:
            values[at] = got[0]
            if not math.isnan(got[0]):
                units.add(got[1])
    return values, faults, units


def booleans(cells: Iterable[str]) -> NDArray[np.float64] | None:
    """1 and 0 for a column of TRUE and FALSE; None for any other."""
    values = [_BOOLEANS.get(cell.strip().casefold(), math.nan if is_missing(cell) else None) for cell in cells]
    if any(value is None for value in values) or all(value != value for value in values):
        return None
    return np.array(values, dtype=np.float64)


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: empty, NA, --, #N/A, ..."""
    return cell.strip().translate(_MINUS).casefold() in _MISSING


def decimal_mark(cells: Iterable[str]) -> str | None:
    """The decimal mark that cells are written with; None where they don't decide ("1,234" alone).

    Only numbers are looked at. A mark that comes twice in a number, or before the other, parts thousands; one that
    is followed by other than three digits is decimal.
    """
    doubtful = False
    for cell in cells:
        text = cell.strip().translate(_MINUS)
        if not any(mark in text for mark in ".,"):
            continue
        as_point, as_comma = (number(text, mark) is not None for mark in (".", ","))
        if as_point and not as_comma:
            return "."
        if as_comma and not as_point:
            return ","
        if as_point and as_comma and re.search(r"\d,\d{3}", text):
            doubtful = True
    return None if doubtful else "."


def _plain(cells: Sequence[str], decimal: str) -> NDArray[np.float64]:
    """Numbers as Python spells them; a ValueError for any other (which is looked at more closely)."""
    together = "".join(cells)
    if "_" in together or (decimal == "," and "." in together):
        raise ValueError
    if decimal == "," and "," in together:
        cells = [cell.replace(",", ".") for cell in cells]
    return np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
