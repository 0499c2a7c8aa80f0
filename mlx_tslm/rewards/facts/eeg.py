"""What sleep is scored by in an EEG epoch (Berry et al., The AASM Manual for the Scoring of Sleep)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

FloatArray = NDArray[np.float64]

SLOW_WAVE = 75.0  # µV from peak to peak
_MILLIVOLT = 1.5  # an epoch of less from peak to peak is in mV
_SCALED = 15.0  # µV: of less than this, and no mV, the values are in no unit
_WINDOW = 2.0  # seconds


class Epoch(NamedTuple):
    """What an epoch has.

    Attributes:
        peak_to_peak: µV; None where the unit is not known.
        slow: share of the windows of 2 s that swing by over 75 µV below 4 Hz; None without a unit.
        spindles: the strongest half second between 11.5 and 15.5 Hz over the usual one.
        complexes: the largest single swing between 0.4 and 5 Hz over the usual deviation.
        alpha, theta: share of the power in the strongest line of the band, 0 … 1.
        delta: share of the power an octave, 0 … 1.
    """

    peak_to_peak: float | None
    slow: float | None
    spindles: float
    complexes: float
    alpha: float
    theta: float
    delta: float


def find_epoch(x: FloatArray, rate: float, bands: Mapping[str, float], in_units: bool) -> Epoch | None:
    """Look at an epoch of 4 s or more, sampled at 32 Hz or faster; else None."""
    if len(x) < 4 * rate or rate < 32 or np.ptp(x) <= 0:
        return None
    swing = float(np.ptp(x))
    unit = 1000.0 if swing < _MILLIVOLT else 1.0
    known = in_units and swing * unit >= _SCALED
    slow_waves = _band(x * unit, rate, 0.4, 4.0)
    window = round(_WINDOW * rate)
    parts = slow_waves[: len(x) // window * window].reshape(-1, window)
    spindles = np.sqrt(_mean(_band(x, rate, 11.5, 15.5) ** 2, round(0.5 * rate)))
    swings = np.abs(_band(x, rate, 0.4, 5.0))
    frequencies, power = signal.welch(x, rate, nperseg=min(len(x), round(4 * rate)), detrend="linear")
    return Epoch(
        swing * unit if known else None,
        float(np.mean(np.ptp(parts, axis=1) > SLOW_WAVE)) if known else None,
        float(spindles.max() / max(np.median(spindles), 1e-12)),
        float(swings.max() / max(1.4826 * np.median(swings), 1e-12)),
        _line(frequencies, power, 8.0, 12.5),
        _line(frequencies, power, 4.0, 8.0),
        bands["delta"],
    )


def burst(x: FloatArray, rate: float, frequency: float) -> float:
    """How clearly a frequency comes in a burst of about two seconds: its power there over the usual one.

    0 where another frequency nearby is the stronger one at that time.
    """
    size = round(_WINDOW * rate)
    if not 1.0 <= frequency <= 0.45 * rate or len(x) < 3 * size:
        return 0.0
    grid, _, power = signal.spectrogram(
        x, rate, "hann", nperseg=size, noverlap=size - round(0.5 * rate), nfft=4 * size, detrend="linear"
    )
    power = power * grid[:, None]  # as EEG falls off
    here = np.abs(grid - frequency) <= max(0.06 * frequency, 0.35)
    near = (grid >= frequency / 1.5) & (grid <= frequency * 1.5)
    strength = power[here].max(axis=0)
    at = int(np.argmax(strength))
    alone = strength[at] >= 0.8 * power[near, at].max()
    return float(strength[at] / max(np.median(strength), 1e-12)) if alone else 0.0


def _band(x: FloatArray, rate: float, low: float, high: float) -> FloatArray:
    sos = signal.butter(2, [low, min(high, 0.48 * rate)], "bandpass", fs=rate, output="sos")
    return np.asarray(signal.sosfiltfilt(sos, x), np.float64)


def _mean(x: FloatArray, width: int) -> FloatArray:
    return np.convolve(x, np.full(width, 1 / width), mode="same")


def _line(frequencies: FloatArray, power: FloatArray, low: float, high: float) -> float:
    inside = (frequencies >= low) & (frequencies <= high)
    whole = float(power[frequencies >= 0.5].sum())
    if not inside.any() or whole <= 0:
        return 0.0
    top = int(np.argmax(np.where(inside, power, 0.0)))
    return float(power[max(top - 1, 0) : top + 2].sum() / whole)
