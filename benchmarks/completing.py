"""What label completion costs: the same search of the demo model with it and without, in turn.

    python -m benchmarks.completing [--times 7]

Stage 5 with the rhythm template's ten answers, 16 rollouts, four at a time; each run has its own recording and a
fresh reward. What counts is the ratio of the medians of the whole searches. Appends one line to
benchmarks/results/completing.jsonl.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import mlx_tslm
from benchmarks.suite.machine import describe
from mlx_tslm import conversion, data
from mlx_tslm.search import MaxEntTS, SearchConfig

RESULTS = Path(__file__).parent / "results" / "completing.jsonl"


def main() -> None:
    """Measure, print, and append the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        conversion.convert("demo", Path(folder) / "model")
        model = mlx_tslm.load(Path(folder) / "model")
        rows = data.load("stage5", "validation", source="synthetic", seed=11, size=6 * times)
        asked = [row for row in rows if row["template_id"] == 10][: times + 1]
        seconds: dict[bool, list[float]] = {True: [], False: []}
        judged: dict[bool, list[float]] = {True: [], False: []}
        for number, row in enumerate(asked):
            for complete in (True, False) if number % 2 else (False, True):
                # Each its own question, so that no measurement of the recording is there already.
                question = rows.stage.from_row(row).prompt
                config = SearchConfig(
                    num_rollouts=16, width=4, max_tokens=96, seed=number, complete_answers=complete
                )
                began = time.perf_counter()
                result = MaxEntTS(model, None, config).search(question)
                if number:  # the first is warming up
                    seconds[complete].append(time.perf_counter() - began)
                    judged[complete].append(result.stats.seconds["reward"])
    ratio = median(seconds[True]) / median(seconds[False])
    rewards = {complete: median(judged[complete]) for complete in judged}
    print(f"with {median(seconds[True]):.2f} s, without {median(seconds[False]):.2f} s: {100 * (ratio - 1):+.1f} %")
    print(f"of which rewards {rewards[True]:.2f} and {rewards[False]:.2f} s")
    line = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(),
        "ratio": ratio,
        "with": seconds[True],
        "without": seconds[False],
        "rewards_with": judged[True],
        "rewards_without": judged[False],
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")


if __name__ == "__main__":
    main()
