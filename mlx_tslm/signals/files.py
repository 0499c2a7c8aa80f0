"""Reading a recording from a file: the one place that knows which file type is read by whom."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import arrays, medical, tables
from mlx_tslm.signals.recording import Recording, check_rate

Reader = Callable[[Path, Sequence[str | int] | None], Recording]

FILE_TYPES: dict[str, Reader] = {
    ".csv": tables.read_delimited,
    ".tsv": tables.read_delimited,
    ".txt": tables.read_delimited,
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".json": arrays.read_json,
    ".jsonl": arrays.read_jsonl,
    ".ndjson": arrays.read_jsonl,
    ".hea": medical.read_wfdb,
    ".dat": medical.read_wfdb,
    ".edf": medical.read_edf,
    ".bdf": medical.read_edf,
}


def read(path: str | Path, channels: Sequence[str | int] | None = None, rate: float | None = None) -> Recording:
    """Read a recording.

    | file | what becomes a channel |
    |---|---|
    | CSV, TSV, TXT | each numeric column; between them `,` tab `;` `|` or blanks; a header or none |
    | NPY, NPZ | a one-dimensional array; of a two-dimensional one **the longer axis is time** |
    | JSON | a list, a list of lists (the longer axis is time), or an object of name → list |
    | JSONL | a number, a list or an object of name → number a line |
    | WFDB | each signal of a record: its `.hea`, its `.dat`, or the record's name; needs `mlx-tslm[formats]` |
    | EDF, BDF | each signal; needs `mlx-tslm[formats]` |

    Columns of dates or text, and a leading column that counts or times the rows, are left out, and `notes` says
    so. A square array is `[channels, T]`. Nothing pickled is read.

    Args:
        path: the file, or the name of a WFDB record (no extension).
        channels: which, by name or number from 0, in the wanted order; None takes all.
        rate: the sampling rate in Hz of a file that does not state one.

    Raises:
        TSLMError: no such file, a folder, an unknown file type (lists the known ones), a missing extra, an
            unknown channel (lists the names), a missing, non-numeric, NaN or infinite value (says where), an
            empty or damaged file, a `rate` that contradicts the file's own.
    """
    path = Path(path)
    if path.is_dir():
        raise TSLMError(f"{path} is a folder; name a file in it")
    suffix = path.suffix.lower()
    if not path.exists():
        if not Path(f"{path}.hea").exists():
            raise TSLMError(f"there is no file {path}")
        suffix, path = ".hea", Path(f"{path}.hea")
    if suffix not in FILE_TYPES:
        known = ", ".join(FILE_TYPES)
        raise TSLMError(f"{path}: unknown file type {suffix or '(no extension)'!r}; known are {known}")
    if path.stat().st_size == 0:
        raise TSLMError(f"{path} is empty")
    try:
        recording = FILE_TYPES[suffix](path, channels)
        if rate is None:
            return recording
        check_rate(rate)
    except TSLMError as error:
        if str(path) in str(error):
            raise
        raise TSLMError(f"{path}: {error}") from None
    except OSError as error:
        raise TSLMError(f"{path} cannot be read: {error.strerror or error}") from None
    if recording.rate is not None and recording.rate != rate:
        raise TSLMError(f"{path} states a rate of {recording.rate:g} Hz, not {rate:g} Hz; resample it instead")
    return replace(recording, rate=rate)
