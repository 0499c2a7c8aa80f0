"""How close is close: from what is claimed and what is measured to an agreement, 0 … 1.

Grades are ramps, not cuts: each runs between where a person would deny the claim and where one would make it.
Those for trend, noise, volatility and outliers were set on the synthetic curriculum, whose truth is known.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim
from mlx_tslm.rewards.claims.lexicon import SECONDS

TOLERANCE = 0.1  # relative error at which a number's agreement has fallen to 0.6
# How far apart samples usually are, s: the readings of a time where the rate is unknown.
_INTERVALS = (*SECONDS.values(), 900.0, 1800.0)


def ramp(value: float, zero: float, one: float) -> float:
    """0 up to `zero`, 1 from `one` on, straight between."""
    return float(np.clip((value - zero) / (one - zero), 0.0, 1.0))


def close(claimed: Sequence[float], measured: float, tolerance: float = TOLERANCE) -> float:
    """Agreement of a positive number or range; a range wider than a factor of two says less and gets less."""
    low, high = claimed[0], claimed[-1]
    if low <= 0 or measured <= 0:
        return 0.0
    off = max(0.0, np.log(low / measured), np.log(measured / high))
    vague = min(1.0, np.log(2) / np.log(high / low)) if high > low else 1.0
    return float(np.exp(-0.5 * (off / tolerance) ** 2) * vague)


def direction(value: str, strength: float, zero: float, one: float) -> float:
    """Agreement of "up", "down" or "flat" with a signed strength."""
    if value == "flat":
        return 1.0 - ramp(abs(strength), zero, one)
    return ramp(strength if value == "up" else -strength, zero, one)


def within(tolerance: float = TOLERANCE) -> Callable[[Claim, Any], float | None]:
    """An entry's `agrees` for a positive number: exp(−½ (log(claimed / measured) / tolerance)²)."""

    def agrees(claim: Claim, measured: Any) -> float | None:
        return close(claim.numbers, float(measured), tolerance) if claim.numbers else None

    return agrees


def above(zero: float, one: float) -> Callable[[Claim, Any], float | None]:
    """An entry's `agrees` for something present: a ramp of how much of it was measured."""
    return lambda claim, measured: ramp(float(measured), zero, one)


def hertz(claim: Claim) -> tuple[float, ...]:
    """A claim's numbers in Hz, of those that are in Hz or per minute."""
    return tuple(number / 60 if claim.value == "per minute" else number for number in claim.numbers or ())


def line_of_rate(claim: Claim, rate: float | None) -> tuple[float, ...]:
    """The line of a claim in Hz or per minute, cycles a sample; () without a rate."""
    stated = hertz(claim)
    return (float(np.sqrt(stated[0] * stated[-1])) / rate,) if rate and stated and stated[0] > 0 else ()


def line_of_period(claim: Claim, rate: float | None) -> tuple[float, ...]:
    """The line of a claimed period, cycles a sample; several where the sampling interval is unknown.

    Without a rate, "every 12 months" may mean 12 samples of a monthly series or 52 of a weekly one: each usual
    sampling interval gives a reading.
    """
    if claim.numbers is None or claim.numbers[0] <= 0:
        return ()
    number = float(np.sqrt(claim.numbers[0] * claim.numbers[-1]))
    if claim.value == "sample":
        return (1 / number,)
    seconds = number * SECONDS[claim.value]
    if rate:
        return (1 / (seconds * rate),)
    periods = sorted({round(seconds / interval) for interval in _INTERVALS})
    return tuple(1 / period for period in periods if 2 <= period <= 10_000)
