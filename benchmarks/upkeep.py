"""What share of a search's time the tree's upkeep takes once the tree has 10,000 nodes.

    python -m benchmarks.upkeep [--nodes 10000]

Upkeep is selecting where rollouts start, inserting their tokens, and backing up rewards, solving for the
weights included; the rest is decoding, behind rewards that cost nothing. A search in waves of 16 grows the
tree, and its last tenth counts. The demo is asked a question about an ECG. SmolLM2-135M has random weights of
that shape and a prompt of 512 positions; there the tree grows behind a tiny model, and its upkeep a step is set
against a decode step of as many rows. The load of the machine does not matter to a share, as long as it is the
same for both.
Appends one line to benchmarks/results/upkeep.jsonl.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import mlx_tslm
from benchmarks.suite.machine import describe
from benchmarks.suite.shapes import SHAPES, prompt_of, random_model
from benchmarks.suite.steppers import SharedPrefix, repeat
from mlx_tslm import data, stages
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.search import SearchConfig, presets
from mlx_tslm.search.engine import Engine
from mlx_tslm.search.tree import Tree
from mlx_tslm.stages.base import Prompt

RESULTS = Path(__file__).parent / "results" / "upkeep.jsonl"
WIDTH, LONGEST = 16, 64


def grow(model: CausalModel, prompt: Prompt, nodes: int) -> dict[str, float]:
    """Grow a tree to so many nodes; seconds of a step over its last tenth, all in all and in the tree's upkeep."""
    rng = np.random.default_rng(0)
    engine = Engine(
        model.decoder(model.prefill(prompt, LONGEST)),
        Tree(),
        presets.get("maxent-ts"),
        SearchConfig(width=WIDTH, max_tokens=LONGEST, inverse_temperature=10.0).resolved(model.sampling),
        LONGEST,
        model.eos_token_ids,
        lambda leaves: rng.random(len(leaves)),
    )
    marks: list[tuple[float, float]] = []

    def on_step() -> bool:
        if engine.tree.size > 0.9 * nodes:
            marks.append((time.perf_counter(), engine.seconds["select"] + engine.seconds["backup"]))
        return engine.tree.size < nodes

    engine.run(nodes, on_step)
    step, upkeep = (np.subtract(marks[-1], marks[0]) / (len(marks) - 1)).tolist()
    return {"nodes": engine.tree.size, "step": step, "upkeep": upkeep, "share": upkeep / step}


def demo(nodes: int) -> dict[str, float]:
    model = mlx_tslm.load("demo")
    rows = data.load("stage5", "test", source="synthetic", size=1)
    rows.stage = stages.get("stage5", model.config.leads)
    return grow(model, rows.stage.from_row(rows[0]).prompt, nodes)


def larger(nodes: int) -> dict[str, float]:
    tiny, model = random_model(SHAPES["tiny"]), random_model(SHAPES["SmolLM2-135M"])
    grown = grow(tiny, prompt_of(tiny, 64), nodes)
    stepper = SharedPrefix(model, model.prefill(prompt_of(model, 512)), WIDTH)
    repeat(stepper, 8)
    began = time.perf_counter()
    repeat(stepper, 16)
    mx.synchronize()
    step = (time.perf_counter() - began) / 16 + grown["upkeep"]
    return grown | {"step": step, "share": grown["upkeep"] / step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    args = parser.parse_args()
    found: dict[str, Any] = {"demo": demo(args.nodes), "SmolLM2-135M": larger(args.nodes)}
    for name, one in found.items():
        print(
            f"{name}: {100 * one['share']:.2f} % of a step, {1e3 * one['upkeep']:.2f} of {1e3 * one['step']:.1f} ms"
        )
    line = {"benchmark": "upkeep", "date": time.strftime("%Y-%m-%d"), "machine": describe(), "width": WIDTH}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line | found) + "\n")


if __name__ == "__main__":
    main()
