"""Softmax terms and SiLU, on the CPU where NumPy does them, against float64; and those that training uses."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlx_tslm.models.cpu.elementwise import (
    differentiable,
    gelu,
    joint_softmax_terms,
    silu,
    small_products,
    softmax_terms,
)

SCORES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=40),
    elements=st.one_of(st.floats(-80, 80, width=32), st.just(float("-inf"))),
)


@given(SCORES)
def test_softmax_terms(scores: np.ndarray) -> None:
    weights, top, total = (np.array(part, np.float64) for part in softmax_terms(mx.array(scores)))
    wide = scores.astype(np.float64)
    hidden = np.isneginf(wide).all(axis=-1, keepdims=True)
    expected_top = wide.max(axis=-1, keepdims=True)
    assert ((top == expected_top) | hidden).all()
    expected = np.where(hidden, 0.0, np.exp(wide - np.where(hidden, 0.0, expected_top)))
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(total, expected.sum(axis=-1, keepdims=True), rtol=1e-5)


def test_softmax_terms_of_a_broadcast_array() -> None:
    """Its memory holds one row, which must not be worked on twice."""
    row = mx.array(np.linspace(-3, 3, 7, dtype=np.float32))
    weights, _, total = softmax_terms(mx.broadcast_to(row, (5, 7)) + 0.0)
    np.testing.assert_allclose(np.array(weights / total), np.tile(np.array(mx.softmax(row)), (5, 1)), rtol=1e-5)


@given(SCORES.filter(lambda scores: scores.shape[-1] > 1), st.data())
def test_joint_softmax_terms_are_those_of_both_laid_end_to_end(scores: np.ndarray, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, scores.shape[-1] - 1))
    first, second, total = joint_softmax_terms(mx.array(scores[..., :cut]), mx.array(scores[..., cut:]))
    weights, _, expected = softmax_terms(mx.array(scores))
    np.testing.assert_allclose(np.concatenate([first, second], axis=-1), weights, atol=1e-6)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-200, 200, width=32)))
def test_silu(values: np.ndarray) -> None:
    wide = values.astype(np.float64)
    np.testing.assert_allclose(np.array(silu(mx.array(values))), wide / (1 + np.exp(-wide)), rtol=1e-5, atol=1e-6)


def test_silu_keeps_the_dtype() -> None:
    assert silu(mx.ones((3,), mx.bfloat16)).dtype == mx.bfloat16


def test_small_products_of_views() -> None:
    """As a search has them: a part of a longer buffer, turned round."""
    rng = np.random.default_rng(0)
    left, buffer = rng.standard_normal((5, 2, 3, 8)), rng.standard_normal((5, 2, 40, 8))
    view = mx.array(buffer.astype(np.float32))[:, :, 4:19].swapaxes(-1, -2)
    found = small_products(mx.array(left.astype(np.float32)), view)
    np.testing.assert_allclose(np.array(found), left @ buffer[:, :, 4:19].swapaxes(-1, -2), atol=1e-5)


def softmax(x: mx.array) -> mx.array:
    weights, _, total = softmax_terms(x)
    return weights / total


@pytest.mark.parametrize(("quick", "exact"), [(gelu, nn.gelu), (silu, nn.silu), (softmax, mx.softmax)])
def test_functions_for_training_and_their_gradients_are_the_exact_ones(
    quick: Callable[[mx.array], mx.array], exact: Callable[..., mx.array]
) -> None:
    x = mx.concatenate([mx.linspace(-30, 30, 3001), mx.array([0.0, -1e-6, 50.0, -50.0])]).reshape(5, -1)
    axis = {"axis": -1} if exact is mx.softmax else {}
    weigh = mx.random.normal(x.shape, key=mx.random.key(0))
    with differentiable():
        assert mx.abs(quick(x) - exact(x, **axis)).max().item() < 2e-4
        gradients = [
            mx.grad(lambda x, f=f, a=a: (f(x, **a) * weigh).sum())(x) for f, a in ((quick, {}), (exact, axis))
        ]
    assert mx.abs(gradients[0] - gradients[1]).max().item() < 2e-3


def test_a_hidden_score_has_no_weight_and_no_gradient_in_training() -> None:
    scores = mx.array([[1.0, -mx.inf, 2.0]])
    with differentiable():
        assert softmax(scores)[0, 1].item() == 0.0
        gradient = mx.grad(lambda x: softmax(x)[0, 0])(scores)
    assert gradient[0, 1].item() == 0.0 and mx.isfinite(gradient).all().item()
