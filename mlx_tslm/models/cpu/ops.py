"""The operations of `ops` for a CPU; `gpu` says what each one means.

MLX's CPU backend is slow at exponentials and at many small products: `attention` and `elementwise` take these over.
"""

from collections.abc import Callable
from typing import TypeVar

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models.attention import Mask, joined
from mlx_tslm.models.cpu import attention
from mlx_tslm.models.cpu.elementwise import (
    gelu,
    in_training,
    joint_softmax_terms,
    silu,
    small_products,
    softmax_terms,
)

__all__ = ["gelu"]

PREFILL_STEP = 1024

_LONG = 1 << 20  # scores a head, from which on it is worth while to share them among threads
_BLOCK = 128  # positions; shorter blocks compute fewer masked scores, but are more operations

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """The function as it is: what NumPy computes cannot be traced."""
    return function


def mlp(module: nn.Module, x: mx.array) -> mx.array:
    return module.down_proj(silu(module.gate_proj(x)) * module.up_proj(x))


def exponentials(scores: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    return softmax_terms(scores + 0.0)  # a copy, which may be overwritten


def grouped_attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    if queries.shape[2] * keys.shape[2] >= _LONG and not in_training():
        return attention.attend(queries, keys, values, scale, mask)
    weights, _, total = softmax_terms(_scores(queries, keys, scale, mask))
    total = mx.maximum(total, 1e-30)  # where nothing is seen
    if queries.dtype != mx.float32:  # the sums of thousands of values would overflow, or lose their last digits
        return joined(((weights / total).astype(queries.dtype) @ values).reshape(queries.shape))
    return joined((weights @ values / total).reshape(queries.shape))


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


def causal_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, window: int | None = None
) -> mx.array:
    """A block of positions at a time, so that few scores are computed only to be masked."""
    length = queries.shape[2]
    positions = mx.arange(length)
    back = positions[:, None] - positions
    mask = (back >= 0) & (back < (window or length))
    parts = []
    for start in range(0, length, _BLOCK):
        first = max(0, start + 1 - window) if window else 0
        seen, at = slice(first, start + _BLOCK), slice(start, start + _BLOCK)
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
    """The exponentials of both parts replace their scores in place."""
    rows, heads, _, width = queries.shape
    kv_heads = prefix[0].shape[0]
    group = heads // kv_heads
    queries = (queries * scale).reshape(rows, kv_heads, group, width)
    folded = queries.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, width)
    far = (folded @ prefix[0].swapaxes(-1, -2)).astype(mx.float32)
    if prefix_bias is not None:
        far = far + prefix_bias
    near = small_products(queries, suffix[0].swapaxes(-1, -2)).astype(mx.float32) + suffix_bias[:, None, None]
    near = near.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, -1)  # in the order of `far`

    def unfold(x: mx.array) -> mx.array:
        return x.reshape(kv_heads, rows, group, -1).transpose(1, 0, 2, 3)

    far, near, total = joint_softmax_terms(far, near)
    dtype = queries.dtype
    if dtype != mx.float32:  # as in `grouped_attention`; in float32 it is less work to divide what they find
        far, near, total = far / total, near / total, mx.ones((1,))
    else:
        total = unfold(total)
    out = unfold(far.astype(dtype) @ prefix[1]) + small_products(unfold(near).astype(dtype), suffix[1])
    return (out / total).astype(dtype).reshape(rows, heads * width)
