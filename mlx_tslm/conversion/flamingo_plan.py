"""What a converted Flamingo model consists of, and its config. The base LLM is not read: the file holds one."""

from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_tslm.conversion import flamingo, keymap
from mlx_tslm.conversion.base import BaseLLM
from mlx_tslm.conversion.plan import Quantization, Target, check_groups
from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.config import DTYPES, FlamingoConfig, has_dtype_of_llm


def plan(
    checkpoint: flamingo.FlamingoCheckpoint,
    base: BaseLLM,
    tokens: int,
    quantization: Quantization | None = None,
    dtype: mx.Dtype | None = None,
) -> list[Target]:
    """Lay out the model: encoder and perceiver in float32, LLM and gated blocks as in the file or `dtype`.

    Args:
        base: for its config.
        tokens: of the tokenizer, the new ones included.

    Raises:
        TSLMError: the checkpoint was trained with another base LLM or tokenizer, or the group size does not divide
            a layer.
    """
    if base.hidden_size != checkpoint.hidden_size:
        raise TSLMError(
            f"the base LLM {base.name} is {base.hidden_size} wide, but the checkpoint's is "
            f"{checkpoint.hidden_size} wide; give the one it was trained with, with --llm"
        )
    if checkpoint.layers != base.config["num_hidden_layers"]:
        raise TSLMError(
            f"the base LLM {base.name} has {base.config['num_hidden_layers']} layers, but the checkpoint's has "
            f"{checkpoint.layers}; give the one it was trained with, with --llm"
        )
    if checkpoint.vocabulary != tokens:
        raise TSLMError(
            f"the checkpoint's embedding table has {checkpoint.vocabulary} rows, but the tokenizer of {base.name} "
            f"has {tokens} tokens, Flamingo's among them; give the base LLM it was trained with, with --llm"
        )
    model = lm.build(text_config(checkpoint, base))
    parameters: Any = tree_flatten(model.parameters())
    llm = {f"language_model.{name}": array.shape for name, array in parameters}
    own = flamingo.own_shapes(
        checkpoint.hidden_size, checkpoint.layers, checkpoint.encoder_config, checkpoint.cross_config
    )
    flamingo.check(checkpoint.tensors, own | llm, checkpoint.names)
    linears = {f"language_model.{name}": shape for name, shape in base.linears.items()}
    linears |= {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in own.items()
        if name.startswith("gated_blocks.") and len(shape) == 2
    }
    if checkpoint.tied:
        linears.pop("language_model.lm_head", None)
    if quantization is not None:
        check_groups(linears, quantization)
    return list(_targets(checkpoint, own | llm, set(linears), quantization, dtype))


def text_config(checkpoint: flamingo.FlamingoCheckpoint, base: BaseLLM) -> dict[str, Any]:
    """The base LLM's config with the checkpoint's vocabulary, and its dtype."""
    config = dict(base.config) | {"vocab_size": checkpoint.vocabulary, "tie_word_embeddings": checkpoint.tied}
    config["dtype" if "dtype" in config else "torch_dtype"] = _own_dtype(checkpoint)
    return config


def config(
    checkpoint: flamingo.FlamingoCheckpoint, base: BaseLLM, stage: str | None, quantization: Quantization | None
) -> FlamingoConfig:
    """The converted model's `config.json`."""
    return FlamingoConfig(
        text_config=text_config(checkpoint, base),
        encoder_config=checkpoint.encoder_config,
        cross_config=checkpoint.cross_config,
        stage=stage,
        quantization=quantization.to_dict() if quantization else None,
    )


def _own_dtype(checkpoint: flamingo.FlamingoCheckpoint) -> str:
    """Of the LLM in the file, if an LLM can be stored in it."""
    stored = checkpoint.tensors[flamingo.EMBEDDINGS].dtype
    return stored if stored in DTYPES else "float32"


def _targets(
    checkpoint: flamingo.FlamingoCheckpoint,
    names: Mapping[str, tuple[int, ...]],
    linears: set[str],
    quantization: Quantization | None,
    dtype: mx.Dtype | None,
) -> Iterator[Target]:
    own = getattr(mx, _own_dtype(checkpoint))
    for name in names:
        tensor = checkpoint.tensors[name]
        swap = keymap.swapped_axes(name.removeprefix("encoder."))
        shape = list(tensor.shape)
        if swap is not None:
            shape[swap[0]], shape[swap[1]] = shape[swap[1]], shape[swap[0]]
        matrix = name.removesuffix(".weight") in linears
        yield Target(
            name,
            tuple(shape),
            dtype or own if has_dtype_of_llm(name) else mx.float32,
            tensor,
            swap,
            quantization=quantization if matrix else None,
        )
