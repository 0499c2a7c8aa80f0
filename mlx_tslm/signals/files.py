"""Reading a recording from a file: the one place that knows which file type is read by whom."""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import arrays, containers, content, jsons, medical, tables
from mlx_tslm.signals.cases import choose_case
from mlx_tslm.signals.content import AnyFile, Held
from mlx_tslm.signals.fill import fill as fill_in
from mlx_tslm.signals.recording import Recording, check_rate
from mlx_tslm.signals.source import How, SeveralCases, Source, cut, finish, one_rate

Reader = Callable[[Any, How], Source]


def _read_table(path: AnyFile, how: How) -> Source:
    return _read_bytes(path.read_bytes(), how)


def _read_bytes(data: bytes, how: How) -> Source:
    """Text whose kind its content tells: JSON, JSON lines or a table."""
    data = content.unpacked(data, how.max_gb)
    if data.startswith(b"\x93NUMPY"):
        return arrays.from_npy(io.BytesIO(data), how)
    text, notes = content.text(data)
    source = (
        jsons.read_text(text, how)
        if text.lstrip()[:1] in ("{", "[") and not text.lstrip().startswith("[[:")
        else None
    )
    source = source or tables.read_text(text, how)
    return replace(source, notes=(*notes, *source.notes))


FILE_TYPES: dict[str, Reader] = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".txt": _read_table,
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".json": jsons.read_json,
    ".jsonl": jsons.read_json,
    ".ndjson": jsons.read_json,
    ".hea": medical.read_wfdb,
    ".dat": medical.read_wfdb,
    ".edf": medical.read_edf,
    ".bdf": medical.read_edf,
    ".mat": containers.read_mat,
    ".wav": containers.read_wav,
    ".parquet": containers.read_parquet,
    ".xlsx": containers.read_excel,
    ".xls": containers.read_excel,
    ".ods": containers.read_excel,
    ".h5": containers.read_hdf5,
    ".hdf5": containers.read_hdf5,
    ".fit": containers.read_fit,
    ".ts": containers.read_ts,
    ".arff": containers.read_arff,
}


def read(
    path: str | AnyFile,
    channels: Sequence[str | int] | None = None,
    rate: float | None = None,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    fill: str | None = None,
    how: How | None = None,
    usual_rate: float | None = None,
) -> Recording:
    """Read a recording, or a part of one.

    | file | what becomes a channel |
    |---|---|
    | CSV, TSV, TXT, XLSX, XLS, ODS, PARQUET, FIT | each column of numbers but times and counters |
    | NPY, NPZ, MAT, H5, HDF5 | a one-dimensional array; of a two-dimensional one **the longer axis is time** |
    | JSON, JSONL | a list, a list of lists, an object of name → list, records, or what pandas writes |
    | WFDB | each signal of a record: its `.hea`, its `.dat`, or the record's name; needs `mlx-tslm[formats]` |
    | EDF, BDF | each signal; needs `mlx-tslm[formats]` |
    | WAV | each channel of the sound, as the numbers that are stored |
    | TS, ARFF | a case of a time series archive, its dimensions |

    A table is found below whatever stands above it, and its delimiter, decimal mark, names, units and times are
    told from the table itself; `.gz` is unpacked; `-` is standard input. What was left out, reversed or judged
    is in `notes`. Where two readings are possible, none is taken. A square array is `[channels, T]`. Nothing
    pickled is read.

    Args:
        path: the file, or the name of a WFDB record (no extension); or one that is `content.Held` in memory.
        channels: which, by name or number from 0, in the wanted order; None takes all.
        rate: the sampling rate in Hz of a file that does not state one.
        start: where the part begins, see `window`.
        seconds: how long the part is; None takes all that is left. Only the part has to be without gaps.
        fill: how missing values are filled in, see `fill.fill`; None refuses them.
        how: what the file does not say itself.
        usual_rate: the sampling rate in Hz where nothing else states one.

    Raises:
        SeveralCases: the file holds several series, and `how` chooses none.
        TSLMError: no such file, a folder, an unknown file type (lists the known ones), a missing extra, an
            unknown channel (lists the names), a missing, non-numeric or infinite value (says where), an
            empty or damaged file, a table that can be read in two ways, a `rate` that contradicts the file's own.
    """
    path = path if isinstance(path, Held) else Path(path)
    return part(open_source(path, how), path, channels, rate, start, seconds, fill, usual_rate)


