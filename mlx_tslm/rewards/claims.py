"""What a claim about a signal is, and which frequency it states."""

from dataclasses import dataclass

import numpy as np

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
NARROW = 1.5  # a range whose ends differ by more than this factor is a band, not a line
# How far apart samples usually are, s: the readings of a time where the rate is unknown.
_INTERVALS = (*SECONDS.values(), 900.0, 1800.0)


@dataclass(frozen=True)
class Claim:
    """One statement about the signal.

    Args:
        kind: what is claimed: "trend", "turn", "season", "period", "frequency", "noise", "volatility", "outlier",
            "change", "mean", "min", "max", "min_at", "max_at", "heart_rate", "rhythm", "intervals" (between
            beats), "finding" (of an ECG), "band", "sleep", "intensity", "activity", "gravity" (on which of three
            axes) or "cadence".
        value: the category ("up", "regular", "delta", …), or the unit of the numbers.
        numbers: one number, or the two ends of a range, ascending; None for a category.
        negated: whether the text denies it.
    """

    kind: str
    value: str
    numbers: tuple[float, ...] | None = None
    negated: bool = False


def cycles_per_sample(claim: Claim, rate: float | None) -> tuple[float, ...]:
    """The frequency that a claim states, in cycles a sample; several where the sampling interval is unknown.

    Without a rate, "every 12 months" may mean 12 samples of a monthly series or 52 of a weekly one: each usual
    sampling interval gives a reading. Without a rate Hz and bpm say nothing: ().
    """
    if claim.numbers is None or claim.numbers[0] <= 0:
        return ()
    number = float(np.sqrt(claim.numbers[0] * claim.numbers[-1]))
    if claim.kind in ("frequency", "cadence", "heart_rate"):
        hertz = number / 60 if claim.value == "per minute" else number
        return (hertz / rate,) if rate else ()
    if claim.value == "sample":
        return (1 / number,)
    seconds = number * SECONDS[claim.value]
    if rate:
        return (1 / (seconds * rate),)
    periods = sorted({round(seconds / interval) for interval in _INTERVALS})
    return tuple(1 / period for period in periods if 2 <= period <= 10_000)
