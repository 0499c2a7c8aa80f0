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


class Gait(NamedTuple):
    """How a body moves.

    Attributes:
        cadence: steps or strokes a second, Hz; None without a rate, or where no line stands out.
        sharp: share of the power above one and a half times the cadence, that of impacts, 0 … 1; None where no line
            stands out.
        level: how far gravity lies on the third axis, 0 … 1; None where it is not in the recording, whose unit may
            then be g or m/s².
    """

    cadence: float | None
    sharp: float | None
    level: float | None


def find_gait(axes: Sequence[FloatArray], rate: float | None) -> Gait:
    """The strongest line of three axes together, 0.7 to 4 Hz or of more than one cycle, and where gravity lies."""
    axes = axes[:3]
    n = min((len(axis) for axis in axes), default=0)
    means = np.array([float(axis.mean()) for axis in axes])
    whole, moved = float(np.linalg.norm(means)), float(np.sqrt(sum(float(axis.var()) for axis in axes)))
    here = len(axes) == 3 and (0.8 < whole < 1.25 or 0.8 < whole / GRAVITY < 1.25) and moved < 2 * whole
    level = abs(float(means[2])) / whole if here else None
    if n < 16 or moved <= 1e-9 * max(whole, 1.0):
        return Gait(None, None, level)
    size = 2 ** int(np.ceil(np.log2(4 * n)))
    windowed = [np.abs(np.fft.rfft(signal.detrend(axis[:n]) * np.hanning(n), size)) ** 2 for axis in axes]
    power, cycles = np.sum(windowed, axis=0), np.fft.rfftfreq(size)
    low, high = (0.7 / rate, 4.0 / rate) if rate else (1.5 / n, 0.25)
    inside = (cycles >= low) & (cycles <= high)
    if not inside.any():
        return Gait(None, None, level)
    line = float(cycles[np.argmax(np.where(inside, power, 0.0))])
    all_of_it = float(power[cycles > 0.5 * low].sum())
    lobe = np.abs(cycles - line) < 1.5 / n
    if power[lobe].sum() < 0.2 * all_of_it:
        return Gait(None, None, level)
    sharp = float(power[cycles > max(1.5 * line, line + 1.5 / n)].sum() / all_of_it)
    return Gait(line * rate if rate else None, sharp, level)
