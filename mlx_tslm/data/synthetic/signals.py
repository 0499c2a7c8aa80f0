"""What the synthetic recordings of stages 3 to 5 share: what is held out for the test split, and noise."""

import itertools
from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Combination = tuple[str, ...]

LEVELS = ("low", "middle", "high")
"""Thirds of a parameter's range."""

_HELD_OUT_SHARE = 1 / 7


def held_out(labels: Sequence[str], *parameters: Sequence[str]) -> frozenset[Combination]:
    """A fixed seventh of each label's combinations of parameters, which only the test split has.

    Every single value of a parameter stays in training with every label.
    """
    chosen: set[Combination] = set()
    order = np.random.default_rng(2024)
    for label in labels:
        combinations = list(itertools.product(*parameters))
        order.shuffle(combinations)
        wanted = ceil(len(combinations) * _HELD_OUT_SHARE)
        for combination in combinations:
            others = set(combinations) - {one[1:] for one in chosen if one[0] == label} - {combination}
            kept = all({one[i] for one in others} == set(values) for i, values in enumerate(parameters))
            if kept and wanted:
                chosen.add((label, *combination))
                wanted -= 1
    return frozenset(chosen)


def draw_combination(
    rng: np.random.Generator,
    test: bool,
    held: frozenset[Combination],
    labels: Sequence[str],
    *parameters: Sequence[str],
) -> Combination:
    """A label, each as often as any other, and one of its combinations: a held-out one for the test split alone."""
    label = str(rng.choice(labels))
    while True:
        combination = (label, *(str(rng.choice(values)) for values in parameters))
        if (combination in held) == test:
            return combination


def within(rng: np.random.Generator, level: str, low: float, high: float) -> float:
    """A value in the level's third of the range, away from its edges."""
    third = LEVELS.index(level) + rng.uniform(0.08, 0.92)
    return low + (high - low) * third / 3


def band_noise(rng: np.random.Generator, samples: int, rate: float, low: float, high: float) -> FloatArray:
    """Gaussian noise of one frequency band (Hz), standard deviation 1: `[samples]`."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    noise = np.fft.irfft(spectrum, samples)
    return noise / noise.std()


def pick(rng: np.random.Generator, *variants: str) -> str:
    """One of several wordings."""
    return variants[int(rng.integers(len(variants)))]
