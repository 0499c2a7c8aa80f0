"""The search tree as a struct of arrays. NumPy only: no model is known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = 0

_FIELDS: dict[str, tuple[Any, float]] = {
    "parent": (np.int32, ROOT),
    "token": (np.int32, -1),
    "depth": (np.int32, 0),
    "log_prior": (np.float64, 0.0),
    "draws": (np.int32, 0),
    "visits": (np.int32, 0),
    "pending": (np.int32, 0),
    "value": (np.float64, np.nan),
    "reward": (np.float64, np.nan),
    "terminal": (np.bool_, False),
    "finished": (np.bool_, False),
    "exhausted": (np.bool_, False),
    "open_mass": (np.float64, 0.0),
    "open_value": (np.float64, -np.inf),
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

    Attributes:
        parent: int32, the root is its own.
        token: int32, the token that leads here from the parent; −1 at the root.
        depth: int32, tokens from the root.
        log_prior: float64, log p(token | parent) under the sampling distribution.
        draws: int32, how often this child was drawn from its parent.
        visits: int32, scored rollouts that passed through.
        pending: int32, rollouts under way that passed through.
        value: float64, V̂; NaN until a rollout through the node has been scored.
        reward: float64, of a finished answer; NaN elsewhere.
        terminal: bool, the answer ends here, by an end token (`finished`) or by its length.
        finished: bool, it ended by an end token.
        exhausted: bool, no token is left to draw here.
        open_mass: float64, the share of p below this node that no rollout has taken, 0 … 1.
        open_value: float64, log of the same share with each part weighted by exp(λ V̂).
    """

    parent: NDArray[np.int32]
    token: NDArray[np.int32]
    depth: NDArray[np.int32]
    log_prior: NDArray[np.float64]
    draws: NDArray[np.int32]
    visits: NDArray[np.int32]
    pending: NDArray[np.int32]
    value: NDArray[np.float64]
    reward: NDArray[np.float64]
    terminal: NDArray[np.bool_]
    finished: NDArray[np.bool_]
    exhausted: NDArray[np.bool_]
    open_mass: NDArray[np.float64]
    open_value: NDArray[np.float64]

    def __init__(self) -> None:
        self.size = 1
        self._capacity = 256
        self._arrays = {name: np.full(self._capacity, fill, dtype) for name, (dtype, fill) in _FIELDS.items()}
        self._child: dict[tuple[int, int], int] = {}
        self._index: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self._publish()

    def add(self, parent: int, token: int, log_prior: float, terminal: bool, finished: bool) -> int:
        """Draw `token` at `parent`: return the child, made if it is new."""
        child = self._child.get((parent, token))
        if child is None:
            child = self._append()
            self._child[parent, token] = child
            self.parent[child], self.token[child], self.depth[child] = parent, token, self.depth[parent] + 1
            self.log_prior[child] = log_prior
            self.terminal[child], self.finished[child] = terminal, finished
        self.draws[child] += 1
        return child

    def children(self, nodes: NDArray[np.int32]) -> Children:
        """The children of `nodes`."""
        if self._index is None:
            order = np.argsort(self.parent[1:], kind="stable") + 1
            offsets = np.searchsorted(self.parent[order], np.arange(self.size + 1))
            self._index = order, offsets
        order, offsets = self._index
        counts = offsets[nodes + 1] - offsets[nodes]
        ends = np.cumsum(counts)
        starts = ends - counts
        where = np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[nodes] - starts, counts)
        return Children(order[where].astype(np.int32), counts, starts)

    def path(self, node: int) -> list[int]:
        """Token ids from the root down to `node`."""
        tokens = []
        while node != ROOT:
            tokens.append(int(self.token[node]))
            node = int(self.parent[node])
        return tokens[::-1]

    def log_probability(self, node: int) -> float:
        """Sum of log p from the root down to `node`, in nats."""
        total = 0.0
        while node != ROOT:
            total += float(self.log_prior[node])
            node = int(self.parent[node])
        return total

    def ancestors(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """`nodes` and all nodes above them, each once, in ascending order (parents before children)."""
        seen = np.zeros(self.size, bool)
        at = np.unique(nodes)
        while at.size:
            seen[at] = True
            at = np.unique(self.parent[at])
            at = at[~seen[at]]
        return np.flatnonzero(seen).astype(np.int32)

    def count_along(self, field: NDArray[np.int32], leaves: NDArray[np.int32], step: int) -> None:
        """Add `step` to `field` on the whole path of every leaf, with multiplicity."""
        at = leaves
        while at.size:
            np.add.at(field, at, step)
            at = self.parent[at[at != ROOT]]

    def to_dict(self) -> dict[str, list[Any]]:
        """Every field as a list, ready for JSON (NaN as None)."""
        return {
            name: [None if value != value else value for value in getattr(self, name).tolist()] for name in _FIELDS
        }

    @classmethod
    def from_dict(cls, fields: dict[str, list[Any]]) -> Tree:
        """The inverse of `to_dict`."""
        tree = cls()
        while tree._capacity < len(fields["parent"]):
            tree._grow()
        tree.size = len(fields["parent"])
        tree._publish()
        for name, (dtype, _) in _FIELDS.items():
            values = [np.nan if value is None else value for value in fields[name]]
            getattr(tree, name)[:] = np.array(values, dtype)
        tree._child = {(int(tree.parent[node]), int(tree.token[node])): node for node in range(1, tree.size)}
        return tree

    def _append(self) -> int:
        if self.size == self._capacity:
            self._grow()
        self.size += 1
        self._index = None
        self._publish()
        return self.size - 1

    def _grow(self) -> None:
        for name, (dtype, fill) in _FIELDS.items():
            self._arrays[name] = np.concatenate([self._arrays[name], np.full(self._capacity, fill, dtype)])
        self._capacity *= 2

    def _publish(self) -> None:
        """Expose the used part of each array under its name."""
        for name, array in self._arrays.items():
            setattr(self, name, array[: self.size])
