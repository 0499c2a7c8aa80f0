"""Questions whose series were tampered with: a model that answers as well as before does not look at them."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.series import Series
from mlx_tslm.stages.base import Question

ABLATIONS = {
    "zero": "all samples are 0; the texts, which state mean and deviation, stay",
    "shuffle": "the samples of each series in random order, so that only their distribution is left",
    "noise": "normal noise of two standard deviations on each series",
    "swap": "the series of another question, with their texts",
}
_NOISE = 2.0  # standard deviations of the series


def ablated(question: Question, ablate: str, index: int = 0, other: Question | None = None) -> Question:
    """The question with its series changed, see `ABLATIONS`.

    Args:
        ablate: a key of `ABLATIONS`.
        index: the sample's number, which seeds what is random.
        other: where "swap" takes its series from.
    """
    if ablate == "swap":
        assert other is not None
        return replace(question, series=other.series)
    if ablate == "zero":
        return without(question, range(len(question.series)))
    rng = np.random.default_rng(index)
    changed = _shuffled if ablate == "shuffle" else _noisy
    return replace(question, series=tuple(changed(one, rng) for one in question.series))


def without(question: Question, channels: Collection[int]) -> Question:
    """The question with all samples of these channels 0; their texts stay."""
    return replace(
        question,
        series=tuple(_flat(one) if at in channels else one for at, one in enumerate(question.series)),
    )


def exchanged(question: Question, other: Question) -> Question:
    """The question with the samples of another one's series, cut or repeated to the same length.

    Unlike with "swap" the texts stay: what the encoder gets is another recording's, and nothing else.
    """
    taken = [other.series[at % len(other.series)] for at in range(len(question.series))]
    return replace(
        question,
        series=tuple(
            replace(
                one,
                values=np.resize(its.values, len(one.values)),
                raw=None if one.raw is None or its.raw is None else np.resize(its.raw, len(one.raw)),
            )
            for one, its in zip(question.series, taken, strict=True)
        ),
    )


def _flat(one: Series) -> Series:
    raw = None if one.raw is None else np.full(len(one.raw), one.raw.mean())
    return replace(one, values=np.zeros(len(one.values), np.float32), raw=raw)


def _shuffled(one: Series, rng: np.random.Generator) -> Series:
    order = rng.permutation(len(one.values))
    return replace(one, values=one.values[order], raw=None if one.raw is None else one.raw[order])


def _noisy(one: Series, rng: np.random.Generator) -> Series:
    noise = _NOISE * rng.standard_normal(len(one.values))

    def louder(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return values + noise * (float(values.std()) or 1.0)  # of a constant series, where 1 is a stage's deviation

    return replace(
        one, values=louder(one.values).astype(np.float32), raw=None if one.raw is None else louder(one.raw)
    )
