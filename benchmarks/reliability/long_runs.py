"""One process that works for long."""

from __future__ import annotations

import os
import re
from pathlib import Path

from benchmarks.reliability.cases import Run, case
from benchmarks.reliability.children import call, command, warm_up
from benchmarks.reliability.jobs import AIRLINE

_GROWTH = 40e6  # bytes that the second half of a run may add


@case("Long runs", "Hundreds of searches in one process hold its memory and its open files constant.")
def many_searches(run: Run) -> None:
    """Resident memory after a tenth, half and all of the searches, on series of different lengths."""
    warm_up()
    command(("convert", "demo", "--dtype", "float32", "-o", "model"), run.folder)
    count = 20 if run.short else 500
    model = run.folder / "model"
    found = call(lambda: _search(model, count), run.folder)
    run.figures |= {"searches": count} | found
    grown = found["MB at the end"] - found["MB half-way"]
    run.check(grown * 1e6 < _GROWTH, f"memory grew by {grown:.0f} MB in the second half")
    run.check(found["open files at the end"] <= found["open files after a tenth"], "files stay open")


def _search(folder: Path, count: int) -> dict[str, int]:
    import numpy as np

    import mlx_tslm

    model = mlx_tslm.load(folder)
    rng = np.random.default_rng(0)
    stage = mlx_tslm.stages.get("stage2")
    found: dict[str, int] = {}
    for number in range(count):
        series = rng.standard_normal(int(rng.integers(48, 257))).cumsum()
        mlx_tslm.tree_search(model, stage.prompt(series), num_rollouts=8, width=4, max_tokens=12, seed=number)
        for when, at in (("after a tenth", count // 10), ("half-way", count // 2), ("at the end", count)):
            if number + 1 == at:
                resident = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
                found[f"MB {when}"] = round(int(resident[1]) / 1e3) if resident else 0
                found[f"open files {when}"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return found


@case("Long runs", "What does not fit into memory is refused before it starts, with what would fit.")
def too_large(run: Run) -> None:
    """A search whose tree would take terabytes."""
    warm_up()
    command(("convert", "demo", "--dtype", "float32", "-o", "model"), run.folder)
    asked = ("search", "--model", "model", "--series", str(AIRLINE), "--column", "Passengers")
    ended = command(
        (*asked, "--num-rollouts", "100000000", "--width", "1000000", "--max-tokens", "1000"), run.folder
    )
    run.figures |= {"exit code": ended.code, "seconds": round(ended.seconds, 1)}
    run.check(ended.code == 2 and "GB are free" in ended.output, f"it is not refused: {ended.last_line[:200]}")
    run.check("what fits" in ended.output, f"it does not say what fits: {ended.last_line[:200]}")
