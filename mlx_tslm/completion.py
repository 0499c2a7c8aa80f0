"""A finished answer, as the search hands it to a reward."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt.

    Args:
        text: the decoded answer, without BOS or end token.
        tokens: token ids after the prompt, without BOS.
        logprob: sum of log p(token) under the distribution that was sampled from, in nats.
        answer: the final answer as the stage parsed it from the text; None where there is none.
        finished: False where the answer was cut off before its end token.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    answer: str | None = None
    finished: bool = True
