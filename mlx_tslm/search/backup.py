"""Backup rules: from the rewards of finished answers to the values of the nodes above them, and to their weights.

What the children of a node stand for is said by their weights w, which a rule of their own makes (`calibrated`,
`counted`). Most nodes have one child, whose value is theirs: only where paths part is there anything to compute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.search.tree import NEGLIGIBLE, ROOT, Children, Tree

Weigh = Callable[[Tree, Children], NDArray[np.float64]]
"""log w of children, up to a constant a parent: float64 `[C]`, −inf for those without a value."""


class Backup(Protocol):
    """Update `tree.value` above `leaves`; `inverse_temperature` is λ."""

    def __call__(self, tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None: ...


def soft_prior(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
    """Soft Bellman backup over distinct children: V̂(s) = (1/λ) log Σ_a w(a) exp(λ V̂(s·a)), w from `calibrated`.

    What is unexplored is worth what the drawn children are worth.
    """
    back_up(tree, leaves, partial(soft_value, inverse_temperature=inverse_temperature), calibrated)


def soft_mean(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
    """Soft backup over sampled children (DTS): V̂(s) = (1/λ) log mean_c exp(λ V̂(c)), with multiplicity.

    The children were drawn from p, so the prior is in the sampling already and is not used again.
    """
    back_up(tree, leaves, partial(soft_value, inverse_temperature=inverse_temperature), counted)


def mean(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
    """Mean backup (MCTS): the average reward of the rollouts that passed through, V̂(s) = Σ_c n_c V̂(c) / Σ_c n_c."""

    def visited(tree: Tree, children: Children) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            return _own_or_prior(tree, children, np.log(tree.visits[children.nodes]))

    back_up(tree, leaves, _mean_value, visited)


def calibrated(tree: Tree, children: Children) -> NDArray[np.float64]:
    """What each child without repetition stands for: `Weigh`, with Σ w = 1 where anything was drawn.

    Enumerated children stand for themselves, w = p. Drawn ones share what is left, each by its mass over the
    probability of having been found: w = p / (1 − exp(−t p)), with the t for which Σ w = 1. These are the weights
    of Horvitz and Thompson (1952) with the inclusion probabilities of successive sampling (Rosén, 1972), calibrated
    to the known total. Where nothing is unexplored t is infinite and w = p; where p is small for all, they share
    evenly, as draws do.
    """
    scored = ~np.isnan(tree.value[children.nodes])
    drawn = scored & ~tree.enumerated[children.nodes]
    prior = np.exp(tree.log_prior[children.nodes])
    log_w = np.where(scored, tree.log_prior[children.nodes], -np.inf)
    target = 1 - np.add.reduceat(np.where(scored & ~drawn, prior, 0.0), children.starts)
    unseen = target - np.add.reduceat(np.where(drawn, prior, 0.0), children.starts)
    counts = np.add.reduceat(drawn.astype(np.int64), children.starts)
    owner = children.owner
    alone = drawn & ((counts == 1) & (unseen > NEGLIGIBLE))[owner]
    log_w[alone] = np.log(target[owner[alone]])
    several = (counts > 1) & (unseen > NEGLIGIBLE)
    if several.any():
        at = drawn & several[owner]
        counts = counts[several]
        log_w[at] = _calibrate(prior[at], np.cumsum(counts) - counts, counts, unseen[several])
    return log_w


def _calibrate(
    prior: NDArray[np.float64], starts: NDArray[np.int64], counts: NDArray[np.int64], unseen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """log of p / (1 − exp(−t p)), t such that at every node Σ p / (1 − exp(−t p)) = Σ p + `unseen`.

    That is Σ q = unseen with q = p / (exp(t p) − 1), and log Σ q is convex and falls as t grows: Newton's steps
    from a t that is too small never pass the root.
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    with np.errstate(over="ignore"):
        # Two bounds from below: q ≥ 1/t − p/2, and Σ q ≥ each q.
        t = counts / (unseen + np.add.reduceat(prior, starts) / 2)
        single = np.log1p(prior / unseen[owner]) / np.maximum(prior, np.finfo(float).tiny)
        t = np.maximum(t, np.maximum.reduceat(single, starts))
        for _ in range(100):
            x = t[owner] * prior
            q = np.where(x > 1e-8, x / np.maximum(np.expm1(x), 1e-8), 1 - x / 2) / t[owner]
            total = np.add.reduceat(q, starts)
            step = np.log(total / unseen) * total / np.add.reduceat(q * (q + prior), starts)
            t = t + step
            if (np.abs(step) < 1e-12 * t).all():
                break
        x = t[owner] * prior
        return np.log(np.where(x > 1e-8, x / np.maximum(-np.expm1(-x), 1e-9), 1 + x / 2) / t[owner])


def counted(tree: Tree, children: Children) -> NDArray[np.float64]:
    """What each sampled child stands for: `Weigh`, its draws; enumerated ones stand for their p."""
    with np.errstate(divide="ignore"):
        return _own_or_prior(tree, children, np.log(tree.draws[children.nodes]))


def _own_or_prior(tree: Tree, children: Children, own: NDArray[np.float64]) -> NDArray[np.float64]:
    nodes = children.nodes
    log_w = np.where(tree.enumerated[nodes], tree.log_prior[nodes], own)
    return np.where(np.isnan(tree.value[nodes]), -np.inf, log_w)


