"""Softmax, GELU, SiLU and small matrix products that are fast on a CPU.

MLX's CPU backend computes exponentials one at a time, 12 ns each, which on a small model is more than its matrix
products take. NumPy vectorizes them, and on the CPU it sees an MLX array's own memory. It has no gradients, so for
training on a CPU there are polynomials (`differentiable`). Nor does a threaded BLAS suit stacks of tiny matrices.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models.cpu import polynomials

_BLOCK = 1 << 15  # so many scores stay in a core's cache while they are worked on


_gradients = False


@contextmanager
def differentiable() -> Iterator[None]:
    """What is used inside can be differentiated, on a CPU too."""
    global _gradients
    before, _gradients = _gradients, True
    try:
        yield
    finally:
        _gradients = before


def in_training() -> bool:
    """Whether what is computed must have a gradient (`differentiable`)."""
    return _gradients


def softmax_terms(scores: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The parts of a softmax over the last axis, for one that is put together from several.

    Args:
        scores: float32 `[..., N]`. They are overwritten: pass an array that nothing else holds.

    Returns:
        exp(scores − top) `[..., N]`, top = max `[..., 1]`, and the sum of the exponentials `[..., 1]`. Where all
        scores are −inf the exponentials and their sum are 0.
    """
    if _gradients:
        top = mx.maximum(mx.max(scores, axis=-1, keepdims=True), mx.finfo(mx.float32).min)
        top = mx.stop_gradient(top)  # it cancels
        weights = mx.where(scores == -mx.inf, 0.0, polynomials.exp(scores - top))
        return weights, top, mx.sum(weights, axis=-1, keepdims=True)
    scores = mx.contiguous(scores)
    mx.eval(scores)
    tops, totals = _exponentiate(np.asarray(scores).reshape(-1, scores.shape[-1]))
    shape = (*scores.shape[:-1], 1)
    return scores, mx.array(tops).reshape(shape), mx.array(totals).reshape(shape)


def joint_softmax_terms(first: mx.array, second: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The parts of a softmax over the last axes of two arrays, as if they lay end to end.

    Args:
        first, second: float32 `[..., N]` and `[..., M]`. They are overwritten, as in `softmax_terms`.

    Returns:
        exp(first − top), exp(second − top), top being each row's largest score, and the sum `[..., 1]` of both.
    """
    first, second = mx.contiguous(first), mx.contiguous(second)
    mx.eval(first, second)
    _, totals = _exponentiate(*(np.asarray(part).reshape(-1, part.shape[-1]) for part in (first, second)))
    return first, second, mx.array(totals).reshape((*first.shape[:-1], 1))


def _exponentiate(*parts: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Put exp(score − top) in the place of every score of `parts` `[rows, N]`; return top and sum, `[rows, 1]`."""
    rows = len(parts[0])
    top = np.full((rows, 1), np.finfo(np.float32).min)
    total = np.zeros((rows, 1), np.float32)
    step = max(1, _BLOCK // sum(part.shape[-1] for part in parts))
    for start in range(0, rows, step):
        at = slice(start, start + step)
        for part in parts:
            np.maximum(top[at], part[at].max(axis=-1, keepdims=True), out=top[at])
        for part in parts:
            block = part[at]
            with np.errstate(invalid="ignore"):  # infinite logits become NaN, which whoever draws finds
                np.subtract(block, top[at], out=block)
            np.exp(block, out=block)
            total[at, 0] += np.einsum("rn->r", block)  # a third of the time that np.sum takes
    return top, total


def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x Φ(x)."""
    return polynomials.gelu(x) if _gradients else nn.gelu(x)


def silu(x: mx.array) -> mx.array:
    """x / (1 + exp(−x)), in the dtype of x."""
    if _gradients:
        return polynomials.silu(x)
    wide = x.astype(mx.float32)
    mx.eval(wide)
    values = np.asarray(wide)
    gate = np.negative(values)
    with np.errstate(over="ignore"):
        np.exp(gate, out=gate)
    gate += 1.0
    return mx.array(np.divide(values, gate, out=gate)).astype(x.dtype)


def small_products(left: mx.array, right: mx.array) -> mx.array:
    """The products of two stacks of small matrices, `[..., M, K]` and `[..., K, N]`, in float32.

    A threaded BLAS shares each of them among the cores, and the threads take longer to meet than to multiply, and
    far longer where other programs want the cores too. NumPy multiplies each on one core.
    """
    left, right = left.astype(mx.float32), right.astype(mx.float32)
    mx.eval(left, right)
    return mx.array(np.matmul(np.asarray(left), np.asarray(right)))
