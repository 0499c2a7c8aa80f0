"""The search tree as a struct of arrays. NumPy only: no model is known here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROOT = 0

NO_TOKEN = -1
"""In place of a token id, where there is none."""

NEGLIGIBLE = 1e-6
"""A remainder of probability under this is float32 rounding, and counts as none."""

_T = TypeVar("_T", bound=np.generic)


class _Field(Generic[_T]):
    """A column of the tree. It gives the part in use of today's array: ask the tree again after an `add`.

    Args:
        dtype: of its entries.
        fill: the value of a new node.
    """

    def __init__(self, dtype: type[_T], fill: float) -> None:
        self.dtype, self.fill = dtype, fill

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, tree: None, owner: type) -> Self: ...
    @overload
    def __get__(self, tree: Tree, owner: type) -> NDArray[_T]: ...
    def __get__(self, tree: Tree | None, owner: type) -> Self | NDArray[_T]:
        return self if tree is None else tree._arrays[self.name][: tree.size]

    def __set__(self, tree: Tree, values: ArrayLike) -> None:
        tree._arrays[self.name][: tree.size] = values

    def column(self, rows: int) -> NDArray[_T]:
        """An array of new nodes."""
        return np.full(rows, self.fill, self.dtype)


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
    """Nodes are rows of arrays `[size]`; node 0, the root, is the prompt. Parents come before their children.

    The children of a node were drawn from p, or enumerated: found whatever their p. Where a rollout came to its
    answer, and all allowed labels were enumerated, its node is closed; below it `log_prior` is the share of the
    labels' mass, so that the children of a node hold all of it, and one end without a token stands for the mass of
    all other answers.
    """

    parent = _Field(np.int32, ROOT)
    """The root is its own."""
    token = _Field(np.int32, NO_TOKEN)
    """Leads here from the parent; none at the root, and where no allowed answer follows."""
    depth = _Field(np.int32, 0)
    """Tokens from the root."""
    log_prior = _Field(np.float64, 0.0)
    """log p(token | parent) under the sampling distribution."""
    logprob = _Field(np.float64, 0.0)
    """The sum of `log_prior` from the root to here: log p of the path."""
    entropy = _Field(np.float64, np.nan)
    """Of the distribution that the token was drawn from, in nats; NaN where it was not kept."""
    taken = _Field(np.float64, 0.0)
    """The share of p that the children here hold together, 0 … 1."""
    draws = _Field(np.int32, 0)
    """How often this child was drawn from its parent."""
    visits = _Field(np.int32, 0)
    """Scored rollouts that passed through, or whose labels are here."""
    pending = _Field(np.int32, 0)
    """Rollouts that passed through and are under way, or not scored yet."""
    value = _Field(np.float64, np.nan)
    """V̂; NaN until a rollout through the node has been scored."""
    reward = _Field(np.float64, np.nan)
    """Of a finished answer; NaN elsewhere."""
    terminal = _Field(np.bool_, False)
    """The answer ends here, by an end token (`finished`) or by its length."""
    finished = _Field(np.bool_, False)
    """It ended by an end token."""
    enumerated = _Field(np.bool_, False)
    """Found with certainty, not drawn."""
    closed = _Field(np.bool_, False)
    """A rollout came to its answer here: no token is drawn, the labels are enumerated."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self._arrays: dict[str, NDArray[Any]] = {
            name: field.column(max(size, 256)) for name, field in _FIELDS.items()
        }

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
        entropies: NDArray[np.float64] | float = np.nan,
        enumerated: bool = False,
    ) -> NDArray[np.int32]:
        """Add a token at each parent: int32 `[R]`, the children, made where they are new. Rows may repeat.

        Numbers of new children follow each other in the order of the rows.
        """
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
            self.entropy[new] = np.broadcast_to(entropies, tokens.shape)[fresh]
            self.enumerated[new] = enumerated
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

        All of it where a rollout under way is now: another one may come to go along with it, and part later. A
        node without children is else an answer's end, or was given up.
        """
        rest = 1.0 - self.taken
        front = (self.pending > 0) & ~self.terminal & ~self.closed
        rest[(rest < NEGLIGIBLE) | (self.taken == 0) & ~front] = 0.0
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
        return [token for token in self.token[self.line(node)].tolist() if token != NO_TOKEN]

    def line(self, node: int) -> NDArray[np.int32]:
        """The nodes from the first below the root down to `node`."""
        nodes, parent = [], self.parent
        while node != ROOT:
            nodes.append(node)
            node = int(parent[node])
        return np.array(nodes[::-1], np.int32)

    def ancestors(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        """`nodes` and all nodes above them, each once, in ascending order (parents before children)."""
        seen = np.zeros(self.size, bool)
        at = np.unique(nodes)
        while at.size:
            seen[at] = True
            at = np.unique(self.parent[at])
            at = at[~seen[at]]
        return np.flatnonzero(seen).astype(np.int32)

    def levels_below(self, nodes: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        """The nodes below distinct `nodes`, none of which is below another: children first, then theirs …"""
        while (nodes := self.children(nodes).nodes).size:
            yield nodes

    def rationale(self, node: int) -> int:
        """Where the rollout that found `node` ended: the first closed node on the way, or the node itself."""
        line = np.concatenate([[ROOT], self.line(node)])
        closed = self.closed[line]
        return int(line[closed.argmax()]) if closed.any() else node

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
        for own in (
            "token",
            "log_prior",
            "entropy",
            "draws",
            "enumerated",
        ):  # of the way here
            getattr(tree, own)[ROOT] = _FIELDS[own].fill
        return tree, number

    def to_dict(self) -> dict[str, list[Any]]:
        """Every field as a list, ready for JSON: NaN is None, true and false are 1 and 0."""
        fields: dict[str, list[Any]] = {}
        for name, field in _FIELDS.items():
            array = getattr(self, name)
            fields[name] = (array.astype(np.int8) if field.dtype is np.bool_ else array).tolist()
            if field.dtype is np.float64 and np.isnan(array).any():
                fields[name] = [None if value != value else value for value in fields[name]]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, list[Any]]) -> Tree:
        """The inverse of `to_dict`; a field that an earlier version did not have is that of new nodes."""
        tree = cls(len(fields["parent"]))
        for name in _FIELDS.keys() & fields.keys():
            # NumPy reads None as NaN where the dtype is float.
            setattr(tree, name, np.array(fields[name], _FIELDS[name].dtype))
        return tree

    def _take(self, nodes: NDArray[np.int64]) -> Tree:
        """Rows of all fields as they are."""
        tree = Tree(len(nodes))
        for name in _FIELDS:
            setattr(tree, name, getattr(self, name)[nodes])
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
        for name, array in self._arrays.items():
            if self.size > len(array):
                self._arrays[name] = np.concatenate([array, _FIELDS[name].column(max(count, len(array)))])


_FIELDS: dict[str, _Field[Any]] = {name: field for name, field in vars(Tree).items() if isinstance(field, _Field)}
