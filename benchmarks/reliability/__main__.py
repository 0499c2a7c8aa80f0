"""Tries every promise, or those that are named, and writes what was found.

    scripts/torture [--only CASE …] [--short] [--list]

Each case appends a line to benchmarks/results/reliability.jsonl, from which benchmarks/RELIABILITY.md is written.
With --short a few tries of each, and nothing is written. The exit code is 1 where a promise was broken.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.reliability import page
from benchmarks.reliability.cases import CASES, Case, Run
from benchmarks.reliability.modules import load
from benchmarks.suite.machine import describe
from mlx_tslm.files import write_atomically
from mlx_tslm.system.allocator import keep_freed_memory

BENCHMARKS = Path(__file__).parents[1]
RESULTS = BENCHMARKS / "results" / "reliability.jsonl"


def attempt(case: Case, short: bool) -> tuple[Run, float]:
    """Run one case in a folder of its own; what it raises is a fault too."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        run = Run(Path(folder).resolve(), short)
        try:
            case.function(run)
        except Exception as error:
            run.faults.append(f"the case itself failed: {type(error).__name__}: {error}")
    return run, time.perf_counter() - started


def main() -> int:
    """Run the cases, print what they found, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases; all by default")
    parser.add_argument("--short", action="store_true", help="a few tries of each; nothing is written")
    parser.add_argument("--list", action="store_true", help="name the cases and what they promise")
    options = parser.parse_args()
    load()
    if unknown := [name for name in options.only or () if name not in CASES]:
        parser.error(f"there is no case {unknown[0]}; --list names them")
    chosen = [CASES[name] for name in options.only or CASES]
    if options.list:
        for case in chosen:
            print(f"{case.name}: {case.promise}")
        return 0
    keep_freed_memory()
    broken = 0
    for case in chosen:
        run, seconds = attempt(case, options.short)
        figures = ", ".join(f"{name} {value}" for name, value in run.figures.items())
        print(f"{'BROKEN' if run.faults else 'kept'}  {case.name}: {figures} ({seconds:.0f} s)", flush=True)
        for fault in run.faults:
            print(f"        {fault}", flush=True)
        broken += bool(run.faults)
        if not options.short:
            machine = describe()
            line = {
                "case": case.name,
                "part": case.part,
                "promise": case.promise,
                "figures": run.figures,
                "faults": run.faults,
                "seconds": round(seconds, 1),
                "date": time.strftime("%Y-%m-%d"),
                "machine": machine["id"],
                "commit": machine["commit"],
            }
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if not options.short:
        write_atomically(BENCHMARKS / "RELIABILITY.md", page.page(RESULTS))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
