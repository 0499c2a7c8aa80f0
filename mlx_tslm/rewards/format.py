"""Did the answer come, and is it one of those allowed?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward
from mlx_tslm.stages.base import Question


class FormatReward(Reward):
    """1 for a final answer from the allowed set, 0.5 for one outside it, 0 for none or an unfinished one.

    Where the task has no set of answers, any non-empty one gets 1. Letter case and surrounding
    punctuation don't count.
    """

    name = "format"
    highest = 1.0

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        allowed = {_plain(label) for label in question.labels} if question.labels else None
        return np.array([_score(completion, question, allowed) for completion in completions])


def _score(completion: Completion, question: Question, allowed: set[str] | None) -> float:
    answer = final_answer(completion, question)
    if not completion.finished or not answer:
        return 0.0
    return 1.0 if allowed is None or _plain(answer) in allowed else 0.5


def final_answer(completion: Completion, question: Question) -> str | None:
    """The final answer: as given, else as the question reads it."""
    return completion.answer if completion.answer is not None else question.parse(completion.text)


def _plain(text: str) -> str:
    return text.strip().strip(".,;:!\"'()").casefold()
