"""Claims about levels and extremes: mean, minimum, maximum, where they lie, and what sticks out."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.grades import TOLERANCE, above, ramp
from mlx_tslm.rewards.claims.lexicon import ABOUT, NUMBER, PLACE, place
from mlx_tslm.rewards.facts.signal import FloatArray, SignalFacts

# A number that is a level, and no count, share or time.
_VALUE = (
    rf"(?P<a>{NUMBER})(?!\.?\d|\s*(?:%|per ?cent|samples?\b|steps?\b|hz\b|hertz\b|bpm\b|times\b"
    r"|seconds?\b|minutes?\b|points?\b|beats\b))"
)
_FOR = (
    r"(?:\s+(?:of|for|in|over) (?:the|all|this|its) (?:whole |entire )?(?:series|values|signal|data"
    r"|recording|measurements))?"
)


def _level(kind: str, words: str, verbs: str, measure: Callable[[FloatArray], Any], more: Saying) -> Entry:
    """A level: "the maximum is 7", agreed on within a tenth of it or of the series' deviation."""

    def measured(facts: SignalFacts) -> list[tuple[float, float]] | None:
        if not facts.in_units:
            return None
        return [(float(measure(x)), float(x.std())) for x in facts.series[:3]]

    def agrees(claim: Claim, found: Any) -> float | None:
        if claim.numbers is None:
            return None
        scales = [(value, TOLERANCE * max(abs(value), deviation, 1e-12)) for value, deviation in found]
        return max(float(np.exp(-0.5 * ((claim.numbers[0] - value) / scale) ** 2)) for value, scale in scales)

    def said(number: float, negated: bool = False) -> Claim:
        return Claim(kind, "", (number,), negated)

    between = (
        r"\b(?:ranges?|ranging|var(?:y|ies)|lies?|runs?|moves?|values?|spans?"
        r"|extends?)\s+(?:are\s+)?(?:from|between)\s+"
    )
    ends = {
        "min": rf"(?P<said>(?P<a>{NUMBER}))\s+(?:to|and)\s+{NUMBER}",
        "max": rf"{NUMBER}\s+(?:to|and)\s+(?P<said>(?P<a>{NUMBER}))",
    }
    ranges = [Saying(rf"{between}{ends[kind]}(?!\.?\d|\s*(?:%|[a-z]))", "")] if kind in ends else []
    noun = {"mean": "mean", "min": "minimum", "max": "maximum"}[kind]
    verb = {"mean": "averages", "min": "bottoms out at", "max": "peaks at"}[kind]
    return Entry(
        kind=kind,
        sayings=(
            Saying(
                rf"\b{words}{_FOR}\s*{ABOUT}{_VALUE}",
                "",
                unless=r"heart|frequency|rate\b|period|interval|cadence|beat",
            ),
            Saying(
                r"\b(?:it|series|signal|values?|data|level|curve"
                rf"|readings)\s+{verbs}\s*{ABOUT}{_VALUE}(?: at (?:its|the) \w+)?",
                "",
                unless=r"heart|frequency|rate\b",
            ),
            more,
            *ranges,
        ),
        measure=measured,
        agrees=agrees,
        examples={
            f"The {noun} is 50.": said(50.0),
            f"The {noun} is 1,280.3.": said(1280.3),
            f"a {noun} value of 622": said(622.0),
            f"Its {noun} lies at about -3.5.": said(-3.5),
            f"{noun.capitalize()}: 7.25": said(7.25),
            f"The {noun} of the series is roughly 12.": said(12.0),
            f"It has a {noun} of 4e3.": said(4000.0),
            f"The {noun} level equals 9.": said(9.0),
            f"The series {verb} 33.": said(33.0),
            f"The {noun} is not 8.": said(8.0, negated=True),
        },
        counterexamples=(
            f"The {noun} is not known.",
            f"The {noun} heart rate is 72 bpm.",
            f"The {noun} lies at sample 30 samples from the start.",
            f"Is the {noun} 50?",
            f"The {noun} frequency is 3 Hz.",
        ),
    )


