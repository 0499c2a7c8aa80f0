"""OpenTSLM's soft-prompt model: series become embeddings that stand between the embedded pieces of the prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.models.projector import MLPProjector
from mlx_tslm.models.reuse import Fed
from mlx_tslm.models.samples import Batch, Part, Stack
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


class SoftPromptModel(CausalModel):
    """Encoder, projector and language model; arguments as for `CausalModel`."""

    def __init__(self, config: ModelConfig, tokenizer: Any = None, stage: "Stage | None" = None) -> None:
        super().__init__(config, tokenizer, stage)
        self.projector = MLPProjector(config.encoder_config.hidden_size, self.language_model.args.hidden_size)

    def embed_series(self, series: Sequence[Series]) -> mx.array:
        """Encode and project the series of one sample, padded as `pad_series` says.

        Returns:
            `[N, patches, H]` in the language model's dtype.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """
        return self.projector(self.encoder(mx.array(self.pad_series(series)))).astype(self.dtype)

    def feed(self, prompt: Prompt) -> Fed:
        ids = self.tokenize(prompt)
        patches = list(self.encoded(prompt.series)) if prompt.series else []
        parts = []
        for index, piece in enumerate(ids):
            parts.append(lm.embed_tokens(self.language_model, mx.array(piece, mx.int32)))
            if 0 < index <= len(patches):
                parts.append(patches[index - 1])
        return Fed(mx.concatenate(parts)[None], self.visible(ids, patches))

    def feed_batch(self, batch: Batch, checkpoint: bool = False) -> tuple[mx.array, lm.Before | None]:
        encoded = self.encoder(batch.series, batch.patches, checkpoint)
        patches = self.projector(encoded).astype(self.dtype)
        patches = patches.reshape(-1, patches.shape[-1])
        h = lm.embed_tokens(self.language_model, batch.tokens)
        return mx.where(batch.patch_index[..., None] >= 0, patches[mx.maximum(batch.patch_index, 0)], h), None

    parts = (
        Part("encoder.", "lr_encoder"),
        Part("projector.", "lr_projector"),
        Part("language_model.", "lr_llm"),
        Part("language_model.", "lr_lora", keys=("lora_a", "lora_b")),
    )
    takes_adapters = True

    def stacks(self, batch: Batch) -> list[Stack]:
        sizes, series = self.config.encoder_config, batch.series.shape[0]
        patches = batch.series.shape[1] // sizes.patch_size
        scores = series * sizes.num_attention_heads * patches**2
        width, inner = sizes.hidden_size, sizes.intermediate_size
        return [Stack(sizes.num_hidden_layers, series * patches, width, inner, scores)]

    @property
    def adapter(self) -> nn.Module:
        return self.projector
