"""Distances between spectra, in decades: a factor of ten, or 10 dB, is 1."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal

FloatArray = NDArray[np.float64]

FLOOR = 0.01  # of the white level with the same power
GRID = 129  # frequencies from 0 to half the sampling rate
LONGEST_WINDOW = 256  # samples
CYCLES = 12  # of a claimed line inside its window
HALF_LOBE = 1.5  # DFT bins from the line: as far as the Hann window is over 20 dB below its peak
LOBE_POINTS = 33


def is_constant(x: FloatArray) -> bool:
    """Whether a series is too short or too flat to say anything of, rounding errors aside."""
    return len(x) < 4 or float(np.ptp(x)) <= 1e-9 * max(1.0, float(np.abs(x).max()))


def spectral_distance(x: FloatArray, c: FloatArray, floor: float = FLOOR) -> float:
    """∫ |log₁₀ S_x − log₁₀ S_c| dμ(ω), in decades: symmetric, 0 for equal spectra, blind to scale and offset.

    S are Welch spectra with one Hann window (the shorter series' length, 256 samples at most), linearly
    detrended, on 129 frequencies from 0 to half the sampling rate, scaled to mean 1 and floored at `floor`.
    μ is the mean of the two, scaled to unit power: the spectra are compared where either has its power.
    Under a uniform μ the empty frequencies, most of the grid for a seasonal series, decide: a trace of noise
    then counts more than a wrong period.
    """
    window = min(len(x), len(c), LONGEST_WINDOW)
    s_x, s_c = _density(x, window), _density(c, window)
    weight = s_x + s_c
    if weight.sum() <= 0:
        return 0.0  # both constant
    difference = np.log10(np.maximum(s_x, floor)) - np.log10(np.maximum(s_c, floor))
    return float(np.average(np.abs(difference), weights=weight))


def _density(x: FloatArray, window: int) -> FloatArray:
    if is_constant(x):
        return np.zeros(GRID)
    _, power = signal.welch(
        (x - x.mean()) / x.std(), window="hann", nperseg=window, nfft=2 * (GRID - 1), detrend="linear"
    )
    return np.asarray(power / max(float(power.mean()), 1e-12), dtype=np.float64)


def line_distance(inputs: Sequence[FloatArray], frequency: float, floor: float = FLOOR) -> float:
    """Distance of a claimed line to the inputs, in decades: 0 where they have it, about 1.8 where none does.

    Args:
        inputs: float64 `[T]` each; S_c is the mean of their spectra, constant ones left out.
        frequency: of the line, in cycles a sample.
        floor: density, as a share of the white level, below which the spectra are taken for it.

    Returns:
        The distance; NaN where the inputs hold fewer than two cycles of the line, so that nothing can be said.
    """
    inputs = [x for x in inputs if frequency * len(x) >= 2]
    if not inputs:
        return float("nan")
    claimed = _hann_line(np.linspace(-HALF_LOBE, HALF_LOBE, LOBE_POINTS))
    claimed = np.log10(np.maximum(claimed / claimed.mean(), floor))
    length = min(len(x) for x in inputs)
    varying = [x[:length] for x in inputs if not is_constant(x[:length])]
    seen = _lobe(np.stack(varying), frequency) if varying and frequency < 0.5 else np.zeros(LOBE_POINTS)
    return float(np.abs(claimed - np.log10(np.maximum(seen, floor))).mean())


def _lobe(x: FloatArray, frequency: float) -> FloatArray:
    """Mean spectrum of x `[series, T]` over a line's main lobe: mean 1 where its octave holds nothing else."""
    length = x.shape[1]
    window = max(4, min(length, round(CYCLES / frequency)))
    size = 2 ** int(np.ceil(np.log2(8 * window)))
    x = signal.detrend(x / x.std(axis=1, keepdims=True))
    grid, power = signal.welch(x, window="hann", nperseg=window, nfft=size, detrend="linear")
    half = HALF_LOBE / window
    # The octave around the line, or the lobe where a short input makes that wider.
    low, high = min(frequency / np.sqrt(2), frequency - half), max(frequency * np.sqrt(2), frequency + half)
    octave = (grid >= low) & (grid <= high)
    outside = octave & (np.abs(grid - frequency) > 2 / window)
    background = np.median(power[:, outside], axis=1) if outside.any() else np.zeros(len(x))
    # An octave with under 1 % of all the power is empty, whatever leaks into it.
    whole = np.maximum(power[:, octave].sum(axis=1), 0.01 * power.sum(axis=1)) * grid[1]
    points = frequency + np.linspace(-half, half, LOBE_POINTS)
    share = np.maximum(power - background[:, None], 0.0) * (2 * half / np.maximum(whole, 1e-12))[:, None]
    return np.interp(points, grid, share.mean(axis=0), right=0.0)


def _hann_line(bins: FloatArray) -> FloatArray:
    """Power of a sinusoid seen through a Hann window, `bins` DFT bins off its frequency."""
    response = np.sinc(bins) + 0.5 * np.sinc(bins - 1) + 0.5 * np.sinc(bins + 1)
    return np.asarray(response**2, dtype=np.float64)
