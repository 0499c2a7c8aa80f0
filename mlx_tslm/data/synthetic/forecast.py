"""A synthetic curriculum: seeded time series whose properties are known, with questions and captions about them.

A series is trend + season + noise (+ one outlier), mapped to a mean and a standard deviation that are drawn
independently of everything else: the statistics that a prompt states in words give no answer away.

Samples come as rows with the columns of the published data sets (stage 1: TSQA, stage 2: M4 captions), so that
they pass through the same `stage.from_row` as the real ones.

The test split is held out by *parameters*, not by seed only: a fixed seventh of the combinations of trend,
period and noise (`HELD_OUT`) never occurs in training, while every single value of each of them does.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.data.synthetic import text as synthetic_text
from mlx_tslm.data.synthetic.traits import Traits
from mlx_tslm.stages import tsqa

Split = Literal["train", "validation", "test"]

TRENDS = (
    "none",
    "upward steady",
    "upward accelerating",
    "upward slowing",
    "downward steady",
    "downward accelerating",
    "downward slowing",
    "peak",
    "valley",
)
PERIODS = (4, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48)
SWINGS = ("steady", "growing", "shrinking")
NOISES = ("low", "moderate", "high")
OUTLIERS = ("none", "spike", "dip")
THIRDS = ("first", "middle", "last")

_TREND_ODDS = np.array([0.22, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.09, 0.09])
# Standard deviation of the noise relative to that of trend + season; the gaps between the bands keep them apart.
_NOISE_RATIO = {"low": (0.03, 0.12), "moderate": (0.28, 0.42), "high": (0.7, 1.0)}
_MIN_CYCLES = 3
_SPLIT_SEED = {"train": 1, "validation": 2, "test": 3}


def _held_out() -> frozenset[tuple[str, int | None, str]]:
    combinations = [
        combination
        for combination in itertools.product(TRENDS, (None, *PERIODS), NOISES)
        if combination[:2] != ("none", None)
    ]
    order = np.random.default_rng(2024).permutation(len(combinations))
    return frozenset(combinations[i] for i in order[: len(combinations) // 7])


HELD_OUT = _held_out()
"""Combinations (trend, period, noise) that only the test split has."""


def draw(rng: np.random.Generator, split: Split, kind: str | None = None, length: int | None = None) -> Traits:
    """Draw the traits of one series from the split's combinations.

    Args:
        kind: one of `synthetic_text.QUESTIONS`: draws traits about which it can be asked, its answers in balance.
        length: samples; by default 48 to 256.
    """
    while True:
        samples = length or int(rng.integers(48, 257))
        trend = str(rng.choice(TRENDS, p=_TREND_ODDS))
        periods = [p for p in PERIODS if p * _MIN_CYCLES <= samples]
        period = None if rng.random() < 0.22 else int(rng.choice(periods))
        swings = str(rng.choice(SWINGS)) if period else "steady"
        noise = str(rng.choice(NOISES))
        outlier = str(rng.choice(OUTLIERS, p=(0.76, 0.12, 0.12)))
        if kind == "outlier":
            outlier = str(rng.choice(OUTLIERS))
        if trend == "none" and period is None and (kind == "noise" or noise != "high"):
            continue  # noise alone is "high", which would upset the balance of the noise questions
        if kind == "trend" and rng.random() < 0.5 and " " in trend:
            continue  # upward and downward come in three shapes each
        if (kind == "pace" and " " not in trend) or (kind == "period" and period is None):
            continue
        if ((trend, period, noise) in HELD_OUT) != (split == "test"):
            continue
        return Traits(samples, trend, period, swings, noise, outlier)


def render(traits: Traits, rng: np.random.Generator) -> tuple[NDArray[np.float64], Traits]:
    """Make a series with these traits.

    Returns:
        The values, float64 `[length]`, and the traits completed with where the extremes lie.
    """
    n = traits.length
    t = np.arange(n)
    trend = _unit(_trend(traits.trend, t / (n - 1), rng)) if traits.trend != "none" else np.zeros(n)
    season = _season(traits, t, rng) if traits.period else np.zeros(n)
    signal = trend + season
    ratio = float(rng.uniform(*_NOISE_RATIO[traits.noise]))
    if signal.any():
        spread = signal.std()
        if traits.period:  # a season under the noise could not be told: lift it
            lift = max(1.0, 0.7 * ratio * spread / season.std())
            signal = trend + lift * season
            spread = signal.std()
        values = signal + ratio * spread * rng.standard_normal(n)
    else:
        values = rng.standard_normal(n)
    third = None
    if traits.outlier != "none":
        third = int(rng.integers(3))
        where = int((third + rng.uniform(0.15, 0.85)) * n / 3)
        size = rng.uniform(3.5, 5.0) * values.std()
        values[where] = values.mean() + (size if traits.outlier == "spike" else -size)
    completed = Traits(
        **{
            **traits.__dict__,
            "outlier_third": None if third is None else THIRDS[third],
            "maximum_third": _clear_third(values),
            "minimum_third": _clear_third(-values),
        }
    )
    scale = 10 ** rng.uniform(0.0, 3.5)
    level = scale * (1 if rng.random() < 0.9 else -1)
    spread = scale * rng.uniform(0.05, 0.6)
    return np.round(level + spread * _unit(values), 4), completed


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values - values.mean()) / values.std()


def _trend(trend: str, u: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The trend's shape over u in [0, 1]."""
    if trend in ("peak", "valley"):
        turn = rng.uniform(0.35, 0.65)
        rise = np.minimum(u / turn, (1 - u) / (1 - turn))
        return rise if trend == "peak" else -rise
    direction, shape = trend.split()
    rate = rng.uniform(2.5, 5.0)
    if shape == "accelerating":
        u = np.expm1(rate * u) / np.expm1(rate)
    elif shape == "slowing":
        u = np.expm1(-rate * u) / np.expm1(-rate)
    return u if direction == "upward" else -u


