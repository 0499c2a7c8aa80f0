"""Claims about a series as a whole: where it heads, whether it turns, and what repeats."""

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.grades import TOLERANCE, close, direction, line_of_period, ramp
from mlx_tslm.rewards.claims.lexicon import (
    ABOUT,
    ADVERB,
    COUNT,
    DOWN,
    FLAT,
    IS,
    NAMED_CYCLES,
    NUMBER,
    SEASON,
    STEADILY,
    TIME,
    UP,
    numbers,
    unit,
)
from mlx_tslm.rewards.facts.signal import SignalFacts, change_ratio

# --- trend ---
_LEVEL = (
    r"(?:it|(?:the|its) (?:\w+ )?(?:mean|average|baseline|series|signal|values?|level|data|curve"
    r"|line|measurements?|readings?|recording))"
)
_FIRST = (
    r"(?:(?:it|the series)\s+)?(?:start(?:s|ed)?|beg[iau]n(?:s)?|at (?:the|its) (?:start|beginning)"
    r"|in the beginning)"
)
_COURSE = r"(?:trend|slope|drift|tendency|direction|trajectory|course|path)"

_LATE, _EARLY = r"(?:later|final|last|end(?:ing)?)", r"(?:earlier|first|initial|beginning|start(?:ing)?)"
_ABOVE, _BELOW = r"(?:higher|larger|greater|above|bigger|exceeds?)", r"(?:lower|smaller|below)"
_PERCENT = r"\s*(?:%|per ?cent)"


def _compared(one: str, relation: str, other: str) -> str:
    return rf"\b{one}\b[^.;]{{0,30}}?\b{relation}\b[^.;]{{0,30}}?\b{other}\b"


def _signed_trend(facts: SignalFacts) -> tuple[float, float]:
    """How far it turns, and the trend's strength with the sign of its slope."""
    return facts.turn, float(np.sign(facts.trend.slope)) * facts.trend.strength


def _agrees_on_trend(claim: Claim, measured: Any) -> float:
    turn, strength = measured
    straight = 1.0 - ramp(abs(turn), 0.08, 0.25)
    return straight * direction(claim.value, strength, 0.08, 0.25)


_up, _down, _flat = (Claim("trend", value) for value in ("up", "down", "flat"))
_directed = rf"\b(?:{UP}|{DOWN})\b"

