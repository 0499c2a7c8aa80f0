"""One answer to each of many different prompts, several at a time.

Each prompt is read on its own; then the rows share their forward passes, one token each. A row that finishes gives
its seat to the next prompt, so that the batch stays full until the prompts run out.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.models.attention import project
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.cache import Condition, PromptCache
from mlx_tslm.models.ops import grouped_attention
from mlx_tslm.sampling import Sampling
from mlx_tslm.stages.base import Prompt

_STEP = 128  # columns that the buffers of keys and values grow by


@dataclass(frozen=True)
class BatchResponse:
    """The answer to one of the prompts.

    Attributes:
        index: which prompt, counted from 0.
        completion: the answer; `answer` is what the model's stage parsed from it.
        prompt_tokens: positions of the prompt, series included.
        forward_passes: of the language model, the prompt's as one; a pass is shared by `width` rows, and counts
            1/`width` for each, also where fewer are under way: so it depends on the answer alone.
        seconds: reading the prompt, and its share of the passes that it went along in.
    """

    index: int
    completion: Completion
    prompt_tokens: int
    forward_passes: float
    seconds: float


def generate_batch(
    model: BaseModel,
    prompts: Iterable[Prompt],
    width: int = 8,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seeds: Iterable[int] | None = None,
    read: Callable[[Prompt], Any] | None = None,
) -> Iterator[BatchResponse]:
    """Answer each prompt as `generate` would alone, up to rounding, and yield the answers as they finish.

    Args:
        model: a loaded model.
        prompts: read one by one, when a seat is free.
        width: how many answers are under way at once.
        max_tokens, temperature, top_k, top_p: see `stream_generate`.
        seeds: of each prompt's sampling; 0 for all where None.
        read: reads a prompt, called in their order; `model.prefill` where None.

    Raises:
        TSLMError: an option is out of range, or a prompt does not fit the model.
    """
    for name, value in (("width", width), ("max_tokens", max_tokens)):
        if value < 1:
            raise TSLMError(f"{name} is {value}; it must be 1 or more")
    sampling = Sampling(temperature, top_k, top_p)
    eos = model.eos_token_ids
    batch = model.rows()
    read = read or partial(model.prefill, room=max_tokens)
    waiting = zip(count(), prompts, seeds if seeds is not None else _zeros())
    rows: list[_Row] = []
    free: list[int] = []  # seats of rows that have finished
    while True:
        while len(rows) - len(free) < width and (asked := next(waiting, None)) is not None:
            index, prompt, seed = asked
            started = time.perf_counter()
            known = read(prompt)
            uniforms = np.random.default_rng(seed).random(max_tokens, dtype=np.float32)
            row = _Row(index, prompt, known.length, uniforms, time.perf_counter() - started)
            seat = free.pop() if free else len(rows)
            rows[seat : seat + 1] = [row]
            batch.seat(seat, known)
        if free:  # no prompt is left for them
            kept = [seat for seat in range(len(rows)) if seat not in free]
            rows, free = [rows[seat] for seat in kept], []
            batch.keep(kept)
        if not rows:
            return

        started = time.perf_counter()
        uniforms = np.array([row.uniforms[len(row.tokens)] for row in rows])
        tokens, *terms = sampling.draw_with_entropy(batch.logits(), uniforms)
        mx.async_eval(tokens, *terms)
        goes_on = any(len(row.tokens) + 1 < max_tokens for row in rows)
        if goes_on:  # the next pass begins before these tokens are read: rows that end with them go along in vain
            batch.step(tokens)
        drawn = zip(
            rows, cast(list[int], tokens.tolist()), *(np.array(each, np.float64) for each in terms), strict=True
        )
        for seat, (row, token, logprob, entropy) in enumerate(drawn):
            if np.isnan(logprob):
                raise model.astray(f"after {len(row.tokens)} tokens of an answer")
            row.tokens.append(token)
            row.logprobs.append(logprob)
            row.entropies.append(entropy)
            if token in eos or len(row.tokens) == max_tokens:
                free.append(seat)
        for row in rows:
            row.seconds += (time.perf_counter() - started) / len(rows)
        for seat in free:
            yield rows[seat].response(model, eos, width)


def _zeros() -> Iterator[int]:
    while True:
        yield 0


@dataclass
class _Row:
    """An answer under way."""

    index: int
    prompt: Prompt
    prompt_tokens: int
    uniforms: NDArray[np.float32]
    seconds: float
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)

    def response(self, model: BaseModel, eos: frozenset[int], width: int) -> BatchResponse:
        text = model.tokenizer.decode(self.tokens, skip_special_tokens=True).strip()
        completion = Completion(
            text,
            tuple(self.tokens),
            float(sum(self.logprobs)),
            self.prompt.parse(text),
            self.tokens[-1] in eos,
            np.array(self.logprobs),
            np.array(self.entropies),
        )
        passes = 1 + (len(self.tokens) - 1) / width
        return BatchResponse(self.index, completion, self.prompt_tokens, passes, self.seconds)


class Batch:
    """Keys, values and last states of rows of different lengths, each beginning in column 0."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._windows = lm.windows(model)
        self._keys: list[mx.array] = []
        self._values: list[mx.array] = []
        self._states = mx.zeros((0, model.args.hidden_size))
        self._lengths = np.zeros(0, np.int32)
        self._hidden = np.zeros((0, 0), bool)  # columns of a prompt that may not be attended to
        self._conditions: list[Condition | None] = []
        self._before: lm.Before | None = None

    def logits(self) -> mx.array:
        """Float32 logits `[R, V]` of the next tokens."""
        return lm.logits(self._model, self._states)

    def seat(self, seat: int, read: PromptCache) -> None:
        """Put a prompt in a seat: a free one, or one more."""
        if not self._keys:
            self._keys = [mx.zeros((0, keys.shape[0], 0, keys.shape[2]), keys.dtype) for keys in read.keys]
            self._values = [mx.zeros((0, keys.shape[0], 0, keys.shape[2]), keys.dtype) for keys in read.values]
            self._states = self._states.astype(read.state.dtype)
        if seat == len(self._lengths):
            self._grow(rows=1)
        if read.length > self._columns:
            self._grow(columns=-(-(read.length - self._columns + 1) // _STEP) * _STEP)
        at = slice(0, read.length)
        for buffers, parts in ((self._keys, read.keys), (self._values, read.values)):
            for buffer, part in zip(buffers, parts, strict=True):
                buffer[seat, :, at] = part
        self._states[seat] = read.state[0]
        self._lengths[seat] = read.length
        self._hidden[seat] = False
        if read.visible is not None:
            self._hidden[seat, : len(read.visible)] = ~read.visible
        self._conditions[seat : seat + 1] = [read.condition]
        self._condition()
        mx.eval(self._keys, self._values, self._states)

    def keep(self, seats: list[int]) -> None:
        """Keep only these rows, and no more columns than they need."""
        index, self._lengths, self._hidden = mx.array(seats, mx.int32), self._lengths[seats], self._hidden[seats]
        columns = int(self._lengths.max(initial=0))
        self._keys = [keys[index, :, :columns] for keys in self._keys]
        self._values = [values[index, :, :columns] for values in self._values]
        self._hidden = self._hidden[:, :columns]
        self._states = self._states[index]
        self._conditions = [self._conditions[seat] for seat in seats]
        self._condition()

    def step(self, tokens: mx.array) -> None:
        """Append one token to every row: int32 `[R]`."""
        positions, rows = self._lengths, mx.arange(len(self._lengths))
        width = int(positions.max()) + 1
        if width > self._columns:
            self._grow(columns=_STEP)
        at = mx.array(positions)
        columns = np.arange(width)
        seen = (columns <= positions[:, None]) & ~self._hidden[:, :width]
        masks = {
            window: mx.array(seen if window is None else seen & (columns > positions[:, None] - window))[
                :, None, None
            ]
            for window in set(self._windows)
        }

        def attend(layer: int, attention: nn.Module, x: mx.array) -> mx.array:
            queries, keys, values = project(attention, x, at)
            self._keys[layer][rows, :, at] = keys[:, :, 0]
            self._values[layer][rows, :, at] = values[:, :, 0]
            seen_keys, seen_values = self._keys[layer][:, :, :width], self._values[layer][:, :, :width]
            mask = masks[self._windows[layer]]
            return attention.o_proj(grouped_attention(queries, seen_keys, seen_values, attention.scale, mask))

        h = lm.embed_tokens(self._model, tokens)[:, None]
        self._states = lm.forward(self._model, h, attend, before=self._before)[:, 0]
        self._lengths = positions + 1
        mx.async_eval(self._states, self._keys, self._values)

    def _condition(self) -> None:
        rows = [one for one in self._conditions if one is not None]
        self._before = rows[0].of_rows(rows) if rows else None

    @property
    def _columns(self) -> int:
        return self._hidden.shape[1]

    def _grow(self, rows: int = 0, columns: int = 0) -> None:
        def grow(array: mx.array) -> mx.array:
            return mx.pad(array, [(0, rows), (0, 0), (0, columns), (0, 0)])

        self._keys = [grow(keys) for keys in self._keys]
        self._values = [grow(values) for values in self._values]
        self._states = mx.pad(self._states, [(0, rows), (0, 0)])
        self._lengths = np.pad(self._lengths, (0, rows))
        self._hidden = np.pad(self._hidden, ((0, rows), (0, columns)))
