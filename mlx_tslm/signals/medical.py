"""Recordings in WFDB (PhysioNet) and EDF/BDF files, through the readers of the `formats` extra."""

import re
import warnings
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import content, tables
from mlx_tslm.signals.content import AnyFile
from mlx_tslm.signals.source import Channel, How, Source

_BYTES = {"8": 1, "16": 2, "61": 2, "24": 3, "32": 4, "80": 1, "160": 2, "212": 1.5}


def read_wfdb(path: AnyFile, how: How) -> Source:
    """Signals of a WFDB record in physical units, see `signals.read`. `path` is its `.hea` or `.dat`.

    Signals with several samples a frame keep their own rate: they are never averaged.
    """
    if not isinstance(path, Path):
        if path.suffix.lower() == ".dat" and content.is_text(path):
            return tables.read_text(content.text(path.read_bytes())[0], how)
        raise TSLMError(f"{path} is one of several files of a WFDB record; send the recording as EDF or CSV")
    header = path.with_suffix(".hea")
    if not header.exists():
        if path.suffix.lower() == ".dat" and content.is_text(path):
            source = tables.read_text(content.text(path.read_bytes())[0], how)
            return replace(
                source, notes=(f"there is no {header.name} beside it, so it was read as a table", *source.notes)
            )
        raise TSLMError(f"{path} has no header {header.name} beside it")
    wfdb = reader("wfdb", path)
    base = str(path.with_suffix(""))
    try:
        head = wfdb.rdheader(base)
        _check(head, path)
        several = isinstance(head, wfdb.MultiRecord)
        record = wfdb.rdrecord(base, smooth_frames=several)
    except TSLMError:
        raise
    except FileNotFoundError as error:
        raise TSLMError(f"{path}: the record's file {Path(error.filename or '').name} is missing") from None
    except Exception as error:  # wfdb raises whatever its parser trips over
        raise TSLMError(f"{path} cannot be read as a WFDB record: {_plain(error)}") from None
    signals = record.p_signal.T if several and record.p_signal is not None else record.e_p_signal
    if signals is None or len(signals) == 0 or len(signals[0]) == 0:
        raise TSLMError(f"{path} has no samples")
    frames = [1] * len(signals) if several else record.samps_per_frame
    names = [name or str(at) for at, name in enumerate(record.sig_name or [None] * len(signals))]
    units = [unit or "" for unit in record.units or [""] * len(signals)]
    start = datetime.combine(record.base_date, record.base_time) if record.base_date and record.base_time else None
    channels = [
        Channel(name, np.asarray(values, np.float64), unit, float(record.fs) * per)
        for name, values, unit, per in zip(names, signals, units, frames, strict=True)
    ]
    return Source(channels, start=start)


def _check(head: Any, path: Path) -> None:
    """A record without signals, or whose files are shorter than it says."""
    if not head.n_sig and not getattr(head, "segments", None) and not hasattr(head, "seg_name"):
        raise TSLMError(f"{path} has no signals")
    if hasattr(head, "seg_name"):
        return
    for name in dict.fromkeys(head.file_name or []):
        own = [at for at, other in enumerate(head.file_name) if other == name]
        file = path.parent / name
        size = _BYTES.get(head.fmt[own[0]])
        if size is None or head.sig_len is None or not file.exists():
            continue
        need = int(head.sig_len * size * sum(head.samps_per_frame[at] for at in own)) + (
            head.byte_offset[own[0]] or 0
        )
        if file.stat().st_size < need - 2:
            raise TSLMError(
                f"{path}: {name} is shorter than the header says: {file.stat().st_size} of {need} bytes; "
                "fetch it again"
            )


def _plain(error: Exception) -> str:
    text = str(error)
    inside = not text or re.search(r"NoneType|object|sampto|attribute|index|shape|buffer|zip\(|unpack|dtype", text)
    return "its files are damaged, or do not fit together" if inside else text


@dataclass(frozen=True)
class _Head:
    """An EDF or BDF header, as far as it is read here. Its texts are Latin-1, whatever the standard says."""

    labels: list[str]
    units: list[str]
    flat: list[bool]
    per_record: list[int]
    records: int
    seconds: float
    size: int
    continuous: bool
    start: datetime | None


