"""A task made of a table that comes without one: labels where answers are few, channels and rate as recorded."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlx_tslm import stages
from mlx_tslm.data.own.table import Entry
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages import Stage
from mlx_tslm.stages.answers import folded
from mlx_tslm.stages.task import from_dict

_MOST_LABELS = 20
_MOSTLY = 0.8  # share of the recordings that makes something theirs
MARKER = "Answer:"


def make(name: str, entries: Sequence[Entry], recordings: Sequence[Recording], medical: bool) -> Stage:
    """The task that a table's rows have in common.

    Answers are labels where there are up to 20, each in two rows on average at least. Rate, length and number of
    channels are those of most recordings, so that others are found; where lengths differ, any is taken.

    Args:
        name: of the table.
        recordings: of its rows, those that could be read.
    """
    labels = _labels(entries)
    channels = Counter(recording.names for recording in recordings).most_common(1)[0][0]
    lengths = Counter(recording.values.shape[1] for recording in recordings)
    length, count = lengths.most_common(1)[0]
    asked = {entry.question for entry in entries if entry.question}
    rates = Counter(recording.rate for recording in recordings if recording.rate is not None)
    raw = {
        "name": _name(name),
        "title": f"the questions in {name}",
        "channels": len(channels),
        "medical": medical,
        **({"labels": labels} if labels else {}),
        **({"channel_words": list(channels)} if len(channels) > 1 else {}),
        **({"rate": rates.most_common(1)[0][0]} if rates else {}),
        **({"length": length} if count >= _MOSTLY * len(recordings) else {}),
        **({"default_question": next(iter(asked))} if len(asked) == 1 else {}),
        **({"marker": MARKER} if any(entry.rationale for entry in entries) else {}),
    }
    return from_dict(raw, stages.get)


def like(stage: Stage, name: str, entries: Sequence[Entry]) -> Stage:
    """A published stage as the task of a table: its wording, with the table's answers where it has none itself.

    Recordings are brought to its rate, as they are when a model of it is asked.
    """
    labels = list(stage.labels or _labels(entries))
    raw: dict[str, Any] = {"name": _name(name), "like": stage.name, "resample": stage.rate is not None}
    raw |= {"labels": labels} if labels else {"metrics": ["captions"]}
    if labels and "classification" not in stage.metrics:
        raw["metrics"] = ["classification"]
    return from_dict(raw, lambda name: stage if name == stage.name else stages.get(name))


def _labels(entries: Sequence[Entry]) -> list[str]:
    """The answers, each in its commonest spelling, where they are few enough to be a closed set; else none."""
    found: dict[str, str] = {}
    for answer, _ in Counter(entry.answer for entry in entries).most_common():
        found.setdefault(folded(answer), answer)
    return sorted(found.values()) if 2 <= len(found) <= min(_MOST_LABELS, len(entries) / 2) else []


def _name(table: str) -> str:
    """A task's name, from its table's."""
    name = re.sub(r"[^\w .+-]+", "-", table).strip("-. ") or "own"
    taken = {known.casefold() for one in map(stages.get, stages.names()) for known in (one.name, one.key)}
    return f"own {name}" if name.casefold() in taken else name


def said(stage: Stage) -> str:
    """A task in a line: its answers, channels, rate and length."""
    answers = f"{len(stage.labels)} labels ({', '.join(stage.labels[:6])})" if stage.labels else "free answers"
    channels = "one channel" if stage.channels == 1 else f"channels {', '.join(stage.channel_words)}"
    rate = f"{stage.rate:g} Hz" if stage.rate else "no rate stated"
    length = f"{stage.length} samples" if stage.length else "of any length"
    return f"{answers}; {channels}, {rate}, {length}"
