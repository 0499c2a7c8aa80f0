"""The search tree as a struct of arrays. NumPy only: no model is known here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = 0

NEGLIGIBLE = 1e-6
"""A remainder of probability under this is float32 rounding, and counts as none."""

_FIELDS: dict[str, tuple[Any, float]] = {
    "parent": (np.int32, ROOT),
    "token": (np.int32, -1),
    "depth": (np.int32, 0),
    "log_prior": (np.float64, 0.0),
    "logprob": (np.float64, 0.0),
    "taken": (np.float64, 0.0),
    "draws": (np.int32, 0),
    "visits": (np.int32, 0),
    "pending": (np.int32, 0),
    "value": (np.float64, np.nan),
    "reward": (np.float64, np.nan),
    "terminal": (np.bool_, False),
    "finished": (np.bool_, False),
}
"""Each field's dtype and the value of a new node."""


@dataclass(frozen=True)
class Children:
    """The children of some nodes, laid end to end.

    Attributes:
        nodes: int32 `[C]`, all children, grouped by parent in the order asked for.
        counts: int64 `[P]`, how many each parent has.
        starts: int64 `[P]`, where each parent's begin.
    """

    nodes: NDArray[np.int32]
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def owner(self) -> NDArray[np.int64]:
        """int64 `[C]`: for each child, its parent's place in the order asked for."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class Tree:
    """Nodes are rows of arrays; node 0, the root, is the prompt. Every array is `[size]`.

    Parents have smaller numbers than their children.

    Attributes:
        parent: int32, the root is its own.
        token: int32, the token that leads here from the parent; −1 at the root.
        depth: int32, tokens from the root.
        log_prior: float64, log p(token | parent) under the sampling distribution.
        logprob: float64, the sum of `log_prior` from the root to here: log p of the path.
        taken: float64, the share of p that the children here hold together, 0 … 1.
        draws: int32, how often this child was drawn from its parent.
        visits: int32, scored rollouts that passed through.
        pending: int32, rollouts that passed through and are under way, or not scored yet.
        value: float64, V̂; NaN until a rollout through the node has been scored.
        reward: float64, of a finished answer; NaN elsewhere.
        terminal: bool, the answer ends here, by an end token (`finished`) or by its length.
        finished: bool, it ended by an end token.
    """

    parent: NDArray[np.int32]
    token: NDArray[np.int32]
    depth: NDArray[np.int32]
    log_prior: NDArray[np.float64]
    logprob: NDArray[np.float64]
    taken: NDArray[np.float64]
    draws: NDArray[np.int32]
    visits: NDArray[np.int32]
    pending: NDArray[np.int32]
    value: NDArray[np.float64]
    reward: NDArray[np.float64]
    terminal: NDArray[np.bool_]
    finished: NDArray[np.bool_]

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self._capacity = max(size, 256)
        self._arrays = {name: np.full(self._capacity, fill, dtype) for name, (dtype, fill) in _FIELDS.items()}
        self._publish()

    @property
    def prior(self) -> NDArray[np.float64]:
        """p(token | parent) under the sampling distribution; 1 at the root."""
        return np.exp(self.log_prior)

    def add(
        self,
        parents: NDArray[np.int32],
        tokens: NDArray[np.int32],
        log_priors: NDArray[np.float64],
        terminal: NDArray[np.bool_],
        finished: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """Draw a token at each parent: int32 `[R]`, the children, made where they are new. Rows may repeat."""
        nodes = np.empty(len(parents), np.int32)
        fresh: list[int] = []
        for row, (parent, token) in enumerate(zip(parents.tolist(), tokens.tolist(), strict=True)):
            below = self._below.setdefault(parent, {})
            if token not in below:
                below[token] = self.size + len(fresh)
                fresh.append(row)
            nodes[row] = below[token]
        if fresh:
            self._append(len(fresh))
            new, parents, log_priors = nodes[fresh], parents[fresh], log_priors[fresh]
            self.parent[new], self.token[new], self.depth[new] = parents, tokens[fresh], self.depth[parents] + 1
            self.log_prior[new], self.logprob[new] = log_priors, self.logprob[parents] + log_priors
            self.terminal[new], self.finished[new] = terminal[fresh], finished[fresh]
            np.add.at(self.taken, parents, np.exp(log_priors))
        np.add.at(self.draws, nodes, 1)
        return nodes

    def children(self, nodes: NDArray[np.int32]) -> Children:
        """The children of `nodes`."""
        below = [self._below.get(node, {}) for node in nodes.tolist()]
        counts = np.fromiter(map(len, below), np.int64, len(below))
        ends = np.cumsum(counts)
        flat = chain.from_iterable(each.values() for each in below)
        return Children(np.fromiter(flat, np.int32, counts.sum()), counts, ends - counts)

    def rest(self) -> NDArray[np.float64]:
        """The share of p at each node that is unexplored: float64 `[size]`.

        A node without children is an answer's end or a rollout's present place, which takes what is below it.
        """
        rest = 1.0 - self.taken
        rest[(rest < NEGLIGIBLE) | (self.taken == 0)] = 0.0
        return rest

    @property
    def explored(self) -> bool:
        """Nothing is unexplored, under way, or not scored yet."""
        return self.size > 1 and not self.pending[ROOT] and not self.rest().any()

    def find(self, tokens: list[int]) -> int | None:
        """The node that the tokens lead to from the root, or None."""
        node: int | None = ROOT
        for token in tokens:
            node = None if node is None else self._below.get(node, {}).get(token)
        return node

    def path(self, node: int) -> list[int]:
        """Token ids from the root down to `node`."""
        tokens = []
        while node != ROOT:
            tokens.append(int(self.token[node]))
            node = int(self.parent[node])
        return tokens[::-1]

    def ancestors(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """`nodes` and all nodes above them, each once, in ascending order (parents before children)."""
        seen = np.zeros(self.size, bool)
        at = np.unique(nodes)
        while at.size:
            seen[at] = True
            at = np.unique(self.parent[at])
            at = at[~seen[at]]
        return np.flatnonzero(seen).astype(np.int32)

    def count_along(
        self, field: NDArray[np.int32], leaves: NDArray[np.int32], step: int | NDArray[np.int64]
    ) -> None:
        """Add `step`, one or one a leaf, to `field` on the whole path of every leaf, with multiplicity."""
        at, steps = leaves, np.broadcast_to(step, leaves.shape)
        while at.size:
            np.add.at(field, at, steps)
            below_root = at != ROOT
            at, steps = self.parent[at[below_root]], steps[below_root]

    def shape(self) -> dict[str, Any]:
        """nodes, depth, and branching: the mean number of children of the nodes that have any."""
        inner = len(np.unique(self.parent[1:]))
        branching = (self.size - 1) / inner if inner else 0.0
        return {"nodes": self.size, "depth": int(self.depth.max()), "branching": branching}

    def copy(self) -> Tree:
        """The same tree, which does not change when this one does."""
        return self._take(np.arange(self.size))

    def subtree(self, node: int) -> tuple[Tree, NDArray[np.int32]]:
        """What lies below `node`, as a tree of which it is the root.

        Returns:
            The tree, and for each node of this one its number there: int32 `[size]`, −1 for those left out.
        """
        inside = np.zeros(self.size, bool)
        inside[node] = True
        for level in range(self.depth[node] + 1, self.depth.max() + 1):
            nodes = np.flatnonzero(self.depth == level)
            inside[nodes] = inside[self.parent[nodes]]
        kept = np.flatnonzero(inside)
        tree = self._take(kept)
        number = np.full(self.size, -1, np.int32)
        number[kept] = np.arange(len(kept))
        tree.parent[:] = np.maximum(number[tree.parent], ROOT)
        tree.depth -= self.depth[node]
        tree.logprob -= self.logprob[node]
        tree.token[ROOT], tree.log_prior[ROOT], tree.draws[ROOT] = -1, 0.0, 0
        return tree, number

    def to_dict(self) -> dict[str, list[Any]]:
        """Every field as a list, ready for JSON: NaN is None, true and false are 1 and 0."""
        fields: dict[str, list[Any]] = {}
        for name, (dtype, _) in _FIELDS.items():
            array = getattr(self, name)
            fields[name] = (array.astype(np.int8) if dtype is np.bool_ else array).tolist()
            if dtype is np.float64 and np.isnan(array).any():
                fields[name] = [None if value != value else value for value in fields[name]]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, list[Any]]) -> Tree:
        """The inverse of `to_dict`."""
        tree = cls(len(fields["parent"]))
        for name, (dtype, _) in _FIELDS.items():
            # NumPy reads None as NaN where the dtype is float.
            getattr(tree, name)[:] = np.array(fields[name], dtype)
        return tree

    def _take(self, nodes: NDArray[np.int64]) -> Tree:
        """Rows of all fields as they are."""
        tree = Tree(len(nodes))
        for name in _FIELDS:
            getattr(tree, name)[:] = getattr(self, name)[nodes]
        return tree

    @cached_property
    def _below(self) -> dict[int, dict[int, int]]:
        """For each node that has children, token -> child."""
        below: dict[int, dict[int, int]] = {}
        for node, (parent, token) in enumerate(
            zip(self.parent[1:].tolist(), self.token[1:].tolist(), strict=True), 1
        ):
            below.setdefault(parent, {})[token] = node
        return below

    def _append(self, count: int) -> None:
        """Make room for `count` more nodes, doubling the arrays when they are full."""
        self.size += count
        if self.size > self._capacity:
            extra = max(self.size, 2 * self._capacity) - self._capacity
            for name, (dtype, fill) in _FIELDS.items():
                self._arrays[name] = np.concatenate([self._arrays[name], np.full(extra, fill, dtype)])
            self._capacity += extra
        self._publish()

    def _publish(self) -> None:
        """Expose the used part of each array under its name."""
        for name, array in self._arrays.items():
            setattr(self, name, array[: self.size])
