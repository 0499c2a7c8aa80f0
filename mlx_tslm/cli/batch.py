"""`search --batch`: one search for each recording of files and folders, one JSON line each."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_tslm.cli.reading import Reading
from mlx_tslm.cli.terminal import console, one_line, progress_bar, status
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.search import SearchResult
    from mlx_tslm.signals import Recording


def batch(
    paths: list[Path],
    json_file: str | None,
    reading: Reading,
    search: Callable[[Path, Reading], "tuple[SearchResult, list[Recording]]"],
) -> None:
    """Search every case of every file, and go on where one cannot be read.

    Args:
        paths: files, and folders whose files are taken by their names.
        json_file: gets one object a line: `series`, `case`, and either `error`, or `recordings` (what was read),
            `best` (text, answer, reward, log-probability), `answers` (answer → weight) and `root_value`.
        search: (file, how it is read) → the result and what was read.

    Raises:
        TSLMError: there is no recording, or none could be read.
    """
    from mlx_tslm import signals

    found = [pair for path in paths for pair in signals.cases(path, reading.how())]
    if not found:
        known = ", ".join(signals.FILE_TYPES)
        raise TSLMError(f"there is no recording in {', '.join(map(str, paths))}; known types are {known}")
    failures: list[str] = []
    lines = nullcontext(sys.stdout if json_file else None)
    if json_file and json_file != "-":
        lines = Path(json_file).open("w", encoding="utf-8")  # type: ignore[assignment]  # noqa: SIM115
    with progress_bar() as bars, lines as out:
        task = bars.add_task("recordings", total=len(found))
        for file, case in found:
            line: dict[str, Any] = {"series": str(file), "case": case}
            name = f"{file.name}{f' [{case}]' if case is not None else ''}"
            try:
                result, recordings = search(file, reading.of_case(case))
                line |= _found(result) | {"recordings": [recording.summary() for recording in recordings]}
                console.print(f"{name}: {one_line(result.best.answer or result.best.text, 100)}", markup=False)
            except TSLMError as error:
                line["error"] = str(error)
                failures.append(str(error))
                status.print(f"[yellow]left out:[/] {name}: ", end="")
                status.print(str(error), markup=False, soft_wrap=True)
            if out is not None:
                print(json.dumps(line, ensure_ascii=False), file=out, flush=True)
            bars.advance(task)
    if len(failures) == len(found):
        raise TSLMError(f"none of the {len(found)} recordings could be answered; the first: {failures[0]}")


def _found(result: "SearchResult") -> dict[str, Any]:
    best = result.best
    return {
        "best": {"text": best.text, "answer": best.answer, "reward": best.reward, "logprob": best.logprob},
        "answers": result.answers,
        "root_value": result.root_value,
    }
