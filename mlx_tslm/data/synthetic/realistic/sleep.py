"""Synthetic EEG epochs as people have them (stage 4): artefacts, other amplifiers, a quarter to all of an epoch.

The epochs are those of `synthetic.sleep`. Beyond them: blinks while awake (0.3 s, 50 to 150 µV on frontal leads),
sweat (slow drift below 0.5 Hz), muscle and mains noise, the heart's spikes, electrode pops (a step that decays):
the chapters on artefacts in the AASM manual and in Niedermeyer's Electroencephalography; slow devices, either
polarity, µV or mV, and amplifiers whose gain is off.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from mlx_tslm.data.synthetic import sleep
from mlx_tslm.data.synthetic.realistic import disturb
from mlx_tslm.data.synthetic.signals import FloatArray

RATE = sleep.RATE
SHORTEST = sleep.LENGTH // 4  # samples
_DEEP = 0.25  # share of an epoch with slow waves above which it is deep sleep whatever the gain


def render(traits: sleep.Traits, rng: np.random.Generator) -> tuple[FloatArray, sleep.Traits]:
    """Make a part of an epoch with these traits.

    Returns:
        µV, float64 `[T]`, and the traits completed with what was made and measured in this part.
    """
    while True:
        values, whole = sleep.render(traits, rng)
        length = sleep.LENGTH if rng.random() < 0.55 else int(rng.integers(SHORTEST // 50, sleep.LENGTH // 50) * 50)
        first = int(rng.integers(sleep.LENGTH - length + 1))
        # N1 and movement are told by how low and how high they are: there the gain stays nearer to 1.
        gain = np.exp((0.1 if traits.label in ("Non-REM stage 1", "Movement") else 0.2) * rng.standard_normal())
        cut = gain * values[first : first + length] * rng.choice((-1, 1), p=(0.2, 0.8))
        cut = np.round(_disturb(cut, traits.label, rng), 2)
        seen = replace(
            whole,
            events=_inside(whole.events, first, length),
            complexes=_inside(whole.complexes, first, length),
            peak_to_peak=float(np.ptp(cut)),
            slow_share=sleep.slow_share(cut),
        )
        if bool(seen.events) < bool(whole.events) or bool(seen.complexes) < bool(whole.complexes):
            continue  # what the stage is told by was cut off
        if traits.label == "Non-REM stage 3" and seen.slow_share < _DEEP:
            continue
        return cut, seen


def _inside(seconds: tuple[float, ...], first: int, length: int) -> tuple[float, ...]:
    """Those events that lie wholly in the part, from its own beginning."""
    moved = [at - first / RATE for at in seconds]
    return tuple(at for at in moved if 1.0 <= at <= length / RATE - 1.0)


def _disturb(values: FloatArray, label: str, rng: np.random.Generator) -> FloatArray:
    n, t = len(values), np.arange(len(values)) / RATE
    if rng.random() < 0.4:
        values = values + disturb.wander(rng, n, RATE, rng.uniform(2, 12))
    if rng.random() < 0.3:
        values = values + disturb.muscle(rng, n, RATE, rng.uniform(1, 5))
    if rng.random() < 0.2:
        values = values + disturb.mains(rng, n, RATE, rng.uniform(0.5, 4))
    if rng.random() < 0.15:
        every, at = rng.uniform(0.6, 1.2), rng.random()
        beat = (t + at) % every
        values = values + rng.uniform(3, 10) * np.exp(-((np.minimum(beat, every - beat) / 0.03) ** 2))
    if label == "Wake" and rng.random() < 0.4:
        for at in rng.uniform(0, n / RATE, int(rng.integers(1, 5))):
            values = values + rng.uniform(50, 150) * np.exp(-(((t - at) / 0.12) ** 2))
    if rng.random() < 0.08:
        at = rng.uniform(0, n / RATE)
        values = values + np.where(t > at, rng.uniform(20, 60) * np.exp(-np.maximum(t - at, 0) / 0.15), 0.0)
    if rng.random() < 0.2:  # filtered as by a device that keeps 35 Hz or less; the upper edge of 25 Hz is in it
        values = disturb.low_pass(values, RATE, rng.uniform(18, 24))
    offset = rng.uniform(-50, 50) if rng.random() < 0.3 else 0.0
    return disturb.quantised(values, rng.choice((250, 4000))) + offset


def row(split: str, rng: np.random.Generator) -> dict[str, Any]:
    """One row with Sleep CoT's columns, and its `traits`; one in ten in mV, the words in µV all the same."""
    values, traits = render(sleep.draw(rng, split), rng)
    return {
        "time_series": (values * (1e-3 if rng.random() < 0.1 else 1)).astype(np.float32),
        "label": traits.label,
        "rationale": sleep.rationale(traits, rng),
        "traits": traits,
    }
