"""mlx-lm's language models, driven from embeddings: all that differs between Llama and Gemma 3 is here.

mlx-lm brings the layers, their weights, quantization, LoRA and the RoPE variants. Its `Model.__call__` is not
used, because Gemma's scales whatever embeddings it is given, series included, and because the search attends to a
shared prompt in a way of its own: `forward` takes the attention step as a function.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from numpy.typing import NDArray

from mlx_tslm.models import text_config
from mlx_tslm.models.attention import project
from mlx_tslm.models.config import LoraConfig
from mlx_tslm.models.ops import grouped_attention, mlp

Attend = Callable[[int, nn.Module, mx.array], mx.array]
"""(layer index, mlx-lm attention module, normed input [B, T, H]) -> attention output [B, T, H]."""

Before = Callable[[int, mx.array], mx.array]
"""(layer index, its input [B, T, H]) -> what it gets in its place: what a model puts before each decoder layer."""


def build(config: dict[str, Any]) -> nn.Module:
    """An mlx-lm model without weights, from a base LLM's `config.json`; a head of its own only where that says so.

    Raises:
        TSLMError: as `text_config.read`.
    """
    from mlx_lm.models import gemma3_text, llama

    text = text_config.read(config)
    if isinstance(text, text_config.Llama):
        return llama.Model(llama.ModelArgs(**text.mlx_args()))
    model = gemma3_text.Model(gemma3_text.ModelArgs(**text.mlx_args()))
    if config.get("tie_word_embeddings") is not False:
        model.sanitize({})  # mlx-lm's always brings a head, and drops it where no weights for it are given
    return model


def adapt(model: nn.Module, lora: LoraConfig, wanted: Callable[[str], bool]) -> None:
    """Put fresh adapters beside the linear layers whose names are wanted."""
    from mlx_lm.tuner.lora import LoRALinear

    adapted = [
        (name, LoRALinear.from_base(module, r=lora.rank, scale=lora.scale))
        for name, module in model.named_modules()
        if wanted(name)
    ]
    model.update_modules(tree_unflatten(adapted))


def embedding_scale(model: nn.Module) -> float:
    """What text embeddings are multiplied by: √hidden for Gemma, else 1.

    It is rounded to bfloat16, the type that the LLM was loaded in when it was trained, unless `exact_scale` is set.
    """
    if model.model_type != "gemma3_text":
        return 1.0
    scale = model.args.hidden_size**0.5
    return scale if getattr(model, "exact_scale", False) else float(mx.array(scale, mx.bfloat16))


def embed_tokens(model: nn.Module, tokens: mx.array) -> mx.array:
    """Text embeddings as the first layer gets them: int `[...]` to `[..., H]` in the model's dtype."""
    embeddings = model.model.embed_tokens(tokens)
    scale = embedding_scale(model)
    return embeddings if scale == 1.0 else embeddings * mx.array(scale, embeddings.dtype)


def windows(model: nn.Module) -> list[int | None]:
    """For each layer, how many positions back a token sees (itself included), or None for all."""
    if model.model_type == "gemma3_text":
        pattern, window = model.args.sliding_window_pattern, model.args.sliding_window
        return [None if (i + 1) % pattern == 0 else window for i in range(len(model.layers))]
    return [model.args.sliding_window if layer.use_sliding else None for layer in model.layers]


def max_positions(model: nn.Module) -> int | None:
    """The longest context the model was made for, in positions, or None where its config does not say."""
    return getattr(model.args, "max_position_embeddings", None)


def forward(
    model: nn.Module, h: mx.array, attend: Attend, checkpoint: bool = False, before: Before | None = None
) -> mx.array:
    """Run all layers on embeddings `[B, T, H]` and return the final normed states `[B, T, H]`.

    With `checkpoint` a gradient keeps each layer's input alone, and computes the layer again.
    """
    block = _gemma_block if model.model_type == "gemma3_text" else _llama_block
    for index, layer in enumerate(model.layers):
        h = h if before is None else before(index, h)
        step = partial(block, index, layer, attend)
        h = nn.utils.checkpoint(layer, step)(h) if checkpoint else step(h)
    return model.model.norm(h)


def _llama_block(index: int, layer: nn.Module, attend: Attend, h: mx.array) -> mx.array:
    h = h + attend(index, layer.self_attn, layer.input_layernorm(h))
    return h + mlp(layer.mlp, layer.post_attention_layernorm(h))


def _gemma_block(index: int, layer: nn.Module, attend: Attend, h: mx.array) -> mx.array:
    from mlx_lm.models.gemma3_text import clip_residual

    attended = attend(index, layer.self_attn, layer.input_layernorm(h))
    h = clip_residual(h, layer.post_attention_layernorm(attended))
    fed = layer.mlp(layer.pre_feedforward_layernorm(h))
    return clip_residual(h, layer.post_feedforward_layernorm(fed))


def causal(model: nn.Module, cache: Sequence[Any], visible: NDArray[np.bool_] | None = None) -> Attend:
    """Plain causal attention of one row, into `cache` (mlx-lm's `KVCache`, one a layer).

    `visible` `[L]` says which of the first L positions may be attended to; None for all.
    """
    spans = windows(model)

    def attend(index: int, attention: nn.Module, x: mx.array) -> mx.array:
        layer, steps = cache[index], x.shape[1]
        mask = layer.make_mask(steps, return_array=visible is not None, window_size=spans[index])
        if visible is not None:
            shown = np.ones(max(layer.offset + steps, len(visible)), bool)
            shown[: len(visible)] = visible
            keys_shown = mx.array(shown[: layer.offset + steps])
            mask = keys_shown[None] if mask is None else mask & keys_shown
        queries, keys, values = project(attention, x, layer.offset)
        keys, values = layer.update_and_fetch(keys, values)
        return attention.o_proj(grouped_attention(queries, keys, values, attention.scale, mask))

    return attend


def know_tokens(model: nn.Module, ids: Iterable[int]) -> None:
    """Tell a model which ids its tokenizer has: no other is ever sampled, where a table is padded beyond them."""
    known = np.zeros(model.args.vocab_size, bool)
    known[[token for token in ids if token < len(known)]] = True
    model._nameless = None if known.all() else mx.array(~known)  # the underscore: it is no parameter


def logits(model: nn.Module, h: mx.array) -> mx.array:
    """Float32 logits `[..., V]` of final states `[..., H]`; −inf for ids that are no token."""
    tied = getattr(model, "tie_word_embeddings", None)
    if tied is None:
        tied = model.args.tie_word_embeddings
    head = model.model.embed_tokens.as_linear if tied else model.lm_head
    values = head(h).astype(mx.float32)
    nameless = getattr(model, "_nameless", None)
    return values if nameless is None else mx.where(nameless, -mx.inf, values)
