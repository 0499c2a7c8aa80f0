"""Recordings in NumPy files, and in named arrays wherever they come from (NPZ, JSON, MATLAB, HDF5)."""

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.cases import choose_case
from mlx_tslm.signals.column import Column
from mlx_tslm.signals.columns import interpret
from mlx_tslm.signals.content import AnyFile, source_of
from mlx_tslm.signals.dates import Moments, form_of, moments
from mlx_tslm.signals.preamble import Facts
from mlx_tslm.signals.source import Channel, How, Source
from mlx_tslm.signals.timing import SECONDS, is_called_time, words

_RATES = {
    "fs",
    "sr",
    "srate",
    "sfreq",
    "rate",
    "samplerate",
    "samplingrate",
    "samplingfrequency",
    "samplefrequency",
}
_RATES |= {"hz", "freq", "frequency", "fsample", "sampfreq", "fsamp", "samprate", "framerate", "sf"}
_STEPS = {
    "dt",
    "interval",
    "step",
    "samplinginterval",
    "sampleinterval",
    "period",
    "samplingperiod",
    "isi",
    "deltat",
}
_UNITS = {"unit", "units", "physicaldimension", "yunits"}
_NAMES = {
    "names",
    "channels",
    "channelnames",
    "chnames",
    "labels",
    "leads",
    "columns",
    "signame",
    "signames",
    "lead",
    "sensors",
}


def read_npy(path: AnyFile, how: How) -> Source:
    """One array, or the fields of a structured one, see `signals.read`."""
    return from_npy(source_of(path), how)


def from_npy(source: Path | io.BytesIO, how: How) -> Source:
    """The channels of a NumPy file, or of a stream of one."""
    array = _load(source, how)
    if array.dtype.names:
        return named({name: array[name].reshape(-1) for name in array.dtype.names}, how)
    return one(array, how)


