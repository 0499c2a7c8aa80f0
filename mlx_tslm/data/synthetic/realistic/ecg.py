"""Synthetic ECGs as people have them (stage 5): one to three leads, 3 to 30 s, disturbed, of many hearts.

The beats are those of `synthetic.ecg`. Beyond them: each recording has waves of its own size and width, T waves
low, tall or inverted (as PTB-XL's statements NDT, LOWT, INVT), and at times premature ventricular beats: early,
wide, without a P wave, with the T wave turned over and a pause after them (Goldberger's Clinical
Electrocardiography, ch. 16). Recordings are made at 500 Hz, of which every fifth sample is taken: as they are
(PTB-XL's way in OpenTSLM), behind a low-pass filter, as what is resampled or was recorded at 100 Hz, or through a
monitor's filter of 0.5 to 40 Hz (Kligfield et al., AHA/ACC/HRS recommendations, 2007); in mV, in µV or in a
converter's counts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_tslm.data.synthetic import ecg
from mlx_tslm.data.synthetic.realistic import disturb
from mlx_tslm.data.synthetic.signals import FloatArray, band_noise, pick, within
from mlx_tslm.stages.ecg import ECG, LEADS, answers_of

RATE = ecg.RATE
LONGEST = 30.0  # seconds
_NAMES = ("ECG", "ecg", "ch1", "value", "chest", "MLII", "signal", "0")
_OWN_LEADS = (1, 6)  # II and V1, what the demo model reads of many
_EARLY = 0.66  # a premature beat comes after this share of the mean RR interval


@dataclass(frozen=True)
class Traits(ecg.Traits):
    """See `ecg.Traits`; `early` are the numbers of the beats that came early."""

    early: tuple[int, ...] = ()

    @property
    def intervals(self) -> FloatArray:
        """RR intervals, seconds, without those that an early beat begins or ends."""
        beside = {number - 1 for number in self.early} | set(self.early)
        every = np.diff(self.beats)
        return every[[i for i in range(len(every)) if i not in beside]]


def render(traits: ecg.Traits, rng: np.random.Generator, seconds: float | None = None) -> tuple[FloatArray, Traits]:
    """Make a recording with these traits.

    Args:
        seconds: its length; by default drawn, as long as the rhythm takes to be seen.

    Returns:
        mV, float64 `[12, T]` at 100 Hz, and the traits completed with its beats, of which there are four or more.
    """
    while True:
        length = _seconds(traits.rhythm, rng) if seconds is None else seconds
        values, completed = _render(traits, rng, length)
        if len(completed.intervals) >= 3:
            return values, completed


def _seconds(rhythm: str, rng: np.random.Generator) -> float:
    shortest = {"sinus arrhythmia": 8.0, "atrial fibrillation": 5.0}.get(rhythm, 3.0)
    if rng.random() < 0.5:
        return ecg.SECONDS
    if rng.random() < 0.08:
        return float(rng.uniform(ecg.SECONDS, LONGEST))
    return float(rng.uniform(shortest, 15))


def _render(traits: ecg.Traits, rng: np.random.Generator, seconds: float) -> tuple[FloatArray, Traits]:
    fine, start = ecg._FINE, ecg._START
    breath = rng.uniform(0.2, 0.3)
    beats, ratio = ecg._beats(traits, breath, rng, seconds)
    early = _make_early(traits, beats, rng, seconds)
    t = np.arange(round((seconds + start) * fine)) / fine
    intervals = np.diff(beats)
    which = np.clip(np.searchsorted(beats, t, side="right") - 1, 0, len(intervals) - 1)
    phase = 2 * np.pi * (t - beats[which]) / intervals[which]
    faster = np.sqrt(1 / np.where(early[which] | early[which + 1], np.median(intervals), intervals[which]))
    nearest = which + (phase > np.pi)
    broad = np.where(early[nearest], 2.2, 1.0) * rng.uniform(0.85, 1.25)
    forces = []
    for wave in range(5):
        mine = which if wave == 4 else nearest
        # A ventricular beat: no P, a wide QRS (it grows with the square of its width), T turned over.
        size = np.where(early[mine], (0.0, 0.0, 0.28, 0.4, -2.0)[wave], 1.0)
        forces.append(size * ecg._force(phase, faster, wave, broad if 0 < wave < 4 else rng.uniform(0.85, 1.2)))
    force = np.stack(forces)
    atrial = np.zeros(len(t))
    if traits.rhythm == "atrial fibrillation":
        atrial = rng.uniform(0.02, 0.1) * band_noise(rng, len(t), fine, 4.5, 8)
    elif ratio:
        atrial = rng.uniform(0.1, 0.22) * (2 * ((phase / (2 * np.pi) * ratio + 0.4) % 1) - 1)
    if atrial.any():
        force[0] = 0
    heights = ecg._HEIGHTS * np.array(list(ecg._LEADS.values())) * _heart(rng)
    waves = ecg._relax(within(rng, traits.voltage, 0.65, 1.5) * ecg._MILLIVOLT * heights @ force)
    waves += ecg._ATRIAL[:, None] * atrial
    _disturb(waves, fine, rng)
    one, two, *chest = _recorded(waves[:, round(start * fine) :], rng)
    leads = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])
    inside = (beats >= start) & (beats < start + seconds - 0.02)
    made = traits.__dict__ | {"beats": tuple((beats[inside] - start).tolist()), "ratio": ratio}
    return leads, Traits(**made, early=tuple(np.flatnonzero(early[inside]).tolist()))


def _make_early(
    traits: ecg.Traits, beats: FloatArray, rng: np.random.Generator, seconds: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Bring one or two beats forward, at times; the beat after one comes when it would have come."""
    early = np.zeros(len(beats), bool)
    within_it = np.flatnonzero((beats > ecg._START + 1) & (beats < ecg._START + seconds - 1))
    sinus = traits.rhythm in ("sinus rhythm", "sinus bradycardia")
    if sinus and len(within_it) > 6 and rng.random() < 0.15:
        for number in rng.choice(within_it[1:-1:3], int(rng.integers(1, 3)), replace=False):
            early[number] = True
            beats[number] = beats[number - 1] + _EARLY * (beats[number] - beats[number - 1])
    return early


