"""What a model keeps of the prompt it read last, for the next one about the same recording."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache
from numpy.typing import NDArray

from mlx_tslm.models.cache import Condition, PromptCache


@dataclass(frozen=True)
class Fed:
    """What a prompt is to the language model.

    Attributes:
        embeddings: `[1, L, H]` in its dtype.
        visible: bool `[L]`, the positions that may be attended to, or None for all.
        condition: what stands before each layer, or None.
        series: what the encoder made of the series, or None where there is none.
    """

    embeddings: mx.array
    visible: NDArray[np.bool_] | None = None
    condition: Condition | None = None
    series: mx.array | None = None


class Kept:
    """The last recording as the encoder gave it, and the last prompt's keys and values.

    Attributes:
        encoded: how often the encoder ran.
        positions: of the prompt read last, how many were taken over from the one before.
    """

    def __init__(self) -> None:
        self.encoded = 0
        self.positions = 0
        self._padded: NDArray[np.float32] | None = None
        self._series: mx.array | None = None
        self._last: tuple[Fed, PromptCache] | None = None

    def series(self, padded: NDArray[np.float32], encode: Callable[[], mx.array]) -> mx.array:
        """What the encoder makes of `padded` `[N, T]`: what it made of it last time, where that is the same."""
        if self._series is None or self._padded is None or not np.array_equal(self._padded, padded):
            self._padded, self._series = padded, encode()
            mx.eval(self._series)
            self.encoded += 1
        return self._series

    def begin(self, fed: Fed, layers: int) -> tuple[list[KVCache], int]:
        """Caches to read a prompt into, one a layer, and how many of its positions they hold already.

        They hold the part that is the same as in the prompt read last, but never all of it: the last position's
        state is computed anew.
        """
        count = 0 if self._last is None else _alike(self._last[0], fed)
        self.positions = count
        if self._last is None or not count:
            return [KVCache() for _ in range(layers)], 0
        return self._last[1].fork(count), count

    def read(self, fed: Fed, cache: PromptCache) -> None:
        """Keep a prompt that has been read."""
        self._last = fed, cache


def _alike(old: Fed, new: Fed) -> int:
    """How many positions two prompts have in common from their beginning on; at most all but the last of `new`."""
    if (old.condition is None) != (new.condition is None) or (
        new.condition is not None and old.series is not new.series
    ):
        return 0
    length = min(old.embeddings.shape[1], new.embeddings.shape[1])
    same = np.array(mx.all(old.embeddings[0, :length] == new.embeddings[0, :length], axis=-1))
    for one, other in _positions(old, new):
        same &= one[:length] == other[:length]
    return min(length if same.all() else int(same.argmin()), new.embeddings.shape[1] - 1)


def _positions(old: Fed, new: Fed) -> Sequence[tuple[NDArray[np.generic], NDArray[np.generic]]]:
    """What else is said of each position: whether it may be attended to, and how many series stand before it."""
    found = [
        tuple(np.ones(fed.embeddings.shape[1], bool) if fed.visible is None else fed.visible for fed in (old, new))
    ]
    if old.condition is not None and new.condition is not None:
        found.append((old.condition.times, new.condition.times))
    return found  # type: ignore[return-value]
