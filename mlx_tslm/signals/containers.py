"""Recordings in MATLAB, HDF5, Parquet, Excel, WAV, FIT and time series archive files."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import arrays, content, tables
from mlx_tslm.signals.cases import choose_case
from mlx_tslm.signals.content import AnyFile, source_of
from mlx_tslm.signals.medical import reader
from mlx_tslm.signals.source import Channel, How, Source


def read_mat(path: AnyFile, how: How) -> Source:
    """Arrays of a MATLAB file, those in structures by `structure.field`, see `signals.read`."""
    if path.read_bytes()[:4] == b"\x89HDF" or path.read_bytes()[:520].endswith(b"\x89HDF\r\n\x1a\n"):
        return read_hdf5(path, how)  # version 7.3
    from scipy.io import loadmat

    try:
        held = loadmat(source_of(path), squeeze_me=True, struct_as_record=True)
    except NotImplementedError:
        return read_hdf5(path, how)
    except Exception as error:
        raise TSLMError(f"it cannot be read as a MATLAB file: {type(error).__name__.lower()}") from None
    entries: dict[str, Any] = {}
    for name, value in held.items():
        if not name.startswith("__"):
            entries |= _unpacked(name, value)
    return _one_or_named(entries, how)


def _unpacked(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray) and value.dtype.names and value.size == 1:
        record = value.reshape(-1)[0]
        out: dict[str, Any] = {}
        for part in value.dtype.names:
            out |= _unpacked(f"{name}.{part}", record[part])
        return out
    if isinstance(value, np.void) and value.dtype.names:
        out = {}
        for part in value.dtype.names:
            out |= _unpacked(f"{name}.{part}", value[part])
        return out
    if (
        isinstance(value, np.ndarray)
        and value.dtype.kind == "O"
        and all(isinstance(one, str) for one in value.reshape(-1))
    ):
        return {name: np.array([str(one) for one in value.reshape(-1)])}
    return {name: value}


def _one_or_named(entries: dict[str, Any], how: How) -> Source:
    shapes = {name: np.asarray(value) for name, value in entries.items()}
    held = [name for name, value in shapes.items() if value.dtype.kind in "fiub" and value.size > 1]
    if len(held) == 1 and len(entries) == 1:
        return arrays.one(shapes[held[0]], how)
    short = {name: name.rsplit(".", 1)[-1] for name in entries}
    if len(set(short.values())) == len(short):
        entries = {short[name]: value for name, value in entries.items()}
    return arrays.named(entries, how)


def read_hdf5(path: AnyFile, how: How) -> Source:
    """Data sets of an HDF5 file, by their paths, see `signals.read`. Attributes may state rate and units."""
    h5py = reader("h5py", path)
    entries: dict[str, Any] = {}
    try:
        with h5py.File(source_of(path), "r") as file:
            size = 0

            def visit(name: str, item: Any) -> None:
                nonlocal size
                for key, value in item.attrs.items():
                    if "".join(arrays.words(key)) in arrays._RATES | arrays._UNITS | arrays._STEPS | arrays._NAMES:
                        entries.setdefault(f"{name}/{key}", _decoded(value))
                if isinstance(item, h5py.Dataset) and "MATLAB_empty" not in item.attrs and not name.startswith("#"):
                    size += item.size * max(item.dtype.itemsize, 1)
                    if size > how.max_gb * 1e9:
                        raise TSLMError(f"its arrays hold more than {how.max_gb:g} GB; --max-gb lifts the limit")
                    if item.dtype.names:
                        whole = item[()]
                        entries.update({part: whole[part] for part in item.dtype.names})
                    else:
                        value = item[()]
                        if item.attrs.get("MATLAB_class") == b"char":
                            value = "".join(map(chr, np.asarray(value).reshape(-1)))
                        entries[name] = _decoded(value)

            visit("", file)
            file.visititems(visit)
    except TSLMError:
        raise
    except Exception:
        raise TSLMError("it cannot be read as an HDF5 file: it is damaged, or something else") from None
    return _one_or_named({name.strip("/").replace("/", "."): value for name, value in entries.items()}, how)


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return np.array(
            [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in value.reshape(-1)]
        )
    return value


def read_wav(path: AnyFile, how: How) -> Source:
    """The channels of a WAV file, as the numbers that are stored (floats, or whole numbers of 8 to 32 bits)."""
    import warnings

    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rate, values = wavfile.read(source_of(path))
    except Exception:
        raise TSLMError("it cannot be read as a WAV file: it is damaged, or compressed") from None
    values = values[:, None] if values.ndim == 1 else values
    if not len(values):
        raise TSLMError("it has no samples")
    shift = 128.0 if values.dtype == np.uint8 else 0.0
    names = ["left", "right"] if values.shape[1] == 2 else [str(at) for at in range(values.shape[1])]
    return Source(
        [
            Channel(name, row.astype(np.float64) - shift, rate=float(rate))
            for name, row in zip(names, values.T, strict=True)
        ]
    )


def read_parquet(path: AnyFile, how: How) -> Source:
    """Columns of a Parquet file, see `signals.read`; needs the `parquet` extra."""
    parquet = reader("pyarrow.parquet", path, "parquet")
    try:
        file = parquet.ParquetFile(source_of(path))
        groups = [file.metadata.row_group(at).total_byte_size for at in range(file.metadata.num_row_groups)]
        if sum(groups) > how.max_gb * 1e9:
            raise TSLMError(
                f"it unpacks to {sum(groups) / 1e9:.1f} GB, more than {how.max_gb:g}; --max-gb lifts the limit"
            )
        held = file.read()
    except TSLMError:
        raise
    except Exception:
        raise TSLMError("it cannot be read as a Parquet file: it is damaged, or something else") from None
    cells: dict[str, Any] = {}
    for name in held.column_names:
        column = held.column(name)
        kind = str(column.type)
        if kind.startswith(("timestamp", "date")):
            cells[name] = column.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        elif kind in ("string", "large_string"):
            cells[name] = [one or "" for one in column.to_pylist()]
        elif kind.startswith(("int", "uint", "float", "double", "halffloat", "bool", "decimal")):
            cells[name] = (
                np.array([np.nan if one is None else float(one) for one in column.to_pylist()])
                if column.null_count or kind.startswith(("decimal", "bool"))
                else column.to_numpy(zero_copy_only=False)
            )
    names = {name: "index" if name.startswith("__index_level_") else name for name in cells}
    if not cells:
        raise TSLMError("there is no column of numbers")
    return tables.from_arrays({names[name]: value for name, value in cells.items()}, how)


def read_excel(path: AnyFile, how: How) -> Source:
    """The table on a sheet of a workbook: on the one named with `--case`, or the only one that is not empty."""
    calamine = reader("python_calamine", path)
    try:
        book = calamine.CalamineWorkbook.from_filelike(path.open("rb"))
        sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    except Exception:
        raise TSLMError("it cannot be read as a spreadsheet: it is damaged, protected, or something else") from None
    filled = {name: rows for name, rows in sheets.items() if any(cell != "" for row in rows for cell in row)}
    if not filled:
        raise TSLMError("all its sheets are empty")
    name = next(iter(filled))
    if len(filled) > 1:
        inside = how.case if how.case is None else str(how.case)
        name = choose_case("the workbook has several sheets", list(filled), inside)
        how = replace(how, case=None)
    text = "\n".join("\t".join(_spelled(cell) for cell in row) for row in filled[name])
    source = tables.read_text(text, replace(how, delimiter="\t", decimal="."))
    return replace(source, notes=(*((f"sheet {name!r}",) if len(filled) > 1 else ()), *source.notes))


def _spelled(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell == int(cell) and abs(cell) < 1e15:
        return str(int(cell))
    return re.sub(r"\s+", " ", str(cell)).replace('"', "'")


def read_fit(path: AnyFile, how: How) -> Source:
    """The numbers of a FIT file's `record` messages (Garmin, Wahoo, …) by field, with their units."""
    fitdecode = reader("fitdecode", path)
    rows: list[dict[str, Any]] = []
    units: dict[str, str] = {}
    try:
        with fitdecode.FitReader(path.open("rb")) as file:
            for frame in file:
                if frame.frame_type == fitdecode.FIT_FRAME_DATA and frame.name == "record":
                    rows.append({one.name: one.value for one in frame.fields})
                    units |= {one.name: one.units for one in frame.fields if one.units}
    except Exception:
        raise TSLMError("it cannot be read as a FIT file: it is damaged, or something else") from None
    if not rows:
        raise TSLMError("it holds no record messages, so no series")
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells: dict[str, Any] = {}
    for name in names:
        column = [row.get(name) for row in rows]
        if all(hasattr(one, "timestamp") or one is None for one in column):
            cells[name] = np.array(
                [np.datetime64(one.replace(tzinfo=None), "us") if one else np.datetime64("NaT") for one in column]
            )
        elif all(isinstance(one, (int, float)) or one is None for one in column):
            cells[name] = np.array([np.nan if one is None else float(one) for one in column])
    return tables.from_arrays(cells, how, units)


