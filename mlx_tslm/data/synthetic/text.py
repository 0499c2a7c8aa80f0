"""What the synthetic curriculum says of a series: multiple-choice questions, captions, and how to read captions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlx_tslm.data.synthetic.traits import Traits


class Question(NamedTuple):
    """A kind of question.

    Attributes:
        task: the word that TSQA's Task column would have, which the prompt ends with.
        text: its wording.
        options: what may be true of a series; three of them are offered.
        truth: which of them is true.
    """

    task: str
    text: str
    options: tuple[str, ...]
    truth: Callable[[Traits], str]


_DIRECTIONS = {
    "none": "no trend",
    "upward": "an upward trend",
    "downward": "a downward trend",
    "peak": "a rise, then a fall",
    "valley": "a fall, then a rise",
}
_PACES = {"steady": "at a steady pace", "accelerating": "faster and faster", "slowing": "ever more slowly"}
_PERIODS = (4, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48)

QUESTIONS = {
    "trend": Question(
        "Trend", "What is the trend?", tuple(_DIRECTIONS.values()), lambda t: _DIRECTIONS[t.direction]
    ),
    "pace": Question(
        "Trend", "How does the level change?", tuple(_PACES.values()), lambda t: _PACES[t.shape or "steady"]
    ),
    "season": Question(
        "Season",
        "What is the season like?",
        (
            "no season",
            "a season with steady swings",
            "a season with growing swings",
            "a season with shrinking swings",
        ),
        lambda t: f"a season with {t.swings} swings" if t.period else "no season",
    ),
    "period": Question(
        "Season",
        "How long is the season?",
        tuple(f"{period} samples" for period in _PERIODS),
        lambda t: f"{t.period} samples",
    ),
    "noise": Question(
        "Volatility", "How strong is the noise (volatility)?", ("low", "moderate", "high"), lambda t: t.noise
    ),
    "outlier": Question(
        "Outlier",
        "Is there an outlier?",
        ("no outlier", "a sudden spike", "a sudden dip"),
        lambda t: "no outlier" if t.outlier == "none" else f"a sudden {t.outlier}",
    ),
}
"""Stage 1's questions by kind."""

_TSQA_OPTIONS: dict[str, Callable[[Traits], str | None]] = {
    "Trend": lambda t: {"none": "(a)", "upward": "(b)", "downward": "(c)"}.get(t.direction),
    "Volatility": lambda t: {"steady": "(a)", "growing": "(b)", "shrinking": "(c)"}[t.swings],
    "Season": lambda t: "(a)" if t.period is None else "(b)" if t.swings == "steady" else "(c)",
}


def question(kind: str, traits: Traits, rng: np.random.Generator) -> tuple[str, str]:
    """A question with three shuffled options about the series, and its answer, the right option: "no trend".

    The answer is the option's text, not its letter: a model this small tells what it sees, but did not learn in an
    hour to look up which letter stands before it.
    """
    asked = QUESTIONS[kind]
    truth = asked.truth(traits)
    others = [option for option in asked.options if option != truth]
    options = [truth, *(str(option) for option in rng.choice(others, 2, replace=False))]
    rng.shuffle(options)
    text = " ".join(f"({letter}) {option}" for letter, option in zip("abc", options, strict=True))
    return f"{asked.text} {text}", truth


def tsqa_answer(task: str, traits: Traits) -> str | None:
    """The answer, "(a)" to "(c)", to the TSQA data set's own question for the task; None where no option fits."""
    return _TSQA_OPTIONS[task](traits)


_TREND = {
    "none": ("There is no clear trend.", "The level stays flat.", "It shows no trend."),
    "peak": ("It rises, then falls.", "The trend turns from upward to downward."),
    "valley": ("It falls, then rises.", "The trend turns from downward to upward."),
}
_SHAPED_TREND = {
    "steady": ("The trend is {way} and steady.", "It {verb} at a steady pace."),
    "accelerating": ("The trend is {way} and accelerating.", "It {verb} faster and faster."),
    "slowing": ("The trend is {way} but slowing.", "It {verb} ever more slowly."),
}
_NO_SEASON = ("There is no season.", "No pattern repeats.")
_SEASON = ("It has a season of {period} samples", "A pattern repeats every {period} samples")
_SWINGS = {
    "steady": (" with steady swings.",),
    "growing": (" with growing swings.", ", and its swings grow."),
    "shrinking": (" with shrinking swings.", ", and its swings shrink."),
}
_NOISE = {
    "low": ("The noise is low.", "There is little noise."),
    "moderate": ("The noise is moderate.", "There is some noise."),
    "high": ("The noise is high.", "There is much noise."),
}


def caption(traits: Traits, rng: np.random.Generator) -> str:
    """A true description: trend, season, noise, then the outlier or where an extreme lies if that is clear."""

    def pick(variants: Sequence[str]) -> str:
        return variants[int(rng.integers(len(variants)))]

    if traits.shape:
        verb = "rises" if traits.direction == "upward" else "falls"
        parts = [pick(_SHAPED_TREND[traits.shape]).format(way=traits.direction, verb=verb)]
    else:
        parts = [pick(_TREND[traits.trend])]
    if traits.period:
        parts.append(pick(_SEASON).format(period=traits.period) + pick(_SWINGS[traits.swings]))
    else:
        parts.append(pick(_NO_SEASON))
    parts.append(pick(_NOISE[traits.noise]))
    if traits.outlier_third:
        parts.append(f"A sudden {traits.outlier} stands out in the {traits.outlier_third} third.")
    elif extremes := [
        f"The {name} lies in the {third} third."
        for name, third in (("maximum", traits.maximum_third), ("minimum", traits.minimum_third))
        if third
    ]:
        parts.append(pick(extremes))
    return " ".join(parts)
