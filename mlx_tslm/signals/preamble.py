"""What the lines above a table state: its rate, its units, its names, when it began."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_tslm.signals.cells import is_unit
from mlx_tslm.signals.timing import SECONDS

_NUMBER = r"(\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)"
_GAP = r"[^\d\n]{0,25}?"
_RATE = (
    r"(?:(?:sampl\w*|acquisition|recording|frame|data|measurement|abtast)[ _-]*(?:rate|freq\w*|frequenz)|"
    r"\b(?:fs|sfreq|srate|samplerate|samplingrate|abtastrate|abtastfrequenz)\b)"
)
_RATES = [
    re.compile(rf"{_RATE}{_GAP}(?<![\d.]){_NUMBER}\s*(k?)", re.I),
    re.compile(rf"^(?:rate|freq\w*|sampling)\s*[:=,;\t]\s*{_NUMBER}()\s*$", re.I),
    re.compile(rf"\b(?:rate|freq\w*)\b[^\d\n]{{0,8}}{_NUMBER}\s*(k?)(?:Hz|hertz|sps)\b", re.I),
    re.compile(rf"(?:sampled|recorded|\bat)\s+{_NUMBER}\s*(k?)(?:Hz|hertz|sps)\b", re.I),
    re.compile(rf"{_NUMBER}\s*(k?)(?:sps|samples?\s*/\s*s(?:ec\w*)?|samples? per second)\b", re.I),
]
_TIME_UNIT = r"(ns|us|µs|usec|ms|msec|s|secs?|seconds?|min|milliseconds?|microseconds?)"
_STEPS = [
    re.compile(
        rf"(?:interval|period|abtastintervall|time ?base|\bdt\b|delta ?t|time ?step)"
        rf"{_GAP}{_NUMBER}\s*{_TIME_UNIT}\b",
        re.I,
    ),
    re.compile(rf"{_NUMBER}\s*{_TIME_UNIT}\s*/\s*sample", re.I),
]
_CLOCK_STEP = re.compile(r"(?:period|interval)\D*(\d{1,2}):(\d{2}):(\d{2})\b", re.I)
_FILTER = re.compile(r"filter|notch|cut-?off|high-?pass|low-?pass|band|line freq|mains|heart|respir", re.I)
_PLAIN = {"usec": "us", "µs": "us", "msec": "ms", "sec": "s", "secs": "s", "second": "s", "seconds": "s"}
_PLAIN |= {"millisecond": "ms", "milliseconds": "ms", "microsecond": "us", "microseconds": "us"}
_UNIT_LINE = re.compile(
    r"^(?:units?|einheit(?:en)?|unité|unidad|y[- ]?units?|unit ?names?)\s*[:=,;\t ]+\s*(\S+)\s*$", re.I
)
_NAME_LINE = re.compile(
    r"^(?:lead|channel|signal|kanal|channel ?name|channel ?title)\s*[:=,;\t]\s*([^,;\t]+)$", re.I
)


@dataclass
class Facts:
    """What was stated: rates in Hz, units and names (one a channel, or one for all), a text each."""

    rates: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)


def facts(lines: Iterable[str]) -> Facts:
    """What the lines above a table state. Filter settings and heart rates are no sampling rates."""
    found = Facts()
    kept = [line.strip().lstrip("#%/;").strip().strip("\"'") for line in lines]
    for line in kept:
        for rate in _rates(line):
            if rate not in found.rates:
                found.rates.append(rate)
        if unit := _UNIT_LINE.match(line):
            if is_unit(unit[1].strip("[]()\"'")):
                found.units.append(unit[1].strip("[]()\"'"))
        elif name := _NAME_LINE.match(line):
            found.names.append(name[1].strip(" \"'"))
        elif line.startswith("{"):
            _from_json(line, found)
    _listed(kept, found)
    return found


def _rates(line: str) -> list[float]:
    if _FILTER.search(line) and not re.search(r"sampl|\bat\s+[\d.]+\s*Hz", line, re.I):
        return []
    for pattern in _RATES:
        if got := pattern.search(line):
            kilo = got[2] or re.search(r"khz", got[0], re.I)
            value = _value(got[1]) * (1000.0 if kilo else 1.0)
            return [value] if 0 < value < 1e7 else []
    for pattern in _STEPS:
        if got := pattern.search(line):
            unit = _PLAIN.get(got[2].casefold(), got[2].casefold())
            step = _value(got[1]) * SECONDS.get(unit, 1.0)
            return [round(1 / step, 9)] if step > 0 else []
    if got := _CLOCK_STEP.search(line):
        step = int(got[1]) * 3600 + int(got[2]) * 60 + int(got[3])
        return [1 / step] if step else []
    return []


def _value(text: str) -> float:
    return float(text.replace(",", "."))


def _from_json(line: str, found: Facts) -> None:
    """OpenSignals writes its header as JSON: the longest list of texts under "column" names the columns."""
    try:
        data = json.loads(line)
    except ValueError:
        return
    for value in _walk(data, "column"):
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            found.names = value
    sensors, labels = list(_walk(data, "sensor")), list(_walk(data, "label"))
    if found.names and sensors and labels and isinstance(sensors[0], list) and isinstance(labels[0], list):
        kinds = dict(zip(labels[0], sensors[0], strict=False))
        if len(set(kinds.values())) == len(kinds) and "RAW" not in kinds.values():
            found.names = [str(kinds.get(name, name)) for name in found.names]


def _walk(data: Any, key: str) -> Iterable[Any]:
    if isinstance(data, dict):
        for name, value in data.items():
            if name == key:
                yield value
            yield from _walk(value, key)


def _listed(lines: Sequence[str], found: Facts) -> None:
    """AcqKnowledge's "2 channels", with a line for each one's name and one for its unit below."""
    for at, line in enumerate(lines):
        if (got := re.fullmatch(r"(\d+) channels?", line)) and len(lines) >= at + 1 + 2 * int(got[1]):
            rows = lines[at + 1 : at + 1 + 2 * int(got[1])]
            if all(is_unit(unit) for unit in rows[1::2]):
                found.names, found.units = list(rows[::2]), list(rows[1::2])