TREND = Entry(
    kind="trend",
    sayings=(
        Saying(rf"\b(?:(?:steady|constant|stable)\s+)?{UP}\b{STEADILY}", "up", whole=True),
        Saying(rf"\b(?:(?:steady|constant|stable)\s+)?{DOWN}\b{STEADILY}", "down", whole=True),
        Saying(
            rf"\b(?:positive|rising|upwards?|bullish)\s+(?:[\w'’-]+\s+)?(?:{_COURSE}|movement|motion"
            r"|development|evolution)\b",
            "up",
            whole=True,
        ),
        Saying(
            rf"\b(?:negative|falling|downwards?|bearish)\s+(?:[\w'’-]+\s+)?(?:{_COURSE}|movement|motion"
            r"|development|evolution)\b",
            "down",
            whole=True,
        ),
        Saying(
            rf"\b{_COURSE}\s*(?:{IS}|points|goes|heads|runs|leads)\s*{ADVERB}(?:up(?:wards?|hill)?|positive)\b",
            "up",
            whole=True,
        ),
        Saying(
            rf"\b{_COURSE}\s*(?:{IS}|points|goes|heads|runs|leads)\s*{ADVERB}(?:down(?:wards?|hill)?|negative)\b",
            "down",
            whole=True,
        ),
        Saying(
            rf"\bends?(?:ed)?\s+(?:up\s+)?{ADVERB}(?:higher|above)\s+(?:than\s+)?(?:where\s+)?(?:it"
            rf"|the series|at)?\s*{_FIRST}",
            "up",
        ),
        Saying(
            rf"\bends?(?:ed)?\s+(?:up\s+)?{ADVERB}(?:lower|below)\s+(?:than\s+)?(?:where\s+)?(?:it|the series"
            rf"|at)?\s*{_FIRST}",
            "down",
        ),
        Saying(
            r"\b(?:higher|larger|greater) (?:at the end|later|in the end) than (?:at|in|it|earlier"
            r"|before)\b(?: the)?(?: (?:start|beginning))?",
            "up",
        ),
        Saying(
            r"\b(?:lower|smaller) (?:at the end|later|in the end) than (?:at|in|it|earlier"
            r"|before)\b(?: the)?(?: (?:start|beginning))?",
            "down",
        ),
        Saying(
            rf"\b{FLAT}\b(?! (?:pace|rate|speed|rhythm|heart))", "flat", unless=rf"noise|{_directed}", whole=True
        ),
        Saying(
            rf"\b{_LEVEL}\s*{IS}\s*{ADVERB}(?:{FLAT}|where it is|the same|put|level)\b",
            "flat",
            unless=rf"noise|{_directed}",
            whole=True,
        ),
        Saying(
            rf"\b{_COURSE}\s*{IS}\s*{ADVERB}(?:flat|level|zero|sideways|horizontal|neutral)\b", "flat", whole=True
        ),
        Saying(
            rf"\b{IS}\s+{ADVERB}(?:level|the same|on (?:the same|one) level|at (?:the same|one) level)\b",
            "flat",
            whole=True,
        ),
        Saying(
            rf"\b{_LEVEL}\s+(?:[\w'’-]+\s+)?(?:does|do|did)(?:n['’]t| not)\s+(?:\w+ly\s+|much\s+)?(?:change"
            r"|drift|move|go anywhere|trend)\b",
            "flat",
            denies=True,
            whole=True,
        ),
        Saying(
            r"\b(?:no|without|hardly any|barely any|little) (?:\w+ )?(?:change|drift) (?:in"
            r"|of) (?:\w+ )?(?:level|mean|value)\b",
            "flat",
            denies=True,
        ),
        Saying(
            r"\b(?:stay|remain|hover|keep|fluctuate|vary|varie|oscillate|swing"
            r"|move)s?\s+(?:[\w'’-]+\s+)?(?:around|about|near|close to|at|on)\s+(?:a|an|the same"
            r"|one)\s+(?:[\w'’-]+\s+)?(?:level|mean|value|average)\b",
            "flat",
        ),
        Saying(
            _compared(_LATE, _ABOVE, _EARLY)
            + "|"
            + _compared(_EARLY, _BELOW, _LATE)
            + r"|\bstarts? (?:out |off )?(?:low|small)\b[^.;]{0,20}?\bends? (?:up )?(?:high|large|big)\b",
            "up",
            unless=_PERCENT,
        ),
        Saying(
            _compared(_LATE, _BELOW, _EARLY)
            + "|"
            + _compared(_EARLY, _ABOVE, _LATE)
            + r"|\bstarts? (?:out |off )?(?:high|large|big)\b[^.;]{0,20}?\bends? (?:up )?(?:low|small)\b",
            "down",
            unless=_PERCENT,
        ),
        Saying(
            rf"\b(?:an?|some|clear) (?:[\w-]+ )?{_COURSE} (?:is|can be|was|could be) (?:\w+ly )?(?:visible"
            r"|seen|evident|present|apparent|there|found|observed|recogni[sz]able|obvious|clear|detected"
            r"|discernible)\b",
            "flat",
            denies=True,
            unless=_directed,
        ),
        Saying(
            rf"\b{_LEVEL}\s+(?:does change|changes|shifts|drifts)(?! (?:up|down))\b",
            "flat",
            denies=True,
            whole=True,
        ),
        Saying(
            r"\b(?:keeps?|holds?|maintains?) (?:its|the same|a constant|one) (?:level|value|mean|average)\b",
            "flat",
            whole=True,
        ),
        Saying(
            rf"\b(?:the|its|this) (?:\w+ )?trend\s*{IS}\s*{ADVERB}(?:clear|obvious|evident|visible|strong"
            r"|pronounced|significant)\b",
            "flat",
            denies=True,
            unless=_directed,
        ),
        Saying(
            r"\b(?:long[- ]term|overall|systematic|net|lasting|general|permanent) changes?\b",
            "flat",
            denies=True,
            only_denied=True,
        ),
        Saying(r"\b(?:go(?:es)?|going|moves?|swings?|bounces?) up and down\b", None),
        Saying(rf"\bneither (?:{UP} n?or {DOWN}|{DOWN} n?or {UP})\b", "flat", denies=True, whole=True),
        Saying(
            r"\b(?:there (?:is|was)(?: \w+ly)?|has|have|shows?|exhibits?|displays?|contains?"
            rf"|follows?) (?:an?|some) (?:\w+ ){{0,2}}{_COURSE}\b",
            "flat",
            denies=True,
            unless=_directed,
        ),
        Saying(
            r"(?<!upward )(?<!downward )(?<!ing )(?<!ive )\b(?:long[- ]term |overall )?(?:trend|drift"
            r"|tendency|direction)\b",
            "flat",
            denies=True,
            only_denied=True,
        ),
        Saying(
            r"\bheart rate\b|\bincreas\w+ (?:risk|chance)\b|\brise time\b|\b(?:it|this) (?:gives|gave) rise to\b",
            None,
        ),
    ),
    measure=_signed_trend,
    agrees=_agrees_on_trend,
    examples={
        "The trend is up.": _up,
        "There is no doubt that it rises.": _up,
        "The series shows a clear upward trend.": _up,
        "Values are growing steadily.": _up,
        "It goes up.": _up,
        "(b) increasing": _up,
        "It ends higher than it started.": _up,
        "It rises at a constant pace.": _up,
        "The trend is upward and steady.": _up,
        "The signal is drifting upwards.": _up,
        "That the series grows cannot be denied.": _up,
        "Its decline is not significant.": Claim("trend", "down", negated=True),
        "The series goes down.": _down,
        "A steady decline is seen.": _down,
        "The values get smaller and smaller.": _down,
        "Overall, it falls from the beginning to the end.": _down,
        "The slope is negative.": _down,
        "The values are not increasing.": Claim("trend", "up", negated=True),
        "It fails to rise.": Claim("trend", "up", negated=True),
        "There is no clear trend.": _flat,
        "It stays flat.": _flat,
        "The level does not change.": _flat,
        "The values hover around a constant level.": _flat,
        "The series is trendless.": _flat,
        "There is a clear trend.": Claim("trend", "flat", negated=True),
        "Trend: none.": _flat,
    },
    counterexamples=(
        "The series rises initially, then falls towards the end.",
        "The noise increases.",
        "An increase in heart rate is seen.",
        "A trend may be asked for.",
        "Does it rise?",
        "It is unclear whether the series grows.",
        "It contains stationary noise.",
        "at a steady pace",
        "The variance is decreasing.",
        "It will rise.",
    ),
)


