"""Synthetic series of economic and natural shapes (stages 1 and 2), from 20 values to 3000.

Traits and words are those of `synthetic.forecast`. Beyond it: growth that bends in other ways (powers, logistic);
seasons of a weekend, of each month's own height, of pulses above a floor (the sun by day) and of sharp peaks
(predator and prey: Elton and Nicholson 1942); noise with heavy tails or a memory (Student's t, AR(1)); counts, in
whole numbers; several outliers in a third; and shifts of the level, which count among the outliers as "jump" and
"drop" (TSQA's "level shift").
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mlx_tslm.data.synthetic import forecast as clean
from mlx_tslm.data.synthetic import text as words
from mlx_tslm.data.synthetic.forecast import Split, Traits
from mlx_tslm.data.synthetic.signals import FloatArray, pick
from mlx_tslm.stages import tsqa

SHIFTS = ("jump", "drop")
SHORTEST, LONGEST = 20, 3000


def draw(rng: np.random.Generator, split: Split, kind: str | None = None) -> Traits:
    """Draw the traits of one series from the split's combinations; see `clean.draw`."""
    traits = clean.draw(rng, split, kind, _length(rng))
    odds = 0.4 if kind == "shift" else 0.08
    if traits.trend == "none" and traits.outlier == "none" and traits.length >= 30 and rng.random() < odds:
        return replace(traits, outlier=str(rng.choice(SHIFTS)))
    return traits


def _length(rng: np.random.Generator) -> int:
    low, high = ((SHORTEST, 60), (60, 256), (256, 800), (800, LONGEST))[
        int(rng.choice(4, p=(0.34, 0.5, 0.145, 0.015)))
    ]
    return int(np.exp(rng.uniform(np.log(low), np.log(high))))


def render(traits: Traits, rng: np.random.Generator) -> tuple[FloatArray, Traits]:
    """Make a series with these traits.

    Returns:
        The values, float64 `[length]`, and the traits completed with where the extremes lie.
    """
    n = traits.length
    t = np.arange(n)
    trend = clean._unit(_trend(traits.trend, t / (n - 1), rng)) if traits.trend != "none" else np.zeros(n)
    season = _season(traits, t, rng) if traits.period else np.zeros(n)
    signal, noise = trend + season, _noise(n, rng)
    ratio = float(rng.uniform(*clean._NOISE_RATIO[traits.noise]))
    if signal.any():
        spread = signal.std()
        if traits.period:
            season *= max(1.0, 0.7 * ratio * spread / season.std())
            signal = trend + season
            spread = signal.std()
        values = signal + ratio * spread * noise
    else:
        values = noise
    third = None
    if traits.outlier in SHIFTS:
        third = int(rng.integers(3))
        where = int((third + rng.uniform(0.3, 0.7)) * n / 3)
        size = rng.uniform(2.0, 4.0) * values.std() * (1 if traits.outlier == "jump" else -1)
        values = values + size * (t >= where)
    elif traits.outlier != "none":
        third = int(rng.integers(3))
        for _ in range(int(rng.choice((1, 2), p=(0.8, 0.2)))):
            where = int((third + rng.uniform(0.15, 0.85)) * n / 3)
            size = rng.uniform(3.5, 7.0) * values.std()
            values[where] = values.mean() + (size if traits.outlier == "spike" else -size)
    values = _scaled(values, rng)
    return values, replace(
        traits,
        outlier_third=None if third is None else clean.THIRDS[third],
        maximum_third=clean._clear_third(values),
        minimum_third=clean._clear_third(-values),
    )


