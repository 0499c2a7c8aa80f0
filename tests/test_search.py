"""The search: exact where answers can be enumerated, its rules against slow recursions, and its manners."""

import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_sampling import reference_log_p

import mlx_tslm
from mlx_tslm import Prompt, Series, TSLMError, stream_generate, tree_search
from mlx_tslm.completion import Completion
from mlx_tslm.models import branch
from mlx_tslm.models.base import FREE
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import TreeDecoder
from mlx_tslm.search import METHODS, SearchConfig, SearchError, SearchResult, memory
from mlx_tslm.search.backup import leaf_weights, mean, soft_mean, soft_prior
from mlx_tslm.search.select import unexplored
from mlx_tslm.search.tree import ROOT, Tree

EOS, VOCABULARY, LONGEST = 0, 4, 4  # 121 answers: 40 that end by themselves, 81 that are cut off
PROMPT = Prompt("ab", [Series("c", np.sin(np.arange(20)))], "d")
Answer = tuple[int, ...]
Rewards = Callable[[list[Completion]], list[float]]


class Letters:
    """A tokenizer of a handful of tokens."""

    eos_token_id, bos_token_id, all_special_ids = EOS, None, (EOS,)

    def encode(self, text: str) -> list[int]:
        return [1 + ord(letter) % (VOCABULARY - 1) for letter in text]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(str(token) for token in tokens if token != EOS)


@cache
def small_model(kind: str = "llama", vocabulary: int = VOCABULARY) -> SoftPromptModel:
    """A random model with some preferences, small enough to list all that it can say."""
    text_config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocabulary,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    }
    if kind == "gemma":
        text_config |= {
            "model_type": "gemma3_text",
            "head_dim": 8,
            "sliding_window": 6,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 8,
        }
    mx.random.seed(1)
    model = SoftPromptModel(ModelConfig(text_config=text_config), Letters())
    if vocabulary < VOCABULARY:  # the prompt's letters are looked up all the same
        model.language_model.model.embed_tokens.weight = mx.random.normal((VOCABULARY, 32))
    head = model.language_model.lm_head
    head.weight = head.weight * 3
    mx.eval(model.parameters())
    return model


@cache
def enumerated(kind: str = "llama", **sampling: Any) -> dict[Answer, float]:
    """log p of every answer, from full forward passes."""
    model, found = small_model(kind), {}

    def walk(path: Answer, logprob: float) -> None:
        log_p = reference_log_p(np.array(model.score(PROMPT, path))[-1], **sampling)
        for token in np.flatnonzero(np.isfinite(log_p)).tolist():
            answer = (*path, token)
            if token == EOS or len(answer) == LONGEST:
                found[answer] = logprob + log_p[token]
            else:
                walk(answer, logprob + log_p[token])

    walk((), 0.0)
    return found


def smooth(answer: Answer) -> float:
    """A rough reward of every answer, 0 … 1."""
    return float(np.random.default_rng([7, *answer]).random())