# --- turn ---
_RISE = rf"(?:{UP}|up|recover(?:s|ed|y)?|rebounds?|com(?:es|ing) (?:back )?up)"
_FALL = rf"(?:{DOWN}|down|recedes?|com(?:es|ing) (?:back )?down)"


_LATER = re.compile(
    r"\b(?:peaks?|bottoms? out|turns?|then|followed by|before|thereafter|afterwards|after (?:that"
    r"|which|this)|later|until|till|up to|next|finally|subsequently|eventually|first|at first"
    r"|initially|in the (?:first|second) half|toward the end|towards the end|early on|to begin with"
    r"|turns? (?:in)?to|changes? (?:in)?to|reverses?|switch(?:es)?|ends? (?:by|with)|gives? way to"
    r"|and back|from (?:there|then)|(?:to|till|until|in) the middle|halfway|from\b.*\bto)\b|→|->",
    re.IGNORECASE,
)


def _then(first: str, second: str) -> str:
    """ "rises, then falls", "an increase followed by a decline", "grows at first and shrinks later"."""
    return (
        r"(?P<before>\b(?:first|at first|initially|starts? (?:by|out|off|with)|begins? (?:by|with)"
        r"|to begin with|early on|in the first half"
        rf"|from)\b[^.;]{{0,30}}?)?\b(?P<said>{first})\b(?P<between>[^.;]{{0,45}}?)\b"
        rf"(?P<said2>{second})\b(?P<behind>[^.;]{{0,12}}?\b(?:later|afterwards|thereafter|then|after that"
        r"|again|in the (?:second|last) half|subsequently|towards the end|in the end)\b)?|\bafter (?:an?"
        rf"|its|the)?\s*(?:\w+ )?(?P<said3>{first}),? (?:it|the \w+) (?P<said4>{second})\b"
    )


