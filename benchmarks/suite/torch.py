"""Topic `torch`: the same work in PyTorch, on the same random weights, in a process beside this one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.suite.measure import Case, Measured, Variant, timed
from benchmarks.suite.search import ROLLOUT, SHARED, any_reward, shared
from benchmarks.suite.suites import Workbench
from mlx_tslm.errors import TSLMError
from mlx_tslm.search import SearchResult, tree_search

OURS, TORCH = "mlx-tslm", "PyTorch"
STATIC = "PyTorch: static cache"
GENERATE = "transformers: generate"
CACHED, UNCACHED = "PyTorch: one at a time, KV cache", "PyTorch: one at a time, no cache"
_UNCACHED_TOKENS = 2  # that are measured; the rest is extrapolated


def cases(bench: Workbench) -> Iterator[Case]:
    """Prompts, steps, the whole job, and an answer by search."""
    suite, shape = bench.suite, bench.suite.shape
    peer = Peer(shape.name)
    for positions in suite.torch_prompts:
        yield Case(
            "torch-prefill",
            {"shape": shape.name, "prompt": positions},
            [OURS, TORCH],
            partial(_prefill, bench, peer, positions),
            suite.slow_rounds,
        )
    rows = suite.torch_rows
    for positions in suite.torch_prompts:
        yield Case(
            "torch-step",
            {"shape": shape.name, "prompt": positions, "rows": rows},
            [SHARED, STATIC],
            partial(_step, bench, peer, positions, rows),
            suite.rounds,
            needs={STATIC: 3 * shape.kv_bytes * (positions + ROLLOUT) * rows // 2},
        )
    answers, positions, tokens = suite.torch_job
    job = {"shape": shape.name, "prompt": positions, "rollouts": answers, "tokens": tokens}
    yield Case(
        "torch-job",
        job,
        [OURS, GENERATE],
        partial(_job, bench, peer, answers, positions, tokens),
        suite.slow_rounds,
        needs={GENERATE: 3 * shape.kv_bytes * (positions + tokens) * answers},
    )
    yield Case(
        "torch-search",
        {**job, "width": suite.torch_width},
        [OURS, CACHED, UNCACHED],
        partial(_search, bench, peer, answers, positions, tokens),
        suite.slow_rounds,
        warmup=False,
    )
    peer.close()


class Peer:
    """PyTorch in a process of its own, started when it is first asked.

    It takes MLX's reference BLAS, which it needs for nothing but drawing the weights: two real ones in a process,
    PyTorch's and MLX's, would get into each other's way.
    """

    def __init__(self, shape: str) -> None:
        self._shape = shape
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: str, **sizes: int) -> Measured:
        """Have one call timed there.

        Raises:
            TSLMError: the process has died; what it said is on stderr.
        """
        if self._process is None:
            command = [sys.executable, "-m", "benchmarks.suite.torch_worker", self._shape]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._process = subprocess.Popen(
                command,
                env=os.environ | {"MLX_TSLM_BLAS": "none", "PYTHONPATH": str(Path(__file__).parents[2])},
                **pipes,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"what": what, **sizes}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise TSLMError(f"PyTorch's process ended while it was asked for {what}; what it said is above")
        return Measured(**json.loads(answer))

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def _prefill(bench: Workbench, peer: Peer, positions: int, names: frozenset[str]) -> Mapping[str, Variant]:
    prompt = bench.prompt(positions)
    return {
        OURS: lambda: timed(lambda: bench.model.prefill(prompt)),
        TORCH: lambda: peer.ask("prefill", prompt=positions),
    }


def _step(bench: Workbench, peer: Peer, positions: int, rows: int, names: frozenset[str]) -> Mapping[str, Variant]:
    before = ROLLOUT // 2
    return {
        SHARED: shared(bench, positions, rows),
        STATIC: lambda: peer.ask("step", prompt=positions, rows=rows, before=before),
    }


def _job(
    bench: Workbench, peer: Peer, answers: int, positions: int, tokens: int, names: frozenset[str]
) -> Mapping[str, Variant]:
    def ours() -> Measured:
        return _searched(bench, positions, "best-of-n", answers, answers, tokens)[0]

    return {OURS: ours, GENERATE: lambda: peer.ask("job", prompt=positions, rows=answers, tokens=tokens)}


def _search(
    bench: Workbench, peer: Peer, answers: int, positions: int, tokens: int, names: frozenset[str]
) -> Mapping[str, Variant]:
    """PyTorch is extrapolated from a few tokens to as many as the same search takes one rollout at a time."""
    alone = _searched(bench, positions, "maxent-ts", answers, 1, tokens)[1].stats.tokens_decoded

    def ours() -> Measured:
        return _searched(bench, positions, "maxent-ts", answers, bench.suite.torch_width, tokens)[0]

    return {OURS: ours, **one_at_a_time(peer, positions, tokens, alone)}


def one_at_a_time(peer: Peer, positions: int, tokens: int, total: int) -> Mapping[str, Variant]:
    """PyTorch's two ways to a search of `total` tokens: the prompt, and `tokens` tokens or two, extrapolated."""

    def way(what: str, measured: int) -> Measured:
        prompt = peer.ask("prefill", prompt=positions).seconds
        found = peer.ask(what, prompt=positions, tokens=measured)
        values = {**found.values, "measured_seconds": found.seconds, "passes": total + 1}
        return Measured(prompt + found.seconds * total / measured, values)

    return {
        CACHED: lambda: way("cached", tokens),
        UNCACHED: lambda: way("uncached", _UNCACHED_TOKENS),
    }


def _searched(
    bench: Workbench, positions: int, method: str, rollouts: int, width: int, tokens: int
) -> tuple[Measured, SearchResult]:
    prompt = bench.prompt(positions)
    found: list[SearchResult] = []
    options: dict[str, Any] = {"num_rollouts": rollouts, "width": width, "max_tokens": tokens}
    measured = timed(lambda: found.append(tree_search(bench.model, prompt, method, any_reward, **options)))
    values = {**measured.values, "forward_passes": found[0].stats.forward_passes}
    return Measured(measured.seconds, values), found[0]
