"""A CSV file as an index of where its records lie, so that only the rows asked for are held and parsed."""

import csv
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlx_tslm.errors import TSLMError

_MAX_FIELD = 1 << 26  # characters; what is longer is a quotation mark that was never closed


class MalformedRow(TSLMError):
    """A row that cannot be used. Its message names the file and the line."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}, line {line}: {problem}")
        self.path, self.line = path, line


class _Record(NamedTuple):
    """Where a record begins (byte and line, from 1) and ends, and its fields, or what is wrong with it."""

    line: int
    start: int
    end: int
    fields: list[str]
    problem: str | None = None


class CsvIndex:
    """The rows of a CSV file by their number.

    The file is read through once, a line at a time; what stays in memory is 16 bytes a row and the columns
    named in `keep`. Blank lines, and copies of the header among the rows, are not rows. A record that is no
    CSV, or has another number of fields than the header, goes to `malformed`, and reading goes on with the
    next line.

    Args:
        path: a UTF-8 file with a header.
        columns: those that must be there.
        keep: those whose values are to be held in `kept`.
        limit: stop after this many rows.
        check: raises a TSLMError for rows that are to be left out as malformed.

    Raises:
        TSLMError: the file is missing or empty, or lacks a column.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        keep: Sequence[str] = (),
        limit: int | None = None,
        check: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        self.path = path
        self.malformed: list[MalformedRow] = []
        self.kept: dict[str, list[str]] = {column: [] for column in keep}
        self._starts, self._sizes, self._lines = array("q"), array("I"), array("I")
        records = _records(path)
        header = next(records, None)
        self.columns = tuple(header.fields) if header else ()
        missing = [column for column in columns if column not in self.columns]
        if missing:
            found = ", ".join(self.columns)[:80] or "nothing"
            raise TSLMError(
                f"{path} has no column {missing[0]!r}, its first line holds {found}; is it the right file?"
            )
        wanted = [(self.kept[column], self.columns.index(column)) for column in keep]
        for record in records:
            if limit is not None and len(self) >= limit:
                break
            problem = record.problem
            if not problem and len(record.fields) != len(self.columns):
                problem = f"{len(record.fields)} fields where the header has {len(self.columns)}"
            if tuple(record.fields) == self.columns:
                continue
            if not problem and check:
                try:
                    check(dict(zip(self.columns, record.fields, strict=True)))
                except TSLMError as error:
                    problem = str(error)
            if problem:
                self.malformed.append(MalformedRow(path, record.line, problem))
            else:
                self._starts.append(record.start)
                self._sizes.append(record.end - record.start)
                self._lines.append(record.line)
                for values, position in wanted:
                    values.append(record.fields[position])

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> dict[str, str]:
        """The row of this number, read from the file."""
        with self.path.open("rb") as file:
            file.seek(self._starts[number])
            text = file.read(self._sizes[number]).decode("utf-8")
        (fields,) = csv.reader([text], strict=True)
        return dict(zip(self.columns, fields, strict=True))

    def line(self, number: int) -> int:
        """The line, from 1, on which a row begins."""
        return self._lines[number]


def _records(path: Path) -> Iterator[_Record]:
    """The records of a CSV file, blank lines left out."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise TSLMError(f"{path} does not exist") from None
    with file:
        taken: list[bytes] = []  # the lines of the record under way
        again: deque[bytes] = deque()  # lines to be read once more, after a record that made no sense

        def lines() -> Iterator[str]:
            while line := again.popleft() if again else file.readline():
                taken.append(line)
                yield line.decode("utf-8-sig" if start == 0 else "utf-8")

        start, number = 0, 1
        reader = csv.reader(lines(), strict=True)
        while True:
            taken.clear()
            fields, problem = [], None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                problem = f"not CSV: {error}"
                # What follows an open quotation mark looks like its continuation: give up one line only.
                again.extendleft(reversed(taken[1:]))
                del taken[1:]
                reader = csv.reader(lines(), strict=True)
            end = start + sum(map(len, taken))
            if fields or problem:
                yield _Record(number, start, end, fields, problem)
            start, number = end, number + len(taken)
