"""Did the answer come, and is it one of those allowed?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward, RewardContext


class FormatReward(Reward):
    """1 for a final answer from the allowed set, 0.5 for one outside it, 0 for none or an unfinished one.

    Where the task has no set of answers, any non-empty one gets 1. Letter case and surrounding
    punctuation don't count.
    """

    name = "format"

    def __call__(self, completions: Sequence[Completion], context: RewardContext) -> NDArray[np.float64]:
        allowed = {_plain(label) for label in context.labels} if context.labels else None
        return np.array([_score(completion, context, allowed) for completion in completions])


def _score(completion: Completion, context: RewardContext, allowed: set[str] | None) -> float:
    answer = final_answer(completion, context)
    if not completion.finished or not answer:
        return 0.0
    return 1.0 if allowed is None or _plain(answer) in allowed else 0.5


def final_answer(completion: Completion, context: RewardContext) -> str | None:
    """The final answer: as given, else as the stage parses it, else (without a stage) the text itself."""
    if completion.answer is not None:
        return completion.answer
    if context.stage is not None:
        return context.stage.parse(completion.text, context.labels)
    return completion.text.strip() or None


def _plain(text: str) -> str:
    return text.strip().strip(".,;:!\"'()").casefold()
