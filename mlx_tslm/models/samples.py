"""Samples to train on, as arrays."""

from typing import NamedTuple

import mlx.core as mx


class Batch(NamedTuple):
    """B samples with N series in all.

    Attributes:
        series: float32 `[N, T]`, zero-padded to whole patches.
        patches: int32 `[N]`, how many patches each series has: as many as its sample's longest.
        tokens: int32 `[B, L]`, prompt and answer; 0 at patches and padding.
        patch_index: int32 `[B, L]`, which of the N * T / patch_size patches stands here, or -1.
        answer_index: int32 `[B, A]`, the position before each answer token; 0 at padding.
        targets: int32 `[B, A]`, the answer's labels.
        weights: float32 `[B, A]`, 1, and 0 at padding.
        frames: int32 `[B, F]`, which of the N series are a sample's, or -1.
    """

    series: mx.array
    patches: mx.array
    tokens: mx.array
    patch_index: mx.array
    answer_index: mx.array
    targets: mx.array
    weights: mx.array
    frames: mx.array


class Part(NamedTuple):
    """A part of a model that is trained as one.

    Attributes:
        prefix: that the names of its parameters begin with.
        rate: the stage's setting that is its learning rate.
        decays: whether it has weight decay.
        keys: the last parts of its parameters' names; all where empty.
    """

    prefix: str
    rate: str
    decays: bool = True
    keys: tuple[str, ...] = ()


class Stack(NamedTuple):
    """Layers alike that a training step goes through: how many, over so many positions, of which widths, with how
    many attention scores each."""

    layers: int
    positions: int
    width: int
    inner: int
    scores: int
