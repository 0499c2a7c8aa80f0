"""The operations of `ops` for a GPU: as few kernels as MLX's own operations allow, and nothing that waits."""

from collections.abc import Callable
from typing import TypeVar, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models.attention import Mask, joined

PREFILL_STEP = 2048
"""Positions of the prompt that go through the model at once, which bounds the memory of attention scores."""

gelu = nn.gelu
"""The exact GELU, x Φ(x)."""

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """The function with its elementwise operations fused; traced anew for each combination of shapes."""
    return cast(_Function, mx.compile(function))


def mlp(module: nn.Module, x: mx.array) -> mx.array:
    """mlx-lm's gated feed-forward module, `[..., H]` to the same, with its compiled activation."""
    return module(x)


def exponentials(scores: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The parts of a softmax over the last axis of float32 scores `[..., N]`.

    Returns:
        exp(scores − top) `[..., N]`, top = max `[..., 1]`, and the sum of the exponentials `[..., 1]`. Where all
        scores are −inf the exponentials and their sum are 0.
    """
    top = mx.maximum(mx.max(scores, axis=-1, keepdims=True), mx.finfo(mx.float32).min)
    mass = mx.exp(scores - top)
    return mass, top, mx.sum(mass, axis=-1, keepdims=True)


def grouped_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """Softmax attention.

    Args:
        queries: `[B, heads, T, D]`.
        keys, values: `[B, heads_kv, L, D]`; where the mask is causal, the queries are at the last T positions.
        scale: multiplies the scores.
        mask: bool, True where a key may be seen: `[T, L]`, or broadcast to `[B, 1, T, L]`; or "causal"; or None.

    Returns:
        `[B, T, heads * D]` in the queries' dtype.
    """
    return joined(mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask))


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, window: int | None = None
) -> mx.array:
    """Softmax attention of positions to themselves and those before them.

    Args:
        queries: `[B, heads, T, D]`.
        keys, values: `[B, heads_kv, T, D]`.
        scale: multiplies the scores.
        window: how many positions back one sees, itself included, or None for all.

    Returns:
        `[B, T, heads * D]` in the queries' dtype.
    """
    length = queries.shape[2]
    if window is None or window >= length:
        return grouped_attention(queries, keys, values, scale, "causal")
    positions = mx.arange(length)
    back = positions[:, None] - positions
    return grouped_attention(queries, keys, values, scale, (back >= 0) & (back < window))


def shared_prefix_attention(
    queries: mx.array,
    prefix: tuple[mx.array, mx.array],
    suffix: tuple[mx.array, mx.array],
    scale: float,
    suffix_bias: mx.array,
    prefix_bias: mx.array | None = None,
) -> mx.array:
    """Softmax attention over a prefix that all rows share and a suffix that each row has for itself.

    The queries of all rows are folded into one matrix product with the prefix, so that its keys and values are
    read once for all rows. The scores of both parts are laid end to end for one softmax, which sums in float32, and
    are normalised before they meet the values: sums of thousands of values would overflow float16.

    Args:
        queries: `[R, heads, 1, D]`.
        prefix: keys and values `[heads_kv, L, D]`.
        suffix: keys and values `[R, heads_kv, S, D]`.
        scale: multiplies the scores.
        suffix_bias: `[R, S]` in the queries' dtype, 0 where a row has a token and −inf where it is padded.
        prefix_bias: `[R * group, L]`, likewise, a row's repeated for the heads that share keys; or None where all
            rows see the whole prefix.

    Returns:
        `[R, heads * D]` in the queries' dtype.
    """
    rows, heads, _, width = queries.shape
    kv_heads, length, _ = prefix[0].shape
    group = heads // kv_heads
    queries = queries.reshape(rows, kv_heads, group, width)
    folded = queries.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, width)
    bias = mx.array(0, queries.dtype) if prefix_bias is None else prefix_bias
    far = mx.addmm(bias, folded, prefix[0].swapaxes(-1, -2), alpha=scale).reshape(kv_heads, rows, group, length)
    near = mx.addmm(suffix_bias[:, None, None], queries, suffix[0].swapaxes(-1, -2), alpha=scale)
    weights = mx.softmax(mx.concatenate([far, near.transpose(1, 0, 2, 3)], axis=-1), axis=-1, precise=True)
    by_prefix = weights.reshape(kv_heads, rows * group, -1)[..., :length] @ prefix[1]
    by_suffix = weights[..., length:].transpose(1, 0, 2, 3) @ suffix[1]
    return (by_prefix.reshape(kv_heads, rows, group, width).transpose(1, 0, 2, 3) + by_suffix).reshape(rows, -1)
