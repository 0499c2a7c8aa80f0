"""Prompts whose series were tampered with: a model that answers as well as before does not look at them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.series import Series
from mlx_tslm.stages.base import Question

ABLATIONS = {
    "zero": "all samples are 0; the texts, which state mean and deviation, stay",
    "shuffle": "the samples of each series in random order, so that only their distribution is left",
    "swap": "the series of another question, with their texts",
}


def ablated(question: Question, ablate: str, index: int, other: Question | None) -> Question:
    """The question with its series changed, see `ABLATIONS`.

    Args:
        ablate: a key of `ABLATIONS`.
        index: the sample's number, which seeds the shuffling.
        other: where "swap" takes its series from.
    """
    if ablate == "swap":
        assert other is not None
        return replace(question, series=other.series)
    if ablate == "zero":
        return replace(question, series=tuple(_flat(one) for one in question.series))
    rng = np.random.default_rng(index)
    return replace(question, series=tuple(_taken(one, rng.permutation(len(one.values))) for one in question.series))


def _flat(one: Series) -> Series:
    raw = None if one.raw is None else np.full(len(one.raw), one.raw.mean())
    return replace(one, values=np.zeros(len(one.values), np.float32), raw=raw)


def _taken(one: Series, order: NDArray[np.int64]) -> Series:
    return replace(one, values=one.values[order], raw=None if one.raw is None else one.raw[order])
