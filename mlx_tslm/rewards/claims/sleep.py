"""Claims about sleep: its stages, and what they are scored by."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.eeg import standing_out
from mlx_tslm.rewards.claims.grades import close, ramp
from mlx_tslm.rewards.claims.lexicon import ABOUT, IS, NUMBER, numbers
from mlx_tslm.rewards.facts.signal import SignalFacts

# --- sleep stages: any of its bands may lead in one, where nothing else is known of the epoch ---
_BANDS = {
    "wake": ("alpha", "beta"),
    "non-rem stage 1": ("theta", "alpha"),
    "non-rem stage 2": ("theta", "sigma", "delta"),
    "non-rem stage 3": ("delta",),
    "rem sleep": ("theta", "beta"),
}
_MOVEMENT = (400.0, 600.0)  # µV from peak to peak between which an EEG becomes one of movement


def _moved(facts: SignalFacts) -> float | None:
    if facts.epoch is None or facts.epoch.peak_to_peak is None:
        return ramp(float(np.ptp(facts.main)), *_MOVEMENT) if facts.in_units and facts.epoch is None else None
    return ramp(facts.epoch.peak_to_peak, *_MOVEMENT)


def _spindles(facts: SignalFacts) -> float | None:
    """Bursts where alpha rhythm, which waxes and wanes beside them, is not what leads."""
    epoch = facts.epoch
    return None if epoch is None else ramp(epoch.spindles, 5.0, 9.0) * (1.0 - ramp(epoch.alpha, 0.2, 0.4))


def _slow_waves(facts: SignalFacts) -> float | None:
    epoch = facts.epoch
    if epoch is None:
        return None
    leading = ramp(epoch.delta, 0.5, 0.8)
    return leading if epoch.slow is None else min(leading, ramp(epoch.slow, 0.1, 0.25))


def _fits(facts: SignalFacts) -> Mapping[str, float | None] | None:
    """How well each stage fits: what the AASM manual scores it by, or which band leads in what is too short."""
    if facts.bands is None:
        return None
    moved, epoch = _moved(facts), facts.epoch
    still = 1.0 - (moved or 0.0)
    if epoch is None:
        led = {stage: still * standing_out(bands, facts.bands) for stage, bands in _BANDS.items()}
        return {**led, "movement": moved}
    awake, drowsy = ramp(epoch.alpha, 0.2, 0.4), ramp(epoch.theta, 0.3, 0.55)
    deep, spindles = _slow_waves(facts) or 0.0, _spindles(facts) or 0.0
    none = (1.0 - awake) * (1.0 - drowsy) * (1.0 - spindles)
    return {
        "wake": still * awake,
        "non-rem stage 1": still * drowsy * (1.0 - spindles),
        "non-rem stage 2": still * spindles * (1.0 - deep),
        "non-rem stage 3": still * deep,
        "rem sleep": still * none * (1.0 - ramp(epoch.delta, 0.4, 0.7)),
        "movement": moved,
    }


def _sleep(value: str, negated: bool = False) -> Claim:
    return Claim("sleep", value, None, negated)


_IN = (
    rf"\b(?:(?:person|subject|patient|sleeper|participant|he|she)\s*{IS}\s*(?:in\s+)?|this\s+(?:{IS}"
    r"|looks like)\s*|(?:sleep )?stage\s*(?:is|:)\s*|consistent with\s+|typical (?:of|for)\s+"
    r"|indicates?\s+|suggests?\s+)(?:a\s+)?"
)

SLEEP = Entry(
    kind="sleep",
    sayings=(
        Saying(rf"{_IN}(?:awake|wake(?:fulness)?|waking)\b", "wake"),
        Saying(
            rf"{_IN}(?:deep sleep|slow[- ]wave sleep|n3|non-?rem stage 3|nrem ?3|(?:sleep )?stage 3"
            r"|deeply asleep)\b",
            "non-rem stage 3",
        ),
        Saying(rf"{_IN}(?:n2|non-?rem stage 2|nrem ?2|(?:sleep )?stage 2)\b", "non-rem stage 2"),
        Saying(rf"{_IN}(?:n1|non-?rem stage 1|nrem ?1|(?:sleep )?stage 1|drowsy|drowsiness)\b", "non-rem stage 1"),
        Saying(rf"{_IN}rem(?: sleep)?\b", "rem sleep"),
    ),
    measure=_fits,
    agrees=lambda claim, fits: fits[claim.value],
    answers={name: name for name in (*_BANDS, "movement")},
    examples={
        "The person is awake.": _sleep("wake"),
        "The subject is in deep sleep.": _sleep("non-rem stage 3"),
        "This is slow-wave sleep.": _sleep("non-rem stage 3"),
        "This looks like REM sleep.": _sleep("rem sleep"),
        "The sleep stage is N2.": _sleep("non-rem stage 2"),
        "Stage: N3": _sleep("non-rem stage 3"),
        "The patient is drowsy.": _sleep("non-rem stage 1"),
        "The sleeper is in non-REM stage 2.": _sleep("non-rem stage 2"),
        "The subject is not awake.": _sleep("wake", negated=True),
        "The person is in NREM 1.": _sleep("non-rem stage 1"),
        "This is not REM sleep.": _sleep("rem sleep", negated=True),
    },
    counterexamples=(
        "Is the person awake?",
        "Sleep is important.",
        "Delta waves are dominant.",
        "It is unclear whether the subject is awake.",
        "The remaining values fall.",
    ),
)


# --- what stages are scored by ---
def _seen(
    kind: str, pattern: str, measure: Callable[[SignalFacts], Any], unless: str, examples: Mapping[str, bool]
) -> Entry:
    """Something that is there or not: "there are two sleep spindles", "no spindle has come yet"."""
    return Entry(
        kind=kind,
        sayings=(Saying(pattern, "present", unless=unless),),
        measure=measure,
        agrees=lambda claim, seen: float(seen),
        examples={text: Claim(kind, "present", None, not there) for text, there in examples.items()},
        counterexamples=(
            f"{next(iter(examples)).rstrip('.')}?",
            "The heart rate is 72 bpm.",
            "It is unclear what is seen.",
            "The trend is up.",
        ),
    )


SPINDLES = _seen(
    "spindles",
    r"\b(?:sleep )?spindles?\b",
    _spindles,
    "",
    {
        "There are 3 sleep spindles near 13 Hz.": True,
        "Sleep spindles are seen.": True,
        "A spindle occurs at 4 s.": True,
        "The epoch has spindles and K complexes.": True,
        "Spindles are present.": True,
        "Spindle activity stands out.": True,
        "Clear spindles come in bursts.": True,
        "There are no spindles.": False,
        "No spindle has come yet.": False,
        "There are neither spindles nor K complexes.": False,
        "Spindles are absent.": False,
    },
)

COMPLEXES = _seen(
    "complexes",
    r"\bk[- ]?complex(?:es)?\b",
    lambda facts: None if facts.epoch is None else ramp(facts.epoch.complexes, 6.0, 9.0),
    "",
    {
        "There are 2 K complexes.": True,
        "K-complexes are seen.": True,
        "A K complex occurs at 4 s.": True,
        "The epoch has spindles and K complexes.": True,
        "K complexes are present.": True,
        "K-complexes stand out.": True,
        "Clear K complexes come at times.": True,
        "There are no K complexes.": False,
        "No spindle or K complex has come yet.": False,
        "There are neither spindles nor K complexes.": False,
        "K complexes are absent.": False,
    },
)

SLOW_WAVES = _seen(
    "slow waves",
    r"\bslow[- ]waves?\b(?! (?:activity|sleep)\b)",
    _slow_waves,
    r"\bfill\b|high[- ]amplitude",
    {
        "Slow waves of about 1.3 Hz lead.": True,
        "Slow waves are seen.": True,
        "There are many slow waves.": True,
        "The epoch is full of slow waves.": True,
        "Slow waves are present.": True,
        "Slow waves stand out.": True,
        "Large slow waves follow each other.": True,
        "There are no slow waves.": False,
        "No spindle, K complex or slow wave has come yet.": False,
        "There are neither spindles nor slow waves.": False,
        "Slow waves are absent.": False,
    },
)

ARTEFACTS = _seen(
    "artefacts",
    r"\b(?:movement |motion |muscle )artefacts?\b|\b(?:movement |motion |muscle )artifacts?\b|\bbaseline swings\b"
    r"|\bmuscle (?:activity|noise|tension)\b(?! (?:is )?(?:low|weak|atonia))|\bbody movements?\b",
    _moved,
    "",
    {
        "The baseline swings.": True,
        "Movement artefacts hide all else.": True,
        "Muscle artifacts are seen.": True,
        "There is muscle activity.": True,
        "Motion artefacts are present.": True,
        "Body movements are seen.": True,
        "There is a movement artifact.": True,
        "There are no movement artefacts.": False,
        "Muscle artefacts are absent.": False,
        "No muscle activity is seen.": False,
        "There are no motion artefacts.": False,
    },
)


# --- amplitude ---
def _microvolts(match: Match) -> Stated | None:
    ends = numbers(match)
    milli = match["unit"].lower().startswith(("mv", "milli"))
    return ("µV", tuple(1000 * end if milli else end for end in ends)) if ends else None


def _height(facts: SignalFacts) -> float | None:
    return facts.epoch.peak_to_peak if facts.epoch is not None else None


def _volts(number: float, negated: bool = False) -> Claim:
    return Claim("amplitude", "µV", (number,), negated)


_VOLTS = r"(?P<unit>[µμu]V|microvolts?|mV|millivolts?)\b"
_PEAKS = r"(?:from )?peak[- ]to[- ]peak"

AMPLITUDE = Entry(
    kind="amplitude",
    sayings=(
        Saying(rf"(?P<a>{NUMBER})\s*{_VOLTS}\s+{_PEAKS}", _microvolts),
        Saying(rf"\b{_PEAKS} (?:amplitude|voltage|height|swing)?\s*{ABOUT}(?P<a>{NUMBER})\s*{_VOLTS}", _microvolts),
    ),
    measure=_height,
    agrees=lambda claim, measured: close(claim.numbers, measured) if claim.numbers else None,
    possible={"µV": (0.5, 20000.0)},
    examples={
        "160 µV from peak to peak": _volts(160.0),
        "The amplitude is low, 75 µV from peak to peak.": _volts(75.0),
        "With 80 µV from peak to peak, the amplitude is low.": _volts(80.0),
        "A peak-to-peak amplitude of about 120 µV.": _volts(120.0),
        "The peak-to-peak voltage is 90 uV.": _volts(90.0),
        "It swings by 200 microvolts peak-to-peak.": _volts(200.0),
        "About 0.2 mV peak to peak.": _volts(200.0),
        "The baseline swings with 900 µV from peak to peak.": _volts(900.0),
        "The peak to peak amplitude is 55 µV.": _volts(55.0),
        "Slow waves lead, 161 µV from peak to peak.": _volts(161.0),
        "It is not 500 µV from peak to peak.": _volts(500.0, negated=True),
    },
    counterexamples=(
        "Is it 160 µV from peak to peak?",
        "A fifth swings by over 75 µV.",
        "The amplitude is low.",
        "The swings grow.",
    ),
)

ENTRIES = (SLEEP, SPINDLES, COMPLEXES, SLOW_WAVES, ARTEFACTS, AMPLITUDE)
