"""The forward pass of training: batches, and activations that are quick on a CPU.

The modules and weights are those of `mlx_tslm.models`; the arithmetic is theirs up to `fast_math`.
"""

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.encoder import TimeSeriesEncoder
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.training import fast_math
from mlx_tslm.training.batches import Batch


def encode(encoder: TimeSeriesEncoder, series: mx.array) -> mx.array:
    """Encode float32 series `[B, T]` to `[B, T / patch_size, D]`."""
    x = encoder.patch_embed(series[..., None])
    x = encoder.input_norm(x + encoder.pos_embed[:, : x.shape[1]])
    for layer in encoder.layers:
        batch, length, width = x.shape
        heads = layer.self_attn.num_heads
        qkv = layer.self_attn.in_proj(x).reshape(batch, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        weights = fast_math.softmax((qkv[0] * qkv.shape[-1] ** -0.5) @ qkv[1].swapaxes(-1, -2))
        attended = (weights @ qkv[2]).transpose(0, 2, 1, 3).reshape(batch, length, width)
        x = layer.norm1(x + layer.self_attn.out_proj(attended))
        x = layer.norm2(x + layer.linear2(fast_math.gelu(layer.linear1(x))))
    return x


def answer_logits(model: SoftPromptModel, batch: Batch) -> mx.array:
    """Logits of each answer token from what stands before it: float32 `[B, A, V]`.

    Padding stands on the right, where causal attention never looks from a real token.
    """
    projector = model.projector
    patches = fast_math.gelu(projector.linear(projector.norm(encode(model.encoder, batch.series))))
    text = lm.embed_tokens(model.language_model, batch.tokens)
    placed = mx.take_along_axis(patches, mx.maximum(batch.patch_index, 0)[..., None], axis=1)
    h = mx.where((batch.patch_index >= 0)[..., None], placed, text)
    h = _llama(model.language_model, h)
    h = mx.take_along_axis(h, batch.answer_index[..., None], axis=1)
    return lm.logits(model.language_model, h)


def _llama(model: nn.Module, h: mx.array) -> mx.array:
    batch, length, _ = h.shape
    mask = mx.triu(mx.full((length, length), -1e9), k=1)
    for layer in model.layers:
        x, attention = layer.input_layernorm(h), layer.self_attn
        groups = attention.n_heads // attention.n_kv_heads
        q = attention.q_proj(x).reshape(batch, length, attention.n_heads, -1).transpose(0, 2, 1, 3)
        k = attention.k_proj(x).reshape(batch, length, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
        v = attention.v_proj(x).reshape(batch, length, attention.n_kv_heads, -1).transpose(0, 2, 1, 3)
        q = attention.rope(q) * attention.scale
        q = q.reshape(batch, attention.n_kv_heads, groups * length, -1)  # the queries of a group in one product
        scores = (q @ attention.rope(k).swapaxes(-1, -2)).reshape(batch, -1, groups, length, length)
        weights = fast_math.softmax(scores + mask).reshape(batch, -1, groups * length, length)
        x = (weights @ v).reshape(batch, attention.n_heads, length, -1).transpose(0, 2, 1, 3)
        h = h + attention.o_proj(x.reshape(batch, length, -1))
        x, mlp = layer.post_attention_layernorm(h), layer.mlp
        h = h + mlp.down_proj(fast_math.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    return model.model.norm(h)
