"""The words that claims are made of, as pieces of regular expressions, and the numbers in them."""

import re

SECONDS = {
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
    "week": 604800.0,
    "month": 2629746.0,
    "quarter": 7889238.0,
    "year": 31556952.0,
}
_UNITS = {"ms": "millisecond", "msec": "millisecond", "s": "second", "sec": "second", "min": "minute"}
_UNITS |= {"hr": "hour", "h": "hour"}
_SMALL = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
COUNTS = {word: float(number) for number, word in enumerate(_SMALL, 2)}
COUNTS |= {"twenty": 20.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "a dozen": 12.0}

# --- numbers and units ---
NUMBER = r"(?:(?<![\d.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?|(?<![\d.])\.\d+)"
ABOUT = (
    r"(?:(?:about|around|approximately|approx\.?|roughly|nearly|almost|close to|some|circa|ca\.|of"
    r"|is|was|are|at|equals?|amounts? to|comes? to|reads?|between|from|near|not|lies|stands|sits"
    r"|averages|exactly|just|~|≈|=|:)\s*)*"
)
_JOIN = r"\s*(?:-|–|—|to|and|up to)\s*"
RANGE = rf"(?P<a>{NUMBER})(?:{_JOIN}(?P<b>{NUMBER}))?"
_COUNTED = rf"{NUMBER}|{'|'.join(COUNTS)}"
COUNT = rf"(?P<a>{_COUNTED})(?:{_JOIN}(?P<b>{_COUNTED}))?"
TIME = (
    r"(?P<unit>samples?|(?:time[- ]?)?steps?|(?:data[- ]?|sample |time[- ]?)?points?|observations?"
    r"|measurements?|readings?|values|time units?|ms|msecs?|milliseconds?|s|secs?|seconds?|mins?"
    r"|minutes?|hrs?|hours?|days?|weeks?|months?|quarters?|years?)\b(?!\s*(?:/|per|each|an?)\s*(?:s"
    r"|sec|second|min|minute)\b)"
)
PER_MINUTE = r"(?:per|/|a|each|every)\s*min(?:ute)?\b"
PER_SECOND = r"(?:per|/|a|each|every)\s*s(?:ec(?:ond)?)?\b"

# --- direction ---
_GO = (
    r"(?:ramp(?:s|ed|ing)?|shoots?|tick(?:s|ed)?|push(?:es|ed)?|go(?:es|ing)?|went|mov(?:es?|ed|ing)"
    r"|head(?:s|ed|ing)?|trend(?:s|ed|ing)?|drift(?:s|ed|ing)?"
)
_GO += (
    r"|creep(?:s|ing)?|crept|edg(?:es?|ed|ing)|slop(?:es?|ed|ing)|point(?:s|ed|ing)?|work(?:s|ed"
    r"|ing) (?:its|their) way"
)
_GO += r"|tend(?:s|ed|ing)?|run(?:s|ning)?|keeps? going|keep(?:s|ing)?)"
_BECOME = (
    r"(?:gets?|got|getting|becom(?:es?|ing)|became|turn(?:s|ing)? out|end(?:s|ed|ing)?(?: up)?|finish(?:es|ed)?)"
)
UP = (
    r"(?:upwards?|increas(?:e|es|ed|ing|ingly)|ris(?:e|es|ing|en)|rose|grow(?:s|th|ing|n)?|grew"
    r"|climb(?:s|ed|ing)?|ascend(?:s|ed|ing)?|ascent|uptrend|soar(?:s|ed|ing)?|surg(?:es?|ed|ing)"
    r"|mount(?:s|ed|ing)|escalat(?:es?|ed|ing)|pick(?:s|ed|ing)? up|gain(?:s|ing)? (?:height|ground"
    rf"|value)|gains?(?= (?:steadily|over|throughout))|{_GO} (?:\w+ly )?(?:up(?:wards?|hill)?"
    rf"|higher)\b|{_BECOME} (?:\w+ly )?(?:larger|higher|bigger|greater)\b|(?:higher and higher"
    r"|larger and larger|ever (?:higher|larger)|ever-(?:higher|larger)))"
)
DOWN = (
    r"(?:downwards?|decreas(?:e|es|ed|ing|ingly)|declin(?:e|es|ed|ing)|fall(?:s|ing|en)?|fell"
    r"|descend(?:s|ed|ing)?|descent|downtrend|shr[iau]nk(?:s|ing)?|drop(?:s|ped|ping)?|sink(?:s"
    r"|ing)?|sank|decay(?:s|ed|ing)?|dwindl(?:es?|ed|ing)|diminish(?:es|ed|ing)?|slid(?:es?|ing)"
    r"|wan(?:es|ed|ing)|reduc(?:es|ed|ing|tion)|lessen(?:s|ed|ing)?|los(?:es|ing) (?:height|ground"
    r"|value)|plung(?:es?|ed|ing)|plummet(?:s|ed|ing)?|slump(?:s|ed|ing)?|subsid(?:es?|ed|ing)"
    rf"|{_GO} (?:\w+ly )?(?:down(?:wards?|hill)?|lower)\b|{_BECOME} (?:\w+ly )?(?:smaller|lower)\b"
    r"|(?:lower and lower|smaller and smaller|ever (?:lower|smaller)|ever-(?:lower|smaller)))"
)
FLAT = r"(?:flat|stable|steady|constant|stationary|unchanged|unchanging|horizontal|sideways|trendless|trend-free)"
STEADILY = (
    r"(?:,?\s+(?:and|but)\s+(?:steady|constant|stable)\b|\s+at\s+an?\s+(?:\w+\s+)?(?:steady|constant"
    r"|even|uniform|stable)\s+(?:pace|rate|speed))?"
)
ADVERB = (
    r"(?:(?!moderately|slightly|mildly|weakly|normally)\w+ly\s+|more\s+or\s+less\s+|very\s+|quite\s+"
    r"|rather\s+|fairly\s+|pretty\s+|clearly\s+|too\s+|so\s+)?"
)
IS = (
    r"(?:(?:(?:does|do|did)(?:n['’]t| not)\s+)?(?:is|are|was|were|looks?|seems?|appears?|stays?"
    r"|remains?|keeps?|be|being|becomes?|feels?)(?:n['’]t)?|=|:)(?:\s+to\s+be)?(?:\s+(?:never|always"
    r"|still|rather|overall|generally|mostly|all|both|not))*"
)

