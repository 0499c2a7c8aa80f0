"""Stage 2, M4 captions: a description of one series (the M4 competition's, with generated captions)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.prompt import Series
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages.base import Sample, Stage, numbers, text
from mlx_tslm.stages.normalising import torch_mean, torch_std


class M4(Stage):
    """The prompt is fixed; a user's own question goes before the request for a caption."""

    name = "stage2"
    key = "m4"
    title = "captions of time series (M4)"
    default_question = (
        "Please generate a detailed caption for this time-series, describing it as accurately as possible."
    )

    def _texts(self, question: str | None) -> tuple[str, str]:
        return "You are an expert in time series analysis.", self._ask_before(question, self.default_question)

    def _series(self, recordings: Sequence[Recording]) -> list[Series]:
        values = self._only(recordings)[0].astype(np.float32)
        mean, std = torch_mean(values), torch_std(values)
        says = f"This is the time series, it has mean {mean:.4f} and std {std:.4f}:"
        return [Series(says, (values - mean) / std if std > 0 else values - mean)]

    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        return Sample(self.prompt(Recording(numbers(row, "series"))), text(row, "caption").strip())
