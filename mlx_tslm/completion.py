"""A finished answer, as the search hands it to a reward."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt.

    Args:
        text: the decoded answer, without BOS or end token.
        tokens: token ids after the prompt, without BOS.
        logprob: sum of log p(token) under the distribution that was sampled from, in nats.
        answer: the final answer as the stage parsed it from the text; None where there is none.
        finished: False where the answer was cut off before its end token.
        logprobs, entropies: log p of each token, and the entropy of the distribution that it was drawn from, from
            the pass that drew it: float64 `[len(tokens)]` in nats, NaN for tokens that were given and not drawn.
            None where nothing was kept. In a label that was completed they are those of the allowed labels.
        answer_at: how many of the tokens stand before the final answer; None where that is not known.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    answer: str | None = None
    finished: bool = True
    logprobs: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    entropies: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    answer_at: int | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"<{type(self).__name__} {text!r}: {len(self.tokens)} tokens, log p {self.logprob:.2f}>"
