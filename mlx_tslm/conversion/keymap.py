"""Names and shapes: OpenTSLM's parameters in torch, and the same parameters here.

Three things differ: torch calls the input projection of attention `in_proj_weight`, it numbers the projector's
parts, and its convolution has the layout `[out, in, kernel]` where MLX has `[out, kernel, in]`.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlx_tslm.conversion.pt.tensors import Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import EncoderConfig

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
ENCODER_HEADS = 8
"""Of every published checkpoint."""
LORA_PREFIX = "base_model.model."
_LORA = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")


def encoder_names(layers: int) -> dict[str, str]:
    """The encoder's parameters: the name in `encoder_state`, and the name here."""
    names = {
        name: f"encoder.{name}"
        for name in ("patch_embed.weight", "pos_embed", "input_norm.weight", "input_norm.bias")
    }
    for layer in range(layers):
        there, here = f"encoder.layers.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            names[f"{there}.self_attn.in_proj_{kind}"] = f"{here}.self_attn.in_proj.{kind}"
            for part in ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2"):
                names[f"{there}.{part}.{kind}"] = f"{here}.{part}.{kind}"
    return names


def projector_names() -> dict[str, str]:
    """The projector's parameters: the name in `projector_state`, and the name here."""
    parts = {"projector.0": "projector.norm", "projector.1": "projector.linear"}
    return {f"{there}.{kind}": f"{here}.{kind}" for there, here in parts.items() for kind in ("weight", "bias")}


def encoder_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """The encoder's parameters under torch's names, and their shapes in torch."""
    width, ff = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        **embedding_shapes(config),
        "self_attn.in_proj_weight": (3 * width, width),
        "self_attn.in_proj_bias": (3 * width,),
        "self_attn.out_proj.weight": (width, width),
        "linear1.weight": (ff, width),
        "linear1.bias": (ff,),
        "linear2.weight": (width, ff),
    }
    vector = (width,)  # every bias and norm that is not listed
    names = encoder_names(config.num_hidden_layers)
    return {name: shapes.get(re.sub(r"^encoder\.layers\.\d+\.", "", name), vector) for name in names}


def projector_shapes(width: int, output: int) -> dict[str, tuple[int, ...]]:
    """The projector's parameters under torch's names, and their shapes (the same in torch and MLX)."""
    return {
        "projector.0.weight": (width,),
        "projector.0.bias": (width,),
        "projector.1.weight": (output, width),
        "projector.1.bias": (output,),
    }


def embedding_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """What stands before the encoder's layers (all that a Flamingo model has), under torch's names, in torch."""
    width = config.hidden_size
    return {
        "patch_embed.weight": (width, 1, config.patch_size),
        "pos_embed": (1, config.max_patches, width),
        "input_norm.weight": (width,),
        "input_norm.bias": (width,),
    }


def infer_embedding(state: Mapping[str, Tensor]) -> EncoderConfig:
    """The sizes of an encoder without layers, read from its tensors.

    Raises:
        TSLMError: a tensor is missing or of an impossible shape.
    """
    shape = _shapes("vision_encoder", state, {"patch_embed.weight": 3, "pos_embed": 3})
    width, _, patch = shape["patch_embed.weight"]
    return EncoderConfig(patch, width, num_hidden_layers=0, max_patches=shape["pos_embed"][1])


def infer_encoder(state: Mapping[str, Tensor], heads: int = ENCODER_HEADS) -> EncoderConfig:
    """The encoder's sizes, read from its tensors. The number of heads leaves no trace in them.

    Raises:
        TSLMError: a tensor is missing or of an impossible shape.
    """
    axes = {"patch_embed.weight": 3, "pos_embed": 3, "encoder.layers.0.linear1.weight": 2}
    shape = _shapes("encoder_state", state, axes)
    layers = [int(match[1]) for name in state if (match := re.match(r"encoder\.layers\.(\d{1,4})\.", name))]
    width = shape["patch_embed.weight"][0]
    if heads < 1 or width % heads:
        raise TSLMError(
            f"encoder_state: a width of {width} does not divide into {heads} heads; "
            "say how many with --encoder-heads"
        )
    return EncoderConfig(
        patch_size=shape["patch_embed.weight"][2],
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=max(layers) + 1,
        intermediate_size=shape["encoder.layers.0.linear1.weight"][0],
        max_patches=shape["pos_embed"][1],
    )


