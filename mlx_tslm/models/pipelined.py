"""A tree decoder that is a pass ahead of its caller, so that a GPU need not wait for the host to read tokens."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.tree_decoder import TreeDecoder, taken


class PipelinedDecoder(TreeDecoder):
    """See `TreeDecoder`; `tokens` counts those too that were decoded in vain, behind a row that had ended."""

    def ahead(self, parents: NDArray[np.int32], tokens: mx.array) -> mx.array:
        """Decode a token behind each node before anyone has read it; `settle` has to follow before anything else.

        Args:
            parents: int32 `[R]`, distinct, decoded already.
            tokens: int32 `[R]`.

        Returns:
            Float32 logits `[R, V]` after the tokens; nothing is evaluated.
        """
        order = self._seat(parents)
        self._seat_of = np.argsort(order)
        self._forward(taken(tokens, order))
        return lm.logits(self._model, taken(self._new_states[-1], self._seat_of))

    def settle(self, nodes: NDArray[np.int32]) -> None:
        """Say what nodes the tokens of `ahead` have become: int32 `[R]`, `FREE` where none is wanted."""
        seats = np.empty_like(nodes)
        seats[self._seat_of] = nodes
        self._name(seats)

    def submit(self, *outputs: mx.array) -> None:
        """Begin to evaluate `outputs` and all that was written, in the order of their making; nothing waits."""
        mx.async_eval(*outputs, self._states, self._pool_keys, self._pool_values, self._keys, self._values)
