"""How fast, and in how much memory, tables of a million samples and more are read.

    python benchmarks/reading.py

Makes each file in a temporary folder, reads it in a process of its own, and appends the figures as one line to
benchmarks/results/reading.jsonl: seconds of `signals.read`, the process's peak memory above what it had before, and
that as a multiple of the array. The first reading of each file does not count; the median of three others does.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "reading.jsonl"
BEGAN = datetime(2024, 3, 1)


def make(folder: Path) -> list[Path]:
    """The files: columns of numbers, one column, ISO times beside numbers, and a German spreadsheet's table."""
    rng = np.random.default_rng(0)
    paths = [folder / name for name in ("numbers_500000x4.csv", "numbers_1000000x1.csv", "iso_500000x2.csv",
                                        "german_300000x2.csv")]  # fmt: skip
    np.savetxt(paths[0], rng.normal(size=(500_000, 4)), delimiter=",", fmt="%.5f", header="a,b,c,d", comments="")
    np.savetxt(paths[1], rng.normal(size=(1_000_000, 1)), delimiter=",", fmt="%.5f", header="a", comments="")
    values = rng.normal(size=(500_000, 2)).round(5).tolist()
    with paths[2].open("w") as file:
        file.write("time,a,b\n")
        for at, (a, b) in enumerate(values):
            file.write(f"{(BEGAN + timedelta(milliseconds=20 * at)).isoformat(timespec='milliseconds')},{a},{b}\n")
    with paths[3].open("w") as file:
        file.write("Zeit;a;b\n")
        for at, (a, b) in enumerate(values[:300_000]):
            when = (BEGAN + timedelta(seconds=at)).strftime("%d.%m.%Y %H:%M:%S")
            file.write(f"{when};{a};{b}\n".replace(".", ",").replace(",", ".", 2))
    return paths


def measure(path: str) -> dict[str, object]:
    """Read a file four times in this process."""
    from mlx_tslm.signals import read

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        recording = read(path)
        seconds.append(time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    return {
        "file": Path(path).name,
        "megabytes": round(Path(path).stat().st_size / 1e6, 1),
        "samples": recording.values.size,
        "rate": recording.rate,
        "seconds": round(statistics.median(seconds[1:]), 3),
        "added_bytes": added,
        "times_the_array": round(added / recording.values.nbytes, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", help="read this file in this process, and print the figures")
    given = parser.parse_args()
    if given.file:
        print(json.dumps(measure(given.file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for path in make(Path(folder)):
            command = [sys.executable, __file__, "--file", str(path)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(json.dumps(found[-1]))
    line = {
        "date": datetime.now().isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load_average": round(os.getloadavg()[0], 1),
        "files": found,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