def open_source(path: AnyFile, how: How | None = None) -> Source:
    """All that a file holds, to take parts of; see `read`."""
    with _naming(path):
        return _source(path, how or How())


def part(
    source: Source,
    path: AnyFile,
    channels: Sequence[str | int] | None = None,
    rate: float | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    fill: str | None = None,
    usual_rate: float | None = None,
) -> Recording:
    """A part of what a file holds, see `read`."""
    with _naming(path):
        source = source.select(channels)
        if rate is not None:
            source = _at_rate(source, check_rate(rate), path)
        elif usual_rate is not None and source.times is None and source.channels[0].rate is None:
            source = _at_rate(source, check_rate(usual_rate), path)
        source = cut(one_rate(source), start, seconds)
        return finish(fill_in(source, fill) if fill else source)


@contextmanager
def _naming(path: AnyFile) -> Iterator[None]:
    """Errors that name the file, whatever they are of."""
    try:
        yield
    except SeveralCases as error:
        raise SeveralCases(f"{path}: {error.problem}", error.cases) from None
    except TSLMError as error:
        if str(path) in str(error):
            raise
        raise TSLMError(f"{path}: {error}") from None
    except OSError as error:
        raise TSLMError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise TSLMError(f"{path} does not fit into memory") from None


def cases(path: str | Path, how: How | None = None) -> Iterator[tuple[Path, str | None]]:
    """(file, case) of every series in a file or, in the order of their names, in the files of a folder.

    A file of one series has the case None; so has one that cannot be read, so that reading it says why.
    """
    path = Path(path)
    if path.is_dir() and not containers.apple_health(path):
        for file in sorted(path.iterdir()):
            paired = file.suffix.lower() == ".dat" and (file.with_suffix(".hea")).exists()
            if file.is_file() and _suffix(file) in FILE_TYPES and not paired:
                yield from cases(file, how)
        return
    try:
        _source(path, how or How())
    except SeveralCases as error:
        yield from ((path, case) for case in error.cases)
    except (TSLMError, OSError):
        yield path, None
    else:
        yield path, None


def _suffix(path: AnyFile) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else suffixes[-1] if suffixes else ""


def _source(path: AnyFile, how: How) -> Source:
    if isinstance(path, Held):
        if not path.read_bytes():
            raise TSLMError(f"{path} is empty")
        return _reader(path)(path, how)
    if str(path) == "-":
        data = sys.stdin.buffer.read()
        if not data.strip():
            raise TSLMError("standard input is empty")
        return _read_bytes(data, how)
    if path.is_dir():
        if ecgs := containers.apple_health(path):
            case = choose_case("the Apple Health export holds several ECGs", list(ecgs), how.case)
            return _read_table(ecgs[case], replace(how, case=None))
        raise TSLMError(f"{path} is a folder; name a file in it, or run all with search --batch")
    suffix = _suffix(path)
    if not path.exists():
        if not Path(f"{path}.hea").exists():
            raise TSLMError(f"there is no file {path}")
        suffix, path = ".hea", Path(f"{path}.hea")
    if path.stat().st_size == 0:
        raise TSLMError(f"{path} is empty")
    return _reader(path, suffix)(path, how)


def _reader(path: AnyFile, suffix: str | None = None) -> Reader:
    suffix = _suffix(path) if suffix is None else suffix
    if suffix not in FILE_TYPES:
        known = ", ".join(FILE_TYPES)
        raise TSLMError(f"{path}: unknown file type {suffix or '(no extension)'!r}; known are {known}")
    return FILE_TYPES[suffix]


def _at_rate(source: Source, rate: float, path: AnyFile) -> Source:
    own = source.channels[0].rate
    if own is not None and abs(own - rate) > 1e-9 * own:
        raise TSLMError(f"{path} states a rate of {own:g} Hz, not {rate:g} Hz; resample it instead")
    return replace(source, channels=[replace(channel, rate=rate) for channel in source.channels], times=None)
