"""What metrics look at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Judged:
    """One sample's answer beside its reference.

    Args:
        text: what the model wrote, whole.
        answer: its final answer as the stage parsed it; None where there is none.
        reference: the reference text, whole.
        gold: its final answer.
        labels: the answers that are allowed for this sample; None where they are free (captions).
        group: what it is averaged with, such as an ECG-QA template; one group for all where None.
        nll: negative log-likelihood of the reference under the model, in nats (captions).
        nll_tokens: over so many tokens.
    """

    text: str
    answer: str | None
    reference: str
    gold: str
    labels: tuple[str, ...] | None = None
    group: int | None = None
    nll: float = 0.0
    nll_tokens: int = 0
