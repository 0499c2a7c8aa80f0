"""Check one claim against the measured signal: how far does it hold, 0 … 1?

Grades are ramps, not cuts: each runs between where a person would deny the claim and where one would make it.
Those for trend, noise, volatility and outliers were set on the synthetic curriculum, whose truth is known.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mlx_tslm.rewards.claims import NARROW, Claim, cycles_per_sample
from mlx_tslm.rewards.facts.physiology import EEG_BANDS
from mlx_tslm.rewards.facts.signal import FloatArray, SignalFacts, change_ratio
from mlx_tslm.rewards.facts.spectrum import FLOOR

# Which bands a sleep stage lets stand out (AASM scoring manual): any of them will do.
SLEEP_BANDS = {
    "wake": ("alpha", "beta"),
    "non-rem stage 1": ("theta", "alpha"),
    "non-rem stage 2": ("theta", "sigma", "delta"),
    "non-rem stage 3": ("delta",),
    "rem sleep": ("theta", "beta"),
}
# What has to be true of the heart beats where an ECG shows a finding, and whether nothing more is needed.
FINDINGS: dict[str, tuple[tuple[Claim, ...], bool]] = {
    "sinus rhythm": ((Claim("rhythm", "regular"), Claim("heart_rate", "normal")), True),
    "sinus tachycardia": ((Claim("rhythm", "regular"), Claim("heart_rate", "fast")), True),
    "sinus bradycardia": ((Claim("rhythm", "regular"), Claim("heart_rate", "slow")), True),
    "sinus arrhythmia": ((Claim("rhythm", "irregular"),), False),
    "atrial fibrillation": ((Claim("rhythm", "irregular"),), False),
    "atrial flutter": ((Claim("rhythm", "regular"),), False),
}
MOVEMENT = (400.0, 600.0)  # µV from peak to peak between which an EEG becomes one of movement
TOLERANCE = 0.1  # relative error at which a number's agreement has fallen to 0.6


def check_claim(claim: Claim, facts: SignalFacts) -> float | None:
    """How far a claim agrees with the signal, 0 … 1; None where the signal cannot tell."""
    if not facts.series or claim.kind not in CHECKS:
        return None
    if claim.negated and claim.numbers is not None:
        return None  # what a number is not is always easy to say
    agreement = CHECKS[claim.kind](claim, facts)
    if agreement is None or not np.isfinite(agreement):
        return None
    return 1.0 - agreement if claim.negated else agreement


def _ramp(value: float, zero: float, one: float) -> float:
    """0 up to `zero`, 1 from `one` on, straight between."""
    return float(np.clip((value - zero) / (one - zero), 0.0, 1.0))


def _close(claimed: Sequence[float], measured: float, tolerance: float = TOLERANCE) -> float:
    """Agreement of a positive number or range; a range wider than a factor of two says less and gets less."""
    low, high = claimed[0], claimed[-1]
    if low <= 0 or measured <= 0:
        return 0.0
    off = max(0.0, np.log(low / measured), np.log(measured / high))
    vague = min(1.0, np.log(2) / np.log(high / low)) if high > low else 1.0
    return float(np.exp(-0.5 * (off / tolerance) ** 2) * vague)


def _direction(value: str, strength: float, zero: float, one: float) -> float:
    """Agreement of "up", "down" or "flat" with a signed strength."""
    if value == "flat":
        return 1.0 - _ramp(abs(strength), zero, one)
    return _ramp(strength if value == "up" else -strength, zero, one)


def _check_trend(claim: Claim, facts: SignalFacts) -> float | None:
    straight = 1.0 - _ramp(abs(facts.turn), 0.08, 0.25)
    strength = float(np.sign(facts.trend.slope)) * facts.trend.strength
    return straight * _direction(claim.value, strength, 0.08, 0.25)


def _check_turn(claim: Claim, facts: SignalFacts) -> float | None:
    return _ramp(facts.turn if claim.value == "peak" else -facts.turn, 0.08, 0.25)


def _check_season(claim: Claim, facts: SignalFacts) -> float | None:
    return _ramp(facts.season.strength, 0.15, 0.4)


def _check_period(claim: Claim, facts: SignalFacts) -> float | None:
    lines = cycles_per_sample(claim, facts.rate)
    periods = [1 / line for line in lines if line * len(facts.main) >= 2]
    if not periods:
        return None  # fewer than two cycles in the recording
    return max(_ramp(season.strength, 0.15, 0.35) * _near(periods, season.period) for season in facts.seasons)


def _near(claimed: Sequence[float], period: float) -> float:
    """Agreement of the best of some periods, samples; rounding to whole samples is no error."""
    if not np.isfinite(period):
        return 0.0
    return max(_close([one], period, max(TOLERANCE, 0.5 / period)) for one in claimed)


def _check_noise(claim: Claim, facts: SignalFacts) -> float | None:
    low, high = 1.0 - _ramp(facts.noise, 0.17, 0.28), _ramp(facts.noise, 0.4, 0.52)
    return {"low": low, "high": high, "moderate": 1.0 - max(low, high)}[claim.value]


def _check_volatility(claim: Claim, facts: SignalFacts) -> float | None:
    return _direction(claim.value, facts.volatility, 0.12, 0.4)


def _check_outlier(claim: Claim, facts: SignalFacts) -> float | None:
    return _ramp(facts.outlier, 3.0, 4.5)


def _check_change(claim: Claim, facts: SignalFacts) -> float | None:
    if not facts.in_units or claim.numbers is None:
        return None
    measured = change_ratio(facts.main, facts.season)
    return _close(claim.numbers, measured, 0.25) if np.isfinite(measured) else None


def _check_level(claim: Claim, facts: SignalFacts) -> float | None:
    if not facts.in_units or claim.numbers is None:
        return None
    measure = getattr(np, claim.kind)  # mean, min or max

    def agreement(x: FloatArray, number: float) -> float:
        measured = float(measure(x))
        scale = TOLERANCE * max(abs(measured), float(x.std()), 1e-12)
        return float(np.exp(-0.5 * ((number - measured) / scale) ** 2))

    return max(agreement(x, claim.numbers[0]) for x in facts.series[:3])


def _check_place(claim: Claim, facts: SignalFacts) -> float | None:
    find = np.argmax if claim.kind == "max_at" else np.argmin
    where = float(find(facts.main)) / max(len(facts.main) - 1, 1)
    centre = {"start": 0.0, "middle": 0.5, "end": 1.0}[claim.value]
    return 1.0 - _ramp(abs(where - centre), 0.25, 0.4)


def _check_heart_rate(claim: Claim, facts: SignalFacts) -> float | None:
    if facts.beats is None:
        return None
    rate = facts.beats.rate
    if claim.numbers is not None:
        return _close(claim.numbers, rate)
    fast, slow = _ramp(rate, 95, 105), 1.0 - _ramp(rate, 55, 63)
    return {"fast": fast, "slow": slow, "normal": 1.0 - max(fast, slow)}[claim.value]


def _check_rhythm(claim: Claim, facts: SignalFacts) -> float | None:
    if facts.beats is None or len(facts.beats.times) < 5:
        return None
    irregular = _ramp(facts.beats.irregularity, 0.05, 0.12)
    return irregular if claim.value == "irregular" else 1.0 - irregular


def _check_finding(claim: Claim, facts: SignalFacts) -> float | None:
    """0 where the beats exclude it; where they fit, 1 if they are all of it, else 0.5: it may be so or not."""
    needed, enough = FINDINGS[claim.value]
    found = [CHECKS[one.kind](one, facts) for one in needed]
    known = [one for one in found if one is not None]
    return min(known) * (1.0 if enough else 0.5) if known else None


def _check_intervals(claim: Claim, facts: SignalFacts) -> float | None:
    if facts.beats is None or claim.numbers is None or len(facts.beats.times) < 5:
        return None
    measured = np.diff(facts.beats.times)
    if len(claim.numbers) == 1:
        return _close(claim.numbers, float(np.median(measured)))
    shortest, longest = claim.numbers
    return _close([shortest], float(measured.min())) * _close([longest], float(measured.max()))


def _check_band(claim: Claim, facts: SignalFacts) -> float | None:
    return None if facts.bands is None else _standing_out((claim.value,), facts.bands)


def _check_sleep(claim: Claim, facts: SignalFacts) -> float | None:
    if facts.bands is None:
        return None
    moved = _ramp(float(np.ptp(facts.main)), *MOVEMENT) if facts.in_units else 0.0
    if claim.value == "movement":
        return moved if facts.in_units else None
    return (1.0 - moved) * _standing_out(SLEEP_BANDS[claim.value], facts.bands)


def _standing_out(bands: Sequence[str], shares: Mapping[str, float]) -> float:
    """1 for the band with the largest share, less for one with half of it or under."""
    largest = max(shares.values())
    return _ramp(max(shares[band] for band in bands) / largest, 0.4, 0.9) if largest > 0 else 0.0


def _check_intensity(claim: Claim, facts: SignalFacts) -> float | None:
    if facts.intensity is None:
        return None
    level = np.log(max(facts.intensity, 1e-6))
    low = 1.0 - _ramp(level, np.log(1.0), np.log(2.0))
    high = _ramp(level, np.log(4.0), np.log(9.0))
    light = min(_ramp(level, np.log(0.3), np.log(0.6)), 1.0 - high)
    return {"low": low, "high": high, "moderate": 1.0 - max(low, high), "light": light}[claim.value]


def _check_gravity(claim: Claim, facts: SignalFacts) -> float | None:
    means = np.abs([float(axis.mean()) for axis in facts.series])
    if not facts.in_units or len(means) != 3 or not means.any():
        return None
    if claim.value in "xyz":
        return _ramp(float(means["xyz".index(claim.value)] / means.max()), 0.8, 1.0)
    whole = _ramp(float(means.max() / np.linalg.norm(means)), 0.92, 0.97)
    return whole if claim.value == "whole" else 1.0 - whole


def _check_cadence(claim: Claim, facts: SignalFacts) -> float | None:
    if facts.cadence is None or claim.numbers is None or not facts.rate:
        return None
    hertz = [number / 60 if claim.value == "per minute" else number for number in claim.numbers]
    # An arm or a leg swings once a stride, which is two steps.
    return max(_close(hertz, measured) for measured in (facts.cadence, 2 * facts.cadence, facts.cadence / 2))


def _check_frequency(claim: Claim, facts: SignalFacts) -> float | None:
    if claim.numbers is None or not facts.rate:
        return None
    low, high = claim.numbers[0], claim.numbers[-1]
    if high > NARROW * low:
        return _check_range(low, high, facts)
    lines = cycles_per_sample(claim, facts.rate)
    distance = facts.line_distance(lines[0], FLOOR) if lines else float("nan")
    return 1.0 - _ramp(distance, 0.2, 1.0)


def _check_range(low: float, high: float, facts: SignalFacts) -> float | None:
    """Does the EEG band that a range mostly covers stand out?"""
    if facts.bands is None or low < 0:
        return None
    cover = {name: min(high, top) - max(low, bottom) for name, (bottom, top) in EEG_BANDS.items()}
    inside = [name for name, width in cover.items() if width >= 0.5 * (EEG_BANDS[name][1] - EEG_BANDS[name][0])]
    return _standing_out(inside, facts.bands) / len(inside) if inside else None


CHECKS: dict[str, Callable[[Claim, SignalFacts], float | None]] = {
    "trend": _check_trend,
    "turn": _check_turn,
    "season": _check_season,
    "period": _check_period,
    "noise": _check_noise,
    "volatility": _check_volatility,
    "outlier": _check_outlier,
    "change": _check_change,
    "mean": _check_level,
    "min": _check_level,
    "max": _check_level,
    "min_at": _check_place,
    "max_at": _check_place,
    "heart_rate": _check_heart_rate,
    "rhythm": _check_rhythm,
    "intervals": _check_intervals,
    "finding": _check_finding,
    "band": _check_band,
    "sleep": _check_sleep,
    "intensity": _check_intensity,
    "activity": _check_intensity,
    "gravity": _check_gravity,
    "cadence": _check_cadence,
    "frequency": _check_frequency,
}
