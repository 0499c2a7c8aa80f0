"""What an OpenTSLM Flamingo checkpoint says: encoder, perceiver, gated blocks, and the whole LLM.

The file is `{"llm": state}` or `{"model_state": state, …}`. A parameter stands in it under up to four names: under
`model.` and `llm.`, and a decoder block or gated block under that of its layer and that of a list of its own. Names
of one parameter share a storage; which of them are there does not matter.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.conversion import keymap
from mlx_tslm.conversion.pt.tensors import Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import CrossConfig, EncoderConfig

_PREFIX = re.compile(
    r"^(?:module\.)?(?:(?:model|llm)\.)?(?:module\.)?(?=vision_encoder\.|perceiver\.|lang_encoder\.)"
)
_ALIASES = (  # of a block's two names, the first becomes the second
    (re.compile(r"^lang_encoder\.model\.layers\.(\d+)\.decoder_layer\."), r"lang_encoder.old_decoder_blocks.\1."),
    (
        re.compile(r"^lang_encoder\.model\.layers\.(\d+)\.gated_cross_attn_layer\."),
        r"lang_encoder.gated_cross_attn_layers.\1.",
    ),
)
_HERE = (  # a name without prefix and aliases, and the name here
    (re.compile(r"^vision_encoder\."), "encoder."),
    (re.compile(r"^(perceiver\.layers\.\d+)\.0\."), r"\1.attention."),
    (re.compile(r"^(perceiver\.layers\.\d+)\.1\."), r"\1.feed_forward."),
    (re.compile(r"^lang_encoder\.old_decoder_blocks\."), "language_model.model.layers."),
    (re.compile(r"^lang_encoder\.gated_cross_attn_layers\."), "gated_blocks."),
    (re.compile(r"^lang_encoder\."), "language_model."),
    (re.compile(r"^(gated_blocks\.\d+)\.attn\."), r"\1.attention."),
    (re.compile(r"^(gated_blocks\.\d+)\.attn_gate$"), r"\1.attention_gate"),
    (re.compile(r"^(gated_blocks\.\d+)\.ff_gate$"), r"\1.feed_forward_gate"),
    (re.compile(r"^(gated_blocks\.\d+)\.ff\."), r"\1.feed_forward."),
    (re.compile(r"\.feed_forward\.0\."), ".feed_forward.norm."),
    (re.compile(r"\.feed_forward\.1\."), ".feed_forward.linear1."),
    (re.compile(r"\.feed_forward\.3\."), ".feed_forward.linear2."),
)
_HEAD_SIZE = 64  # leaves no trace in the file; open-flamingo has no other
EMBEDDINGS, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


@dataclass(frozen=True, eq=False)
class FlamingoCheckpoint:
    """A checkpoint, checked as far as that goes without its base LLM's config.

    Attributes:
        tensors: each parameter once, under its name here.
        names: what each is called in the file.
        encoder_config, cross_config: sizes, read from the tensors.
        layers: of the LLM.
        tied: whether the LLM's head is its embedding table.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    encoder_config: EncoderConfig
    cross_config: CrossConfig
    layers: int
    tied: bool

    variant = "flamingo"

    @property
    def hidden_size(self) -> int:
        """The LLM's width."""
        return self.tensors[EMBEDDINGS].shape[1]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        return self.tensors[EMBEDDINGS].shape[0]


def interpret(state: Mapping[str, Tensor]) -> FlamingoCheckpoint:
    """Sort a checkpoint's state.

    Raises:
        TSLMError: a tensor is missing, unexpected or of an impossible shape, or two names of one parameter have
            different values.
    """
    tensors, names = _once(state)
    encoder = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    sizes = keymap.infer_embedding(encoder)
    keymap.check("vision_encoder", encoder, keymap.embedding_shapes(sizes))

    def size(name: str, axes: int, axis: int) -> int:
        if name not in tensors:
            raise TSLMError(f"the tensor {_there(name)} is missing: this is no whole Flamingo checkpoint")
        if len(tensors[name].shape) != axes:
            raise TSLMError(f"{names[name]} has shape {list(tensors[name].shape)}, but {axes} axes are needed")
        return tensors[name].shape[axis]

    depth, layers = _count(tensors, "perceiver.layers."), _count(tensors, "language_model.model.layers.")
    inner = size("perceiver.layers.0.attention.to_q.weight", 2, 0)
    if inner % _HEAD_SIZE:
        raise TSLMError(f"the perceiver's heads of {inner} in all do not divide into heads of {_HEAD_SIZE}")
    cross = CrossConfig(
        num_latents=size("perceiver.latents", 2, 0),
        perceiver_layers=depth,
        perceiver_intermediate_size=size("perceiver.layers.0.feed_forward.linear1.weight", 2, 0),
        num_attention_heads=inner // _HEAD_SIZE,
        head_size=_HEAD_SIZE,
        intermediate_size=size("gated_blocks.0.feed_forward.linear1.weight", 2, 0),
    )
    hidden = size(EMBEDDINGS, 2, 1)
    head = tensors.get(_HEAD)
    tied = head is None or _same(head, tensors[EMBEDDINGS])
    if tied:
        tensors.pop(_HEAD, None)
    found = FlamingoCheckpoint(tensors, names, sizes, cross, layers, tied)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("language_model.")}
    check(own, own_shapes(hidden, layers, sizes, cross), names)
    return found


