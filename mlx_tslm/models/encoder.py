"""The time-series encoder of OpenTSLM: patches of a series to embeddings."""

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models.config import EncoderConfig
from mlx_tslm.models.ops import gelu, grouped_attention


class SelfAttention(nn.Module):
    """Bidirectional multi-head self-attention with one input projection for q, k and v (as torch stores it)."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(hidden_size, 3 * hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        batch, length, _ = x.shape
        qkv = self.in_proj(x).reshape(batch, length, 3, self.num_heads, -1).transpose(2, 0, 3, 1, 4)
        return self.out_proj(grouped_attention(qkv[0], qkv[1], qkv[2], qkv.shape[-1] ** -0.5, mask))


class EncoderLayer(nn.Module):
    """A post-norm transformer layer with an exact (erf) GELU."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = SelfAttention(width, config.num_attention_heads)
        self.linear1 = nn.Linear(width, config.intermediate_size)
        self.linear2 = nn.Linear(config.intermediate_size, width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        x = self.norm1(x + self.self_attn(x, mask))
        return self.norm2(x + self.linear2(gelu(self.linear1(x))))


class TimeSeriesEncoder(nn.Module):
    """Convolutional patch embedding, learned positions, layer norm, then post-norm transformer layers.

    Source: OpenTSLM's `TransformerCNNEncoder`. Patches made of padding zeros are not masked: the language model
    was trained to see them.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.patch_embed = nn.Conv1d(1, config.hidden_size, config.patch_size, stride=config.patch_size, bias=False)
        self.pos_embed = mx.zeros((1, config.max_patches, config.hidden_size))
        self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = [EncoderLayer(config) for _ in range(config.num_hidden_layers)]

    def __call__(self, series: mx.array, patches: mx.array | None = None, checkpoint: bool = False) -> mx.array:
        """Encode float32 series `[N, T]`, T a multiple of the patch size, to float32 `[N, T / patch_size, D]`.

        Args:
            patches: int32 `[N]`, how many patches each series has, where they have different numbers; the others
                are not attended to.
            checkpoint: see `language_model.forward`.
        """
        x = self.patch_embed(series[..., None])
        x = self.input_norm(x + self.pos_embed[:, : x.shape[1]])
        mask = None if patches is None else (mx.arange(x.shape[1]) < patches[:, None])[:, None, None]
        for layer in self.layers:
            x = nn.utils.checkpoint(layer)(x, mask) if checkpoint else layer(x, mask)
        return x
