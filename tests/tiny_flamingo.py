"""Tiny Flamingo models, made as `tiny.py` makes soft-prompt ones: every weight follows from its name.

`data/golden/make_flamingo.py` puts the same numbers into OpenTSLM's and open-flamingo's own code.
"""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tiny
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlx_tslm.models.flamingo import FlamingoModel

SPECIAL_TOKENS = {"llama": ["<|endofchunk|>", "<image>", "<PAD>"], "gemma": ["<|endofchunk|>", "<image>"]}
LATENTS, WIDTH, INNER, DEPTH = 64, 128, 512, 6  # 8 heads of 64


def vocabulary(kind: str) -> int:
    """Rows of the embedding table: the base's and those of the new tokens."""
    return tiny.VOCAB + len(SPECIAL_TOKENS[kind])


def shapes(kind: str, max_patches: int = 1024) -> dict[str, tuple[int, ...]]:
    """All parameters in a converted folder's names and layouts, the LLM's without `language_model.`."""
    hidden, layers = tiny.TEXT_CONFIGS[kind]["hidden_size"], tiny.TEXT_CONFIGS[kind]["num_hidden_layers"]
    found: dict[str, tuple[int, ...]] = {
        "encoder.patch_embed.weight": (WIDTH, 4, 1),
        "encoder.pos_embed": (1, max_patches, WIDTH),
        "encoder.input_norm.weight": (WIDTH,),
        "encoder.input_norm.bias": (WIDTH,),
        "perceiver.latents": (LATENTS, WIDTH),
        "perceiver.norm.weight": (WIDTH,),
        "perceiver.norm.bias": (WIDTH,),
    }

    def feed_forward(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{prefix}.norm.weight": (width,),
            f"{prefix}.norm.bias": (width,),
            f"{prefix}.linear1.weight": (4 * width, width),
            f"{prefix}.linear2.weight": (width, 4 * width),
        }

    for layer in range(DEPTH):
        at = f"perceiver.layers.{layer}"
        for norm in ("norm_media", "norm_latents"):
            found |= {f"{at}.attention.{norm}.{part}": (WIDTH,) for part in ("weight", "bias")}
        found |= {f"{at}.attention.to_q.weight": (INNER, WIDTH), f"{at}.attention.to_kv.weight": (2 * INNER, WIDTH)}
        found |= {f"{at}.attention.to_out.weight": (WIDTH, INNER)} | feed_forward(f"{at}.feed_forward", WIDTH)
    for layer in range(layers):
        at = f"gated_blocks.{layer}"
        found |= {f"{at}.attention.norm.{part}": (hidden,) for part in ("weight", "bias")}
        found |= {
            f"{at}.attention.to_q.weight": (INNER, hidden),
            f"{at}.attention.to_kv.weight": (2 * INNER, WIDTH),
            f"{at}.attention.to_out.weight": (hidden, INNER),
            f"{at}.attention_gate": (1,),
            f"{at}.feed_forward_gate": (1,),
        } | feed_forward(f"{at}.feed_forward", hidden)
    return found


@cache
def weights(kind: str, max_patches: int = 1024) -> tiny.Arrays:
    """All of a model's weights, float32, under a converted folder's names."""
    found = {}
    for name, shape in shapes(kind, max_patches).items():
        if name.endswith("_gate"):
            found[name] = (0.6 + 0.2 * tiny.noise(name, shape)).astype(np.float32)
        elif name == "perceiver.latents":
            found[name] = tiny.noise(name, shape).astype(np.float32)
        else:
            found[name] = tiny._scaled(name, shape, 1.2)
    base = dict(tiny.base_weights(kind))
    new = tiny._scaled("new.embed_tokens.weight", (len(SPECIAL_TOKENS[kind]), base["model.norm.weight"].size), 1.0)
    table = "model.embed_tokens.weight"
    base[table] = np.concatenate([base[table], new])
    return found | {f"language_model.{name}": value for name, value in base.items()}


def text_config(kind: str) -> dict[str, Any]:
    """The base LLM's config with the rows of the new tokens, in float32."""
    return tiny.TEXT_CONFIGS[kind] | {"vocab_size": vocabulary(kind), "torch_dtype": "float32"}


def original_state(kind: str, max_patches: int = 1024) -> OrderedDict[str, NDArray[np.float32]]:
    """The state of the original's `TimeSeriesFlamingoWithTrainableEncoder`, in its names and layouts.

    A name for every parameter of every module: the same array stands under several.
    """
    state: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
    parts = {"feed_forward.norm": "0", "feed_forward.linear1": "1", "feed_forward.linear2": "3"}
    for name, value in weights(kind, max_patches).items():
        part, _, rest = name.partition(".")
        if name == "encoder.patch_embed.weight":
            state["vision_encoder.patch_embed.weight"] = np.ascontiguousarray(value.transpose(0, 2, 1))
        elif part == "encoder":
            state[f"vision_encoder.{rest}"] = value
        elif part == "perceiver":
            rest = rest.replace(".attention.", ".0.")
            for here, there in parts.items():
                rest = rest.replace(f".{here}.", f".1.{there}.")
            state[f"perceiver.{rest}"] = value
        elif part == "gated_blocks":
            for here, there in parts.items():
                rest = rest.replace(f".{here}.", f".ff.{there}.")
            rest = rest.replace(".attention.", ".attn.")
            rest = rest.replace(".attention_gate", ".attn_gate").replace(".feed_forward_gate", ".ff_gate")
            layer, _, rest = rest.partition(".")
            state[f"lang_encoder.gated_cross_attn_layers.{layer}.{rest}"] = value
            state[f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer.{rest}"] = value
        elif rest.startswith("model.layers."):
            layer, _, rest = rest.removeprefix("model.layers.").partition(".")
            state[f"lang_encoder.model.layers.{layer}.decoder_layer.{rest}"] = value
            state[f"lang_encoder.old_decoder_blocks.{layer}.{rest}"] = value
        else:
            state[f"lang_encoder.{rest}"] = value
    state["lang_encoder.lm_head.weight"] = state["lang_encoder.model.embed_tokens.weight"]
    return state


def write_base(kind: str, folder: Path, with_weights: bool = False) -> Path:
    """The base LLM's folder: config and tokenizer, and its own weights (bfloat16) only if asked for."""
    if with_weights:
        return tiny.write_base(kind, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (tiny.GOLDEN / kind).iterdir():
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(tiny.TEXT_CONFIGS[kind], indent=2) + "\n")
    return folder


def tokenizer(kind: str) -> Any:
    """The tiny tokenizer with the new tokens."""
    from mlx_tslm.models.flamingo_text import add_special_tokens

    found = tiny.tokenizer(kind)
    add_special_tokens(found._tokenizer)
    return found


def tiny_model(kind: str = "llama", max_patches: int = 1024) -> FlamingoModel:
    """A float32 model of the published architecture on a tiny base LLM."""
    import mlx.core as mx

    from mlx_tslm.models.config import EncoderConfig, FlamingoConfig
    from mlx_tslm.models.flamingo import FlamingoModel

    config = FlamingoConfig(text_config(kind), EncoderConfig(max_patches=max_patches, num_hidden_layers=0))
    model = FlamingoModel(config, tokenizer(kind))
    model.load_weights([(name, mx.array(value)) for name, value in weights(kind, max_patches).items()])
    model.eval()
    mx.eval(model.parameters())
    return model
