"""The five published data sets, in the files they are published in."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from json import JSONDecodeError, loads
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_tslm import stages
from mlx_tslm.data.dataset import Dataset, Row, Split
from mlx_tslm.data.published import sources
from mlx_tslm.data.published.csv_index import CsvIndex, MalformedRow
from mlx_tslm.data.published.splits import random_splits, stratified_splits
from mlx_tslm.errors import TSLMError
from mlx_tslm.series import check_series
from mlx_tslm.stages.ecg import record_path, template_answers
from mlx_tslm.stages.rows import field, numbers, text

_FILE_OF_SPLIT = {"train": "train", "validation": "val", "test": "test"}
# Names that the published Sleep rows and their evaluation use besides the stage's own labels.
_OTHER_SLEEP_LABELS = ("Non-REM stage 4", "W", "N1", "N2", "N3", "N4", "R", "REM", "M", "Unknown")


class _Rows(NamedTuple):
    """A split: how many rows, how to read one, what is no row in its files, and the rows of all their splits."""

    size: int
    read: Callable[[int], Row]
    malformed: Sequence[MalformedRow]
    total: int


def load(stage: stages.Stage, split: Split, data_dir: str | Path | None, limit: int | None) -> Dataset:
    """See `mlx_tslm.data.load`."""
    folder = sources.folder(stage.name, data_dir)
    rows = _LOADERS[stage.key](folder, split, limit)
    size = rows.size if limit is None else min(limit, rows.size)
    return Dataset(stage, split, size, rows.read, rows.malformed, rows.total)


def _tsqa(folder: Path, split: Split, limit: int | None) -> _Rows:
    """`TSQA.csv`: 48,000 rows, divided at random."""
    index = CsvIndex(sources.find(folder, "TSQA.csv"), ("Task", "Question", "Answer", "Series"))
    order = random_splits(len(index), (42, 42))[split]

    def convert(row: Row) -> Row:
        for column in ("Task", "Question", "Answer"):
            text(row, column)
        return row | {"Series": _series(row, "Series")}

    return _Rows(len(order), lambda i: _convert(index, int(order[i]), convert), index.malformed, len(index))


def _m4(folder: Path, split: Split, limit: int | None) -> _Rows:
    """Series and captions of six frequencies in two files each, joined by id, then divided at random.

    The original leaves out series that are not JSON before it divides, so they are looked for here and now.
    """
    rows: list[tuple[int, int, int]] = []  # frequency, row of the series, row of the caption
    tables: list[tuple[str, CsvIndex, CsvIndex]] = []
    for number, frequency in enumerate(sources.M4_FREQUENCIES):
        path = sources.find(folder, f"m4_series_{frequency}.csv")
        series = CsvIndex(path, ("id", "series"), keep=("id",), check=_json_series)
        path = sources.find(folder, f"m4_captions_{frequency}.csv")
        captions = CsvIndex(path, ("id", "caption"), keep=("id",))
        captions_of = defaultdict(list)
        for caption, name in enumerate(captions.kept["id"]):
            captions_of[name].append(caption)
        rows += [(number, i, j) for i, name in enumerate(series.kept["id"]) for j in captions_of[name]]
        tables.append((frequency, series, captions))
    order = random_splits(len(rows), (42, 43))[split]

    def read(i: int) -> Row:
        which, series_row, caption_row = rows[order[i]]
        frequency, series, captions = tables[which]
        caption = _convert(captions, caption_row, lambda row: row | {"caption": text(row, "caption")})
        values = _convert(series, series_row, lambda row: row | {"series": _series(row, "series")})
        return values | caption | {"frequency": frequency}

    malformed = [row for _, series, captions in tables for row in series.malformed + captions.malformed]
    return _Rows(len(order), read, malformed, len(rows))


def _har(folder: Path, split: Split, limit: int | None) -> _Rows:
    """One file a split; headers that stand among the rows are left out, as in the original."""
    axes = ("x_axis", "y_axis", "z_axis")
    path = sources.find(folder, f"har_cot_{_FILE_OF_SPLIT[split]}_cot.csv")
    index = CsvIndex(path, (*axes, "label", "rationale"), limit=limit)
    labels = stages.get("har").labels or ()

    def convert(row: Row) -> Row:
        text(row, "rationale")
        return row | {"label": _label(row, labels)} | {axis: _series(row, axis) for axis in axes}

    return _Rows(len(index), lambda i: _convert(index, i, convert), index.malformed, len(index))


def _sleep(folder: Path, split: Split, limit: int | None) -> _Rows:
    """`sleep_cot.csv`, divided by label; `time_series` is a list of one list of 1500 samples."""
    columns = ("time_series", "label", "rationale")
    index = CsvIndex(sources.find(folder, "sleep_cot.csv"), columns, keep=("label",))
    order = stratified_splits(index.kept["label"], (42, 43))[split]
    labels = (*(stages.get("sleep").labels or ()), *_OTHER_SLEEP_LABELS)

    def convert(row: Row) -> Row:
        text(row, "rationale")
        values = _series(row, "time_series")
        if len(values) != 1500:
            raise TSLMError(f"column 'time_series' has {len(values)} samples, not the 1500 of 30 s at 50 Hz")
        return row | {"label": _label(row, labels), "time_series": values}

    return _Rows(len(order), lambda i: _convert(index, int(order[i]), convert), index.malformed, len(index))


def _ecg(folder: Path, split: Split, limit: int | None) -> _Rows:
    """One file a split; the signals are PTB-XL's 500 Hz records, which `ecg_paths` names."""
    columns = ("question", "answer", "template_id", "question_type", "clinical_context", "rationale", "ecg_id")
    index = CsvIndex(sources.find(folder, f"ecg_qa_cot_{_FILE_OF_SPLIT[split]}.csv"), columns, limit=limit)
    ptbxl = sources.find(folder, "records500").parent

    def convert(row: Row) -> Row:
        for column in ("question", "answer", "question_type", "rationale"):
            text(row, column)
        record = record_path(ptbxl, field(row, "ecg_id"))
        return row | {"template_id": _template(row), "ecg_paths": [str(record)]}

    def read(i: int) -> Row:
        row = _convert(index, i, convert)
        header = Path(row["ecg_paths"][0])
        for path in (header, header.with_suffix(".dat")):
            if not path.exists():
                raise TSLMError(
                    f"{index.path}, line {index.line(i)}: its ECG {row['ecg_id']} is missing: there is no {path}; "
                    "PTB-XL is not whole: unpack its records500 again, or run `mlx-tslm data fetch stage5`"
                )
        return row

    return _Rows(len(index), read, index.malformed, len(index))


