"""Checking a converted model against its source: every tensor, computed anew in NumPy's float64."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.conversion.plan import Target, checkpoint_values
from mlx_tslm.conversion.pt.tensors import Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching.http import Progress

_BLOCK = 1 << 18  # elements compared at a time
_PRECISION = {mx.float32: 2.0**-24, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}  # largest relative rounding


@dataclass(frozen=True)
class Comparison:
    """One parameter of the output against the source: the largest absolute difference, and the largest allowed.

    Plain copies must agree exactly; others may differ by one rounding to their dtype, and quantized ones by one
    and a half quantization steps of their group besides, and the rounding of its scale and bias.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    difference: float
    allowed: float
    agrees: bool


def verify(
    folder: Path, targets: list[Target], base: dict[str, mx.array], progress: Progress | None = None
) -> list[Comparison]:
    """Reload a converted folder and compare every tensor with what the source says it should be.

    Raises:
        TSLMError: a tensor is missing, unexpected or differs (named).
    """
    output: dict[str, mx.array] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        output |= cast(dict[str, mx.array], mx.load(str(path)))
    comparisons = []
    for number, target in enumerate(targets, start=1):
        parts = []
        for stored in target.stored():
            part = output.pop(stored.name, None)
            if part is None or part.shape != stored.shape or part.dtype != stored.dtype:
                raise TSLMError(f"verification failed: {stored.name} is missing or of the wrong shape or type")
            parts.append(part)
        comparison = _compare(target, parts, None if isinstance(target.source, Tensor) else base.pop(target.source))
        if not comparison.agrees:
            raise TSLMError(
                f"verification failed: {target.name} differs from its source by {comparison.difference:.3g}, "
                f"where {comparison.allowed:.3g} is allowed; convert again"
            )
        comparisons.append(comparison)
        if progress is not None:
            progress("verifying", number, len(targets))
    if output:
        raise TSLMError(f"verification failed: {next(iter(output))} should not be there")
    return comparisons


def _compare(target: Target, parts: list[mx.array], source: mx.array | None) -> Comparison:
    rows = target.shape[0]
    step = max(1, _BLOCK * rows // max(1, int(np.prod(target.shape))))
    difference, allowed, agrees = 0.0, 0.0, True
    for start in range(0, rows, step):
        block = slice(start, start + step)
        expected, tolerance = _expected(
            target, checkpoint_values(target, block) if source is None else source[block], block
        )
        actual = _values(target, [part[block] for part in parts])
        with np.errstate(invalid="ignore"):  # the source's own NaN and infinities count as equal
            gap = np.where(
                (actual == expected) | (np.isnan(actual) & np.isnan(expected)), 0.0, np.abs(actual - expected)
            )
        gap[np.isnan(gap)] = np.inf
        difference, allowed = max(difference, float(gap.max())), max(allowed, float(tolerance.max()))
        agrees = agrees and bool((gap <= tolerance).all())
        if isinstance(target.source, Tensor):
            target.source.storage.release()
    quantization = target.quantization
    dtype = str(target.dtype).removeprefix("mlx.core.")
    label = dtype if quantization is None else f"{quantization.bits}-bit, groups of {quantization.group_size}"
    return Comparison(target.name, target.shape, label, difference, allowed, agrees)


def _values(target: Target, parts: list[mx.array]) -> NDArray[np.float64]:
    if target.quantization is None:
        return _wide(parts[0])
    packed, scales, biases = parts
    bits, size = target.quantization.bits, target.quantization.group_size
    words = np.array(packed)[..., None] >> np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words & (2**bits - 1)).reshape(*scales.shape, size)
    return (codes * _wide(scales)[..., None] + _wide(biases)[..., None]).reshape(len(codes), -1)


def _expected(
    target: Target, source: mx.array | NDArray[np.float32], block: slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a block of rows should be, and by how much it may differ."""
    expected = _wide(source)
    own = mx.float32 if isinstance(source, np.ndarray) else source.dtype
    rounding = 0.0 if own == target.dtype else _PRECISION[target.dtype]
    sums = np.zeros((len(expected),) + (1,) * (expected.ndim - 1))
    if target.adapter is not None:
        a, b = (side.numpy().astype(np.float64) for side in (target.adapter.a, target.adapter.b))
        update = target.adapter.scale * b[block]
        expected += update @ a
        rounding = _PRECISION[target.dtype]
        # float32 sums in another order: a bound on the sizes of the terms, a row
        sums = np.abs(expected).max(axis=1, keepdims=True) + np.linalg.norm(
            update, axis=1, keepdims=True
        ) * np.linalg.norm(a)
    tolerance = np.abs(expected) * rounding
    tolerance += sums * 2.0**-21 + (2.0**-25 if rounding else 0.0)
    if target.quantization is not None:
        groups = expected.reshape(len(expected), -1, target.quantization.group_size)
        steps = (groups.max(-1) - groups.min(-1)) / (2**target.quantization.bits - 1)
        slack = 1.5 * steps + 3 * _PRECISION[target.dtype] * np.abs(groups).max(-1)
        tolerance += np.repeat(slack, target.quantization.group_size, axis=-1)
    return expected, tolerance


def _wide(values: mx.array | NDArray[np.float32]) -> NDArray[np.float64]:
    if isinstance(values, mx.array):
        values = np.array(values.astype(mx.float32))
    return values.astype(np.float64)
