"""The questions of a data set, made when they are asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlx_tslm.data.fingerprint import Rows
from mlx_tslm.errors import TSLMError
from mlx_tslm.stages import Sample
from mlx_tslm.stages.ablation import ablated
from mlx_tslm.stages.base import Question


@dataclass(frozen=True)
class Item:
    """One sample, as it is put to the model.

    Attributes:
        index: its number in the data set.
        question: what the model gets, series changed where they are ablated.
        reference: the reference text.
        gold: its final answer.
        group: what its figures are grouped with (the ECG-QA template), or None.
        origin: of a table's row, its number, recording and case; else None.
    """

    index: int
    question: Question
    reference: str
    gold: str
    group: int | None
    origin: dict[str, Any] | None = None


def items(rows: Rows, indices: Iterable[int], ablate: str | None = None) -> Iterator[Item]:
    """The questions of these rows; rows that cannot be read are passed over (the data set counts them).

    Raises:
        TSLMError: a row makes no question.
    """
    for index in indices:
        row = rows.get(index)
        if row is None:
            continue
        question, reference = _sample(rows, row, index)
        gold = question.parse(reference) or ""
        group = int(row[rows.stage.group]) if rows.stage.group else None
        if ablate is not None:
            other = _partner(rows, index).prompt if ablate == "swap" else None
            question = ablated(question, ablate, index, other)
        yield Item(index, question, reference, gold, group, row.get("from"))


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
