"""Prompts whose series were tampered with: a model that answers as well as before does not look at them."""

from dataclasses import replace

import numpy as np

from mlx_tslm.prompt import Prompt, Series

ABLATIONS = {
    "zero": "all samples are 0; the texts, which state mean and deviation, stay",
    "shuffle": "the samples of each series in random order, so that only their distribution is left",
    "swap": "the series of another question, with their texts",
}


def ablated(prompt: Prompt, ablate: str, index: int, other: Prompt | None) -> Prompt:
    """The prompt with its series changed, see `ABLATIONS`.

    Args:
        ablate: a key of `ABLATIONS`.
        index: the sample's number, which seeds the shuffling.
        other: where "swap" takes its series from.
    """
    if ablate == "swap":
        assert other is not None
        return replace(prompt, series=other.series)
    if ablate == "zero":
        return replace(prompt, series=tuple(Series(one.text, np.zeros(len(one.values))) for one in prompt.series))
    rng = np.random.default_rng(index)
    return replace(prompt, series=tuple(Series(one.text, rng.permutation(one.values)) for one in prompt.series))
