"""Commands that are killed, and begun again.

Of each command one run is left alone. Then it is killed at moments spread over that run's time, before and after
each rename, and around each other change of names (a file removed, a folder made). Each time what is on disk must
be whole or absent, the same command must finish, its result must be that of the run that was left alone, and the
folder must hold the same files, no more.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.cases import Run, case
from benchmarks.reliability.children import NAME_CHANGES, RENAMES, Death, command, warm_up
from benchmarks.reliability.jobs import JOBS, Contents, Job

MOMENTS = 50


def torment(run: Run, job: Job) -> None:
    """Kill a job everywhere, and count."""
    warm_up()
    whole = _fresh(run.folder / "whole", job)
    alone = command(job.arguments, whole, setup=job.setup)
    if not run.check(alone.code == 0, f"left alone it ends with {alone.code}: {alone.last_line}"):
        return
    expected = job.read(whole)
    moments = 1 if run.short else MOMENTS
    kinds = {
        "kills spread over its time": [
            Death(seconds=alone.seconds * (at + 0.5) / moments) for at in range(moments)
        ],
        "before and after renames": _around(RENAMES, alone.changes["renames"]),
        "around other changes of names": [] if run.short else _around(NAME_CHANGES, alone.changes["changes"]),
    }
    for kind, deaths in kinds.items():
        run.figures[kind] = 0
        for number, death in enumerate(deaths[:: max(1, len(deaths) - 1)] if run.short else deaths):
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


def _kill(name: str) -> Callable[[Run], None]:
    """The case that kills one of `JOBS`."""

    def function(run: Run) -> None:
        warm_up()
        with JOBS[name](run.folder) as job:
            torment(run, job)

    function.__name__ = f"kills_of_{name}"
    return function


for _name, _promise in {
    "convert": "A killed `convert` leaves a whole model or none, and the next run nothing else.",
    "replacement": "A killed `convert --force` leaves the old model or the new one, at every moment.",
    "fetch": "A killed `data fetch` goes on from the bytes it has, and leaves the data set alone.",
    "search": "A killed `search --json` leaves the old file or the whole new one.",
    "eval": "A killed `eval` loses no finished sample; its figures are those of a run left alone.",
    "train": "A killed `train` goes on; weights, log and models are those of a run left alone.",
    "bench": "A killed `bench run` keeps what it measured and measures the rest.",
}.items():
    case("Interruptions", _promise)(_kill(_name))


@case("Interruptions", "Ctrl-C ends every command in words: what was kept is said, and nothing half-made stays.")
def ctrl_c(run: Run) -> None:
    """Each job, interrupted at moments spread over its time; then it is run to its end."""
    warm_up()
    moments = 1 if run.short else 6
    run.figures |= {"commands": len(JOBS), "interrupted": 0, "told what was kept": 0}
    for name, make in JOBS.items():
        home = run.folder / f"of-{name}"
        home.mkdir()
        with make(home) as job:
            whole = _fresh(home / "whole", job)
            alone = command(job.arguments, whole, setup=job.setup)
            expected = job.read(whole)
            for at in range(moments):
                folder = _fresh(home / str(at), job)
                death = Death(seconds=alone.seconds * (at + 0.5) / moments, signal=signal.SIGINT)
                ended = command(job.arguments, folder, death, job.setup)
                run.check(ended.code in (0, 130), f"{name}, Ctrl-C {death}: it ends with {ended.code}")
                run.check("Traceback" not in ended.output, f"{name}, Ctrl-C {death}: a traceback")
                run.count("interrupted", int(ended.code == 130))
                run.count("told what was kept", int(any(word in ended.output for word in _TOLD)))
                for fault in job.faults(folder):
                    run.check(False, f"{name}, Ctrl-C {death}: {fault}")
                if job.read(folder) != expected:
                    again = command(job.arguments, folder, setup=job.setup)
                    run.check(again.code == 0, f"{name}, Ctrl-C {death}, then: {again.last_line}")
                    run.check(job.read(folder) == expected, f"{name}, Ctrl-C {death}: its result is another")
                shutil.rmtree(folder)


_TOLD = ("is kept", "are kept", "was kept", "saved", "nothing was written", "the whole result is in")
