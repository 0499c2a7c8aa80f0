"""The search's tables: against other ways, with what was set out for beside what was reached."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal

from benchmarks.suite import search
from benchmarks.suite import torch as pytorch
from benchmarks.suite.measure import Spread, ratio, values
from benchmarks.suite.measurements import Measurements, Rounds, variants
from benchmarks.suite.tables import Rows, markdown, seconds_text, times_text, where_text

_GOAL_SHAPE = "SmolLM2-135M"


@dataclass(frozen=True)
class Goal:
    """A ratio to reach at a prompt length, by BLAS; or to stay under."""

    prompt: int
    openblas: float
    mkl: float
    at_most: bool = False

    def text(self, found: float, prompt: int, blas: str) -> str:
        """What to write beside a ratio; empty where the goal is for something else."""
        goal = {"OpenBLAS": self.openblas, "MKL": self.mkl}.get(blas)
        if goal is None or prompt != self.prompt:
            return ""
        met = found <= goal if self.at_most else found >= goal
        text = f"{goal:.0%}" if goal < 1 else f"{goal:,g}x"
        return f"{'≤ ' if self.at_most else ''}{text}{'' if met else ', missed'}"


@dataclass(frozen=True)
class Comparison:
    """A row of the table: `over` divided by `under`, in a case's seconds or another of its `values`."""

    what: str
    case: str
    over: str
    under: str
    value: str = "seconds"
    goals: tuple[Goal, ...] = ()
    percent: bool = False
    front: bool = False  # whether it stands on the front page
    topic: str = "search"


COMPARISONS = (
    Comparison("whole search, against the same search one rollout at a time: time", "search", search.ALONE,
               search.WAVES, goals=(Goal(512, 12, 9),), front=True),
    Comparison("decode step, against one rollout at a time with a KV cache: time", "decode-step", search.ALONE,
               search.SHARED, goals=(Goal(3300, 15, 10),), front=True),
    Comparison("decode step, against one at a time without a cache, as SpecDiffTree does it (extrapolated from one "
               "token): time", "uncached-step", search.UNCACHED, search.SHARED, goals=(Goal(3300, 8000, 8000),)),
    Comparison("prompt copied for every row (mlx-lm's attention), against shared: keys and values in memory",
               "decode-step", search.COPIED, search.SHARED, "kv_bytes", goals=(Goal(3300, 22, 22),), front=True),
    Comparison("prompt copied for every row, against shared: time of a step", "decode-step", search.COPIED,
               search.SHARED, goals=(Goal(3300, 6, 4),), front=True),
    Comparison("mlx-lm's BatchGenerator, sampling too, against ours: time of a step", "batch-step", search.PEER,
               search.SHARED, goals=(Goal(512, 2, 2),), front=True),
    Comparison("mlx-lm's BatchGenerator, greedy, against ours sampling: time of a step", "batch-step",
               search.PEER_GREEDY, search.SHARED),
    Comparison("mlx-lm's BatchGenerator, against ours: keys and values in memory", "batch-step", search.PEER,
               search.SHARED, "kv_bytes", goals=(Goal(512, 5, 5),), front=True),
    Comparison("mlx-lm's BatchGenerator, sampling too, over a step's matrix products alone: time", "batch-step",
               search.PEER, search.FLOOR),
    Comparison("decode step, over its matrix products alone (the floor): time", "batch-step", search.SHARED,
               search.FLOOR),
    Comparison("decode step, over its matrix products alone (the floor): time", "decode-step", search.SHARED,
               search.FLOOR, goals=(Goal(512, 2, 2, True), Goal(3300, 2, 2, True)), front=True),
    Comparison("upkeep of a tree of {nodes} nodes, over a decode step: time", "bookkeeping", search.TREE,
               search.SHARED, goals=(Goal(512, 0.01, 0.01, True),), percent=True),
)  # fmt: skip
TORCH_COMPARISONS = (
    Comparison(
        "whole job, the prompt and {rollouts} sampled answers: transformers' `generate` against ours: time",
        "torch-job",
        pytorch.GENERATE,
        pytorch.OURS,
        goals=(Goal(512, 3, 3),),
        front=True,
        topic="torch",
    ),
    Comparison(
        "decode step: PyTorch with a static cache against ours: time",
        "torch-step",
        pytorch.STATIC,
        search.SHARED,
        goals=(Goal(512, 1.5, 1.5), Goal(3300, 2.5, 2.5)),
        front=True,
        topic="torch",
    ),
    Comparison(
        "reading the prompt: ours over PyTorch's: time",
        "torch-prefill",
        pytorch.OURS,
        pytorch.TORCH,
        goals=(Goal(3300, 1.5, 1.5, True),),
        front=True,
        topic="torch",
    ),
    Comparison(
        "an answer by MaxEnt-TS: one rollout at a time in PyTorch with a KV cache (extrapolated from one "
        "rollout) against ours: time",
        "torch-search",
        pytorch.CACHED,
        pytorch.OURS,
        topic="torch",
    ),
    Comparison(
        "an answer by MaxEnt-TS: one rollout at a time in PyTorch without a cache, as SpecDiffTree does it "
        "(extrapolated from 2 tokens), against ours: time",
        "torch-search",
        pytorch.UNCACHED,
        pytorch.OURS,
        goals=(Goal(512, 20, 20),),
        front=True,
        topic="torch",
    ),
)
_PASSES_GOAL = Goal(512, 20, 20)


