"""How many examples a task of one's own takes: which of four faults a vibration shows, from the demo model.

    python benchmarks/own_task.py [--sizes 20 40 80 160 320] [--test 100] [--work DIR]

Recordings of machines are made from a seed: a quarter second of acceleration at 1 kHz, of machines that differ in
speed, gain and noise, none of which is in two splits. For each size, `mlx-tslm train` learns from a table with so
many examples (and a quarter as many to validate on) and `mlx-tslm eval` answers the same test recordings, by the
command line. No stage of the demo model has such a task.

Appends a line a size to benchmarks/results/own_task.jsonl as soon as it is measured, with the seconds it took, and
draws benchmarks/results/own_task.svg. A size that is there already for this machine and test is not done again,
and a training that was stopped goes on from its checkpoint in DIR.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import mlx_tslm  # noqa: F401  before MLX: it loads the BLAS that MLX is to use

# isort: split
import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.machine import describe
from mlx_tslm.charts import COLOURS, Line, Panel, chart
from mlx_tslm.cli import main as command
from mlx_tslm.files import write_atomically

RESULTS = Path(__file__).parent / "results"
FAULTS = ("bearing", "looseness", "misalignment", "unbalance")
RATE, SAMPLES, PER_MACHINE = 1000, 256, 4
TASK = f"""name = "machine fault"
labels = {json.dumps(FAULTS)}
rate = {RATE}
length = {SAMPLES}
default_question = "Which fault does the vibration of the machine show?"
"""


def vibration(fault: str, speed: float, gain: float, noise: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A quarter second of one machine's acceleration.

    Unbalance shakes once a revolution, misalignment twice, looseness at many multiples and at a half; a bearing
    rings at a high frequency each time a defect is rolled over.

    Args:
        speed: revolutions a second.
        noise: deviation, of the signal's.
    """
    t = np.arange(SAMPLES) / RATE
    phase = rng.uniform(0, 2 * np.pi, 12)

    def tone(order: float, size: float, number: int) -> NDArray[np.float64]:
        return size * np.sin(2 * np.pi * order * speed * t + phase[number])

    if fault == "unbalance":
        signal = tone(1, 1, 0) + tone(2, rng.uniform(0, 0.15), 1)
    elif fault == "misalignment":
        signal = tone(1, rng.uniform(0.2, 0.5), 0) + tone(2, 1, 1) + tone(3, rng.uniform(0, 0.2), 2)
    elif fault == "looseness":
        signal = tone(0.5, rng.uniform(0.3, 0.6), 0) + sum(
            tone(order, rng.uniform(0.4, 0.8), order) for order in range(1, 9)
        )
    else:
        ring, times = rng.uniform(250, 400), np.arange(rng.uniform(0, 0.02), SAMPLES / RATE, 1 / (3.6 * speed))
        since = t[None] - times[:, None]
        bursts = np.where(since >= 0, np.exp(-since * 150) * np.sin(2 * np.pi * ring * since), 0)
        signal = bursts.sum(axis=0) + tone(1, 0.1, 0)
    signal = signal / signal.std()
    return gain * (signal + noise * rng.standard_normal(SAMPLES))


