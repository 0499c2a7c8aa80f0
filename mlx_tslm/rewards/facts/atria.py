"""What tells one heart rhythm from another besides the rate: P waves, and how the RR intervals vary."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from mlx_tslm.rewards.facts.physiology import Beats

FloatArray = NDArray[np.float64]

_P = (-0.26, -0.07)  # seconds from the R peak: where the P wave is
_FLUTTER = (4.0, 5.8)  # Hz: of the waves that atrial flutter has in place of P waves
_PHASES = 128
_BREATH = np.arange(0.12, 0.42, 0.01)  # Hz


class Atria(NamedTuple):
    """What is seen of the atria.

    Attributes:
        p_wave: signal over noise of the mean wave before the QRS complexes, decibel; about 0 where there is none.
        variation: standard deviation of the RR intervals over their mean, early beats left out.
        breath: share of the RR intervals' variance that one sine of a breath's frequency explains, 0 … 1, less what
            it would explain by chance.
        sawtooth: how far the harmonics of flutter waves, three or four a beat, stand out of their neighbours in the
            mean beat without its QRS complex, decibel.
        intervals: RR intervals, seconds, without those beside an early beat.
    """

    p_wave: float
    variation: float
    breath: float
    sawtooth: float
    intervals: FloatArray


def find_atria(leads: Sequence[FloatArray], rate: float, beats: Beats) -> Atria | None:
    """Look at the beats that were found; needs four of them, else None."""
    if len(beats.times) < 4:
        return None
    times, intervals = _without_early(beats.times)
    p_waves = [_p_wave(lead, rate, beats.times) for lead in leads if np.ptp(lead) > 0]
    variation = float(intervals.std() / intervals.mean())
    sawtooths = [_sawtooth(lead, rate, beats.times) for lead in leads if np.ptp(lead) > 0]
    sawtooth = float(np.mean(sawtooths)) if sawtooths else 0.0
    return Atria(max(p_waves, default=0.0), variation, _breath(times, intervals), sawtooth, intervals)


def _without_early(times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """When intervals end and how long they are, but for a short one with a long one behind it: an early beat."""
    intervals = np.diff(times)
    typical = np.median(intervals)
    keep = np.ones(len(intervals), bool)
    for at in range(len(intervals) - 1):
        early, pause = intervals[at] / typical, intervals[at + 1] / typical
        regular = np.abs(np.delete(intervals, [at, at + 1]) / typical - 1)
        if early < 0.85 < 1.1 < pause and len(regular) and np.median(regular) < 0.06:
            keep[[at, at + 1]] = False
    return (times[1:][keep], intervals[keep]) if keep.sum() >= 3 else (times[1:], intervals)


def _p_wave(lead: FloatArray, rate: float, times: FloatArray) -> float:
    """Power of the mean wave before the beats over that of what differs from beat to beat, decibel."""
    sos = signal.butter(2, [1.0, min(30.0, 0.45 * rate)], "bandpass", fs=rate, output="sos")
    clean = signal.sosfiltfilt(sos, lead)
    offsets = np.arange(*_P, 1 / rate)
    at = times[(times + _P[0] > 0) & (times + _P[1] < len(lead) / rate)]
    if len(at) < 3:
        return 0.0
    waves = np.stack([np.interp(time + offsets, np.arange(len(lead)) / rate, clean) for time in at])
    waves = signal.detrend(waves, axis=1)
    mean = np.median(waves, axis=0)
    noise = float(np.median((waves - mean) ** 2)) / 0.455 + 1e-12 * float(np.ptp(lead)) ** 2
    return float(10 * np.log10(max(float((mean**2).mean()) * len(at) / noise, 1e-3)))


def _breath(times: FloatArray, intervals: FloatArray) -> float:
    centred = intervals - intervals.mean()
    whole, n = float(centred @ centred), len(intervals)
    if n < 6 or whole <= 0:
        return 0.0
    best = 0.0
    for frequency in _BREATH:
        phase = 2 * np.pi * frequency * (times - intervals / 2)
        waves = np.stack([np.ones(n), np.sin(phase), np.cos(phase)], axis=1)
        fitted = waves @ np.linalg.lstsq(waves, centred, rcond=None)[0]
        best = max(best, float(fitted @ fitted) / whole)
    return float(np.clip(1 - (1 - best) * (n - 1) / max(n - 4, 1), 0, 1))


def _sawtooth(lead: FloatArray, rate: float, times: FloatArray) -> float:
    """Of the mean beat, by phase, the best harmonic within the range of flutter waves, and its double: decibel."""
    intervals = np.diff(times)
    typical = float(np.median(intervals))
    sos = signal.butter(2, [0.7, min(30.0, 0.45 * rate)], "bandpass", fs=rate, output="sos")
    clean, t = signal.sosfiltfilt(sos, lead), np.arange(len(lead)) / rate
    alike = np.flatnonzero(np.abs(intervals / typical - 1) < 0.06)
    waves = [k for k in (3, 4) if _FLUTTER[0] <= k / typical <= _FLUTTER[1]]
    if len(alike) < 3 or not waves:
        return 0.0
    phases = np.arange(_PHASES) / _PHASES
    beat = np.median([np.interp(times[i] + phases * intervals[i], t, clean) for i in alike], axis=0)
    half = max(1, round(0.07 / typical * _PHASES))
    complex_ = np.arange(-half, half + 1) % _PHASES
    beat[complex_] = np.linspace(beat[(-half - 1) % _PHASES], beat[half + 1], len(complex_))
    power = np.abs(np.fft.rfft(beat - beat.mean())) ** 2 + 1e-12
    best = max(
        power[k] * power[2 * k] / np.sqrt(power[k - 1] * power[k + 1] * power[2 * k - 1] * power[2 * k + 1])
        for k in waves
    )
    return float(10 * np.log10(best))
