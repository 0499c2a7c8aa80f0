"""Commands in processes of their own, which die when they are told to.

A child is forked from this process, which has imported everything and let MLX compute nothing yet: an import takes
seconds, a fork none. Where it dies before or after a change of names it does so by itself, at exactly that place;
at a moment in time it is killed from outside.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mlx_tslm import files
from mlx_tslm.cli import main

_OTHER_CHANGES = ("unlink", "remove", "rmdir", "mkdir")
_EXCHANGE = "exchange"  # of `mlx_tslm.files`; all others are of `os`, and `pathlib` and `shutil` call them too
RENAMES = ("rename", "replace", _EXCHANGE)
NAME_CHANGES = (*RENAMES, *_OTHER_CHANGES)
"""Functions that change what a folder holds."""

LIMIT = 300.0
"""Seconds after which a child is taken for stuck."""

_EVERYTHING = (
    "mlx_lm.tokenizer_utils",
    "sacrebleu",
    "sklearn.metrics",
    "rouge_score.rouge_scorer",
    "transformers",
    "benchmarks.suite.run",
    "mlx_tslm.conversion",
    "mlx_tslm.evaluation",
    "mlx_tslm.report",
    "mlx_tslm.search",
    "mlx_tslm.training.run",
)


@dataclass(frozen=True)
class Death:
    """When a child gets its signal: `seconds` after its start, or at a change of names, counted from 0.

    Attributes:
        seconds: the moment; None where `change` says it.
        change: which call of `functions`.
        after: just after that call, else just before it.
        functions: which are counted, `RENAMES` or `NAME_CHANGES`.
        signal: SIGKILL, or SIGINT for a Ctrl-C.
    """

    seconds: float | None = None
    change: int | None = None
    after: bool = False
    functions: tuple[str, ...] = RENAMES
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"after {self.seconds:.2f} s"
        return f"{'after' if self.after else 'before'} {' or '.join(self.functions)} number {self.change}"


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; minus the signal that ended it.
        seconds: it took.
        output: what it printed, on either stream.
        changes: of each kind of name change that was counted, how many there were.
    """

    code: int
    seconds: float
    output: str
    changes: dict[str, int]

    @property
    def last_line(self) -> str:
        return (self.output.strip().split("\n") or [""])[-1].strip()


def warm_up() -> None:
    """Import what commands import, so that children need not."""
    for name in _EVERYTHING:
        import_module(name)


def command(
    arguments: Sequence[str], folder: Path, death: Death | None = None, setup: Callable[[], None] = lambda: None
) -> Ended:
    """Run `mlx-tslm ARGUMENTS` in a child.

    Args:
        folder: its working directory; its cache is `cache` in it, and it is offline.
        death: when it dies, if it does.
        setup: called in the child first.
    """

    def work() -> int:
        os.environ |= {"MLX_TSLM_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        setup()
        return main(list(arguments))

    return run(work, folder, death)


def run(work: Callable[[], int], folder: Path, death: Death | None = None) -> Ended:
    """Run a function in a child, in a folder; what it returns is the exit code."""
    printed, counted = folder.parent / f"{folder.name}.printed", folder.parent / f"{folder.name}.counted"
    sys.stdout.flush()
    sys.stderr.flush()
    printed.touch()
    started = time.perf_counter()
    pid = os.fork()
    if not pid:
        _child(work, folder, death, printed, counted)  # does not return
    if death is not None and death.seconds is not None and _wait(pid, started + death.seconds) is None:
        os.kill(pid, death.signal)
    status = _wait(pid, started + LIMIT)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        status = _wait(pid, time.perf_counter() + 60) or (signal.SIGKILL,)
    seconds, output = time.perf_counter() - started, printed.read_text("utf-8", "replace")
    changes = json.loads(counted.read_text()) if counted.exists() else {}
    for file in (printed, counted):
        file.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(status[0]), seconds, output, changes)


def call(function: Callable[[], Any], folder: Path) -> Any:
    """What a function returns, as JSON takes it, from a child of its own.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    answer = folder.parent / f"{folder.name}.answer"

    def work() -> int:
        answer.write_text(json.dumps(function()))
        return 0

    ended = run(work, folder)
    if ended.code:
        raise RuntimeError(f"exit code {ended.code}: {ended.output[-2000:]}")
    found = json.loads(answer.read_text())
    answer.unlink()
    return found


_statuses: dict[int, int] = {}


def _wait(pid: int, until: float) -> tuple[int] | None:
    """The status of a child that has ended by then, in a tuple; None where it has not."""
    while pid not in _statuses:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _statuses[pid] = status
        elif time.perf_counter() >= until:
            return None
        else:
            time.sleep(0.002)
    return (_statuses[pid],)


def _child(work: Callable[[], int], folder: Path, death: Death | None, printed: Path, counted: Path) -> None:
    """What the forked process does; it ends here."""
    code = 70
    try:
        handle = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.chdir(folder)
        counts = _watch(death)
        code = work()
        counted.write_text(json.dumps(counts))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(death: Death | None) -> dict[str, int]:
    """Count changes of names, and die at the one that `death` names."""
    counts = {"renames": 0, "changes": 0}

    def watched(name: str, module: Any = os) -> None:
        real = getattr(module, name)

        def change(*args: Any, **more: Any) -> Any:
            at = {RENAMES: counts["renames"], NAME_CHANGES: counts["changes"]}
            fatal = (
                death is not None and death.change is not None and name in death.functions
                and at[death.functions] == death.change
            )  # fmt: skip
            counts["changes"] += 1
            counts["renames"] += name in RENAMES
            if fatal and death is not None and not death.after:
                os.kill(os.getpid(), death.signal)
            done = real(*args, **more)
            if fatal and death is not None and death.after:
                os.kill(os.getpid(), death.signal)
            return done

        setattr(module, name, change)

    for name in ("rename", "replace", *_OTHER_CHANGES):
        watched(name)
    watched(_EXCHANGE, files)
    return counts
