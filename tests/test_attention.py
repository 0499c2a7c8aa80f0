"""Attention's several ways, each against one written out in float64."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_tslm.models import branch, gpu, ops
from mlx_tslm.models.cpu import attention as cpu_attention
from mlx_tslm.models.cpu import ops as cpu
from mlx_tslm.models.cpu.attention import attend


def normal(rng: np.random.Generator, *shape: int) -> mx.array:
    return mx.array(rng.standard_normal(shape).astype(np.float32))


def plain(queries: mx.array, keys: mx.array, values: mx.array, scale: float, shown: np.ndarray) -> np.ndarray:
    """`shown` broadcasts to `[B, heads, T, L]`; what sees nothing gets NaN."""
    q, k, v = (np.array(x, np.float64) for x in (queries, keys, values))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = np.where(shown, q @ k.swapaxes(-1, -2) * scale, -np.inf)
    weights = np.where(shown, np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e30)), 0.0)
    with np.errstate(invalid="ignore"):
        out = weights @ v / weights.sum(axis=-1, keepdims=True)
    return out.transpose(0, 2, 1, 3).reshape(len(q), q.shape[2], -1)


@pytest.fixture(params=["whole", "in blocks"], scope="module")
def _blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in blocks":
            patch.setattr(cpu_attention, "_BLOCK", 64)
        yield


@pytest.mark.usefixtures("_blocks")
@given(
    st.integers(1, 2), st.sampled_from([(4, 4), (6, 2), (3, 1)]), st.integers(1, 40), st.integers(0, 30),
    st.sampled_from(["causal", "array", "rows", "none"]), st.integers(0, 99),
)  # fmt: skip
def test_attention_in_blocks(
    batch: int, heads: tuple[int, int], steps: int, before: int, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    length = steps + before
    queries = normal(rng, batch, heads[0], steps, 8)
    keys, values = (normal(rng, batch, heads[1], length, 8) for _ in range(2))
    shown, mask = {
        "causal": (np.tri(steps, length, before, dtype=bool), "causal"),
        "none": (np.ones((steps, length), bool), None),
        "array": ((drawn := rng.random((steps, length)) < 0.5), mx.array(drawn)),
        "rows": ((drawn := rng.random((batch, 1, 1, length)) < 0.5), mx.array(drawn)),
    }[kind]
    expected = plain(queries, keys, values, 0.3, shown)
    for way in (attend, cpu.grouped_attention, gpu.grouped_attention):
        found = np.array(way(queries, keys, values, 0.3, mask))
        assert np.isfinite(found).all()  # what sees nothing too
        np.testing.assert_allclose(np.where(np.isnan(expected), np.nan, found), expected, atol=1e-5)


def test_attention_in_blocks_keeps_the_dtype() -> None:
    x = mx.ones((1, 2, 3, 4), mx.bfloat16)
    assert attend(x, x, x, 1.0, None).dtype == mx.bfloat16


WAYS = pytest.mark.parametrize("way", [cpu, gpu], ids=["cpu", "gpu"])


def test_the_way_is_that_of_the_branch() -> None:
    assert ops.grouped_attention is (cpu if branch.ON_CPU else gpu).grouped_attention
    assert set(ops.__all__) <= set(vars(cpu)) & set(vars(gpu))


@WAYS
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("rows", [1, 5])
def test_shared_prefix_is_as_if_every_row_had_its_own(way: Any, heads: tuple[int, int], rows: int) -> None:
    rng = np.random.default_rng(0)
    (heads_q, kv_heads), length, own, width = heads, 7, 4, 8
    queries = normal(rng, rows, heads_q, 1, width)
    prefix = normal(rng, kv_heads, length, width), normal(rng, kv_heads, length, width)
    suffix = normal(rng, rows, kv_heads, own, width), normal(rng, rows, kv_heads, own, width)
    far, near = rng.random((rows, length)) < 0.7, np.arange(own) >= rng.integers(0, own, (rows, 1))
    far_bias, near_bias = (mx.array(np.where(shown, 0.0, -np.inf).astype(np.float32)) for shown in (far, near))
    keys, values = (
        mx.concatenate([mx.broadcast_to(one, (rows, *one.shape)), mine], axis=2)
        for one, mine in zip(prefix, suffix, strict=True)
    )
    for shown, bias in ((far, mx.repeat(far_bias, heads_q // kv_heads, axis=0)), (np.ones_like(far), None)):
        found = way.shared_prefix_attention(queries, prefix, suffix, 0.3, near_bias, bias)
        seen = np.concatenate([shown, near], axis=1)[:, None, None]
        np.testing.assert_allclose(np.array(found)[:, None], plain(queries, keys, values, 0.3, seen), atol=1e-5)


@WAYS
def test_a_long_prompt_does_not_overflow_float16(way: Any) -> None:
    """3,300 values of 25 sum to more than float16 holds."""
    rows, heads, kv_heads, length, own, width = 3, 4, 2, 3300, 5, 8
    prefix = mx.zeros((kv_heads, length, width), mx.float16), mx.full((kv_heads, length, width), 25, mx.float16)
    suffix = tuple(mx.full((rows, kv_heads, own, width), value, mx.float16) for value in (0, 25))
    queries = mx.ones((rows, heads, 1, width), mx.float16)
    shared = way.shared_prefix_attention(queries, prefix, suffix, 0.3, mx.zeros((rows, own), mx.float16))
    grouped = way.grouped_attention(queries[:1], prefix[0][None], prefix[1][None], 0.3, None)
    for found in (shared, grouped):
        assert found.dtype == mx.float16
        np.testing.assert_allclose(np.array(found, np.float64), 25, rtol=1e-2)
    exact = plain(
        queries, *(one[None] + mx.zeros((rows, 1, 1, 1)) for one in prefix), 0.3, np.ones((1, 1, 1, 1), bool)
    )
    np.testing.assert_allclose(np.array(shared, np.float64)[:, None], exact, rtol=1e-2)


@WAYS
@pytest.mark.parametrize("window", [None, 1, 5, 300])
def test_causal_attention_sees_what_came_before(way: Any, window: int | None) -> None:
    rng, length = np.random.default_rng(1), 150
    queries, (keys, values) = normal(rng, 2, 4, length, 8), (normal(rng, 2, 2, length, 8) for _ in range(2))
    back = np.arange(length)[:, None] - np.arange(length)
    expected = plain(queries, keys, values, 0.3, (back >= 0) & (back < (window or length)))
    found = way.causal_attention(queries, keys, values, 0.3, window)
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)
