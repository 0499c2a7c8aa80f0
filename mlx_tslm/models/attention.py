"""Attention of many rows to one shared prefix and to a suffix of their own."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np


def project(attention: nn.Module, x: mx.array, positions: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Queries, keys and values of one new token a row, through mlx-lm's attention module.

    Args:
        attention: a Llama or Gemma 3 attention module.
        x: normed inputs `[R, 1, H]`.
        positions: int32 `[R]`, each row's position (RoPE).

    Returns:
        `[R, heads, 1, D]`, `[R, heads_kv, 1, D]`, `[R, heads_kv, 1, D]`.
    """
    rows = x.shape[0]
    queries = attention.q_proj(x).reshape(rows, 1, attention.n_heads, -1).transpose(0, 2, 1, 3)
    keys = attention.k_proj(x).reshape(rows, 1, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
    values = attention.v_proj(x).reshape(rows, 1, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
    if "q_norm" in attention:
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return attention.rope(queries, offset=positions), attention.rope(keys, offset=positions), values


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
    read once for all rows; the two parts meet in one softmax through their common maximum and sum.

    Args:
        queries: `[R, heads, 1, D]`.
        prefix: keys and values `[heads_kv, L, D]`.
        suffix: keys and values `[R, heads_kv, S, D]`.
        scale: multiplies the scores.
        suffix_bias: float32 `[R, S]`, 0 where a row has a token and −inf where it is padded.
        prefix_bias: float32 `[R, L]`, likewise, or None where all rows see the whole prefix.

    Returns:
        `[R, heads * D]` in the queries' dtype.
    """
    rows, heads, _, width = queries.shape
    kv_heads, length, _ = prefix[0].shape
    group = heads // kv_heads
    queries = (queries * scale).reshape(rows, kv_heads, group, width)
    folded = queries.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, width)
    far = (folded @ prefix[0].swapaxes(-1, -2)).astype(mx.float32)
    if prefix_bias is not None:
        far = (far.reshape(kv_heads, rows, group, length) + prefix_bias[None, :, None]).reshape(far.shape)
    near = (queries @ suffix[0].swapaxes(-1, -2)).astype(mx.float32) + suffix_bias[:, None, None]

    def unfold(x: mx.array) -> mx.array:
        return x.reshape(kv_heads, rows, group, -1).transpose(1, 0, 2, 3)

    top = mx.maximum(unfold(mx.max(far, axis=-1, keepdims=True)), mx.max(near, axis=-1, keepdims=True))
    far = exp_of_difference(far, top.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, 1))
    near = mx.exp(near - top)
    total = unfold(mx.sum(far, axis=-1, keepdims=True)) + mx.sum(near, axis=-1, keepdims=True)
    dtype = queries.dtype
    out = unfold(far.astype(dtype) @ prefix[1]) + near.astype(dtype) @ suffix[1]
    return (out / total).astype(dtype).reshape(rows, heads * width)


def exp_of_difference(x: mx.array, top: mx.array) -> mx.array:
    """exp(x − top), float32, `top` broadcast over the last axis.

    MLX's CPU backend computes exponentials one at a time; NumPy's are vectorized and 12 times as fast. On a GPU
    this is one fused MLX operation.
    """
    if mx.default_device() != mx.Device(mx.cpu):
        return mx.exp(x - top)
    difference = x - top
    mx.eval(difference)
    view = np.asarray(difference)
    return mx.array(np.exp(view))
