"""Attention put together our way: with one softmax for CPUs and GPUs, and many rows behind one shared prefix."""

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models.cpu import attention as cpu_attention
from mlx_tslm.models.cpu.attention import Mask
from mlx_tslm.models.cpu.elementwise import in_training, joint_softmax_terms, on_cpu, small_products, softmax_terms

_CPU_LONG = 1 << 20  # scores a head, from which on it is worth while to share them among threads
_CPU_BLOCK = 128  # positions; shorter blocks compute fewer masked scores, but are more operations


def project(attention: nn.Module, x: mx.array, positions: mx.array | int) -> tuple[mx.array, mx.array, mx.array]:
    """Queries, keys and values of `T` new tokens a row, through mlx-lm's attention module.

    Args:
        attention: a Llama or Gemma 3 attention module.
        x: normed inputs `[R, T, H]`.
        positions: of each row's first token (RoPE): int32 `[R]`, or one for all.

    Returns:
        `[R, heads, T, D]`, `[R, heads_kv, T, D]`, `[R, heads_kv, T, D]`.
    """
    rows, steps, _ = x.shape
    queries = attention.q_proj(x).reshape(rows, steps, attention.n_heads, -1).transpose(0, 2, 1, 3)
    keys = attention.k_proj(x).reshape(rows, steps, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
    values = attention.v_proj(x).reshape(rows, steps, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
    if "q_norm" in attention:
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    return attention.rope(queries, offset=positions), attention.rope(keys, offset=positions), values


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
    if not on_cpu():
        return _joined(mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask))
    if queries.shape[2] * keys.shape[2] >= _CPU_LONG and not in_training():
        return cpu_attention.attend(queries, keys, values, scale, mask)
    weights, _, total = softmax_terms(_scores(queries, keys, scale, mask))
    total = mx.maximum(total, 1e-30)  # a position that sees nothing gets 0, not NaN
    out = (weights.astype(queries.dtype) @ values) / total.astype(queries.dtype)
    return _joined(out.reshape(queries.shape))


def _scores(queries: mx.array, keys: mx.array, scale: float, mask: Mask) -> mx.array:
    """Float32 scores, −inf where they are masked, the heads of a group folded: `[B, heads_kv, group * T, L]`."""
    batch, _, steps, width = queries.shape
    kv_heads, length = keys.shape[1:3]
    folded = (queries * scale).reshape(batch, kv_heads, -1, width)
    scores = (folded @ keys.swapaxes(-1, -2)).astype(mx.float32)
    if mask is None:
        return scores
    if isinstance(mask, str):
        mask = mx.tri(steps, length, length - steps, dtype=mx.bool_)
    shown = mask if mask.ndim == 2 else mask[:, :, None]
    return mx.where(shown, scores.reshape(batch, kv_heads, -1, steps, length), -mx.inf).reshape(scores.shape)


def _joined(heads: mx.array) -> mx.array:
    """`[B, heads, T, D]` to `[B, T, heads * D]`."""
    batch, _, steps, _ = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(batch, steps, -1)


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, window: int | None = None
) -> mx.array:
    """Softmax attention of positions to themselves and those before them.

    On a CPU a block of positions at a time, so that few scores are computed only to be masked.

    Args:
        queries: `[B, heads, T, D]`.
        keys, values: `[B, heads_kv, T, D]`.
        scale: multiplies the scores.
        window: how many positions back one sees, itself included, or None for all.

    Returns:
        `[B, T, heads * D]` in the queries' dtype.
    """
    length = queries.shape[2]
    positions = mx.arange(length)
    back = positions[:, None] - positions
    mask = (back >= 0) & (back < (window or length))
    parts = []
    block = _CPU_BLOCK if on_cpu() else length
    for start in range(0, length, block):
        first = max(0, start + 1 - window) if window else 0
        seen, at = slice(first, start + block), slice(start, start + block)
        parts.append(
            grouped_attention(queries[:, :, at], keys[:, :, seen], values[:, :, seen], scale, mask[at, seen])
        )
    return mx.concatenate(parts, axis=1)


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
    read once for all rows. One softmax spans both parts.

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
    near = small_products(queries, suffix[0].swapaxes(-1, -2)).astype(mx.float32) + suffix_bias[:, None, None]
    near = near.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, -1)  # in the order of `far`

    def unfold(x: mx.array) -> mx.array:
        return x.reshape(kv_heads, rows, group, -1).transpose(1, 0, 2, 3)

    dtype = queries.dtype
    far, near, total = joint_softmax_terms(far, near)
    out = unfold(far.astype(dtype) @ prefix[1]) + small_products(unfold(near).astype(dtype), suffix[1])
    return (out / unfold(total)).astype(dtype).reshape(rows, heads * width)
