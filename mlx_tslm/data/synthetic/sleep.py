"""Synthetic EEG epochs by sleep stage (stage 4): 30 s at 50 Hz, in µV.

Each epoch has what the AASM manual scores its stage by (Berry et al., The AASM Manual for the Scoring of Sleep
and Associated Events): alpha rhythm in wakefulness; theta in its place in N1; sleep spindles and K complexes in
N2; slow waves (0.5 to 2 Hz, over 75 µV from peak to peak) in N3; low mixed activity with sawtooth waves in REM
sleep; and in an epoch of movement, muscle activity and a swinging baseline that hide all else.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlx_tslm.data.synthetic.signals import (
    LEVELS,
    FloatArray,
    band_noise,
    draw_combination,
    held_out,
    pick,
    within,
)
from mlx_tslm.stages.sleep import SLEEP

RATE = 50.0
LENGTH = 1500
SLOW_WAVE = 75.0  # µV from peak to peak

LABELS = SLEEP.labels or ()
HELD_OUT = held_out(LABELS, LEVELS, LEVELS)
"""Combinations (sleep stage, pace, size) that only the test split has."""

# Of each stage's leading activity: the range of its frequency (Hz), and of its root mean square (µV).
_LEADING = {
    "Wake": ((8.5, 11.5), (18, 36)),
    "Non-REM stage 1": ((4.5, 7.0), (11, 20)),
    "Non-REM stage 2": ((12.2, 14.8), (9, 14)),  # spindles; the size is that of the background
    "Non-REM stage 3": ((0.7, 1.8), (40, 70)),
    "REM sleep": ((2.5, 4.5), (6, 10)),  # sawtooth waves; the size is that of the background
    "Movement": ((0.3, 0.8), (110, 220)),
}


@dataclass(frozen=True)
class Traits:
    """What is true of an epoch.

    Args:
        label: the sleep stage, as stage 4 spells it.
        pace, size: thirds of the ranges of its leading activity's frequency and amplitude, of `LEVELS`.
        frequency: of the leading activity, Hz (of the spindles in N2, of the sawtooth waves in REM sleep).
        events: seconds at which spindles (N2) or bursts of sawtooth waves (REM) have their middle.
        complexes: seconds at which K complexes (N2) have their trough.
        peak_to_peak: µV, as measured.
        slow_share: share of the 2 s windows whose peak-to-peak amplitude below 4 Hz is over `SLOW_WAVE`.
    """

    label: str
    pace: str
    size: str
    frequency: float = 0.0
    events: tuple[float, ...] = ()
    complexes: tuple[float, ...] = ()
    peak_to_peak: float = 0.0
    slow_share: float = 0.0


def draw(rng: np.random.Generator, split: str) -> Traits:
    """Draw the traits of one epoch from the split's combinations."""
    label, pace, size = draw_combination(rng, split == "test", HELD_OUT, LABELS, LEVELS, LEVELS)
    return Traits(label, pace, size)


def render(traits: Traits, rng: np.random.Generator) -> tuple[FloatArray, Traits]:
    """Make an epoch with these traits.

    Returns:
        µV, float64 `[1500]`, and the traits completed with what was made and measured.
    """
    frequencies, sizes = _LEADING[traits.label]
    frequency, size = within(rng, traits.pace, *frequencies), within(rng, traits.size, *sizes)
    events: tuple[float, ...] = ()
    complexes: tuple[float, ...] = ()
    if traits.label == "Wake":
        values = size * _rhythm(rng, frequency) + 4 * _noise(rng, 16, 24) + 4 * _noise(rng, 0.5, 7)
    elif traits.label == "Non-REM stage 1":
        values = size * _rhythm(rng, frequency) + 3 * _noise(rng, 8, 20) + 4 * _noise(rng, 0.5, 4)
    elif traits.label == "Non-REM stage 2":
        places = _places(rng, int(rng.integers(4, 7)))
        count = int(rng.integers(2, len(places) - 1))
        events, complexes = places[:count], places[count:]
        values = size * _noise(rng, 2, 8) + 2 * _noise(rng, 8, 20)
        values += sum(_spindle(rng, at, frequency, size) for at in events)
        values += sum(_k_complex(rng, at, size) for at in complexes)
    elif traits.label == "Non-REM stage 3":
        values = size * _rhythm(rng, frequency) + 5 * _noise(rng, 2, 8) + 2 * _noise(rng, 8, 20)
    elif traits.label == "REM sleep":
        events = _places(rng, int(rng.integers(2, 4)))
        values = size * (0.8 * _noise(rng, 3, 8) + 0.6 * _noise(rng, 14, 24))
        values += sum(_sawtooth(rng, at, frequency, size) for at in events)
    else:
        values = size * _rhythm(rng, frequency) + 0.5 * size * _noise(rng, 14, 24)
    values = np.round(values, 2)
    completed = replace(
        traits,
        frequency=frequency,
        events=tuple(sorted(events)),
        complexes=tuple(sorted(complexes)),
        peak_to_peak=float(np.ptp(values)),
        slow_share=slow_share(values),
    )
    return values, completed


