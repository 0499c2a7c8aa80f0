"""What found answers stand for: the weights of drawn and enumerated children, and that they hold for every λ."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_search import PROMPT, batched, enumerated, run, scored_leaves, small_model, smooth, trees

from benchmarks import shares
from mlx_tslm import TSLMError, tree_search
from mlx_tslm.loading import load_folder, read_sampling
from mlx_tslm.sampling import DEFAULT, Sampling
from mlx_tslm.search import METHODS, SearchConfig, SearchResult
from mlx_tslm.search.backup import calibrated, leaf_weights, mean, soft_mean, soft_prior
from mlx_tslm.search.tree import ROOT, Tree


def star(priors: list[float], rewards: list[float], enumerated: list[bool]) -> Tree:
    """A root whose children are scored answers."""
    tree = Tree()
    for token, (p, reward, certain) in enumerate(zip(priors, rewards, enumerated, strict=True)):
        ends = np.array([True])
        log_p = np.array([math.log(p)])
        node = tree.add(np.array([ROOT]), np.array([token]), log_p, ends, ends, enumerated=certain)
        tree.reward[node] = tree.value[node] = reward
    return tree


def weights_of(priors: list[float], enumerated: list[bool]) -> NDArray[np.float64]:
    tree = star(priors, [0.0] * len(priors), enumerated)
    return np.exp(calibrated(tree, tree.children(np.array([ROOT], np.int32))))


@st.composite
def partial_nodes(draw: st.DrawFn) -> tuple[list[float], int]:
    """p of the children that were found at a node, most of it or little, and how many of them were drawn."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found, unseen = draw(st.integers(1, 30)), draw(st.integers(1, 10))
    p = rng.dirichlet(np.full(found + unseen, 10.0 ** draw(st.integers(-2, 1))))
    return np.maximum(p[:found], 1e-300).tolist(), draw(st.integers(0, found))


@given(partial_nodes())
@settings(max_examples=200, deadline=None)
def test_weights_fill_what_is_known_to_be_there(node: tuple[list[float], int]) -> None:
    priors, drawn = node
    certain = [index >= drawn for index in range(len(priors))]
    w, p = weights_of(priors, certain), np.array(priors)
    np.testing.assert_allclose(w[drawn:], p[drawn:], rtol=1e-12)  # what was enumerated stands for itself
    if drawn:
        total = w.sum()
        assert total == pytest.approx(1, abs=2e-6)
        assert (w[:drawn] >= p[:drawn] * (1 - 1e-9)).all()
        assert (np.diff(w[:drawn][np.argsort(p[:drawn])]) >= -1e-12).all()  # never against the order of p


def test_weights_at_both_ends() -> None:
    np.testing.assert_allclose(weights_of([0.6, 0.3, 0.1], [False] * 3), [0.6, 0.3, 0.1])  # nothing is unexplored
    np.testing.assert_allclose(weights_of([1e-6, 3e-6, 9e-6], [False] * 3), 1 / 3, rtol=1e-4)  # like draws
    np.testing.assert_allclose(weights_of([0.2], [False]), [1.0])
    np.testing.assert_allclose(weights_of([0.2, 0.5], [True, False]), [0.2, 0.8])
    np.testing.assert_allclose(weights_of([0.2, 0.3], [True, True]), [0.2, 0.3])
    p = np.array([0.5, 0.2])
    w = weights_of(p.tolist(), [False] * 2)
    t = -np.log1p(-p / w) / p  # the same t for both
    assert t[0] == pytest.approx(t[1])


def test_a_rare_label_keeps_its_share() -> None:
    """Found by enumerating, a label of one in a million is worth that, whatever it earns."""
    priors, rewards, lam = [0.93, 0.05, 1e-6], [0.5, 0.5, 0.8], 20.0
    exact = np.array(priors) * np.exp(lam * np.array(rewards))
    tree = star(priors, rewards, [True] * 3)
    soft_prior(tree, scored_leaves(tree), lam)
    np.testing.assert_allclose(leaf_weights(tree, lam)[1:], exact / exact.sum(), rtol=1e-9)
    assert leaf_weights(tree, lam)[3] < 5e-4
    drawn = star(priors, rewards, [False] * 3)
    assert leaf_weights(drawn, lam)[3] > 5e-4  # as if it were one of three draws


# --- λ and rewards at their ends

lams = st.sampled_from([5e-324, 1e-300, 1e-15, 1e-9, 1e-3, 1.0, 1e3, 1e9, 1e15, 1e16, 1e300])
scales = st.sampled_from([0.0, 1e-300, 1e-12, 1.0, 1e12, 1e300, 1.7e308])


