"""How well the reward alone tells which final answer is true, without a model and without a rationale.

    python -m benchmarks.labels [--size 60] [--seed 5] [--what NAME]

Every allowed answer of synthetic recordings (validation split, both sources) is scored by itself, and the best one
counts; ties are split. Stage 5's questions are those that offer a closed set. Appends one line to
benchmarks/results/labels.jsonl; `--what` says which state of the code was measured.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from mlx_tslm import data
from mlx_tslm.completion import Completion
from mlx_tslm.rewards import default_reward

RESULTS = Path(__file__).parent / "results" / "labels.jsonl"
STAGES = ("stage1", "stage3", "stage4", "stage5")


def main() -> None:
    """Measure, print, and append the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--what", default="now")
    options = parser.parse_args()
    found = {
        f"{stage} {source}": accuracy(stage, source, options.size, options.seed)
        for stage in STAGES
        for source in ("synthetic", "realistic")
    }
    for name, row in found.items():
        print(
            f"{name:18} {100 * row['right']:5.1f} % of {row['asked']}, alone at the top {100 * row['alone']:5.1f} %"
        )
    line = {"date": time.strftime("%Y-%m-%d"), "what": options.what, "seed": options.seed, "found": found}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def accuracy(stage: str, source: str, size: int, seed: int) -> dict[str, float]:
    """Share of the questions whose true answer is scored best, ties split, and where it is alone there."""
    rows = data.load(stage, "validation", source=source, seed=seed, size=size)  # type: ignore[arg-type]
    right, alone = [], []
    for row in rows:
        question, honest = rows.stage.from_row(row)
        truth = question.parse(honest)
        labels = list(question.labels or ())
        if truth not in labels:
            continue
        texts = [f"Answer: {label}" if rows.stage.marker else label for label in labels]
        told = [Completion(text, (0,), -1.0, question.parse(text)) for text in texts]
        total = default_reward(rows.stage).score(told, question).total.round(6)
        best = np.flatnonzero(total == total.max())
        hit = labels.index(truth) in best
        right.append(hit / len(best))
        alone.append(hit and len(best) == 1)
    return {"asked": len(right), "right": float(np.mean(right)), "alone": float(np.mean(alone))}


if __name__ == "__main__":
    main()