# --- amounts ---
SPREAD = (
    r"(?:swings?|amplitudes?|volatility|varian(?:ce|ces)|variability|fluctuations?|spread|dispersion"
    r"|oscillations?|standard deviation|scatter|variations?|range of variation|ups and downs)"
)
LOW = r"(?:very low|low|little|minimal|small|tiny|slight|weak|negligible|faint|minor|modest|faintest|limited)"
NEXT_TO_NO = (
    r"(?:(?:hardly|barely|scarcely) any|(?:almost|next to|virtually|practically|nearly) no|not much"
    r"|without(?: any)?)"
)
HIGH = (
    r"(?:high|strong|considerable|substantial|significant|heavy|large|much|a lot of|lots of"
    r"|plenty of|a great deal of|intense|vigorous|loud|severe|great|big|pronounced|marked|extreme)"
)
MODERATE = r"(?:moderate|medium|some|intermediate|average|middling|a moderate amount of|mid-level)"
AMOUNT = r"(?:[- ](?:level|levels|intensity|amplitude|magnitude|amount|amounts|impact|degree)s?)?(?:\s+of)?"
STRONG = (
    r"(?:(?:pre)?domina(?:nt|nce|tes?|ted|ting|ntly)|prominent|strong(?:est|ly)?|prevail\w*|abundant"
    r"|high(?:est)?|a lot of|lots of|plenty of|much|rich in|full of|mainly|mostly|chiefly|primarily"
    r"|considerable|pronounced|marked|powerful|stands? out|stood out|main|largest|most power(?:ful)?"
    r"|leads?|leading|biggest|richest)"
)

# --- repetition ---
SEASON = (
    r"(?:season(?:s|al|ality|ally)?|periodic(?:ity|ally|al)?|cycl(?:e|es|ic|ical|icality|ically)"
    r"|repeating|repeats?|repeated|repetitive|repetition|recurs|recurring|recurrent|oscillat(?:es?"
    r"|ing|ion|ions|ory)|rhythmic(?:ally)?|waves?like)\b"
)
NAMED_CYCLES = {
    **{"yearly": "year", "annual": "year", "quarterly": "quarter", "monthly": "month", "weekly": "week"},
    **{"daily": "day", "diurnal": "day", "hourly": "hour", "annually": "year", "circadian": "day"},
}
PLACE = (
    r"(?:(?:near|at|in|towards?|during|around|close to|within|by|right at|on|to)\s+(?:the"
    r"|its)\s+(?:very\s+|exact\s+)?(?P<place>beginning|start|first|early|middle|mid\w*|cent(?:er|re)"
    r"|end|last|later?|final|opening|closing)\b|(?:comes?|is|lies|occurs?|found|reached|right"
    r"|appears?|falls|only)\s+(?:very\s+|right\s+|about\s+|roughly\s+)?(?P<place2>first|last|early"
    r"|late|half-?way|midway|centrally)\b)"
)
_PLACES = {
    "start": "begin|start|first|early|opening",
    "middle": "mid|cent|half",
    "end": "end|last|late|final|closing",
}


def numbers(match: re.Match[str]) -> tuple[float, ...] | None:
    """The numbers of the groups `a` and `b`, ascending; None where there are none."""
    groups = match.groupdict()
    ends = [" ".join(end.lower().split()) for end in (groups.get("a"), groups.get("b")) if end]
    if not ends:
        return None
    return tuple(
        sorted(COUNTS[end] if end in COUNTS else float(end.replace(",", "").replace("−", "-")) for end in ends)
    )


def unit(name: str | None) -> str:
    """The unit of time that a word of `TIME` means; "sample" for those that count samples."""
    plain = (name or "sample").lower()
    singular = plain.rstrip("s")
    found = _UNITS.get(plain) or _UNITS.get(singular) or singular
    return found if found in SECONDS else "sample"


def place(match: re.Match[str]) -> str:
    """ "start", "middle" or "end": what a match of `PLACE` means."""
    groups = match.groupdict()
    word = groups.get("place") or groups["place2"]
    return next(value for value, words in _PLACES.items() if re.match(words, word, re.IGNORECASE))
