"""Where in a text the table is: what parts its columns, where it begins, what its columns are called."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.cells import decimal_mark, is_missing, is_unit, number
from mlx_tslm.signals.dates import is_date
from mlx_tslm.signals.preamble import Facts, facts
from mlx_tslm.signals.source import How
from mlx_tslm.signals.timing import UNIT_OF

DELIMITERS = ("\t", ";", "|", ",", " ")
_SAMPLE = 400
_COMMENT = ("#", "%", "//")
_WIDEST = 1 << 26  # characters of a cell; with a delimiter that is not the file's, a line of 20,000 names is one
_LABEL = re.compile(
    r".*[=:]$|(?:units?|unit ?names?|range|type|types|sensor|sensors|min|max|top ?value|bottom ?value|lead|scale|"
    r"gain|einheit(?:en)?|comment|description|channel ?titles?|kanal|name|names|device|model|id|samples?|rate)$",
    re.I,
)
_REMARKS = {"comment", "comments", "note", "notes", "remark", "remarks", "event", "events", "marker", "annotation"}
_TYPES = {
    "double",
    "float",
    "string",
    "long",
    "int",
    "integer",
    "float64",
    "int64",
    "float32",
    "number",
    "numeric",
    "object",
}
_TYPE = re.compile(r"\d+[sdn]")  # USGS states its columns' widths so
_TYPES |= {"boolean", "text", "real", "datetime", "char", "logical", "dbl", "<dbl>", "<int>", "<chr>"}


@dataclass(frozen=True)
class Layout:
    """A table in a text.

    Attributes:
        delimiter: what parts the columns; " " stands for any blanks.
        decimal: the decimal mark.
        width: columns.
        first: records (see `records`) above the first row.
        names: one a column, or None where there are none.
        units: one a column; "" where not stated.
        facts: what the lines above state.
        rows: a sample of rows, from the first.
    """

    delimiter: str
    decimal: str
    width: int
    first: int
    names: list[str] | None
    units: list[str]
    facts: Facts
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


_HEAD = 4_000_000  # characters of a text that are looked at for its layout
_DECLARED = re.compile(r'#?"?sep=(\\t|[^"])"?[ \t]*\r?\n')


def prepare(text: str, skip_lines: int) -> str:
    """The text with Excel's `sep=;` made a comment, and the first lines blank that a person leaves out."""
    if _DECLARED.match(text) and not text.startswith("#"):
        text = "#" + text
    lines = text.split("\n", skip_lines)
    return "\n" * (len(lines) - 1) + lines[-1] if skip_lines else text


