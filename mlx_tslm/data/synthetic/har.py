"""Synthetic accelerometer recordings of eight activities (stage 3), in m/s² at 50 Hz.

Gravity, turned as the device is worn, plus steps or pedal strokes: a wave of a few harmonics at the cadence on
the upright axis, weaker and delayed on the forward axis, at half the cadence sideways (left and right differ),
plus noise. Each activity has its own posture and its own ranges of cadence, movement and sharpness, with gaps
between those that would otherwise be confused; a rationale states what was measured on the finished signal.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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

RATE = 50.0
GRAVITY = 9.81
LENGTH = 128
MOUNTS = ("+x", "-x", "+y", "-y")
"""The axis that points up while its wearer is upright; z points forward."""


class _Activity(NamedTuple):
    """Ranges: of the upright axis' tilt (degrees), the cadence (Hz, None where nothing repeats), the movement
    (m/s², root mean square about the mean over three axes), and the strengths of the cadence's harmonics."""

    tilt: tuple[float, float]
    cadence: tuple[float, float] | None
    movement: tuple[float, float]
    harmonics: tuple[float, ...] = ()


ACTIVITIES = {
    "biking": _Activity((15, 35), (1.05, 1.4), (0.7, 1.3), (1, 0.15)),
    "lying": _Activity((78, 90), None, (0.02, 0.08)),
    "running": _Activity((0, 15), (2.5, 3.1), (8, 14), (1, 0.4, 0.2)),
    "sitting": _Activity((35, 60), None, (0.03, 0.12)),
    "standing": _Activity((0, 12), None, (0.05, 0.2)),
    "walking": _Activity((0, 15), (1.8, 2.1), (2.5, 3.3), (1, 0.35, 0.15)),
    "walking_down": _Activity((0, 15), (1.8, 2.2), (4, 5.5), (1, 0.9, 0.75, 0.6, 0.45)),
    "walking_up": _Activity((0, 15), (1.45, 1.65), (1.7, 2.2), (1, 0.25)),
}
HELD_OUT = held_out(tuple(ACTIVITIES), MOUNTS, LEVELS)
"""Combinations (activity, mount, vigour) that only the test split has."""


@dataclass(frozen=True)
class Traits:
    """What is true of a recording.

    Args:
        activity: one of `ACTIVITIES`.
        mount: one of `MOUNTS`.
        vigour: third of the activity's ranges of cadence and movement, one of `LEVELS`.
        length: samples.
        cadence: Hz, or None; steps or pedal strokes.
        movement: m/s², see `_Activity`, as measured.
        means: of the axes x, y and z, m/s², as measured.
    """

    activity: str
    mount: str
    vigour: str
    length: int = LENGTH
    cadence: float | None = None
    movement: float = 0.0
    means: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw(rng: np.random.Generator, split: str, length: int | None = None) -> Traits:
    """Draw the traits of one recording from the split's combinations."""
    test = split == "test"
    activity, mount, vigour = draw_combination(rng, test, HELD_OUT, tuple(ACTIVITIES), MOUNTS, LEVELS)
    return Traits(activity, mount, vigour, length or LENGTH)


def render(traits: Traits, rng: np.random.Generator) -> tuple[FloatArray, Traits]:
    """Make a recording with these traits.

    Returns:
        The axes x, y and z in m/s², float64 `[3, length]`, and the traits completed with what was measured.
    """
    activity = ACTIVITIES[traits.activity]
    upright = "xy".index(traits.mount[1])
    movement = within(rng, traits.vigour, *activity.movement)
    motion = np.stack([band_noise(rng, traits.length, RATE, 0.3, 20) for _ in range(3)])
    cadence = None
    if activity.cadence:
        cadence = within(rng, traits.vigour, *activity.cadence)
        t = np.arange(traits.length) / RATE + rng.uniform(0, 1 / cadence)
        motion *= 0.08
        motion[upright] += _wave(t, cadence, activity.harmonics)
        motion[2] += 0.4 * _wave(t - 0.2 / cadence, cadence, activity.harmonics[:2])
        motion[1 - upright] += 0.25 * np.sin(np.pi * cadence * t)
    motion *= movement / np.sqrt((motion**2).sum(0).mean())
    tilt = np.radians(rng.uniform(*activity.tilt))
    sideways = np.radians(rng.uniform(-4, 4))
    gravity = np.zeros(3)
    gravity[upright] = np.cos(tilt) * np.cos(sideways) * (1 if traits.mount[0] == "+" else -1)
    gravity[1 - upright] = np.cos(tilt) * np.sin(sideways)
    gravity[2] = np.sin(tilt) * rng.choice((-1, 1))
    values = np.round(GRAVITY * gravity[:, None] + motion, 4)
    measured = float(np.sqrt(values.var(1).sum()))
    return values, replace(traits, cadence=cadence, movement=measured, means=tuple(values.mean(1).tolist()))


def _wave(t: FloatArray, cadence: float, harmonics: tuple[float, ...]) -> FloatArray:
    """Harmonics that peak together: the more of them, the sharper the peak of each step."""
    waves = [weight * np.cos(2 * np.pi * k * cadence * t) for k, weight in enumerate(harmonics, 1)]
    return np.sum(waves, axis=0)


def rationale(traits: Traits, rng: np.random.Generator) -> str:
    """What is seen in the recording, then the activity; no activity is named before the last words."""
    names = "xyz"
    strongest = int(np.argmax(np.abs(traits.means)))
    share = abs(traits.means[strongest]) / float(np.hypot.reduce(traits.means))
    where = f"{names[strongest]}-axis, whose mean is {traits.means[strongest]:.1f}"
    posture = (
        pick(rng, f"Gravity lies almost wholly on the {where}.", f"Nearly all of gravity is on the {where}.")
        if share > 0.95
        else f"Gravity is shared between the axes, with most of it on the {where}."
    )
    return f"{posture} {rationale_of_movement(traits, rng)} {_REASONS[traits.activity]} Answer: {traits.activity}"


def rationale_of_movement(traits: Traits, rng: np.random.Generator) -> str:
    """The sentence about how the device moves."""
    if traits.cadence is None:
        still = pick(
            rng, "The device hardly moves", "There is next to no movement", "All three axes are nearly still"
        )
        return f"{still}: the values vary by about {traits.movement:.2f} about their means, and nothing repeats."
    every = f"every {RATE / traits.cadence:.0f} samples"
    return f"The values vary by about {traits.movement:.1f} about their means, in a cycle {every}."


_REASONS = {
    "biking": "A slow, smooth and weak oscillation without impacts is that of legs that turn pedals.",
    "lying": "The axis that points forward carries gravity, so the body is level and at rest.",
    "running": "Such strong swings at so high a cadence mean that both feet leave the ground.",
    "sitting": "A device at rest and tilted between level and upright is on a bent hip.",
    "standing": "A device at rest and upright means that the body is upright and stays in place.",
    "walking": "Regular steps of moderate strength at a usual cadence mean level ground.",
    "walking_down": "Strong and sharp impacts at a usual cadence mean that each step falls onto a lower one.",
    "walking_up": "Slow and soft steps mean that each of them lifts the body.",
}


def row(split: str, rng: np.random.Generator, length: int | None = None) -> dict[str, Any]:
    """One row with HAR CoT's columns, and its `traits`."""
    values, traits = render(draw(rng, split, length), rng)
    return {
        **{f"{axis}_axis": values[i].astype(np.float32) for i, axis in enumerate("xyz")},
        "rate": RATE,
        "label": traits.activity,
        "rationale": rationale(traits, rng),
        "traits": traits,
    }
