"""The table of questions as it stands in its file: a row each, with what is wrong with it."""

import csv
import difflib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import content
from mlx_tslm.signals.source import How

COLUMNS = (
    *("recording", "question", "answer", "rationale", "split", "start", "seconds", "channel", "person"),
    *("case", "source_rate", "fill", "delimiter", "decimal", "time"),  # as the readers' options
)
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SUFFIXES = (".csv", ".tsv", ".txt")


class Bad(NamedTuple):
    """A row and what is wrong with it."""

    row: int
    problem: str


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        row: its number as a spreadsheet counts it; the names stand in row 1.
        recording: as it is written there.
        path: where that lies.
        start, seconds, channels, source_rate, fill, how: as `signals.read` takes them.
    """

    row: int
    recording: str
    path: Path
    question: str = ""
    answer: str = ""
    rationale: str = ""
    split: str = ""
    person: str = ""
    start: float = 0.0
    seconds: float | None = None
    channels: tuple[str, ...] | None = None
    source_rate: float | None = None
    fill: str | None = None
    how: How = field(default_factory=How)


class Table(NamedTuple):
    """The rows that make sense, the others, and notes for a person."""

    entries: list[Entry]
    bad: list[Bad]
    notes: list[str]


def is_table(source: str | Path) -> bool:
    """Whether a name is one of a table of questions, or of a folder with a `questions.csv`."""
    return Path(source).suffix.lower() in _SUFFIXES or (Path(source) / "questions.csv").is_file()


def read(path: Path) -> Table:
    """The rows of a CSV or TSV file.

    Raises:
        TSLMError: there is no such file, it is no text, or a column is missing or misspelt.
    """
    try:
        text, notes = content.text(path.read_bytes())
    except OSError as error:
        raise TSLMError(f"{path} cannot be read: {error.strerror or error}") from None
    except TSLMError as error:
        raise TSLMError(f"{path}: {error}") from None
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=head.count)
    try:
        rows = list(csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise TSLMError(f"{path} cannot be read as a table: {error}") from None
    names = [name.strip().casefold().replace(" ", "_") for name in rows[0]] if rows else []
    notes += _check_names(path, names)
    entries: list[Entry] = []
    bad: list[Bad] = []
    for number, cells in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(names) :]):
            bad.append(Bad(number, f"has {len(cells)} cells, but there are {len(names)} columns; quote its commas"))
            continue
        try:
            entries.append(_entry(path.parent, number, dict(zip(names, map(str.strip, cells), strict=False))))
        except TSLMError as error:
            bad.append(Bad(number, str(error)))
    if not entries and not bad:
        raise TSLMError(f"{path} has no row below its names")
    return Table(entries, bad, notes)


def _check_names(path: Path, names: list[str]) -> list[str]:
    """Notes on the columns' names.

    Raises:
        TSLMError: a needed column is not there, or one may be misspelt or stands twice.
    """
    for name in filter(None, names):
        near = difflib.get_close_matches(name, COLUMNS, 1, 0.8)
        if name not in COLUMNS and near and near[0] not in names:
            raise TSLMError(f"{path} has a column {name!r}; call it {near[0]!r} if that is meant, or leave it out")
        if names.count(name) > 1:
            raise TSLMError(f"{path} has two columns called {name!r}")
    for name in ("recording", "answer"):
        if name not in names:
            listed = ", ".join(filter(None, names)) or "none"
            raise TSLMError(f"{path} has no column {name!r}; its first row names the columns, and has {listed}")
    others = [name for name in names if name and name not in COLUMNS]
    return [f"columns that are not looked at: {', '.join(others)}"] if others else []


def _entry(folder: Path, number: int, cells: dict[str, str]) -> Entry:
    """A row of text as what it means.

    Raises:
        TSLMError: a cell is empty that must not be, or holds something else than it should.
    """
    for name in ("recording", "answer"):
        if not cells.get(name):
            raise TSLMError(f"its {name} is empty")
    split = cells.get("split", "").casefold()
    if split and split not in SPLITS:
        raise TSLMError(f"its split is {cells['split']!r}; write train, validation or test")
    start, seconds, rate = (_number(name, cells.get(name, "")) for name in ("start", "seconds", "source_rate"))
    channel = cells.get("channel", "")
    return Entry(
        row=number,
        recording=cells["recording"],
        path=_find(folder, cells["recording"]),
        question=cells.get("question", ""),
        answer=cells["answer"],
        rationale=cells.get("rationale", ""),
        split=SPLITS.get(split, ""),
        person=cells.get("person", ""),
        start=start or 0.0,
        seconds=seconds,
        channels=tuple(one.strip() for one in channel.split(";") if one.strip()) or None,
        source_rate=rate,
        fill=cells.get("fill") or None,
        how=How(**{name: cells.get(name) or None for name in ("case", "delimiter", "decimal", "time")}),  # type: ignore[arg-type]
    )


def _find(folder: Path, recording: str) -> Path:
    """Where a recording lies: relative to the table's folder, or in `recordings` beside the table."""
    found = (folder / recording, folder / "recordings" / recording)
    for path in found:
        if path.exists() or path.with_name(f"{path.name}.hea").exists():
            return path
    return found[0]


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        raise TSLMError(f"its {name} is {text!r}, not a number") from None
    if not abs(value) < float("inf"):
        raise TSLMError(f"its {name} is {text!r}, not a finite number")
    return value


def one_line(table: Path, bad: Iterable[Bad]) -> TSLMError:
    """One line for all rows that are wrong: the first, and which others."""
    ordered = sorted(bad)
    first, others = ordered[0], list(dict.fromkeys(one.row for one in ordered if one.row != ordered[0].row))
    more = ""
    if others:
        listed = ", ".join(map(str, others[:10])) + (", …" if len(others) > 10 else "")
        more = f"; {len(others)} more row{'s are' if len(others) > 1 else ' is'} wrong: {listed}"
    return TSLMError(f"{table}, row {first.row}: {first.problem}{more}")
