"""What OpenTSLM's models have in common in MLX: a prompt is read once and answered many times."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache

from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.base import BaseModel, Decoder, Footprint, Rows
from mlx_tslm.models.branch import ON_CPU
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.models.encoder import TimeSeriesEncoder
from mlx_tslm.models.ops import PREFILL_STEP
from mlx_tslm.models.reuse import Fed, Kept
from mlx_tslm.models.samples import Batch, Part, Stack
from mlx_tslm.models.weights import check_finite
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


class CausalModel(nn.Module, BaseModel):
    """A model in MLX. What a subclass adds is how a prompt and its series become what the language model is fed.

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
        self._kept: Kept | None = None

    def keep(self) -> Kept:
        """From now on keep what was made of the last recording and prompt, for others that begin alike.

        What is kept is as large as one prompt's keys and values, and is read again only as far as it differs.
        """
        self._kept = self._kept or Kept()
        return self._kept

    @abstractmethod
    def embed_series(self, series: Sequence[Series]) -> mx.array:
        """What the language model gets of the series of one sample, padded as `pad_series` says.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """

    def encoded(self, series: Sequence[Series]) -> mx.array:
        """`embed_series`, or what is kept of it."""
        if self._kept is None:
            return self.embed_series(series)
        return self._kept.series(self.pad_series(series), lambda: self.embed_series(series))

    __repr__ = BaseModel.__repr__  # MLX's would list every layer

    def know_tokens(self) -> None:
        lm.know_tokens(self.language_model, self.token_ids)

    @abstractmethod
    def feed(self, prompt: Prompt) -> Fed:
        """Tokenize, encode and embed a prompt.

        For Gemma the text embeddings are scaled by √hidden, as Hugging Face's are.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """

    @abstractmethod
    def feed_batch(self, batch: Batch, checkpoint: bool = False) -> tuple[mx.array, lm.Before | None]:
        """What samples to train on are to the language model: `[B, L, H]`, and what stands before each layer.

        Args:
            batch: the samples.
            checkpoint: see `language_model.forward`.
        """

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """What of it can be trained; of two parts that fit a parameter, the first is meant."""

    @abstractmethod
    def stacks(self, batch: Batch) -> list[Stack]:
        """What a training step goes through beside the language model."""

    takes_adapters: bool
    """Whether OpenTSLM trains LoRA on the language model."""

    @property
    @abstractmethod
    def adapter(self) -> nn.Module:
        """The part between the encoder and the language model, whose weights tell one training from another."""

    def embed(self, prompt: Prompt) -> mx.array:
        """What the language model is fed: `[1, L, H]` in its dtype."""
        return self.feed(prompt).embeddings

    @property
    def dtype(self) -> mx.Dtype:
        """The language model's dtype."""
        return self.language_model.model.norm.weight.dtype

    def score(self, prompt: Prompt, token_ids: Sequence[int]) -> mx.array:
        self.check_tokens(token_ids)
        fed = self.feed(prompt)
        h = fed.embeddings
        if len(token_ids):
            forced = lm.embed_tokens(self.language_model, mx.array(list(token_ids), mx.int32))
            h = mx.concatenate([h, forced[None]], axis=1)
        states = self._run(h, [KVCache() for _ in self.language_model.layers], len(token_ids) + 1, fed)
        return lm.logits(self.language_model, states[0])

    def prefill(
        self, prompt: Prompt, room: int = 0, opening: Sequence[int] = (), bos: bool | None = None
    ) -> PromptCache:
        self.check_tokens(opening)
        fed = self.feed(prompt)
        self.check_room(fed.embeddings.shape[1], room, lm.max_positions(self.language_model))
        layers, done = len(self.language_model.layers), 0
        cache = [KVCache() for _ in range(layers)]
        if self._kept is not None:
            cache, done = self._kept.begin(fed, layers)
        state = self._run(fed.embeddings[:, done:], cache, 1, fed)[0]
        first = self.most_probable(lm.logits(self.language_model, state), lambda: self._where_astray(fed))
        if first == self.tokenizer.bos_token_id if bos is None else bos:
            opening = [self.tokenizer.bos_token_id, *opening]
        if opening:
            h = lm.embed_tokens(self.language_model, mx.array([list(opening)], mx.int32))
            state = self._run(h, cache, 1, fed)[0]
        read = PromptCache.from_layers(cache, state, fed.visible, fed.condition)
        if self._kept is not None:
            self._kept.read(fed, read)
        return read

    def read_on(self, read: PromptCache, tokens: Sequence[int]) -> tuple[mx.array, PromptCache]:
        if not len(tokens):
            return lm.logits(self.language_model, read.state), read
        self.check_tokens(tokens)
        cache, h = read.fork(), lm.embed_tokens(self.language_model, mx.array([list(tokens)], mx.int32))
        states = self._run(h, cache, len(tokens), Fed(h, read.visible, read.condition))[0]
        logits = lm.logits(self.language_model, mx.concatenate([read.state, states]))
        return logits, PromptCache.from_layers(cache, states[-1:], read.visible, read.condition)

    def decoder(self, read: PromptCache) -> Decoder:
        from mlx_tslm.models.pipelined import PipelinedDecoder
        from mlx_tslm.models.tree_decoder import TreeDecoder

        return (TreeDecoder if ON_CPU else PipelinedDecoder)(self.language_model, read)

    def rows(self) -> Rows:
        from mlx_tslm.models.row_decoder import Batch

        return Batch(self.language_model)

    def follow(self, read: PromptCache) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
        attend, before = lm.causal(self.language_model, read.fork(), read.visible), read.before

        def advance(token: mx.array) -> mx.array:  # nothing is evaluated here: steps are queued ahead
            h = lm.embed_tokens(self.language_model, token)[None]
            return lm.logits(self.language_model, lm.forward(self.language_model, h, attend, before=before)[0])

        return lm.logits(self.language_model, read.state), advance

    def footprint(self) -> Footprint:
        attentions = [layer.self_attn for layer in self.language_model.layers]
        args = self.language_model.args
        return Footprint(
            position=sum(2 * one.n_kv_heads * one.head_dim for one in attentions) * self.dtype.size,
            state=args.hidden_size * self.dtype.size,
            heads=max(one.n_heads for one in attentions),
            vocabulary=args.vocab_size,
        )

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (self.adapter, self.language_model.layers[-1].self_attn):
            for name, array in cast(list[tuple[str, mx.array]], tree_flatten(part.parameters())):
                digest.update(name.encode() + np.array(array.reshape(-1).view(mx.uint8)).tobytes())
        return digest.hexdigest()[:16]

    def _where_astray(self, fed: Fed) -> str:
        """Where a prompt's states are first NaN or infinite, in words."""
        found: list[int] = []

        def look(index: int, h: mx.array) -> mx.array:
            if not (found or mx.isfinite(h).all().item()):
                found.append(index)
            return h if fed.condition is None else fed.condition.over(0, h.shape[1])(index, h)

        part = fed.embeddings[:, :PREFILL_STEP]
        attend = lm.causal(self.language_model, [KVCache() for _ in self.language_model.layers], fed.visible)
        lm.forward(self.language_model, part, attend, before=look)
        if not found:
            return "after the prompt"
        return f"from layer {found[0] - 1} on" if found[0] else "from the prompt's embeddings on"

    def peak_memory(self) -> int:
        return mx.get_peak_memory()

    def damage(self) -> str | None:
        for name, array in cast(list[tuple[str, mx.array]], tree_flatten(self.parameters())):
            try:
                check_finite(name, array)
            except TSLMError as error:
                return str(error)
        return None

    def _run(self, h: mx.array, cache: list[KVCache], keep: int, fed: Fed) -> mx.array:
        """Final states of the last `keep` positions of `h` `[1, L, H]`, filling `cache`, a piece at a time."""
        states: list[mx.array] = []
        attend = lm.causal(self.language_model, cache, fed.visible)
        for start in range(0, h.shape[1], PREFILL_STEP):
            part = h[:, start : start + PREFILL_STEP]
            at = cache[0].offset
            before = None if fed.condition is None else fed.condition.over(at, at + part.shape[1])
            piece = lm.forward(self.language_model, part, attend, before=before)
            first = max(0, h.shape[1] - keep - start)
            if first < piece.shape[1]:
                states.append(piece[:, first:])
            mx.eval(piece, [(layer.keys, layer.values) for layer in cache])
        return mx.concatenate(states, axis=1)
