"""The sampling distribution against NumPy, and the draws from it."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.sampling import Sampling


def reference_log_p(
    logits: NDArray[np.floating], temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> NDArray[np.float64]:
    """log p of one row `[V]`, in float64, by sorting: temperature, top-k, top-p, each renormalised."""
    if temperature == 0:
        return np.where(np.arange(len(logits)) == np.argmax(logits), 0.0, -np.inf)
    scores = logits.astype(np.float64) / temperature
    order = np.argsort(-scores, kind="stable")
    kept = len(scores) if top_k is None else min(top_k, len(scores))
    if top_p is not None:
        mass = np.exp(scores[order[:kept]] - scores.max())
        kept = min(kept, 1 + int(np.sum(np.cumsum(mass / mass.sum()) < top_p)))
    log_p = np.full(len(scores), -np.inf)
    kept_scores = scores[order[:kept]]
    log_p[order[:kept]] = kept_scores - kept_scores.max() - np.log(np.exp(kept_scores - kept_scores.max()).sum())
    return log_p


samplings = st.builds(
    Sampling,
    temperature=st.one_of(st.just(0.0), st.floats(0.05, 4)),
    top_k=st.one_of(st.none(), st.integers(1, 20)),
    top_p=st.one_of(st.none(), st.floats(0.01, 1.0)),
)
seeds = st.integers(0, 2**32 - 1)


def random_logits(seed: int, rows: int, vocabulary: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, vocabulary)) * rng.uniform(0.1, 8)).astype(np.float32)


@given(samplings, seeds, st.integers(2, 16))
@settings(max_examples=60, deadline=None)
def test_log_probs_are_the_reference(sampling: Sampling, seed: int, vocabulary: int) -> None:
    logits = random_logits(seed, 3, vocabulary)
    found = np.array(sampling.log_probs(mx.array(logits)))
    for row, log_p in zip(logits, found, strict=True):
        expected = reference_log_p(row, sampling.temperature, sampling.top_k, sampling.top_p)
        differ = np.flatnonzero(np.isfinite(expected) != np.isfinite(log_p))
        if differ.size:  # float32 may put a token on the other side of top-p's edge, and then only there
            mass = np.sort(np.exp(reference_log_p(row, sampling.temperature, sampling.top_k)))[::-1]
            assert np.abs(np.cumsum(mass) - sampling.top_p).min() < 1e-5
        else:
            np.testing.assert_allclose(log_p, expected, atol=2e-5)
        assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)


@given(samplings, seeds, st.integers(2, 16))
@settings(max_examples=40, deadline=None)
def test_a_grid_of_uniforms_draws_in_proportion_to_p(sampling: Sampling, seed: int, vocabulary: int) -> None:
    logits = random_logits(seed, 1, vocabulary)
    steps = 400
    uniforms = (np.arange(steps) + 0.5) / steps
    tokens, log_p = sampling.draw(mx.array(np.repeat(logits, steps, axis=0)), uniforms)
    p = np.exp(np.array(sampling.log_probs(mx.array(logits)))[0])
    np.testing.assert_allclose(np.bincount(np.array(tokens), minlength=vocabulary) / steps, p, atol=1.01 / steps)
    np.testing.assert_allclose(np.exp(np.array(log_p)), p[np.array(tokens)], atol=1e-5)


@given(samplings, seeds, st.integers(2, 12), st.data())
@settings(max_examples=40, deadline=None)
def test_excluded_tokens_are_not_drawn_and_p_stays(
    sampling: Sampling, seed: int, vocabulary: int, data: st.DataObject
) -> None:
    logits = random_logits(seed, 1, vocabulary)
    excluded = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=vocabulary, unique=True))
    steps = 200
    uniforms = (np.arange(steps) + 0.5) / steps
    exclude = np.tile(np.array(excluded + excluded[-1:], np.int32), (steps, 1))
    tokens, log_p = (
        np.array(x) for x in sampling.draw(mx.array(np.repeat(logits, steps, axis=0)), uniforms, exclude)
    )
    p = np.exp(np.array(sampling.log_probs(mx.array(logits)))[0])
    left = p.copy()
    left[excluded] = 0
    if left.sum() == 0:
        assert (log_p == -np.inf).all()
        return
    assert not np.isin(tokens, excluded).any()
    np.testing.assert_allclose(np.exp(log_p), p[tokens], atol=1e-5)
    frequency = np.bincount(tokens, minlength=vocabulary) / steps
    np.testing.assert_allclose(frequency, left / left.sum(), atol=1.5 / steps + 1e-6 / left.sum())


def test_a_uniform_that_rounds_to_one_draws_the_last_token_with_mass() -> None:
    logits = mx.array([[0.0, 1.0, -np.inf, 0.5, -np.inf]])
    tokens, log_p = Sampling().draw(logits, np.array([1 - 2**-53]))
    assert tokens.tolist() == [3]
    assert np.isfinite(np.array(log_p)).all()


def test_a_draw_does_not_depend_on_the_rest_of_the_batch() -> None:
    logits, uniforms = random_logits(1, 8, 50), np.random.default_rng(2).random(8)
    together = np.array(Sampling(0.7, 20, 0.9).draw(mx.array(logits), uniforms)[0])
    alone = [
        Sampling(0.7, 20, 0.9).draw(mx.array(logits[i : i + 1]), uniforms[i : i + 1])[0].item() for i in range(8)
    ]
    assert together.tolist() == alone


def test_drawing_leaves_the_logits_alone() -> None:
    logits = mx.array(random_logits(3, 2, 30))
    before = np.array(logits)
    mx.eval(Sampling().draw(logits, np.array([0.2, 0.9])))
    np.testing.assert_array_equal(np.array(logits), before)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(TSLMError, match=says):
        Sampling(**options)
