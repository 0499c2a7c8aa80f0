"""What sensors, amplifiers and files do to a signal, whatever it is of."""

import numpy as np

from mlx_tslm.data.synthetic.signals import FloatArray, band_noise


def wander(rng: np.random.Generator, samples: int, rate: float, size: float) -> FloatArray:
    """Baseline wander below 0.5 Hz, from breath and electrodes: `[samples]`, deviation `size`.

    Source: record bw of the MIT-BIH Noise Stress Test Database (Moody, Muldrow and Mark 1984).
    """
    return size * band_noise(rng, samples, rate, 0.0, max(0.5, 2.5 * rate / samples))


def mains(rng: np.random.Generator, samples: int, rate: float, size: float) -> FloatArray:
    """Hum at 50 or 60 Hz with a weaker third harmonic, folded back where the rate is too low for it.

    Source: Friesen et al., "A comparison of the noise sensitivity of nine QRS detection algorithms", IEEE
    Trans. Biomed. Eng. 37(1), 1990, which adds hum of up to half of an ECG's peak; less here.
    """
    t = np.arange(samples) / rate
    hum = int(rng.choice((50, 60))) + rng.uniform(-0.1, 0.1)
    phases = 2 * np.pi * rng.random(2)
    return size * np.sin(2 * np.pi * hum * t + phases[0]) + 0.2 * size * np.sin(6 * np.pi * hum * t + phases[1])


def muscle(rng: np.random.Generator, samples: int, rate: float, size: float) -> FloatArray:
    """Muscle noise from 20 Hz up, in bursts or throughout: `[samples]`.

    Source: record ma of the MIT-BIH Noise Stress Test Database.
    """
    noise = size * band_noise(rng, samples, rate, 0.4 * min(50.0, rate / 2), rate / 2)
    if rng.random() < 0.5:
        at, width = rng.uniform(0, samples), rng.uniform(0.1, 0.4) * samples
        noise *= np.exp(-(((np.arange(samples) - at) / width) ** 2))
    return noise


def low_pass(values: FloatArray, rate: float, cut: float) -> FloatArray:
    """Without what lies above `cut` Hz, as a slower device records it: `[..., T]`."""
    spectrum = np.fft.rfft(values, axis=-1)
    spectrum[..., np.fft.rfftfreq(values.shape[-1], 1 / rate) > cut] = 0
    return np.fft.irfft(spectrum, values.shape[-1], axis=-1)


def quantised(values: FloatArray, steps: float) -> FloatArray:
    """In whole steps of a converter, of which there are `steps` from the lowest value to the highest."""
    step = float(np.ptp(values)) / steps
    return np.round(values / step) * step if step else values
