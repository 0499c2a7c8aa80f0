"""A time series as a model is given it, with what is known of the recording it came from."""

from collections.abc import Sequence
from dataclasses import dataclass

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
        raw: the same samples in their own units, float64 `[T]`; None where only `values` are known.
        name: of the channel, for people.
        unit: of `raw`, such as "mV"; "" where not known.
        rate: samples a second (Hz), or None where it is not known.

    Raises:
        TSLMError: the values are empty, not numeric, not one-dimensional, NaN or infinite (says where), or
            `raw` has another length.
    """

    text: str
    values: NDArray[np.float32]
    raw: NDArray[np.float64] | None
    name: str
    unit: str
    rate: float | None

    def __init__(
        self,
        text: str,
        values: ArrayLike,
        raw: ArrayLike | None = None,
        name: str = "",
        unit: str = "",
        rate: float | None = None,
    ) -> None:
        checked = check_series(values).astype(np.float32)
        known = None if raw is None else check_series(raw, f"series {name!r}" if name else "series")
        if known is not None and len(known) != len(checked):
            raise TSLMError(f"a series has {len(checked)} values, but {len(known)} in its own units")
        fields = {"text": text, "values": checked, "raw": known, "name": name, "unit": unit, "rate": rate}
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        rate = f" at {self.rate:g} Hz" if self.rate else ""
        return f"<Series {self.name or 'without a name'}: {len(self.values)} samples{rate}>"


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
