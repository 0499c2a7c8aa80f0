"""Synthetic 12-lead ECG by rhythm (stage 5): 10 s at 100 Hz, in mV.

The heart beats of McSharry, Clifford, Tarassenko and Smith, "A dynamical model for generating synthetic
electrocardiogram signals", IEEE Trans. Biomed. Eng. 50(3), 2003: a phase θ that runs round the limit cycle once a
beat, and

    dz/dt = − Σ a_i Δθ_i exp(−Δθ_i² / 2 b_i²) − (z − z0),   i in P, Q, R, S, T,

with table I's θ_i, a_i and b_i, a baseline z0 that follows the breath, and RR intervals with a spectrum of two
lines (0.1 Hz and the breath). As in the authors' program ECGSYN, angles and widths follow the heart rate. The
equation in z is linear, so each lead is filtered exactly rather than integrated by Runge and Kutta. Each of the
leads I, II and V1 to V6 has its own a_i; III, aVR, aVL and aVF follow from I and II by Einthoven and Goldberger.

Beyond the paper: in atrial fibrillation P waves give way to noise of 4.5 to 8 Hz and RR intervals are drawn
independently; in atrial flutter, to a sawtooth of about 5 Hz of which every third or fourth wave is conducted.
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

RATE = 100.0
SECONDS = 10.0
_FINE = 500.0  # Hz, while it is made
_START = 3.0  # seconds made before the recording begins
_REFRACTORY = 0.33  # seconds: no RR interval is shorter

# P, Q, R, S, T of table I: angle (rad), a, b.
_ANGLES = np.array([-np.pi / 3, -np.pi / 12, 0.0, np.pi / 12, np.pi / 2])
_HEIGHTS = np.array([1.2, -5.0, 30.0, -7.5, 0.75])
_WIDTHS = np.array([0.25, 0.1, 0.1, 0.1, 0.4])
_STRETCH = np.array(
    [0.5, 1.0, 0.0, 1.0, 0.0]
)  # the angles grow with this power of √(heart rate / 60), as in ECGSYN
_MILLIVOLT = 2 * np.pi / (30.0 * 0.1**2)  # makes lead II's R wave about 1 mV high

# What the waves P, Q, R, S, T of a lead are of those of the table.
_LEADS = {
    "I": (0.6, 0.6, 0.55, 0.4, 0.7),
    "II": (1.0, 1.0, 1.0, 0.8, 1.0),
    "V1": (0.4, 0.0, 0.2, 2.4, -0.3),
    "V2": (0.5, 0.0, 0.4, 3.2, 1.1),
    "V3": (0.5, 0.0, 0.8, 2.4, 1.3),
    "V4": (0.6, 0.4, 1.3, 1.4, 1.2),
    "V5": (0.6, 0.7, 1.2, 0.7, 1.0),
    "V6": (0.6, 0.8, 0.9, 0.4, 0.8),
}
_ATRIAL = np.array([0.3, 1.0, 1.0, 0.6, 0.3, 0.2, 0.2, 0.2])  # how strongly the leads above show f and F waves


class _Rhythm(NamedTuple):
    """Ranges: of the mean heart rate (beats a minute), and of what RR intervals vary by (share of their mean)."""

    rate: tuple[float, float]
    variation: tuple[float, float]


RHYTHMS = {
    "sinus rhythm": _Rhythm((63, 97), (0.015, 0.03)),
    "sinus bradycardia": _Rhythm((38, 56), (0.015, 0.03)),
    "sinus tachycardia": _Rhythm((104, 150), (0.01, 0.02)),
    "sinus arrhythmia": _Rhythm((63, 90), (0.11, 0.15)),
    "atrial fibrillation": _Rhythm((70, 130), (0.2, 0.28)),
    "atrial flutter": _Rhythm((64, 108), (0.0, 0.0)),
}
HELD_OUT = held_out(tuple(RHYTHMS), LEVELS, LEVELS)
"""Combinations (rhythm, pace, voltage) that only the test split has."""

QUERY, VERIFY = 10, 1  # ECG-QA's templates on rhythms: what is shown, and whether a given one is shown


@dataclass(frozen=True)
class Traits:
    """What is true of a recording.

    Args:
        rhythm: one of `RHYTHMS`.
        pace, voltage: thirds of the ranges of the heart rate and of the size of the waves, of `LEVELS`.
        beats: seconds at which R waves have their peak, those within the recording.
        ratio: of atrial flutter, F waves a beat.
    """

    rhythm: str
    pace: str
    voltage: str
    beats: tuple[float, ...] = ()
    ratio: int | None = None

    @property
    def intervals(self) -> FloatArray:
        """RR intervals, seconds."""
        return np.diff(self.beats)

    @property
    def rate(self) -> float:
        """Beats a minute, by the mean RR interval."""
        return 60 / float(self.intervals.mean())


def draw(rng: np.random.Generator, split: str) -> Traits:
    """Draw the traits of one recording from the split's combinations."""
    rhythm, pace, voltage = draw_combination(rng, split == "test", HELD_OUT, tuple(RHYTHMS), LEVELS, LEVELS)
    return Traits(rhythm, pace, voltage)