def read_edf(path: AnyFile, how: How) -> Source:
    """Signals of an EDF or BDF file in physical units, see `signals.read`. Gaps in EDF+D are missing values."""
    edfio = reader("edfio", path)
    kind = path.suffix[1:].upper()
    width = 3 if kind == "BDF" else 2
    data = path.read_bytes()
    try:
        head = _head(data)
    except (ValueError, IndexError):
        raise TSLMError(f"{path} cannot be read as {kind}: its header is damaged") from None
    frame = sum(head.per_record) * width
    whole = (len(data) - head.size) // frame if frame else 0
    notes = []
    if whole < 1:
        raise TSLMError(f"{path} has no signals" if not head.labels else f"{path} has no samples")
    if head.records != whole:
        said = "was not finished" if head.records < 0 else f"states {head.records} records of {head.seconds:g} s"
        if head.records > whole or head.records < 0:
            notes.append(f"the file {said}, and holds {whole} whole ones: it was cut off, or broken off")
        data = (
            data[:236]
            + f"{min(whole, head.records) if head.records > 0 else whole:<8d}".encode()
            + data[244 : head.size + whole * frame]
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = edfio.read_bdf(data) if width == 3 else edfio.read_edf(data)
            signals = list(file.signals)
    except Exception as error:  # edfio raises whatever its parser trips over
        raise TSLMError(f"{path} cannot be read as {kind}: {_plain(error)}") from None
    kept = [at for at, label in enumerate(head.labels) if label not in ("EDF Annotations", "BDF Annotations")]
    if not kept or len(kept) != len(signals):
        raise TSLMError(f"{path} has no signals")
    records = whole if head.records < 0 else min(whole, head.records)
    gaps = [] if head.continuous else _gaps(data, head, width, records)
    channels, left = [], {}
    for at, signal in zip(kept, signals, strict=True):
        label, rate = head.labels[at], head.per_record[at] / head.seconds if head.seconds else None
        if head.flat[at]:
            left[label] = "numbers without a unit: its physical (or digital) minimum equals its maximum"
            notes.append(
                f"left out channel {label!r}: its physical minimum equals its maximum, so its scale is not known"
            )
            continue
        values = np.asarray(signal.data, np.float64)
        for place, missing in reversed(gaps):
            lost = np.full(round(missing * (rate or 1)), np.nan)
            values = np.insert(values, place * head.per_record[at], lost)
        channels.append(Channel(label, values, head.units[at], rate))
    if gaps:
        notes.append(
            f"the recording breaks off {len(gaps)} times (EDF+D), for up to {max(gap for _, gap in gaps):g} s: "
            "missing values stand there"
        )
    if not channels:
        raise TSLMError(f"{path} has no channel with a scale: {notes[-1]}")
    return Source(channels, start=head.start, notes=tuple(notes), left_out=left)


def _head(data: bytes) -> _Head:
    count = int(data[252:256])
    size = int(data[184:192])

    def texts(begin: int, width: int) -> list[str]:
        at = 256 + begin * count
        return [data[at + width * k : at + width * (k + 1)].decode("latin-1").strip(" \0") for k in range(count)]

    def numbers(begin: int) -> list[float]:
        return [float(text.replace(",", ".")) for text in texts(begin, 8)]

    low, high, least, most = numbers(104), numbers(112), numbers(120), numbers(128)
    flat = [a == b or c == d for a, b, c, d in zip(low, high, least, most, strict=True)]
    try:
        start = datetime.strptime(data[168:184].decode("latin-1"), "%d.%m.%y%H.%M.%S")
        start = start.replace(year=start.year - 100) if start.year > 2084 else start
    except ValueError:
        start = None
    return _Head(
        texts(0, 16),
        texts(96, 8),
        flat,
        [int(text) for text in texts(216, 8)],
        int(data[236:244]),
        float(data[244:252].decode("latin-1").replace(",", ".")),
        size,
        not data[192:197].endswith(b"+D"),
        start,
    )


def _gaps(data: bytes, head: _Head, width: int, records: int) -> list[tuple[int, float]]:
    """(record, missing seconds before it) wherever an EDF+D record does not begin where the one before ends."""
    frame = sum(head.per_record) * width
    place = next((at for at, label in enumerate(head.labels) if label.endswith("Annotations")), None)
    if place is None:
        return []
    offset = sum(head.per_record[:place]) * width
    onsets: NDArray[np.float64] = np.zeros(records)
    for record in range(records):
        at = head.size + record * frame + offset
        found = re.match(rb"([+-][\d.]+)", data[at : at + head.per_record[place] * width])
        onsets[record] = float(found[1]) if found else record * head.seconds
    missing = np.diff(onsets) - head.seconds
    return [(int(at) + 1, float(missing[at])) for at in np.flatnonzero(missing > 1e-3)]


def reader(module: str, path: AnyFile, extra: str = "formats") -> ModuleType:
    """A reader of an extra.

    Raises:
        TSLMError: it is not installed (says how).
    """
    try:
        return import_module(module)
    except ImportError:
        raise TSLMError(f'reading {path.suffix} files needs an extra: pip install "mlx-tslm[{extra}]"') from None