def to_torch(weights: Mapping[str, NDArray[np.float32]]) -> OrderedDict[str, NDArray[np.float32]]:
    """Weights under their names here as the state that OpenTSLM saves: each under every name that it has there.

    Raises:
        TSLMError: a weight has no place in that state.
    """
    state: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
    if _HEAD not in weights:
        weights = {**weights, _HEAD: weights[EMBEDDINGS]}
    for here, values in weights.items():
        axes = keymap.swapped_axes(here.removeprefix("encoder."))
        array = values if axes is None else np.ascontiguousarray(values.swapaxes(*axes))
        there = _there(here)
        if _here(there) != here or not _PREFIX.match(there):
            raise TSLMError(f"the weight {here} has no place in a Flamingo checkpoint of OpenTSLM")
        layer = r"lang_encoder.model.layers.\1."
        twin = re.sub(r"^lang_encoder\.old_decoder_blocks\.(\d+)\.", layer + "decoder_layer.", there)
        twin = re.sub(r"^lang_encoder\.gated_cross_attn_layers\.(\d+)\.", layer + "gated_cross_attn_layer.", twin)
        for name in (there, twin):
            state[f"model.{name}"] = state[f"llm.{name}"] = array
    return state


def own_shapes(hidden: int, layers: int, encoder: EncoderConfig, cross: CrossConfig) -> dict[str, tuple[int, ...]]:
    """All parameters beside the LLM's under their names here, in the file's layout."""
    width, inner = encoder.hidden_size, cross.num_attention_heads * cross.head_size
    shapes = {f"encoder.{name}": shape for name, shape in keymap.embedding_shapes(encoder).items()}
    shapes |= {"perceiver.latents": (cross.num_latents, width)} | _norm("perceiver.norm", width)
    for layer in range(cross.perceiver_layers):
        at = f"perceiver.layers.{layer}"
        shapes |= _norm(f"{at}.attention.norm_media", width) | _norm(f"{at}.attention.norm_latents", width)
        shapes |= _attention(f"{at}.attention", width, width, inner)
        shapes |= _feed_forward(f"{at}.feed_forward", width, cross.perceiver_intermediate_size)
    for layer in range(layers):
        at = f"gated_blocks.{layer}"
        shapes |= {f"{at}.attention_gate": (1,), f"{at}.feed_forward_gate": (1,)}
        shapes |= _norm(f"{at}.attention.norm", hidden) | _attention(f"{at}.attention", hidden, width, inner)
        shapes |= _feed_forward(f"{at}.feed_forward", hidden, cross.intermediate_size or 4 * hidden)
    return shapes


def _norm(at: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{at}.weight": (width,), f"{at}.bias": (width,)}


def _attention(at: str, width: int, seen: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{at}.to_q.weight": (inner, width),
        f"{at}.to_kv.weight": (2 * inner, seen),
        f"{at}.to_out.weight": (width, inner),
    }


def _feed_forward(at: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    return _norm(f"{at}.norm", width) | {
        f"{at}.linear1.weight": (inner, width),
        f"{at}.linear2.weight": (width, inner),
    }


def _once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each parameter under its name here, and what it is called in the file."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for name, tensor in state.items():
        here = _here(name)
        if here not in tensors:
            tensors[here], names[here] = tensor, name
        elif not _same(tensors[here], tensor):
            raise TSLMError(f"{names[here]} and {name} are names of one tensor, but have different values")
    return tensors, names


def _here(name: str) -> str:
    here = _PREFIX.sub("", name)
    for pattern, other in (*_ALIASES, *_HERE):
        here = pattern.sub(other, here)
    return here


def _there(here: str) -> str:
    """A name that the original gives a parameter, in its state without prefix."""
    name = re.sub(r"\.feed_forward\.(norm|linear1|linear2)\.", lambda m: f".ff.{_PLACES[m[1]]}.", here)
    name = re.sub(r"^gated_blocks\.", "lang_encoder.gated_cross_attn_layers.", name)
    if name.startswith("perceiver."):
        return name.replace(".attention.", ".0.").replace(".ff.", ".1.")
    name = name.replace("attention_gate", "attn_gate").replace("feed_forward_gate", "ff_gate")
    name = re.sub(r"^encoder\.", "vision_encoder.", name)
    name = re.sub(r"^language_model\.model\.layers\.", "lang_encoder.old_decoder_blocks.", name)
    name = re.sub(r"^language_model\.", "lang_encoder.", name)
    return re.sub(r"(gated_cross_attn_layers\.\d+)\.attention\.", r"\1.attn.", name)


_PLACES = {"norm": "0", "linear1": "1", "linear2": "3"}


def _same(one: Tensor, other: Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype
    if alike and one.storage is other.storage and (one.offset, one.stride) == (other.offset, other.stride):
        return True
    return alike and np.array_equal(one.numpy(), other.numpy(), equal_nan=True)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d{1,4})\.")
    numbers = [int(match[1]) for name in tensors if (match := pattern.match(name))]
    return max(numbers, default=-1) + 1


def check(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str]) -> None:
    """Compare tensors with what there must be; `names` are those of the file.

    Raises:
        TSLMError: one is missing, unexpected, of another shape, or not of floating point.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise TSLMError(f"the tensor {_there(name)} is missing")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise TSLMError(f"{names[name]} has shape {list(tensor.shape)}, but {list(shape)} is needed")
        if "float" not in tensor.dtype:
            raise TSLMError(f"{names[name]} is of {tensor.dtype}, not of floating point")
    if unexpected := next((name for name in tensors if name not in shapes), None):
        raise TSLMError(f"there is an unexpected tensor, {names[unexpected]}; the checkpoint is of another model")
