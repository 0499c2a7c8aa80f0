"""Attention on CPUs: NumPy takes a block of queries at a time, small enough for a cache, one block a core.

MLX's CPU backend computes exponentials one at a time, 12 ns each, and takes scores through memory between its
operations, on one core. NumPy vectorizes exponentials, sees an MLX array's own memory, and lets threads run.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from mlx_tslm.models.attention import Mask

_Floats = NDArray[np.float32]

_BLOCK = 1 << 20  # scores: more leave the cache, fewer are small matrix products and many calls


def attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask) -> mx.array:
    """Softmax attention.

    Args:
        queries: `[B, heads, T, D]`.
        keys, values: `[B, heads_kv, L, D]`; where the mask is causal, the queries are at the last T positions.
        scale: multiplies the scores.
        mask: which keys a position sees.

    Returns:
        `[B, T, heads * D]` in the queries' dtype, computed in float32.
    """
    batch, heads, steps, width = queries.shape
    kv_heads, length = keys.shape[1:3]
    group = heads // kv_heads
    q, k, v = _float32(queries * scale, keys, values)
    out = np.empty((batch, steps, heads, width), np.float32)
    shown = None
    if isinstance(mask, mx.array):
        shown = np.broadcast_to(np.asarray(mask if mask.ndim == 2 else mask[:, 0]), (batch, steps, length))
    step = max(1, min(_BLOCK // length, steps))
    later = np.triu(np.ones((step, step), bool), 1)

    def block(row: int, start: int, head: int) -> None:
        stop = min(steps, start + step)
        seen = length - steps + stop if isinstance(mask, str) else length
        scores: _Floats = q[row, head, start:stop] @ k[row, head // group, :seen].T
        if isinstance(mask, str):
            np.copyto(scores[:, start - stop :], -np.inf, where=later[: stop - start, : stop - start])
        elif shown is not None:
            np.copyto(scores, -np.inf, where=~shown[row, start:stop])
        total = _exponentiate(scores)
        found = scores @ v[row, head // group, :seen]
        np.divide(found, total, out=out[row, start:stop, head])

    _each(block, range(batch), range(0, steps, step), range(heads))
    return mx.array(out).reshape(batch, steps, heads * width).astype(queries.dtype)


def _exponentiate(scores: _Floats) -> _Floats:
    """Put exp(score − the row's largest) in the place of every score `[N, L]`; return the rows' sums `[N, 1]`."""
    scores -= np.maximum(scores.max(axis=-1, keepdims=True), np.finfo(np.float32).min)
    np.exp(scores, out=scores)
    return np.maximum(np.einsum("nl->n", scores), 1e-30)[:, None]  # a third of the time that np.sum takes


def _float32(*arrays: mx.array) -> list[_Floats]:
    """The arrays as NumPy sees them: their own memory where they are float32."""
    wide = [array.astype(mx.float32) for array in arrays]
    mx.eval(wide)
    return [np.asarray(array) for array in wide]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> tuple[ThreadPoolExecutor, ThreadpoolController]:
    return ThreadPoolExecutor(_cores(), "attention"), ThreadpoolController().select(internal_api="openblas")


def _each(block: Callable[..., None], *places: Iterable[int]) -> None:
    """All blocks, shared among the cores. NumPy's BLAS must not share one among them again."""
    pool, blas = _threads()
    with blas.limit(limits=1):
        list(pool.map(block, *zip(*product(*places), strict=True)))
