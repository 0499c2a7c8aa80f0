"""`search --batch`: one search for each recording of files and folders, one JSON line each."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_tslm.cli.reading import Reading
from mlx_tslm.cli.terminal import console, one_line, percent, print_json, progress_bar, status
from mlx_tslm.errors import TSLMError, visible

if TYPE_CHECKING:
    from mlx_tslm.cli.options import Asked
    from mlx_tslm.search import SearchResult


def batch(
    paths: list[Path],
    json_file: str | None,
    reading: Reading,
    search: Callable[[Path, Reading], "tuple[SearchResult, Asked]"],
) -> None:
    """Search every case of every file, and go on where one cannot be read.

    Args:
        paths: files, and folders whose files are taken by their names.
        json_file: gets one object a line: `series`, `case`, and either `error`, or `recordings` (what was read),
            `notes`, `root_value` and what `SearchResult.summary` says.
        search: (file, how it is read) → the result and what was asked.

    Raises:
        TSLMError: there is no recording, or none could be read.
    """
    from mlx_tslm import signals
    from mlx_tslm.stages import worded

    found = [pair for path in paths for pair in signals.cases(path, reading.how())]
    if not found:
        known = ", ".join(signals.FILE_TYPES)
        raise TSLMError(f"there is no recording in {', '.join(map(str, paths))}; known types are {known}")
    failures: list[str] = []
    with progress_bar() as bars, _opened(json_file) as out:
        task = bars.add_task("recordings", total=len(found))
        for file, case in found:
            line: dict[str, Any] = {"series": str(file), "case": case}
            name = f"{file.name}{f' [{case}]' if case is not None else ''}"
            try:
                result, asked = search(file, reading.of_case(case))
                line |= result.summary() | {"root_value": result.root_value}
                line |= {
                    "recordings": [recording.summary() for recording in asked.recordings],
                    "notes": [*asked.notes, *result.notes],
                }
                said = one_line(worded(result.headline, asked.question.labels), 100)
                sure = f" ({percent(result.confidence)})" if result.answer is not None else ""
                console.print(visible(f"{name}: {said}{sure}", lines=False))
            except TSLMError as error:
                line["error"] = str(error)
                failures.append(str(error))
                status.print("left out: ", style="yellow", end="")
                status.print(visible(f"{name}: {error}", lines=False), soft_wrap=True)
            if out is not None:
                print_json(line, out)
            bars.advance(task)
    if len(failures) == len(found):
        raise TSLMError(f"none of the {len(found)} recordings could be answered; the first: {failures[0]}")


def _opened(file: str | None) -> AbstractContextManager[Any]:
    if file is None or file == "-":
        return nullcontext(sys.stdout if file else None)
    return Path(file).open("w", encoding="utf-8", errors="backslashreplace")  # a file's name need not be text
