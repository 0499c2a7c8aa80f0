"""The Flamingo model in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache

from mlx_tslm.models.config import CrossConfig, FlamingoConfig
from mlx_tslm.models.flamingo_text import FlamingoText
from mlx_tslm.stages.base import Prompt
from mlx_tslm.torch_backend.decoding import Fed
from mlx_tslm.torch_backend.model import TorchModel


def _feed_forward(width: int, inner: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "norm": nn.LayerNorm(width, eps=1e-5),
            "linear1": nn.Linear(width, inner, bias=False),
            "linear2": nn.Linear(inner, width, bias=False),
        }
    )


def _fed_forward(part: nn.ModuleDict, x: Tensor) -> Tensor:
    return part["linear2"](F.gelu(part["linear1"](part["norm"](x))))


class _Attention(nn.Module):
    """Queries from `width`, keys and values from `seen`, without biases."""

    def __init__(self, width: int, seen: int, config: CrossConfig, norms: tuple[str, ...]) -> None:
        super().__init__()
        self.heads, inner = config.num_attention_heads, config.num_attention_heads * config.head_size
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(seen, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        for norm in norms:
            setattr(self, norm, nn.LayerNorm(width, eps=1e-5))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(self.split(queries), self.split(keys), self.split(values))
        return self.to_out(attended.transpose(1, 2).flatten(2))


class Perceiver(nn.Module):
    """See `models.perceiver.PerceiverResampler`."""

    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(config.num_latents, width))
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attention": _Attention(width, width, config, ("norm_media", "norm_latents")),
                    "feed_forward": _feed_forward(width, config.perceiver_intermediate_size),
                }
            )
            for _ in range(config.perceiver_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, patches: Tensor) -> Tensor:
        """Float32 `[1, P, D]` to float32 `[1, M, D]`."""
        latents = self.latents[None]
        for layer in self.layers:
            attention = layer["attention"]
            asking = attention.norm_latents(latents)
            keys, values = attention.to_kv(torch.cat([attention.norm_media(patches), asking], dim=1)).chunk(2, -1)
            latents = latents + attention.attend(attention.to_q(asking), keys, values)
            latents = latents + _fed_forward(layer["feed_forward"], latents)
        return self.norm(latents)


class GatedBlock(nn.Module):
    """See `models.gated_block.GatedBlock`."""

    def __init__(self, hidden: int, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.attention = _Attention(hidden, width, config, ("norm",))
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward = _feed_forward(hidden, config.intermediate_size or 4 * hidden)
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def view(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the latents, `[1, M, heads * D]`."""
        keys, values = self.attention.to_kv(latents.to(self.attention_gate.dtype)).chunk(2, -1)
        return keys, values

    def forward(self, h: Tensor, view: tuple[Tensor, Tensor], times: Tensor) -> Tensor:
        """`[1, T, H]` at times `[T]`: 0 sees nothing, 1 attends, and later ones see the values' mean."""
        attention = self.attention
        seen = attention.attend(attention.to_q(attention.norm(h)), *view)
        mean = attention.to_out(view[1].mean(dim=1, keepdim=True))
        seen = torch.where(times[:, None] == 1, seen, torch.where(times[:, None] == 0, 0, mean))
        h = h + self.attention_gate.tanh() * seen
        return h + self.feed_forward_gate.tanh() * _fed_forward(self.feed_forward, h)


@dataclass(frozen=True)
class Media:
    """What the blocks see of a prompt's series: a view for each, and int32 `[L]`, the times of its positions."""

    views: list[tuple[Tensor, Tensor]]
    times: NDArray[np.int32]


class TorchFlamingo(FlamingoText, TorchModel):
    """The Flamingo model in PyTorch: a block runs before each of transformers' layers, as a hook of that layer."""

    config: FlamingoConfig
    perceiver: Perceiver
    gated_blocks: nn.ModuleList

    def parts(self, hidden: int) -> dict[str, nn.Module]:
        width, sizes = self.config.encoder_config.hidden_size, self.config.cross_config
        layers = self.language_model.model.layers
        blocks = nn.ModuleList(GatedBlock(hidden, width, sizes) for _ in layers)
        self._told: tuple[Media, Tensor] | None = None
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(self._before(index), with_kwargs=True)
        return {"perceiver": Perceiver(width, sizes), "gated_blocks": blocks.to(self.language_model.dtype)}

    def _before(self, index: int) -> Callable[..., Any]:
        def hook(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            assert self._told is not None
            media, times = self._told
            h = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            h = self.gated_blocks[index](h, media.views[index], times)
            if "hidden_states" in kwargs:
                return args, kwargs | {"hidden_states": h}
            return (h, *args[1:]), kwargs

        return hook

    @property
    def adapter(self) -> nn.Module:
        return self.perceiver

    def embedding_scale(self, width: int) -> float:
        return width**0.5  # the original's LLM is float32

    @torch.inference_mode()
    def embed(self, prompt: Prompt) -> Fed:
        (ids,) = self.tokenize(prompt)
        if prompt.series:
            patches = self.encoder(torch.from_numpy(self.pad_series(prompt.series)).to(self.device))
            latents = self.perceiver(patches.flatten(0, 1)[None])
        else:
            latents = torch.zeros_like(self.perceiver.latents)[None]  # the text sees none of them
        times = np.cumsum(np.array(ids) == self.image_token_id, dtype=np.int32)
        media = Media([block.view(latents) for block in self.gated_blocks], times)
        return Fed(self.embed_tokens(ids)[None], None, media)

    def run(self, embeddings: Tensor, cache: DynamicCache | None, fed: Fed) -> Tensor:
        start = cache.get_seq_length() if cache is not None else 0
        at = np.minimum(np.arange(start, start + embeddings.shape[1]), len(fed.media.times) - 1)
        self._told = fed.media, torch.from_numpy(fed.media.times[at]).to(self.device)
        return super().run(embeddings, cache, fed)