def _heart(rng: np.random.Generator) -> FloatArray:
    """What each lead's waves are of the usual ones, `[8, 5]`: hearts, bodies and electrodes differ."""
    sizes = np.exp(0.2 * rng.standard_normal((8, 5))) * np.exp(0.25 * rng.standard_normal(5))
    sizes[:, 4] *= rng.choice((1.0, 0.35, 1.8, -0.8), p=(0.7, 0.12, 0.08, 0.1))
    return sizes


def _disturb(waves: FloatArray, rate: float, rng: np.random.Generator) -> None:
    """Add what electrodes and muscles add, in place; each lead has its share of it."""
    for lead in waves:
        lead += disturb.wander(rng, len(lead), rate, rng.choice((0.02, 0.08, 0.2), p=(0.4, 0.4, 0.2)))
        lead += 0.006 * rng.standard_normal(len(lead))
    for add, size in ((disturb.mains, 0.04), (disturb.muscle, 0.05)):
        if rng.random() < 0.35:
            waves += np.stack([add(rng, waves.shape[1], rate, rng.uniform(0.1, 1) * size) for _ in waves])


def _recorded(waves: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What a machine makes of 500 Hz: filtered, at 100 Hz."""
    from scipy.signal import butter, sosfiltfilt

    if rng.random() < 0.35:
        waves = sosfiltfilt(butter(2, (0.5, 40), "bandpass", fs=ecg._FINE, output="sos"), waves, axis=-1)
    if rng.random() < 0.5:
        waves = sosfiltfilt(butter(4, 40, fs=ecg._FINE, output="sos"), waves, axis=-1)
    return waves[:, :: round(ecg._FINE / RATE)]


def choose(values: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, list[str]]:
    """One to three leads of twelve, one of more than 10 s, in a device's units, and their names: `[leads, T]`."""
    count = int(rng.choice((1, 2, 3), p=(0.62, 0.3, 0.08)))
    if values.shape[1] > RATE * ecg.SECONDS:  # so that no sample takes more patches than 30 s of one lead
        count = 1
    if count == 2 and rng.random() < 0.7:
        chosen = np.array(_OWN_LEADS)
    elif count == 1 and rng.random() < 0.4:
        chosen = np.array([1])
    else:
        chosen = np.sort(rng.choice(len(LEADS), count, replace=False))
    names = [LEADS[lead] for lead in chosen]
    if rng.random() < 0.35:
        names = [str(name) for name in rng.choice(_NAMES, count, replace=False)]
    values = values[chosen] * (-1 if rng.random() < 0.07 else 1) * np.exp(0.4 * rng.standard_normal())
    unit, offset = ((1.0, 0.0), (1000.0, 0.0), (200.0, 0.0), (200.0, 1024.0))[
        int(rng.choice(4, p=(0.7, 0.12, 0.09, 0.09)))
    ]
    return np.stack([disturb.quantised(lead, rng.choice((200, 2000))) for lead in values]) * unit + offset, names


KINDS = {"rhythm": ecg.QUERY, "verify": ecg.VERIFY, "rate": -1, "regular": -2, "pace": -3}
"""Kinds of question, with their templates: those of ECG-QA where it has one."""

_ASK_RHYTHM = (
    "What rhythm-related symptoms does this ECG show?",
    "What rhythm is this?",
    "What rhythm does this ECG show?",
    "Which heart rhythm does this recording show?",
    ECG.default_question,
    "What does this ECG show?",
)
_ASK_RATE = (
    "What is the heart rate?",
    "What is the heart rate in beats per minute?",
    "How fast does the heart beat?",
    "How many beats a minute are there?",
    "What is the mean heart rate?",
)
_ASK_REGULAR = (
    "Is the rhythm regular?",
    "Is the heartbeat regular?",
    "Does the heart beat regularly?",
    "Are the RR intervals regular?",
)
_ASK_IRREGULAR = ("Is the rhythm irregular?", "Is there an irregular heartbeat?")
_ASK_FAST = ("Is the heart rate above 100?", "Is the heart rate above 100 beats per minute?", "Is the rate fast?")
_ASK_SLOW = ("Is the heart rate below 60?", "Is the heart rate below 60 beats per minute?", "Is the rate slow?")
_VERIFY = (
    "Does this ECG show symptoms of {}?",
    "Does this ECG show {}?",
    "Is this {}?",
    "Is there {}?",
)


def question(kind: str, traits: Traits, rng: np.random.Generator) -> tuple[str, tuple[str, ...] | None, str, str]:
    """A question, the answers offered (None: free), the right answer, and the words that lead to it."""
    yes_no = pick(rng, "offered", "free") == "offered"
    offered = ("no", "yes") if yes_no else None
    if kind == "rhythm":
        rhythms = answers_of(ecg.QUERY) if rng.random() < 0.6 else None
        return pick(rng, *_ASK_RHYTHM), rhythms, traits.rhythm, f"This is {traits.rhythm}."
    if kind == "rate":
        return pick(rng, *_ASK_RATE), None, f"{traits.rate:.0f} bpm", "This is the rate of the ventricles."
    if kind == "verify":
        others = [rhythm for rhythm in ecg.RHYTHMS if rhythm != traits.rhythm]
        asked = traits.rhythm if rng.random() < 0.5 else str(rng.choice(others))
        template = _VERIFY[0] if rng.random() < 0.4 else pick(rng, *_VERIFY)
        shown = asked == traits.rhythm
        options = answers_of(ecg.VERIFY) if yes_no else None
        said = f"This is {asked}." if shown else f"This is not {asked}."
        return template.format(asked), options, "yes" if shown else "no", said
    if kind == "regular":
        regular = traits.rhythm not in ("sinus arrhythmia", "atrial fibrillation")
        negated = rng.random() < 0.25
        text = pick(rng, *(_ASK_IRREGULAR if negated else _ASK_REGULAR))
        said = "The rhythm is regular." if regular else "The rhythm is not regular."
        return text, offered, "yes" if regular != negated else "no", said
    fast = rng.random() < 0.5
    beyond = traits.rate > 100 if fast else traits.rate < 60
    said = f"The rate is {'' if beyond else 'not '}{'above 100' if fast else 'below 60'}."
    return pick(rng, *(_ASK_FAST if fast else _ASK_SLOW)), offered, "yes" if beyond else "no", said


def row(split: str, rng: np.random.Generator, number: int = 0) -> dict[str, Any]:
    """One row with ECG-QA CoT's columns, `signals` (`[leads, T]`, at `rate`), `leads`, `answers`, and `traits`."""
    values, traits = render(ecg.draw(rng, split), rng)
    signals, names = choose(values, rng)
    kind = str(rng.choice(tuple(KINDS), p=(0.26, 0.3, 0.16, 0.18, 0.1)))
    text, offered, answer, meaning = question(kind, traits, rng)
    early = len(traits.early)
    aside = f", apart from {early} early beat{'s' if early > 1 else ''}," if early else ""
    seen = ecg.findings(traits, rng, aside, "")
    return {
        "question": text,
        "answer": answer,
        "answers": offered,
        "template_id": KINDS[kind],
        "question_type": "single-query",
        "clinical_context": pick(rng, "12-lead ECG recording.", "Synthetic 12-lead ECG recording."),
        "rationale": f"{seen} {meaning} Answer: {answer}",
        "ecg_id": number,
        "signals": signals.astype(np.float32),
        "rate": RATE,
        "leads": names,
        "traits": traits,
    }