def _trend(trend: str, u: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The trend's shape over u in [0, 1], in more ways than the clean one's exponentials."""
    if rng.random() < 0.5 or " " not in trend:
        return clean._trend(trend, u, rng)
    direction, shape = trend.split()
    if shape == "accelerating":
        u = u ** rng.uniform(2.0, 3.5)
    elif shape == "slowing":
        middle, width = rng.uniform(0.0, 0.12), rng.uniform(0.16, 0.24)
        u = u ** rng.uniform(0.3, 0.45) if rng.random() < 0.5 else 1 / (1 + np.exp(-(u - middle) / width))
    return u if direction == "upward" else -u


def _season(traits: Traits, t: Any, rng: np.random.Generator) -> FloatArray:
    """One cycle of one of several shapes, repeated under the envelope of its swings."""
    assert traits.period is not None
    if rng.random() < 0.4:
        return clean._season(traits, t, rng)
    period = traits.period
    phase = 2 * np.pi * (t / period + rng.random())
    shape = str(rng.choice(("pulse", "peaks", "months", "sawtooth")))
    if period == 7 and rng.random() < 0.6:
        wave = np.where((t + int(rng.integers(7))) % 7 < 2, -1.0, 0.0) * rng.choice((1, 1, 1, -1))
        wave = wave + 0.15 * rng.standard_normal(7)[t % 7]
    elif shape == "pulse":
        wave = np.maximum(0, np.sin(phase) + rng.uniform(-0.2, 0.3))
    elif shape == "peaks":
        wave = np.exp(rng.uniform(1, 2.2) * np.sin(phase))
    elif shape == "sawtooth":
        wave = (phase / (2 * np.pi)) % 1 * rng.choice((-1, 1))
    else:
        cycle = np.sin(2 * np.pi * np.arange(period) / period) + 0.4 * rng.standard_normal(period)
        wave = np.roll(cycle, int(rng.integers(period)))[t % period]
    wave = wave - wave.mean()
    low = rng.uniform(0.15, 0.4)
    envelope = {"steady": (1.0, 1.0), "growing": (low, 1.0), "shrinking": (1.0, low)}[traits.swings]
    wave = wave * np.linspace(*envelope, len(t))
    return wave / wave.std() * 10 ** rng.uniform(-0.5, 0.4)


def _noise(n: int, rng: np.random.Generator) -> FloatArray:
    """Noise of deviation 1: Gaussian, with heavy tails (no heavier than an outlier is), or with a memory."""
    kind = rng.random()
    noise = np.clip(rng.standard_t(5, n), -3.2, 3.2) if kind < 0.2 else rng.standard_normal(n)
    if kind > 0.75:
        from scipy.signal import lfilter

        noise = lfilter([1], [1, -rng.uniform(0.1, 0.5)], rng.standard_normal(n + 20))[20:]
    return clean._unit(noise)


def _scaled(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """At a level and a spread drawn on their own; one in four in whole numbers, from 0 up."""
    values = clean._unit(values)
    if rng.random() < 0.25:
        spread = 10 ** rng.uniform(0.9, 4)
        return np.round(spread * (values - values.min() + rng.exponential(1.0)))
    scale = 10 ** rng.uniform(-2.0, 6.0)
    level = scale * (1 if rng.random() < 0.9 else -1)
    return np.round(level + scale * rng.uniform(0.05, 0.8) * values, 4 if scale > 0.1 else 6)


_SHIFT = words.Question(
    "Outlier",
    "Is there a level shift?",
    ("no level shift", "a sudden jump", "a sudden drop"),
    lambda t: f"a sudden {t.outlier}" if t.outlier in SHIFTS else "no level shift",
)
QUESTIONS = words.QUESTIONS | {"shift": _SHIFT}
_WORDINGS = {
    "trend": ("What is the overall trend?", "Which trend does this series have?", "How does the series develop?"),
    "pace": ("At what pace does it change?", "How does the trend change?"),
    "season": ("Is there a season?", "What kind of seasonality is there?", "Is the series seasonal?"),
    "period": (
        "What is the period of the season?",
        "How many samples does the season last?",
        "What is the period?",
    ),
    "noise": ("How noisy is it?", "How strong is the noise?", "What is the volatility like?"),
    "outlier": ("Are there outliers?", "Does an outlier stand out?"),
    "shift": ("Does the level jump?", "Is there a sudden change of the level?"),
}
_TURNS = ("peak", "valley")  # neither up nor down on the whole
_YES_NO: dict[str, Callable[[Traits], bool | None]] = {
    "Is there a trend?": lambda t: None if t.direction in _TURNS else t.direction != "none",
    "Is there an upward trend?": lambda t: None if t.direction in _TURNS else t.direction == "upward",
    "Is there a downward trend?": lambda t: None if t.direction in _TURNS else t.direction == "downward",
    "Is there a season?": lambda t: t.period is not None,
    "Is there a seasonal pattern?": lambda t: t.period is not None,
    "Is there an outlier?": lambda t: None if t.outlier in SHIFTS else t.outlier != "none",
    "Is the volatility high?": lambda t: {"low": False, "moderate": None, "high": True}[t.noise],
}


def _task(question: str) -> str:
    """The task that the stage reads out of a question's words."""
    return next((name for hint, name in tsqa._HINTS.items() if hint in question.casefold()), "Trend")


def ask(kind: str, traits: Traits, rng: np.random.Generator) -> tuple[str, str]:
    """A question of a kind with two to four shuffled options, or none, and the right one."""
    asked = QUESTIONS[kind]
    text = asked.text if rng.random() < 0.5 else pick(rng, *_WORDINGS[kind])
    truth = asked.truth(traits)
    if rng.random() < 0.12:
        return text, truth
    others = [option for option in asked.options if option != truth]
    count = min(len(others), int(rng.choice((1, 2, 3), p=(0.15, 0.65, 0.2))))
    options = [truth, *(str(option) for option in rng.choice(others, count, replace=False))]
    rng.shuffle(options)
    return f"{text} {' '.join(f'({a}) {b}' for a, b in zip('abcd', options, strict=False))}", truth


def row(stage: str, split: Split, rng: np.random.Generator, number: int = 0) -> dict[str, Any]:
    """One row of stage 1 or 2; see `clean.row`."""
    if stage == "stage2":
        values, traits = render(draw(rng, split), rng)
        caption = words.caption(traits, rng)
        return {"id": f"S{number}", "series": values.tolist(), "caption": caption, "traits": traits}
    kind = str(rng.choice((*QUESTIONS, "tsqa", "yes_no"), p=(0.17, 0.08, 0.12, 0.12, 0.08, 0.1, 0.05, 0.14, 0.14)))
    while True:
        values, traits = render(draw(rng, split, kind if kind in QUESTIONS else None), rng)
        if kind == "tsqa":
            task = str(rng.choice(tuple(tsqa.QUESTIONS)))
            question, answer = tsqa.QUESTIONS[task], _tsqa_answer(task, traits)
        elif kind == "yes_no":
            question = str(rng.choice(tuple(_YES_NO)))
            true = _YES_NO[question](traits)
            answer = None if true is None else "yes" if true else "no"
            task = _task(question)
            question += pick(rng, " (a) yes (b) no", " (a) no (b) yes", "")
        else:
            question, answer = ask(kind, traits, rng)
            task = _task(question)
        if answer is not None:
            return {
                "Task": task,
                "Question": question,
                "Answer": answer,
                "Series": json.dumps(values.tolist()),
                "kind": kind,
                "traits": traits,
            }


def _tsqa_answer(task: str, traits: Traits) -> str | None:
    if task == "Outlier":
        return {"none": "(a)", "spike": "(b)", "jump": "(c)", "drop": "(c)"}.get(traits.outlier)
    return words.tsqa_answer(task, traits)