def write_tables(folder: Path, sizes: list[int], test: int, seed: int) -> None:
    """The recordings, and a table a size: the first training and validation machines, all test machines."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[list[str]]] = {"train": [], "validation": [], "test": []}
    (folder / "recordings").mkdir(parents=True, exist_ok=True)
    for split, count in (("test", test), ("train", max(sizes)), ("validation", max(sizes) // 4)):
        for number in range(count):
            if number % PER_MACHINE == 0:
                machine = f"{split} {number // PER_MACHINE}"
                speed, gain, noise = rng.uniform(20, 40), 10 ** rng.uniform(-1, 1), rng.uniform(0.05, 0.3)
                turn = rng.permutation(len(FAULTS))
            fault = FAULTS[turn[number % PER_MACHINE]]
            name = f"{split}-{number:04d}.npy"
            np.save(folder / "recordings" / name, vibration(fault, speed, gain, noise, rng))
            rows[split].append([name, fault, split, machine])
    for size in sizes:
        with (folder / f"questions-{size}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["recording", "answer", "split", "person"])
            writer.writerows([*rows["train"][:size], *rows["validation"][: size // 4], *rows["test"]])
    (folder / "task.toml").write_text(TASK)


def measure(folder: Path, size: int) -> dict[str, Any]:
    """Train on so many examples and answer the test, by the command line."""
    table, run, out = folder / f"questions-{size}.csv", folder / f"model-{size}", folder / f"eval-{size}"
    began = time.monotonic()
    options = ["--model", "demo", "--task", str(folder / "task.toml"), "-o", str(run)]
    if code := command(["train", str(table), *options]):
        raise SystemExit(code)
    trained = time.monotonic() - began
    if code := command(["eval", "--model", str(run), "--data", str(table), "--max-tokens", "8", "--out", str(out)]):
        raise SystemExit(code)
    log = [json.loads(line) for line in (run / "own" / "loss.jsonl").read_text().splitlines()]
    figures = json.loads((out / "metrics.json").read_text())
    rows = {"greedy": figures["methods"]["greedy"], **figures["baselines"]}
    return {
        "examples": size,
        "test": rows["greedy"]["samples"],
        **{name: one["metrics"]["answer"]["accuracy"] for name, one in rows.items()},
        "steps": log[-1]["step"],
        "training, s": log[-1]["seconds"],  # of all runs, where it was stopped
        "this run, s": round(trained, 1),
        "evaluation, s": round(time.monotonic() - began - trained, 1),
    }


def draw(lines: list[dict[str, Any]]) -> None:
    """Accuracy over the number of examples, with 95 % intervals."""
    lines = sorted({one["examples"]: one for one in lines}.values(), key=lambda one: one["examples"])
    panel = Panel(
        [
            Line(
                [(one["examples"], 100 * one[name]["value"]) for one in lines],
                label,
                [(100 * one[name]["low"], 100 * one[name]["high"]) for one in lines] if name == "greedy" else [],
                colour,
                dashed=name != "greedy",
            )
            for name, label, colour in (
                ("greedy", "trained", COLOURS[0]),
                ("zeroed series", "series zeroed", COLOURS[1]),
                ("majority", "majority", COLOURS[7]),
            )
        ],
        "examples trained on",
        "right, %",
        log_x=True,
        x_ticks=[one["examples"] for one in lines],
        bottom=0.0,
        top=100.0,
        width=420,
    )
    title = f"Which of four machine faults, from the demo model: {lines[-1]['test']} test recordings"
    write_atomically(RESULTS / "own_task.svg", chart(title, [panel], lines[-1]["machine"]["chip"]))


def main() -> None:
    """Measure what is not there yet, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 40, 80, 160, 320])
    parser.add_argument("--test", type=int, default=100, help="recordings")
    parser.add_argument("--seed", type=int, default=0, help="of the recordings")
    parser.add_argument("--work", type=Path, default=Path("build/own_task"), help="for recordings and models")
    options = parser.parse_args()
    results, machine = RESULTS / "own_task.jsonl", describe()
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    key = {"seed": options.seed, "test": options.test}
    mine = [one for one in lines if one["machine"]["id"] == machine["id"] and key.items() <= one.items()]
    if not options.work.exists():
        write_tables(options.work, sorted(options.sizes), options.test, options.seed)
    for size in sorted(options.sizes):
        if any(one["examples"] == size for one in mine):
            continue
        line = {"benchmark": "own_task", "date": time.strftime("%Y-%m-%d"), "machine": machine, **key}
        mine.append(line | measure(options.work, size))
        with results.open("a") as file:
            file.write(json.dumps(mine[-1]) + "\n")
        draw(mine)


if __name__ == "__main__":
    main()
