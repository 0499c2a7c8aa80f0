"""What tells one data set from another, and what is asked of one."""

import hashlib
from typing import Any, Protocol

from mlx_tslm.errors import TSLMError
from mlx_tslm.stages import Stage


class Rows(Protocol):
    """What is asked of a data set; see `mlx_tslm.data.Dataset`."""

    stage: Stage
    split: Any
    malformed: list[Any]

    def __len__(self) -> int: ...

    def get(self, index: int) -> dict[str, Any] | None:
        """The row of this number, or None where it cannot be read, which is reported there."""


def fingerprint(rows: Rows) -> str:
    """A digest of the first sample that can be read, by which other data are told.

    Raises:
        TSLMError: there is none.
    """
    row = next((row for index in range(len(rows)) if (row := rows.get(index)) is not None), None)
    if row is None:
        raise TSLMError(f"the {rows.split} split of {rows.stage.name} has no sample to evaluate on")
    question, reference = rows.stage.from_row(row)
    digest = hashlib.sha256(reference.encode())
    for text in (question.pre, question.post):
        digest.update(text.encode())
    for series in question.series:
        digest.update(series.text.encode() + series.values.tobytes())
    return digest.hexdigest()[:16]
