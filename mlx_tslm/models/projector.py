"""The projector of OpenTSLM: encoder width to the language model's."""

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models.ops import gelu


class MLPProjector(nn.Module):
    """LayerNorm, linear, exact (erf) GELU. Source: OpenTSLM's `MLPProjector`."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_size, eps=1e-5)
        self.linear = nn.Linear(input_size, output_size)

    def __call__(self, x: mx.array) -> mx.array:
        """Map float32 `[..., D]` to float32 `[..., H]`."""
        return gelu(self.linear(self.norm(x)))