def render(traits: Traits, rng: np.random.Generator) -> tuple[FloatArray, Traits]:
    """Make a recording with these traits.

    Returns:
        mV, float64 `[12, 1000]` in the standard order of the leads, and the traits completed with its beats.
    """
    breath = rng.uniform(0.2, 0.3)
    beats, ratio = _beats(traits, breath, rng)
    t = np.arange(round((SECONDS + _START) * _FINE)) / _FINE
    intervals = np.diff(beats)
    which = np.clip(np.searchsorted(beats, t, side="right") - 1, 0, len(intervals) - 1)
    phase = 2 * np.pi * (t - beats[which]) / intervals[which]
    faster = np.sqrt(1 / intervals[which])  # √(heart rate / 60)
    forces = np.stack([_force(phase, faster, i) for i in range(5)])
    atrial = np.zeros(len(t))
    if traits.rhythm == "atrial fibrillation":
        atrial = rng.uniform(0.05, 0.09) * band_noise(rng, len(t), _FINE, 4.5, 8)
    elif ratio:
        atrial = rng.uniform(0.12, 0.2) * (2 * ((phase / (2 * np.pi) * ratio + 0.4) % 1) - 1)
    if atrial.any():
        forces[0] = 0
    voltage = within(rng, traits.voltage, 0.65, 1.5)
    heights = _HEIGHTS * np.array(list(_LEADS.values()))
    baseline = 0.15 * np.sin(2 * np.pi * (breath * t + rng.random())) * rng.uniform(0.3, 1.0, (len(heights), 1))
    waves = _relax(voltage * _MILLIVOLT * heights @ forces + baseline)
    waves += _ATRIAL[:, None] * atrial + 0.008 * rng.standard_normal(waves.shape)
    first = round(_START * _FINE)
    step = round(_FINE / RATE)
    one, two, *chest = np.round(waves[:, first::step], 4)
    leads = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])
    inside = beats[(beats >= _START) & (beats < _START + SECONDS)] - _START
    return leads, replace(traits, beats=tuple(inside.tolist()), ratio=ratio)


def _beats(
    traits: Traits, breath: float, rng: np.random.Generator, seconds: float = SECONDS
) -> tuple[FloatArray, int | None]:
    """When R waves peak, from before the start to after the end, and atrial flutter's ratio."""
    rhythm = RHYTHMS[traits.rhythm]
    mean = 60 / within(rng, traits.pace, *rhythm.rate)
    variation = within(rng, traits.pace, *rhythm.variation)
    ratio = None
    if traits.rhythm == "atrial flutter":
        ratio = 3 if traits.pace == "high" else 4
        mean = ratio / within(rng, traits.pace, 4.4, 5.3)
    slow, fast = rng.random(2)
    share = 0.1 if traits.rhythm == "sinus arrhythmia" else 0.5  # of the line at 0.1 Hz
    beats = [-2.0 + rng.uniform(-mean, 0)]
    while beats[-1] < seconds + _START + 2:
        if traits.rhythm == "atrial fibrillation":
            swing = float(np.clip(rng.standard_normal(), -2, 2.5))
        else:
            at = beats[-1]
            lines = np.sin(2 * np.pi * (0.1 * at + slow)), np.sin(2 * np.pi * (breath * at + fast))
            swing = np.sqrt(2) * float(share * lines[0] + (1 - share) * lines[1])
        beats.append(beats[-1] + max(_REFRACTORY, mean * (1 + variation * swing)))
    return np.array(beats), ratio


