"""Measure physiological signals: heart beats, EEG bands, movement."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

FloatArray = NDArray[np.float64]

# Hz. Sigma is where sleep spindles are; it lies inside what waking EEG calls alpha and beta.
EEG_BANDS = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 12.0),
    "sigma": (12.0, 16.0),
    "beta": (16.0, 30.0),
}
GRAVITY = 9.81


class Beats(NamedTuple):
    rate: float  # beats a minute, from the median RR interval
    irregularity: float  # median |change of RR| over median RR: about 0.02 in sinus rhythm, over 0.1 in AF
    times: FloatArray  # of the R peaks, s


def find_beats(leads: Sequence[FloatArray], rate: float) -> Beats | None:
    """Find R peaks where the slope energy in the QRS band, summed over the leads, peaks.

    Band-pass 5–20 Hz, differentiate, square, integrate over 0.12 s (Pan & Tompkins 1985), then peaks at
    least 0.25 s apart and over a third of a typical beat's. Needs three beats, 40 Hz and 2 s; else None.
    """
    length = min(len(lead) for lead in leads)
    if rate < 40 or length < 2 * rate:
        return None
    sos = signal.butter(2, [5.0, min(20.0, 0.45 * rate)], "bandpass", fs=rate, output="sos")
    energy = np.zeros(length)
    for lead in leads:
        if np.ptp(lead) > 0:
            slope = np.gradient(signal.sosfiltfilt(sos, lead[:length]))
            scale = float(np.quantile(np.abs(slope), 0.99))
            energy += (slope / scale) ** 2 if scale > 0 else 0.0
    width = max(1, round(0.12 * rate))
    energy = np.convolve(energy, np.full(width, 1 / width), mode="same")
    # The typical beat: the median of the largest value in each 1.5 s, long enough to hold one.
    window = round(1.5 * rate)
    typical = float(np.median([energy[i : i + window].max() for i in range(0, length - window // 2, window)]))
    if typical <= 0:
        return None
    peaks, _ = signal.find_peaks(energy, distance=max(1, round(0.25 * rate)), height=typical / 3)
    if len(peaks) < 3:
        return None
    inner = peaks[(peaks > 0) & (peaks < length - 1)]
    left, mid, right = energy[inner - 1], energy[inner], energy[inner + 1]
    curve = left - 2 * mid + right
    shift = np.divide(0.5 * (left - right), curve, out=np.zeros_like(curve), where=curve < 0)
    times = (inner + shift) / rate
    intervals = np.diff(times)
    if len(intervals) < 2:
        return None
    typical_rr = float(np.median(intervals))
    return Beats(60.0 / typical_rr, float(np.median(np.abs(np.diff(intervals))) / typical_rr), times)


def band_shares(x: FloatArray, rate: float) -> dict[str, float]:
    """Each band's share of the power an octave, summing to 1.

    An octave, not a Hz: EEG falls off as 1/f, and by plain power delta would dominate every recording.
    Bands above the Nyquist frequency have 0.
    """
    frequencies, power = signal.welch(x, rate, nperseg=min(len(x), round(4 * rate)), detrend="linear")
    density = {}
    for name, (low, high) in EEG_BANDS.items():
        inside = (frequencies >= low) & (frequencies < high)
        density[name] = float(power[inside].sum() / np.log2(high / low)) if inside.any() else 0.0
    total = sum(density.values())
    return {name: value / total if total > 0 else 0.0 for name, value in density.items()}


def movement_intensity(axes: Sequence[FloatArray]) -> float:
    """Root mean square of the acceleration about its mean, over three axes, in m/s².

    Recordings in g are recognised by gravity: a mean vector near 1 and little beside it.
    """
    axes = axes[:3]
    intensity = float(np.sqrt(sum(float(axis.var()) for axis in axes)))
    mean = float(np.sqrt(sum(float(axis.mean()) ** 2 for axis in axes)))
    return intensity * GRAVITY if 0.8 < mean < 1.25 and intensity < 2.5 else intensity


def find_cadence(axes: Sequence[FloatArray], rate: float) -> float | None:
    """Steps a second: the strongest line of the acceleration between 0.5 and 5 Hz, its axes' spectra added.

    None where no line holds a tenth of the power there, or where the recording is under 2 s.
    """
    axes = axes[:3]
    length = min(len(axis) for axis in axes)
    if length < max(2 * rate, 8):
        return None
    power = np.zeros(0)
    for axis in axes:
        size = min(length, round(8 * rate))
        frequencies, each = signal.welch(axis[:length], rate, nperseg=size, nfft=4 * size, detrend="linear")
        power = each if not power.size else power + each
    inside = (frequencies >= 0.5) & (frequencies <= min(5.0, 0.45 * rate))
    if not inside.any() or power[inside].sum() <= 0:
        return None
    best = int(np.argmax(np.where(inside, power, 0)))
    lobe = np.abs(frequencies - frequencies[best]) <= 2 * rate / min(length, round(8 * rate))
    share = float(power[lobe & inside].sum() / power[inside].sum())
    return float(frequencies[best]) if share >= 0.35 else None