def _convert(index: CsvIndex, number: int, convert: Callable[[Row], Row]) -> Row:
    """A row of a file, converted; what is wrong with it is told with its file and line."""
    try:
        return convert(dict(index[number]))
    except TSLMError as error:
        raise MalformedRow(index.path, index.line(number), str(error)) from None


def _json_series(row: Mapping[str, str]) -> None:
    try:
        loads(row["series"])
    except JSONDecodeError as error:
        raise TSLMError(f"column 'series' is not JSON: {error}") from None


def _series(row: Row, column: str) -> NDArray[np.float32]:
    values = numbers(row, column)
    check_series(values, f"column {column!r}")
    return values


def _label(row: Row, labels: Sequence[str]) -> str:
    label = text(row, "label").strip()
    if label not in labels:
        raise TSLMError(f"unknown label {label!r}; the labels are {', '.join(labels)}")
    return label


def _template(row: Row) -> int:
    known = template_answers()
    try:
        number = int(float(field(row, "template_id")))
    except ValueError:
        number = -1
    if number not in known:
        raise TSLMError(f"ECG-QA has no template {row['template_id']!r}; they are {min(known)} to {max(known)}")
    return number


_LOADERS: Mapping[str, Callable[[Path, Split, int | None], _Rows]] = {
    "tsqa": _tsqa,
    "m4": _m4,
    "har": _har,
    "sleep": _sleep,
    "ecg": _ecg,
}
