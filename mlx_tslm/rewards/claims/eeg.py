"""Claims about rhythms in Hz: EEG bands, sleep stages, and frequencies."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.grades import line_of_rate, ramp
from mlx_tslm.rewards.claims.lexicon import ABOUT, IS, PER_SECOND, RANGE, STRONG
from mlx_tslm.rewards.facts.physiology import EEG_BANDS
from mlx_tslm.rewards.facts.signal import SignalFacts
from mlx_tslm.rewards.facts.spectrum import FLOOR

_BAND = r"(?P<band>delta|theta|alpha|sigma|beta)"
_RHYTHM = r"(?:[- ](?:bands?|waves?|rhythms?|activity|range|power|frequenc(?:y|ies)|oscillations?|component))"


def _standing_out(bands: Sequence[str], shares: Mapping[str, float]) -> float:
    """1 for the band with the largest share, less for one with half of it or under."""
    largest = max(shares.values())
    return ramp(max(shares[band] for band in bands) / largest, 0.4, 0.9) if largest > 0 else 0.0


def _named(match: Match) -> Stated:
    return match["band"].lower(), None


def _band(value: str, negated: bool = False) -> Claim:
    return Claim("band", value, None, negated)


BAND = Entry(
    kind="band",
    sayings=(
        Saying(rf"\b{_BAND}{_RHYTHM}*\s+(?:(?!not\b|and\b|or\b)[\w'’-]+\s+){{0,3}}?{STRONG}\b", _named),
        Saying(rf"\b{_BAND}{_RHYTHM}*\s+(?:is|are)(?:n['’]t| not)\s+(?:[\w'’-]+\s+){{0,2}}?{STRONG}\b", _named),
        Saying(rf"\b{STRONG}\s+(?:(?!and\b|or\b)\w+[\s-]+){{0,4}}?{_BAND}(?:{_RHYTHM})?\b", _named),
        Saying(
            rf"\b(?:power|energy|activity|most of the power)\s+(?:[\w'’-]+\s+){{0,2}}?(?:in|within"
            rf"|at)\s+the\s+{_BAND}(?:{_RHYTHM})?\b",
            _named,
        ),
        Saying(r"\bslow[- ]wave (?:activity|sleep)\b|\bhigh[- ]amplitude,? (?:\w+ )?slow waves\b", "delta"),
    ),
    measure=attrgetter("bands"),
    agrees=lambda claim, shares: _standing_out((claim.value,), shares),
    examples={
        "The EEG is dominated by theta activity.": _band("theta"),
        "Prominent alpha rhythm.": _band("alpha"),
        "Delta waves are dominant, in line with Non-REM stage 3.": _band("delta"),
        "The delta band dominates.": _band("delta"),
        "Strong beta activity.": _band("beta"),
        "Sigma activity is prominent.": _band("sigma"),
        "The dominant band is alpha.": _band("alpha"),
        "Most of the power is in the theta band.": _band("theta"),
        "Alpha waves predominate.": _band("alpha"),
        "High-amplitude slow waves are seen.": _band("delta"),
        "The strongest rhythm is beta.": _band("beta"),
        "Alpha is not dominant.": _band("alpha", negated=True),
        "There is no prominent theta activity.": _band("theta", negated=True),
        "The theta rhythm stands out.": _band("theta"),
    },
    counterexamples=(
        "Delta waves.",
        "Is delta dominant?",
        "The alpha of the test.",
        "A strong trend.",
        "The trend is up.",
    ),
)

# --- sleep: which bands a stage lets stand out (AASM scoring manual); any of them will do ---
_SLEEP_BANDS = {
    "wake": ("alpha", "beta"),
    "non-rem stage 1": ("theta", "alpha"),
    "non-rem stage 2": ("theta", "sigma", "delta"),
    "non-rem stage 3": ("delta",),
    "rem sleep": ("theta", "beta"),
}
_MOVEMENT = (400.0, 600.0)  # µV from peak to peak between which an EEG becomes one of movement


def _moved(facts: SignalFacts) -> tuple[float | None, Mapping[str, float]] | None:
    """How far the recording is one of movement (None without units), and its bands."""
    if facts.bands is None:
        return None
    return (ramp(float(np.ptp(facts.main)), *_MOVEMENT) if facts.in_units else None), facts.bands


def _agrees_on_sleep(claim: Claim, measured: Any) -> float | None:
    moved, bands = measured
    if claim.value == "movement":
        return moved
    return (1.0 - (moved or 0.0)) * _standing_out(_SLEEP_BANDS[claim.value], bands)


def _sleep(value: str, negated: bool = False) -> Claim:
    return Claim("sleep", value, None, negated)


_IN = (
    rf"\b(?:(?:person|subject|patient|sleeper|participant|he|she)\s*{IS}\s*(?:in\s+)?|this\s+(?:{IS}"
    r"|looks like)\s*|(?:sleep )?stage\s*(?:is|:)\s*|consistent with\s+|typical (?:of|for)\s+"
    r"|indicates?\s+|suggests?\s+)(?:a\s+)?"
)

SLEEP = Entry(
    kind="sleep",
    sayings=(
        Saying(rf"{_IN}(?:awake|wake(?:fulness)?|waking)\b", "wake"),
        Saying(
            rf"{_IN}(?:deep sleep|slow[- ]wave sleep|n3|non-?rem stage 3|nrem ?3|(?:sleep )?stage 3"
            r"|deeply asleep)\b",
            "non-rem stage 3",
        ),
        Saying(rf"{_IN}(?:n2|non-?rem stage 2|nrem ?2|(?:sleep )?stage 2)\b", "non-rem stage 2"),
        Saying(rf"{_IN}(?:n1|non-?rem stage 1|nrem ?1|(?:sleep )?stage 1|drowsy|drowsiness)\b", "non-rem stage 1"),
        Saying(rf"{_IN}rem(?: sleep)?\b", "rem sleep"),
    ),
    measure=_moved,
    agrees=_agrees_on_sleep,
    answers={name: name for name in (*_SLEEP_BANDS, "movement")},
    examples={
        "The person is awake.": _sleep("wake"),
        "The subject is in deep sleep.": _sleep("non-rem stage 3"),
        "This is slow-wave sleep.": _sleep("non-rem stage 3"),
        "This looks like REM sleep.": _sleep("rem sleep"),
        "The sleep stage is N2.": _sleep("non-rem stage 2"),
        "Stage: N3": _sleep("non-rem stage 3"),
        "The patient is drowsy.": _sleep("non-rem stage 1"),
        "The sleeper is in non-REM stage 2.": _sleep("non-rem stage 2"),
        "The subject is not awake.": _sleep("wake", negated=True),
        "The person is in NREM 1.": _sleep("non-rem stage 1"),
        "This is not REM sleep.": _sleep("rem sleep", negated=True),
    },
    counterexamples=(
        "Is the person awake?",
        "Sleep is important.",
        "Delta waves are dominant.",
        "It is unclear whether the subject is awake.",
        "The remaining values fall.",
    ),
)


# --- frequency ---
def _spectrum(facts: SignalFacts) -> Any:
    return (facts.rate, facts.bands, facts.line_distance) if facts.rate else None


def _agrees_on_frequency(claim: Claim, measured: Any) -> float | None:
    rate, bands, line_distance = measured
    if claim.numbers is None:
        return None
    low, high = claim.numbers[0], claim.numbers[-1]
    if high > 1.5 * low:
        return _agrees_on_range(low, high, bands)
    lines = line_of_rate(claim, rate)
    return 1.0 - ramp(line_distance(lines[0], FLOOR), 0.2, 1.0) if lines else None


def _agrees_on_range(low: float, high: float, bands: Mapping[str, float] | None) -> float | None:
    """Does the EEG band that a range mostly covers stand out?"""
    if bands is None or low < 0:
        return None
    cover = {name: min(high, top) - max(low, bottom) for name, (bottom, top) in EEG_BANDS.items()}
    inside = [name for name, width in cover.items() if width >= 0.5 * (EEG_BANDS[name][1] - EEG_BANDS[name][0])]
    return _standing_out(inside, bands) / len(inside) if inside else None


def _hz(*ends: float, negated: bool = False) -> Claim:
    return Claim("frequency", "Hz", ends, negated)


_HERTZ = rf"(?:hz\b|hertz\b|(?:cycles|times|oscillations|swings)\s*{PER_SECOND})"
_RECORDING = (
    r"(?:sampl(?:ed|ing|e)|filter\w*|notch|mains|resolution|recorded|digiti[sz]ed|cut-?off|nyquist"
    r"|bandwidth|acquired)"
)

FREQUENCY = Entry(
    kind="frequency",
    sayings=(
        Saying(rf"(?:\bfrequenc(?:y|ies)\s+{ABOUT})?{RANGE}\s*{_HERTZ}", "Hz"),
        Saying(rf"\b{_RECORDING}\b(?:(?!\b(?:and|with|dominant|while)\b)[^.;,]){{0,40}}?{RANGE}\s*{_HERTZ}", None),
        Saying(rf"{RANGE}\s*{_HERTZ}\s+(?:sampling|sample rate|recording|notch|filter|mains|resolution)", None),
    ),
    measure=_spectrum,
    agrees=_agrees_on_frequency,
    line=line_of_rate,
    examples={
        "oscillations at 2.5 Hz": _hz(2.5),
        "activity of 0.5–2 Hz": _hz(0.5, 2.0),
        "sampling rate is 100 Hz and the dominant frequency is 1.2 Hz": _hz(1.2),
        "The dominant frequency is 10 Hz.": _hz(10.0),
        "It oscillates 3 times per second.": _hz(3.0),
        "A peak at 8.5 hertz.": _hz(8.5),
        "Most of the power lies between 8 and 12 Hz.": _hz(8.0, 12.0),
        "The main frequency is about 0.3 Hz.": _hz(0.3),
        "It swings at 2 cycles per second.": _hz(2.0),
        "The frequency is not 5 Hz.": _hz(5.0, negated=True),
    },
    counterexamples=(
        "sampled at 100 Hz",
        "The sampling rate is 100 Hz.",
        "a cadence of about 2 Hz",
        "A 50 Hz notch filter was used.",
        "Is the frequency 3 Hz?",
        "Recorded at 250 Hz.",
        "The frequency is high.",
    ),
)

ENTRIES = (BAND, SLEEP, FREQUENCY)
