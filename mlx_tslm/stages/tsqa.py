"""Stage 1, TSQA: multiple-choice questions about one series.

The data set (`ChengsenWang/TSQA`, from ChatTime, Wang et al., AAAI 2025, arXiv:2412.11376, appendices A and B)
has 48,000 synthetic series of 64, 128, 256 or 512 samples. Columns: Task, Size, Question, Answer, Label, Series.
Task is one word ("Trend", "Volatility", "Season", "Outlier"), with one fixed question each (`QUESTIONS`): two or
three definitions, then the options (a), (b), (c) on lines of their own, always in the same order. Answer is the
option alone, "(b)", without a rationale; Label says it in words ("upward trend"). The published evaluation
compares the first three characters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.stages.answers import Labels
from mlx_tslm.stages.asked import Assumed, choice, whether
from mlx_tslm.stages.base import Stage


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

# Restating the mean, which the prompt gives away, counts little.
GENERAL_CLAIMS = {
    **{"trend": 1.0, "turn": 1.0, "season": 1.0, "period": 1.0, "noise": 0.5, "volatility": 1.0, "outlier": 0.5},
    **{"change": 0.5, "mean": 0.1, "min": 0.25, "max": 0.25, "min_at": 0.25, "max_at": 0.25},
}
"""What can be said of any series, and how much each kind counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _TSQA(Stage):
    """The last words name the task, and the options stand in the question."""

    def texts(
        self,
        question: str | None,
        answers: Sequence[str] | None = None,
        task: str | None = None,
        **options: Any,
    ) -> tuple[str, str, Labels | None]:
        if task is None:
            words = (question or self.default_question).casefold()
            task = next((name for hint, name in _HINTS.items() if hint in words), "Trend")
        if question is None:
            task = next((name for name in QUESTIONS if name.casefold() == task.casefold()), task)
            if task not in QUESTIONS:
                known = ", ".join(QUESTIONS)
                raise TSLMError(f"there is no question for the task {task!r}; ask one, or use {known}")
            question = QUESTIONS[task]
        if answers:
            if _OFFERED.search(question):
                raise TSLMError("the question offers its answers itself, so it can't be given others")
            if len(answers) > len(ascii_lowercase):
                raise TSLMError(
                    f"{self.name} offers answers by letter, so {len(answers)} are too many; give up to 26"
                )
            offered = zip(ascii_lowercase, answers, strict=False)
            question = "\n".join((question, *(f"({letter}) {answer}" for letter, answer in offered)))
        return question, self.post.format(task=task), self.offered(question)

    def assume(self, question: str) -> Assumed | None:
        if _OFFERED.search(question):
            return None
        offered = choice(question) or (("yes", "no") if whether(question) else None)
        return Assumed(offered, "which offers answers by letter") if offered else None

    def offered(self, question: str) -> Labels | None:
        """The question's own options and what they say, {"(a)": "no trend", ...}; else "(a)" to "(c)".

        A letter counts where it first stands: "Only answer (a), (b), or (c)" comes after the options.
        """
        options: dict[str, str] = {}
        for letter, words in _OFFERED.findall(question):
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


TSQA = _TSQA(
    name="stage1",
    key="tsqa",
    title="multiple-choice questions about a time series (TSQA)",
    pre="{question}",
    post="Predict the {task} Answer:",
    series_text="This is the time series, it has mean {mean} and std {std}.",
    default_question=QUESTIONS["Trend"],
    normalise="unbiased-epsilon",
    labels=("(a)", "(b)", "(c)"),
    options=("task", "answers"),
    rewards={"format": 0.5, "grounding": 0.5, "spectral": 0.05, "coherence": 0.05},
    claims=GENERAL_CLAIMS,
    published="tsqa",
    series_columns=("Series",),
    answer_column="Answer",
    question_column="Question",
    option_columns={"task": "Task"},
)
"""The question goes before the series; the last words name the task: "Predict the Trend Answer:".

Options of `prompt`: `task`, the Task column's word. Where it is not given it follows from the question (its
words volatility, season, outlier, spike or shift; else "Trend"). Where only the task is given, the data
set's question for it is asked. `answers` are offered by letter behind a question that offers none.
"""
