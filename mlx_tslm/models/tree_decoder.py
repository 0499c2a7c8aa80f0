"""Batched decoding of a tree of tokens behind one shared prompt.

The prompt's keys and values are stored once. Each node of the tree keeps its own token's in a pool, one row a
node; the rows of a batch are paths of the tree, gathered from the pool by index. While the rows only grow, one
token each, the gathered suffixes are extended in place and nothing is gathered again.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.attention import project, shared_prefix_attention
from mlx_tslm.models.cache import PromptCache

ROOT = 0
"""The node that stands for the prompt."""

SPARE = 32
"""Columns allocated ahead when suffixes are gathered."""

FIRST_CAPACITY = 256
"""Rows of the pool at first."""


def pool_capacity(nodes: int) -> int:
    """Rows of the pool once it holds `nodes` nodes: it grows by quarters, which leaves little of it empty."""
    capacity = FIRST_CAPACITY
    while capacity < nodes:
        capacity += capacity // 4
    return capacity


class TreeDecoder:
    """Decodes the nodes of a tree, each one once.

    Args:
        model: an mlx-lm language model (Llama or Gemma 3).
        prompt: the prompt that all paths share; it is the root, node 0.

    Attributes:
        forward_passes: batched passes through the language model so far (the prompt's not counted).
        tokens: tokens that went through it.
    """

    def __init__(self, model: nn.Module, prompt: PromptCache) -> None:
        self._model = model
        self._prompt = prompt
        self._before = prompt.before
        self._windows = lm.windows(model)
        self._capacity = FIRST_CAPACITY
        self._parent = np.full(self._capacity, ROOT, np.int32)
        self._depth = np.zeros(self._capacity, np.int32)
        self._decoded = np.zeros(self._capacity, bool)
        self._decoded[ROOT] = True
        shapes = [(self._capacity, *keys.shape[::2]) for keys in prompt.keys]
        self._pool_keys = [mx.zeros(shape, keys.dtype) for shape, keys in zip(shapes, prompt.keys, strict=True)]
        self._pool_values = [mx.zeros(shape, keys.dtype) for shape, keys in zip(shapes, prompt.keys, strict=True)]
        self._states = mx.zeros((self._capacity, prompt.state.shape[-1]), prompt.state.dtype)
        self._states[ROOT] = prompt.state[0]
        self._rows = np.zeros(0, np.int32)  # the nodes whose paths lie in the suffix buffers
        self._keys: list[mx.array] = []
        self._values: list[mx.array] = []
        self._width = 0
        self.forward_passes = 0
        self.tokens = 0

    def step(self, nodes: NDArray[np.int32], parents: NDArray[np.int32], tokens: NDArray[np.int32]) -> None:
        """Decode new nodes in one forward pass.

        Args:
            nodes: int32 `[R]`, distinct ids not decoded yet.
            parents: int32 `[R]`, their parents, decoded already.
            tokens: int32 `[R]`, their tokens.
        """
        self._reserve(int(nodes.max()) + 1)
        self._parent[nodes] = parents
        self._depth[nodes] = self._depth[parents] + 1
        self._seat(parents)
        depth = self._depth[nodes]
        columns = np.arange(self._width + 1)
        bias = mx.array(np.where(columns >= self._width + 1 - depth[:, None], 0.0, -np.inf).astype(np.float32))
        after = self._prompt.length + depth - 1
        positions = mx.array(after) if np.ptp(after) else int(after[0])  # one position for all rows is faster
        index = mx.array(nodes)

        def attend(layer: int, attention: nn.Module, x: mx.array) -> mx.array:
            queries, keys, values = project(attention, x, positions)
            self._pool_keys[layer][index] = keys[:, :, 0]
            self._pool_values[layer][index] = values[:, :, 0]
            at = slice(self._width, self._width + 1)
            self._keys[layer][:, :, at] = keys
            self._values[layer][:, :, at] = values
            prefix, far_bias, first = self._visible_prefix(layer, depth)
            suffix = (self._keys[layer][:, :, first : at.stop], self._values[layer][:, :, first : at.stop])
            out = shared_prefix_attention(
                queries, prefix, suffix, attention.scale, bias[:, first:], prefix_bias=far_bias
            )
            return attention.o_proj(out[:, None])

        h = lm.embed_tokens(self._model, mx.array(tokens))[:, None]
        self._states[index] = lm.forward(self._model, h, attend, before=self._before)[:, 0]
        self._width += 1
        self._rows = nodes
        self._decoded[nodes] = True
        self.forward_passes += 1
        self.tokens += len(nodes)

    def is_decoded(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each node's keys, values and state are known: bool `[R]`."""
        return (nodes < self._capacity) & self._decoded[np.minimum(nodes, self._capacity - 1)]

    def logits(self, nodes: NDArray[np.int32]) -> mx.array:
        """Float32 logits `[R, V]` after decoded nodes (the root's are the prompt's)."""
        return lm.logits(self._model, self._states[mx.array(nodes)])

    def flush(self, *outputs: mx.array) -> None:
        """Evaluate `outputs` together with all that the last step has written."""
        mx.eval(*outputs, self._states, self._pool_keys, self._pool_values, self._keys, self._values)

    @property
    def nbytes(self) -> int:
        """Bytes held: the prompt, the pool, and the gathered suffixes."""
        arrays = [*self._pool_keys, *self._pool_values, *self._keys, *self._values, self._states]
        return self._prompt.nbytes + sum(array.nbytes for array in arrays)

    def _visible_prefix(
        self, layer: int, depth: NDArray[np.int32]
    ) -> tuple[tuple[mx.array, mx.array], mx.array | None, int]:
        """The prefix a layer sees, its bias, and the first suffix column within the layer's window."""
        keys, values = self._prompt.keys[layer], self._prompt.values[layer]
        window, visible, length = self._windows[layer], self._prompt.visible, self._prompt.length
        if window is None and visible is None:
            return (keys, values), None, 0
        start = 0 if window is None else max(0, length - window)
        at = np.arange(start, length)
        shown = np.ones((len(depth), len(at)), bool)
        if window is not None:
            shown &= length + depth[:, None] - 1 - at < window
        if visible is not None:
            shown[:, : len(visible) - start] &= visible[start:]
        first = 0 if window is None else max(0, self._width + 1 - window)
        far_bias = mx.array(np.where(shown, 0.0, -np.inf).astype(np.float32))
        return (keys[:, start:], values[:, start:]), far_bias, first

    def _seat(self, rows: NDArray[np.int32]) -> None:
        """Have the paths down to `rows` in the suffix buffers, right-aligned, with room for one more column."""
        full = not self._keys or self._width == self._keys[0].shape[2]
        if np.array_equal(rows, self._rows) and not full:
            return
        width = int(self._depth[rows].max())
        paths = np.zeros((len(rows), width), np.int32)
        at = rows.copy()
        for column in reversed(range(width)):
            paths[:, column] = at
            at = self._parent[at]  # the root is its own parent: it fills the columns left of a shallow path
        index = mx.array(paths)

        def gather(pool: mx.array) -> mx.array:
            spare = mx.zeros((len(rows), pool.shape[1], SPARE, pool.shape[2]), pool.dtype)
            return mx.concatenate([pool[index].transpose(0, 2, 1, 3), spare], axis=2)

        self._keys = [gather(pool) for pool in self._pool_keys]
        self._values = [gather(pool) for pool in self._pool_values]
        self._width = width
        self._rows = rows

    def _reserve(self, size: int) -> None:
        """Grow the pool to hold node ids below `size`, an array at a time: never is all of it there twice."""
        if size <= self._capacity:
            return
        extra = pool_capacity(size) - self._capacity
        self._parent = np.concatenate([self._parent, np.full(extra, ROOT, np.int32)])
        self._depth = np.concatenate([self._depth, np.zeros(extra, np.int32)])
        self._decoded = np.concatenate([self._decoded, np.zeros(extra, bool)])

        def grow(array: mx.array) -> mx.array:
            grown = mx.concatenate([array, mx.zeros((extra, *array.shape[1:]), array.dtype)])
            mx.eval(grown)
            return grown

        for pools in (self._pool_keys, self._pool_values):
            for layer, pool in enumerate(pools):
                pools[layer] = grow(pool)
        self._states = grow(self._states)
        self._capacity += extra