def _force(phase: FloatArray, faster: FloatArray, wave: int, wider: float | FloatArray = 1.0) -> FloatArray:
    """What drives z for one wave, per unit of a_i."""
    angle = _ANGLES[wave] * faster ** _STRETCH[wave]
    width = _WIDTHS[wave] * faster * wider
    distance = (phase - angle + np.pi) % (2 * np.pi) - np.pi
    return -distance * np.exp(-(distance**2) / (2 * width**2))


def _relax(force: FloatArray) -> FloatArray:
    """Solve dz/dt = force − z for each lead; between samples the force counts as the mean of its ends."""
    from scipy.signal import lfilter

    decay = np.exp(-1 / _FINE)
    return lfilter([(1 - decay) / 2, (1 - decay) / 2], [1, -decay], force, axis=-1)


def rationale(traits: Traits, asked: str | None, answer: str, rng: np.random.Generator) -> str:
    """What is seen in the recording, what it means, and the answer."""
    meaning = f"This is {traits.rhythm}." if asked in (None, traits.rhythm) else f"This is not {asked}."
    return f"{findings(traits, rng)} {meaning} Answer: {answer}"


def findings(traits: Traits, rng: np.random.Generator, aside: str = "", where: str = " of leads II and V1") -> str:
    """What is seen in the recording.

    Args:
        aside: said of the RR intervals in passing.
        where: the baseline of which leads shows atrial flutter.
    """
    shortest, longest = traits.intervals.min(), traits.intervals.max()
    rate = pick(
        rng,
        f"The ventricles beat {traits.rate:.0f} times a minute.",
        f"The mean heart rate is {traits.rate:.0f} bpm.",
    )
    spread = f"RR intervals of {shortest:.2f} to {longest:.2f} s{aside}"
    sinus = "A P wave precedes every QRS complex, so the sinus node leads."
    seen = {
        "sinus rhythm": f"{sinus} With {spread} the rhythm is regular, and the rate lies between 60 and 100.",
        "sinus bradycardia": f"{sinus} With {spread} the rhythm is regular, but the rate is below 60.",
        "sinus tachycardia": f"{sinus} With {spread} the rhythm is regular, but the rate is above 100.",
        "sinus arrhythmia": f"{sinus} But {spread} lengthen and shorten in turn, with the breath.",
        "atrial fibrillation": f"No P waves are seen; the baseline quivers at 4 to 8 Hz. {spread} follow no order.",
        "atrial flutter": f"In place of P waves the baseline{where} is a sawtooth, of "
        f"{traits.ratio} waves a beat, and {spread} are regular.",
    }[traits.rhythm]
    return f"{rate} {seen}"


def row(split: str, rng: np.random.Generator, number: int = 0) -> dict[str, Any]:
    """One row with ECG-QA CoT's columns, `signals` (mV, `[12, 1000]`), and its `traits`."""
    values, traits = render(draw(rng, split), rng)
    asked = None
    if rng.random() < 0.5:
        question, template, kind, answer = _QUERY, QUERY, "single-query", traits.rhythm
    else:
        others = [rhythm for rhythm in RHYTHMS if rhythm != traits.rhythm]
        asked = traits.rhythm if rng.random() < 0.5 else str(rng.choice(others))
        question, template, kind = f"Does this ECG show symptoms of {asked}?", VERIFY, "single-verify"
        answer = "yes" if asked == traits.rhythm else "no"
    return {
        "question": question,
        "answer": answer,
        "template_id": template,
        "question_type": kind,
        "clinical_context": "Synthetic 12-lead ECG recording.",
        "rationale": rationale(traits, asked, answer, rng),
        "ecg_id": number,
        "signals": values.astype(np.float32),
        "traits": traits,
    }


_QUERY = "What rhythm-related symptoms does this ECG show?"