def slow_share(values: FloatArray) -> float:
    """See `Traits.slow_share`."""
    spectrum = np.fft.rfft(values)
    spectrum[np.fft.rfftfreq(len(values), 1 / RATE) > 4] = 0
    slow = np.fft.irfft(spectrum, len(values))
    window = round(2 * RATE)
    whole = slow[: len(slow) // window * window]
    return float(np.mean(np.ptp(whole.reshape(-1, window), axis=1) > SLOW_WAVE))


def _noise(rng: np.random.Generator, low: float, high: float) -> FloatArray:
    return band_noise(rng, LENGTH, RATE, low, high)


def _rhythm(rng: np.random.Generator, frequency: float) -> FloatArray:
    """A rhythm that waxes and wanes and wanders a little in frequency, but is always there; deviation about 1."""
    t = np.arange(LENGTH) / RATE
    phase = 2 * np.pi * (frequency * t + rng.random()) + 0.5 * _noise(rng, 0.03, 0.4)
    return np.sqrt(2) * (1 + 0.15 * np.clip(_noise(rng, 0.03, 0.4), -2, 2)) * np.sin(phase)


def _places(rng: np.random.Generator, count: int) -> tuple[float, ...]:
    """Seconds, in any order, at least 3 s apart and 2 s from the ends."""
    slots = rng.permutation(8)[:count]
    return tuple(2.5 + 3.25 * float(slot) + float(rng.uniform(-0.1, 0.1)) for slot in slots)


def _window(at: float, seconds: float) -> tuple[FloatArray, FloatArray]:
    """Time from `at`, and a smooth window of this length about it."""
    t = np.arange(LENGTH) / RATE - at
    return t, np.where(np.abs(t) < seconds / 2, np.cos(np.pi * t / seconds) ** 2, 0.0)


def _spindle(rng: np.random.Generator, at: float, frequency: float, size: float) -> FloatArray:
    t, window = _window(at, rng.uniform(1.0, 1.6))
    return 3.2 * size * window * np.sin(2 * np.pi * frequency * t)


def _k_complex(rng: np.random.Generator, at: float, size: float) -> FloatArray:
    """A sharp trough, then a slower and lower wave; about 0.8 s."""
    t = np.arange(LENGTH) / RATE - at
    depth = size * rng.uniform(8, 10)
    return depth * (-np.exp(-((t / 0.09) ** 2)) + 0.55 * np.exp(-(((t - 0.36) / 0.16) ** 2)))


def _sawtooth(rng: np.random.Generator, at: float, frequency: float, size: float) -> FloatArray:
    t, window = _window(at, rng.uniform(2.0, 2.8))
    return 3.0 * size * np.sqrt(window) * (2 * ((t * frequency) % 1) - 1)


def rationale(traits: Traits, rng: np.random.Generator) -> str:
    """What is seen in the epoch, then its sleep stage."""
    height = f"{traits.peak_to_peak:.0f} µV from peak to peak"
    rhythm = f"{traits.frequency:.1f} Hz"
    low = pick(rng, f"The amplitude is low, {height}.", f"With {height}, the amplitude is low.")
    if traits.label == "Wake":
        seen = (
            f"A rhythm of {rhythm} in the alpha band leads throughout, {height}, with little beside it. "
            "There are no spindles and no slow waves, so sleep has not begun."
        )
    elif traits.label == "Non-REM stage 1":
        seen = (
            f"{low} Theta activity of about {rhythm} leads, and alpha rhythm is gone. "
            "No spindle, K complex or slow wave has come yet, which is how sleep begins."
        )
    elif traits.label == "Non-REM stage 2":
        seen = (
            f"Over mixed frequencies there are {_times('sleep spindle', traits.events)} near {rhythm} and "
            f"{_times('K complex', traits.complexes)}. Slow waves do not fill the epoch: sleep is not yet deep."
        )
    elif traits.label == "Non-REM stage 3":
        seen = (
            f"Slow waves of about {rhythm} lead, {height}: below 4 Hz, {100 * traits.slow_share:.0f} % of the "
            f"epoch swings by over {SLOW_WAVE:.0f} µV, and a fifth would do for deep sleep."
        )
    elif traits.label == "REM sleep":
        seen = (
            f"{low} Mixed frequencies share the power, with {_times('burst', traits.events)} of sawtooth waves "
            f"near {rhythm}. There are neither spindles nor K complexes."
        )
    else:
        seen = (
            f"The baseline swings with {height}, far more than the brain's activity does, under that of muscles "
            "above 14 Hz. What the brain does cannot be seen beneath them."
        )
    return f"{seen} Answer: {traits.label}"


def _times(what: str, seconds: tuple[float, ...]) -> str:
    """ "2 sleep spindles (at 6 s and 17 s)"."""
    *first, last = (f"{at:.0f} s" for at in seconds)
    listed = f"{', '.join(first)} and {last}" if first else last
    plural = "" if len(seconds) == 1 else "es" if what.endswith("x") else "s"
    return f"{len(seconds)} {what}{plural} (at {listed})"


def row(split: str, rng: np.random.Generator) -> dict[str, Any]:
    """One row with Sleep CoT's columns, and its `traits`."""
    values, traits = render(draw(rng, split), rng)
    return {
        "time_series": values.astype(np.float32),
        "label": traits.label,
        "rationale": rationale(traits, rng),
        "traits": traits,
    }