def _season(traits: Traits, t: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A few harmonics of the period, under an envelope, with a standard deviation relative to the trend's 1."""
    assert traits.period is not None
    wave = np.zeros(len(t))
    for harmonic, weight in ((1, 1.0), (2, rng.uniform(0, 0.7)), (3, rng.uniform(0, 0.4))):
        if 2 * harmonic <= traits.period:
            wave += weight * np.sin(2 * np.pi * (harmonic * t / traits.period + rng.random()))
    low = rng.uniform(0.15, 0.4)
    envelope = {"steady": (1.0, 1.0), "growing": (low, 1.0), "shrinking": (1.0, low)}[traits.swings]
    wave *= np.linspace(*envelope, len(t))
    return wave / wave.std() * 10 ** rng.uniform(-0.5, 0.4)


def _clear_third(values: NDArray[np.float64]) -> str | None:
    """The third that holds the maximum, or None where another third comes close."""
    thirds = [part.max() for part in np.array_split(values, 3)]
    best = int(np.argmax(thirds))
    place = 3 * float(np.argmax(values)) / len(values)
    if thirds[best] - max(thirds[:best] + thirds[best + 1 :]) < 0.35 * values.std():
        return None
    return THIRDS[best] if abs(place - round(place)) > 0.1 or round(place) in (0, 3) else None


def rows(
    stage: str, split: Split, seed: int = 0, length: int | None = None, kind: str | None = None
) -> Iterator[dict[str, Any]]:
    """An endless stream of rows of a stage, the same for the same arguments.

    Args:
        stage: "stage1" (multiple choice) or "stage2" (captions).
        length: samples of every series; by default they vary.
        kind: ask only this one of `synthetic_text.QUESTIONS` (stage 1).

    Yields:
        stage 1: Task, Question, Answer, Series (JSON), kind; stage 2: id, series, caption; both with `traits`.
    """
    rng = np.random.default_rng([seed, _SPLIT_SEED[split], int(stage == "stage1"), length or 0])
    for number in itertools.count():
        yield row(stage, split, rng, length, kind, number)


def row(
    stage: str,
    split: Split,
    rng: np.random.Generator,
    length: int | None = None,
    kind: str | None = None,
    number: int = 0,
) -> dict[str, Any]:
    """One row; see `rows`."""
    if stage == "stage1":
        kind = kind or str(rng.choice(tuple(synthetic_text.QUESTIONS)))
        values, traits = render(draw(rng, split, kind, length), rng)
        question, answer = synthetic_text.question(kind, traits, rng)
        return {
            "Task": synthetic_text.QUESTIONS[kind].task,
            "Question": question,
            "Answer": answer,
            "Series": json.dumps(values.tolist()),
            "kind": kind,
            "traits": traits,
        }
    values, traits = render(draw(rng, split, None, length), rng)
    caption = synthetic_text.caption(traits, rng)
    return {"id": f"S{number}", "series": values.tolist(), "caption": caption, "traits": traits}


def tsqa_row(split: Split, rng: np.random.Generator, length: int | None = None) -> dict[str, Any]:
    """A row with one of the TSQA data set's own questions, which need no words in the answer."""
    while True:
        task = str(rng.choice(("Trend", "Volatility", "Season")))
        values, traits = render(draw(rng, split, None, length), rng)
        if answer := synthetic_text.tsqa_answer(task, traits):
            series = json.dumps(values.tolist())
            return {
                "Task": task,
                "Question": tsqa.QUESTIONS[task],
                "Answer": answer,
                "Series": series,
                "traits": traits,
            }
