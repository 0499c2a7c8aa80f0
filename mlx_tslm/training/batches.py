"""Samples to padded arrays, and an epoch's samples to batches of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.samples import Batch
from mlx_tslm.stages.base import Prompt

_ROUND_TO = 32  # positions, so that few shapes are compiled
_ROUND_PATCHES = 8
_CHUNK = 32  # batches whose samples are sorted by length together
_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Example:
    """A sample as tokens.

    Args:
        where: the data it is from, "stage3 train 17".
        pieces: token ids of pre, each series' text, and post.
        series: float32 values, one array a series.
        answer: token ids of the answer, which are the labels, EOS last.
        patches: that each of its series takes.
    """

    where: str
    pieces: list[list[int]]
    series: list[NDArray[np.float32]]
    answer: list[int]
    patches: int

    @property
    def length(self) -> int:
        """Positions in all."""
        spliced = min(len(self.series), len(self.pieces) - 1)  # the others take no positions
        return sum(map(len, self.pieces)) + spliced * self.patches + len(self.answer)


def example(model: BaseModel, prompt: Prompt, answer: str, where: str = "") -> Example:
    """Tokenize a sample as the model does when it answers, and as OpenTSLM does when it trains."""
    size = model.config.encoder_config.patch_size
    series = [np.asarray(one.values, np.float32) for one in prompt.series]
    longest = max((len(values) for values in series), default=0)
    pieces, ids = model.lesson(prompt, answer)
    return Example(where, pieces, series, ids, -(-longest // size))


def in_batches(examples: Sequence[_Item], lengths: Sequence[Any], size: int) -> list[list[_Item]]:
    """Batches of like length. `lengths` are what the samples are sorted by."""
    order = sorted(range(len(examples)), key=lambda i: lengths[i])
    return [[examples[i] for i in order[at : at + size]] for at in range(0, len(order), size)]


def chunks(samples: Sequence[_Item], batch_size: int, rng: np.random.Generator) -> Iterator[list[_Item]]:
    """An epoch's samples in random order, in chunks of which each is sorted by length on its own."""
    order = rng.permutation(len(samples))
    size = _CHUNK * batch_size
    for at in range(0, len(order), size):
        yield [samples[i] for i in order[at : at + size]]


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Batches in an epoch."""
    size = _CHUNK * batch_size
    return samples // size * _CHUNK + -(-(samples % size) // batch_size)


def collate(examples: Sequence[Example], patch_size: int = 4) -> Batch:
    """Pad samples to one length; padding stands on the right, where a causal model never looks from a token."""
    series = [(values, one.patches) for one in examples for values in one.series]
    most = _up(max((count for _, count in series), default=1), _ROUND_PATCHES)
    padded = np.zeros((max(1, len(series)), most * patch_size), np.float32)
    counts = np.ones(len(padded), np.int32)
    for row, (values, count) in enumerate(series):
        padded[row, : len(values)] = values
        counts[row] = count
    tokens, indices, starts = [], [], []
    frames: list[range] = []
    first = seen = 0
    for one in examples:
        frames.append(range(seen, seen := seen + len(one.series)))
        ids: list[int] = []
        index: list[int] = []
        for number, piece in enumerate(one.pieces):
            ids += piece
            index += [-1] * len(piece)
            if 0 < number <= len(one.series):
                ids += [0] * one.patches
                index += range(first * most, first * most + one.patches)
                first += 1
        starts.append(len(ids) - 1)
        tokens.append(ids + one.answer)
        indices.append(index + [-1] * len(one.answer))
    answers = [one.answer for one in examples]
    length, width = _up(max(map(len, tokens)), _ROUND_TO), _up(max(map(len, answers)), _ROUND_TO // 2)
    return Batch(
        mx.array(padded),
        mx.array(counts),
        _pad(tokens, length, 0),
        _pad(indices, length, -1),
        _pad([range(s, s + len(a)) for s, a in zip(starts, answers, strict=True)], width, 0),
        _pad(answers, width, 0),
        _pad([[1] * len(a) for a in answers], width, 0).astype(mx.float32),
        _pad(frames, max(1, *map(len, frames)), -1),
    )


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _pad(rows: Sequence[Sequence[int]], length: int, fill: int) -> mx.array:
    padded = np.full((len(rows), length), fill, np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return mx.array(padded)
