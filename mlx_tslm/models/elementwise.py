"""Softmax and SiLU that are fast on every device.

MLX's CPU backend computes exponentials one at a time, 12 ns each, which on a small model is more than its matrix
products take. NumPy vectorizes them, and on the CPU it sees an MLX array's own memory. On a GPU these are ordinary
MLX operations.
"""

import mlx.core as mx
import numpy as np

_ROWS = 32  # so many rows of scores stay in a core's cache while they are worked on


def on_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def softmax_terms(scores: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The parts of a softmax over the last axis, for one that is put together from several.

    Args:
        scores: float32 `[..., N]`. On the CPU they are overwritten: pass an array that nothing else holds.

    Returns:
        exp(scores − top) `[..., N]`, top = max `[..., 1]`, and the sum of the exponentials `[..., 1]`. Where all
        scores are −inf the exponentials and their sum are 0.
    """
    if not on_cpu():
        top = mx.maximum(mx.max(scores, axis=-1, keepdims=True), mx.finfo(mx.float32).min)
        weights = mx.exp(scores - top)
        return weights, top, mx.sum(weights, axis=-1, keepdims=True)
    scores = mx.contiguous(scores)
    mx.eval(scores)
    rows = np.asarray(scores).reshape(-1, scores.shape[-1])
    top_np, total = np.empty((len(rows), 1), np.float32), np.empty((len(rows), 1), np.float32)
    for start in range(0, len(rows), _ROWS):
        block, at = rows[start : start + _ROWS], slice(start, start + _ROWS)
        np.max(block, axis=-1, keepdims=True, out=top_np[at], initial=np.finfo(np.float32).min)
        np.subtract(block, top_np[at], out=block)
        np.exp(block, out=block)
        np.sum(block, axis=-1, keepdims=True, out=total[at])
    shape = (*scores.shape[:-1], 1)
    return scores, mx.array(top_np).reshape(shape), mx.array(total).reshape(shape)


def silu(x: mx.array) -> mx.array:
    """x / (1 + exp(−x)), in the dtype of x."""
    if not on_cpu():
        return x * mx.sigmoid(x)
    wide = x.astype(mx.float32)
    mx.eval(wide)
    values = np.asarray(wide)
    with np.errstate(over="ignore"):
        gate = np.exp(-values)
    gate += 1.0
    return mx.array(np.divide(values, gate, out=gate)).astype(x.dtype)
