"""Selection rules: where in the tree the next rollouts start."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.search.backup import NEGLIGIBLE
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.tree import ROOT, Tree

_Child = Callable[[NDArray[np.int32], NDArray[np.float64], int, float], int]
"""(children, their values, visits of the parent, a uniform number) -> index of the child to go to."""


class Select(Protocol):
    """Choose where walkers stop: int32 `[W]`.

    Each walker ends at a node to draw a new child from, or at a finished answer. `uniforms` is float64
    `[W, D]` with D above the tree's depth: one number a walker and level.
    """

    def __call__(self, tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]: ...


def at_root(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """Every rollout starts at the prompt (best-of-N)."""
    return np.full(len(uniforms), ROOT, np.int32)


def open_share(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """MaxEnt-TS: walk down by π̂*, over what is still open.

    At node s a walker goes to child a with weight p(a|s) exp(λ V̂(s·a)), of which only the part below a that no
    rollout has taken counts, or stops to open a new child with weight (1 − p_E) Z_rest. So every rollout brings
    an answer not seen before, drawn from the current estimate of π*. A share `config.explore` of the walkers
    follows p instead of π̂*.
    """
    greedy = uniforms[:, -1] >= config.explore
    at = np.zeros(len(uniforms), np.int32)
    worth = np.zeros(len(uniforms))  # λ V̂ of the last scored node on the way
    walking = np.arange(len(uniforms))
    level = 0
    while walking.size:
        nodes = at[walking]
        value = tree.value[nodes]
        worth[walking] = np.where(
            np.isnan(value), worth[walking], config.inverse_temperature * np.nan_to_num(value)
        )
        children = tree.children(nodes)
        owner = children.owner
        prior = tree.log_prior[children.nodes]
        rest = 1.0 - np.bincount(owner, np.exp(prior), minlength=len(nodes))
        rest[(rest < NEGLIGIBLE) | tree.exhausted[nodes]] = 0.0
        by_value = greedy[walking]
        scored = ~np.isnan(tree.value[children.nodes])
        with np.errstate(divide="ignore"):
            mass = np.log(tree.open_mass[children.nodes])
            valued = np.where(scored, tree.open_value[children.nodes], mass + worth[walking][owner])
            down = prior + np.where(by_value[owner], valued, mass)
            stop = np.log(rest) + np.where(by_value, worth[walking], 0.0)
        pick = _choose(stop, down, owner, children.starts, uniforms[walking, level])
        moving = pick >= 0
        at[walking[moving]] = children.nodes[pick[moving]]
        walking = walking[moving]
        walking = walking[~tree.terminal[at[walking]]]
        level += 1
    return at


def _choose(
    stop: NDArray[np.float64],
    down: NDArray[np.float64],
    owner: NDArray[np.int64],
    starts: NDArray[np.int64],
    uniforms: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Draw one option a walker from its log weights: −1 to stop, else an index into `down`."""
    top = stop.copy()
    np.maximum.at(top, owner, down)
    top = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(down - top[owner])
    halt = np.exp(stop - top)
    total = halt + np.bincount(owner, weights, minlength=len(stop))
    target = uniforms * total - halt
    running = np.cumsum(weights)
    before = np.concatenate([[0.0], running])[starts]
    passed = np.bincount(owner, running - before[owner] <= target[owner], minlength=len(stop)).astype(np.int64)
    last = starts + np.bincount(owner, minlength=len(stop)) - 1  # rounding must not step past the last child
    return np.where((target < 0) | (total == 0), -1, np.minimum(starts + passed, last))


def widened_boltzmann(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """DTS: progressive widening, then children ∝ draws · exp(λ V̂)."""

    def child(nodes: NDArray[np.int32], value: NDArray[np.float64], _: int, uniform: float) -> int:
        weights = np.log(tree.draws[nodes]) + config.inverse_temperature * value
        weights = np.exp(weights - weights.max()).cumsum()
        return int(np.searchsorted(weights, uniform * weights[-1], side="right"))

    return _widened(tree, uniforms, config, child)


def widened_uct(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig) -> NDArray[np.int32]:
    """DTS* and MCTS: progressive widening, then the child with the largest V̂ + c √(ln N / n)."""

    def child(nodes: NDArray[np.int32], value: NDArray[np.float64], passed: int, _: float) -> int:
        visits = tree.visits[nodes] + tree.pending[nodes]
        return int(np.argmax(value + config.exploration * np.sqrt(np.log(passed) / np.maximum(visits, 1))))

    return _widened(tree, uniforms, config, child)


def _widened(tree: Tree, uniforms: NDArray[np.float64], config: SearchConfig, child: _Child) -> NDArray[np.int32]:
    """Walk each walker down in turn, and leave a pending visit, so that the next one sees it.

    A node takes a new draw while its draws are fewer than C Nᵅ (Couëtoux et al., 2011), N its visits.
    """
    stops = np.zeros(len(uniforms), np.int32)
    for walker, row in enumerate(uniforms):
        at, value = ROOT, 0.0
        while not tree.terminal[at]:
            value = value if np.isnan(tree.value[at]) else float(tree.value[at])
            children = tree.children(np.array([at], np.int32)).nodes
            passed = max(int(tree.visits[at] + tree.pending[at]), 1)
            if not len(children) or tree.draws[children].sum() < config.widening * passed**config.widening_power:
                break
            values = tree.value[children]
            pick = child(children, np.where(np.isnan(values), value, values), passed, float(row[tree.depth[at]]))
            at = int(children[min(pick, len(children) - 1)])
        stops[walker] = at
        tree.count_along(tree.pending, stops[walker : walker + 1], 1)
    tree.count_along(tree.pending, stops, -1)  # the engine counts the walkers it starts
    return stops
