"""What the model itself thought of an answer while it gave it: nothing is computed again."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward
from mlx_tslm.stages.base import Question


class LikelihoodReward(Reward):
    """Log-likelihood a token, in nats: log p(x) / |x|, at most 0; an answer without tokens gets 0.

    π* holds p(x) already: this term sharpens it, and takes away the advantage of short answers.
    """

    name = "likelihood"
    highest = 0.0

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        return np.array([c.logprob / max(len(c.tokens), 1) for c in completions], dtype=np.float64)


class CoherenceReward(Reward):
    """Where an answer falls apart: the lowest mean of log p + H over a few tokens in a row, in nats, at most 0.

    H is the entropy of the distribution that a token was drawn from, so that log p + H is 0 on average whatever
    the model and however free the choice was: it is far below 0 only where something came that the model itself
    took to be out of place. What stands behind the marker of the final answer doesn't count: an answer may be
    surprising. NaN where a completion carries no token probabilities.

    Args:
        window: tokens in a row; a shorter answer is one window.
    """

    name = "coherence"
    optional = True

    def __init__(self, window: int = 6) -> None:
        self.window = window

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        return np.array([self._lowest(completion, question) for completion in completions])

    def _lowest(self, completion: Completion, question: Question) -> float:
        if completion.logprobs is None or completion.entropies is None:
            return float("nan")
        surprise = (completion.logprobs + completion.entropies)[: _before_answer(completion, question)]
        surprise = surprise[np.isfinite(surprise)]
        if not surprise.size:
            return float("nan")
        width = min(self.window, surprise.size)
        sums = np.cumsum(np.concatenate([[0.0], surprise]))
        return min(0.0, float((sums[width:] - sums[:-width]).min()) / width)


def _before_answer(completion: Completion, question: Question) -> int:
    """How many tokens stand before the final answer: as the completion knows it, else by the share of letters."""
    if completion.answer_at is not None:
        return completion.answer_at
    count, text = len(completion.tokens), completion.text
    marker = question.stage.marker if question.stage is not None else None
    if marker is None:
        return count
    found = re.search(re.escape(marker), text, re.IGNORECASE)
    return int(count * found.start() / len(text)) if found else count