def _shapes(part: str, state: Mapping[str, Tensor], axes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors that sizes are read from, of so many axes each."""
    for name, count in axes.items():
        if name not in state:
            raise TSLMError(f"{part}: the tensor {name} is missing")
        shape = state[name].shape
        if len(shape) != count:
            raise TSLMError(f"{part}: {name} has shape {list(shape)}, but {count} axes are needed")
        if 0 in shape:
            raise TSLMError(f"{part}: {name} is empty, {list(shape)}")
    return {name: state[name].shape for name in axes}


def check(part: str, state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a state's names and shapes with what they must be.

    Raises:
        TSLMError: a tensor is missing, unexpected, of the wrong shape, or not of floating point.
    """
    for name, shape in shapes.items():
        if name not in state:
            raise TSLMError(f"{part}: the tensor {name} is missing")
        if state[name].shape != shape:
            raise TSLMError(f"{part}: {name} has shape {list(state[name].shape)}, but {list(shape)} is needed")
        if "float" not in state[name].dtype:
            raise TSLMError(f"{part}: {name} is of {state[name].dtype}, not of floating point")
    if unexpected := next((name for name in state if name not in shapes), None):
        raise TSLMError(f"{part}: there is an unexpected tensor, {unexpected}; the checkpoint is of another model")


def swapped_axes(name: str) -> tuple[int, int] | None:
    """The two axes in which torch's and MLX's layouts of a tensor differ, or None where they agree."""
    return (1, 2) if name == "patch_embed.weight" else None


def lora_name(name: str) -> tuple[str, str, str | None]:
    """Split PEFT's name of an adapter's tensor into the base module's name, "A" or "B", and the adapter's own name.

    Raises:
        TSLMError: the name is of another kind of adapter.
    """
    match = _LORA.fullmatch(name)
    if match is None:
        raise TSLMError(f"lora_state: {name} is no LoRA weight of a linear layer, and nothing else is supported")
    return match["module"], match["side"], match["adapter"]


def unwrapped(name: str) -> str:
    """A parameter's name without what DataParallel, `torch.compile`, FSDP and checkpointing put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def to_torch(
    weights: Mapping[str, ArrayLike],
) -> tuple[OrderedDict[str, Any], OrderedDict[str, Any], OrderedDict[str, Any]]:
    """Sort weights under this project's names into OpenTSLM's encoder, projector and LoRA states, float32.

    Raises:
        TSLMError: a parameter is missing or has no place in OpenTSLM's checkpoint.
    """
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in weights.items()}
    layers = {int(match[1]) for name in arrays if (match := re.match(r"encoder\.layers\.(\d+)\.", name))}
    states: list[OrderedDict[str, Any]] = []
    for names in (encoder_names(len(layers)), projector_names()):
        if missing := next((here for here in names.values() if here not in arrays), None):
            raise TSLMError(f"the weight {missing} is missing")
        states.append(OrderedDict())
        for there, here in names.items():
            values, axes = arrays.pop(here), swapped_axes(there)
            states[-1][there] = values if axes is None else values.swapaxes(*axes)
    lora: OrderedDict[str, Any] = OrderedDict()
    for name, values in arrays.items():
        match = re.fullmatch(r"language_model\.(.+)\.lora_([ab])", name)
        if match is None:
            raise TSLMError(f"the weight {name} has no place in a checkpoint of OpenTSLM")
        lora[f"{LORA_PREFIX}{match[1]}.lora_{match[2].upper()}.default.weight"] = values.T
    return states[0], states[1], lora
