"""Columns of a data set's rows."""

import ast
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError


def field(row: Mapping[str, Any], column: str) -> Any:
    """A column of a row, or a TSLMError that names it."""
    value = row.get(column)
    if value is None:
        raise TSLMError(f"the row has no column {column!r}; it has {', '.join(map(str, row))}")
    return value


def text(row: Mapping[str, Any], column: str) -> str:
    """A column that holds text, as it stands."""
    value = field(row, column)
    if not isinstance(value, str) or not value.strip():
        raise TSLMError(f"column {column!r} holds {value!r} where text is needed")
    return value


def numbers(row: Mapping[str, Any], column: str) -> NDArray[np.float32]:
    """A column that holds a list of numbers, or its text: float32 `[T]`, `[[...]]` of one list unwrapped."""
    value = field(row, column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value.strip())  # "[1., .5]" is Python, but not JSON
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise TSLMError(f"column {column!r} is not a list of numbers: {value[:40]!r}") from None
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise TSLMError(f"column {column!r} is not a list of numbers: {str(value)[:40]!r}") from None
    return array[0] if array.ndim == 2 and len(array) == 1 else array
