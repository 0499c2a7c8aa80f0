"""How fast, and in how much memory, a file of the size of HAR CoT is listed and read.

    python benchmarks/loading.py [--rows 40000] [--samples 128]

Makes a file of that many rows in a temporary folder (three lists of numbers as text, a label, a rationale),
opens it with `mlx_tslm.data.load`, reads every row of it, then rows at random, and appends the figures as one
line to benchmarks/results/loading.jsonl. Reading a row includes parsing its lists and checking its values.
"""

import argparse
import csv
import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from mlx_tslm import data
from mlx_tslm.cli.terminal import console, facts

RESULTS = Path(__file__).parent / "results" / "loading.jsonl"


def make(path: Path, rows: int, samples: int) -> None:
    """Write a HAR CoT file of random numbers, of 16 digits each as Python writes them."""
    rng = np.random.default_rng(0)
    axes = [str((9.81 * rng.standard_normal(samples)).tolist()) for _ in range(997)]
    labels = ("biking", "lying", "running", "sitting", "standing", "walking", "walking_down", "walking_up")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("x_axis", "y_axis", "z_axis", "label", "rationale"))
        for row in range(rows):
            label = labels[row % len(labels)]
            rationale = "The signal, taken as a whole, swings about its mean. " * 12 + f"Answer: {label}"
            writer.writerow(
                (axes[row % 997], axes[(3 * row + 1) % 997], axes[(7 * row + 2) % 997], label, rationale)
            )


def peak_memory() -> int:
    """The most memory that this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(rows: int, samples: int) -> dict[str, object]:
    """Make the file, open it, read it; the figures of one line of results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "har_cot_train_cot.csv"
        make(path, rows, samples)
        before = peak_memory()
        start = time.perf_counter()
        dataset = data.load("stage3", "train", folder)
        listed = time.perf_counter()
        total = sum(float(row["x_axis"][0]) for row in dataset)
        read = time.perf_counter()
        picks = np.random.default_rng(1).integers(0, rows, 2000)
        for pick in picks:
            dataset[int(pick)]
        picked = time.perf_counter()
        if len(dataset) != rows or not np.isfinite(total):
            raise AssertionError("the rows that were read are not those that were written")
        return {
            "benchmark": "loading",
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "numpy": np.__version__,
            "rows": rows,
            "samples": samples,
            "file_bytes": path.stat().st_size,
            "list_seconds": round(listed - start, 3),
            "list_rows_per_second": round(rows / (listed - start)),
            "read_rows_per_second": round(rows / (read - listed)),
            "random_rows_per_second": round(len(picks) / (picked - read)),
            "memory_before_bytes": before,
            "memory_peak_bytes": peak_memory(),
        }


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--samples", type=int, default=128, help="of each of the three lists")
    options = parser.parse_args()
    figures = measure(options.rows, options.samples)
    bytes_of = ("file_bytes", "memory_before_bytes", "memory_peak_bytes")
    console.print(facts((k, decimal(round(float(str(v)))) if k in bytes_of else v) for k, v in figures.items()))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
