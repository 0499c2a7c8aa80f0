"""How many samples a second greedy evaluation answers, batched across samples and one at a time.

    python benchmarks/answering.py MODEL [--items 32] [--rounds 5]

MODEL is a converted folder, best in float32 on a CPU. Describes synthetic test series (stage 2) with widths 1, 4
and 16 in turns, after a round that does not count, and appends the figures, with medians of the ratios within each
round, as one line to benchmarks/results/answering.jsonl.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import mlx_tslm
from benchmarks.suite.machine import describe
from mlx_tslm import data
from mlx_tslm.cli.terminal import console, facts
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.system.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "answering.jsonl"
WIDTHS = (1, 4, 16)


def main() -> None:
    keep_freed_memory()
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = mlx_tslm.load(options.model)
    rows = data.load("stage2", "test", source="synthetic", size=options.items)
    prompts = [rows.stage.from_row(row).prompt for row in rows]

    def seconds(width: int) -> float:
        began = time.perf_counter()
        answered = sum(1 for _ in generate_batch(model, prompts, width=width, max_tokens=64))
        assert answered == len(prompts)
        return time.perf_counter() - began

    rounds = [[seconds(width) for width in WIDTHS] for _ in range(options.rounds + 1)][1:]
    figures = {
        "benchmark": "answering",
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(),
        "items": options.items,
        "rounds": options.rounds,
        **{
            f"samples_per_second_width_{width}": round(options.items / float(np.median([r[i] for r in rounds])), 2)
            for i, width in enumerate(WIDTHS)
        },
        **{
            f"width_{width}_over_one_at_a_time": round(statistics.median(r[0] / r[i] for r in rounds), 2)
            for i, width in enumerate(WIDTHS)
            if width > 1
        },
    }
    console.print(facts(figures.items()))
    with RESULTS.open("a") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
