"""Attention's several ways, each against one written out in float64."""

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_tslm.models import attention
from mlx_tslm.models.attention import grouped_attention, shared_prefix_attention
from mlx_tslm.models.cpu import attention as cpu_attention
from mlx_tslm.models.cpu.attention import attend


def normal(rng: np.random.Generator, *shape: int) -> mx.array:
    return mx.array(rng.standard_normal(shape).astype(np.float32))


def plain(queries: mx.array, keys: mx.array, values: mx.array, scale: float, shown: np.ndarray) -> np.ndarray:
    """`shown` broadcasts to `[B, heads, T, L]`; what sees nothing gets 0."""
    q, k, v = (np.array(x, np.float64) for x in (queries, keys, values))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = np.where(shown, q @ k.swapaxes(-1, -2) * scale, -np.inf)
    weights = np.where(shown, np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-1e30)), 0.0)
    out = weights @ v / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)
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
    for way in (attend, grouped_attention):
        np.testing.assert_allclose(np.array(way(queries, keys, values, 0.3, mask)), expected, atol=1e-5)


def test_attention_in_blocks_keeps_the_dtype() -> None:
    x = mx.ones((1, 2, 3, 4), mx.bfloat16)
    assert attend(x, x, x, 1.0, None).dtype == mx.bfloat16


@pytest.mark.parametrize("gpu", [False, True])
def test_shared_prefix_is_as_if_every_row_had_its_own(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's way too: it consists of MLX's operations, which a CPU has as well."""
    if gpu:
        monkeypatch.setattr(attention, "on_cpu", lambda: False)
        monkeypatch.setattr("mlx_tslm.models.cpu.elementwise.on_cpu", lambda: False)
    rng = np.random.default_rng(0)
    rows, heads, kv_heads, length, own, width = 5, 6, 2, 7, 4, 8
    queries = normal(rng, rows, heads, 1, width)
    prefix = normal(rng, kv_heads, length, width), normal(rng, kv_heads, length, width)
    suffix = normal(rng, rows, kv_heads, own, width), normal(rng, rows, kv_heads, own, width)
    far, near = rng.random((rows, length)) < 0.7, np.arange(own) >= rng.integers(0, own, (rows, 1))
    far_bias, near_bias = (mx.array(np.where(shown, 0.0, -np.inf).astype(np.float32)) for shown in (far, near))
    found = shared_prefix_attention(queries, prefix, suffix, 0.3, near_bias, far_bias)
    keys, values = (
        mx.concatenate([mx.broadcast_to(one, (rows, *one.shape)), mine], axis=2)
        for one, mine in zip(prefix, suffix, strict=True)
    )
    shown = np.concatenate([far, near], axis=1)[:, None, None]
    np.testing.assert_allclose(np.array(found)[:, None], plain(queries, keys, values, 0.3, shown), atol=1e-5)
