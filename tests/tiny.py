"""Tiny OpenTSLM models whose every weight follows from its name, so that tests need no stored weights.

`tiny_model("llama", lora=16)` is an MLX model in memory. `write_base` and `write_checkpoint` write the same model
as a user finds it: a Hugging Face folder of the base LLM, and an OpenTSLM `.pt`. `data/golden/make.py` puts the
same numbers into OpenTSLM's own code; so MLX is imported only where it is needed, and torch never.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlx_tslm.models.soft_prompt import SoftPromptModel

GOLDEN = Path(__file__).parent / "data" / "golden"
SEED = 20251123
VOCAB = 384  # of both tokenizers in data/golden/{llama,gemma}

# As the published bases write their config.json, but for the sizes. RoPE's original context is small, so that
# Llama's scaling moves most frequencies; √72 is not a bfloat16, nor is Gemma's √640.
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
        "bos_token_id": VOCAB - 2,
        "eos_token_id": VOCAB - 1,
        "torch_dtype": "bfloat16",
    },
    "gemma": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": 72,
        "intermediate_size": 128,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "query_pre_attn_scalar": 24,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "sliding_window": 32,
        "_sliding_window_pattern": 6,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "torch_dtype": "bfloat16",
    },
}
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA_ALPHA = {4: 12.0, 16: 32.0}  # two scales: 3 and 2

Arrays = dict[str, NDArray[np.float32]]


def noise(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniform numbers of mean 0 and variance 1 that depend on the name alone, the same on every machine.

    The top 24 bits of PCG64's raw output (a stream that NumPy promises to keep), seeded with SEED and the
    name's CRC-32, spread evenly over ±√3.
    """
    raw = np.random.PCG64([SEED, zlib.crc32(name.encode())]).random_raw(math.prod(shape))
    return ((raw >> np.uint64(40)) / 2.0**23 - 1.0).reshape(shape) * math.sqrt(3)


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest bfloat16, ties to even, and widen again."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def encoder_shapes(hidden_size: int, max_patches: int = 1024) -> dict[str, tuple[int, ...]]:
    """Encoder and projector of the published sizes, in a converted folder's names and layouts."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.patch_embed.weight": (128, 4, 1),
        "encoder.pos_embed": (1, max_patches, 128),
        "encoder.input_norm.weight": (128,),
        "encoder.input_norm.bias": (128,),
        "projector.norm.weight": (128,),
        "projector.norm.bias": (128,),
        "projector.linear.weight": (hidden_size, 128),
        "projector.linear.bias": (hidden_size,),
    }
    for layer in range(6):
        prefix = f"encoder.layers.{layer}."
        for module, (out, width) in {
            "self_attn.in_proj": (384, 128),
            "self_attn.out_proj": (128, 128),
            "linear1": (1024, 128),
            "linear2": (128, 1024),
        }.items():
            shapes |= {f"{prefix}{module}.weight": (out, width), f"{prefix}{module}.bias": (out,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{prefix}{norm}.weight": (128,), f"{prefix}{norm}.bias": (128,)}
    return shapes


def linear_shapes(kind: str) -> dict[str, tuple[int, int]]:
    """The base LLM's linear layers, `[out, in]`, in Hugging Face's names (which are mlx-lm's too)."""
    config = TEXT_CONFIGS[kind]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    layers = range(config["num_hidden_layers"])
    return {f"model.layers.{n}.{name}.weight": shape for n in layers for name, shape in shapes.items()}


def base_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """All tensors of the base LLM's safetensors (the embeddings are tied: there is no `lm_head`)."""
    config = TEXT_CONFIGS[kind]
    hidden, head = (config["hidden_size"],), (config["head_dim"],)
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if kind == "gemma":
        norms |= {"pre_feedforward_layernorm": hidden, "post_feedforward_layernorm": hidden}
        norms |= {"self_attn.q_norm": head, "self_attn.k_norm": head}
    layers = range(config["num_hidden_layers"])
    return {
        "model.embed_tokens.weight": (VOCAB, *hidden),
        "model.norm.weight": hidden,
        **linear_shapes(kind),
        **{f"model.layers.{n}.{name}.weight": shape for n in layers for name, shape in norms.items()},
    }


@cache
def encoder_weights(hidden_size: int, max_patches: int = 1024) -> Arrays:
    """Encoder and projector. Gains are such that every detail of the arithmetic shows in the logits."""
    return {name: _scaled(name, shape, 1.5) for name, shape in encoder_shapes(hidden_size, max_patches).items()}


@cache
def base_weights(kind: str) -> Arrays:
    """The base LLM, rounded to bfloat16 as it is published, held in float32."""
    return {
        name: bfloat16(_scaled(f"language_model.{name}", shape, 1.0, norm_centre=0.0 if kind == "gemma" else 1.0))
        for name, shape in base_shapes(kind).items()
    }


@cache
def lora_weights(kind: str, rank: int) -> Arrays:
    """Adapters in mlx-lm's names and layouts, without prefix: `….lora_a` `[in, r]`, `….lora_b` `[r, out]`."""
    weights = {}
    for name, (out, width) in linear_shapes(kind).items():
        stem = name.removesuffix(".weight")
        a, b = f"{stem}.lora_a", f"{stem}.lora_b"
        weights[a] = (noise(a, (width, rank)) / math.sqrt(width)).astype(np.float32)
        weights[b] = (noise(b, (rank, out)) * 0.15 / math.sqrt(rank)).astype(np.float32)
    return weights


def _scaled(name: str, shape: tuple[int, ...], gain: float, norm_centre: float = 1.0) -> NDArray[np.float32]:
    values = noise(name, shape)
    if "norm" in name and name.endswith("weight"):
        values = norm_centre + 0.3 * values
    elif name.endswith("bias"):
        values = 0.3 * values
    elif name.endswith(("pos_embed", "embed_tokens.weight")):
        values = 0.5 * values
    else:
        values = values * gain / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32)


