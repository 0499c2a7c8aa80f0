"""Stage 4, Sleep CoT: the sleep stage of 30 s of one EEG channel at 50 Hz (Sleep-EDF), with a rationale."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.prompt import Series
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages.base import Labels, Sample, Stage, numbers, text
from mlx_tslm.stages.normalising import numpy_moments

# The original's indentation is part of what the models were trained on.
_INSTRUCTION = """
        You are given a 30-second EEG time series segment. {task}

        Instructions:
        - Analyze the data objectively without presuming a particular label.
        - Reason carefully and methodically about what the signal patterns suggest regarding sleep stage.
        - Write your reasoning as a single, coherent paragraph. Do not use bullet points, lists, or section headers.
        - Only reveal the correct class at the very end.
        - Never state that you are uncertain or unable to classify the data. You must always provide a rationale and a final answer.
"""  # noqa: E501
_LAST_WORDS = """Possible sleep stages are:
        {labels}

        - Please now write your rationale. Make sure that your last word is the answer. You MUST end your response with "Answer:"""  # noqa: E501

_SYNONYMS = {
    **{f"n{number}": f"Non-REM stage {min(number, 3)}" for number in (1, 2, 3, 4)},
    **{f"non-rem stage {number}": f"Non-REM stage {min(number, 3)}" for number in (1, 2, 3, 4)},
    **{f"sleep stage {number}": f"Non-REM stage {min(number, 3)}" for number in (1, 2, 3, 4)},
    **dict.fromkeys(("w", "awake", "sleep stage w"), "Wake"),
    **dict.fromkeys(("r", "rem", "sleep stage r"), "REM sleep"),
    **dict.fromkeys(("mt", "mov", "movement time"), "Movement"),
}
"""Other names of the labels, in lower case."""


class Sleep(Stage):
    """The instruction is fixed; a user's own question goes before the list of sleep stages."""

    name = "stage4"
    key = "sleep"
    title = "sleep stage of 30 seconds of EEG (Sleep-EDF)"
    rate = 50.0
    labels = ("Wake", "Non-REM stage 1", "Non-REM stage 2", "Non-REM stage 3", "REM sleep", "Movement")
    chain_of_thought = True
    default_question = "Your task is to classify the sleep stage based on analysis of the data."

    def _texts(self, question: str | None) -> tuple[str, str]:
        pre = _INSTRUCTION.format(task=self.default_question)
        return pre, self._ask_before(question, _LAST_WORDS.format(labels=", ".join(self.labels)))

    def _series(self, recordings: Sequence[Recording]) -> list[Series]:
        values = self._only(recordings)[0].astype(np.float32)
        mean, std = numpy_moments(values)
        std = max(std, 1e-6)
        says = f"The following is the EEG time series, it has mean {mean:.4f} and std {std:.4f}:"
        return [Series(says, (values - mean) / std)]

    def parse(self, text: str, labels: Labels | None = None) -> str | None:
        """The final answer, with the names that data sets and models give to the same sleep stage made one.

        As the published evaluation does it, "Non-REM stage 4" counts as stage 3.
        """
        answer = super().parse(text, labels)
        return answer if answer is None else _SYNONYMS.get(answer.casefold().replace("nrem", "non-rem"), answer)

    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        return Sample(self.prompt(Recording(numbers(row, "time_series"))), text(row, "rationale").strip())
