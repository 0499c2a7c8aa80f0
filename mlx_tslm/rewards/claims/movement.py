"""Claims about movement: how intense it is, how it is oriented, and its cadence."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.grades import close, hertz, line_of_rate, ramp
from mlx_tslm.rewards.claims.lexicon import (
    ABOUT,
    ADVERB,
    AMOUNT,
    HIGH,
    IS,
    LOW,
    MODERATE,
    NEXT_TO_NO,
    PER_MINUTE,
    PER_SECOND,
    RANGE,
)
from mlx_tslm.rewards.facts.physiology import GRAVITY as G
from mlx_tslm.rewards.facts.physiology import Gait
from mlx_tslm.rewards.facts.signal import SignalFacts

# --- intensity ---
_MOVEMENT = r"(?:[\w'’-]+\s+)?(?:movements?|motion|(?:physical )?activity|intensity|accelerations?|impacts?)\b"
_MOVED = (
    r"(?:movements?|motion|(?:physical )?activity|intensity|accelerations?|body|person|subject"
    r"|wearer|sensor|device|arm|leg|wrist)"
)
_HIGH = rf"(?:{HIGH}|violent|forceful|energetic|powerful|lively|fierce|hefty)"
_BRAIN = r"\b(?:delta|theta|alpha|sigma|beta|eeg|brain|eye|spindle|slow[- ]wave|noise|electrical|heart|cardiac)\b"


def _agrees_on_intensity(claim: Claim, intensity: Any) -> float:
    level = float(np.log(max(intensity, 1e-6)))
    low = 1.0 - ramp(level, np.log(1.0), np.log(2.0))
    high = ramp(level, np.log(4.0), np.log(9.0))
    return {"low": low, "high": high, "moderate": 1.0 - max(low, high)}[claim.value]


_low, _moderate, _high = (Claim("intensity", value) for value in ("low", "moderate", "high"))

INTENSITY = Entry(
    kind="intensity",
    sayings=(
        Saying(rf"\b{LOW}{AMOUNT}\s+{_MOVEMENT}|\blow[- ]intensity\b", "low", unless=_BRAIN),
        Saying(
            r"\b(?:static|motionless|stationary|at rest|immobile|(?:almost |nearly |very |quite |completely "
            r"|perfectly |mostly )?still)\b(?! (?:rising|falling|rises|falls|visible|present|growing"
            r"|increasing|decreasing|higher|lower|there|a|the|an|no|not)\b)",
            "low",
            unless=r"noise|process|level|mean|trend|series|values|signal|variance",
        ),
        Saying(rf"\b{_MOVED}(?: levels?| intensity)?\s*{IS}\s*{ADVERB}{LOW}\b", "low", unless=_BRAIN),
        Saying(r"\b(?:nothing|nobody|no one) (?:\w+ly )?(?:moves|is moving)\b", "low", denies=True),
        Saying(r"\bmov(?:es|ing|ed) moderately\b", "moderate"),
        Saying(r"\bmov(?:es|ing|ed) (?:only )?(?:a little|slightly|very little|little|weakly)\b", "low"),
        Saying(rf"\b{NEXT_TO_NO}\s+{_MOVEMENT}", "low", denies=True, unless=_BRAIN),
        Saying(
            r"\b(?:movements?|motion|(?:physical )?activity)\b(?! artefacts?| artifacts?)",
            "low",
            denies=True,
            only_denied=True,
            unless=_BRAIN,
        ),
        Saying(
            r"(?:\b(?:barely|hardly|scarcely|not|never)|n['’]t)\s+(?:\w+ly\s+|much\s+|really\s+)?mov(?:es?"
            r"|ing|ed)\b",
            "low",
            denies=True,
        ),
        Saying(
            rf"\b{MODERATE}{AMOUNT}\s+{_MOVEMENT}|\bmoderate(?:ly)?[- ](?:intensity|intense|active|strong"
            r"|vigorous)\b",
            "moderate",
            unless=_BRAIN,
        ),
        Saying(
            rf"\b{_MOVED}(?: levels?| intensity)?\s*{IS}\s*{ADVERB}(?:moderate|medium|intermediate)\b",
            "moderate",
            unless=_BRAIN,
        ),
        Saying(
            rf"\b{_HIGH}{AMOUNT}\s+{_MOVEMENT}|\bhigh[- ]intensity\b|\bvigorous(?:ly)?\b", "high", unless=_BRAIN
        ),
        Saying(
            rf"\b{_MOVED}(?: levels?| intensity)?\s*{IS}\s*{ADVERB}{_HIGH}\b|\b(?:highly|very"
            r"|intensely) active\b|\bmov(?:es?|ing) (?:a lot|strongly|intensely|violently)\b",
            "high",
            unless=_BRAIN,
        ),
    ),
    measure=attrgetter("intensity"),
    agrees=_agrees_on_intensity,
    examples={
        "Minimal movement across all axes.": _low,
        "There is hardly any movement.": _low,
        "The person is almost still.": _low,
        "The sensor is motionless.": _low,
        "There is no movement.": _low,
        "The body is at rest.": _low,
        "The person hardly moves.": _low,
        "The movement is slight.": _low,
        "It is not motionless.": Claim("intensity", "low", negated=True),
        "A moderate level of activity.": _moderate,
        "The intensity is moderate.": _moderate,
        "Vigorous motion.": _high,
        "The movement is very strong.": _high,
        "High-intensity movement is seen.": _high,
        "The motion isn't vigorous.": Claim("intensity", "high", negated=True),
        "A high level of activity.": _high,
    },
    counterexamples=(
        "It contains stationary noise.",
        "The series is stationary.",
        "Strong delta activity.",
        "It is still rising.",
        "Is the person at rest?",
        "The trend is up.",
    ),
)

# --- activity ---
_ACTIVITIES = ("lying", "sitting", "standing", "walking", "walking up", "walking down", "biking", "running")


def _between(value: float, low: float, high: float, softness: float = 0.12) -> float:
    """1 between two values, 0 outside of them; their logarithm decides, and how soft the ends are."""
    at = float(np.log(max(value, 1e-6)))
    return min(ramp(at, np.log(low) - softness, np.log(low)), 1.0 - ramp(at, np.log(high), np.log(high) + softness))


def _how_active(facts: SignalFacts) -> Mapping[str, float] | None:
    """How well each activity fits. Where gravity was taken out, and with it the unit, the better of m/s² and g."""
    if facts.intensity is None:
        return None
    fits = _fits(facts.intensity, facts.gait)
    if facts.gait.level is None and facts.intensity < 3.0:
        other = _fits(facts.intensity * G, facts.gait)
        return {name: max(fit, other[name]) for name, fit in fits.items()}
    return fits


def _fits(intensity: float, gait: Gait) -> Mapping[str, float]:
    """How well each activity fits: by its intensity, and where they are seen by cadence, impacts and posture.

    Walking has 1.6 to 2.2 steps a second, running more, stairs are climbed slower and descended with impacts
    (Murray et al. 1964; Cavanagh and Kram 1989); who lies has gravity on the axis that points forward, who stands
    has none of it there.
    """
    at_rest = 1.0 - ramp(float(np.log(max(intensity, 1e-6))), np.log(0.3), np.log(0.6))
    postures = {"lying": 1.0, "sitting": 1.0, "standing": 1.0}
    if gait.level is not None:
        lying, upright = ramp(gait.level, 0.9, 0.96), 1.0 - ramp(gait.level, 0.3, 0.5)
        postures = {"lying": lying, "standing": upright, "sitting": 1.0 - max(lying, upright)}
    sharp = 0.5 if gait.sharp is None else ramp(gait.sharp, 0.3, 0.45)
    moving = {
        "biking": (_between(intensity, 0.5, 1.5, 0.25), (0.8, 1.5), 1.0 - sharp),
        "walking up": (_between(intensity, 1.2, 2.2, 0.25), (1.3, 1.66), 1.0 - sharp),
        "walking": (_between(intensity, 1.9, 4.2, 0.4), (1.6, 2.25), 1.0 - sharp),
        "walking down": (_between(intensity, 3.2, 8.0, 0.4), (1.7, 2.25), sharp),
        "running": (ramp(float(np.log(intensity + 1e-6)), np.log(4.5), np.log(7.0)), (2.3, 4.5), 1.0),
    }
    fits = {name: at_rest * (0.1 + 0.9 * fit) for name, fit in postures.items()}
    for name, (strength, cadences, impacts) in moving.items():
        steps = 1.0 if gait.cadence is None else _between(gait.cadence, *cadences, 0.08)
        fits[name] = strength * (0.1 + 0.9 * steps) * (0.3 + 0.7 * impacts)
    return fits


_SYNONYMS = {"cycling": "biking", "jogging": "running", "strolling": "walking", "sprinting": "running"}
_SYNONYMS |= {"riding a bike": "biking", "lying down": "lying", "resting": "lying"}
_DOING = rf"(?P<doing>{'|'.join(sorted([*_ACTIVITIES, *_SYNONYMS], key=len, reverse=True))})"


def _what_is_done(match: Match) -> Stated:
    doing = match["doing"].lower()
    return _SYNONYMS.get(doing, doing), None


def _doing(value: str, negated: bool = False) -> Claim:
    return Claim("activity", value, None, negated)


ACTIVITY = Entry(
    kind="activity",
    sayings=(
        Saying(
            r"\b(?:person|subject|wearer|participant|user|individual|patient|someone|somebody|he|she"
            rf"|they)\s*{IS}\s*{ADVERB}{_DOING}\b",
            _what_is_done,
        ),
        Saying(rf"\b(?:the|their|this) activity (?:is|was|must be) {ADVERB}{_DOING}\b", _what_is_done),
    ),
    measure=_how_active,
    agrees=lambda claim, fits: fits[claim.value],
    answers={name: name for name in _ACTIVITIES},
    examples={
        "The person is walking.": _doing("walking"),
        "The subject is lying.": _doing("lying"),
        "The person is sitting still.": _doing("sitting"),
        "She is running.": _doing("running"),
        "The wearer appears to be standing.": _doing("standing"),
        "He was cycling.": _doing("biking"),
        "The activity is biking.": _doing("biking"),
        "The participant seems to be jogging.": _doing("running"),
        "The person is not running.": _doing("running", negated=True),
        "The subject isn't walking.": _doing("walking", negated=True),
        "They are walking up the stairs.": _doing("walking up"),
    },
    counterexamples=(
        "Is the person walking?",
        "A running mean smooths the series.",
        "A long-standing trend.",
        "It is unclear whether the person is walking.",
        "The movement is strong.",
    ),
)

# --- gravity ---
_x, _y, _z = (Claim("gravity", axis) for axis in "xyz")
_whole, _shared = Claim("gravity", "whole"), Claim("gravity", "shared")
_ALMOST = r"(?:almost|nearly|virtually|practically|just about)"
_WHOLLY = rf"(?:{_ALMOST}\s+(?:all|wholly|entirely|completely|exclusively|only)|entirely|wholly)"


def _means(facts: SignalFacts) -> Any:
    means = np.abs([float(axis.mean()) for axis in facts.series])
    return (means, facts.intensity or 0.0) if facts.in_units and len(means) == 3 and means.any() else None


def _agrees_on_gravity(claim: Claim, measured: Any) -> float:
    means, intensity = measured
    if claim.value == "none":  # of 1 g or 9.81 m/s² next to nothing is left
        whole = float(np.linalg.norm(means))
        return 1.0 - ramp(whole, 0.3, 0.6) if whole < 0.6 or intensity < whole else 0.0
    if claim.value in "xyz":
        return ramp(float(means["xyz".index(claim.value)] / means.max()), 0.8, 1.0)
    whole = ramp(float(means.max() / np.linalg.norm(means)), 0.92, 0.97)
    return whole if claim.value == "whole" else 1.0 - whole


def _axis(match: Match) -> Stated:
    return (match["axis"] or match.groupdict()["axis2"]).lower(), None


GRAVITY = Entry(
    kind="gravity",
    sayings=(
        Saying(
            r"\bgravity (?:was|is|has been|had been) (?:taken out|removed|filtered out|subtracted|left out)\b"
            r"|\b(?:linear acceleration|gravity[- ]free)\b",
            "none",
        ),
        Saying(
            r"\baxes\b[^.;]{0,15}?\b(?P<said2>share)\b[^.;]{0,10}?\bgravity\b"
            r"|\bgravity\b[^.;]{0,40}?\b(?P<said>shared|spreads?|split|divided|distributed)\b",
            "shared",
        ),
        Saying(
            rf"\b(?P<said>{_WHOLLY})\b[^.;]{{0,20}}?\bgravity\b|\bgravity\b[^.;]{{0,20}}?\b(?P<said2>{_WHOLLY})\b",
            "whole",
        ),
        Saying(
            r"\bgravity\b[^.;]{0,70}?\b(?P<said>(?:(?:along|on|in) (?:the )?)?(?P<axis>[xyz])[- ]axis"
            r"|(?:along|on|in) (?P<axis2>[xyz]))\b",
            _axis,
        ),
        Saying(
            r"\b(?P<said>(?P<axis>[xyz])[- ]axis)\s+(?:[\w'’-]+\s+){0,3}?(?:of\s+)?gravity\b",
            _axis,
        ),
    ),
    measure=_means,
    agrees=_agrees_on_gravity,
    examples={
        "Gravity lies on the x-axis.": _x,
        "Most of gravity is on the y-axis.": _y,
        "Gravity acts mainly along the z axis.": _z,
        "The z-axis carries gravity.": _z,
        "The x-axis bears most of gravity.": _x,
        "Gravity isn't on the x-axis.": Claim("gravity", "x", negated=True),
        "Gravity points along the y-axis.": _y,
        "Gravity is shared between the axes.": _shared,
        "Gravity is spread over all axes.": _shared,
        "Gravity is not shared.": Claim("gravity", "shared", negated=True),
        "Gravity is divided among several axes.": _shared,
        "Gravity rests almost wholly on one axis.": _whole,
        "Nearly all of gravity is on one axis.": _whole,
        "All three means are near 0, so gravity was taken out.": Claim("gravity", "none"),
    },
    counterexamples=("The x-axis is noisy.", "The gravity of the situation.", "Is gravity on the x-axis?"),
)

# --- cadence ---
_STEPS = r"(?:steps|strides|footsteps|foot ?falls|paces)"
_PM, _HZ = "per minute", "Hz"


def _agrees_on_cadence(claim: Claim, cadence: Any) -> float:
    # An arm or a leg swings once a stride, which is two steps.
    return max(close(hertz(claim), measured) for measured in (cadence, 2 * cadence, cadence / 2))


def _cadence(number: float, value: str = _PM) -> Claim:
    return Claim("cadence", value, (number,))


CADENCE = Entry(
    kind="cadence",
    sayings=(
        Saying(
            rf"(?:\b(?:cadence|rate|pace|cycle|period\w*|gait)\s+{ABOUT})?{RANGE}\s*{_STEPS}\s*{PER_MINUTE}", _PM
        ),
        Saying(
            rf"\bsteps?\s+(?:[\w'’-]+\s+){{0,3}}?(?:at|of)\s+{ABOUT}{RANGE}\s*(?:{PER_SECOND}|hz\b|hertz\b)", _HZ
        ),
        Saying(
            rf"(?:\b(?:cadence|rate|pace|cycle|period\w*|gait)\s+{ABOUT})?{RANGE}\s*{_STEPS}\s*{PER_SECOND}", _HZ
        ),
        Saying(
            r"\b(?:cadence|step(?:ping)? (?:frequency|rate)|stride (?:frequency|rate)"
            rf"|gait frequency)\s+{ABOUT}{RANGE}\s*(?:hz|hertz|{PER_SECOND})",
            _HZ,
        ),
        Saying(
            r"\b(?:cadence|step(?:ping)? (?:frequency|rate)|stride (?:frequency|rate)"
            rf"|gait frequency)\s+{ABOUT}{RANGE}(?:\s*(?:bpm\b|spm\b|/\s*min\b|{PER_MINUTE}))",
            _PM,
        ),
    ),
    measure=attrgetter("cadence"),
    agrees=_agrees_on_cadence,
    line=line_of_rate,
    possible={_HZ: (0.1, 8.0), _PM: (6.0, 480.0)},
    examples={
        "a cadence of 110 steps per minute": _cadence(110.0),
        "a cadence of about 2 Hz": _cadence(2.0, _HZ),
        "about 2 steps per second": _cadence(2.0, _HZ),
        "The cadence is roughly 1.8 steps a second.": _cadence(1.8, _HZ),
        "The step frequency is 1.9 Hz.": _cadence(1.9, _HZ),
        "A stepping rate of 2 hertz.": _cadence(2.0, _HZ),
        "He takes 120 steps per minute.": _cadence(120.0),
        "100 strides a minute.": _cadence(100.0),
        "The cadence is 1.5 per second.": _cadence(1.5, _HZ),
        "The cadence is around 115 per minute.": _cadence(115.0),
        "A gait of 2 steps each second.": _cadence(2.0, _HZ),
        "The cadence is not 3 Hz.": Claim("cadence", _HZ, (3.0,), negated=True),
    },
    counterexamples=(
        "The period is 2 steps.",
        "The dominant frequency is 2 Hz.",
        "The heart rate is 110 per minute.",
        "Is the cadence 2 Hz?",
        "The cadence is high.",
    ),
)

ENTRIES = (INTENSITY, ACTIVITY, GRAVITY, CADENCE)