def _turned(value: str) -> Callable[[Match], Stated | None]:
    """What rises and falls turns, if something says that one comes after the other."""

    def stated(match: Match) -> Stated | None:
        after = match["said3"] or match["behind"] or _LATER.search(f"{match['before'] or ''} {match['between']}")
        return (value, None) if after else None

    return stated


_HILL = r"(?:(?:inverted|inverse|upside[- ]down) (?:u|v)|hill|hump|arch|dome|bump|tent|mountain|bell|rainbow)"
_DALE = r"(?:u|v|valley|bowl|trough|cup|basin|dip)"
_LIKE = r"(?:looks? like|resembles?|(?:shape|form) of|forms|describes|is like|has|shaped like|traces)"
_peak, _valley = Claim("turn", "peak"), Claim("turn", "valley")
_OTHER = (
    r"\b(?:amplitude|swings?|volatility|variance|noise|frequency|rate|intervals?|each|every|waves?"
    r"|beats?|cycles?|power)\b"
)

TURN = Entry(
    kind="turn",
    sayings=(
        Saying(_then(_RISE, _FALL), _turned("peak"), unless=_OTHER),
        Saying(_then(_FALL, _RISE), _turned("valley"), unless=_OTHER),
        Saying(rf"\b{_HILL}[- ](?:shaped?|like)\b|\b{_LIKE} an? (?:\w+ )?{_HILL}\b", "peak"),
        Saying(
            rf"(?<!inverted )(?<!down )\b{_DALE}[- ](?:shaped?|like)\b|\b{_LIKE} an? (?:deep |wide "
            rf"|broad )?{_DALE}\b",
            "valley",
        ),
        Saying(rf"\b{DOWN}\s+(?:\w+\s+)?after\s+(?:an?\s+)?(?:\w+\s+){{0,2}}?{UP}\b", "peak", unless=_OTHER),
        Saying(rf"\b{UP}\s+(?:\w+\s+)?after\s+(?:an?\s+)?(?:\w+\s+){{0,2}}?{DOWN}\b", "valley", unless=_OTHER),
    ),
    measure=attrgetter("turn"),
    agrees=lambda claim, turn: ramp(turn if claim.value == "peak" else -turn, 0.08, 0.25),
    examples={
        "It rises, then falls.": _peak,
        "First it rises, then it falls.": _peak,
        "The trend turns from upward to downward.": _peak,
        "The values increase and then decrease.": _peak,
        "It grows at first and declines later.": _peak,
        "It goes up before it goes down.": _peak,
        "It has an inverted U shape, hump-like.": _peak,
        "An increase is followed by a decrease.": _peak,
        "(a) a fall, then a rise": _valley,
        "A gradual decline followed by a sharp increase.": _valley,
        "It falls in the first half and rises in the second.": _valley,
        "The series is U-shaped.": _valley,
        "It drops, then climbs.": _valley,
        "It does not rise and then fall.": Claim("turn", "peak", negated=True),
        "It rises after a decline.": _valley,
    },
    counterexamples=(
        "The amplitude rises, then falls.",
        "The noise rises, then falls.",
        "It rises.",
        "It rises and never falls.",
        "Each beat rises, then falls.",
        "Does it rise, then fall?",
    ),
)


