"""Stage 1, TSQA: multiple-choice questions about one series.

The data set (`ChengsenWang/TSQA`, from ChatTime, Wang et al., AAAI 2025, arXiv:2412.11376, appendices A and B)
has 48,000 synthetic series of 64, 128, 256 or 512 samples. Columns: Task, Size, Question, Answer, Label, Series.
Task is one word ("Trend", "Volatility", "Season", "Outlier"), with one fixed question each (`QUESTIONS`): two or
three definitions, then the options (a), (b), (c) on lines of their own, always in the same order. Answer is the
option alone, "(b)", without a rationale; Label says it in words ("upward trend"). The published evaluation
compares the first three characters.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.prompt import Prompt, Series
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages.base import Labels, Sample, Stage, field, numbers, text
from mlx_tslm.stages.normalising import torch_mean, torch_std


def _question(definitions: Sequence[str], options: Sequence[str]) -> str:
    return "\n".join(
        (
            "Given the following definitions:",
            *definitions,
            "Select one of the following answers that best describes the provided time series:",
            *(f"({letter}) This time series has {option}." for letter, option in zip("abc", options, strict=True)),
            "Only answer (a), (b), or (c).",
        )
    )


# The data set's own questions, by its Task column.
QUESTIONS = {
    "Trend": _question(
        (
            "Constant trend: The time series does not show any significant increase or decrease over time.",
            "Upward trend: The time series consistently increases over time.",
            "Downward trend: The time series consistently decreases over time.",
        ),
        ("a constant trend", "an upward trend", "a downward trend"),
    ),
    "Volatility": _question(
        (
            "Constant volatility: The time series shows relatively consistent fluctuation magnitude throughout "
            "the period.",
            "Increased volatility: The time series shows a rise in the magnitude of fluctuation over time.",
            "Decreased volatility: The time series shows a reduction in the magnitude of fluctuations over time.",
        ),
        ("a constant volatility", "an increased volatility", "a decreased volatility"),
    ),
    "Season": _question(
        (
            "Seasonal pattern: The time series shows a repetitive and predictable fluctuation throughout the "
            "period.",
            "Fixed seasonal pattern: The timing and magnitude of the seasonal fluctuation remain constant over "
            "time.",
            "Shifting seasonal pattern: The timing or magnitude of the seasonal fluctuation changes over time.",
        ),
        ("no obvious seasonal pattern", "a fixed seasonal pattern", "a shifting seasonal pattern"),
    ),
    "Outlier": _question(
        (
            "Outlier: The data point that significantly differs from other observations in a time series.",
            "Sudden spike: The rapid and significant increase in the value of a variable over a short period, "
            "followed by a return to the original baseline.",
            "Level shift: The significant and sustained change in the average level of a time series.",
        ),
        ("no obvious outlier", "a sudden spike", "a level shift"),
    ),
}

_OFFERED = re.compile(r"(?<!\w)\(([a-z])\)[ \t]*(.*?)(?=\s*(?<!\w)\([a-z]\)|\n|$)", re.IGNORECASE)
_OPTION = re.compile(r"\(([a-z])\)", re.IGNORECASE)
_BARE_OPTION = re.compile(r"\(?([a-z])[).:]?", re.IGNORECASE)
_HINTS = {"volatil": "Volatility", "season": "Season", "outlier": "Outlier", "spike": "Outlier", "shift": "Outlier"}


class TSQA(Stage):
    """The question goes before the series; the last words name the task: "Predict the Trend Answer:".

    Options of `prompt`: `task`, the Task column's word. Where it is not given it follows from the question (its
    words volatility, season, outlier, spike or shift; else "Trend"). Where only the task is given, the data
    set's question for it is asked.
    """

    name = "stage1"
    key = "tsqa"
    title = "multiple-choice questions about a time series (TSQA)"
    labels = ("(a)", "(b)", "(c)")
    default_question = QUESTIONS["Trend"]
    options = ("task",)
    _takes_question = True

    def _texts(self, question: str | None, task: str | None = None) -> tuple[str, str]:
        if task is None:
            words = (question or self.default_question).casefold()
            task = next((name for hint, name in _HINTS.items() if hint in words), "Trend")
        if question is None:
            task = next((name for name in QUESTIONS if name.casefold() == task.casefold()), task)
            if task not in QUESTIONS:
                known = ", ".join(QUESTIONS)
                raise TSLMError(f"there is no question for the task {task!r}; ask one, or use {known}")
            question = QUESTIONS[task]
        return question, f"Predict the {task} Answer:"

    def _series(self, recordings: Sequence[Recording]) -> list[Series]:
        values = self._only(recordings)[0].astype(np.float32)
        mean, std = torch_mean(values), torch_std(values)
        says = f"This is the time series, it has mean {mean:.4f} and std {std:.4f}."
        return [Series(says, (values - mean) / (std + np.float32(1e-8)))]

    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        series = Recording(numbers(row, "Series"))
        prompt = self.prompt(series, text(row, "Question"), task=str(field(row, "Task")))
        return Sample(prompt, text(row, "Answer").strip())

    def allowed(self, prompt: Prompt) -> Labels:
        """The question's own options and what they say, {"(a)": "no trend", ...}; else "(a)" to "(c)".

        A letter counts where it first stands: "Only answer (a), (b), or (c)" comes after the options.
        """
        options: dict[str, str] = {}
        for letter, words in _OFFERED.findall(prompt.pre):
            options.setdefault(f"({letter.lower()})", words.strip().rstrip("."))
        return options or self.labels

    def parse(self, text: str, labels: Labels | None = None) -> str | None:
        """The option: "(b)" from "(b)", "(b) This time series ...", "b)" or "Answer: B.", and from the option's own
        words where `labels` has them; see `Stage.parse`.
        """
        answer = super().parse(text, labels)
        if answer is None or (labels is not None and answer in labels):
            return answer
        option = _OPTION.search(answer) or _BARE_OPTION.fullmatch(answer)
        return f"({option[1].lower()})" if option else answer