def needle(answer: Answer) -> float:
    """1 for one rare answer, 0 for all others."""
    logprobs = enumerated()
    ordered = sorted(logprobs, key=lambda one: logprobs[one])
    return float(answer == ordered[len(ordered) // 2])


def batched(reward: Callable[[Answer], float]) -> Rewards:
    return lambda completions: [reward(one.tokens) for one in completions]


@dataclasses.dataclass(frozen=True)
class Exact:
    """The enumerated target."""

    value: float
    share: dict[Answer, float]

    @classmethod
    def of(cls, logprobs: dict[Answer, float], reward: Callable[[Answer], float], lam: float) -> "Exact":
        weights = {answer: logprob + lam * reward(answer) for answer, logprob in logprobs.items()}
        total = math.log(sum(map(math.exp, weights.values())))
        return cls(total / lam, {answer: math.exp(weight - total) for answer, weight in weights.items()})

    def errors(self, result: SearchResult) -> tuple[float, float]:
        """|V̂ − V| at the root, and the total variation between the weights and π*."""
        found: Counter[Answer] = Counter()
        for one in result.completions:
            found[one.tokens] += one.weight  # type: ignore[assignment]
        distance = sum(abs(found[answer] - share) for answer, share in self.share.items()) / 2
        return abs(result.root_value - self.value), distance


def run(reward: Callable[[Answer], float] = smooth, kind: str = "llama", **options: Any) -> SearchResult:
    options = {"max_tokens": LONGEST, "num_rollouts": 512, "top_p": 1.0, **options}
    return tree_search(small_model(kind), PROMPT, reward=batched(reward), **options)


# --- exactness


@pytest.mark.parametrize("lam", [0.1, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("reward", [smooth, needle])
@pytest.mark.parametrize("width", [1, 16])
def test_maxent_is_exact_when_nothing_is_left(lam: float, reward: Callable[[Answer], float], width: int) -> None:
    result = run(reward, inverse_temperature=lam, width=width)
    value_error, distance = Exact.of(enumerated(), reward, lam).errors(result)
    assert result.exhausted
    assert value_error < 1e-5
    assert distance < 1e-5
    assert {one.tokens for one in result.completions} == set(enumerated())
    for one in result.completions:
        assert one.logprob == pytest.approx(enumerated()[one.tokens], abs=1e-4)
        assert one.reward == reward(one.tokens)
        assert one.finished == (one.tokens[-1] == EOS)
    assert len(result.completions) == len(enumerated())  # no answer is found twice


@pytest.mark.parametrize("lam", [1.0, 10.0])
def test_gemma_is_exact_too(lam: float) -> None:
    result = run(kind="gemma", inverse_temperature=lam)
    assert result.exhausted
    assert max(Exact.of(enumerated("gemma"), smooth, lam).errors(result)) < 1e-5


@pytest.mark.parametrize("sampling", [{"temperature": 0.6}, {"top_k": 3}, {"top_p": 0.8, "temperature": 1.3}])
def test_p_is_the_distribution_that_is_sampled_from(sampling: dict[str, Any]) -> None:
    logprobs = enumerated(**sampling)
    result = run(inverse_temperature=3.0, **sampling)
    assert set(logprobs) == {one.tokens for one in result.completions}
    assert len(logprobs) < len(enumerated()) or "temperature" in sampling
    assert max(Exact.of(logprobs, smooth, 3.0).errors(result)) < 1e-5
    inner = np.unique(result.tree.parent[1:])
    np.testing.assert_allclose(result.tree.taken[inner], 1, atol=1e-5)
    np.testing.assert_allclose(np.bincount(result.tree.parent[1:], result.tree.prior[1:])[inner], 1, atol=1e-5)


def test_beam_search_wide_enough_is_exact() -> None:
    result = run(method="beam", num_rollouts=121, width=8)
    assert len(result.completions) == 121
    assert max(Exact.of(enumerated(), smooth, 1.0).errors(result)) < 1e-5


@pytest.mark.parametrize(
    ("method", "few", "many", "options"),
    [
        ("maxent-ts", 16, 96, {}),
        ("best-of-n", 16, 512, {}),
        ("dts", 16, 512, {"widening": 4.0}),
        ("dts*", 16, 512, {"widening": 4.0}),
    ],
)
def test_the_error_falls_as_rollouts_grow(method: str, few: int, many: int, options: dict[str, Any]) -> None:
    target = Exact.of(enumerated(), smooth, 3.0)

    def error(num_rollouts: int) -> NDArray[np.float64]:
        results = [
            run(method=method, num_rollouts=num_rollouts, inverse_temperature=3.0, seed=seed, **options)
            for seed in range(5)
        ]
        return np.mean([target.errors(result) for result in results], axis=0)

    at_first, at_last = error(few), error(many)
    assert (at_last < 0.6 * at_first).all()
    assert at_last[0] < 0.03


def test_the_width_does_not_change_what_is_converged_to() -> None:
    target = Exact.of(enumerated(), smooth, 3.0)
    errors = [
        np.mean(
            [target.errors(run(num_rollouts=64, inverse_temperature=3.0, width=w, seed=s)) for s in range(3)], 0
        )
        for w in (1, 4, 16)
    ]
    assert np.max(errors, axis=0)[0] < 0.02
    assert np.max(errors, axis=0)[1] < 0.2


# --- no answer is counted twice


@pytest.mark.parametrize("width", [1, 4, 8, 16, 24, 64])
@pytest.mark.parametrize("sampling", [{"top_k": 2}, {"top_k": 3}, {}, {"temperature": 0.3}], ids=str)
def test_every_rollout_finds_another_answer_at_every_width(width: int, sampling: dict[str, Any]) -> None:
    logprobs = enumerated(**sampling)
    for budget in (3 * len(logprobs) // 4, len(logprobs), 2 * len(logprobs)):
        batches: list[list[Answer]] = []

        def reward(completions: list[Completion], batches: list[list[Answer]] = batches) -> list[float]:
            batches.append([one.tokens for one in completions])
            return [smooth(one.tokens) for one in completions]

        options = {"num_rollouts": budget, "width": width, "max_tokens": LONGEST, "top_p": 1.0, "seed": 3}
        result = tree_search(small_model(), PROMPT, reward=reward, **options | sampling)
        found = [one.tokens for one in result.completions]
        assert len(found) == len(set(found)) == min(budget, len(logprobs))
        assert len(found) == result.stats.rollouts == result.tree.visits[ROOT] <= result.stats.started
        assert [answer for batch in batches for answer in batch if answer not in set(found)] == []
        assert sum(map(len, batches)) == len(found)
        assert all(len(batch) <= width for batch in batches)
        assert not result.tree.pending.any()
        assert result.exhausted == (budget >= len(logprobs))


@pytest.mark.parametrize("width", [4, 16])
def test_what_is_found_does_not_depend_on_the_width(width: int) -> None:
    """Walkers that had to leave what others are at, or found it again, would find less of the mass."""

    def mass(width: int) -> float:
        options = {"num_rollouts": 40, "inverse_temperature": 0.1, "width": width}
        found = [{one.tokens: one.logprob for one in run(seed=s, **options).completions} for s in range(6)]
        return float(np.mean([sum(map(math.exp, each.values())) for each in found]))

    assert mass(width) == pytest.approx(mass(1), abs=0.02)


def test_a_walker_may_join_what_is_under_way() -> None:
    """As on an ECG, where the first tokens have 0.94, 0.03 and 0.006: nobody has to take what siblings leave."""
    tree, none = Tree(), np.zeros(3, bool)
    tokens = np.arange(3, dtype=np.int32)
    nodes = tree.add(np.full(3, ROOT, np.int32), tokens, np.log([0.94, 0.03, 0.006]), none, none)
    tree.count_along(tree.pending, nodes, 1)
    uniforms = np.tile((np.arange(1000) + 0.5)[:, None] / 1000, (1, 3))
    stops = np.bincount(unexplored(tree, uniforms, SearchConfig(explore=0.0)), minlength=4) / 1000
    np.testing.assert_allclose(stops, [0.024, 0.94, 0.03, 0.006], atol=2e-3)
    tree.terminal[nodes[0]] = True  # it is an answer, and not scored yet: that one is found
    stops = np.bincount(unexplored(tree, uniforms, SearchConfig(explore=0.0)), minlength=4) / 1000
    np.testing.assert_allclose(stops, np.array([0.024, 0, 0.03, 0.006]) / 0.06, atol=2e-3)
    tree.count_along(tree.pending, nodes[1:], -1)  # given up
    assert tree.rest()[nodes].tolist() == [0, 0, 0]


# --- the same checks fail when a part of a rule is left out


def partial_error(lam: float = 1.0) -> float:
    """|V̂ − V| of MaxEnt-TS with a third of the answers seen, on average."""
    target = Exact.of(enumerated(), smooth, lam)
    results = [run(num_rollouts=48, width=8, inverse_temperature=lam, seed=seed) for seed in range(4)]
    return float(np.mean([target.errors(result)[0] for result in results]))


def with_rule(monkeypatch: pytest.MonkeyPatch, method: str, **rules: Any) -> None:
    monkeypatch.setitem(METHODS, method, dataclasses.replace(METHODS[method], **rules))


def test_maxent_is_near_before_everything_is_explored() -> None:
    assert partial_error() < 0.01


def test_without_the_prior_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_prior(tree: Tree, leaves: NDArray[np.int32], lam: float) -> None:
        priors = tree.log_prior.copy()
        tree.log_prior[1:] = 0.0
        soft_prior(tree, leaves, lam)
        tree.log_prior[:] = priors

    with_rule(monkeypatch, "maxent-ts", backup=without_prior)
    assert Exact.of(enumerated(), smooth, 1.0).errors(run())[0] > 0.03
    assert partial_error() > 0.03


def test_without_the_unexplored_rest_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_rest(tree: Tree, leaves: NDArray[np.int32], lam: float) -> None:
        for node in tree.ancestors(leaves)[::-1]:
            children = tree.children(np.array([node])).nodes
            children = children[~np.isnan(tree.value[children])]
            if len(children):
                total = np.exp(tree.log_prior[children] + lam * tree.value[children]).sum()
                tree.value[node] = np.log(total) / lam

    with_rule(monkeypatch, "maxent-ts", backup=without_rest)
    assert partial_error() > 0.03


def test_without_a_rest_to_open_it_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tree, "rest", lambda tree: np.zeros(tree.size))
    result = run(num_rollouts=24, width=8)
    assert len(result.completions) <= 8
    assert partial_error() > 0.03


def test_without_multiplicity_samples_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def error() -> float:
        target = Exact.of(enumerated(), smooth, 1.0)
        return target.errors(run(method="best-of-n", num_rollouts=1024))[1]

    def distinct(tree: Tree, leaves: NDArray[np.int32], lam: float) -> None:
        draws = tree.draws.copy()
        tree.draws[:] = np.minimum(draws, 1)
        soft_mean(tree, leaves, lam)
        tree.draws[:] = draws

    def even(tree: Tree, children: Any) -> NDArray[np.float64]:
        return np.where(np.isnan(tree.value[children.nodes]), -np.inf, 0.0)

    assert error() < 0.12
    with_rule(monkeypatch, "best-of-n", weigh=even)
    assert error() > 0.12
    with_rule(monkeypatch, "best-of-n", backup=distinct)
    right = Exact.of(enumerated(), smooth, 1.0).value
    assert abs(run(method="best-of-n", num_rollouts=1024).root_value - right) > 0.02


def test_mcts_is_the_mean_of_its_rollouts_and_not_without_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    def gap() -> float:
        result = run(method="mcts", num_rollouts=100)
        return abs(result.root_value - float(np.mean([one.reward for one in result.completions])))

    def unvisited(tree: Tree, leaves: NDArray[np.int32], lam: float) -> None:
        visits = tree.visits.copy()
        tree.visits[:] = np.minimum(visits, 1)
        mean(tree, leaves, lam)
        tree.visits[:] = visits

    assert gap() < 1e-9
    with_rule(monkeypatch, "mcts", backup=unvisited)
    assert gap() > 1e-3


# --- the rules against slow recursions on random trees


def random_tree(seed: int, size: int, width: int = 4) -> Tree:
    """A tree as a search leaves it, mid-way: some leaves scored, some rollouts under way."""
    rng = np.random.default_rng(seed)
    tree, priors = Tree(), {ROOT: rng.dirichlet(np.ones(width))}
    for _ in range(size):
        inner = [node for node in range(tree.size) if not tree.terminal[node]]
        parent, token = int(rng.choice(inner)), int(rng.integers(width))
        if parent not in priors:
            priors[parent] = rng.dirichlet(np.ones(width))
        ends = tree.depth[parent] > 0 and rng.random() < 0.4
        known = tree.find([*tree.path(parent), token])
        ends = bool(tree.terminal[known]) if known is not None else bool(ends)
        log_prior = np.log(np.maximum(priors[parent][token], 1e-12))
        step = (np.array([one]) for one in (parent, token, log_prior, ends, ends))
        tree.add(*step, enumerated=bool(rng.random() < 0.2))
    childless = np.setdiff1d(np.arange(1, tree.size), tree.parent[1:]).astype(np.int32)
    tree.count_along(tree.pending, childless[rng.random(len(childless)) < 0.3], 1)
    leaves = np.flatnonzero(tree.terminal)
    scored = leaves[rng.random(len(leaves)) < 0.8].astype(np.int32)
    tree.reward[scored] = tree.value[scored] = rng.normal(size=len(scored)) * rng.choice([0.1, 1, 30])
    tree.count_along(tree.visits, np.repeat(scored, rng.integers(1, 4, len(scored))), 1)
    return tree


def below(tree: Tree, node: int) -> list[int]:
    return [child for child in range(1, tree.size) if tree.parent[child] == node]


def scored_leaves(tree: Tree) -> NDArray[np.int32]:
    return np.flatnonzero(~np.isnan(tree.reward)).astype(np.int32)


def slow_value(tree: Tree, node: int, average: Callable[[list[int], list[float]], float]) -> float | None:
    if tree.terminal[node]:
        return None if np.isnan(tree.reward[node]) else float(tree.reward[node])
    values = [(child, slow_value(tree, child, average)) for child in below(tree, node)]
    known = [(child, value) for child, value in values if value is not None]
    return average([child for child, _ in known], [value for _, value in known]) if known else None


def slow_weights(tree: Tree, nodes: Sequence[int]) -> list[float]:
    """w of children that have a value: p where enumerated, else p over the chance of having been found."""
    p = {node: math.exp(tree.log_prior[node]) for node in nodes}
    drawn = [node for node in nodes if not tree.enumerated[node]]
    wanted = 1 - sum(p[node] for node in nodes if node not in drawn)
    if not drawn or wanted - sum(p[node] for node in drawn) < 1e-6:
        return list(p.values())

    def stand_for(node: int, t: float) -> float:
        return p[node] / -math.expm1(-t * p[node])

    low, high = 1e-3, 1e20
    for _ in range(200):  # bisection in log t
        middle = math.sqrt(low * high)
        low, high = (middle, high) if sum(stand_for(node, middle) for node in drawn) > wanted else (low, middle)
    return [stand_for(node, low) if node in drawn else p[node] for node in nodes]


def slow_soft(weights: Sequence[float], values: Sequence[float], lam: float) -> float:
    top = max(values)
    total = sum(weight * math.exp(lam * (value - top)) for weight, value in zip(weights, values, strict=True))
    return top + math.log(total / sum(weights)) / lam


trees = st.builds(random_tree, st.integers(0, 2**32 - 1), st.integers(1, 60))
lams = st.sampled_from([0.1, 1.0, 10.0])


def slow_counts(tree: Tree, nodes: Sequence[int], counts: NDArray[np.int32]) -> list[float]:
    return [math.exp(tree.log_prior[n]) if tree.enumerated[n] else float(counts[n]) for n in nodes]


@given(trees, lams)
@settings(max_examples=50, deadline=None)
def test_backups_are_the_recursions_they_stand_for(tree: Tree, lam: float) -> None:
    rules = {
        soft_prior: lambda nodes, values: slow_soft(slow_weights(tree, nodes), values, lam),
        soft_mean: lambda nodes, values: slow_soft(slow_counts(tree, nodes, tree.draws), values, lam),
        mean: lambda nodes, values: np.average(values, weights=slow_counts(tree, nodes, tree.visits)),
    }
    for backup, average in rules.items():
        tree.value[:] = tree.reward
        backup(tree, scored_leaves(tree), lam)
        expected = [slow_value(tree, node, average) for node in range(tree.size)]
        np.testing.assert_allclose(tree.value, [np.nan if x is None else x for x in expected], atol=1e-9, rtol=1e-9)


@given(trees, lams)
@settings(max_examples=50, deadline=None)
def test_a_backup_of_what_is_new_is_a_backup_of_everything(tree: Tree, lam: float) -> None:
    leaves = scored_leaves(tree)
    soft_prior(tree, leaves, lam)
    whole = tree.value.copy()
    tree.value[:] = np.nan
    for leaf in np.random.default_rng(0).permutation(leaves):
        tree.value[leaf] = tree.reward[leaf]
        soft_prior(tree, np.array([leaf]), lam)
    np.testing.assert_allclose(tree.value, whole, atol=1e-9, rtol=1e-9)


@given(trees, lams)
@settings(max_examples=50, deadline=None)
def test_weights_are_split_down_the_tree_and_sum_to_one(tree: Tree, lam: float) -> None:
    soft_prior(tree, scored_leaves(tree), lam)
    weights = leaf_weights(tree, lam)
    if not len(scored_leaves(tree)):
        assert weights.sum() == 1  # all of it at the root
        return
    assert weights[scored_leaves(tree)].sum() == pytest.approx(1)

    def split(node: int, weight: float) -> None:
        assert weights[node] == pytest.approx(weight, abs=1e-12)
        known = [child for child in below(tree, node) if not np.isnan(tree.value[child])]
        w = slow_weights(tree, known)
        logs = np.array([math.log(w_) + lam * tree.value[child] for w_, child in zip(w, known, strict=True)])
        for child, share in zip(known, np.exp(logs - logs.max()) if known else [], strict=True):
            split(child, weight * share / np.exp(logs - logs.max()).sum())

    split(ROOT, 1.0)


@given(trees, lams, st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_selection_is_a_walk_down_over_the_open_mass(tree: Tree, lam: float, explore: float) -> None:
    soft_prior(tree, scored_leaves(tree), lam)
    if not tree.rest().any():
        return

    def stops(by_value: float) -> NDArray[np.float64]:
        """Where a walker stops, one decision a node: go down into an open part, or stop and open a child."""

        def worth(node: int) -> float:
            while np.isnan(tree.value[node]) and node != ROOT:
                node = tree.parent[node]
            return by_value * float(np.nan_to_num(tree.value[node] - tree.value[ROOT]))

        def options(node: int) -> dict[int | None, float]:
            children = below(tree, node)
            under_way = tree.pending[node] and not tree.terminal[node]
            rest = 1 - sum(math.exp(tree.log_prior[child]) for child in children) if children or under_way else 0.0
            found: dict[int | None, float] = {None: rest * math.exp(worth(node)) if rest > 1e-6 else 0.0}
            for child in children:
                found[child] = math.exp(tree.log_prior[child]) * sum(options(child).values())
            return found

        def walk(node: int, probability: float) -> None:
            weights = options(node)
            total = sum(weights.values())
            for child, weight in weights.items():
                if weight > 0 and child is None:
                    chance[node] += probability * weight / total
                elif weight > 0:
                    walk(child, probability * weight / total)

        chance = np.zeros(tree.size)
        walk(ROOT, 1.0)
        return chance

    steps = 500
    uniforms = np.random.default_rng(0).random((2 * steps, 9))
    uniforms[:, 0] = np.tile((np.arange(steps) + 0.5) / steps, 2)
    uniforms[:, -1] = np.repeat(
        [explore / 2, min(1 + explore, 1.99) / 2], steps
    )  # an explorer where there is one, then not
    found = unexplored(tree, uniforms, SearchConfig(explore=explore, inverse_temperature=lam))
    for half, by_value in ((found[:steps], 0.0 if explore else lam), (found[steps:], 0.0 if explore == 1 else lam)):
        np.testing.assert_allclose(
            np.bincount(half, minlength=tree.size) / steps, stops(by_value), atol=2 / steps, err_msg=str(by_value)
        )


@given(trees)
@settings(max_examples=40, deadline=None)
def test_the_tree_answers_as_a_slow_one(tree: Tree) -> None:
    nodes = np.random.default_rng(1).permutation(tree.size).astype(np.int32)
    children = tree.children(nodes)
    parts = np.split(children.nodes, np.cumsum(children.counts)[:-1])
    assert [part.tolist() for part in parts] == [below(tree, node) for node in nodes]
    for node in range(tree.size):
        path = tree.path(node)
        assert (len(path), tree.find(path)) == (tree.depth[node], node)
        parents = [tree.find(path[:end]) for end in range(len(path) + 1)]
        assert tree.ancestors(np.array([node])).tolist() == sorted(parents)
        assert tree.logprob[node] == pytest.approx(sum(tree.log_prior[parent] for parent in parents))
        assert tree.taken[node] == pytest.approx(sum(tree.prior[child] for child in below(tree, node)))
    assert tree.find([99]) is None


@given(trees)
@settings(max_examples=30, deadline=None)
def test_a_tree_survives_json_and_a_copy_stands_alone(tree: Tree) -> None:
    before = tree.to_dict()
    copied, read = tree.copy(), Tree.from_dict(before)
    for other in (copied, read):
        other.add(*(np.array([one]) for one in (ROOT, 99, -9.0, True, True)))
        other.visits += 1
    assert tree.to_dict() == before
    assert copied.to_dict() == read.to_dict()
    assert copied.size == tree.size + 1


@given(trees, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_subtree_is_the_tree_below_a_node(tree: Tree, pick: int) -> None:
    node = pick % tree.size
    sub, number = tree.subtree(node)
    inside = [n for n in range(tree.size) if tree.path(n)[: tree.depth[node]] == tree.path(node)]
    assert np.flatnonzero(number >= 0).tolist() == inside
    for old in inside:
        new = number[old]
        assert sub.path(new) == tree.path(old)[tree.depth[node] :]
        assert sub.logprob[new] == pytest.approx(tree.logprob[old] - tree.logprob[node])
        assert (sub.visits[new], sub.depth[new]) == (tree.visits[old], tree.depth[old] - tree.depth[node])
        np.testing.assert_equal(sub.value[new], tree.value[old])


def test_a_big_tree_is_saved_fast_and_small() -> None:
    tree, rng = random_tree(0, 300), np.random.default_rng(0)
    while tree.size < 10_000:
        free = np.flatnonzero(~tree.terminal)[-40:].astype(np.int32)
        new = tree.add(free, free % 97, np.log(rng.random(len(free))), free < 0, free < 0)
        tree.value[new] = rng.random(len(new))
    started = time.perf_counter()
    text = json.dumps(tree.to_dict())
    again = Tree.from_dict(json.loads(text))
    assert time.perf_counter() - started < 1
    assert len(text) < 200 * tree.size
    assert again.to_dict() == tree.to_dict()


# --- the cost


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_runs_and_decodes_nothing_twice(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    passes = 0
    name = TreeDecoder._name

    def spy(decoder: TreeDecoder, nodes: NDArray[np.int32]) -> None:
        nonlocal passes
        passes += 1
        decoded.extend(nodes[nodes != FREE].tolist())
        name(decoder, nodes)

    monkeypatch.setattr(TreeDecoder, "_name", spy)
    batches: list[list[Answer]] = []

    def reward(completions: list[Completion]) -> list[float]:
        batches.append([one.tokens for one in completions])
        return [smooth(one.tokens) for one in completions]

    result = tree_search(
        small_model(), PROMPT, method, reward, num_rollouts=40, width=8, max_tokens=LONGEST, inverse_temperature=2.0
    )
    tree, stats = result.tree, result.stats
    inner = set(np.unique(tree.parent[1:]).tolist())
    if branch.ON_CPU:
        assert len(decoded) == len(set(decoded)) == stats.tokens_decoded
    else:  # a pass ahead decodes behind rows that have ended, and a path that is known is not known to be so
        assert len(set(decoded)) <= stats.tokens_decoded <= 1.5 * len(decoded)
        assert len(decoded) == len(set(decoded)) or not METHODS[method].fresh
    assert inner - {ROOT} <= set(decoded) <= set(range(1, tree.size))
    assert not tree.terminal[decoded].any()
    assert stats.forward_passes == passes + 1
    if method != "beam":  # whose discarded beams have been decoded too
        assert inner - {ROOT} == set(decoded)
    rollouts = 1 if method == "greedy" else 40
    assert stats.rollouts == len(result.completions) == tree.visits[ROOT] == rollouts
    assert stats.waves == -(-rollouts // 8)
    assert len(batches) <= stats.waves
    assert all(len(batch) <= 8 for batch in batches)
    seen = [answer for batch in batches for answer in batch]
    assert len(seen) == len(set(seen)) == len({one.tokens for one in result.completions})
    assert not tree.pending.any()
    assert sum(one.weight for one in result.completions) == pytest.approx(1)
    rewards = [one.reward for one in result.completions]
    assert min(rewards) <= result.root_value <= max(rewards) + 1e-9
    assert sum(result.answers.values()) == pytest.approx(
        sum(one.weight for one in result.completions if one.answer is not None)
    )
    assert stats.nodes == tree.size
    assert stats.depth == tree.depth.max()
    assert set(stats.seconds) == {"prefill", "select", "decode", "reward", "backup", "total"}


def test_waves_share_forward_passes() -> None:
    """A wave as wide as the budget takes one pass a level; one at a time takes one a token."""
    wide, narrow = (run(method="best-of-n", num_rollouts=16, width=width).stats for width in (16, 1))
    assert wide.forward_passes == LONGEST
    if branch.ON_CPU:
        assert wide.tokens_decoded == narrow.tokens_decoded == narrow.forward_passes - 1


# --- determinism


def fingerprint(result: SearchResult) -> dict[str, Any]:
    found = result.to_dict()
    del found["stats"]["seconds"], found["stats"]["peak_memory"]
    return found


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_same_seed_gives_the_same_result_bit_for_bit(method: str) -> None:
    first, second, other = (run(method=method, num_rollouts=40, width=8, seed=seed) for seed in (5, 5, 6))
    assert fingerprint(first) == fingerprint(second)
    if method not in ("beam", "greedy"):
        assert fingerprint(first)["tree"] != fingerprint(other)["tree"]


# --- edges


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 1},
        {"temperature": 0.0},
        {"top_k": 1},
        {"top_p": 0.01},
        {"num_rollouts": 1, "width": 16},
        {"num_rollouts": 3, "width": 1},
        {"inverse_temperature": 1000.0, "explore": 0.0},
        {"temperature": 0.02},
        {"temperature": 100.0, "explore": 1.0},
    ],
    ids=str,
)
def test_edges_end_and_sum_to_one(method: str, options: dict[str, Any]) -> None:
    result = run(**({"num_rollouts": 24, "width": 5, "method": method} | options))
    assert sum(one.weight for one in result.completions) == pytest.approx(1)
    assert np.isfinite(result.root_value)
    assert not result.tree.pending.any()
    if options.get("temperature") == 0.0 or options.get("top_k") == 1:
        assert len({one.tokens for one in result.completions}) == 1


def test_two_tokens_and_an_end_at_once() -> None:
    letter = chr(20 * (VOCABULARY - 1))  # token 1: a table of two rows has no other
    prompt, budget = Prompt(letter, [], letter), {"max_tokens": 1, "num_rollouts": 50, "top_p": 1.0}
    result = tree_search(small_model(vocabulary=2), prompt, reward=batched(len), **budget)
    assert result.exhausted
    assert {one.tokens for one in result.completions} == {(0,), (1,)}
    assert result.root_value == pytest.approx(1)


def test_greedy_is_what_generate_says() -> None:
    class Detokenizer:
        last_segment = ""

        def add_token(self, token: int) -> None: ...

        def finalize(self) -> None: ...

    model = small_model()
    Letters.detokenizer = Detokenizer()  # type: ignore[attr-defined]
    said = [one.token for one in stream_generate(model, PROMPT, max_tokens=LONGEST)]
    result = run(method="greedy", num_rollouts=7)
    assert list(result.best.tokens) == said
    assert len(result.completions) == 1


# --- what goes wrong


def test_a_reward_that_fails_keeps_what_was_found() -> None:
    calls = 0

    def breaks(completions: list[Completion]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise RuntimeError("no network")
        return [smooth(one.tokens) for one in completions]

    with pytest.raises(SearchError, match="raised RuntimeError: no network, at completion") as error:
        tree_search(small_model(), PROMPT, reward=breaks, num_rollouts=64, width=4, max_tokens=LONGEST, top_p=1.0)
    found = error.value.result
    assert found is not None
    assert found.stats.rollouts == len(found.completions) == 12
    assert not found.exhausted
    assert sum(one.weight for one in found.completions) == pytest.approx(1)
    # What was under way is not lost: it is scored when the search goes on.
    under_way = int(found.tree.pending[ROOT])
    assert under_way > 0
    on = run(width=4, num_rollouts=12 + under_way, resume=found)
    assert on.tree.visits[ROOT] == len(on.completions) == 12 + under_way
    assert not on.tree.pending.any()


def test_a_reward_of_nan_names_the_completion() -> None:
    with pytest.raises(SearchError, match="is nan for completion") as error:
        run(lambda answer: float("nan"))
    assert error.value.result is None


def test_logits_that_are_nan_stop_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = TreeDecoder.logits
    monkeypatch.setattr(TreeDecoder, "logits", lambda decoder, nodes: logits(decoder, nodes) * float("nan"))
    for method in ("maxent-ts", "best-of-n", "greedy"):
        with pytest.raises(SearchError, match="logits are NaN"):
            run(method=method)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_rollouts": 0}, "num_rollouts is 0"),
        ({"num_rollouts": 2.5}, "num_rollouts is 2.5"),
        ({"width": 0}, "width is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"inverse_temperature": 0.0}, "inverse_temperature is 0"),
        ({"inverse_temperature": float("nan")}, "inverse_temperature is nan"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 2.0}, "top_p is 2"),
        ({"explore": 1.5}, "explore is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"method": "magic"}, "unknown search method 'magic'; choose from maxent-ts"),
        ({"max_tokens": 100}, "the prompt takes 9 positions and the answer up to 100.*context has 64"),
        ({"reward": "good"}, "a reward must be"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_before_anything_runs(options: dict[str, Any], says: str) -> None:
    def unreachable(completions: list[Completion]) -> list[float]:
        raise AssertionError("the search has begun")

    with pytest.raises(TSLMError, match=says):
        tree_search(small_model(), PROMPT, **({"reward": unreachable, "max_tokens": LONGEST} | options))


def test_a_model_without_an_end_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Letters, "eos_token_id", None)
    with pytest.raises(TSLMError, match="no end-of-sequence token"):
        run()


@pytest.mark.parametrize("method", ["maxent-ts", "beam"])
def test_a_budget_beyond_memory_is_refused_with_what_fits(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = small_model(), SearchConfig(method, num_rollouts=64, width=16, max_tokens=40)
    at_once = method == "beam"
    need = memory.needed(model.footprint(), 9, config, at_once)
    monkeypatch.setattr(memory, "available", lambda: need)
    memory.check(model.footprint(), 9, config, at_once)
    monkeypatch.setattr(memory, "available", lambda: need // 2)
    with pytest.raises(TSLMError, match=r"64 rollouts .* need .* what fits: num_rollouts \d+") as error:
        run(method=method, num_rollouts=64, width=16, max_tokens=40)
    fitting = str(error.value).split("what fits: ")[1].split(" or ")
    for name, value in (way.split() for way in fitting):
        smaller = dataclasses.replace(config, **{name: int(value)})
        larger = dataclasses.replace(config, **{name: int(value) + 1})
        assert (
            memory.needed(model.footprint(), 9, smaller, at_once)
            <= need // 2
            < memory.needed(model.footprint(), 9, larger, at_once)
        )
    monkeypatch.setattr(memory, "available", lambda: 100)
    with pytest.raises(TSLMError, match="shorten the prompt"):
        run(method=method)


def test_the_memory_estimate_covers_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    flush = TreeDecoder.flush

    def spy(decoder: TreeDecoder, *outputs: mx.array) -> None:
        flush(decoder, *outputs)
        held.append(decoder.nbytes)

    monkeypatch.setattr(TreeDecoder, "flush", spy)
    run(num_rollouts=100, width=32, max_tokens=30, temperature=5.0)
    need = memory.needed(small_model().footprint(), 9, SearchConfig(num_rollouts=100, width=32, max_tokens=30))
    assert max(held) <= need
    assert memory.available() is None or memory.available() > 0


# --- stopping, saving, going on


def test_a_stopped_search_reports_what_it_has_and_goes_on() -> None:
    seen: list[Any] = []

    def stop(progress: Any) -> bool:
        seen.append(progress)
        return progress.waves < 3

    result = run(width=4, num_rollouts=100, progress=stop)
    assert 12 <= result.stats.rollouts < 24
    assert not result.tree.pending.any()
    assert [one.waves for one in seen] == sorted(one.waves for one in seen)
    assert seen[0].snapshot is not None
    assert all(one.budget == 100 and one.walkers <= 4 for one in seen)
    on = run(width=4, resume=result)
    assert on.exhausted
    assert max(Exact.of(enumerated(), smooth, 1.0).errors(on)) < 1e-5


def test_a_result_survives_the_file(tmp_path: Path) -> None:
    result = run(num_rollouts=40, inverse_temperature=2.0, explore=0.5, top_k=3)
    result.save(tmp_path / "result.json")
    read = SearchResult.load(tmp_path / "result.json")
    assert read.to_dict() == result.to_dict()
    assert read.best == result.best
    assert (read.config, read.stats, read.seed) == (result.config, result.stats, 0)
    (tmp_path / "other.json").write_text('{"format": 99}')
    for bad, says in (("missing.json", "cannot read"), ("other.json", "not a saved search result")):
        with pytest.raises(TSLMError, match=says):
            SearchResult.load(tmp_path / bad)


@pytest.mark.parametrize("method", ["maxent-ts", "dts", "dts*", "mcts", "best-of-n"])
def test_a_resumed_search_goes_on_where_it_was(method: str) -> None:
    options = {"method": method, "width": 4, "seed": 3}
    half = run(num_rollouts=40, **options)
    kept = half.to_dict()
    on = run(num_rollouts=80, resume=SearchResult.from_dict(kept), **options)
    assert half.to_dict() == kept
    assert on.stats.rollouts == on.tree.visits[ROOT] == 80
    assert [one.tokens for one in on.completions[:40]] == [one.tokens for one in half.completions]
    assert on.stats.started >= 80
    assert on.tree.size > half.tree.size
    assert 0 < on.stats.tokens_decoded < on.tree.size
    for one in on.completions:  # keys and values computed again are the same
        assert one.logprob == pytest.approx(enumerated()[one.tokens], abs=1e-4)
    if method == "best-of-n":  # where rollouts do not depend on each other, the result is that of one search
        whole = run(num_rollouts=80, **options)
        assert Counter(one.tokens for one in whole.completions) == Counter(one.tokens for one in on.completions)
        assert on.root_value == pytest.approx(whole.root_value)


def test_resuming_takes_other_values_of_what_may_change() -> None:
    half = run(num_rollouts=40, inverse_temperature=1.0)
    on = run(num_rollouts=41, inverse_temperature=10.0, resume=half, width=2, seed=9)
    tree = on.tree.copy()
    soft_prior(tree, scored_leaves(tree), 10.0)
    np.testing.assert_allclose(on.tree.value, tree.value)
    again = run(num_rollouts=40, inverse_temperature=10.0, resume=half)
    assert again.stats.rollouts == 40
    assert again.stats.tokens_decoded == 0
    assert again.root_value > half.root_value


@pytest.mark.parametrize("method", ["maxent-ts", "best-of-n"])
def test_a_snapshot_loses_no_rollout(method: str) -> None:
    caught: list[dict[str, Any]] = []

    def watch(progress: Any) -> None:
        found = progress.snapshot()
        if found is not None:
            caught.append(found.to_dict())

    run(method=method, num_rollouts=60, width=8, progress=watch)
    amid = [SearchResult.from_dict(one) for one in caught[2::5]]
    assert any(one.tree.pending[ROOT] for one in amid)
    for snapshot in amid:
        assert not snapshot.exhausted
        on = run(method=method, num_rollouts=512 if method == "maxent-ts" else 70, width=8, resume=snapshot)
        assert on.tree.visits[ROOT] == on.stats.rollouts == len(on.completions)
        assert not on.tree.pending.any()
        if method == "maxent-ts":
            assert on.exhausted
            assert max(Exact.of(enumerated(), smooth, 1.0).errors(on)) < 1e-5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": 0.5}, "temperature = 1.0, not 0.5"),
        ({"method": "dts"}, "method = maxent-ts, not dts"),
        ({"max_tokens": 3}, "max_tokens = 4, not 3"),
        ({"prompt": "abc"}, "read a prompt of 9 positions, this one has 4"),
    ],
)
def test_a_search_for_something_else_cannot_be_resumed(change: dict[str, Any], says: str) -> None:
    options: dict[str, Any] = {"prompt": PROMPT, "num_rollouts": 8, "max_tokens": LONGEST} | change
    if options["prompt"] == "abc":
        options["prompt"] = Prompt(pre="abc")
        says = says.replace("has 4", "has 3")
    with pytest.raises(TSLMError, match=says):
        tree_search(small_model(), reward=batched(smooth), resume=run(num_rollouts=4), **options)


def test_a_beam_cannot_be_widened() -> None:
    beams = run(method="beam", num_rollouts=8)
    assert run(method="beam", num_rollouts=8, resume=beams).root_value == beams.root_value
    with pytest.raises(TSLMError, match="cannot be widened"):
        run(method="beam", num_rollouts=16, resume=beams)


def test_a_moved_root_keeps_what_is_below(tmp_path: Path) -> None:
    lam, first = 3.0, (1,)
    logprobs = {a: p for a, p in enumerated().items() if a[:1] == first}
    share = math.log(sum(map(math.exp, logprobs.values())))
    target = Exact.of({answer: logprob - share for answer, logprob in logprobs.items()}, smooth, lam)
    result = run(num_rollouts=48, inverse_temperature=lam)
    moved = result.descend(first)
    moved.save(tmp_path / "moved.json")
    moved = SearchResult.load(tmp_path / "moved.json")
    assert moved.prefix == first
    assert {one.tokens for one in moved.completions} == {
        one.tokens for one in result.completions if one.tokens[:1] == first
    }
    assert sum(one.weight for one in moved.completions) == pytest.approx(1)
    assert moved.tree.visits[ROOT] == len(moved.completions) == moved.stats.rollouts
    seen: list[Completion] = []

    def reward(completions: list[Completion]) -> list[float]:
        seen.extend(completions)
        return [smooth(one.tokens) for one in completions]

    on = tree_search(
        small_model(),
        PROMPT,
        reward=reward,
        num_rollouts=512,
        max_tokens=LONGEST,
        inverse_temperature=lam,
        resume=moved,
    )
    assert on.exhausted
    assert max(target.errors(on)) < 1e-5
    assert seen
    assert all(one.tokens[:1] == first and one.text.startswith("1") for one in seen)
    assert len(seen) + len({one.tokens for one in moved.completions}) == len(target.share)
    for one in on.completions:
        assert one.logprob == pytest.approx(logprobs[one.tokens] - share, abs=1e-4)
    deeper = on.descend((2,))
    assert deeper.prefix == (1, 2)
    assert {one.tokens for one in deeper.completions} == {a for a in logprobs if a[:2] == (1, 2)}


def test_a_root_moves_only_to_where_answers_are() -> None:
    result = run(num_rollouts=4, method="best-of-n")
    with pytest.raises(TSLMError, match="no finished answer opens with"):
        result.descend([99])
    with pytest.raises(TSLMError, match="the answer ends with"):
        result.descend(result.best.tokens)


# --- the names of the stages guide


def test_the_guide_s_names() -> None:
    model = small_model()
    reward = mlx_tslm.SpectralReward(gamma=1.0)
    reward.set_task_reward(batched(smooth))
    searcher = mlx_tslm.MaxEntTS(model, reward, mlx_tslm.MaxEntTSConfig(num_rollouts=20, max_tokens=LONGEST))
    result = searcher.search(PROMPT)
    assert isinstance(result, mlx_tslm.SearchResult)
    assert len(result.completions) == 20
    assert set(result.best.columns) == {"task", "spectral"}
    assert result.best.reward == smooth(result.best.tokens)
    plain = mlx_tslm.run_sadt(model, prompt="abc", num_rollouts=8, max_tokens=LONGEST)
    same = mlx_tslm.run_sadt(model, prompt=Prompt(pre="abc"), num_rollouts=8, max_tokens=LONGEST)
    assert fingerprint(plain) == fingerprint(same)
    assert mlx_tslm.SearchConfig is mlx_tslm.MaxEntTSConfig
    assert mlx_tslm.search.METHODS is METHODS
    assert mlx_tslm.tree_search is tree_search