# --- season ---
_there = Claim("season", "present")
_none = Claim("season", "present", negated=True)


def _agrees_on_season(claim: Claim, measured: Any) -> float:
    # What a short series of noise has by chance is no season: see `find_season`.
    strength, length = measured
    zero = max(0.15, 2.8 / np.sqrt(length))
    return ramp(strength, zero, zero + 0.25)


SEASON_ENTRY = Entry(
    kind="season",
    sayings=(
        Saying(rf"\b{SEASON}", "present", unless=r"sleep|step|gait|heart|sinus|steps|alpha|delta|theta|per second"),
        Saying(
            r"\b(?:aperiodic|nonperiodic|unperiodic|nonseasonal|acyclic|noncyclic\w*|season-?less)\b",
            "present",
            denies=True,
        ),
        Saying(
            r"\b(?:the same|one|a|an identical|a fixed|some)\s+(?:[\w'’-]+\s+)?(?:pattern|shape|form|motif"
            r"|cycle)\s+(?:comes back|returns|occurs|appears|shows up|comes)\s+(?:again|over|time|regularly"
            r"|at regular)",
            "present",
        ),
        Saying(
            r"\b(?:comes|come|returns?) back (?:again and again|over and over|regularly|at regular intervals)\b",
            "present",
        ),
        Saying(
            r"\b(?:again and again|over and over(?: again)?|at regular intervals|in regular cycles)\b",
            "present",
            unless="beat|heart|rhythm|step",
        ),
        Saying(
            r"\b(?:regular|recurrent|repeated|repeating|repetitive|periodic|seasonal"
            r"|cyclical?)\s+(?:[\w'’-]+\s+)?(?:pattern|cycles?|swings?|waves?|peaks|structure|behaviou?r"
            r"|component|oscillations?|ups and downs)\b",
            "present",
        ),
    ),
    measure=lambda facts: (facts.season.strength, len(facts.main)),
    agrees=_agrees_on_season,
    number_of="period",
    examples={
        "The cycles are evident.": _there,
        "It is seasonal.": _there,
        "A pattern repeats.": _there,
        "There is a periodic component.": _there,
        "It oscillates.": _there,
        "The same pattern comes back again and again.": _there,
        "A clear seasonality is visible.": _there,
        "The series is undoubtedly periodic.": _there,
        "It shows regular swings.": _there,
        "There is no clear seasonality and the trend is upward.": _none,
        "Seasonality is absent.": _none,
        "The series isn't periodic.": _none,
        "no trend, noise or seasonality": _none,
        "Nothing repeats.": _none,
        "No pattern repeats.": _none,
        "There is no season.": _none,
        "The series is aperiodic.": _none,
        "It does not repeat.": _none,
    },
    counterexamples=(
        "It repeats every 12 samples.",
        "It has a season of 12 samples.",
        "Is there a season?",
        "A 12-month seasonal cycle.",
        "The trend is up.",
        "The heart beats in a steady rhythm.",
    ),
)


# --- period ---
def _period(match: Match) -> Stated | None:
    stated = numbers(match) or (1.0,)
    return (unit(match.groupdict().get("unit")), stated) if stated[0] > 0 else None


def _named(match: Match) -> Stated | None:
    return NAMED_CYCLES[match["name"].lower()], (1.0,)


def _every_other(match: Match) -> Stated | None:
    return unit(match["unit"]), (2.0,)


def _agrees_on_period(claim: Claim, facts: SignalFacts) -> float | None:
    length = len(facts.main)
    lines = cycles = line_of_period(claim, facts.rate)
    periods = [1 / line for line in lines if line * length >= 2]
    if not periods:
        # One that the recording cannot even hold once is a guess; of one that it holds once it cannot tell.
        return 0.0 if cycles and min(1 / line for line in cycles) > length else None
    return max(ramp(season.strength, 0.15, 0.35) * _near(periods, season.period) for season in facts.seasons)