def records(text: str, delimiter: str, blank: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each record that is no comment; blank ones only where asked for."""
    before = 0
    if delimiter == " ":
        for at, line in enumerate(io.StringIO(text), 1):
            if (line.strip() or blank) and not line.lstrip().startswith(_COMMENT):
                yield at, _blanks(line)
        return
    lines: Iterable[str] = io.StringIO(text, newline="")
    if delimiter == "," and text[:2000].count(";\n") > 2:  # some loggers end each line so
        lines = (line.rstrip("\r\n; ") + "\n" for line in lines)
    comment = [False]

    def plain(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            comment[0] = line.startswith(_COMMENT)
            yield "\n" if comment[0] else line

    csv.field_size_limit(max(csv.field_size_limit(), _WIDEST))
    reader = csv.reader(plain(lines), delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if any(cells) or (blank and not comment[0]):
            yield before + 1, cells
        before = reader.line_num


def find(text: str, how: How) -> Layout:
    """The table in a text.

    Raises:
        TSLMError: there is none, or two readings are possible (says which option decides).
    """
    if len(text) > _HEAD:  # what tells is at the top
        text = text[: text.rfind("\n", 0, _HEAD) + 1] or text
    declared = _DECLARED.match(text)
    delimiter = how.delimiter or (declared and declared[1].replace("\\t", "\t")) or _delimiter(text, how)
    sample = [cells for _, cells in islice(records(text, delimiter), _SAMPLE)]
    if not sample:
        raise TSLMError("it is empty: all lines are blank or comments")
    width = _width(sample)
    first = _first(sample, width)
    rows = [_fit(row, width) for row in sample[first:]]
    quoted = '"' in text[:20000]
    if delimiter == "," and width > 1 and not quoted and how.delimiter is None:
        doubt = _commas(sample, rows, width, first, how)
        if doubt == "decimal":
            found = find(text, replace(how, delimiter="\t", decimal=","))
            return replace(
                found, notes=[*found.notes, f"the comma in {','.join(rows[0])!r} was taken for a decimal mark"]
            )
    decimal = how.decimal or _decimal(rows, delimiter, quoted)
    comments = [line for line in islice(io.StringIO(text), _SAMPLE) if line.lstrip().startswith(_COMMENT)]
    above = [delimiter.join(row) for row in sample[:first]]
    stated = facts([*comments, *above])
    names, units = _header(sample[:first], width, rows, decimal)
    notes: list[str] = []
    if names is None:
        names = _commented(comments, delimiter, width)
    if names is None and len(stated.names) == width:
        names = list(stated.names)
    if names is None and is_years(rows):
        names, rows, first = rows[0], rows[1:], first + 1
    numbered = _numbered(rows, names, decimal)
    if numbered:
        names, rows, first = rows[0], rows[1:], first + 1
        notes.append(
            f"the first row, {', '.join(names[:4])}{', …' if len(names) > 4 else ''}, was taken for the "
            "columns' names"
        )
    elif (
        names is None
        and width == 1
        and len(rows) > 2
        and rows[0][0].strip() == "0"
        and all("." in row[0] for row in rows[1:])
    ):
        notes.append(
            "the first line, 0, was taken for a sample; if it is a column's name, --skip-lines 1 leaves it out"
        )
    if delimiter == " " and names is None and first and _wordy(sample[first - 1], rows):
        line = " ".join(sample[first - 1])
        names = _aligned(text, line, width)
        if names is None and not stated.rates:
            raise TSLMError(
                f"the line above the numbers, {line[:60]!r}, does not name the {width} columns below it; leave it "
                "out with --skip-lines, or say what parts the columns with --delimiter"
            )
    return Layout(delimiter, decimal, width, first, names, units, stated, rows, notes)


def _blanks(line: str) -> list[str]:
    if '"' in line:
        return [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', line)]
    return line.split()


def _known(cell: str) -> bool:
    return number(cell, ".") is not None or number(cell, ",") is not None or is_date(cell)


def _delimiter(text: str, how: How) -> str:
    """The delimiter under which most rows have one width and most cells are numbers, dates or missing."""
    best, found = (-1.0, False, 0), ","
    for place, delimiter in enumerate(DELIMITERS):
        try:
            sample = [cells for _, cells in islice(records(text, delimiter), _SAMPLE)]
        except csv.Error as error:
            raise TSLMError(f"cannot be read as a table: {error}") from None
        if not sample:
            continue
        width = _width(sample)
        if how.decimal == "," and delimiter == ",":
            continue
        if delimiter == " " and found in "\t;|" and best[0] >= 0.5 and best[1]:
            continue  # a date and its time are one cell between tabs
        score = 0.0
        for row in sample:
            if abs(len(row) - width) <= 1:
                cells = [cell for cell in row if cell.strip()]
                score += sum(map(_known, cells)) / max(len(cells), 1) if cells else 0.0
        rank = (round(score / len(sample), 6), width > 1, -place)
        if rank > best:
            best, found = rank, delimiter
    return found


def _width(sample: Sequence[Sequence[str]]) -> int:
    """The rows' usual number of columns: of those with numbers in them, where there are some."""
    tally: Counter[int] = Counter()
    for row in sample[-max(len(sample) * 3 // 4, 1) :]:
        filled = sum(1 for cell in row if cell.strip())
        if filled:
            tally[len(row)] += 1 + 3 * any(number(cell, ".") is not None and not is_missing(cell) for cell in row)
    width = tally.most_common(1)[0][0] if tally else len(sample[-1])
    while width > 1 and all(not row[width - 1].strip() for row in sample if len(row) >= width):
        width -= 1  # a comma at the end of each row
    return width


def _fit(row: Sequence[str], width: int) -> list[str]:
    """A row without the blank cells that go beyond the table."""
    cells = list(row)
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    return cells


def _first(sample: Sequence[Sequence[str]], width: int) -> int:
    """How many records stand above the first row.

    A row has the table's width and a number or a date; in the columns that hold numbers or dates further down, no
    more than a stray cell is otherwise. A label ("Range=", "Unit") where numbers stand below heads no row.
    """
    fitted = [_fit(row, width) for row in sample]
    body = [row for row in fitted[len(fitted) // 3 :] if len(row) == width] or [
        row for row in fitted if len(row) == width
    ]
    firm = [
        sum(_known(row[at]) and not is_missing(row[at]) for row in body)
        > 0.5 * sum(not is_missing(row[at]) for row in body)
        for at in range(width)
    ]
    kinds = _kinds(body, width)
    for place, row in enumerate(fitted):
        if len(row) not in (width, width + 1) or (len(row) > width and len(body) > 2):
            continue
        checked = [(cell, at) for at, cell in enumerate(row[:width]) if firm[at] and not is_missing(cell)]
        good = [at for cell, at in checked if _known(cell) and (kinds[at] != "date" or is_date(cell))]
        if not good or all(_TYPE.fullmatch(cell.strip()) for cell in row if cell.strip()):
            continue
        if place < 30 and any(_heads(other, firm, width) for other in fitted[place + 1 : place + 5]):
            continue  # numbers above a line of names
        if (
            firm[0]
            and is_missing(row[0])
            and all(row[1:])
            and not any(is_missing(one[0]) for one in fitted[place + 1 :])
        ):
            continue  # a line of counts under the names
        above = fitted[place - 1] if place else []
        labelled = firm[0] and not is_missing(row[0]) and not _known(row[0])
        if labelled and (_LABEL.match(row[0].strip()) or len(good) < len(checked) - 1):
            continue
        if labelled and not _heads(above, firm, width):
            continue
        if not firm[0] and len(good) < len(checked) and place < 3 and len(good) <= len(checked) / 2:
            continue
        return place
    return len(sample) if any(firm) else 1


def _heads(row: Sequence[str], firm: Sequence[bool], width: int) -> bool:
    """Whether a record holds names: text, and no number, wherever numbers or dates stand below."""
    cells = [cell for at, cell in enumerate(row[:width]) if firm[at]]
    return len(row) == width and bool(cells) and all(cell.strip() and not _known(cell) for cell in cells)


def _kinds(body: Sequence[Sequence[str]], width: int) -> list[str]:
    kinds = []
    for at in range(width):
        cells = [row[at] for row in body[:50] if not is_missing(row[at])]
        dates = sum(map(is_date, cells))
        kinds.append("date" if dates > 0.5 * len(cells) else "")
    return kinds


def _decimal(rows: Sequence[Sequence[str]], delimiter: str, quoted: bool) -> str:
    cells = [cell for row in rows for cell in row if cell.strip()[:1] in "+-−(.,0123456789" and not is_date(cell)]
    if delimiter == "," and not quoted:
        return "."
    mark = decimal_mark(cells)
    if mark is None:
        example = next(cell for cell in cells if re.search(r"\d,\d{3}", cell))
        raise TSLMError(
            f"{example!r} can be read in two ways; --decimal . or --decimal , says which mark is decimal"
        )
    return mark


def _commas(
    sample: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], width: int, first: int, how: How
) -> str:
    """ "" where commas part columns, "decimal" where they are decimal marks.

    Raises:
        TSLMError: it could be either.
    """
    cells = [cell.strip() for row in rows for cell in row]
    if not all(re.fullmatch(r"[-+−]?\d+", cell) for cell in cells) or not rows:
        return ""
    header = _fit(sample[first - 1], width) if first else []
    if len(header) == width and not _LABEL.match(header[0]):
        return ""
    after = [row[at].strip() for row in rows if len(row) == width for at in range(1, width, 2)]
    signed = any(not cell[0].isdigit() for cell in after) or any(
        row[1].startswith(" ") for row in rows if len(row) > 1
    )
    zeros = any(len(cell) > 1 and cell.startswith("0") for cell in after)
    if signed and not zeros:
        return ""
    counted = [int(row[0].replace("−", "-")) for row in rows]
    if len(rows) > 2 and all(b - a == 1 for a, b in pairwise(counted)) and not zeros:
        return ""
    if width == 2 and zeros and not signed:
        return "decimal"
    if width % 2 or (width > 2 and not zeros):
        return ""
    raise TSLMError(
        f"{','.join(rows[0][:2])!r} can be one number or two; --decimal , or --delimiter , says which the comma is"
    )


def _header(
    above: Sequence[Sequence[str]], width: int, rows: Sequence[Sequence[str]], decimal: str
) -> tuple[list[str] | None, list[str]]:
    """Names and units from the records right above the first row."""
    names: list[str] | None = None
    units = [""] * width
    stack: list[list[str]] = []
    for row in reversed(above):
        cells = [cell.strip().strip("'\"") for cell in _fit(row, width)]
        if len(cells) > width and {cell.casefold() for cell in cells[width:]} <= _REMARKS:
            cells = cells[:width]
        if len(cells) > max(width, 2) and not stack and not any(map(_known, cells)):
            raise TSLMError(
                f"the line above the numbers has {len(cells)} names for {width} columns: {', '.join(cells[:6])}; "
                "leave it out with --skip-lines, or mend it"
            )
        if len(cells) == width - 1 and width > 1 and not stack and _row_names(rows, width):
            cells = ["", *cells]  # R leaves out the name of the column of row names
        if len(cells) < width and cells and len(row) < width:
            break
        if len(cells) != width or not any(cells):
            break
        label = cells[0].rstrip("=: ").casefold()
        if _LABEL.match(cells[0]) and (cells[0].endswith(("=", ":")) or label in ("unit", "units", "unitname")):
            if label in ("unitname", "unit", "units", "unit names"):
                units = ["", *cells[1:]]
            elif label == "range" and not any(units):
                units = [
                    "",
                    *(found[1] if (found := number(cell, ",") or number(cell, ".")) else "" for cell in cells[1:]),
                ]
            elif label in ("channeltitle", "channel title", "channel", "name", "names", "channels"):
                names = ["", *cells[1:]]
            continue
        stack.append(cells)
    if names is not None:
        return names, units
    texts: list[list[str]] = []
    for cells in stack:
        filled = [cell for cell in cells if cell]
        if all(cell.casefold() in _TYPES or cell.casefold().startswith("datetime:") for cell in filled):
            continue
        if all(map(_TYPE.fullmatch, filled)):
            continue
        if len(filled) > width / 2 and len(stack) > 1 and _units_row(filled):
            units = [bare[1] if (bare := re.fullmatch(r"[\[(](.*)[\])]", cell)) else cell for cell in cells]
            units = [
                unit if "hh" not in unit.casefold() and unit not in ("-", "timestamp") else "" for unit in units
            ]
            continue
        if any(number(cell, decimal) is not None for cell in filled[1:]) and not all(map(_known, filled)) and texts:
            break
        texts.append(cells)
    full = [cells for cells in texts if sum(map(bool, cells)) >= width - 1]
    for cells in full:
        if len(set(filter(None, cells))) >= sum(map(bool, cells)):
            return _with_first(cells, texts), units
    if len(full) > 1 and full[0] is not full[1]:
        return [
            " ".join(dict.fromkeys(filter(None, pair))) for pair in zip(_spread(full[1]), full[0], strict=True)
        ], units
    if full:
        spread = next(
            (_spread(cells) for cells in texts if cells is not full[0] and sum(map(bool, cells)) > 1), None
        )
        if spread:
            return [" ".join(filter(None, pair)) for pair in zip(spread, full[0], strict=True)], units
        return full[0], units
    if texts and sum(map(bool, texts[0])) > width / 2:
        return texts[0], units
    return None, units


def _row_names(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the first column names or counts the rows."""
    first = [row[0].strip() for row in rows if len(row) == width]
    if not first:
        return False
    counted = [str(at) for at in range(int(first[0]), int(first[0]) + len(first))] if first[0].isdigit() else []
    return first == counted or all(number(cell, ".") is None for cell in first)


def _with_first(cells: list[str], texts: Sequence[list[str]]) -> list[str]:
    """The names, the first column's from a line of its own (pandas writes one under several levels of names)."""
    lone = [other[0] for other in texts if other[0] and not any(other[1:])]
    return [lone[0], *cells[1:]] if lone else cells


def _spread(cells: Sequence[str]) -> list[str]:
    out: list[str] = []
    for cell in cells:
        out.append(cell or (out[-1] if out else ""))
    return out


def _units_row(cells: Sequence[str]) -> bool:
    plain = [bare[1] if (bare := re.fullmatch(r"[\[(](.*)[\])]", cell)) else cell for cell in cells]
    return all(
        is_unit(cell)
        or cell.casefold() in UNIT_OF
        or cell in ("-", "timestamp", "1")
        or "hh" in cell.casefold()
        or "yyyy" in cell.casefold()
        or cell == "CAL"
        for cell in plain
    ) and any(map(is_unit, plain))


def _commented(comments: Sequence[str], delimiter: str, width: int) -> list[str] | None:
    """Names that stand behind the last comment mark (numpy.savetxt writes them there)."""
    for line in comments[-1:]:
        if _DECLARED.match(line):
            continue
        bare = line.strip().lstrip("#%/").strip()
        cells = [
            cell.strip().strip("\"'") for cell in (_blanks(bare) if delimiter == " " else bare.split(delimiter))
        ]
        wide = width > 1 or (width == 1 and re.fullmatch(r"\w+", bare) is not None)
        if len(cells) == width and wide and not any(number(cell, ".") is not None for cell in cells):
            return cells
    return None


def _numbered(rows: Sequence[Sequence[str]], names: list[str] | None, decimal: str) -> bool:
    """Whether the first row numbers the columns, 0, 1, 2, as pandas names them."""
    if names is not None or len(rows) < 2 or len(rows[0]) < 2:
        return False
    top = [cell.strip() for cell in rows[0]]
    if top != [str(at) for at in range(len(top))] and top != [str(at + 1) for at in range(len(top))]:
        return False
    below = [cell for row in rows[1:20] for cell in row]
    if any(decimal in cell for cell in below):
        return True
    follows = [cell.strip() for cell in rows[1]] == [str(int(cell) + len(top)) for cell in top]
    return len(top) > 2 and not follows


def is_years(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds years behind its labels, and each of the others a series."""
    if len(rows) < 2:
        return False
    top = [cell.strip() for cell in rows[0] if cell.strip()]
    labels = next((at for at, cell in enumerate(top) if re.fullmatch(r"[12]\d{3}", cell)), 0)
    years = [int(cell) if re.fullmatch(r"[12]\d{3}", cell) else 0 for cell in top[labels:]]
    steps = {after - before for before, after in pairwise(years)}
    texts = all(not _known(cell) or is_missing(cell) for row in rows for cell in row[:labels])
    return labels > 0 and texts and len(years) > 2 and min(years) > 0 and len(steps) == 1 and min(steps) > 0


def _wordy(row: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    return any(cell[:1].isalpha() for cell in row)


def _aligned(text: str, line: str, width: int) -> list[str] | None:
    """Names with blanks in them, over columns that are parted by two blanks or more."""
    for raw in islice(io.StringIO(text), _SAMPLE):
        if " ".join(_blanks(raw)) == line:
            cells = [cell for cell in re.split(r"\s{2,}|\t", raw.strip()) if cell]
            return cells if len(cells) == width else None
    return None
