"""Gated cross-attention: how the text of a Flamingo model sees the latents.

A block stands before every decoder layer. What a position sees follows from its time, the number of `<image>`
tokens up to it: at time 0 nothing, at time 1 the latents by attention. All series of a sample are frames of one
medium, so from the second `<image>` on the original's mask hides every latent, and its softmax turns uniform: the
position sees the mean of the values. Trained weights expect that. The mean is computed once for all positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models.config import CrossConfig
from mlx_tslm.models.language_model import Before
from mlx_tslm.models.ops import grouped_attention
from mlx_tslm.models.perceiver import FeedForward, split_heads

Times = NDArray[np.int32] | mx.array
"""Of T positions: `[T]`, NumPy, never falling, where all rows agree; else an MLX array `[B, T]`."""


class View(NamedTuple):
    """What one block makes of the latents of B samples.

    Attributes:
        keys, values: `[B, heads, M, D]`.
        mean: what attention gives where it is uniform, `[B, 1, H]`.
    """

    keys: mx.array
    values: mx.array
    mean: mx.array


class CrossAttention(nn.Module):
    """Attention from text to latents. Source: open-flamingo's `MaskedCrossAttention`."""

    def __init__(self, hidden_size: int, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.heads, self.scale = config.num_attention_heads, config.head_size**-0.5
        inner = config.num_attention_heads * config.head_size
        self.norm = nn.LayerNorm(hidden_size, eps=1e-5)
        self.to_q = nn.Linear(hidden_size, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, hidden_size, bias=False)

    def view(self, latents: mx.array) -> View:
        """Keys, values and their mean, of latents `[B, M, D]`."""
        keys, values = self.to_kv(latents.astype(self.norm.weight.dtype)).split(2, axis=-1)
        mean = self.to_out(values.mean(axis=1, keepdims=True))
        return View(split_heads(keys, self.heads), split_heads(values, self.heads), mean)

    def __call__(self, x: mx.array, view: View, times: Times) -> mx.array:
        """What positions `[B, T, H]` see, `[B, T, H]`."""
        if isinstance(times, mx.array):
            seen = mx.where((times == 1)[..., None], self._attend(x, view), view.mean)
            return mx.where((times == 0)[..., None], 0, seen)
        first, second = np.searchsorted(times, [1, 2]).tolist()
        parts = []
        if first > 0:
            parts.append(mx.zeros_like(x[:, :first]))
        if second > first:
            parts.append(self._attend(x[:, first:second], view))
        if len(times) > second:
            parts.append(mx.broadcast_to(view.mean, (x.shape[0], len(times) - second, x.shape[2])))
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)

    def _attend(self, x: mx.array, view: View) -> mx.array:
        rows, steps, width = x.shape
        if len(view.keys) == 1:  # the same latents for all rows, and no order among positions: one matrix product
            x = x.reshape(1, rows * steps, width)
        queries = split_heads(self.to_q(self.norm(x)), self.heads)
        seen = self.to_out(grouped_attention(queries, view.keys, view.values, self.scale, None))
        return seen.reshape(rows, steps, width)


class GatedBlock(nn.Module):
    """Cross-attention and feed-forward, each added through a gate.

    Source: open-flamingo's `GatedCrossAttentionBlock`.

    Args:
        hidden_size: width of the text.
        width: of the latents.
        config: heads, and the width of the feed-forward.
    """

    def __init__(self, hidden_size: int, width: int, config: CrossConfig) -> None:
        super().__init__()
        self.attention = CrossAttention(hidden_size, width, config)
        self.attention_gate = mx.zeros(1)
        self.feed_forward = FeedForward(hidden_size, config.intermediate_size or 4 * hidden_size)
        self.feed_forward_gate = mx.zeros(1)

    def __call__(self, h: mx.array, view: View, times: Times) -> mx.array:
        """Text states `[B, T, H]` to the same, of B rows that share one view or have one each."""
        h = h + mx.tanh(self.attention_gate) * self.attention(h, view, times)
        return h + mx.tanh(self.feed_forward_gate) * self.feed_forward(h)


@dataclass(frozen=True)
class Media:
    """What the blocks see of one prompt's series: computed once, for the prompt and every answer to it.

    Attributes:
        blocks: one a layer, with their `views`.
        times: int32 `[L]` of the prompt's positions; what is behind the prompt has the last one's.
    """

    blocks: Sequence[GatedBlock]
    views: Sequence[View]
    times: NDArray[np.int32]

    def over(self, start: int, stop: int) -> Before:
        """What stands before each layer for the positions from `start` to `stop`, of any number of rows."""
        times = self.times[np.minimum(np.arange(start, stop), len(self.times) - 1)]
        return lambda layer, h: self.blocks[layer](h, self.views[layer], times)

    @classmethod
    def of_rows(cls, rows: Sequence[Self]) -> Before:
        """What stands before each layer for one token behind each of several prompts."""
        last = np.array([one.times[-1] for one in rows], np.int32)
        times: Times = last[:1] if (last == last[0]).all() else mx.array(last)[:, None]
        views = [
            View(*(mx.concatenate(list(parts)) for parts in zip(*views, strict=True)))
            for views in zip(*(one.views for one in rows), strict=True)
        ]
        mx.eval(views)
        return lambda layer, h: rows[0].blocks[layer](h, views[layer], times)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for view in self.views for array in view)
