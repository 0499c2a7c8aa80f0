"""Keys and values: the prompt's, once for all answers, and those of a tree of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache
from numpy.typing import NDArray

from mlx_tslm.models.language_model import Before


class Condition(Protocol):
    """What a prompt tells the layers beside its embeddings; see `gated_block.Media`."""

    @property
    def times(self) -> NDArray[np.int32]: ...

    def over(self, start: int, stop: int) -> Before: ...

    @classmethod
    def of_rows(cls, rows: Sequence[Self]) -> Before: ...

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class PromptCache:
    """A prompt that has been read.

    Attributes:
        keys, values: for each layer `[heads_kv, L, D]`.
        state: final state after the last position, `[1, H]`.
        visible: bool `[L]`, the positions that may be attended to, or None for all.
        condition: what stands before each layer, or None.
    """

    keys: list[mx.array]
    values: list[mx.array]
    state: mx.array
    visible: NDArray[np.bool_] | None = None
    condition: Condition | None = None

    @classmethod
    def from_layers(
        cls,
        layers: Sequence[Any],
        state: mx.array,
        visible: NDArray[np.bool_] | None = None,
        condition: Condition | None = None,
    ) -> PromptCache:
        """Take over the caches that mlx-lm's attention filled for a batch of one."""
        keys = [mx.contiguous(layer.keys[0, :, : layer.offset]) for layer in layers]
        values = [mx.contiguous(layer.values[0, :, : layer.offset]) for layer in layers]
        mx.eval(keys, values, state)
        return cls(keys, values, state, visible, condition)

    @property
    def before(self) -> Before | None:
        """What stands before each layer for the tokens behind the prompt."""
        return None if self.condition is None else self.condition.over(self.length, self.length + 1)

    @property
    def length(self) -> int:
        """Positions taken by the prompt."""
        return self.keys[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held by keys and values, and by the condition."""
        held = sum(array.nbytes for array in [*self.keys, *self.values])
        return held + (0 if self.condition is None else self.condition.nbytes)

    def fork(self, length: int | None = None) -> list[KVCache]:
        """Caches for one answer through mlx-lm's own attention; the prompt's arrays are shared, not copied yet.

        Args:
            length: of the prompt's beginning, in positions; all of it where None.
        """
        length = self.length if length is None else length
        layers = [KVCache() for _ in self.keys]
        for layer, keys, values in zip(layers, self.keys, self.values, strict=True):
            layer.keys, layer.values, layer.offset = keys[None, :, :length], values[None, :, :length], length
        return layers
