"""The tables by stage: the stages guide's speeds beside those measured, and the methods with what they find."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.filesize import decimal

from benchmarks.suite.measure import Spread, values
from benchmarks.suite.measurements import Measurements, variants
from benchmarks.suite.tables import Rows, markdown, seconds_text, where_text
from benchmarks.suite.torch import CACHED, OURS, UNCACHED
from mlx_tslm import stages
from mlx_tslm.search import METHODS

PUBLISHED = {
    "stage1": ("~40 s", "~25 s", "~8-10 s"),
    "stage2": ("~50 s", "~30 s", "~10-12 s"),
    **dict.fromkeys(("stage3", "stage4", "stage5"), ("~60-80 s", "~35-45 s", "~12-15 s")),
}
"""Seconds a prompt as the stages guide states them: PyTorch on MPS, MLX on M1 Pro, MLX on M3 Max. Not ours."""


def speed_table(one: Measurements) -> str:
    """Seconds a prompt by stage: published, and measured on this machine."""
    measured: dict[str, dict[str, str]] = {}
    shown = ""
    for case, ways in (("stage", ("maxent-ts", "greedy")), ("stage-torch", (OURS, CACHED, UNCACHED))):
        for parameters, rounds in one.cases("stages", case):
            row = measured.setdefault(parameters["stage"], {"prompt": str(parameters["prompt"])})
            shown = where_text({name: parameters[name] for name in ("shape", "rollouts", "width", "tokens")})
            row |= {way: seconds_text(Spread.of(found)) for way in ways if (found := values(rounds, way))}
            row["maxent-ts"] = row.get(OURS) or row.get("maxent-ts", "")  # rather that of PyTorch's own rounds
    if not measured:
        return ""
    rows: Rows = [
        (
            f"{name} ({stages.get(name).key})",
            *(f"{text} (published)" for text in PUBLISHED[name]),
            *(measured[name].get(column, "") for column in ("prompt", CACHED, UNCACHED, "maxent-ts", "greedy")),
        )
        for name in sorted(measured)
    ]
    headings = [
        "seconds a prompt", ">PyTorch, MPS", ">MLX, M1 Pro", ">MLX, M3 Max", ">positions here",
        ">PyTorch with a KV cache (extrapolated), here", ">PyTorch without one (extrapolated), here",
        ">MaxEnt-TS in MLX, here", ">greedy in MLX, here",
    ]  # fmt: skip
    note = (
        f"Measured here: {shown}, random weights, float32. Published: what the stages guide states for its own "
        "settings, not measured by us and not of the same work."
    )
    return f"{note}\n\n{markdown(headings, rows)}"


def demo_accuracy(results: Path) -> dict[str, dict[str, str]]:
    """The share of right answers of the demo model by stage and method, as `scripts/eval_demo` has found it."""
    path = results / "demo" / "evaluation.json"
    stages_of = json.loads(path.read_text())["stages"] if path.exists() else {}
    return {
        stage: {method: f"{sum(hits) / len(hits):.0%}" for method, hits in found["right"].items()}
        for stage, found in stages_of.items()
    }


def methods_table(one: Measurements, accuracy: Mapping[str, Mapping[str, str]]) -> str:
    """What each method costs and finds at an equal budget; `accuracy` is `demo_accuracy`'s."""
    rows: Rows = []
    for parameters, rounds in one.cases("stages", "stage"):
        for method in [name for name in METHODS if name in variants(rounds)]:
            told = {name: Spread.of(values(rounds, method, name)).median for name in rounds[0][method].values}
            seconds, rate = (
                Spread.of(values(rounds, method)),
                told["tokens_decoded"] / max(told["seconds_decode"], 1e-9),
            )
            rows.append((
                parameters["stage"], method, seconds_text(seconds), f"{told['seconds_prefill']:.2f}",
                f"{told['seconds_decode']:.2f}", f"{rate:.0f}",
                f"{told['forward_passes']:.0f}", decimal(int(told["peak_memory"])), f"{told['distinct_2']:.2f}",
                f"{told['depth']:.0f}", f"{told['branching']:.2f}", f"{told['best_reward']:.2f}",
                accuracy.get(parameters["stage"], {}).get(method, ""),
            ))  # fmt: skip
    headings = [
        "prompt of", "method", ">seconds", ">prefill", ">decode", ">tokens/s", ">forward passes", ">peak memory",
        ">distinct-2", ">depth", ">branching", ">best reward", ">accuracy, demo model",
    ]  # fmt: skip
    return markdown(headings, rows) if rows else ""
