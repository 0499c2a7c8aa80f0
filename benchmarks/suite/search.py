"""Topic `search`: one decode step and the whole search, against the ways one would do it otherwise."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np

from benchmarks.suite import parts
from benchmarks.suite.measure import Case, Measured, Variant, timed
from benchmarks.suite.shapes import SHAPES, prompt_of, random_model
from benchmarks.suite.steppers import (
    BatchGeneration,
    CachedRow,
    CopiedPrefix,
    MatrixProducts,
    SharedPrefix,
    Stepper,
    Uncached,
    repeat,
)
from benchmarks.suite.suites import Workbench
from mlx_tslm.completion import Completion
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import TreeDecoder
from mlx_tslm.search import presets, tree_search
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.engine import Engine
from mlx_tslm.search.result import SearchResult
from mlx_tslm.search.tree import Tree
from mlx_tslm.stages.base import Prompt

ROLLOUT = 32
"""Tokens of a rollout; steps are timed from the middle of one on."""

SHARED, ALONE, COPIED, FLOOR = "shared prompt", "one at a time", "copied prompt", "matrix products alone"
WAVES, TREE = "in waves", "upkeep of the tree"
UNCACHED = "one at a time, no cache"
PEER, PEER_GREEDY = "mlx-lm: BatchGenerator", "mlx-lm: BatchGenerator, greedy"


_AnyStepper = TypeVar("_AnyStepper", bound=Stepper)


def cases(bench: Workbench) -> Iterator[Case]:
    """Steps first, then whole searches."""
    suite, shape = bench.suite, bench.suite.shape
    for positions, rows in suite.steps:
        held = shape.kv_bytes * positions * rows
        yield Case(
            "decode-step",
            {"shape": shape.name, "prompt": positions, "rows": rows},
            [SHARED, ALONE, COPIED, FLOOR],
            partial(_steps, bench, positions, rows),
            suite.rounds,
            needs={COPIED: 2 * held},  # a cache that grows is there twice for a moment
        )
    positions, rows = suite.batch
    yield Case(
        "batch-step",
        {"shape": shape.name, "prompt": positions, "rows": rows},
        [SHARED, PEER, PEER_GREEDY, FLOOR],
        partial(_batch, bench, positions, rows),
        suite.rounds,
        needs=dict.fromkeys((PEER, PEER_GREEDY), 3 * shape.kv_bytes * positions * rows),
    )
    for some in (1, rows):
        yield Case(
            "step-parts",
            {"shape": shape.name, "prompt": positions, "rows": some},
            [SHARED, *parts.NAMES],
            partial(_parts, bench, positions, some),
            suite.rounds,
        )
    for positions, rows in suite.steps:
        yield Case(
            "uncached-step",
            {"shape": shape.name, "prompt": positions, "rows": rows},
            [SHARED, UNCACHED],
            partial(_uncached, bench, positions, rows),
            suite.slow_rounds if positions < 1024 else 1,
            warmup=positions < 1024,
        )
    rollouts, width, positions, tokens = suite.search
    yield Case(
        "bookkeeping",
        {"shape": shape.name, "nodes": suite.bookkeeping, "width": width, "prompt": positions},
        [TREE, SHARED],
        partial(_bookkeeping, bench),
        suite.slow_rounds,
        warmup=False,
    )
    yield Case(
        "search",
        {"shape": shape.name, "rollouts": rollouts, "width": width, "prompt": positions, "tokens": tokens},
        [WAVES, ALONE],
        lambda names: {
            name: searched(bench.model, bench.prompt(positions), rollouts, wide, tokens)
            for name, wide in ((WAVES, width), (ALONE, 1))
        },
        suite.slow_rounds,
        warmup=False,
    )


def searched(model: SoftPromptModel, prompt: Prompt, rollouts: int, width: int, tokens: int) -> Variant:
    """A whole search, its prompt's encoding included, under a reward that costs nothing.

    Of its passes it tells how many had so many rows, and the seconds from the one before to the end of such a pass.
    """

    def run() -> Measured:
        found: list[SearchResult] = []
        marks: list[tuple[int, float]] = []  # after each step: tokens decoded, clock

        def search() -> None:
            found.append(
                tree_search(
                    model,
                    prompt,
                    reward=any_reward,
                    num_rollouts=rollouts,
                    width=width,
                    max_tokens=tokens,
                    progress=lambda at: marks.append((at.tokens, time.perf_counter())),
                )
            )

        measured = timed(search)
        passes: dict[str, float] = {}
        for (before, began), (after, ended) in pairwise(marks):
            if after > before:
                for name, amount in (("passes", 1.0), ("pass_seconds", ended - began)):
                    key = f"{name}_{after - before}"
                    passes[key] = passes.get(key, 0.0) + amount
        stats = found[0].stats
        alone = 1 + sum(len(one.tokens) - 1 for one in found[0].completions)  # the prompt's gives the first tokens
        return Measured(
            measured.seconds,
            {
                **measured.values,
                "forward_passes": stats.forward_passes,
                "forward_passes_alone": alone,
                "tokens_decoded": stats.tokens_decoded,
                "nodes": stats.nodes,
                "depth": stats.depth,
                **{f"seconds_{phase}": seconds for phase, seconds in stats.seconds.items()},
                **passes,
            },
        )

    return run


def any_reward(completions: list[Completion]) -> list[float]:
    """A number from 0 to 1 that depends on the tokens in no simple way, as a search needs one."""
    hashes = [sum(token * (i + 1) for i, token in enumerate(one.tokens)) for one in completions]
    return [one * 7919 % 1000 / 1000 for one in hashes]


def _steps(bench: Workbench, positions: int, rows: int, names: frozenset[str]) -> Mapping[str, Variant]:
    prompt = bench.read(positions)
    calls: dict[str, Variant] = {SHARED: shared(bench, positions, rows)}
    alone = CachedRow(bench.model, prompt)

    def one_at_a_time() -> Measured:
        alone.restart()
        return _per_rows(timed(lambda: repeat(alone, ROLLOUT)), rows / ROLLOUT)

    calls[ALONE] = one_at_a_time
    if COPIED in names:
        copied = _ahead(CopiedPrefix(bench.model, prompt, rows))
        calls[COPIED] = _held(copied, lambda: copied.nbytes)
    floor = MatrixProducts(bench.model, prompt, rows, ROLLOUT // 2)
    calls[FLOOR] = lambda: timed(floor.step)
    return calls


def _batch(bench: Workbench, positions: int, rows: int, names: frozenset[str]) -> Mapping[str, Variant]:
    sampled = _ahead(BatchGeneration(bench.model, bench.read(positions), rows, temperature=1.0))
    greedy = _ahead(BatchGeneration(bench.model, bench.read(positions), rows, temperature=0.0))
    floor = MatrixProducts(bench.model, bench.read(positions), rows, ROLLOUT // 2)
    return {
        SHARED: shared(bench, positions, rows),
        PEER: _held(sampled, lambda: sampled.nbytes),
        PEER_GREEDY: _held(greedy, lambda: greedy.nbytes),
        FLOOR: lambda: timed(floor.step),
    }


def _parts(bench: Workbench, positions: int, rows: int, names: frozenset[str]) -> Mapping[str, Variant]:
    own = parts.calls(bench.model, bench.read(positions), rows, ROLLOUT // 2)
    return {SHARED: shared(bench, positions, rows), **own}


def _uncached(bench: Workbench, positions: int, rows: int, names: frozenset[str]) -> Mapping[str, Variant]:
    uncached = Uncached(bench.model, bench.prompt(positions), ROLLOUT // 2)
    return {
        SHARED: shared(bench, positions, rows),
        UNCACHED: lambda: _per_rows(timed(uncached.step), rows),
    }


def _bookkeeping(bench: Workbench, names: frozenset[str]) -> Mapping[str, Variant]:
    """Selection, insertion and backup for one token of a wave in a big tree, and a decode step of as many rows.

    The tree grows behind a tiny model, so that it is the tree's upkeep that takes the time.
    """
    _, width, positions, _ = bench.suite.search
    goal = bench.suite.bookkeeping
    tiny = random_model(SHAPES["tiny"])
    prompt = tiny.prefill(prompt_of(tiny, 64))

    def upkeep() -> Measured:
        rng = np.random.default_rng(0)
        engine = Engine(
            TreeDecoder(tiny.language_model, prompt),
            Tree(),
            presets.get("maxent-ts"),
            SearchConfig(width=width, max_tokens=ROLLOUT),
            max_depth=ROLLOUT,
            eos=tiny.eos_token_ids,
            score=lambda leaves: rng.random(len(leaves)),
        )
        marks: list[float] = []

        def on_step() -> bool:
            if engine.tree.size > 0.9 * goal:
                marks.append(engine.seconds["select"] + engine.seconds["backup"])
            return engine.tree.size < goal

        engine.run(goal, on_step)
        return Measured((marks[-1] - marks[0]) / (len(marks) - 1), {"nodes": engine.tree.size})

    return {TREE: upkeep, SHARED: shared(bench, positions, width)}


def shared(bench: Workbench, positions: int, rows: int) -> Variant:
    """A decode step of our own."""
    stepper = _ahead(SharedPrefix(bench.model, bench.read(positions), rows))
    return _held(stepper, lambda: stepper.nbytes)


def _ahead(stepper: _AnyStepper) -> _AnyStepper:
    repeat(stepper, ROLLOUT // 2)
    return stepper


def _held(stepper: Stepper, nbytes: Callable[[], int]) -> Variant:
    def run() -> Measured:
        measured = timed(stepper.step)
        return Measured(measured.seconds, {**measured.values, "kv_bytes": nbytes()})

    return run


def _per_rows(measured: Measured, times: float) -> Measured:
    """One row's time as that of all rows, one after the other."""
    return Measured(measured.seconds * times, {**measured.values, "measured_seconds": measured.seconds})
