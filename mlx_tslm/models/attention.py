"""What all ways of attention have in common; the ways themselves are in `ops`."""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn

Mask = mx.array | Literal["causal"] | None
"""Which keys a position sees: bool `[T, L]` or broadcast to `[B, 1, T, L]`, those up to itself, or all."""


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


def joined(heads: mx.array) -> mx.array:
    """`[B, heads, T, D]` to `[B, T, heads * D]`."""
    batch, _, steps, _ = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(batch, steps, -1)
