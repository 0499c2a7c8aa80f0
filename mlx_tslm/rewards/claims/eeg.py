"""Claims about rhythms in Hz: EEG bands and frequencies."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.grades import line_of_rate, ramp
from mlx_tslm.rewards.claims.lexicon import ABOUT, PER_SECOND, RANGE, STRONG
from mlx_tslm.rewards.facts.physiology import EEG_BANDS
from mlx_tslm.rewards.facts.signal import SignalFacts
from mlx_tslm.rewards.facts.spectrum import FLOOR

_BAND = r"(?P<band>delta|theta|alpha|sigma|beta)"
_RHYTHM = r"(?:[- ](?:bands?|waves?|rhythms?|activity|range|power|frequenc(?:y|ies)|oscillations?|component))"


def standing_out(bands: Sequence[str], shares: Mapping[str, float]) -> float:
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
        Saying(rf"\b{_BAND}{_RHYTHM}*\s+(?:(?!not\b|and\b|or\b)[\w.'’-]+\s+){{0,4}}?{STRONG}\b", _named),
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
    agrees=lambda claim, shares: standing_out((claim.value,), shares),
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

# --- frequency ---
_BURST = (4.0, 8.0)  # times the usual power: where a burst begins to stand out, and where nobody doubts it


def _spectrum(facts: SignalFacts) -> Any:
    return (facts.rate, facts.bands, facts.line_distance, facts.burst) if facts.rate else None


def _agrees_on_frequency(claim: Claim, measured: Any) -> float | None:
    rate, bands, line_distance, burst = measured
    if claim.numbers is None:
        return None
    low, high = claim.numbers[0], claim.numbers[-1]
    if high > 1.5 * low:
        return _agrees_on_range(low, high, bands)
    lines = line_of_rate(claim, rate)
    if not lines:
        return None
    steady = 1.0 - ramp(line_distance(lines[0], FLOOR), 0.2, 1.0)
    return max(steady, ramp(burst(lines[0] * rate), *_BURST))


def _agrees_on_range(low: float, high: float, bands: Mapping[str, float] | None) -> float | None:
    """Does the EEG band that a range mostly covers stand out?"""
    if bands is None or low < 0:
        return None
    cover = {name: min(high, top) - max(low, bottom) for name, (bottom, top) in EEG_BANDS.items()}
    inside = [name for name, width in cover.items() if width >= 0.5 * (EEG_BANDS[name][1] - EEG_BANDS[name][0])]
    return standing_out(inside, bands) / len(inside) if inside else None


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
        Saying(rf"\b(?:above|below|over|under|beyond|beneath)\s+{RANGE}\s*{_HERTZ}", None),
        Saying(rf"\b(?:baseline|fibrillat\w+|flutter|[fp][- ]waves?)\b[^.;]{{0,30}}?{RANGE}\s*{_HERTZ}", None),
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

ENTRIES = (BAND, FREQUENCY)
