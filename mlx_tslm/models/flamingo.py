"""OpenTSLM's Flamingo model: the text attends to the series, which take no positions of their own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.causal import CausalModel, Fed
from mlx_tslm.models.config import FlamingoConfig
from mlx_tslm.models.flamingo_text import FlamingoText
from mlx_tslm.models.gated_block import GatedBlock, Media
from mlx_tslm.models.perceiver import PerceiverResampler
from mlx_tslm.prompt import Prompt, Series

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


class FlamingoModel(FlamingoText, CausalModel):
    """Encoder, perceiver, and a language model with a gated block before each layer.

    The encoder has no transformer layers (`num_hidden_layers` is 0): it is OpenTSLM's `CNNTokenizer`. Arguments as
    for `CausalModel`.
    """

    def __init__(self, config: FlamingoConfig, tokenizer: Any = None, stage: "Stage | None" = None) -> None:
        super().__init__(config, tokenizer, stage)
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
        if not prompt.series:
            latents = mx.zeros((1, *self.perceiver.latents.shape))  # the text sees none of them
        else:
            latents = self.embed_series(prompt.series)
        views = [block.attention.view(latents) for block in self.gated_blocks]
        mx.eval(views)
        times = np.cumsum(tokens == self.image_token_id, dtype=np.int32)
        return Fed(embeddings, condition=Media(self.gated_blocks, views, times))

    @property
    def adapter(self) -> nn.Module:
        return self.perceiver