def search_table(one: Measurements) -> str:
    """The comparisons, then the absolute figures behind them."""
    compared = [row for comparison in COMPARISONS for row in _compared(one, comparison)]
    blocks = [markdown(["what", "where", ">ratio (range, rounds)", ">goal"], [*compared, *_forward_passes(one)])]
    steps: Rows = [
        (where_text(parameters), variant, *_step_figures(rounds, variant, parameters["rows"]))
        for case in ("decode-step", "batch-step", "uncached-step")
        for parameters, rounds in one.cases("search", case)
        for variant in variants(rounds)
    ]
    blocks.append(markdown(["one decode step", "", ">seconds", ">tokens/s", ">keys and values"], steps))
    searches: Rows = []
    for parameters, rounds in one.cases("search", "search"):
        for variant in variants(rounds):
            told = rounds[0][variant].values
            phases = [name for name in told if name.startswith("seconds_") and name != "seconds_total"]
            spent = [
                f"{name.removeprefix('seconds_')} {seconds_text(Spread.of(values(rounds, variant, name)))}"
                for name in phases
            ]
            seconds = seconds_text(Spread.of(values(rounds, variant)))
            searches.append((where_text(parameters), variant, seconds, f"{told['forward_passes']:.0f}",
                             f"{told['nodes']:.0f}", ", ".join(spent)))  # fmt: skip
    headings = ["whole search", "", ">seconds", ">forward passes", ">nodes", "by phase"]
    blocks.append(markdown(headings, searches))
    return "\n\n".join(blocks)


def torch_table(one: Measurements) -> str:
    """The comparisons with PyTorch, then the absolute figures behind them."""
    compared = [row for comparison in TORCH_COMPARISONS for row in _compared(one, comparison)]
    if not compared:
        return ""
    rows: Rows = []
    for case in ("torch-prefill", "torch-step", "torch-job", "torch-search"):
        for parameters, rounds in one.cases("torch", case):
            for variant in variants(rounds):
                found = values(rounds, variant)
                shown = seconds_text(Spread.of(found)) if found else f"skipped: {rounds[-1][variant].skipped}"
                rows.append((case.removeprefix("torch-"), where_text(parameters), variant, shown))
    return "\n\n".join(
        (
            markdown(["what", "where", ">ratio (range, rounds)", ">goal"], compared),
            markdown(["", "where", "", ">seconds"], rows),
        )
    )


def summary_table(machines: Sequence[Measurements]) -> str:
    """For the front page: a row a comparison at its largest size, a column a machine; ranges stand elsewhere."""
    columns, found = [], dict[str, dict[int, tuple[str, str]]]()
    for number, one in enumerate(machines):
        last = one.machines[-1]
        columns.append(f">{last['chip']}, {last['cores']} cores, {one.blas}")
        for comparison in (*COMPARISONS, *TORCH_COMPARISONS):
            if comparison.front:
                for what, where, shown, _ in _compared(one, comparison):  # sizes rise: the last one stays
                    found.setdefault(what, {})[number] = where, shown.partition(" (")[0]
    rows = [
        (
            what,
            where,
            *(cells[number][1] if cells.get(number, ("",))[0] == where else "" for number in range(len(columns))),
        )
        for what, cells in found.items()
        for where in dict.fromkeys(where for where, _ in cells.values())
    ]
    return markdown(["random weights, float32 where not said otherwise", "where", *columns], rows)


def _compared(one: Measurements, comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    for parameters, rounds in one.cases(comparison.topic, comparison.case):
        what, where = comparison.what.format_map(parameters), where_text(parameters)
        found = ratio(rounds, comparison.over, comparison.under, comparison.value)
        if found is None:
            reasons = {sample.skipped for measured in rounds for sample in measured.values() if sample.skipped}
            if reasons:  # or it was not compared yet when this was measured
                yield what, where, f"skipped: {', '.join(sorted(reasons))}", ""
            continue
        shown = f"{found.median:.2%} ({found.count})" if comparison.percent else times_text(found)
        yield what, where, shown, _goal(comparison.goals, found.median, parameters, one)


def _forward_passes(one: Measurements) -> Iterator[tuple[str, str, str, str]]:
    for parameters, rounds in one.cases("search", "search"):
        where, told = where_text(parameters), rounds[0][search.WAVES].values
        alone = told["forward_passes_alone"] / told["forward_passes"]
        goal = _goal((_PASSES_GOAL,), alone, parameters, one)
        yield "the same answers one by one, without a tree: forward passes", where, f"{alone:.1f}x", goal
        tree = rounds[0][search.ALONE].values["forward_passes"] / told["forward_passes"]
        yield "the same search one rollout at a time: forward passes", where, f"{tree:.1f}x", ""


def _goal(goals: Sequence[Goal], found: float, parameters: Mapping[str, Any], one: Measurements) -> str:
    if parameters["shape"] != _GOAL_SHAPE:
        return ""
    return "".join(goal.text(found, parameters["prompt"], one.blas) for goal in goals)


def _step_figures(rounds: Rounds, variant: str, rows: int) -> tuple[str, str, str]:
    found = values(rounds, variant)
    if not found:
        return f"skipped: {rounds[-1][variant].skipped}", "", ""
    seconds = Spread.of(found)
    held = rounds[-1][variant].values.get("kv_bytes")
    return seconds_text(seconds), f"{rows / seconds.median:.1f}", decimal(int(held)) if held else ""
