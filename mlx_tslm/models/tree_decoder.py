"""Batched decoding of a tree of tokens behind one shared prompt.

The prompt's keys and values are stored once. Each node of the tree keeps its own token's in a pool, one row a
node; the rows of a batch are paths of the tree, gathered from the pool by index. While the rows only grow, one
token each, the gathered suffixes are extended in place, and the pool is not touched: it gets what is new when rows
change their seats, and a row that leaves gives its seat to one that comes.
"""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.attention import project
from mlx_tslm.models.base import FREE
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.ops import shared_prefix_attention

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
        attention = model.layers[0].self_attn
        self._group = attention.n_heads // attention.n_kv_heads
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
        self._rows = np.zeros(0, np.int32)  # the nodes whose paths lie in the suffix buffers, seat by seat
        self._row_depth = np.zeros(0, np.int32)
        self._keys: list[mx.array] = []
        self._values: list[mx.array] = []
        self._width = 0
        self._new: list[NDArray[np.int32]] = []  # nodes of the last columns, which the pool does not hold yet,
        self._new_states: list[mx.array] = []  # and their final states
        self.forward_passes = 0
        self.tokens = 0

    def step(self, nodes: NDArray[np.int32], parents: NDArray[np.int32], tokens: NDArray[np.int32]) -> None:
        """Decode new nodes in one forward pass.

        Args:
            nodes: int32 `[R]`, distinct ids not decoded yet.
            parents: int32 `[R]`, their parents, decoded already.
            tokens: int32 `[R]`, their tokens.
        """
        order = self._seat(parents)
        self._forward(mx.array(tokens[order]))
        self._name(nodes[order])

    def is_decoded(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each node's keys, values and state are known: bool `[R]`."""
        return (nodes < self._capacity) & self._decoded[np.minimum(nodes, self._capacity - 1)]

    def logits(self, nodes: NDArray[np.int32]) -> mx.array:
        """Float32 logits `[R, V]` after decoded nodes (the root's are the prompt's)."""
        if self._new_states and np.isin(nodes, self._rows).all():
            seats = np.argsort(self._rows)
            return lm.logits(
                self._model, taken(self._new_states[-1], seats[np.searchsorted(self._rows[seats], nodes)])
            )
        self._store()
        return lm.logits(self._model, self._states[mx.array(nodes)])

    def flush(self, *outputs: mx.array) -> None:
        """Evaluate `outputs` together with all that was written."""
        mx.eval(*outputs, self._states, self._pool_keys, self._pool_values, self._keys, self._values)

    @property
    def nbytes(self) -> int:
        """Bytes held: the prompt, the pool, and the gathered suffixes."""
        pools = [*self._pool_keys, *self._pool_values, *self._keys, *self._values]
        return self._prompt.nbytes + sum(array.nbytes for array in [*pools, self._states, *self._new_states])

    def _forward(self, tokens: mx.array) -> None:
        """Append a token to every row, int32 `[R]` in the order of the seats; `_name` says which nodes they are."""
        self._row_depth = self._row_depth + 1
        after = self._prompt.length + self._row_depth - 1
        positions = mx.array(after) if np.ptp(after) else int(after[0])  # one position for all rows is faster
        at = slice(self._width, self._width + 1)
        views = {window: self._view(window) for window in set(self._windows)}

        def attend(layer: int, attention: nn.Module, x: mx.array) -> mx.array:
            queries, keys, values = project(attention, x, positions)
            self._keys[layer][:, :, at] = keys
            self._values[layer][:, :, at] = values
            view = views[self._windows[layer]]
            prefix = (self._prompt.keys[layer][:, view.start :], self._prompt.values[layer][:, view.start :])
            own = slice(view.first, at.stop)
            suffix = (self._keys[layer][:, :, own], self._values[layer][:, :, own])
            out = shared_prefix_attention(queries, prefix, suffix, attention.scale, view.near, view.far)
            return attention.o_proj(out[:, None])

        h = lm.embed_tokens(self._model, tokens)[:, None]
        self._new_states.append(lm.forward(self._model, h, attend, before=self._before)[:, 0])
        self._width += 1
        self.forward_passes += 1
        self.tokens += len(self._rows)

    def _view(self, window: int | None) -> "_View":
        """What layers of one window see with the next token, whose depth `_row_depth` has already."""
        length, visible, depth = self._prompt.length, self._prompt.visible, self._row_depth[:, None]
        start = 0 if window is None else max(0, length - window)
        first = 0 if window is None else max(0, self._width + 1 - window)
        columns = np.arange(first, self._width + 1)
        near = self._bias(columns >= self._width + 1 - depth)
        if window is None and visible is None:
            return _View(start, None, first, near)
        at = np.arange(start, length)
        shown = np.ones((len(depth), len(at)), bool)
        if window is not None:
            shown &= length + depth - 1 - at < window
        if visible is not None:
            shown[:, : len(visible) - start] &= visible[start:]
        return _View(start, self._bias(np.repeat(shown, self._group, axis=0)), first, near)

    def _bias(self, shown: NDArray[np.bool_]) -> mx.array:
        return mx.array(np.where(shown, np.float32(0), np.float32(-np.inf))).astype(self._prompt.keys[0].dtype)

    def _name(self, nodes: NDArray[np.int32]) -> None:
        """Say what nodes the tokens of the last pass are, seat by seat."""
        named = nodes != FREE
        if named.any():
            self._reserve(int(nodes.max()) + 1)
            self._parent[nodes[named]] = self._rows[named]
            self._depth[nodes[named]] = self._row_depth[named]
            self._decoded[nodes[named]] = True
        self._rows = nodes
        self._new.append(nodes)

    def _store(self) -> None:
        """Put what only the suffix buffers hold into the pool."""
        if not self._new:
            return
        nodes = np.stack(self._new, axis=1)
        index = mx.array(np.maximum(nodes, ROOT))  # nobody reads the root's own place in the pool
        columns = slice(self._width - nodes.shape[1], self._width)
        for pools, buffers in ((self._pool_keys, self._keys), (self._pool_values, self._values)):
            for pool, buffer in zip(pools, buffers, strict=True):
                pool[index] = buffer[:, :, columns].transpose(0, 2, 1, 3)
        self._states[index] = mx.stack(self._new_states, axis=1)
        self._states[ROOT] = self._prompt.state[0]
        self._new, self._new_states = [], []

    def _seat(self, parents: NDArray[np.int32]) -> NDArray[np.intp]:
        """Have the paths down to `parents` in the suffix buffers, right-aligned, with room for one more column.

        Returns:
            For each seat which of `parents` sits there: int `[R]`.
        """
        order = self._arrange(parents)
        rows = parents[order]
        changed = np.flatnonzero(rows != self._rows) if len(rows) == len(self._rows) else np.arange(len(rows))
        deepest = int(self._depth[rows].max())
        if len(changed):
            self._store()
        if not self._keys or len(changed) == len(rows) or not deepest <= self._width <= deepest + SPARE:
            self._store()
            self._width = deepest
            self._keys, self._values = self._gather(self._pool_keys, rows), self._gather(self._pool_values, rows)
        else:
            if self._width == self._keys[0].shape[2]:
                self._keys, self._values = _widened(self._keys), _widened(self._values)
            if len(changed):
                self._replace(changed, rows[changed])
        self._rows, self._row_depth = rows, self._depth[rows]
        return order

    def _arrange(self, parents: NDArray[np.int32]) -> NDArray[np.intp]:
        """An order in which rows keep their seats, and those that come take the free ones."""
        order = np.arange(len(parents))
        if len(parents) != len(self._rows) or np.array_equal(parents, self._rows):
            return order
        came = {int(parent): at for at, parent in reversed(list(enumerate(parents)))}
        seats = np.array([came.get(int(row), FREE) for row in self._rows])
        seats[seats == FREE] = np.setdiff1d(order, seats)
        return seats

    def _paths(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """The nodes down to `rows`, right-aligned: int32 `[R, width]`."""
        paths = np.zeros((len(rows), self._width), np.int32)
        at = rows.copy()
        for column in reversed(range(self._width)):
            paths[:, column] = at
            at = self._parent[at]  # the root is its own parent: it fills the columns left of a shallow path
        return paths

    def _gather(self, pools: list[mx.array], rows: NDArray[np.int32]) -> list[mx.array]:
        index = mx.array(self._paths(rows))
        return _widened([pool[index].transpose(0, 2, 1, 3) for pool in pools])

    def _replace(self, seats: NDArray[np.intp], rows: NDArray[np.int32]) -> None:
        """Put other paths into some seats."""
        index, at = mx.array(self._paths(rows)), mx.array(seats.astype(np.int32))
        for pools, buffers in ((self._pool_keys, self._keys), (self._pool_values, self._values)):
            for pool, buffer in zip(pools, buffers, strict=True):
                buffer[at, :, : self._width] = pool[index].transpose(0, 2, 1, 3)

    def _reserve(self, size: int) -> None:
        """Grow the pool to hold node ids below `size`."""
        if size <= self._capacity:
            return
        extra = pool_capacity(size) - self._capacity
        self._parent = np.pad(self._parent, (0, extra), constant_values=ROOT)
        self._depth = np.pad(self._depth, (0, extra))
        self._decoded = np.pad(self._decoded, (0, extra))

        def grow(array: mx.array) -> mx.array:
            return mx.concatenate([array, mx.zeros((extra, *array.shape[1:]), array.dtype)])

        for pools in (self._pool_keys, self._pool_values):
            pools[:] = [grow(pool) for pool in pools]
        self._states = grow(self._states)
        # An array is let go when its copy is made: never is all of it there twice.
        mx.async_eval(self._pool_keys, self._pool_values, self._states)
        self._capacity += extra


@dataclass(frozen=True)
class _View:
    """What layers of one window see in a step.

    Attributes:
        start: the first position of the prompt that any row sees; `far` `[R * group, L - start]` hides some, or is
            None.
        first: the first column of the suffixes that any row sees; `near` `[R, S]` hides some.
    """

    start: int
    far: mx.array | None
    first: int
    near: mx.array


def taken(rows: mx.array, order: NDArray[np.intp]) -> mx.array:
    """`rows[order]`, `[R, …]`."""
    return rows if np.array_equal(order, np.arange(len(rows))) else rows[mx.array(order)]


def _widened(buffers: list[mx.array]) -> list[mx.array]:
    """Buffers `[R, heads_kv, S, D]` with room for more columns."""
    return [mx.pad(buffer, [(0, 0), (0, 0), (0, SPARE), (0, 0)]) for buffer in buffers]