def leaf_weights(tree: Tree, inverse_temperature: float, weigh: Weigh = calibrated) -> NDArray[np.float64]:
    """Each node's share of π*, float64 `[size]`: 1 at the root, split over the scored children at every node.

    The split is ∝ w(a) exp(λ V̂(s·a)), with V̂ the soft value that belongs to `weigh`. On scored leaves the weights
    sum to 1. It is computed from λ (r − max r), not from the values, so that it holds for every λ.
    """
    log_z = np.full(tree.size, -np.inf)
    scored = np.flatnonzero(~np.isnan(tree.reward))
    weights = np.zeros(tree.size)
    weights[ROOT] = 1.0
    if not scored.size:
        return weights
    with np.errstate(over="ignore"):
        log_z[scored] = inverse_temperature * (tree.reward[scored] - tree.reward[scored].max())
    skeleton = Skeleton.of(tree)
    splits = []
    for nodes, children in reversed(skeleton.levels):
        log_w = weigh(tree, children)
        of_all = log_w + log_z[skeleton.end[children.nodes]]
        share, total = _normalised(of_all, children)
        of_weights = _normalised(log_w, children)[1]
        log_z[nodes] = np.where(total > -np.inf, total - np.where(total > -np.inf, of_weights, 0.0), -np.inf)
        splits.append((nodes, children, share))
    weights[skeleton.end[ROOT]] = 1.0
    for nodes, children, share in reversed(splits):
        weights[skeleton.end[children.nodes]] = weights[nodes][children.owner] * share
    return weights[skeleton.end]


@dataclass(frozen=True)
class Skeleton:
    """Where the paths of a tree part.

    Attributes:
        end: int32 `[size]`, for each node the first one at or below it that has not exactly one child.
        levels: those of them that have several children, with these, from the root down: a node stands behind all
            that are above it.
    """

    end: NDArray[np.int32]
    levels: list[tuple[NDArray[np.int32], Children]]

    @classmethod
    def of(cls, tree: Tree, inside: NDArray[np.bool_] | None = None) -> "Skeleton":
        """The skeleton; its levels without the nodes that are not `inside`, bool `[size]`."""
        numbers = np.arange(tree.size, dtype=np.int32)
        count = np.bincount(tree.parent[1:], minlength=tree.size)
        child = numbers.copy()
        child[tree.parent[1:]] = numbers[1:]
        end = np.where(count == 1, child, numbers)
        while True:  # each round doubles the distance looked at
            further = end[end]
            if np.array_equal(further, end):
                break
            end = further
        wanted = count > 1 if inside is None else (count > 1) & inside
        levels, nodes = [], end[:1]
        while (nodes := nodes[wanted[nodes]]).size:
            children = tree.children(nodes)
            levels.append((nodes, children))
            nodes = end[children.nodes]
        return cls(end, levels)


_Value = Callable[[NDArray[np.float64], NDArray[np.float64], Children], NDArray[np.float64]]
"""log w `[C]` and values `[C]` of children -> their parents' values `[P]`."""


def back_up(tree: Tree, leaves: NDArray[np.int32], value_of: _Value, weigh: Weigh) -> None:
    above = tree.ancestors(leaves)
    inside = np.zeros(tree.size, bool)
    inside[above] = True
    skeleton, value = Skeleton.of(tree, inside), tree.value
    for nodes, children in reversed(skeleton.levels):
        value[children.nodes] = value[skeleton.end[children.nodes]]
        value[nodes] = value_of(weigh(tree, children), value[children.nodes], children)
    value[above] = value[skeleton.end[above]]


def soft_value(
    log_w: NDArray[np.float64], value: NDArray[np.float64], children: Children, inverse_temperature: float
) -> NDArray[np.float64]:
    """(1/λ) log Σ w exp(λ V̂) / Σ w of each parent's children, float64 `[P]`; NaN where all weights are 0.

    It is counted from the largest value, and where λ times the spread is small by `expm1` and `log1p`, so that it
    stays between the smallest and the largest for every λ.
    """
    found = log_w > -np.inf
    top = np.maximum.reduceat(np.where(found, value, -np.inf), children.starts)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        below = np.where(found, value - top[children.owner], 0.0)  # at most 0, and what floats hold at least
        below = np.maximum(below, np.finfo(float).min)
        scaled = inverse_temperature * below
        w, total = _normalised(log_w, children)
        spread = -np.minimum.reduceat(scaled, children.starts)
        wide = _normalised(log_w + scaled, children)[1] - total
        narrow = np.log1p(np.add.reduceat(w * np.expm1(scaled), children.starts))
        average = np.add.reduceat(np.where(w > 0, w * below, 0.0), children.starts)
        over = np.where(spread > 0.5, wide, narrow) / inverse_temperature
        return np.where(np.isfinite(top), top + np.where(spread < 1e-9, average, over), np.nan)


def _mean_value(log_w: NDArray[np.float64], value: NDArray[np.float64], children: Children) -> NDArray[np.float64]:
    w, total = _normalised(log_w, children)
    average = np.add.reduceat(np.where(w > 0, w * value, 0.0), children.starts)
    return np.where(np.isfinite(total), average, np.nan)


def _normalised(log_w: NDArray[np.float64], children: Children) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """w / Σ w among each parent's children `[C]`, and log Σ w `[P]`; 0 and −inf where all are 0."""
    top = np.maximum.reduceat(log_w, children.starts)
    top = np.where(np.isfinite(top), top, 0.0)
    w = np.exp(log_w - top[children.owner])
    total = np.add.reduceat(w, children.starts)
    with np.errstate(divide="ignore"):
        return w / np.maximum(total, np.finfo(float).tiny)[children.owner], top + np.log(total)