def read_ts(path: AnyFile, how: How) -> Source:
    """A case of a UCR/UEA archive file in `.ts` format: its dimensions are channels."""
    text, _ = content.text(path.read_bytes())
    lines = content.lines(text)
    head = [line for line in lines if line.startswith("@")]
    body = [line for line in lines if line.strip() and not line.startswith(("@", "#"))]
    if not any(line.strip().casefold() == "@data" for line in head) or not body:
        raise TSLMError("it is no .ts file of a time series archive: it has no @data")
    stamped = any(re.match(r"@timestamps\s+true", line, re.I) for line in head)
    labelled = any(re.match(r"@classlabel\s+true", line, re.I) for line in head)
    if stamped:
        raise TSLMError("its samples carry time stamps, which are not read; write it without them")
    cases = [str(at) for at in range(len(body))]
    at = int(choose_case(f"it holds {len(body)} cases", cases, how.case)) if len(body) > 1 else 0
    parts = body[at].strip().split(":")
    label = parts.pop() if labelled else ""
    channels = [Channel(str(place), _row(part.split(",")), faults={}) for place, part in enumerate(parts)]
    return Source(channels, notes=(f"case {at}" + (f", whose label is {label!r}" if label else ""),))


def read_arff(path: AnyFile, how: How) -> Source:
    """A case of an ARFF file: a row is a case, its numeric attributes are its samples."""
    text, _ = content.text(path.read_bytes())
    head, found, data = (
        re.split(r"(?im)^(@data)\s*$", text, maxsplit=1) if re.search(r"(?im)^@data\s*$", text) else ("", "", "")
    )
    if not found:
        raise TSLMError("it is no ARFF file: it has no @data")
    kinds = re.findall(r"(?im)^@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(.*)$", head)
    numeric = [kind.strip().casefold() in ("numeric", "real", "integer") for _, kind in kinds]
    rows = [line.split(",") for line in content.lines(data) if line.strip() and not line.startswith("%")]
    if not rows or "relational" in head.casefold():
        raise TSLMError(
            "it holds nested (relational) attributes, which are not read; the .ts file of the same data is"
            if rows
            else "it holds no rows"
        )
    names = [name.strip("'\"") for name, _ in kinds]
    stem = {re.sub(r"[\d_]+$", "", name) for name, is_number in zip(names, numeric, strict=True) if is_number}
    if len(stem) > 1:  # attributes of several kinds: columns of a table
        cells = ["\t".join(cell.strip() for cell in row) for row in rows]
        return tables.read_text("\n".join(["\t".join(names), *cells]), replace(how, delimiter="\t", decimal="."))
    at = (
        int(
            choose_case(f"each of its {len(rows)} rows is a case", [str(one) for one in range(len(rows))], how.case)
        )
        if len(rows) > 1
        else 0
    )
    row = [cell for cell, is_number in zip(rows[at], numeric, strict=True) if is_number]
    labels = [cell.strip() for cell, is_number in zip(rows[at], numeric, strict=True) if not is_number]
    return Source(
        [Channel("0", _row(row))], notes=(f"case {at}" + (f", whose label is {labels[-1]!r}" if labels else ""),)
    )


def _row(cells: Sequence[str]) -> Any:
    try:
        return np.array([float(cell) if cell.strip() not in ("?", "NaN", "") else np.nan for cell in cells])
    except ValueError:
        raise TSLMError("a case holds something that is no number") from None


def apple_health(path: Path) -> dict[str, Path]:
    """The ECGs in Apple Health's export, a folder, by their names; none of any other folder."""
    return {file.stem: file for file in sorted((path / "electrocardiograms").glob("*.csv"))}