def read_npz(path: AnyFile, how: How) -> Source:
    """One array, or a channel from each of several, see `signals.read`."""
    try:
        with zipfile.ZipFile(source_of(path)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise TSLMError(f"{path} is not a NumPy file, or is truncated") from None
    if size > how.max_gb * 1e9:
        raise TSLMError(
            f"{path} unpacks to {size / 1e9:.1f} GB, more than {how.max_gb:g}; --max-gb lifts the limit"
        )
    loaded = _load(source_of(path), how)
    try:
        arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zipfile's, zlib's, NumPy's own
        if "Object arrays" in str(error):
            raise TSLMError(f"{path} holds Python objects, not arrays of numbers; they are not loaded") from None
        raise TSLMError(f"{path} is not a NumPy archive of numbers, or is damaged") from None
    if len(arrays) == 1:
        return one(next(iter(arrays.values())), how)
    return named(arrays, how)


def _load(path: Any, how: How) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except PermissionError:
        raise
    except Exception as error:  # whatever NumPy's parser of headers trips over, tokenize's errors among it
        if "Object arrays" in str(error):
            raise TSLMError("it holds Python objects, not an array of numbers; they are not loaded") from None
        what = path if isinstance(path, Path) else "it"
        if isinstance(error, MemoryError):
            raise TSLMError(f"{what} says that it holds more numbers than fit into memory; it is damaged") from None
        raise TSLMError(f"{what} is not a NumPy file, or is truncated") from None


def one(array: NDArray[Any], how: How, names: Sequence[str] = (), rate: float | None = None) -> Source:
    """The channels of one array: `[T]`, or `[channels, T]` with time the longer axis, or a case of `[cases, …]`.

    Raises:
        SeveralCases: it has three dimensions, and no case was chosen.
        TSLMError: it holds no real numbers, or nothing.
    """
    array = np.asarray(array)
    if array.dtype.kind == "c":
        raise TSLMError("the values are complex; a recording holds real numbers")
    if array.dtype.kind not in "fiub":
        raise TSLMError(f"its values are not numeric, but {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise TSLMError("the recording is empty" if array.ndim else "it holds one number, not a series")
    notes: list[str] = []
    if array.ndim > 2 and 1 in array.shape:
        array = array.reshape([size for size in array.shape if size > 1] or [1])
    if array.ndim == 3:
        cases = [str(at) for at in range(len(array))]
        shape = " x ".join(map(str, array.shape))
        array = array[int(choose_case(f"its shape is {shape}, so it may hold {len(array)} cases", cases, how.case))]
    elif array.ndim == 2 and how.case is not None:
        array = array[int(choose_case("it holds cases", [str(at) for at in range(len(array))], how.case))]
    elif array.ndim > 3:
        raise TSLMError(f"a recording is [T] or [channels, T], but the shape given is {list(array.shape)}")
    rows = channels_first(array)
    if array.ndim == 2 and min(array.shape) > 64:
        notes.append(
            f"the shape {array.shape[0]} x {array.shape[1]} was taken for {len(rows)} channels; "
            "if it holds cases, --case N takes one"
        )
    names = list(names) if len(names) == len(rows) else [str(at) for at in range(len(rows))]
    for row, name in zip(rows, names, strict=True):
        if note := _resolution(row, name):
            notes.append(note)
    return Source(
        [Channel(name, row.astype(np.float64), rate=rate) for name, row in zip(names, rows, strict=True)],
        notes=tuple(notes),
    )


def channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """`[channels, T]` from `[T]` or a two-dimensional array: its longer axis is time."""
    if array.ndim == 1:
        return array[None]
    return array.T if array.shape[0] > array.shape[1] else array


def named(entries: Mapping[str, Any], how: How, facts: Facts | None = None) -> Source:
    """The channels of named arrays. Rates, units, names and times among them are told by their names.

    Args:
        entries: name → array `[T]` or `[channels, T]`, number, text or list of texts.

    Raises:
        TSLMError: there is no array, or there are several that don't belong together (says how to choose).
    """
    stated = facts or Facts()
    held: dict[str, NDArray[Any]] = {}
    texts: dict[str, str] = {}
    for name, value in entries.items():
        key = "".join(words(re.split(r"[./]", name)[-1]))
        array = np.asarray(value) if not isinstance(value, np.ndarray) else value
        if array.dtype.kind in "fiu" and array.size == 1 and key in _RATES | _STEPS:
            number = float(array.reshape(-1)[0])
            unit = next((word for word in words(name)[1:] if word in SECONDS), "s")
            if number > 0:
                stated.rates.append(number if key in _RATES else round(1 / (number * SECONDS[unit]), 9))
        elif array.dtype.kind in "US" and key in _UNITS:
            stated.units = [str(text) for text in array.reshape(-1)]
        elif array.dtype.kind in "US" and array.ndim == 1 and key in _NAMES:
            stated.names = [str(text) for text in array]
        elif (array.dtype.kind in "fiubM" and array.size > 1) or (array.dtype.kind in "fiub" and array.ndim == 1):
            held[name] = array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
        elif (
            array.dtype.kind in "US" and array.ndim == 1 and len(array) and all(map(form_of, map(str, array[:50])))
        ):
            held[name] = array
        else:
            texts[name] = f"{str(value)[:30]!r}" if array.size == 1 else f"an array of {array.dtype}"
    if not held:
        listed = "; ".join(f"{name!r} is {what}" for name, what in list(texts.items())[:4])
        raise TSLMError(f"there is no array of numbers{': ' + listed if listed else ''}")
    flat = {name: array for name, array in held.items() if array.ndim == 1}
    blocks = {name: array for name, array in held.items() if array.ndim > 1}
    return _joined(flat, blocks, stated, texts, how)


def _joined(
    flat: dict[str, NDArray[Any]], blocks: dict[str, NDArray[Any]], stated: Facts, texts: dict[str, str], how: How
) -> Source:
    """One source from arrays that may have several lengths and shapes."""
    rate = stated.rates[0] if len(set(stated.rates)) == 1 else None
    if blocks and any(array.ndim > 2 for array in blocks.values()):
        listed = ", ".join(f"{name} {list(array.shape)}" for name, array in blocks.items())
        if len(blocks) > 1:
            raise TSLMError(f"there are several arrays ({listed}); keep the one that is meant in a file of its own")
        return one(next(iter(blocks.values())), how, stated.names, rate)
    channels: list[Channel] = []
    groups: dict[str, Sequence[str]] = {}
    for name, block in blocks.items():
        rows = channels_first(block)
        own = stated.names if len(stated.names) == len(rows) else [str(at) for at in range(len(rows))]
        labels = [f"{name}/{label}" for label in own] if len(blocks) > 1 or flat else list(own)
        labels = list(own) if len(blocks) == 1 and not set(own) & set(flat) else labels
        units = (
            stated.units
            if len(stated.units) == len(rows)
            else stated.units * len(rows)
            if len(stated.units) == 1
            else [""] * len(rows)
        )
        channels += [
            Channel(label, row.astype(np.float64), unit, rate)
            for label, row, unit in zip(labels, rows, units, strict=True)
        ]
        groups[name] = labels
    if not flat:
        return Source(channels, notes=_said(texts), groups=groups)
    lengths = {len(array) for array in flat.values()}
    if blocks:
        whole = {len(channel.values) for channel in channels}
        fitting = {name: array for name, array in flat.items() if len(array) in whole}
        times = {name: array for name, array in fitting.items() if is_called_time(name) or name in ("t", "s")}
        if times and len(whole) == 1:
            source = interpret(
                [*_columns(times), *(Column(c.name, c.name, c.unit, c.values) for c in channels)],
                None,
                Facts(stated.rates),
                [],
                how,
                True,
            )
            return replace(source, groups=groups)
        extra = [
            Channel(name, array.astype(np.float64), rate=rate)
            for name, array in flat.items()
            if array.dtype.kind in "fiub"
        ]
        return Source(
            channels,
            others=extra,
            notes=(
                *_said(texts),
                f"left out {', '.join(map(repr, flat))} beside the array {', '.join(map(repr, blocks))}",
            ),
            groups=groups,
        )
    if len(lengths) == 1:
        source = interpret(_columns(flat), None, stated, [], how, True)
        return replace(source, notes=(*_said(texts), *source.notes))
    loose = [
        Channel(name, array.astype(np.float64), rate=rate)
        for name, array in flat.items()
        if array.dtype.kind in "fiub"
    ]
    return Source(loose, notes=_said(texts))


def _columns(arrays: Mapping[str, NDArray[Any]]) -> list[Column]:
    columns = []
    for name, array in arrays.items():
        if array.dtype.kind == "M":
            seconds = array.astype("datetime64[us]").astype(np.int64) / 1e6
            seconds = np.where(np.isnat(array), np.nan, seconds)
            at = Moments(seconds, dates_only=bool((seconds % 86400 == 0).all()))
            columns.append(Column(name, name, moments=at, text=[str(one) for one in array]))
        elif array.dtype.kind in "US":
            cells = [str(one) for one in array]
            columns.append(Column(name, name, moments=moments(cells), text=cells))
        else:
            note = _resolution(array, name)
            columns.append(Column(name, name, values=array.astype(np.float64), notes=(note,) if note else ()))
    return columns


def _said(texts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"left out {name!r}: it is {what}" for name, what in texts.items() if not name.startswith("__"))


def _resolution(row: NDArray[Any], name: str) -> str:
    """A note where a file's own numbers are too coarse for what changes in them (1e9 + 0.001 sin in float32)."""
    if row.dtype.kind == "f" and row.dtype.itemsize < 8 and len(row) > 1 and np.isfinite(row).all():
        span, grain = float(np.ptp(row.astype(np.float64))), float(np.spacing(np.abs(row).max()))
        if grain > 0.01 * span and np.abs(row).max() > 0 and (span > 0 or grain > 1e-3):
            return (
                f"channel {name!r}: the file's own numbers ({row.dtype}) are {grain:g} apart, too coarse for what "
                "changes in them"
            )
    if row.dtype.kind in "iu" and row.dtype.itemsize == 8 and len(row):
        top = max(abs(int(row.max())), abs(int(row.min())))
        if top > 2**53:
            return f"channel {name!r}: its whole numbers go beyond 2^53, so their last digits are lost"
    return ""