def _near(claimed: list[float], period: float) -> float:
    """Agreement of the best of some periods, samples; rounding to whole samples is no error."""
    if not np.isfinite(period):
        return 0.0
    return max(close([one], period, max(TOLERANCE, 0.5 / period)) for one in claimed)


def _itself(facts: SignalFacts) -> SignalFacts:
    return facts


def _every(number: float, unit: str = "sample") -> Claim:
    return Claim("period", unit, (number,))


_CYCLE = r"(?:period(?:icity)?s?|season\w*|cycles?|wave ?lengths?|repeat(?:s|ing)?|repetitions?)"

PERIOD = Entry(
    kind="period",
    sayings=(
        Saying(
            rf"(?:\b(?:{SEASON})\s+(?:[\w'’-]+\s+){{0,2}}?)?\bevery\s+{ABOUT}{COUNT}(?:st|nd|rd|th)?[\s-]*{TIME}",
            _period,
        ),
        Saying(
            rf"(?:\b(?:{SEASON})\s+)?\b(?:every|each|once an?|once every|once per"
            r"|per)\s+(?:single\s+)?(?P<unit>hour|day|week|month|quarter|year)\b",
            _period,
        ),
        Saying(
            r"\bevery (?:other|second) (?P<unit>samples?|steps?|points?|hours?|days?|weeks?|months?|years?)\b",
            _every_other,
        ),
        Saying(
            rf"\b{_CYCLE}(?:\s+(?:length|duration))?[\s:=]+(?:(?!no\b"
            rf"|every\b)[a-z]+\s+){{0,3}}?{ABOUT}{COUNT}[\s-]*{TIME}",
            _period,
            unless=r"\bhz\b",
        ),
        Saying(rf"\b{COUNT}[\s-]*{TIME}(?:[- ]long)?\s+(?:[\w'’-]+\s+)?{_CYCLE}\b", _period),
        Saying(
            rf"\b(?:season\w*|period\w*|cycle)(?:\s+length)?\s*(?:of|is|=|:)?\s*{ABOUT}{COUNT}(?=\s*(?:[.,;)]"
            r"|$|and\b|with\b))",
            _period,
        ),
        Saying(
            r"\b(?:repeats?|recurs?|comes? back|returns?|repeating|recurring|oscillat\w+"
            rf"|cycles?)\s+(?:[\w'’-]+\s+){{0,3}}?(?:after|with(?:in)?|at intervals of|over)\s+(?:every\s+"
            rf"|a\s+(?:period|cycle)\s+of\s+)?{ABOUT}{COUNT}[\s-]*{TIME}",
            _period,
        ),
        Saying(
            r"\b(?:one|each|a|every|a full|a whole|a single|one full)\s+(?:cycle|period|season|oscillation"
            r"|repetition|wave)\s+(?:takes?|lasts?|spans?|covers?|has"
            rf"|needs?)\s+(?:[\w'’-]+\s+)?{ABOUT}{COUNT}[\s-]*{TIME}",
            _period,
        ),
        Saying(
            r"\b(?:peaks?|crests?|maxima|troughs?|minima|cycles?"
            rf"|waves?)\s+(?:[\w'’-]+\s+){{0,3}}?{ABOUT}{COUNT}[\s-]*{TIME}\s+(?:apart|from each other|long"
            r"|from one another)",
            _period,
        ),
        Saying(
            rf"\b(?:distance|spacing|gap|time) between\s+(?:[\w'’-]+\s+){{0,2}}?(?:peaks?|crests?|maxima"
            rf"|cycles?|repetitions?|repeats)\s+{ABOUT}{COUNT}[\s-]*{TIME}",
            _period,
            unless=r"\b(?:heart ?)?beats?\b|r[- ](?:peaks|waves)|heart",
        ),
        Saying(
            rf"\b{_CYCLE}\b[^.;\d]{{0,25}}?\b(?:length|duration|period|spacing) (?:of"
            rf"|is) {ABOUT}{COUNT}[\s-]*{TIME}",
            _period,
        ),
        Saying(
            rf"\b{COUNT}[\s-]*{TIME}\s+(?:per|in (?:each|every|an?|one)|for (?:each|an?|one)"
            rf"|between) (?:full |complete |single |two )?(?:{_CYCLE}|peaks)\b",
            _period,
        ),
        Saying(
            r"\b(?:completes?|makes?) (?:one|a) (?:full |whole )?cycle (?:every|in|within"
            rf"|per) {ABOUT}{COUNT}[\s-]*{TIME}",
            _period,
        ),
        Saying(
            rf"\btakes? {ABOUT}{COUNT}[\s-]*{TIME} (?:for|to complete|to go through) (?:an?|one"
            rf"|each) (?:full |whole )?(?:{_CYCLE}|round)\b",
            _period,
        ),
        Saying(
            rf"\b(?:after|every)\s+(?:every\s+)?{ABOUT}{COUNT}[\s-]*{TIME},? (?:it|the \w+(?: \w+)?|a new \w+"
            r"|everything|one cycle) (?:\w+ly )?(?:starts? (?:again|over|anew)|repeats?|comes? back|returns?"
            r"|recurs?|begins? (?:again|anew)|is (?:over|complete))",
            _period,
        ),
        Saying(
            rf"\b(?P<name>{'|'.join(NAMED_CYCLES)})\s+(?:[\w'’-]+\s+)?(?:{SEASON}|pattern\b|swings?\b|rhythm\b)",
            _named,
        ),
        Saying(rf"\b(?:{_CYCLE}|pattern)\s+(?:is\s+)?(?P<name>{'|'.join(NAMED_CYCLES)})\b", _named),
    ),
    measure=_itself,
    agrees=_agrees_on_period,
    line=line_of_period,
    examples={
        "It repeats every 12 months.": _every(12, "month"),
        "a peak every ~7 days": _every(7, "day"),
        "repeating every twelve samples": _every(12),
        "The pattern repeats every 0.5 seconds": _every(0.5, "second"),
        "a 12-month seasonal cycle": _every(12, "month"),
        "with a season of 12.": _every(12),
        "The seasonal period is about 24 time steps.": _every(24),
        "Period: 24 samples.": _every(24),
        "a yearly cycle": _every(1, "year"),
        "One cycle takes 20 samples.": _every(20),
        "The peaks are about 15 samples apart.": _every(15),
        "The same shape comes back after 30 points.": _every(30),
        "It repeats itself every day.": _every(1, "day"),
        "It oscillates with a period of roughly 9 observations.": _every(9),
        "Its period is not 7 samples.": Claim("period", "sample", (7.0,), negated=True),
        "The cycle length is between 10 and 14 samples.": Claim("period", "sample", (10.0, 14.0)),
    },
    counterexamples=(
        "The cadence is about 2 steps per second, a periodic gait.",
        "about 2 steps per second",
        "The recording is 10 s long.",
        "It has 240 samples.",
        "It is seasonal.",
        "Does it repeat every 12 samples?",
        "The season is strong.",
        "The cycle has a cadence of 2 steps per second.",
    ),
)


