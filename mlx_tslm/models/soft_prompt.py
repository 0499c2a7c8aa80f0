"""OpenTSLM's soft-prompt model: series become embeddings that stand between the embedded pieces of the prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache
from numpy.typing import NDArray

from mlx_tslm.errors import TooLong, TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.models.encoder import TimeSeriesEncoder
from mlx_tslm.models.projector import MLPProjector
from mlx_tslm.prompt import Prompt, Series

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage

PREFILL_STEP = 1024
"""Positions of the prompt that go through the model at once, which bounds the memory of attention scores."""


class SoftPromptModel(nn.Module):
    """Encoder, projector and language model, with the tokenizer and the stage they were trained for.

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

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The tokens that end an answer.

        Raises:
            TSLMError: the tokenizer names none.
        """
        ids = getattr(self.tokenizer, "eos_token_ids", None) or {self.tokenizer.eos_token_id}
        if None in ids:
            raise TSLMError(
                "the model's tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json"
            )
        return frozenset(ids)

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of pre, each series' text, and post: each piece on its own, each with its own BOS."""
        pieces = [prompt.pre, *(series.text for series in prompt.series), prompt.post]
        ids = [list(self.tokenizer.encode(piece)) for piece in pieces]
        if self.config.pad_text_left:
            longest = max(map(len, ids))
            ids = [([self.tokenizer.pad_token_id] * (longest - len(piece)) + piece)[: len(piece)] for piece in ids]
        return ids

    def embed_series(self, series: Sequence[Series]) -> mx.array:
        """Encode and project the series of one sample.

        Shorter series are padded with zeros on the right to the longest, rounded up to whole patches.

        Returns:
            `[N, patches, H]` in the language model's dtype.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """
        sizes = self.config.encoder_config
        longest = max(len(one.values) for one in series)
        if longest > sizes.max_samples:
            raise TooLong(
                f"a series of {longest} samples is longer than the {sizes.max_samples} this model can read",
                "resample it (--rate) or cut a window (--start, --seconds)",
            )
        padded = np.zeros((len(series), -(-longest // sizes.patch_size) * sizes.patch_size), np.float32)
        for row, one in zip(padded, series, strict=True):
            row[: len(one.values)] = one.values
        return self.projector(self.encoder(mx.array(padded))).astype(self.dtype)

    def embed(self, prompt: Prompt) -> mx.array:
        """What the language model is fed: `[1, L, H]` in its dtype.

        For Gemma the text embeddings are scaled by √hidden, as Hugging Face's are; the series' never are.
        """
        return self._splice(prompt)[0]

    def _splice(self, prompt: Prompt) -> tuple[mx.array, NDArray[np.bool_] | None]:
        """The embeddings `[1, L, H]` and which positions may be attended to: bool `[L]`, or None for all."""
        ids = self.tokenize(prompt)
        patches = list(self.embed_series(prompt.series)) if prompt.series else []
        pad = self.tokenizer.pad_token_id if self.config.pad_text_left else -1
        parts, shown = [], []
        for index, piece in enumerate(ids):
            parts.append(lm.embed_tokens(self.language_model, mx.array(piece, mx.int32)))
            shown.append(np.array(piece) != pad)
            if 0 < index <= len(patches):
                parts.append(patches[index - 1])
                shown.append(np.ones(len(patches[index - 1]), bool))
        return mx.concatenate(parts)[None], np.concatenate(shown) if self.config.pad_text_left else None

    @property
    def dtype(self) -> mx.Dtype:
        """The language model's dtype."""
        return self.language_model.model.norm.weight.dtype

    def score(self, prompt: Prompt, token_ids: Sequence[int]) -> mx.array:
        """Logits after the prompt and after each forced token: float32 `[len(token_ids) + 1, V]`."""
        h, visible = self._splice(prompt)
        if len(token_ids):
            forced = lm.embed_tokens(self.language_model, mx.array(list(token_ids), mx.int32))
            h = mx.concatenate([h, forced[None]], axis=1)
        states = self._run(h, [KVCache() for _ in self.language_model.layers], len(token_ids) + 1, visible)
        return lm.logits(self.language_model, states[0])

    def prefill(self, prompt: Prompt, room: int = 0, opening: Sequence[int] = ()) -> PromptCache:
        """Run the prompt once and keep its keys and values.

        Trained models open their answers with BOS. Where BOS is the most probable next token it is taken into the
        prompt, so that what follows is the answer itself.

        Args:
            prompt: what to read.
            room: how many tokens are to follow, `opening` included.
            opening: the answer's first tokens, where they are given; they are read with the prompt.

        Raises:
            TSLMError: the prompt and the room are longer than the model's context.
        """
        h, visible = self._splice(prompt)
        limit = lm.max_positions(self.language_model)
        if limit is not None and h.shape[1] + room > limit:
            raise TooLong(
                f"the prompt takes {h.shape[1]} positions and the answer up to {room}, but the model's context has "
                f"{limit}",
                "shorten the series (--rate, --seconds) or lower --max-tokens",
            )
        cache = [KVCache() for _ in self.language_model.layers]
        state = self._run(h, cache, 1, visible)[0]
        bos = self.tokenizer.bos_token_id
        if bos is not None and mx.argmax(lm.logits(self.language_model, state)).item() == bos:
            opening = [bos, *opening]
        if opening:
            h = lm.embed_tokens(self.language_model, mx.array([list(opening)], mx.int32))
            state = self._run(h, cache, 1, visible)[0]
        return PromptCache.from_layers(cache, state, visible)

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
