"""Recordings in NumPy and JSON files."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.recording import Recording, find_channel
from mlx_tslm.signals.tables import from_columns


def read_npy(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """One array, see `signals.read`."""
    return _select(Recording(_channels_first(_load(path))), channels)


def read_npz(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """One array, or a channel from each of several, see `signals.read`."""
    archive = _load(path)
    try:
        arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise TSLMError(f"{path} is not a NumPy archive of numbers: {error}") from None
    if len(arrays) == 1:
        return _select(Recording(_channels_first(next(iter(arrays.values())))), channels)
    return _from_named(arrays, channels)


def read_json(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """A list, a list of lists, or an object of name → list, see `signals.read`."""
    data = _parse(path.read_bytes(), path)
    if isinstance(data, dict):
        return _from_named(data, channels)
    return _select(Recording(_channels_first(_array(data))), channels)


def read_jsonl(path: Path, channels: Sequence[str | int] | None) -> Recording:
    """A number, a list or an object of name → number a line, see `signals.read`."""
    lines = [(at, line) for at, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()]
    rows = [_parse(line, path, at) for at, line in lines]
    if not rows:
        raise TSLMError(f"{path} is empty")
    if not isinstance(rows[0], dict):
        return _select(Recording(_channels_first(_array(rows))), channels)
    header = list(rows[0])
    for (at, _), row in zip(lines, rows, strict=True):
        if not isinstance(row, dict) or set(row) != set(header):
            raise TSLMError(f"{path}: line {at} has not the names of the first line: {', '.join(header)}")
    columns = [["" if row[name] is None else str(row[name]) for row in rows] for name in header]
    return from_columns(header, columns, channels, rows=[at for at, _ in lines])


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error):
            raise TSLMError(f"{path} holds Python objects, not an array of numbers; they are not loaded") from None
        raise TSLMError(f"{path} is not a NumPy file, or is truncated") from None


def _parse(data: bytes, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        where = f"line {line}" if line is not None else f"line {getattr(error, 'lineno', 1)}"
        raise TSLMError(f"{path}: {where} is not JSON: {error}") from None


def _array(data: Any) -> NDArray[Any]:
    if not isinstance(data, list) or not data:
        raise TSLMError("there is no list of numbers" if data != [] else "the list is empty")
    try:
        array = np.asarray(data)
    except ValueError:
        raise TSLMError("the lists have different lengths") from None
    if array.dtype.kind not in "fiub":
        flat = [value for row in data for value in (row if isinstance(row, list) else [row])]
        at = next((at for at, value in enumerate(flat) if not _is_real(value)), 0)
        raise TSLMError(f"value {at} is {flat[at]!r}, not a number")
    return array


def _is_real(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """`[channels, T]` from a two-dimensional array: its longer axis is time."""
    return array.T if array.ndim == 2 and array.shape[0] > array.shape[1] else array


def _from_named(named: Mapping[str, Any], channels: Sequence[str | int] | None) -> Recording:
    """A channel from each name. Only the chosen ones are looked at."""
    names = list(named)
    if channels is not None:
        names = [names[find_channel(channel, names)] for channel in channels]
    if not names:
        raise TSLMError("no channel was chosen" if named else "there is no channel")
    rows = []
    for name in names:
        try:
            row = named[name] if isinstance(named[name], np.ndarray) else _array(named[name])
        except TSLMError as error:
            raise TSLMError(f"channel {name!r}: {error}") from None
        if row.ndim != 1 or row.dtype.kind not in "fiub":
            raise TSLMError(f"{name!r} is not a list of numbers; choose the channels among {', '.join(named)}")
        rows.append(row)
    if len({len(row) for row in rows}) > 1:
        lengths = ", ".join(f"{name}: {len(row)}" for name, row in zip(names, rows, strict=True))
        raise TSLMError(f"the channels have different lengths ({lengths}); choose some")
    return Recording(np.stack(rows), tuple(names))


def _select(recording: Recording, channels: Sequence[str | int] | None) -> Recording:
    return recording if channels is None else recording.select(channels)