# --- change ---
def _percent(match: Match) -> Stated | None:
    sign = -1 if re.match(DOWN, match[0], re.IGNORECASE) or match.groupdict().get("less") else 1
    ratio = 1 + sign * (numbers(match) or (0.0,))[0] / 100
    return ("ratio", (ratio,)) if ratio > 0 else None


def _fold(match: Match) -> Stated | None:
    return "ratio", ({"doubl": 2.0, "tripl": 3.0, "quadrupl": 4.0, "halv": 0.5}[match["fold"].lower()],)


def _times(match: Match) -> Stated | None:
    return "ratio", numbers(match)


def _measured_change(facts: SignalFacts) -> float | None:
    ratio = change_ratio(facts.main, facts.season) if facts.in_units else float("nan")
    return ratio if np.isfinite(ratio) else None


def _ratio(number: float) -> Claim:
    return Claim("change", "ratio", (number,))


CHANGE = Entry(
    kind="change",
    sayings=(
        Saying(
            rf"\b{UP}\s+(?:[\w'’-]+\s+)?(?:by\s+)?{ABOUT}(?P<a>{NUMBER}){_PERCENT}",
            _percent,
            unless="noise|volatility|swings|amplitude",
        ),
        Saying(
            rf"\b{DOWN}\s+(?:[\w'’-]+\s+)?(?:by\s+)?{ABOUT}(?P<a>{NUMBER}){_PERCENT}",
            _percent,
            unless="noise|volatility|swings|amplitude",
        ),
        Saying(
            r"\b(?P<fold>doubl|tripl|quadrupl|halv)(?:es|ed|ing|e)\b",
            _fold,
            unless="noise|volatility|swings|amplitude",
        ),
        Saying(
            rf"\b(?P<a>{NUMBER}){_PERCENT}\s+(?:{UP}|gain|higher|larger|greater|more"
            rf"|above)\b(?: the \w+(?: one)?)?(?:[^.;]{{0,25}}?\bthan\b[^.;]{{0,25}})?",
            _percent,
        ),
        Saying(
            rf"\b(?P<a>{NUMBER}){_PERCENT}\s+(?P<less>{DOWN}|loss|lower|smaller|less"
            rf"|below)\b(?: the \w+(?: one)?)?(?:[^.;]{{0,25}}?\bthan\b[^.;]{{0,25}})?",
            _percent,
        ),
        Saying(rf"\b(?:up|gain(?:s|ed)?)\s+(?:by\s+)?{ABOUT}(?P<a>{NUMBER}){_PERCENT}", _percent),
        Saying(rf"\b(?P<less>down|loses|lost)\s+(?:by\s+)?{ABOUT}(?P<a>{NUMBER}){_PERCENT}", _percent),
        Saying(rf"\bchang(?:es|ed) by a factor of\s+{ABOUT}(?P<a>{NUMBER})", _times),
        Saying(
            rf"\b{UP}\s+(?:by\s+)?a factor of\s+{ABOUT}(?P<a>{NUMBER})",
            _times,
            unless="noise|volatility|swings|amplitude",
        ),
        Saying(
            rf"\b{UP}\s+(?:to\s+)?{ABOUT}(?P<a>{NUMBER})\s*(?:times|-?fold)\b",
            _times,
            unless="noise|volatility|swings|amplitude",
        ),
    ),
    measure=_measured_change,
    agrees=lambda claim, ratio: close(claim.numbers, ratio, 0.25) if claim.numbers else None,
    possible={"ratio": (1e-6, 1e6)},
    examples={
        "It grew by 30% overall.": _ratio(1.3),
        "The passengers tripled.": _ratio(3.0),
        "The level doubles.": _ratio(2.0),
        "It has halved.": _ratio(0.5),
        "The values rise by about 50 percent.": _ratio(1.5),
        "It fell by 25%.": _ratio(0.75),
        "It decreased roughly 10 %.": _ratio(0.9),
        "It grows by a factor of 3.": _ratio(3.0),
        "The values quadrupled over the years.": _ratio(4.0),
        "A rise of 12 per cent.": _ratio(1.12),
        "The level did not double.": Claim("change", "ratio", (2.0,), negated=True),
    },
    counterexamples=(
        "The noise doubles.",
        "It grew.",
        "30% of the values are missing.",
        "Did it double?",
        "It grew by 30 units.",
    ),
)

ENTRIES = (TREND, TURN, SEASON_ENTRY, PERIOD, CHANGE)
