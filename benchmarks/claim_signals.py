"""Signals whose truth is known by how they are made, of another make than the project's own generators.

Clean and noisy, with offsets of up to 1e5, 60 to 400 samples long (recordings of the body: seconds), leads
inverted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Signal:
    """Series float64 `[T]` each, their rate in Hz or None, and what is true of them: kind → value or number.

    A kind that is not named is not known, and nothing is said of it. `None` for a period: there is none.
    """

    name: str
    series: tuple[FloatArray, ...]
    truth: dict[str, Any] = field(default_factory=dict)
    rate: float | None = None


def signals(seed: int = 0) -> list[Signal]:
    """All of them, the same for the same seed."""
    rng = np.random.default_rng(seed)
    made = [*_waves(rng), *_courses(rng), *_noise(rng), *_hearts(rng), *_gaits(rng), *_brains(rng)]
    return made


def _placed(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    """At another level and scale, offsets of 1e5 among them."""
    scale, offset = ((1, 0), (3.7, 1e5), (0.02, 5.0), (250.0, -4e3), (12.0, 40.0))[int(rng.integers(5))]
    return scale * x + offset


def _levels(x: FloatArray) -> dict[str, Any]:
    """Levels, and where the extremes lie if that is clear."""
    truth: dict[str, Any] = {"mean": float(x.mean()), "min": float(x.min()), "max": float(x.max())}
    spread = float(np.ptp(x))
    for kind, extreme in (("max_at", x), ("min_at", -x)):
        near = np.flatnonzero(extreme >= extreme.max() - 0.1 * spread) / (len(x) - 1)
        for place, (low, high) in {"start": (0, 0.15), "middle": (0.38, 0.62), "end": (0.85, 1)}.items():
            if near.min() >= low and near.max() <= high:
                truth[kind] = place
    return truth


def _series(name: str, x: FloatArray, rng: np.random.Generator, **truth: Any) -> Signal:
    x = _placed(x, rng)
    return Signal(name, (x,), {**_levels(x), **truth})


_SHAPES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "sine": lambda phase: np.sin(2 * np.pi * phase),
    "cosine": lambda phase: np.cos(2 * np.pi * phase),
    "sawtooth": lambda phase: 2 * (phase % 1) - 1,
    "triangle": lambda phase: 4 * np.abs(phase % 1 - 0.5) - 1,
    "square": lambda phase: np.where(phase % 1 < 0.5, 1.0, -1.0),
    "pulses": lambda phase: np.exp(-0.5 * ((phase % 1 - 0.5) / 0.12) ** 2),
}


def _waves(rng: np.random.Generator) -> Iterator[Signal]:
    for name, shape in _SHAPES.items():
        for length, period in ((60, 10), (96, 12), (120, 7.3), (200, 24), (400, 33.3), (365, 7)):
            phase = np.arange(length) / period
            known = {"season": "present", "period": period, "outlier": "none", "turn": "none"}
            x = shape(phase)
            # A square wave or a saw jumps; that is no noise, but what it is a person would not say.
            smooth = {} if name in ("square", "sawtooth", "pulses") or period < 8 else {"noise": "low"}
            spikeless = {} if name in ("square", "sawtooth") else {"outlier": "none"}
            known = {**{k: v for k, v in known.items() if k != "outlier"}, **spikeless, **smooth}
            yield _series(f"{name} {period:g}", x, rng, **known, trend="flat", volatility="flat")
            scattered = x + 0.15 * x.std() * rng.standard_normal(length)
            yield _series(
                f"{name} {period:g}, noise",
                scattered,
                rng,
                season="present",
                period=period,
                trend="flat",
                turn="none",
            )
            sloped = x + np.linspace(0, 5, length) * (1 if rng.random() < 0.5 else -1)
            up = "up" if sloped[-1] > sloped[0] else "down"
            yield _series(
                f"{name} {period:g}, slope", sloped, rng, season="present", period=period, trend=up, turn="none"
            )
    for length, period in ((120, 8), (240, 15), (400, 25), (300, 12)):
        ramp = np.linspace(0.3, 1.7, length)
        wave = np.sin(2 * np.pi * np.arange(length) / period)
        known = {"season": "present", "period": period, "trend": "flat"}
        yield _series(f"growing swings {period}", ramp * wave, rng, **known, volatility="up")
        yield _series(f"fading swings {period}", ramp[::-1] * wave, rng, **known, volatility="down")
        spoilt = wave + 0.03 * rng.standard_normal(length)
        at = int(rng.integers(length // 5, 4 * length // 5))
        spoilt[at] += 5 * (1 if rng.random() < 0.5 else -1)
        yield _series(f"a spike on swings {period}", spoilt, rng, **known, outlier="present")


def _courses(rng: np.random.Generator) -> Iterator[Signal]:
    rising: dict[str, Callable[[FloatArray], FloatArray]] = {
        "line": lambda t: t,
        "exponential": lambda t: np.expm1(2 * t) / 6,
        "root": np.sqrt,
        "logistic": lambda t: 1 / (1 + np.exp(-8 * (t - 0.5))),
        "cubic": lambda t: 0.5 * t + 0.5 * t**3,
    }
    bent: dict[str, Callable[[FloatArray], FloatArray]] = {
        "parabola": lambda t: 1 - (2 * t - 1) ** 2,
        "half a sine": lambda t: np.sin(np.pi * t),
        "bump": lambda t: np.exp(-0.5 * ((t - 0.5) / 0.22) ** 2),
        "tent": lambda t: 1 - np.abs(2 * t - 1),
    }
    for length in (60, 100, 150, 250, 400):
        t = np.linspace(0, 1, length)
        for name, course in rising.items():
            for sign, way in ((1, "up"), (-1, "down")):
                x = sign * course(t)
                yield _series(
                    f"{name} {way}", x, rng, trend=way, season="none", noise="low", turn="none", outlier="none"
                )
                rough = x + 0.12 * rng.standard_normal(length)
                yield _series(f"{name} {way}, noise", rough, rng, trend=way, season="none", turn="none")
        for name, course in bent.items():
            for sign, turn in ((1, "peak"), (-1, "valley")):
                x = sign * course(t)
                yield _series(
                    f"{name} {turn}", x, rng, turn=turn, season="none", noise="low", trend="turn", outlier="none"
                )
                yield _series(
                    f"{name} {turn}, noise", x + 0.07 * rng.standard_normal(length), rng, turn=turn, trend="turn"
                )
    for length, ratio in ((60, 1.5), (100, 2.0), (240, 3.0), (180, 0.5), (300, 0.7), (90, 4.0)):
        x = 100 * np.linspace(1, ratio, length) + 0.3 * rng.standard_normal(length)
        way = "up" if ratio > 1 else "down"
        yield Signal(f"from 100 to {100 * ratio:g}", (x,), {**_levels(x), "change": ratio, "trend": way})


def _noise(rng: np.random.Generator) -> Iterator[Signal]:
    for length in (80, 150, 250, 400):
        white = rng.standard_normal(length)
        known = {"noise": "high", "trend": "flat", "turn": "none"}
        season = {"season": "none"} if length >= 250 else {}
        yield _series("white noise", white, rng, **known, **season)
        yield _series("uniform noise", rng.uniform(-1, 1, length), rng, **known, outlier="none", **season)
        for name, course, way in (
            ("up", np.linspace(0.3, 1.8, length), "up"),
            ("down", np.linspace(1.8, 0.3, length), "down"),
        ):
            if length >= 150:
                yield _series(
                    f"noise, its spread {name}", course * white, rng, noise="high", volatility=way, trend="flat"
                )
        steady = np.tile([1.0, -1.0, 0.5, -0.5], length // 4)[rng.permutation(length // 4 * 4)]
        yield _series("shuffled steps", steady, rng, noise="high", trend="flat")


def _hearts(rng: np.random.Generator) -> Iterator[Signal]:
    for rate in (100.0, 250.0, 500.0):
        for bpm in (44, 52, 68, 77, 88, 112, 135):
            for irregular in (False, True):
                mean = 60 / bpm
                count = int(14 / mean) + 2
                rr = mean * (rng.uniform(0.68, 1.32, count) if irregular else 1 + 0.01 * rng.standard_normal(count))
                beats = np.cumsum(rr) - 0.4 * mean
                t = np.arange(0, 12, 1 / rate)
                leads = [_lead(t, beats, shape, rng) for shape in ("triangle", "hat", "steep")]
                if rng.random() < 0.4:
                    leads = [-lead for lead in leads]
                inside = np.diff(beats[(beats > 0) & (beats < 12)])
                median = float(np.median(inside))
                measured = 60 / median
                truth = {
                    "heart_rate": measured,
                    "rhythm": "irregular" if irregular else "regular",
                    "intervals": median,
                }
                speed = "slow" if measured < 54 else "fast" if measured > 106 else "normal"
                if speed != "normal" or 64 < measured < 94:
                    truth["speed"] = speed
                yield Signal(f"heart {bpm} {truth['rhythm']}", tuple(leads), truth, rate)


def _lead(t: FloatArray, beats: FloatArray, shape: str, rng: np.random.Generator) -> FloatArray:
    x = 0.08 * np.sin(2 * np.pi * 0.25 * t + rng.uniform(0, 6))
    for beat in beats:
        s = t - beat
        if shape == "triangle":
            x += np.clip(1 - np.abs(s) / 0.03, 0, 1) - 0.2 * np.clip(1 - np.abs(s - 0.05) / 0.03, 0, 1)
        elif shape == "hat":
            x += (1 - (s / 0.018) ** 2) * np.exp(-0.5 * (s / 0.018) ** 2)
        else:
            x += np.where((s > -0.02) & (s < 0.03), np.sin(2 * np.pi * (s + 0.02) / 0.05), 0)
        x += 0.18 * np.clip(1 - np.abs(s - 0.26) / 0.09, 0, 1) + 0.08 * np.clip(1 - np.abs(s + 0.15) / 0.04, 0, 1)
    return np.asarray(x + 0.015 * rng.standard_normal(len(t)))


def _gaits(rng: np.random.Generator) -> Iterator[Signal]:
    for rate in (20.0, 50.0, 100.0):
        t = np.arange(0, 8, 1 / rate)
        for axis in range(3):
            still = [0.05 * rng.standard_normal(len(t)) for _ in range(3)]
            still[axis] = still[axis] + 9.81 * (1 if rng.random() < 0.5 else -1)
            truth: dict[str, Any] = {"intensity": "low", "gravity": "xyz"[axis], "gravity_spread": "whole"}
            yield Signal(f"still on {'xyz'[axis]}", tuple(still), truth, rate)
            for hertz, size, intensity in ((1.4, 2.6, "moderate"), (1.9, 2.4, "moderate"), (2.7, 11.0, "high")):
                phase = 2 * np.pi * hertz * t
                axes = [
                    size * share * np.sin(phase + lag)
                    + 0.25 * size * share * np.sin(2 * phase)
                    + 0.2 * rng.standard_normal(len(t))
                    for share, lag in ((1.0, 0.0), (0.5, 1.0), (0.4, 2.0))
                ]
                axes[axis] = axes[axis] + 9.81
                truth = {"intensity": intensity, "cadence": hertz}
                if intensity != "high":
                    truth["gravity"] = "xyz"[axis]
                yield Signal(f"steps at {hertz} Hz", tuple(axes), truth, rate)
        tilted = [9.81 / np.sqrt(3) + 0.05 * rng.standard_normal(len(t)) for _ in range(3)]
        yield Signal("tilted", tuple(tilted), {"intensity": "low", "gravity_spread": "shared"}, rate)


def _brains(rng: np.random.Generator) -> Iterator[Signal]:
    bands = {
        "delta": (1.0, 3.0),
        "theta": (5.0, 7.0),
        "alpha": (9.0, 11.0),
        "sigma": (13.0, 15.0),
        "beta": (18.0, 26.0),
    }
    for rate in (100.0, 128.0):
        length = round(20 * rate)
        frequencies = np.fft.rfftfreq(length, 1 / rate)
        for name, (low, high) in bands.items():
            for _ in range(3):
                shape = 1 / np.maximum(frequencies, 0.5) ** 0.5
                inside = (frequencies >= low) & (frequencies <= high)
                shape[inside] += 14 / np.sqrt(high - low)
                phases = np.exp(2j * np.pi * rng.random(len(frequencies)))
                x = np.fft.irfft(shape * phases, length)
                yield Signal(f"{name} rhythm", (20 * x / x.std(),), {"band": name}, rate)
        for hertz in (2.0, 3.5, 6.0, 10.0, 14.0):
            x = np.sin(2 * np.pi * hertz * np.arange(length) / rate) + 0.3 * rng.standard_normal(length)
            yield Signal(f"{hertz:g} Hz", (x,), {"frequency": hertz}, rate)