_A_LEVEL = r"(?:\s+(?:values?|level|reading|point|number|measurement|figure|observation|of the values))?"
MEAN = _level(
    "mean",
    rf"(?:mean|average){_A_LEVEL}",
    "(?:averages?|ha(?:s|ve) an average of)",
    np.mean,
    Saying(
        rf"\bon average,?\s+(?:[\w'’-]+\s+){{0,3}}?{ABOUT}{_VALUE}|\b(?:it|values?|series|level|data"
        rf"|readings)\s+(?:is|are|lies?|runs?)\s+{ABOUT}(?P<b>{NUMBER}),? on average",
        "",
        unless="heart|frequency|rate\b|every|interval",
    ),
)
_NEVER = r"\b(?:never|doesn['’]t|does not|no value|nothing|none|not once)\s+(?:[\w'’-]+\s+){0,3}?"
MIN = _level(
    "min",
    rf"(?:minimum|min\.?|lowest|smallest|floor|lower bound|low){_A_LEVEL}",
    "(?:bottoms? out(?: at)?|(?:go(?:es)?|drops?|falls?|gets?) (?:down )?(?:as low as|to))",
    np.min,
    Saying(rf"{_NEVER}(?:below|under|lower than|less than|smaller than)\s+{_VALUE}", "", denies=True),
)
MAX = _level(
    "max",
    rf"(?:maximum|max\.?|highest|largest|greatest|peak|ceiling|upper bound|top|high){_A_LEVEL}",
    "(?:peaks?(?: at)?|tops? out(?: at)?|(?:go(?:es)?|climbs?|gets?|rises?) (?:up )?(?:as high as|to))",
    np.max,
    Saying(
        rf"{_NEVER}(?:exceeds?|above|over|higher than|more than|beyond|larger than)\s+{_VALUE}", "", denies=True
    ),
)


def _stated_place(match: Match) -> Stated:
    return place(match), None


def _place(kind: str, noun: str, words: str, verbs: str, find: Callable[[FloatArray], Any]) -> Entry:
    """Where an extreme lies: at the start, in the middle, at the end."""

    def where(facts: SignalFacts) -> float:
        return float(find(facts.main)) / max(len(facts.main) - 1, 1)

    def agrees(claim: Claim, measured: Any) -> float:
        centre = {"start": 0.0, "middle": 0.5, "end": 1.0}[claim.value]
        return 1.0 - ramp(abs(measured - centre), 0.25, 0.4)

    start, middle, end = (Claim(kind, value) for value in ("start", "middle", "end"))
    high = kind == "max_at"
    return Entry(
        kind=kind,
        sayings=(
            Saying(
                rf"\b{words}\s+(?:(?!and\b)[\w'’-]+\s+){{0,3}}?{PLACE}",
                _stated_place,
                unless="heart|beats?|amplitude",
            ),
            Saying(
                rf"\b(?P<place>begin|start|end)(?:s|ed|ing)? (?:with|at|on|in) (?:the |its |an? )?{words}\b",
                _stated_place,
            ),
            Saying(rf"\b{verbs}\s+(?:[\w'’-]+\s+){{0,2}}?{PLACE}", _stated_place, unless="heart|beats?|amplitude"),
        ),
        measure=where,
        agrees=agrees,
        examples={
            f"The {noun} is near the end.": end,
            f"Its {noun} is at the beginning.": start,
            f"The {noun} lies in the middle third.": middle,
            f"The {noun} lies in the last third.": end,
            f"The {noun} occurs at the very start.": start,
            f"The {'highest' if high else 'lowest'} value is found towards the end.": end,
            f"The {'highest' if high else 'lowest'} point is in the center.": middle,
            f"It {'peaks' if high else 'bottoms out'} in the middle.": middle,
            f"The {noun} is reached in the first third.": start,
            f"The {noun} is not at the end.": Claim(kind, "end", negated=True),
            f"It has its {noun} at the end.": end,
        },
        counterexamples=(
            f"The {noun} is 30.",
            f"Is the {noun} near the end?",
            "It rises at the end.",
            f"The {'minimum' if high else 'maximum'} is near the end.",
            f"It has a {noun}.",
        ),
    )


MAX_AT = _place(
    "max_at",
    "maximum",
    r"(?:maximum|max|(?:highest|largest|greatest)(?:\s+\w+)?|peak|top|high|high point)",
    r"(?:peaks|culminates|is highest|is largest|is at its highest)",
    np.argmax,
)
MIN_AT = _place(
    "min_at",
    "minimum",
    r"(?:minimum|min|(?:lowest|smallest|least)(?:\s+\w+)?|troughs?|bottom|low|low point)",
    r"(?:bottoms out|is lowest|is smallest|is at its lowest)",
    np.argmin,
)


# --- deviation ---
def _deviations(facts: SignalFacts) -> list[float] | None:
    """Of each of the first three series, and of them together, as an accelerometer's axes move together."""
    if not facts.in_units:
        return None
    each = [float(x.std()) for x in facts.series[:3]]
    return [*each, float(np.hypot.reduce(each))]


