"""OpenTSLM's soft-prompt model: series become embeddings that stand between the embedded pieces of the prompt."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache
from numpy.typing import NDArray

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.base import BaseModel, Decoder, Rows
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.models.encoder import TimeSeriesEncoder
from mlx_tslm.models.projector import MLPProjector
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage

PREFILL_STEP = 1024
"""Positions of the prompt that go through the model at once, which bounds the memory of attention scores."""


class SoftPromptModel(nn.Module, BaseModel):
    """The model in MLX.

    Args:
        config: sizes and provenance.
        tokenizer: a Hugging Face tokenizer that puts its BOS before what it encodes, as the base LLM's does.
        stage: the wording this checkpoint was trained on, or None.
    """

    def __init__(self, config: ModelConfig, tokenizer: Any = None, stage: "Stage | None" = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.stage = stage
        self.language_model = lm.build(config.text_config)
        self.encoder = TimeSeriesEncoder(config.encoder_config)
        self.projector = MLPProjector(config.encoder_config.hidden_size, self.language_model.args.hidden_size)

    def know_tokens(self) -> None:
        lm.know_tokens(self.language_model, self.token_ids)

    def embed_series(self, series: Sequence[Series]) -> mx.array:
        """Encode and project the series of one sample, padded as `pad_series` says.

        Returns:
            `[N, patches, H]` in the language model's dtype.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """
        return self.projector(self.encoder(mx.array(self.pad_series(series)))).astype(self.dtype)

    def embed(self, prompt: Prompt) -> mx.array:
        """What the language model is fed: `[1, L, H]` in its dtype.

        For Gemma the text embeddings are scaled by √hidden, as Hugging Face's are; the series' never are.
        """
        return self._splice(prompt)[0]

    def _splice(self, prompt: Prompt) -> tuple[mx.array, NDArray[np.bool_] | None]:
        """The embeddings `[1, L, H]` and which positions may be attended to: bool `[L]`, or None for all."""
        ids = self.tokenize(prompt)
        patches = list(self.embed_series(prompt.series)) if prompt.series else []
        parts = []
        for index, piece in enumerate(ids):
            parts.append(lm.embed_tokens(self.language_model, mx.array(piece, mx.int32)))
            if 0 < index <= len(patches):
                parts.append(patches[index - 1])
        return mx.concatenate(parts)[None], self.visible(ids, patches)

    @property
    def dtype(self) -> mx.Dtype:
        """The language model's dtype."""
        return self.language_model.model.norm.weight.dtype

    def score(self, prompt: Prompt, token_ids: Sequence[int]) -> mx.array:
        self.check_tokens(token_ids)
        h, visible = self._splice(prompt)
        if len(token_ids):
            forced = lm.embed_tokens(self.language_model, mx.array(list(token_ids), mx.int32))
            h = mx.concatenate([h, forced[None]], axis=1)
        states = self._run(h, [KVCache() for _ in self.language_model.layers], len(token_ids) + 1, visible)
        return lm.logits(self.language_model, states[0])

    def prefill(self, prompt: Prompt, room: int = 0, opening: Sequence[int] = ()) -> PromptCache:
        self.check_tokens(opening)
        h, visible = self._splice(prompt)
        self.check_room(h.shape[1], room, lm.max_positions(self.language_model))
        cache = [KVCache() for _ in self.language_model.layers]
        state = self._run(h, cache, 1, visible)[0]
        first = self.most_probable(lm.logits(self.language_model, state))
        if first == self.tokenizer.bos_token_id:
            opening = [first, *opening]
        if opening:
            h = lm.embed_tokens(self.language_model, mx.array([list(opening)], mx.int32))
            state = self._run(h, cache, 1, visible)[0]
        return PromptCache.from_layers(cache, state, visible)

    def decoder(self, read: PromptCache) -> Decoder:
        from mlx_tslm.models.tree_decoder import TreeDecoder

        return TreeDecoder(self.language_model, read)

    def rows(self) -> Rows:
        from mlx_tslm.models.row_decoder import Batch

        return Batch(self.language_model)

    def follow(self, read: PromptCache) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
        attend = lm.causal(self.language_model, read.fork(), read.visible)

        def advance(token: mx.array) -> mx.array:  # nothing is evaluated here: steps are queued ahead
            h = lm.embed_tokens(self.language_model, token)[None]
            return lm.logits(self.language_model, lm.forward(self.language_model, h, attend)[0])

        return lm.logits(self.language_model, read.state), advance

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (self.projector, self.language_model.layers[-1].self_attn):
            for name, array in cast(list[tuple[str, mx.array]], tree_flatten(part.parameters())):
                digest.update(name.encode() + np.array(array.reshape(-1).view(mx.uint8)).tobytes())
        return digest.hexdigest()[:16]

    def peak_memory(self) -> int:
        return mx.get_peak_memory()

    def _run(self, h: mx.array, cache: list[KVCache], keep: int, visible: NDArray[np.bool_] | None) -> mx.array:
        """Final states of the last `keep` positions of `h` `[1, L, H]`, filling `cache`, a piece at a time."""
        states: list[mx.array] = []
        attend = lm.causal(self.language_model, cache, visible)
        for start in range(0, h.shape[1], PREFILL_STEP):
            piece = lm.forward(self.language_model, h[:, start : start + PREFILL_STEP], attend)
            first = max(0, h.shape[1] - keep - start)
            if first < piece.shape[1]:
                states.append(piece[:, first:])
            mx.eval(piece, [(layer.keys, layer.values) for layer in cache])
        return mx.concatenate(states, axis=1)
