"""Backup rules: from the rewards of finished answers to the values of the nodes above them.

A rule visits every node above the given leaves once, deepest first, a whole depth at a time.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.search.tree import Children, Tree


class Backup(Protocol):
    """Update `tree.value` above `leaves`; `inverse_temperature` is λ."""

    def __call__(self, tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None: ...


def soft_prior(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
    """Soft Bellman backup with the prior: V̂(s) = (1/λ) log [Σ_E p(a|s) exp(λ V̂(s·a)) + (1 − p_E) Z_rest].

    E are the scored children and p_E their mass. The rest is worth what E is worth, Z_rest = Σ_E p exp(λV̂) / p_E,
    so that V̂(s) = (1/λ) log (Σ_E p exp(λV̂) / p_E).
    """
    for nodes, children in _upwards(tree, leaves):
        scored = ~np.isnan(tree.value[children.nodes])
        mass = _logsumexp(np.where(scored, tree.log_prior[children.nodes], -np.inf), children)
        weighted = _logsumexp(prior_shares(tree, children, inverse_temperature), children)
        with np.errstate(invalid="ignore"):
            node_value = (weighted - mass) / inverse_temperature
        tree.value[nodes] = np.where(np.isfinite(mass), node_value, np.nan)


def soft_mean(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
    """Soft backup over sampled children (DTS): V̂(s) = (1/λ) log mean_c exp(λ V̂(c)), with multiplicity.

    The children were drawn from p, so the prior is in the sampling already and is not used again.
    """
    for nodes, children in _upwards(tree, leaves):
        scored = ~np.isnan(tree.value[children.nodes])
        total = np.add.reduceat(np.where(scored, tree.draws[children.nodes], 0), children.starts)
        weighted = _logsumexp(draw_shares(tree, children, inverse_temperature), children)
        with np.errstate(divide="ignore", invalid="ignore"):
            node_value = (weighted - np.log(total)) / inverse_temperature
        tree.value[nodes] = np.where(total > 0, node_value, np.nan)


def mean(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
    """Mean backup (MCTS): the average reward of the rollouts that passed through, V̂(s) = Σ_c n_c V̂(c) / Σ_c n_c."""
    for nodes, children in _upwards(tree, leaves):
        value = tree.value[children.nodes]
        visits = np.where(np.isnan(value), 0, tree.visits[children.nodes]).astype(np.float64)
        total = np.add.reduceat(visits, children.starts)
        weighted = np.add.reduceat(visits * np.nan_to_num(value), children.starts)
        tree.value[nodes] = np.where(total > 0, weighted / np.maximum(total, 1), np.nan)


def prior_shares(tree: Tree, children: Children, inverse_temperature: float) -> NDArray[np.float64]:
    """How π* splits over scored children, ∝ p exp(λ V̂): log weights `[C]`, −inf for unscored ones."""
    value = tree.value[children.nodes]
    weights = tree.log_prior[children.nodes] + inverse_temperature * np.nan_to_num(value)
    return np.where(np.isnan(value), -np.inf, weights)


def draw_shares(tree: Tree, children: Children, inverse_temperature: float) -> NDArray[np.float64]:
    """The same for sampled children: ∝ draws · exp(λ V̂)."""
    value = tree.value[children.nodes]
    with np.errstate(divide="ignore"):
        weights = np.log(tree.draws[children.nodes]) + inverse_temperature * np.nan_to_num(value)
    return np.where(np.isnan(value), -np.inf, weights)


def leaf_weights(
    tree: Tree,
    inverse_temperature: float,
    shares: Callable[[Tree, Children, float], NDArray[np.float64]] = prior_shares,
) -> NDArray[np.float64]:
    """Each node's share of π*, float64 `[size]`: 1 at the root, split over the scored children at every node.

    The share of what is unexplored goes to what is explored; on scored leaves the weights sum to 1.
    """
    weights = np.zeros(tree.size)
    weights[0] = 1.0
    for nodes, children in _levels(tree, np.arange(tree.size, dtype=np.int32)):
        log_shares = shares(tree, children, inverse_temperature)
        total = _logsumexp(log_shares, children)
        with np.errstate(invalid="ignore"):
            share = np.exp(log_shares - total[children.owner])
        weights[children.nodes] = weights[nodes][children.owner] * np.nan_to_num(share)
    return weights


def _levels(tree: Tree, nodes: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.int32], Children]]:
    """Those of `nodes` that have children, with them, a depth at a time, from the root down."""
    nodes = nodes[np.argsort(tree.depth[nodes], kind="stable")]
    for level in np.split(nodes, np.flatnonzero(np.diff(tree.depth[nodes])) + 1):
        children = tree.children(level)
        inner = children.counts > 0
        if inner.any():
            yield level[inner], Children(children.nodes, children.counts[inner], children.starts[inner])


def _upwards(tree: Tree, leaves: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.int32], Children]]:
    """The inner nodes above `leaves`, deepest level first, with their children."""
    return reversed(list(_levels(tree, tree.ancestors(leaves))))


def _logsumexp(log_weights: NDArray[np.float64], children: Children) -> NDArray[np.float64]:
    """log Σ exp over each parent's children: `[C]` to `[P]`; −inf where all are."""
    top = np.maximum.reduceat(log_weights, children.starts)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return top + np.log(np.add.reduceat(np.exp(log_weights - top[children.owner]), children.starts))
