"""Stage 3, HAR CoT: which activity three accelerometer axes show, with a rationale.

Neither OpenTSLM's code nor the prompt states the sampling rate of the published rows, so none is assumed here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.prompt import Series
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages.base import Sample, Stage, numbers, text
from mlx_tslm.stages.normalising import torch_channel_std, torch_mean

_AXES = ("x", "y", "z")
# The original's indentation is part of what the models were trained on: eight blanks on every line.
_INSTRUCTION = """
        You are given accelerometer data in all three dimensions. {task}

        Instructions:
        - Begin by analyzing the time series without assuming a specific label.
        - Think step-by-step about what the observed patterns suggest regarding movement intensity and behavior.
        - Write your rationale as a single, natural paragraph — do not use bullet points, numbered steps, or section headings.
        - Do **not** mention any class label until the final sentence.

        Possible activity labels are:
        {labels}.
        {blank}
        - Make sure that your last word is the answer. You MUST end your response with "Answer: "
        """  # noqa: E501


class HAR(Stage):
    """The instruction is fixed; a user's own question goes before the last word, "Rationale:"."""

    name = "stage3"
    key = "har"
    title = "human activity from three accelerometer axes (HAR)"
    channels = 3
    labels = ("biking", "lying", "running", "sitting", "standing", "walking", "walking_down", "walking_up")
    chain_of_thought = True
    default_question = "Your task is to classify the activity based on analysis of the data."

    def _texts(self, question: str | None) -> tuple[str, str]:
        pre = _INSTRUCTION.format(task=self.default_question, labels=", ".join(self.labels), blank="")
        return pre, self._ask_before(question, "Rationale:")

    def _series(self, recordings: Sequence[Recording]) -> list[Series]:
        return [
            _axis(axis, values.astype(np.float32))
            for axis, values in zip(_AXES, self._only(recordings), strict=True)
        ]

    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        axes = [numbers(row, f"{axis}_axis") for axis in _AXES]
        return Sample(self.prompt(axes), text(row, "rationale").strip())


def _axis(axis: str, values: np.ndarray) -> Series:
    mean, std = torch_mean(values), np.maximum(torch_channel_std(values), np.float32(1e-6))
    says = f"The following is the accelerometer data on the {axis}-axis, it has mean {mean:.4f} and std {std:.4f}:"
    return Series(says, (values - mean) / std)
