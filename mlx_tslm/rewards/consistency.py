"""Self-consistency (Wang et al. 2022): an answer that many chains of reasoning reach is likelier right."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward
from mlx_tslm.rewards.format import final_answer
from mlx_tslm.stages.base import Question


class ConsistencyReward(Reward):
    """Share of the completions *in the list passed* with the same final answer, (0, 1]; 0 for no answer.

    It keeps no memory: called on a wave it is the share within the wave, called on every completion of a
    finished search the share within the search. A value then depends on its batch mates, so it is no reward
    to converge to: re-score with it at the end.
    """

    name = "consistency"
    highest = 1.0

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        answers = [(final_answer(c, question) or "").strip().casefold() for c in completions]
        counts = Counter(answers)
        return np.array([counts[a] / len(answers) if a else 0.0 for a in answers], dtype=np.float64)
