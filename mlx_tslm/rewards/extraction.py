"""Read claims about a signal out of an answer's text, by rules.

The reader is cautious: what speaks of a part of the signal only ("rises at first"), of something else ("the
noise increases") or of the recording ("sampled at 100 Hz") is no claim. "No clear seasonality", "not increasing"
and "a trend is absent" are claims, negated.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.rewards.claims import SECONDS, Claim

Match = re.Match[str]
Reader = Callable[[str, Match, str], Iterator[Claim]]  # (kind, match, clause) → claims

_UNITS = {"ms": "millisecond", "msec": "millisecond", "s": "second", "sec": "second", "min": "minute"}
_NAMED_CYCLES = {
    **{"yearly": "year", "annual": "year", "quarterly": "quarter", "monthly": "month", "weekly": "week"},
    **{"daily": "day", "diurnal": "day", "hourly": "hour"},
}
_WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_PLACES = {"start": "begin|start|first|early", "middle": "mid|cent", "end": "end|last|late|final"}

# --- pieces of patterns ---
_NUM = r"(?:[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?|\.\d+)"
_ABOUT = r"(?:(?:about|around|approximately|approx\.?|roughly|nearly|almost|between|of|is|was|at|~|≈|=|:)\s*)*"
_RANGE = rf"(?P<a>{_NUM})(?:\s*(?:-|–|—|to|and)\s*(?P<b>{_NUM}))?"
_COUNT = rf"(?P<a>{_NUM}|{'|'.join(_WORDS)})"
_TIME = (
    r"(?P<unit>samples?|(?:time[- ]?)?steps?|(?:data )?points?|observations?|ms|msec|milliseconds?|s|secs?|"
    r"seconds?|mins?|minutes?|hours?|days?|weeks?|months?|quarters?|years?)\b"
)
_PER_MINUTE = r"(?:per|/|a)\s*min(?:ute)?\b"
_PER_SECOND = r"(?:per|/|a)\s*s(?:ec(?:ond)?)?\b"
_SEASON = r"(?:season\w*|periodic\w*|cycl(?:e|es|ic|ical|icality)|repeating|repeats|oscillat\w+|rhythmic\w*)\b"
_UP = r"(?:upwards?|increas\w+|ris(?:e|es|ing)|rose|grow(?:s|th|ing|n)?|grew|climb\w*|ascend\w*)"
_DOWN = r"(?:downwards?|decreas\w+|declin\w+|fall(?:s|ing|en)?|fell|descend\w*|shrink\w*|drop(?:s|ped|ping)?)"
_FLAT = r"(?:flat|stable|steady|constant|stationary|unchanged|horizontal)"
_SPREAD = r"(?:swings?|amplitude|volatility|variance|variability|fluctuations?|spread|dispersion|oscillations?)"
_BAND = r"(?P<band>delta|theta|alpha|sigma|beta)"
_STRONG = r"(?:(?:pre)?domina\w+|prominent|strong(?:est)?|prevail\w+|abundant|high)"
_LOW = r"(?:low|little|minimal|small|slight|weak|negligible)"
_HIGH = r"(?:high|strong|considerable|substantial|significant|heavy|large|much|intense|vigorous)"
_AMOUNT = r"(?:[- ](?:level|intensity|amplitude|magnitude|amount|impact)s?)?(?:\s+of)?"
_MOVEMENT = r"(?:\w+\s+)?(?:movements?|motion|activity|intensity|accelerations?|impacts?)\b"
_PLACE = (
    r"(?:near|at|in|towards?|during|around)\s+the\s+(?:very\s+)?(?P<place>beginning|start|first|early|mid\w*|"
    r"cent(?:er|re)|end|last|later?|final)\b"
)

# --- what changes the meaning of a match ---
_NEGATOR = re.compile(
    r"\b(?:no|nothing|not(?! only| just| merely)|non(?![- ]?rem)|without|lacks?|lacking|absence|absent|neither|nor|"
    r"never|cannot|free of|rather than|instead of|rules? out|excludes?|unlikely|hardly|barely|little evidence)\b"
    r"|n't\b",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"^(?:[\s-]+(?!and\b)\w+){0,3}?\s+(?:(?:is|are|was|were|appears?|seems?)\s+)?(?:absent|lacking|missing|"
    r"ruled out|excluded|unlikely|"
    r"(?:not|cannot be|never)\s+(?:\w+\s+)?"
    r"(?:present|visible|observed|evident|clear|apparent|seen|found|detected))",
    re.IGNORECASE,
)
_LOCAL = re.compile(
    r"\b(?:initial(?:ly)?|at first|beginning|start(?:s|ing|ed)?|then|before|after|afterwards|followed by|until|"
    r"towards?|finally|later|brief(?:ly)?|momentar\w+|sudden(?:ly)?|sharp(?:ly)?|abrupt(?:ly)?|during|between|"
    r"spikes?|turns?|midway|early|late|end)\b",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"\b(?:overall|general(?:ly)?|long[- ]term|throughout|entire|whole|from start to)\b", re.I)
_OTHER_SUBJECT = re.compile(
    r"\b(?:noise|frequency|rate|power|activity|intensity|baseline|intervals?|seasonality|cycles?|"
    r"peaks?|waves?|delta|theta|alpha|sigma|beta|risk|uncertainty|period)\b",
    re.IGNORECASE,
)
_RECORDING = re.compile(r"\b(?:sampl(?:ed|ing)|filter\w*|notch|mains|resolution|recorded)\b", re.IGNORECASE)
_CLAUSE = re.compile(
    r"(?<=[.!?;])\s+|\n+|,?\s+\b(?:but|however|whereas|while|although|though|yet)\b,?\s+", re.IGNORECASE
)
_LONGEST_CLAUSE = 500  # characters: a model caught in a loop must not cost seconds to read
_DIRECTED = re.compile(rf"\b(?:{_UP}|{_DOWN})\b", re.IGNORECASE)
_LISTED = re.compile(r"\bn?or\b", re.IGNORECASE)
_JOINT = re.compile(r",|\band\b|\bwith\b|\bplus\b", re.IGNORECASE)


def extract(text: str) -> list[Claim]:
    """Every claim in a text, each once. Of the rules of one family the first that matches some words keeps them."""
    claims: dict[Claim, None] = {}
    for clause in (whole[:_LONGEST_CLAUSE] for whole in _CLAUSE.split(text)):
        taken: dict[str, list[Match]] = {}
        for kind, family, pattern, read in _RULES:
            for match in pattern.finditer(clause):
                earlier = taken.setdefault(family, [])
                if any(match.start() < other.end() and other.start() < match.end() for other in earlier):
                    continue
                earlier.append(match)
                claims.update(dict.fromkeys(read(kind, match, clause)))
    return list(claims)


def find_series(text: str) -> NDArray[np.float64] | None:
    """The longest run of eight or more numbers in a text, float64 `[n]`; None where there is none."""
    number = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
    runs = re.findall(rf"(?<![\d.]){number}(?:(?:\s*[,;|]\s*|\s+){number}){{7,}}", text, re.IGNORECASE)
    series = [np.array([float(v) for v in re.split(r"[\s,;|]+", run)]) for run in runs]
    series = [values for values in series if np.isfinite(values).all()]
    return max(series, key=len, default=None)


# --- readers: a match becomes claims ---
def _denied(match: Match, clause: str) -> bool:
    """Whether the match is denied: by itself, by words before it in its phrase, or by those after it."""
    before, after = clause[: match.start()], clause[match.end() :]
    listed = _LISTED.search(before.rpartition(",")[2] + match[0] + after)  # "no trend, noise or season"
    phrase = re.split(r"\band\b|\bwith\b" if listed else r",|\band\b|\bwith\b", before, flags=re.IGNORECASE)[-1]
    recent = " ".join([*phrase.split()[-6:], match[0]])
    return bool(_NEGATOR.search(recent) or _DENIED_AFTER.match(after))


def _category(value: str) -> Reader:
    def read(kind: str, match: Match, clause: str) -> Iterator[Claim]:
        yield Claim(kind, value, None, _denied(match, clause))

    return read


def _number(unit: str) -> Reader:
    def read(kind: str, match: Match, clause: str) -> Iterator[Claim]:
        phrase = clause[: match.start()].rpartition(",")[2] + " ".join(clause[match.end() :].split()[:3])
        if not (unit == "Hz" and _RECORDING.search(phrase)):
            yield Claim(kind, unit, _numbers(match), _denied(match, clause))

    return read


def _numbers(match: Match) -> tuple[float, ...]:
    groups = match.groupdict()
    ends = [end.lower() for end in (groups.get("a"), groups.get("b")) if end]
    return tuple(sorted(_WORDS.index(e) + 2.0 if e in _WORDS else float(e.replace(",", "")) for e in ends))


def _trend(value: str) -> Reader:
    def read(kind: str, match: Match, clause: str) -> Iterator[Claim]:
        before = " ".join(_JOINT.split(clause[: match.start()])[-1].split()[-3:])
        after = " ".join(_JOINT.split(clause[match.end() :])[0].split()[:2])
        if re.search(_SPREAD, f"{before} {after}", re.IGNORECASE):
            yield Claim("volatility", value, None, _denied(match, clause))
        # "a steady increase", "falls at a constant pace": the adjective is no claim of its own
        elif re.fullmatch("steady|constant", match[0], re.IGNORECASE) and _DIRECTED.search(clause):
            return
        elif not _OTHER_SUBJECT.search(f"{before} {after}") and (
            _WHOLE.search(clause) or not _LOCAL.search(clause)
        ):
            yield Claim(kind, value, None, _denied(match, clause))

    return read


def _turn(value: str) -> Reader:
    def read(kind: str, match: Match, clause: str) -> Iterator[Claim]:
        said = " ".join([*clause[: match.start()].split()[-3:], match[0]])
        if not (re.search(_SPREAD, said, re.IGNORECASE) or _OTHER_SUBJECT.search(said)):
            yield Claim(kind, value, None, _denied(match, clause))

    return read


def _no_trend(kind: str, match: Match, clause: str) -> Iterator[Claim]:
    """Read "no clear trend" as a flat one; a bare "trend" claims nothing."""
    if _denied(match, clause):
        yield Claim(kind, "flat")


def _period(kind: str, match: Match, clause: str) -> Iterator[Claim]:
    groups = match.groupdict()
    numbers = _numbers(match) if groups.get("a") else (1.0,)
    name = (groups.get("unit") or "sample").lower()
    unit = _UNITS.get(name) or _UNITS.get(name.rstrip("s")) or name.rstrip("s")
    if numbers[0] > 0:
        yield Claim(kind, unit if unit in SECONDS else "sample", numbers, _denied(match, clause))


def _intervals(kind: str, match: Match, clause: str) -> Iterator[Claim]:
    scale = SECONDS[_UNITS.get(match["unit"].lower(), "second")]
    yield Claim(kind, "second", tuple(scale * end for end in _numbers(match)), _denied(match, clause))


def _named_cycle(kind: str, match: Match, clause: str) -> Iterator[Claim]:
    yield Claim(kind, _NAMED_CYCLES[match["name"].lower()], (1.0,), _denied(match, clause))


def _change(kind: str, match: Match, clause: str) -> Iterator[Claim]:
    fold = match.groupdict().get("fold")
    if fold:
        ratio = {"doubl": 2.0, "tripl": 3.0, "quadrupl": 4.0, "halv": 0.5}[fold.lower()]
    else:
        sign = -1 if re.match(_DOWN, match[0], re.IGNORECASE) else 1
        ratio = 1 + sign * _numbers(match)[0] / 100
    if ratio > 0:
        yield Claim(kind, "ratio", (ratio,), _denied(match, clause))


def _at(kind: str, match: Match, clause: str) -> Iterator[Claim]:
    place = next(value for value, words in _PLACES.items() if re.match(words, match["place"], re.IGNORECASE))
    yield Claim(kind, place, None, _denied(match, clause))


def _named(group: str) -> Reader:
    """The category is the word itself: the name of a band or an axis."""

    def read(kind: str, match: Match, clause: str) -> Iterator[Claim]:
        yield Claim(kind, match[group].lower(), None, _denied(match, clause))

    return read


def _then(first: str, second: str) -> str:
    """ "rises, then falls", "an increase followed by a decline", "from upward to downward"."""
    after = r"(?:and\s+|but\s+)?(?:then|followed by|before)"
    return rf"\b{first}\b[^.;]{{0,40}}?\b{after}\b[^.;]{{0,30}}?\b{second}\b|\bfrom {first} to {second}\b"


# Kind, family, pattern, reader. Within a family the more specific rule stands first.
_TABLE: list[tuple[str, str, str, Reader]] = [
    # heart
    (
        "heart_rate",
        "rate",
        rf"(?<!atrial rate of )\b{_RANGE}\s*(?:bpm\b|beats\s*{_PER_MINUTE})",
        _number("per minute"),
    ),
    (
        "heart_rate",
        "rate",
        rf"\b(?:heart|ventricular)\s+rate\s+(?:\w+\s+)?{_ABOUT}{_RANGE}\b(?!\s*(?:%|ms|s\b|hz))",
        _number("per minute"),
    ),
    ("heart_rate", "rate", rf"\bbeats?\s+{_ABOUT}{_RANGE}\s+times\s+{_PER_MINUTE}", _number("per minute")),
    ("heart_rate", "rate", r"\bbradycardi[ac]\b|\bslow heart rate\b", _category("slow")),
    ("heart_rate", "rate", r"\btachycardi[ac]\b|\b(?:fast|rapid|elevated) heart rate\b", _category("fast")),
    (
        "heart_rate",
        "rate",
        r"\bnormal (?:heart )?rate\b|\bheart rate (?:is |appears |seems )?(?:within )?(?:the )?normal\b",
        _category("normal"),
    ),
    (
        "rhythm",
        "rhythm",
        r"\birregular\w*(?:\s+irregular)?\b|\batrial fibrillation\b|\bsinus arrhythmia\b",
        _category("irregular"),
    ),
    (
        "rhythm",
        "rhythm",
        r"\bregular(?:ly|ity)?\b(?=[^.]{0,30}\b(?:rhythm|rr|r-r|interval|beat|heart|spac))"
        r"|\b(?:rhythm|intervals?|beats?)\s+(?:[\w.]+\s+){0,6}?regular\b|\bsinus rhythm\b",
        _category("regular"),
    ),
    (
        "intervals",
        "intervals",
        rf"\b(?:rr|r-r)[- ]intervals?\s+(?:\w+\s+)?{_ABOUT}{_RANGE}\s*(?P<unit>ms|s(?:ec(?:onds?)?)?)\b",
        _intervals,
    ),
    # frequencies and periods
    ("cadence", "rate", rf"{_RANGE}\s*(?:steps|strides)\s*{_PER_MINUTE}", _number("per minute")),
    ("cadence", "rate", rf"{_RANGE}\s*(?:steps|strides)\s*{_PER_SECOND}", _number("Hz")),
    (
        "cadence",
        "rate",
        rf"\b(?:cadence|step(?:ping)? (?:frequency|rate))\s+{_ABOUT}{_RANGE}\s*(?:hz|hertz)\b",
        _number("Hz"),
    ),
    ("frequency", "rate", rf"(?<![\d.]){_RANGE}\s*(?:hz|hertz|cycles\s*{_PER_SECOND})", _number("Hz")),
    ("period", "period", rf"\bevery\s+{_ABOUT}{_COUNT}[\s-]*{_TIME}", _period),
    ("period", "period", r"\bevery\s+(?:single\s+)?(?P<unit>hour|day|week|month|quarter|year)\b", _period),
    (
        "period",
        "period",
        rf"\b(?:period\w*|season\w*|cycles?)(?:\s+length)?[\s:=]+(?:\w+\s+){{0,2}}?{_ABOUT}{_COUNT}[\s-]*{_TIME}",
        _period,
    ),
    ("period", "period", rf"\b{_COUNT}[\s-]*{_TIME}\s+(?:period\w*|season\w*|cycles?)\b", _period),
    (
        "period",
        "period",
        rf"\b(?:season\w*|period\w*|cycle)(?:\s+length)?\s*(?:of|is|=|:)\s*{_ABOUT}{_COUNT}"
        r"(?=\s*(?:[.,;)]|$|and\b|with\b))",
        _period,
    ),
    ("period", "period", rf"\b(?P<name>{'|'.join(_NAMED_CYCLES)})\s+(?:\w+\s+)?{_SEASON}", _named_cycle),
    ("season", "season", rf"\b{_SEASON}", _category("present")),
    # noise, spread, spikes
    (
        "noise",
        "noise",
        rf"\b{_LOW}{_AMOUNT}[- ]noise\b|\bsmooth(?:ly)?\b|\bnoise[- ](?:free|less)\b",
        _category("low"),
    ),
    ("noise", "noise", rf"\b{_HIGH}{_AMOUNT}[- ]noise\b|\bnoisy\b", _category("high")),
    ("noise", "noise", r"\b(?:moderate|some) noise\b|\bnoise (?:level )?is moderate\b", _category("moderate")),
    ("noise", "noise", rf"\bnoise (?:level )?is {_LOW}\b", _category("low")),
    ("noise", "noise", rf"\bnoise (?:level )?is {_HIGH}\b", _category("high")),
    (
        "outlier",
        "outlier",
        r"\b(?:outliers?|anomal(?:y|ies|ous)|(?:sudden|isolated) (?:spikes?|dips?|peaks?))\b",
        _category("present"),
    ),
    # movement
    (
        "intensity",
        "intensity",
        rf"\b{_LOW}{_AMOUNT}\s+{_MOVEMENT}|\blow[- ]intensity\b|\b(?:static|motionless|stationary|at rest)\b",
        _category("low"),
    ),
    (
        "intensity",
        "intensity",
        rf"\bmoderate{_AMOUNT}\s+{_MOVEMENT}|\bmoderate[- ]intensity\b",
        _category("moderate"),
    ),
    (
        "intensity",
        "intensity",
        rf"\b{_HIGH}{_AMOUNT}\s+{_MOVEMENT}|\bhigh[- ]intensity\b|\bvigorous(?:ly)?\b",
        _category("high"),
    ),
    ("gravity", "gravity", r"\bgravity\b[^.;]{0,40}?\b(?:shared|spread|split|divided)\b", _category("shared")),
    (
        "gravity",
        "gravity",
        r"\b(?:almost|nearly)\s+(?:all|wholly|entirely)\b[^.;]{0,20}?\bgravity\b"
        r"|\bgravity\b[^.;]{0,20}?\b(?:almost|nearly)\s+(?:all|wholly|entirely)\b",
        _category("whole"),
    ),
    ("gravity", "axis", r"\bgravity\b[^.;]{0,70}?\b(?P<axis>[xyz])[- ]axis\b", _named("axis")),
    # EEG
    (
        "band",
        "band",
        rf"\b{_BAND}(?:[- ](?:band|waves?|rhythm|activity|range|power))*\s+(?:\w+\s+)?{_STRONG}\b",
        _named("band"),
    ),
    ("band", "band", rf"\b{_STRONG}\s+(?:\w+[\s-]+){{0,3}}?{_BAND}\b", _named("band")),
    (
        "band",
        "band",
        r"\bslow[- ]wave (?:activity|sleep)\b|\bhigh[- ]amplitude,? (?:\w+ )?slow waves\b",
        _category("delta"),
    ),
    # turns, change, trend
    ("turn", "trend", _then(_UP, _DOWN), _turn("peak")),
    ("turn", "trend", _then(_DOWN, _UP), _turn("valley")),
    ("change", "trend", rf"\b{_UP}\s+(?:by\s+)?{_ABOUT}(?P<a>{_NUM})\s*(?:%|percent)", _change),
    ("change", "trend", rf"\b{_DOWN}\s+(?:by\s+)?{_ABOUT}(?P<a>{_NUM})\s*(?:%|percent)", _change),
    ("change", "trend", r"\b(?P<fold>doubl|tripl|quadrupl|halv)(?:es|ed|ing|e)\b", _change),
    ("trend", "trend", rf"\b{_UP}\b|\bpositive (?:trend|slope)\b", _trend("up")),
    ("trend", "trend", rf"\b{_DOWN}\b|\bnegative (?:trend|slope)\b", _trend("down")),
    ("trend", "trend", rf"\b{_FLAT}\b", _trend("flat")),
    ("trend", "trend", r"(?<!upward )(?<!downward )(?<!ing )(?<!ive )\btrend\b", _no_trend),
    # level
    ("mean", "mean", rf"\b(?:mean|average)(?:\s+(?:value|level))?\s+{_ABOUT}(?P<a>{_NUM})", _number("")),
    ("min", "min", rf"\bminimum(?:\s+value)?\s+{_ABOUT}(?P<a>{_NUM})", _number("")),
    ("max", "max", rf"\bmaximum(?:\s+value)?\s+{_ABOUT}(?P<a>{_NUM})", _number("")),
    ("max_at", "max_at", rf"\b(?:maximum|highest(?:\s+\w+)?|peaks?)\s+(?:\w+\s+){{0,2}}?{_PLACE}", _at),
    ("min_at", "min_at", rf"\b(?:minimum|lowest(?:\s+\w+)?|troughs?)\s+(?:\w+\s+){{0,2}}?{_PLACE}", _at),
]
_RULES = [(kind, family, re.compile(pattern, re.IGNORECASE), read) for kind, family, pattern, read in _TABLE]
