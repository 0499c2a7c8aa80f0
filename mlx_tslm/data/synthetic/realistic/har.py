"""Synthetic accelerometers as people have them (stage 3): other devices, lengths, orientations and gaits.

The activities are those of `synthetic.har`, at 50 Hz. Beyond them: 64 to 512 samples; devices of 10 to 100 Hz,
brought to 50 Hz (what a slow one never saw is missing); m/s² or g, as phones and wearables write them; gravity
taken out, as Android's linear acceleration has it; a pocket or a wrist in any orientation while its wearer moves;
converter steps; and a wider range of gaits than the clean one (1.6 to 2.2 steps a second: Murray, Drought and Kory
1964; running at 2.4 to 3.3: Cavanagh and Kram 1989).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_tslm.data.synthetic import har
from mlx_tslm.data.synthetic.realistic import disturb
from mlx_tslm.data.synthetic.signals import FloatArray, band_noise, pick, within

RATE = har.RATE
LENGTHS = (64, 512)
_WIDER = {
    "running": har._Activity((0, 15), (2.4, 3.3), (7, 20), (1, 0.4, 0.2)),
    "walking": har._Activity((0, 15), (1.6, 2.2), (2.0, 4.5), (1, 0.35, 0.15)),
    "biking": har._Activity((15, 35), (0.9, 1.5), (0.6, 1.5), (1, 0.15)),
}
"""Activities with ranges wider than the clean ones; stairs keep theirs, or they could not be told from walking."""


@dataclass(frozen=True)
class Traits(har.Traits):
    """See `har.Traits`; movement and means are in the recording's own `unit`, and `gravity` says if it is in it."""

    unit: str = "m/s²"
    gravity: bool = True


def render(traits: har.Traits, rng: np.random.Generator) -> tuple[FloatArray, Traits]:
    """Make a recording with these traits, but of the length that is drawn.

    Returns:
        The axes x, y and z, float64 `[3, T]`, and the traits completed with what was measured.
    """
    activity = _WIDER.get(traits.activity, har.ACTIVITIES[traits.activity])
    length = har.LENGTH if rng.random() < 0.3 else int(np.exp(rng.uniform(*np.log(LENGTHS))))
    upright = "xy".index(traits.mount[1])
    movement = within(rng, traits.vigour, *activity.movement)
    motion = np.stack([band_noise(rng, length, RATE, 0.3, 20) for _ in range(3)])
    cadence = None
    if activity.cadence:
        cadence = within(rng, traits.vigour, *activity.cadence)
        t = np.arange(length) / RATE + rng.uniform(0, 1 / cadence)
        t = t + 0.02 / cadence * band_noise(rng, length, RATE, 0.0, max(0.5, 2.5 * RATE / length))
        harmonics = tuple(weight * float(np.exp(0.15 * rng.standard_normal())) for weight in activity.harmonics)
        motion *= rng.uniform(0.06, 0.2)
        motion[upright] += har._wave(t, cadence, harmonics)
        motion[2] += rng.uniform(0.2, 0.7) * har._wave(t - 0.2 / cadence, cadence, harmonics[:2])
        motion[1 - upright] += rng.uniform(0.1, 0.5) * np.sin(np.pi * cadence * t)
    motion *= movement / np.sqrt((motion**2).sum(0).mean())
    tilt, sideways = np.radians(rng.uniform(*activity.tilt)), np.radians(rng.uniform(-8, 8))
    still = np.zeros(3)
    still[upright] = np.cos(tilt) * np.cos(sideways) * (1 if traits.mount[0] == "+" else -1)
    still[1 - upright] = np.cos(tilt) * np.sin(sideways)
    still[2] = np.sin(tilt) * rng.choice((-1, 1))
    # At rest the posture is all there is to tell by, so only what moves is turned, and loses gravity; standing may.
    gravity = traits.activity in ("lying", "sitting") or rng.random() > 0.15
    values = motion + har.GRAVITY * still[:, None] * gravity
    if cadence and rng.random() < 0.5:
        values = _rotation(rng) @ values
    values = _device(values, rng)
    unit = "g" if rng.random() < 0.3 else "m/s²"
    values = np.round(values / har.GRAVITY if unit == "g" else values, 4)
    measured = float(np.sqrt(values.var(1).sum()))
    made = traits.__dict__ | {"length": length, "cadence": cadence, "movement": measured}
    return values, Traits(**made | {"means": tuple(values.mean(1).tolist())}, unit=unit, gravity=bool(gravity))


def _rotation(rng: np.random.Generator) -> FloatArray:
    """Any orientation, each as likely as any other."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def _device(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """As a device of another rate saw it, in steps of a converter (12 bits or so over its range)."""
    if rng.random() < 0.5:
        slow = float(rng.choice((10, 12.5, 20, 25, 31.25)))
        means = values.mean(1, keepdims=True)
        values = disturb.low_pass(values - means, RATE, 0.45 * slow) + means
    return np.round(values / 0.02) * 0.02 if rng.random() < 0.3 else values


def rationale(traits: Traits, rng: np.random.Generator) -> str:
    """As `har.rationale` says it; without gravity no posture is claimed."""
    if traits.gravity:
        return har.rationale(traits, rng)
    moves = har.rationale_of_movement(traits, rng)
    reason = har._REASONS[traits.activity] if traits.cadence else "At rest, standing is as good a guess as any."
    return f"{pick(rng, *_NO_GRAVITY)} {moves} {reason} Answer: {traits.activity}"


_NO_GRAVITY = ("Gravity is not in these values.", "All three means are near 0, so gravity was taken out.")


def row(split: str, rng: np.random.Generator) -> dict[str, Any]:
    """One row with HAR CoT's columns, and its `traits`."""
    values, traits = render(har.draw(rng, split), rng)
    return {
        **{f"{axis}_axis": values[i].astype(np.float32) for i, axis in enumerate("xyz")},
        "rate": RATE,
        "label": traits.activity,
        "rationale": rationale(traits, rng),
        "traits": traits,
    }
