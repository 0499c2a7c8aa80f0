"""The perceiver resampler: patches of all series of a sample to a fixed number of latents."""

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models.config import CrossConfig
from mlx_tslm.models.ops import gelu, grouped_attention


class FeedForward(nn.Module):
    """LayerNorm, linear, exact (erf) GELU, linear; no biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.linear1 = nn.Linear(width, inner, bias=False)
        self.linear2 = nn.Linear(inner, width, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear2(gelu(self.linear1(self.norm(x))))


def split_heads(x: mx.array, heads: int) -> mx.array:
    """`[B, T, heads * D]` to `[B, heads, T, D]`."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


class PerceiverAttention(nn.Module):
    """Cross-attention from the latents to the patches and to the latents themselves."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_size**-0.5
        self.norm_media = nn.LayerNorm(width, eps=1e-5)
        self.norm_latents = nn.LayerNorm(width, eps=1e-5)
        self.to_q = nn.Linear(width, heads * head_size, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_size, bias=False)
        self.to_out = nn.Linear(heads * head_size, width, bias=False)

    def __call__(self, patches: mx.array, latents: mx.array, mask: mx.array | None) -> mx.array:
        latents = self.norm_latents(latents)
        keys, values = self.to_kv(mx.concatenate([self.norm_media(patches), latents], axis=1)).split(2, axis=-1)
        queries, keys, values = (split_heads(x, self.heads) for x in (self.to_q(latents), keys, values))
        return self.to_out(grouped_attention(queries, keys, values, self.scale, mask))


class PerceiverLayer(nn.Module):
    """Attention and feed-forward, each added to the latents."""

    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.attention = PerceiverAttention(width, config.num_attention_heads, config.head_size)
        self.feed_forward = FeedForward(width, config.perceiver_intermediate_size)

    def __call__(self, patches: mx.array, latents: mx.array, mask: mx.array | None) -> mx.array:
        latents = self.attention(patches, latents, mask) + latents
        return self.feed_forward(latents) + latents


class PerceiverResampler(nn.Module):
    """Learned latents that attend to the patches, layer after layer. Source: open-flamingo's `PerceiverResampler`.

    Args:
        width: of patches and latents.
        config: number of latents, layers and heads.
    """

    def __init__(self, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.latents = mx.random.normal((config.num_latents, width))
        self.layers = [PerceiverLayer(width, config) for _ in range(config.perceiver_layers)]
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def __call__(self, patches: mx.array, shown: mx.array | None = None, checkpoint: bool = False) -> mx.array:
        """Patches of B samples `[B, P, D]` to latents `[B, M, D]`, float32.

        Args:
            shown: bool `[B, P]`, the patches that a sample has, or None for all.
            checkpoint: see `language_model.forward`.
        """
        rows, (count, width) = patches.shape[0], self.latents.shape
        latents = mx.broadcast_to(self.latents[None], (rows, count, width))
        mask = None
        if shown is not None:
            mask = mx.concatenate([shown, mx.ones((rows, count), mx.bool_)], axis=1)[:, None, None]
        for layer in self.layers:
            step = nn.utils.checkpoint(layer) if checkpoint else layer
            latents = step(patches, latents, mask)
        return self.norm(latents)
