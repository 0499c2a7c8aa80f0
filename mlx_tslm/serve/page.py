"""The page for people: what it is told, and the report's own parts that it is made of."""

import re
import secrets
from collections import OrderedDict
from functools import cache
from importlib import resources
from threading import Lock
from typing import Any

from mlx_tslm import data, stages
from mlx_tslm.report.series import envelope
from mlx_tslm.signals import Recording, read

_KEPT = 32  # results; the oldest goes first
_SEED = 7


@cache
def page() -> str:
    """The page; style and small helpers are the report's."""
    report = resources.files("mlx_tslm.report").joinpath("page.html").read_text("utf-8")
    style = re.search(r"<style>(.*?)</style>", report, re.DOTALL)
    helpers = re.search(r"(/\* --- small helpers.*?)\n/\* ---", report, re.DOTALL)
    assert style and helpers, "the report's page has its parts"
    made = resources.files("mlx_tslm.serve").joinpath("page.html").read_text("utf-8")
    return made.replace("{{style}}", style[1]).replace("{{helpers}}", helpers[1])


def about(source: str, own: Any) -> dict[str, Any]:
    """The model, the stages and the samples, for the page's lists.

    Args:
        source: the model's name.
        own: the stage it was trained on, or None.
    """
    known = [stages.get(name) for name in stages.names()]
    return {
        "model": source,
        "stage": own.name if own is not None else None,
        "stages": [
            {
                "name": stage.name,
                "title": stage.title,
                "default_question": stage.default_question,
                "questions": list(dict.fromkeys(_questions(stage))),
                "medical": stage.medical,
            }
            for stage in known
        ],
        "samples": [
            {"name": "airline", "title": "airline passengers, 1949 to 1960 (real)", "stage": "stage2"},
            *({"name": one.name, "title": f"{one.title} (made)", "stage": one.name} for one in known),
        ],
    }


def _questions(stage: Any) -> list[str]:
    """What a person may ask it: what its own generator asks."""
    if not stage.takes_question:
        return [stage.default_question]
    rows = data.load(stage.name, "test", source="synthetic", seed=_SEED, size=12)
    return [stage.from_row(row).prompt.asked for row in rows]


def sample(name: str) -> Recording | None:
    """A recording to try: the demo's, or one that a stage's generator makes; None where there is none so called."""
    if name == "airline":
        return read(str(resources.files("mlx_tslm.demo").joinpath("airline.csv")))
    if name not in stages.names():
        return None
    stage = stages.get(name)
    row = next(iter(data.load(name, "test", source="synthetic", seed=_SEED, size=1)))
    series = stage.from_row(row).prompt.series
    return Recording(
        [one.raw if one.raw is not None else one.values for one in series],
        [one.name or str(at) for at, one in enumerate(series)],
        stage.rate,
        [one.unit for one in series],
    )


def drawn(name: str, recording: Recording) -> dict[str, Any]:
    """What was read, and the points that draw it."""
    summary = recording.summary()
    channels = []
    for channel, unit, values in zip(recording.names, recording.units, recording.values, strict=True):
        at, points = envelope(values, 1200)
        channels.append(
            {
                "name": channel,
                "unit": unit,
                "samples": len(values),
                "at": at.tolist(),
                "values": points.tolist(),
            }
        )
    return {
        "name": name,
        "samples": recording.values.shape[1],
        "rate": recording.rate,
        "start": summary["start"],
        "notes": list(recording.notes),
        "channels": channels,
    }


class Results:
    """Results lately shown, under names that nobody guesses."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._lock = Lock()

    def keep(self, name: str, **kinds: str) -> None:
        """Keep a result, or what is known of it so far, in its kinds (html, json)."""
        with self._lock:
            self._kept[name] = kinds
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def get(self, name: str, kind: str) -> str | None:
        """One of its kinds."""
        with self._lock:
            return self._kept.get(name, {}).get(kind)

    @staticmethod
    def name() -> str:
        """A name for a result to come."""
        return secrets.token_urlsafe(12)
