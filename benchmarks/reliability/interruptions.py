"""Commands that are killed, and begun again.

Of each command one run is left alone. Then it is killed at moments spread over that run's time, before and after
each rename, and around each other change of names (a file removed, a folder made). Each time what is on disk must
be whole or absent, the same command must finish, its result must be that of the run that was left alone, and the
folder must hold the same files, no more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.cases import Run, case
from benchmarks.reliability.children import NAME_CHANGES, RENAMES, Death, command, warm_up

MOMENTS, SHORT_MOMENTS = 50, 3
Contents = dict[str, Any]
"""A folder's files by their names within it, with what counts of each."""


@dataclass(frozen=True)
class Job:
    """A command to kill.

    Attributes:
        arguments: of `mlx-tslm`, the same each time; paths are relative to its folder.
        read: what counts of a finished run.
        faults: what is wrong with what a killed run has left, a line each.
        given: a folder to begin with, of which it gets a copy; an empty one where None.
        setup: called in the child before the command.
    """

    arguments: tuple[str, ...]
    read: Callable[[Path], Contents]
    faults: Callable[[Path], list[str]]
    given: Path | None = None
    setup: Callable[[], None] = lambda: None


def torment(run: Run, job: Job) -> None:
    """Kill a job everywhere, and count."""
    warm_up()
    whole = _fresh(run.folder / "whole", job)
    alone = command(job.arguments, whole, setup=job.setup)
    if not run.check(alone.code == 0, f"left alone it ends with {alone.code}: {alone.last_line}"):
        return
    expected = job.read(whole)
    moments = SHORT_MOMENTS if run.short else MOMENTS
    kinds = {
        "kills spread over its time": [
            Death(seconds=alone.seconds * (at + 0.5) / moments) for at in range(moments)
        ],
        "before and after renames": _around(RENAMES, alone.changes["renames"]),
        "around other changes of names": [] if run.short else _around(NAME_CHANGES, alone.changes["changes"]),
    }
    for kind, deaths in kinds.items():
        run.figures[kind] = 0
        for number, death in enumerate(deaths):
            _die_and_go_on(run, job, death, kind, run.folder / str(number), expected)


def _around(functions: tuple[str, ...], number: int) -> list[Death]:
    return [Death(change=at, after=after, functions=functions) for at in range(number) for after in (False, True)]


def _die_and_go_on(run: Run, job: Job, death: Death, kind: str, folder: Path, expected: Contents) -> None:
    _fresh(folder, job)
    killed = command(job.arguments, folder, death, job.setup)
    if killed.code == -death.signal:
        run.count(kind)
    else:  # it was faster than the moment
        run.check(killed.code == 0, f"to be killed {death}, it ends with {killed.code}: {killed.last_line}")
    for fault in job.faults(folder):
        run.check(False, f"killed {death}: {fault}")
    if job.read(folder) != expected:
        again = command(job.arguments, folder, setup=job.setup)
        run.check(again.code == 0, f"killed {death}, then ends with {again.code}: {again.last_line}")
        found = job.read(folder)
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        run.check(not odd, f"killed {death}, its result is another: {', '.join(odd)}")
    shutil.rmtree(folder)


def _fresh(folder: Path, job: Job) -> Path:
    """The job's folder as it is before the command."""
    if job.given is None:
        folder.mkdir()
    else:
        shutil.copytree(job.given, folder, symlinks=True)
    return folder


def contents(folder: Path, read: Callable[[Path], Any]) -> Contents:
    """All files below a folder, hidden ones too, each as `read` sees it."""
    return {str(path.relative_to(folder)): read(path) for path in sorted(folder.rglob("*")) if path.is_file()}


_CONVERT = ("convert", "demo", "--dtype", "float32", "-o", "model")


def _read_model(folder: Path) -> Contents:
    return contents(folder, Path.read_bytes)


def _faults_of_model(folder: Path) -> list[str]:
    """A model that is there is a whole one."""
    model = folder / "model"
    names = {path.name for path in model.iterdir()} if model.exists() else None
    needed = {"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "README.md"}
    return [f"model/ lacks {', '.join(needed - names)}"] if names is not None and needed - names else []


@case(
    "Interruptions",
    "A killed `convert` leaves a whole model or none, and the next run nothing else.",
)
def kills_of_convert(run: Run) -> None:
    """Into a new folder."""
    torment(run, Job(_CONVERT, _read_model, _faults_of_model))