def tokenizer(kind: str) -> Any:
    """The tiny tokenizer, loaded as mlx-lm loads a base LLM's.

    "llama" puts `<|begin_of_text|>` first and has no padding token; "gemma" puts `<bos>` first and pads left.
    """
    from mlx_lm.tokenizer_utils import load

    return load(GOLDEN / kind, eos_token_ids=[TEXT_CONFIGS[kind]["eos_token_id"]])


def tiny_model(
    kind: str = "llama",
    lora: int | None = None,
    *,
    fuse: bool = True,
    max_patches: int = 1024,
    pad_text_left: bool = False,
) -> SoftPromptModel:
    """A float32 model of the published architecture with a tiny base LLM.

    Args:
        kind: "llama" or "gemma".
        lora: rank of the adapters (4 or 16), or None.
        fuse: add the adapters to the base weights, or keep them as mlx-lm's `LoRALinear`.
        max_patches: rows of the positional table.
        pad_text_left: see `ModelConfig`.
    """
    import mlx.core as mx

    from mlx_tslm.models.config import EncoderConfig, LoraConfig, ModelConfig
    from mlx_tslm.models.soft_prompt import SoftPromptModel

    config = ModelConfig(
        text_config=TEXT_CONFIGS[kind],
        encoder_config=EncoderConfig(max_patches=max_patches),
        lora=LoraConfig(lora, LORA_ALPHA[lora], list(LORA_TARGETS), fused=fuse) if lora else None,
        pad_text_left=pad_text_left,
    )
    model = SoftPromptModel(config, tokenizer(kind))
    base = dict(base_weights(kind))
    adapters = lora_weights(kind, lora) if lora else {}
    if lora and fuse:
        for name in linear_shapes(kind):
            stem = name.removesuffix(".weight")
            delta = adapters[f"{stem}.lora_a"].astype(np.float64) @ adapters[f"{stem}.lora_b"]
            base[name] = (base[name] + LORA_ALPHA[lora] / lora * delta.T).astype(np.float32)
    elif lora:
        _add_adapters(model, lora)
        base = {name.replace("_proj.weight", "_proj.linear.weight"): value for name, value in base.items()}
        base |= adapters
    weights = encoder_weights(TEXT_CONFIGS[kind]["hidden_size"], max_patches)
    weights = weights | {f"language_model.{name}": value for name, value in base.items()}
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    model.eval()
    mx.eval(model.parameters())
    return model


def _add_adapters(model: SoftPromptModel, rank: int) -> None:
    from mlx.utils import tree_unflatten
    from mlx_lm.tuner.lora import LoRALinear

    modules = [
        (name, LoRALinear.from_base(module, r=rank, scale=LORA_ALPHA[rank] / rank))
        for name, module in model.language_model.named_modules()
        if name.endswith(LORA_TARGETS)
    ]
    model.language_model.update_modules(tree_unflatten(modules))


def write_base(kind: str, folder: Path) -> Path:
    """Write the base LLM as a Hugging Face folder (bfloat16 safetensors) and return it."""
    import mlx.core as mx

    folder.mkdir(parents=True, exist_ok=True)
    for file in (GOLDEN / kind).iterdir():
        shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(TEXT_CONFIGS[kind], indent=2) + "\n")
    weights = {name: mx.array(value).astype(mx.bfloat16) for name, value in base_weights(kind).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    return folder


def write_checkpoint(kind: str, path: Path, lora: int | None = None, max_patches: int = 1024) -> Path:
    """Write encoder, projector and adapters as OpenTSLM's `.pt` and return its path."""
    from mlx_tslm.conversion.pt.writer import save_opentslm

    weights = dict(encoder_weights(TEXT_CONFIGS[kind]["hidden_size"], max_patches))
    if not lora:
        save_opentslm(path, weights)
        return path
    weights |= {f"language_model.{name}": value for name, value in lora_weights(kind, lora).items()}
    save_opentslm(path, weights, alpha=LORA_ALPHA[lora], target_modules=LORA_TARGETS, base=f"tiny/{kind}")
    return path


def checkpoint(kind: str, lora: int | None = None, max_patches: int = 1024) -> dict[str, Any]:
    """What OpenTSLM saves for the same model, under its names and in torch's layouts, as NumPy arrays.

    Keys: `encoder_state`, `projector_state`, `lora_enabled`, and with `lora` also `lora_state`.
    """
    encoder: Arrays = {}
    projector: Arrays = {}
    for name, value in encoder_weights(TEXT_CONFIGS[kind]["hidden_size"], max_patches).items():
        module, _, rest = name.partition(".")
        if module == "projector":
            projector[rest.replace("norm.", "projector.0.").replace("linear.", "projector.1.")] = value
        elif rest == "patch_embed.weight":
            encoder[rest] = np.ascontiguousarray(value.transpose(0, 2, 1))
        else:
            rest = rest.replace("layers.", "encoder.layers.", 1).replace("in_proj.", "in_proj_")
            encoder[rest] = value
    state: dict[str, Any] = {
        "encoder_state": encoder,
        "projector_state": projector,
        "lora_enabled": lora is not None,
    }
    if lora:
        state["lora_state"] = {
            f"base_model.model.{stem}.lora_{side.upper()}.default.weight": np.ascontiguousarray(value.T)
            for name, value in lora_weights(kind, lora).items()
            for stem, _, side in [name.rpartition(".lora_")]
        }
    return state
