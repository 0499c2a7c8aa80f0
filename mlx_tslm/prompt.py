"""A prompt: pieces of text with time series between them, in order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlx_tslm.errors import TSLMError


@dataclass(frozen=True, eq=False)
class Series:
    """One time series and the text that goes before it.

    Args:
        text: what is said of the series, as the model was trained to read it. May be empty.
        values: the samples, exactly as the encoder gets them (normalised already): float32 `[T]`.
            Anything NumPy can turn into a one-dimensional array of finite numbers is taken.

    Raises:
        TSLMError: the values are empty, not numeric, not one-dimensional, NaN or infinite (says where).
    """

    text: str
    values: NDArray[np.float32]

    def __init__(self, text: str, values: ArrayLike) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "values", check_series(values).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Prompt:
    """`pre`, then each series' text and its patches, then `post`. Each text piece is tokenized on its own."""

    pre: str = ""
    series: Sequence[Series] = field(default_factory=tuple)
    post: str = ""


def check_series(values: ArrayLike, name: str = "series") -> NDArray[np.float64]:
    """Return `values` as float64 `[T]`, or say what is wrong with them and where.

    Raises:
        TSLMError: empty, not one-dimensional, not numeric, NaN or infinite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TSLMError(f"{name} is not numeric: {_first_non_number(values)}") from None
    if array.ndim != 1:
        raise TSLMError(
            f"{name} must have one dimension, but its shape is {list(array.shape)}; pass one channel a series"
        )
    if array.size == 0:
        raise TSLMError(f"{name} is empty")
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise TSLMError(f"{name} has {array[where]} at sample {where}; fill or cut out missing values first")
    if np.abs(array).max() > np.finfo(np.float32).max:
        where = int(np.abs(array).argmax())
        raise TSLMError(f"{name} has {array[where]} at sample {where}, beyond what float32 holds; rescale it first")
    return array


def _first_non_number(values: ArrayLike) -> str:
    if isinstance(values, Sequence) and not isinstance(values, str):
        for where, value in enumerate(values):
            try:
                float(value)
            except (TypeError, ValueError):
                return f"{value!r} at sample {where}"
    return repr(values)[:60]
