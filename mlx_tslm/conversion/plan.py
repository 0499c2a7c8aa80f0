"""What the converted model consists of: for each parameter, where it comes from and how it is stored."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import mlx.core as mx
import numpy as np

from mlx_tslm.conversion import keymap
from mlx_tslm.conversion.base import BaseLLM
from mlx_tslm.conversion.checkpoint import Checkpoint
from mlx_tslm.conversion.lora import Adapter
from mlx_tslm.conversion.pt.tensors import Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.weights import check_finite

GROUP_SIZES = (32, 64, 128)  # those that MLX's affine quantization has
_BLOCK = 1 << 24  # elements of a checkpoint's tensor that are in memory at once


@dataclass(frozen=True)
class Quantization:
    """Affine quantization of the LLM's linear layers, as mlx-lm has it."""

    bits: int
    group_size: int = 64

    def to_dict(self) -> dict[str, int | str]:
        """mlx-lm's entry in `config.json`."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": "affine"}


@dataclass(frozen=True)
class Stored:
    """A tensor as it will lie in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return prod(self.shape) * self.dtype.size


@dataclass(frozen=True, eq=False)
class Target:
    """A parameter of the converted model.

    `source` is a tensor of the checkpoint, or the name of one of the base's; `swap` two axes to exchange;
    `adapter` is added to it in float32 before it becomes `dtype`, and only then it is quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype
    source: Tensor | str
    swap: tuple[int, int] | None = None
    adapter: Adapter | None = None
    quantization: Quantization | None = None

    def stored(self) -> list[Stored]:
        """The tensor, or where it is quantized the three, that it becomes in the file."""
        if self.quantization is None:
            return [Stored(self.name, self.shape, self.dtype)]
        (rows, columns), module = self.shape, self.name.removesuffix(".weight")
        groups = (rows, columns // self.quantization.group_size)
        return [
            Stored(f"{module}.weight", (rows, columns * self.quantization.bits // 32), mx.uint32),
            Stored(f"{module}.scales", groups, self.dtype),
            Stored(f"{module}.biases", groups, self.dtype),
        ]

    def arrays(self, base: dict[str, mx.array]) -> list[mx.array]:
        """The values of `stored()`; what is used of `base` is taken out of it, so that memory is freed.

        Raises:
            TSLMError: they are NaN or infinite, or too large for the dtype.
        """
        value = mx.array(checkpoint_values(self)) if isinstance(self.source, Tensor) else base.pop(self.source)
        return self._finished(value)

    def blocks(self, base: dict[str, mx.array]) -> Iterator[tuple[int, list[mx.array]]]:
        """The values of `stored()` a block of rows at a time, with each block's first row.

        What of a checkpoint has been read is given back to the system, so that memory does not grow with its size.
        """
        if not isinstance(self.source, Tensor):
            yield 0, self.arrays(base)
            return
        for rows in row_blocks(self.shape):
            yield rows.start, self._finished(mx.array(checkpoint_values(self, rows)))
            self.source.storage.release()

    def _finished(self, value: mx.array) -> list[mx.array]:
        if self.adapter is not None:
            with mx.stream(mx.cpu):  # where float32 is float32: a GPU's matmul may be less exact
                a, b = (mx.array(side.numpy()).astype(mx.float32) for side in (self.adapter.a, self.adapter.b))
                value = value.astype(mx.float32) + self.adapter.scale * (b @ a)
                mx.eval(value)
        stored = value.astype(self.dtype)
        if not mx.isfinite(stored).all().item():
            check_finite(
                f"{self.name} of the {'checkpoint' if isinstance(self.source, Tensor) else 'base LLM'}", value
            )
            raise TSLMError(f"{self.name} has values too large for {_name(self.dtype)}; take --dtype float32")
        value = stored
        if self.quantization is None:
            return [value]
        return list(mx.quantize(value, self.quantization.group_size, self.quantization.bits))


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of an array's first axis, each of them small."""
    step = max(1, _BLOCK // max(1, prod(shape[1:])))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def checkpoint_values(target: Target, rows: slice = slice(None)) -> np.ndarray:
    """Rows of a tensor of the checkpoint in the layout that MLX wants, as float32."""
    assert isinstance(target.source, Tensor)
    values = target.source.numpy()
    if target.swap is not None:
        values = values.swapaxes(*target.swap)
    return np.ascontiguousarray(values[rows], np.float32)


def plan(
    checkpoint: Checkpoint,
    base: BaseLLM,
    weights: dict[str, mx.array],
    quantization: Quantization | None = None,
    dtype: mx.Dtype | None = None,
    fuse: bool = True,
) -> list[Target]:
    """Lay out the converted model: encoder, projector and adapters in float32, the LLM as its base or `dtype`.

    Args:
        weights: `base.weights()`; only shapes and dtypes are looked at.
        fuse: add the adapters to the weights; otherwise keep them as mlx-lm's `LoRALinear` does.

    Raises:
        TSLMError: the base's width differs from the projector's, an adapter is missing or does not fit, the group
            size does not divide a layer.
    """
    if base.hidden_size != checkpoint.output_size:
        raise TSLMError(
            f"the base LLM {base.name} is {base.hidden_size} wide, but the checkpoint was trained with one "
            f"of width {checkpoint.output_size}; give that one with --llm"
        )
    _check_adapters(checkpoint, base, fuse)
    if quantization is not None:
        check_groups(base.linears, quantization)
    return [*_own(checkpoint), *_llm(checkpoint, base, weights, quantization, dtype, fuse)]


def _own(checkpoint: Checkpoint) -> Iterator[Target]:
    names = keymap.encoder_names(checkpoint.encoder_config.num_hidden_layers) | keymap.projector_names()
    for there, here in names.items():
        tensor = (checkpoint.encoder | checkpoint.projector)[there]
        swap = keymap.swapped_axes(there)
        shape = list(tensor.shape)
        if swap is not None:
            shape[swap[0]], shape[swap[1]] = shape[swap[1]], shape[swap[0]]
        yield Target(here, tuple(shape), mx.float32, tensor, swap)


def _llm(
    checkpoint: Checkpoint,
    base: BaseLLM,
    weights: dict[str, mx.array],
    quantization: Quantization | None,
    dtype: mx.Dtype | None,
    fuse: bool,
) -> Iterator[Target]:
    for name, array in weights.items():
        module, _, kind = name.rpartition(".")
        kept = dtype if dtype is not None and mx.issubdtype(array.dtype, mx.floating) else array.dtype
        adapter = checkpoint.adapters.get(module)
        is_matrix = module in base.linears and kind == "weight"
        home = f"language_model.{module}"
        yield Target(
            f"{home}.{kind}" if adapter is None or fuse else f"{home}.linear.{kind}",
            array.shape,
            kept,
            name,
            adapter=adapter if fuse and is_matrix else None,
            quantization=quantization if is_matrix else None,
        )
        if adapter is not None and is_matrix and not fuse:
            yield Target(f"{home}.lora_a", adapter.a.shape[::-1], mx.float32, adapter.a, (0, 1))
            yield Target(f"{home}.lora_b", adapter.b.shape[::-1], mx.float32, adapter.b, (0, 1))


def _check_adapters(checkpoint: Checkpoint, base: BaseLLM, fuse: bool) -> None:
    for module, adapter in checkpoint.adapters.items():
        if module not in base.linears:
            raise TSLMError(f"the checkpoint has an adapter for {module}, which the base LLM {base.name} has not")
        if adapter.shape != base.linears[module]:
            raise TSLMError(
                f"the adapter of {module} updates a {list(adapter.shape)} weight, but that of the base LLM "
                f"{base.name} is {list(base.linears[module])}; give the base it was trained with"
            )
    targets = checkpoint.lora.targets if checkpoint.lora is not None else lambda _: False
    for module in base.linears:
        if module not in checkpoint.adapters and targets(module):
            raise TSLMError(f"lora_state: the adapter of {module} is missing")
    if not fuse and len({(adapter.rank, adapter.scale) for adapter in checkpoint.adapters.values()}) > 1:
        raise TSLMError("the adapters differ in rank or scale, and can only be fused; leave out --no-fuse")


def check_groups(linears: dict[str, tuple[int, int]], quantization: Quantization) -> None:
    """See that the group size exists, and divides the inputs of all layers `[out, in]`.

    Raises:
        TSLMError: it does not.
    """
    if quantization.group_size not in GROUP_SIZES:
        raise TSLMError(f"--q-group-size {quantization.group_size} does not exist; take 32, 64 or 128")
    for module, (_, inputs) in linears.items():
        if inputs % quantization.group_size:
            fitting = [size for size in GROUP_SIZES if all(n % size == 0 for _, n in linears.values())]
            advice = (
                f"take --q-group-size {' or '.join(map(str, fitting))}" if fitting else "none does; leave out -q"
            )
            raise TSLMError(
                f"--q-group-size {quantization.group_size} does not divide the {inputs} inputs of {module}; "
                f"{advice}"
            )