@given(trees, lams, scales, st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_lambda_gives_weights_that_sum_to_one(tree: Tree, lam: float, scale: float, ties: bool) -> None:
    leaves = scored_leaves(tree)
    if not len(leaves):
        return
    rewards = np.random.default_rng(0).uniform(-1, 1, len(leaves))
    tree.reward[leaves] = scale * (np.sign(rewards) if ties else rewards)
    for method in METHODS.values():
        tree.value[:] = tree.reward
        method.backup(tree, leaves, lam)
        weights = leaf_weights(tree, lam, method.weigh)
        assert weights[leaves].sum() == pytest.approx(1, abs=1e-9)
        assert (weights >= 0).all() and weights.max() <= 1 + 1e-9
        low, high = tree.reward[leaves].min(), tree.reward[leaves].max()
        slack = 1e-9 * max(abs(low), abs(high))
        assert low - slack <= tree.value[ROOT] <= high + slack


def test_a_tiny_lambda_is_the_mean_and_a_large_one_the_best() -> None:
    priors, rewards = [0.5, 0.3, 0.2], [0.2, 0.84, 0.84]
    for lam, value, weights in (
        (1e-15, 0.52, priors),
        (1e16, 0.84, [0, 0.6, 0.4]),  # ties are told apart by p, however large λ is
    ):
        tree = star(priors, rewards, [False] * 3)
        soft_prior(tree, scored_leaves(tree), lam)
        assert tree.value[ROOT] == pytest.approx(value)
        np.testing.assert_allclose(leaf_weights(tree, lam)[1:], weights, atol=1e-12)


@pytest.mark.parametrize("lam", [1e-15, 1e15, 1e300])
@pytest.mark.parametrize("scale", [1.0, 1e308, 1.7e308])
@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.filterwarnings("error")
def test_searches_hold_at_the_ends(method: str, lam: float, scale: float) -> None:
    def signed(answer: Any) -> float:
        return scale * (2 * smooth(answer) - 1)

    result = run(signed, method=method, num_rollouts=24, inverse_temperature=lam)
    assert sum(one.weight for one in result.completions) == pytest.approx(1)
    assert sum(result.answers.values()) + result.unanswered == pytest.approx(1)
    rewards = [one.reward for one in result.completions]
    slack = 1e-9 * max(map(abs, rewards))
    assert min(rewards) - slack <= result.root_value <= max(rewards) + slack


# --- a model of 390,625 answers


def test_shares_are_no_worse_than_the_old_rule_s() -> None:
    """Paired over seeds; benchmarks/results/shares.json has 500 of them, and independent samples beside."""
    rules = ("w = p", "Horvitz-Thompson", "independent samples")
    errors = shares.study(["peaked"], rules, (16, 32), seeds=30)["peaked"]
    for budget in ("16", "32"):
        mean, half = shares.paired(errors[budget], "Horvitz-Thompson", "w = p")
        assert mean <= 0 or mean < half, (budget, mean, half)
        assert np.mean(errors[budget]["Horvitz-Thompson"]) < 2 * np.mean(errors[budget]["independent samples"])


def test_the_kept_study_says_the_same() -> None:
    kept = json.loads(shares.RESULTS.read_text())["errors"]
    assert kept.keys() == shares.TOYS.keys()
    for toy, budgets in kept.items():
        for budget, errors in budgets.items():
            assert {len(one) for one in errors.values()} == {500}
            mean, half = shares.paired(errors, "Horvitz-Thompson", "w = p")
            assert mean <= half, (toy, budget)


# --- p, and what completions carry of it


def test_p_is_the_model_s_own_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    assert model.sampling == DEFAULT == Sampling(1.0, None, 0.95)

    def used(**options: Any) -> tuple[float | None, float | None]:
        options = {"max_tokens": 4, "num_rollouts": 2, **options}
        found = tree_search(model, PROMPT, reward=batched(smooth), **options)
        assert SearchResult.from_dict(found.to_dict()).config == found.config
        return found.config.temperature, found.config.top_p

    assert used() == (1.0, 0.95)
    monkeypatch.setattr(model, "sampling", Sampling(0.6, None, 0.9))
    assert used() == (0.6, 0.9)
    assert used(temperature=2.0) == (2.0, 0.9)
    assert used(top_p=1.0) == (0.6, 1.0)
    half = run(num_rollouts=2, temperature=0.5, top_p=0.7)
    assert used(resume=half) == (0.5, 0.7)


@pytest.mark.parametrize(
    ("stated", "p"),
    [
        (None, DEFAULT),
        ({"temperature": 0.6, "top_p": 0.9, "do_sample": True}, Sampling(0.6, None, 0.9)),
        ({"temperature": 0.6}, Sampling(0.6, None, 0.95)),
        ({"top_p": 1.0, "temperature": None}, Sampling(1.0, None, 1.0)),
        ({"temperature": 0}, DEFAULT),
    ],
    ids=str,
)
def test_a_folder_states_its_p(tmp_path: Path, stated: dict[str, Any] | None, p: Sampling) -> None:
    if stated is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(stated))
    assert read_sampling(tmp_path) == p


