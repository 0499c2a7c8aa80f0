"""How things look in a terminal: tables, bars, panels. Results go to stdout, all else to stderr.

Names, files and models are strangers: whatever they hold is shown, and neither obeyed (control sequences) nor
interpreted (Rich's markup and emoji).
"""

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mlx_tslm.errors import brief, visible

_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120  # of what goes to a file or a pipe


class _SafeConsole(Console):
    """A console on which no text has a say over the terminal, wherever it comes from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def _console(**options: Any) -> Console:
    return _SafeConsole(highlight=False, markup=False, emoji=False, width=_WIDTH, **options)


console = _console()
"""For results."""

status = _console(stderr=True)
"""For progress, drawings, notes and errors."""


verbose = False
"""Whether errors are shown with where they come from."""


def speak(quiet: bool = False, verbose: bool = False) -> None:
    """How much is said beside results: with `quiet` only errors, with `verbose` what is done, step by step."""
    globals()["verbose"] = verbose
    status.quiet = quiet
    handlers: list[logging.Handler] = []
    if verbose:
        from rich.logging import RichHandler

        handlers = [RichHandler(console=status, show_path=False)]
    for name in ("mlx_tslm", "huggingface_hub"):
        logger = logging.getLogger(name)
        logger.handlers = handlers
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.NOTSET)


def results_to_stderr(wanted: bool = True) -> None:
    """Print what is for people on stderr: stdout is for a program, or no more."""
    console.stderr = wanted


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A plain table; a column whose heading starts with ">" is aligned to the right."""
    result = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        result.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(visible(str(cell))) for cell in row))
    return result


def facts(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one pair a line."""
    result = Table.grid(padding=(0, 2))
    result.add_column(style="dim", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in pairs:
        result.add_row(name, Text(visible(str(value))))
    return result


def bar(share: float, width: int = 24) -> Text:
    """A share of 1 as a bar, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style="cyan")


def shares(weights: Iterable[tuple[str, float]]) -> Table:
    """Names with their shares of 1, as numbers and bars."""
    result = Table.grid(padding=(0, 2))
    result.add_column(overflow="fold", max_width=60)
    result.add_column(justify="right", no_wrap=True)
    result.add_column(no_wrap=True)
    for name, weight in weights:
        result.add_row(Text(visible(name)), f"{weight:.3f}", bar(weight))
    return result


def panel(body: str, title: str = "", subtitle: str = "", style: str = "dim") -> Panel:
    """Text in a frame."""
    return Panel(
        Text(visible(body)),
        title=Text(visible(title, lines=False)),
        subtitle=Text(visible(subtitle, lines=False)),
        title_align="left",
        subtitle_align="right",
        border_style=style,
        box=box.ROUNDED,
        expand=False,
    )


def one_line(text: str, width: int) -> str:
    """Text on one line, its end left out where it is longer than `width`."""
    text = visible(" ".join(text.split()))
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def percent(share: float) -> str:
    """A share of 1 in whole percent; what is neither all nor nothing does not look so."""
    if 0 < share < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def plural(count: int, noun: str) -> str:
    """A number of things: "1 wave", "4 waves"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def note(text: str) -> None:
    """A remark about what was done with the input."""
    status.print(Text(f"note: {visible(brief(text), lines=False)}", style="yellow"), soft_wrap=True)


@contextmanager
def if_interrupted(kept: str) -> Iterator[None]:
    """Say on Ctrl-C what was kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        note(kept)
        raise


def progress_bar() -> Progress:
    """Bars with percent and time left; nothing is left of them when they are done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=status,
        transient=True,
    )


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life while something is done that has no parts to count."""
    with status.status(Text(visible(what, lines=False))):
        yield


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON in which what a terminal would obey is escaped as JSON does, and reads back the same."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    if visible(text) == text:
        return text
    return "".join(one if visible(one) == one else _in_json(one) for one in text)


def print_json(content: Any, file: Any = None) -> None:
    """One JSON object on one line, see `json_text`."""
    print(json_text(content), file=file, flush=True)


def _in_json(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else json.dumps(one)[1:-1]


class Notes(logging.Handler):
    """What the package logs, as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())