def _agrees_on_deviation(claim: Claim, deviations: Any) -> float | None:
    if claim.numbers is None or min(claim.numbers) < 0:
        return None
    # Of a small one a rounded number is all that is said.
    off = [abs(claim.numbers[0] - one) / max(TOLERANCE * one, 0.005) for one in deviations]
    return float(np.exp(-0.5 * min(off) ** 2))


def _deviation(number: float, negated: bool = False) -> Claim:
    return Claim("deviation", "", (number,), negated)


DEVIATION = Entry(
    kind="deviation",
    sayings=(
        Saying(
            rf"\b(?:var(?:y|ies|ied)|deviates?|scatters?) by\s+{ABOUT}{_VALUE}(?= (?:\w+ )?(?:about|around))", ""
        ),
        Saying(
            rf"\b(?:standard deviation|deviation|std\.?|root mean square|rms)(?: of (?:the|all) \w+)?"
            rf"\s*{ABOUT}{_VALUE}",
            "",
            unless=r"heart|rr|interval|rate\b",
        ),
    ),
    measure=_deviations,
    agrees=_agrees_on_deviation,
    examples={
        "The values vary by about 2.1 about their means.": _deviation(2.1),
        "The standard deviation is 3.5.": _deviation(3.5),
        "A standard deviation of 12.": _deviation(12.0),
        "It varies by 0.4 around its mean.": _deviation(0.4),
        "With a deviation of about 0.25.": _deviation(0.25),
        "Its std is 7.": _deviation(7.0),
        "The standard deviation of the values is 10.5.": _deviation(10.5),
        "The values scatter by 3 around their mean.": _deviation(3.0),
        "The RMS is 1.2.": _deviation(1.2),
        "The root mean square of the signal is 4.": _deviation(4.0),
        "The standard deviation is not 3.": _deviation(3.0, negated=True),
    },
    counterexamples=(
        "Is the standard deviation 3?",
        "The standard deviation of the RR intervals is 0.1 s.",
        "It varies by the hour.",
        "The mean is 3.",
        "The standard deviation grows.",
    ),
)

# --- outliers ---
_there, _none = Claim("outlier", "present"), Claim("outlier", "present", negated=True)
_SUDDEN = (
    r"(?:abnormal|atypical|deviant|exceptional|strange|implausible|sudden|isolated|single|lone"
    r"|solitary|abrupt|unusual|extreme|one-off|stray|freak|odd)"
)

OUTLIER = Entry(
    kind="outlier",
    sayings=(
        Saying(
            rf"\b(?:outliers?|outlying|anomal(?:y|ies|ous|ously)|{_SUDDEN} (?:\w+ )?(?:spikes?|dips?|peaks?"
            r"|jumps?|values?|points?|blips?|excursions?)|glitch(?:es)?)\b",
            "present",
            unless=r"sharp wave|sleep spindles?",
        ),
        Saying(
            r"\b(?:a|one|any|no) (?:\w+ )?(?:spike|blip|dip)s?\b", "present", unless=r"\b(?:every|regular|each|r)\b"
        ),
        Saying(
            r"\b(?:sticks?|stands?) out\b",
            "present",
            only_denied=True,
            unless=r"band|wave|rhythm|frequency|activity",
        ),
        Saying(
            r"\b(?:one|a single|a) (?:\w+ )?(?:value|point|sample|reading) (?:(?:that|which) )?(?:(?:sticks"
            r"|stands|falls|jumps|lies|is) )?(?:far |well |way |clearly )(?:out|off|outside|away|apart)"
            r"|\b(?:one|a single|a) (?:\w+ )?(?:value|point|sample|reading) (?:sticks|stands|jumps"
            r"|lies) (?:out|off|outside|away|apart)",
            "present",
        ),
    ),
    measure=attrgetter("outlier"),
    agrees=above(3.0, 4.5),
    examples={
        "There is an outlier.": _there,
        "A sudden spike stands out in the first third.": _there,
        "One value sticks out.": _there,
        "A single isolated peak is visible.": _there,
        "It contains an anomaly.": _there,
        "A sudden dip occurs.": _there,
        "An anomalous value was recorded.": _there,
        "There is one spike.": _there,
        "A lone spike disturbs the curve.": _there,
        "There are no outliers.": _none,
        "No outlier.": _none,
        "Outliers are absent.": _none,
        "It is free of anomalies.": _none,
        "There isn't a sudden spike.": _none,
        "Without any isolated spikes.": _none,
    },
    counterexamples=("Are there outliers?", "The peaks are regular.", "It peaks at the end.", "R peaks are sharp."),
)

ENTRIES = (MEAN, MIN, MAX, MAX_AT, MIN_AT, DEVIATION, OUTLIER)
