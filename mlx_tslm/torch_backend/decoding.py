"""Decoding in PyTorch: one path at a time, with a cache of its own or with none."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache

ROOT = 0
"""The node that stands for the prompt."""


@dataclass(frozen=True)
class Fed:
    """What a prompt is to the language model.

    Attributes:
        embeddings: `[1, L, H]` in its dtype.
        visible: bool `[L]`, the positions that may be attended to, or None for all.
        media: what a Flamingo model's text sees, or None.
    """

    embeddings: Tensor
    visible: NDArray[np.bool_] | None = None
    media: Any = None


class Computes(Protocol):
    """What decoding asks of a model: see `model.TorchModel`."""

    def embed_tokens(self, token_ids: Sequence[int]) -> Tensor: ...

    def run(self, embeddings: Tensor, cache: DynamicCache | None, fed: Fed) -> Tensor: ...

    def logits(self, states: Tensor) -> mx.array: ...


@dataclass(frozen=True)
class TorchPrompt:
    """A prompt that has been read.

    Attributes:
        fed: what the language model was fed.
        state: final state after the last position, `[1, H]`.
        cache: keys and values, or None where every token reads the prompt again.
    """

    fed: Fed
    state: Tensor
    cache: DynamicCache | None

    @property
    def embeddings(self) -> Tensor:
        """What the language model was fed, `[1, L, H]`."""
        return self.fed.embeddings

    @property
    def length(self) -> int:
        """Positions taken by the prompt."""
        return self.embeddings.shape[1]


class PathDecoder:
    """Decodes the nodes of a tree, each one once and one at a time; the interface is `tree_decoder.TreeDecoder`'s.

    The nodes of the last step keep their caches, copies of the prompt's that have grown. A path that goes on from
    an earlier node is read again behind the prompt. Without caches, every node reads prompt and path again.

    Attributes:
        forward_passes: passes through the language model so far (the prompt's first not counted).
        tokens: nodes decoded.
    """

    def __init__(self, model: Computes, read: TorchPrompt) -> None:
        self._model, self._read = model, read
        self._paths: dict[int, tuple[int, ...]] = {ROOT: ()}
        self._states = {ROOT: read.state}
        self._front: dict[int, DynamicCache] = {}
        self.forward_passes = 0
        self.tokens = 0

    def step(self, nodes: NDArray[np.int32], parents: NDArray[np.int32], tokens: NDArray[np.int32]) -> None:
        """Decode new nodes, int32 `[R]` each, in R forward passes."""
        before, self._front = self._front, {}
        for node, parent, token in zip(nodes.tolist(), parents.tolist(), tokens.tolist(), strict=True):
            path = self._paths[node] = (*self._paths[parent], token)
            if self._read.cache is None:
                embeddings = torch.cat([self._read.embeddings, self._model.embed_tokens(path)[None]], dim=1)
                cache = None
            else:
                known = before.get(parent)
                embeddings = self._model.embed_tokens(path if known is None else path[-1:])[None]
                cache = self._front[node] = fork(self._read.cache if known is None else known)
            self._states[node] = self._model.run(embeddings, cache, self._read.fed)[-1:].clone()
        self.forward_passes += len(nodes)
        self.tokens += len(nodes)

    def is_decoded(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each node's state is known: bool `[R]`."""
        return np.array([node in self._states for node in nodes.tolist()], bool)

    def state(self, node: int) -> torch.Tensor:
        """Final state `[1, H]` after a decoded node."""
        return self._states[node]

    def logits(self, nodes: NDArray[np.int32]) -> mx.array:
        """Float32 logits `[R, V]` after decoded nodes."""
        return self._model.logits(torch.cat([self._states[node] for node in nodes.tolist()]))

    def flush(self, *outputs: mx.array) -> None:
        """Evaluate `outputs`; PyTorch has nothing outstanding."""
        mx.eval(*outputs)


class TorchRows:
    """Answers to different prompts, decoded one after the other; the interface is `row_decoder.Batch`'s."""

    def __init__(self, model: Computes) -> None:
        self._model = model
        self._rows: list[PathDecoder] = []

    def logits(self) -> mx.array:
        """Float32 logits `[R, V]` of the next tokens."""
        return mx.concatenate([row.logits(np.array([row.tokens])) for row in self._rows])

    def seat(self, seat: int, read: TorchPrompt) -> None:
        """Put a prompt in a seat: a free one, or one more."""
        self._rows[seat : seat + 1] = [PathDecoder(self._model, read)]

    def keep(self, seats: list[int]) -> None:
        """Keep only these rows."""
        self._rows = [self._rows[seat] for seat in seats]

    def step(self, tokens: mx.array) -> None:
        """Append one token to every row: int32 `[R]`."""
        for row, token in zip(self._rows, np.array(tokens), strict=True):
            last = row.tokens  # nodes are numbered along the one path
            row.step(np.array([last + 1]), np.array([last]), np.array([token]))


def fork(cache: DynamicCache) -> DynamicCache:
    """A cache that grows by itself: layers replace their tensors when they grow, and never write into them."""
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]
    return twin