@pytest.mark.parametrize("text", ["{", "[]", '{"temperature": "warm"}', '{"top_p": 7}', '{"temperature": [1]}'])
def test_a_damaged_statement_of_p_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(TSLMError, match=r"generation_config\.json cannot be used"):
        read_sampling(tmp_path)


def test_a_loaded_model_has_its_folder_s_p(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9}')
    assert load_folder(folder).sampling == Sampling(0.6, None, 0.9)
    assert load_folder(tiny_folder).sampling == DEFAULT


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.8}], ids=str)
def test_completions_carry_log_p_and_entropy_of_their_tokens(method: str, sampling: dict[str, Any]) -> None:
    from test_sampling import reference_log_p

    result = run(method=method, num_rollouts=12, **sampling)
    read = SearchResult.from_dict(json.loads(json.dumps(result.to_dict())))
    logits = {}
    for one, again in zip(result.completions, read.completions, strict=True):
        assert one.logprobs is not None and one.entropies is not None
        assert one.logprobs.shape == one.entropies.shape == (len(one.tokens),)
        assert one.logprobs.sum() == pytest.approx(one.logprob)
        if one.tokens not in logits:
            logits[one.tokens] = np.array(small_model().score(PROMPT, one.tokens))
        for at, token in enumerate(one.tokens):
            log_p = reference_log_p(logits[one.tokens][at], **{"top_p": None, **sampling})
            kept = log_p > -np.inf
            assert one.logprobs[at] == pytest.approx(log_p[token], abs=1e-4)
            assert one.entropies[at] == pytest.approx(-(np.exp(log_p) * np.where(kept, log_p, 0)).sum(), abs=1e-4)
        np.testing.assert_array_equal(again.logprobs, one.logprobs)
        np.testing.assert_array_equal(again.entropies, one.entropies)


# --- results of earlier versions


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_result_of_the_first_format_loads_and_is_weighed_anew(method: str) -> None:
    now = run(method=method, num_rollouts=20, inverse_temperature=3.0)
    saved = json.loads(json.dumps(now.to_dict()))
    for name in ("entropy", "enumerated", "closed"):
        del saved["tree"][name]
    del saved["notes"]
    saved |= {"format": 1, "root_value": 9.0}
    saved["config"] |= {"top_p": None}
    for one in saved["completions"]:
        one["weight"] = 0.5
    tree = saved["tree"]  # as another rule would have it
    tree["value"] = [
        value if value is None or reward is not None else 0.5
        for value, reward in zip(tree["value"], tree["reward"], strict=True)
    ]
    read = SearchResult.from_dict(saved)
    assert read.root_value == pytest.approx(now.root_value)
    assert [one.weight for one in read.completions] == pytest.approx([one.weight for one in now.completions])
    assert read.config == now.config
    assert len(read.notes) == 1 and "weighed anew" in read.notes[0]
    assert np.isnan(read.completions[0].entropies).all()
    again = SearchResult.from_dict(json.loads(json.dumps(read.to_dict())))
    assert again.to_dict() == read.to_dict()


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(TSLMError, match="has format 99, this version reads up to"):
        SearchResult.from_dict(run(num_rollouts=2).to_dict() | {"format": 99})


# --- the tree's columns


@given(trees)
@settings(max_examples=30, deadline=None)
def test_every_column_grows_and_takes_no_shorter_array(tree: Tree) -> None:
    size = tree.size
    for step in range(300):
        tree.add(*(np.array([one]) for one in (ROOT, 1000 + step, -9.0, True, True)))
    fields = tree.to_dict()
    assert {len(column) for column in fields.values()} == {size + 300}
    tree.visits += 1  # in place, in what the tree holds and not in a copy
    assert (tree.visits == np.array(fields["visits"]) + 1).all()
    with pytest.raises(ValueError, match="broadcast"):
        tree.value = np.zeros(size)


def test_config_checks_what_is_left_to_the_model() -> None:
    assert SearchConfig().temperature is None
    assert SearchConfig().sampling == DEFAULT
    with pytest.raises(TSLMError, match="temperature is -1"):
        SearchConfig(temperature=-1)
    assert sum(map(math.exp, enumerated().values())) == pytest.approx(1, abs=1e-4)
    assert {soft_mean, mean} <= {method.backup for method in METHODS.values()}
