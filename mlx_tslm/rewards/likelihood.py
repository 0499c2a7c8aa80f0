"""The model's own confidence."""

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
