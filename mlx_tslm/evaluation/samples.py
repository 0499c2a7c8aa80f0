"""The questions of a data set, made when they are asked."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation.ablation import ablated
from mlx_tslm.prompt import Prompt
from mlx_tslm.stages import Labels, Sample, Stage


class Rows(Protocol):
    """What is asked of a data set; see `mlx_tslm.data.Dataset`."""

    stage: Stage
    split: Any
    malformed: list[Any]

    def __len__(self) -> int: ...

    def get(self, index: int) -> dict[str, Any] | None:
        """The row of this number, or None where it cannot be read, which is reported there."""


@dataclass(frozen=True)
class Question:
    """One sample, as it is put to the model.

    Attributes:
        index: its number in the data set.
        prompt: what the model gets, series changed where they are ablated.
        reference: the reference text.
        gold: its final answer.
        labels: the answers that the prompt allows, with their meaning where it is multiple choice, or None.
        group: the ECG-QA template, or None.
    """

    index: int
    prompt: Prompt
    reference: str
    gold: str
    labels: Labels | None
    group: int | None


def questions(rows: Rows, indices: Iterable[int], ablate: str | None = None) -> Iterator[Question]:
    """The questions of these rows; rows that cannot be read are passed over (the data set counts them).

    Raises:
        TSLMError: a row makes no prompt.
    """
    for index in indices:
        row = rows.get(index)
        if row is None:
            continue
        sample = _sample(rows, row, index)
        labels, group = rows.stage.allowed(sample.prompt), None
        if rows.stage.key == "ecg":
            from mlx_tslm.stages.ecg import ECG

            group = int(row["template_id"])
            labels = row["answers"] if "answers" in row else ECG.answers(group)
        prompt = sample.prompt
        if ablate is not None:
            other = _partner(rows, index).prompt if ablate == "swap" else None
            prompt = ablated(prompt, ablate, index, other)
        gold = rows.stage.parse(sample.answer, labels) or ""
        yield Question(index, prompt, sample.answer, gold, labels, group)


def fingerprint(rows: Rows) -> str:
    """A digest of the first question, by which other data are told.

    Raises:
        TSLMError: there is no row that can be read.
    """
    question = next(questions(rows, range(len(rows))), None)
    if question is None:
        raise TSLMError(f"the {rows.split} split of {rows.stage.name} has no sample to evaluate on")
    digest = hashlib.sha256(question.reference.encode())
    for text in (question.prompt.pre, question.prompt.post):
        digest.update(text.encode())
    for series in question.prompt.series:
        digest.update(series.text.encode() + series.values.tobytes())
    return digest.hexdigest()[:16]


def _partner(rows: Rows, index: int) -> Sample:
    """The sample half the data set away, or the next one that can be read."""
    for step in range(1, len(rows)):
        other = (index + len(rows) // 2 + step - 1) % len(rows)
        row = rows.get(other) if other != index else None
        if row is not None:
            return _sample(rows, row, other)
    raise TSLMError("there is only one sample, so there is no other one to swap its series with")


def _sample(rows: Rows, row: dict[str, Any], index: int) -> Sample:
    try:
        return rows.stage.from_row(row)
    except TSLMError as error:
        raise TSLMError(f"sample {index} of {rows.stage.name}, {rows.split}: {error}") from None
