"""Encoder, projector and language model in PyTorch; parameters have the names of a converted folder."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import DTYPES, EncoderConfig, ModelConfig


class EncoderLayer(nn.Module):
    """A post-norm transformer layer; its parameters have the names of a converted folder."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.self_attn = nn.ModuleDict(
            {"in_proj": nn.Linear(width, 3 * width), "out_proj": nn.Linear(width, width)}
        )
        self.linear1, self.linear2 = (
            nn.Linear(width, config.intermediate_size),
            nn.Linear(config.intermediate_size, width),
        )
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        projected = self.self_attn["in_proj"](x).view(rows, length, 3, self.heads, -1)
        attended = F.scaled_dot_product_attention(*projected.permute(2, 0, 3, 1, 4))
        x = self.norm1(x + self.self_attn["out_proj"](attended.transpose(1, 2).reshape(rows, length, width)))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class Encoder(nn.Module):
    """See `models.encoder.TimeSeriesEncoder`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.patch_embed = nn.Conv1d(1, width, patch, stride=patch, bias=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.max_patches, width))
        self.input_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, series: Tensor) -> Tensor:
        """Float32 `[N, T]` to float32 `[N, T / patch_size, D]`."""
        x = self.patch_embed(series[:, None]).transpose(1, 2)
        x = self.input_norm(x + self.pos_embed[:, : x.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return x


class Projector(nn.Module):
    """See `models.projector.MLPProjector`."""

    def __init__(self, width: int, output: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width, eps=1e-5), nn.Linear(width, output)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.linear(self.norm(x)))


class LoRALinear(nn.Module):
    """A linear layer with its adapter beside it: `a` `[in, r]`, `b` `[r, out]`, in their own dtype."""

    def __init__(self, linear: nn.Linear, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + (self.scale * (x.to(self.a.dtype) @ self.a @ self.b)).to(x.dtype)


def build_language_model(config: ModelConfig, weights: Mapping[str, Tensor], dtype: str | None) -> Any:
    """transformers' model with these weights and adapters."""
    kinds: dict[str, tuple[Any, Any]] = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "gemma3_text": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    }
    kind = config.text_config.get("model_type", "")
    if kind not in kinds:
        raise TSLMError(f"the PyTorch backend knows no base LLM of type {kind!r}")
    adapters = {name: tensor for name, tensor in weights.items() if name.endswith((".lora_a", ".lora_b"))}
    base = {name.replace(".linear.weight", ".weight"): weights[name] for name in weights.keys() - adapters.keys()}
    text_config = kinds[kind][0].from_dict(config.text_config)
    text_config.tie_word_embeddings = "lm_head.weight" not in base
    if dtype not in (None, *DTYPES):
        raise TSLMError(f"unknown dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    wanted = getattr(torch, dtype) if dtype else base.get("model.norm.weight", torch.empty(0)).dtype
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model, told = kinds[kind][1].from_pretrained(
        None,
        config=text_config,
        state_dict=base,
        dtype=wanted,
        output_loading_info=True,
        trust_remote_code=False,
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[problem]:
            raise misfit(f"{problem.replace('_', ' ')}: {sorted(map(str, told[problem]))[0]}")
    for name in sorted(name.removesuffix(".lora_a") for name in adapters if name.endswith(".lora_a")):
        assert config.lora is not None
        parent, _, child = name.rpartition(".")
        a, b = adapters[f"{name}.lora_a"], adapters[f"{name}.lora_b"]
        adapted = LoRALinear(model.get_submodule(name), a, b, config.lora.scale)
        setattr(model.get_submodule(parent), child, adapted)
    return model


def misfit(what: str) -> TSLMError:
    return TSLMError(f"the weights do not fit config.json ({what}); convert the checkpoint again")
