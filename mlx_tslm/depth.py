"""What recordings a model was trained on, and what a person should know of one that is not like them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.recording import Recording, resample
from mlx_tslm.stages.base import Question, Stage

Span = tuple[float, float]
"""The smallest and the largest value."""


@dataclass(frozen=True)
class TrainedOn:
    """The recordings of one stage that a model was trained on; None where it is not known.

    Args:
        samples: of a series, at the model's own rate.
        channels: of a recording, as many as the model reads of it.
        deviation: standard deviation of a channel, in the unit of the recording.
        rate: Hz, of all of them.
    """

    samples: Span | None = None
    channels: Span | None = None
    deviation: Span | None = None
    rate: float | None = None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """From what `config.json` says of a stage; unknown keys are ignored."""
        spans = {
            key: (float(entry[key][0]), float(entry[key][1]))
            for key in ("samples", "channels", "deviation")
            if entry.get(key) is not None
        }
        return cls(**spans, rate=entry.get("rate"))

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def of(config: Mapping[str, Any] | None, stage: str) -> TrainedOn | None:
    """A stage's entry of `ModelConfig.trained_on`."""
    entry = (config or {}).get(stage)
    return TrainedOn.from_dict(entry) if entry else None


def own_rate(trained: TrainedOn | None, stage: Stage) -> float | None:
    """The rate in Hz at which a model reads recordings of a stage: its own, else the stage's; None for any."""
    return (trained and trained.rate) or stage.rate


def measure(questions: Iterable[Question], rate: float | None) -> TrainedOn:
    """What these questions' series span."""
    series = [(question, one) for question in questions for one in question.series]
    channels = list(Counter(id(question) for question, _ in series).values())
    deviations = [float(one.raw.std()) for _, one in series if one.raw is not None]
    samples = [len(one.values) for _, one in series]
    return TrainedOn(_span(samples), _span(channels), _span([one for one in deviations if one > 0]), rate)


def at_own_rate(recordings: Sequence[Recording], rate: float | None) -> tuple[list[Recording], list[str]]:
    """Recordings whose rate is known at a model's own rate, and a note where one was resampled."""
    brought, notes = [], []
    for recording in recordings:
        if rate is None or recording.rate in (None, rate):
            brought.append(recording)
            continue
        try:
            brought.append(resample(recording, rate))
        except TSLMError:  # too far apart: it stays, and the stage says so
            brought.append(recording)
            continue
        notes.append(f"brought from {recording.rate:g} to {rate:g} Hz, the rate that the model was trained at")
    return brought, notes


def outside(recordings: Sequence[Recording], trained: TrainedOn | None, read: int | None = None) -> list[str]:
    """In what the recordings are not like those of the training, a sentence each; none where they are.

    Args:
        read: channels that the model reads of them, where that is not all.
    """
    if trained is None:
        return []
    notes = []
    for recording in recordings:
        length = recording.values.shape[1]
        if trained.samples and not _within(length, trained.samples):
            notes.append(f"{length} samples: the model was trained on {_worded(trained.samples)}")
        deviations = recording.values.std(axis=1)
        strange = [
            f"{name!r} ({deviation:.3g})"
            for name, deviation in zip(recording.names, deviations, strict=True)
            if deviation > 0 and trained.deviation and not _within(float(deviation), trained.deviation)
        ]
        if strange and trained.deviation:
            notes.append(
                f"the deviation of {', '.join(strange)} lies outside of what the model was trained on, "
                f"{_worded(trained.deviation)}: check the unit"
            )
        if trained.rate and recording.rate and recording.rate != trained.rate:
            notes.append(f"recorded at {recording.rate:g} Hz: the model was trained at {trained.rate:g} Hz")
    channels = sum(len(recording.names) for recording in recordings) if read is None else read
    if trained.channels and not _within(channels, trained.channels):
        plural = "" if channels == 1 else "s"
        notes.append(f"{channels} channel{plural}: the model was trained on {_worded(trained.channels)}")
    return notes


def _within(value: float, span: Span) -> bool:
    return span[0] <= value <= span[1]


def _worded(span: Span) -> str:
    low, high = (f"{end:.6g}" if end >= 100 else f"{end:.3g}" for end in span)
    return low if low == high else f"{low} to {high}"


def _span(values: Sequence[float]) -> Span | None:
    return (float(np.min(values)), float(np.max(values))) if values else None
