"""OpenTSLM's Flamingo model: the text attends to the series, which take no positions of their own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import FlamingoConfig
from mlx_tslm.models.flamingo_text import FlamingoText
from mlx_tslm.models.gated_block import GatedBlock, Media
from mlx_tslm.models.perceiver import PerceiverResampler
from mlx_tslm.models.reuse import Fed
from mlx_tslm.models.samples import Batch, Part, Stack
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


class FlamingoModel(FlamingoText, CausalModel):
    """Encoder, perceiver, and a language model with a gated block before each layer.

    The encoder has no transformer layers (`num_hidden_layers` is 0): it is OpenTSLM's `CNNTokenizer`. Arguments as
    for `CausalModel`.
    """

    def __init__(self, config: FlamingoConfig, tokenizer: Any = None, stage: "Stage | None" = None) -> None:
        super().__init__(config, tokenizer, stage)
        self.config: FlamingoConfig = config
        width, sizes = config.encoder_config.hidden_size, config.cross_config
        self.language_model.exact_scale = True  # the original's LLM is float32
        self.perceiver = PerceiverResampler(width, sizes)
        hidden = self.language_model.args.hidden_size
        self.gated_blocks = [GatedBlock(hidden, width, sizes) for _ in self.language_model.layers]

    def embed_series(self, series: Sequence[Series]) -> mx.array:
        """The latents of one sample: its series, padded as `pad_series` says, are frames of one medium.

        Returns:
            float32 `[1, M, D]`.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """
        patches = self.encoder(mx.array(self.pad_series(series)))
        return self.perceiver(patches.reshape(1, -1, patches.shape[-1]))

    def feed(self, prompt: Prompt) -> Fed:
        (ids,) = self.tokenize(prompt)
        tokens = np.array(ids, np.int32)
        embeddings = lm.embed_tokens(self.language_model, mx.array(tokens))[None]
        series = self.encoded(prompt.series) if prompt.series else None
        latents = mx.zeros((1, *self.perceiver.latents.shape)) if series is None else series  # none of them is seen
        views = [block.attention.view(latents) for block in self.gated_blocks]
        mx.eval(views)
        times = np.cumsum(tokens == self.image_token_id, dtype=np.int32)
        return Fed(embeddings, None, Media(self.gated_blocks, views, times), series)

    def feed_batch(self, batch: Batch, checkpoint: bool = False) -> tuple[mx.array, lm.Before | None]:
        encoded = self.encoder(batch.series)
        count, (rows, frames) = encoded.shape[1], batch.frames.shape
        index = mx.maximum(batch.frames, 0)
        shown = (batch.frames >= 0)[..., None] & (mx.arange(count) < batch.patches[index][..., None])
        patches = encoded[index].reshape(rows, frames * count, -1)
        latents = self.perceiver(patches, shown.reshape(rows, -1), checkpoint)
        times = mx.cumsum(batch.tokens == self.image_token_id, axis=1)

        def before(layer: int, h: mx.array) -> mx.array:
            block = self.gated_blocks[layer]

            def step(h: mx.array, latents: mx.array) -> mx.array:
                return block(h, block.attention.view(latents), times)

            return (nn.utils.checkpoint(block, step) if checkpoint else step)(h, latents)

        return lm.embed_tokens(self.language_model, batch.tokens), before

    parts = (  # what the original unfreezes
        Part("encoder.", "lr_encoder", decays=False),
        Part("perceiver.", "lr_cross", decays=False),
        Part("gated_blocks.", "lr_cross"),
        Part("language_model.model.embed_tokens.", "lr_cross", decays=False),
        Part("language_model.", "lr_llm"),
    )
    takes_adapters = False

    def stacks(self, batch: Batch) -> list[Stack]:
        sizes, width = self.config.cross_config, self.config.encoder_config.hidden_size
        (rows, length), hidden = batch.tokens.shape, self.language_model.args.hidden_size
        patches = batch.frames.size * batch.series.shape[1] // self.config.encoder_config.patch_size
        latents, heads = rows * sizes.num_latents, sizes.num_attention_heads
        perceiver = (width, sizes.perceiver_intermediate_size, heads * sizes.num_latents * (patches + latents))
        gated = (hidden, sizes.intermediate_size or 4 * hidden, heads * rows * length * sizes.num_latents)
        return [
            Stack(sizes.perceiver_layers, patches + latents, *perceiver),
            Stack(len(self.gated_blocks), rows * length, *gated),
        ]

    @property
    def adapter(self) -> nn.Module:
        return self.perceiver
