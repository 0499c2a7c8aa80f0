"""Recordings from what people have in Python: lists, arrays and frames of any of the usual libraries.

None of the libraries is imported here: an object is known by the module that its class comes from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.dates import Moments
from mlx_tslm.signals.recording import Recording
from mlx_tslm.signals.timing import from_moments

_TENSORS = ("torch", "mlx", "jax", "tensorflow", "cupy")


def recordings(given: Any) -> list[Recording]:
    """The recordings in what `Stage.prompt` takes.

    Args:
        given: a recording, `[T]` or `[channels, T]` as a list or an array of NumPy, MLX or PyTorch; a pandas or
            polars Series; a frame, whose columns are channels; a mapping from names to channels; a list of channels
            `[T]`, which is one recording; or a list of recordings, frames or arrays `[channels, T]`.

    Raises:
        TSLMError: it is none of these, or holds no numbers.
    """
    if isinstance(given, list | tuple) and given and all(map(_is_whole, given)):
        return [recording(one) for one in given]
    return [recording(given)]


def recording(given: Any) -> Recording:
    """One recording; see `recordings`. A DatetimeIndex, or a column of dates, gives rate and start."""
    if isinstance(given, Recording):
        return given
    if isinstance(given, list | tuple) and given and all(_library(one) in ("pandas", "polars") for one in given):
        return _of_columns([(str(one.name or at), one) for at, one in enumerate(given)], given[0])
    if isinstance(given, list | tuple):
        return Recording([plain(one) for one in given])
    if _library(given) in ("pandas", "polars"):
        if not hasattr(given, "columns"):
            return _of_columns([("0" if given.name in (None, "") else str(given.name), given)], given)
        named = [("/".join(map(str, name)) if isinstance(name, tuple) else str(name)) for name in given.columns]
        polars = _library(given) == "polars"
        series = [given.to_series(at) if polars else given.iloc[:, at] for at in range(len(named))]
        return _of_columns(list(zip(named, series, strict=True)), given)
    if isinstance(given, Mapping):
        return _of_columns([(str(name), one) for name, one in given.items()], None)
    return Recording(plain(given))


def plain(values: Any) -> Any:
    """An array of another library as NumPy's, whatever device or precision it has; all else as it is."""
    library = _library(values)
    if library in _TENSORS and hasattr(values, "dtype"):
        for step in ("detach", "cpu"):
            values = getattr(values, step)() if hasattr(values, step) else values
        if "bfloat16" in str(values.dtype):  # which NumPy has not
            values = values.float() if library == "torch" else values.astype(_float32(library))
        return np.asarray(values)
    if library == "pandas" and hasattr(values, "to_numpy"):
        return _numbers(values)
    return values.to_numpy() if library == "polars" else values


def _of_columns(columns: Sequence[tuple[str, Any]], frame: Any) -> Recording:
    """The columns that hold numbers as channels; what the index or a column of dates says of time."""
    index = frame.index if _library(frame) == "pandas" else None
    at, dated = _moments(index), _is_dated(index)
    channels: dict[str, Any] = {}
    notes = []
    for name, values in columns:
        if (moments := _moments(values)) is not None:
            at, dated = (moments, _is_dated(values)) if at is None else (at, dated)
        elif _library(values) in ("pandas", "polars") and not _is_numeric(values):
            notes.append(f"left out column {name!r}: it holds no numbers")
        else:
            channels[name] = plain(values)
    if not channels:
        raise TSLMError(f"there is no column of numbers; the columns are {', '.join(name for name, _ in columns)}")
    values = list(channels.values())
    if at is None:
        return Recording(values, list(channels), notes=notes)
    timing = from_moments("of times", Moments(at.astype(np.float64) / 1e9))
    times = None if timing.even or timing.seconds is None or timing.order == 0 else timing.seconds
    if timing.order < 0:
        values = [np.asarray(row)[::-1] for row in values]
        times = None if times is None else times[::-1]
        notes.append("the newest sample came first: turned round")
    return Recording(
        values,
        list(channels),
        timing.rate,
        notes=[*notes, *timing.notes],
        start=timing.start if dated else None,
        times=None if times is None else times - times[0],
    )


def _moments(values: Any) -> NDArray[np.int64] | None:
    """Nanoseconds since 1970 (or since the beginning, of durations), or None where these are no times."""
    kind = str(getattr(values, "dtype", "")).lower()
    if kind.startswith("period"):
        values, kind = values.to_timestamp(), "datetime"
    if not kind.startswith(("datetime", "timedelta", "duration")):
        return None
    if getattr(values, "tz", None) is not None:
        values = values.tz_localize(None)
    array = np.asarray(values.to_numpy())
    if array.dtype.kind not in "mM":  # with zones, pandas gives objects
        array = values.dt.tz_localize(None).to_numpy()
    return array.astype(f"{array.dtype.kind}8[ns]").astype(np.int64)


def _is_dated(values: Any) -> bool:
    """Whether times are moments, and no durations."""
    return str(getattr(values, "dtype", "")).lower().startswith(("datetime", "period"))


def _numbers(values: Any) -> NDArray[np.float64]:
    """A pandas Series or frame as float64; what is missing is NaN."""
    try:
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        return np.asarray(values.to_numpy())


def _is_numeric(values: Any) -> bool:
    if _library(values) == "polars":
        return bool(values.dtype.is_numeric()) or str(values.dtype) == "Boolean"
    return _numbers(values).dtype.kind in "fiub"


def _is_whole(one: Any) -> bool:
    """Whether an item of a list is a recording by itself, and no channel."""
    return isinstance(one, Recording | Mapping) or hasattr(one, "columns") or getattr(one, "ndim", 1) == 2


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _float32(library: str) -> Any:
    if library == "mlx":
        import mlx.core as mx

        return mx.float32
    return "float32"
