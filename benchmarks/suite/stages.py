"""Topic `stages`: an answer to a prompt as long as each stage's, by every method, at an equal budget."""

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from benchmarks.suite.measure import Case, Measured, Variant, timed
from benchmarks.suite.search import any_reward
from benchmarks.suite.shapes import SyntheticTokenizer
from benchmarks.suite.suites import Workbench
from benchmarks.suite.torch import CACHED, OURS, UNCACHED, Peer, one_at_a_time
from mlx_tslm import data, stages
from mlx_tslm.errors import TSLMError
from mlx_tslm.search import METHODS, SearchResult, tree_search

_PATCH = 4  # samples


def chosen(text: str) -> tuple[str, ...]:
    """The stages that "1-5", "2" or "1,3-4" names.

    Raises:
        TSLMError: it names none, or one that does not exist.
    """
    names = stages.names()
    try:
        ends = [(int(low), int(high or low)) for low, _, high in (part.partition("-") for part in text.split(","))]
    except ValueError:
        ends = [(0, 0)]
    numbers = sorted({number for low, high in ends for number in range(low, high + 1)})
    if not numbers or numbers[0] < 1 or numbers[-1] > len(names):
        raise TSLMError(f"--stages {text}: write for example 1-{len(names)}, or 1,3")
    return tuple(names[number - 1] for number in numbers)


def cases(bench: Workbench) -> Iterator[Case]:
    """For every stage, ours by every method; then, where PyTorch is measured too, MaxEnt-TS in both."""
    suite, shape = bench.suite, bench.suite.shape.name
    rollouts, width, tokens = suite.stage_budget
    sizes = {"rollouts": rollouts, "width": width, "tokens": tokens}
    where: list[dict[str, Any]] = [
        {"shape": shape, "stage": stage, "prompt": positions(stage), **sizes} for stage in bench.stages
    ]
    for one in where:
        build = partial(_methods, bench, one)
        yield Case("stage", one, tuple(METHODS), build, suite.slow_rounds, warmup=one["prompt"] < 1024)
    if "torch" in bench.backends:
        peer = Peer(shape)
        for one in where:
            ways = (OURS, CACHED, UNCACHED)
            yield Case("stage-torch", one, ways, partial(_torch, bench, peer, one), suite.slow_rounds, warmup=False)
        peer.close()


@cache
def positions(stage: str) -> int:
    """Positions of the prompt of a stage's synthetic row, a token a word."""
    row = data.load(stage, "test", source="synthetic", size=1)[0]
    prompt = stages.get(stage).from_row(row)[0]
    encode = SyntheticTokenizer(1 << 17).encode
    texts = (prompt.pre, *(series.text for series in prompt.series), prompt.post)
    longest = max(len(series.values) for series in prompt.series)
    return sum(len(encode(text)) for text in texts) + len(prompt.series) * -(-longest // _PATCH)


def _methods(bench: Workbench, where: Mapping[str, Any], names: frozenset[str]) -> Mapping[str, Variant]:
    return {method: partial(_answer, bench, where, method) for method in METHODS}


def _answer(bench: Workbench, where: Mapping[str, Any], method: str) -> Measured:
    return _searched(bench, where, method, where["width"])[0]


def _torch(bench: Workbench, peer: Peer, where: Mapping[str, Any], names: frozenset[str]) -> Mapping[str, Variant]:
    alone = _searched(bench, where, "maxent-ts", 1)[1].stats.tokens_decoded
    return {
        OURS: partial(_answer, bench, where, "maxent-ts"),
        **one_at_a_time(peer, where["prompt"], where["tokens"], alone),
    }


def _searched(bench: Workbench, where: Mapping[str, Any], method: str, width: int) -> tuple[Measured, SearchResult]:
    prompt = bench.prompt(where["prompt"])
    found: list[SearchResult] = []
    options = {"num_rollouts": where["rollouts"], "width": width, "max_tokens": where["tokens"]}
    measured = timed(lambda: found.append(tree_search(bench.model, prompt, method, any_reward, **options)))
    (result,) = found
    told = {
        "forward_passes": result.stats.forward_passes,
        "tokens_decoded": result.stats.tokens_decoded,
        "depth": result.stats.depth,
        "branching": result.stats.branching,
        "best_reward": max(one.reward for one in result.completions),
        "distinct_2": distinct([one.tokens for one in result.completions], 2),
        **{f"seconds_{phase}": result.stats.seconds.get(phase, 0.0) for phase in ("prefill", "decode")},
    }
    return Measured(measured.seconds, {**measured.values, **told}), result


def distinct(answers: list[tuple[int, ...]], n: int) -> float:
    """Distinct-n: different runs of `n` tokens, over all of them (Li et al. 2016); 0 where there are none."""
    runs = [tokens[start : start + n] for tokens in answers for start in range(len(tokens) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 0.0
