"""Samples to padded arrays for training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_tslm.prompt import Prompt

Encode = Callable[[str], list[int]]


class Batch(NamedTuple):
    """One batch; B samples, each with one series of the same number of patches.

    Attributes:
        series: float32 `[B, T]`, zero-padded to whole patches.
        tokens: int32 `[B, L]`, prompt and answer; 0 at patches and padding.
        patch_index: int32 `[B, L]`, which patch stands here, or -1.
        answer_index: int32 `[B, A]`, position before each answer token; 0 at padding.
        targets: int32 `[B, A]`, the answer: BOS, text, EOS.
        weights: float32 `[B, A]`, 0 at padding.
    """

    series: mx.array
    tokens: mx.array
    patch_index: mx.array
    answer_index: mx.array
    targets: mx.array
    weights: mx.array


def collate(
    samples: Sequence[tuple[Prompt, str]],
    encode: Encode,
    eos: int,
    patch_size: int = 4,
    weights: Sequence[float] | None = None,
    round_to: int = 16,
) -> Batch:
    """Tokenize and pad samples of one series each.

    Args:
        samples: prompts and their answers. All series must take the same number of patches, because the encoder
            attends over every patch it is given.
        encode: text to token ids, BOS first.
        eos: the token that ends an answer.
        weights: of each sample's tokens in the loss; 1 by default.
        round_to: lengths are rounded up to a multiple of it, so that few shapes occur.
    """
    patches = {-(-len(prompt.series[0].values) // patch_size) for prompt, _ in samples}
    if len(patches) != 1:
        raise ValueError(f"the series of a batch take different numbers of patches: {sorted(patches)}")
    count = patches.pop()
    series = np.zeros((len(samples), count * patch_size), np.float32)
    tokens, indices, starts, answers = [], [], [], []
    for row, (prompt, text) in zip(series, samples, strict=True):
        (one,) = prompt.series
        row[: len(one.values)] = one.values
        before = encode(prompt.pre) + encode(one.text)
        after = encode(prompt.post)
        answer = [*encode(text), eos]
        tokens.append(before + [0] * count + after + answer)
        indices.append([-1] * len(before) + list(range(count)) + [-1] * (len(after) + len(answer)))
        starts.append(len(before) + count + len(after) - 1)
        answers.append(answer)
    scale = np.ones(len(samples)) if weights is None else np.asarray(weights)
    span = [np.arange(len(answer)) for answer in answers]
    longest, most = max(map(len, tokens)), max(map(len, answers))
    length, width = -(-longest // round_to) * round_to, -(-most // round_to) * round_to
    return Batch(
        mx.array(series),
        _pad(tokens, length, 0),
        _pad(indices, length, -1),
        _pad([start + s for start, s in zip(starts, span, strict=True)], width, 0),
        _pad(answers, width, 0),
        mx.array(
            np.stack([w * (np.arange(width) < len(a)) for w, a in zip(scale, answers, strict=True)]), mx.float32
        ),
    )


def _pad(rows: Sequence[Sequence[int] | np.ndarray], length: int, fill: int) -> mx.array:
    padded = np.full((len(rows), length), fill, np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return mx.array(padded)
