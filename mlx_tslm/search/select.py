"""Selection rules: where in the tree the next rollouts start."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.tree import ROOT, Tree

_Child = Callable[[NDArray[np.int32], NDArray[np.float64], int, float], int]
"""(children, their values, visits of the parent, a uniform number) -> index of the child to go to."""


class Select(Protocol):
    """Choose where walkers stop: int32 `[W]`.

    Each walker ends at a node to draw a child from, at a closed node, or at a finished answer. `uniforms` is
    float64 `[W, D]` with D above the tree's depth: one number a walker and level, and one more.
    """

    def __call__(self, tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]: ...


def at_root(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """Every rollout starts at the prompt (best-of-N)."""
    return np.full(len(uniforms), ROOT, np.int32)


def unexplored(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """MaxEnt-TS: stop where the unexplored mass of π̂* lies.

    At node s a walker goes to child a with weight p(a|s) exp(λ V̂(s·a)), of which only the part below a that no
    rollout has taken counts, or stops to open a new child with weight (1 − p_E) Z_rest. The products along the
    way telescope: it stops at s with probability ∝ p(s) (1 − p_E(s)) exp(λ V̂(s)), where p(s) is that of the path
    from the root. So every rollout brings an answer not seen before, drawn from the present estimate of π*. What
    rollouts under way will find is not seen yet: a walker may join one where it is, and part from it further down.
    A node not scored yet counts at the value of the nearest scored one above it.

    A share `config.explore` of the walkers follows p instead of π̂*, which is λ = 0 here.
    """
    if tree.size == 1:
        return at_root(tree, uniforms, config)
    with np.errstate(divide="ignore"):
        by_prior = tree.logprob + np.log(tree.rest())
    value, open_ = np.nan_to_num(tree.value[_nearest_scored(tree)]), np.isfinite(by_prior)
    below = np.minimum(_below(value, value[open_].max()), 0)  # where nothing is open it does not matter
    explores = uniforms[:, -1] < config.explore
    stops = np.empty(len(uniforms), np.int32)
    for walkers, inverse_temperature in ((explores, 0.0), (~explores, config.inverse_temperature)):
        if not walkers.any():
            continue
        with np.errstate(over="ignore"):
            weights = by_prior + inverse_temperature * below
        cumulative = np.exp(weights - weights.max()).cumsum()
        stops[walkers] = np.searchsorted(cumulative, uniforms[walkers, 0] * cumulative[-1], side="right")
    return stops


def _below(value: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Values from the top one down; where floats cannot hold that, the least that they hold."""
    with np.errstate(over="ignore"):
        return np.maximum(value - top, np.finfo(float).min)


def _nearest_scored(tree: Tree) -> NDArray[np.int32]:
    """For each node itself or the nearest one above that has a value; the root where none has."""
    up = np.where(np.isnan(tree.value), tree.parent, np.arange(tree.size, dtype=np.int32))
    while True:  # each round doubles the distance looked at
        further = up[up]
        if np.array_equal(further, up):
            return up
        up = further


def widened_boltzmann(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """DTS: progressive widening, then children ∝ draws · exp(λ V̂)."""

    def child(nodes: NDArray[np.int32], value: NDArray[np.float64], _: int, uniform: float) -> int:
        with np.errstate(over="ignore"):
            weights = np.log(tree.draws[nodes]) + config.inverse_temperature * _below(value, value.max())
        weights = np.exp(weights - weights.max()).cumsum()
        return int(np.searchsorted(weights, uniform * weights[-1], side="right"))

    return _widened(tree, uniforms, config, child)


def widened_uct(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """DTS* and MCTS: progressive widening, then the child with the largest V̂ + c √(ln N / n)."""

    def child(nodes: NDArray[np.int32], value: NDArray[np.float64], visits: int, _: float) -> int:
        passed = np.maximum(tree.visits[nodes] + tree.pending[nodes], 1)
        return int(np.argmax(value + config.exploration * np.sqrt(np.log(visits) / passed)))

    return _widened(tree, uniforms, config, child)


def _widened(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig, child: _Child) -> NDArray[np.int32]:
    """Walk each walker down in turn, and leave a pending visit, so that the next one sees it.

    A node takes a new draw while its draws are fewer than C Nᵅ (Couëtoux et al., 2011), N its visits with this
    one: so a walker never follows an old path to its end just because nobody has branched off yet.
    """
    stops = np.zeros(len(uniforms), np.int32)
    for walker, row in enumerate(uniforms):
        at, value = ROOT, 0.0
        while not (tree.terminal[at] or tree.closed[at]):
            value = value if np.isnan(tree.value[at]) else float(tree.value[at])
            visits = int(tree.visits[at] + tree.pending[at]) + 1
            children = tree.children(np.array([at], np.int32)).nodes
            if not len(children) or tree.draws[children].sum() < config.widening * visits**config.widening_power:
                break
            values = tree.value[children]
            pick = child(children, np.where(np.isnan(values), value, values), visits, float(row[tree.depth[at]]))
            at = int(children[pick])
        stops[walker] = at
        tree.count_along(tree.pending, stops[walker : walker + 1], 1)
    tree.count_along(tree.pending, stops, -1)  # the engine counts the walkers it starts
    return stops
