"""The one loop of every search: select, decode, score, back up.

Walkers are rollouts under way. All of them take one token in one forward pass; those that meet at a node share
it. One that finishes leaves the batch and the next one takes its place; when a wave's worth has finished, it is
scored by one call and backed up in one pass.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.decoding import TreeDecoder
from mlx_tslm.sampling import Sampling
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.presets import Method
from mlx_tslm.search.tree import ROOT, Tree

Score = Callable[[NDArray[np.int32]], NDArray[np.float64]]
"""Finished answers (their last nodes, int32 [n]) -> rewards, float64 [n]."""


@dataclass
class Engine:
    """A search that can go on.

    Attributes:
        decoder: decodes nodes; its ids are the tree's.
        tree: what is known.
        method: the rules.
        config: the settings.
        eos: the tokens that end an answer.
        score: the reward.
        leaves: the last node of every finished rollout, in the order they were scored.
        seconds: time by phase: "select", "decode", "reward", "backup".
        waves: how often rollouts were scored.
    """

    decoder: TreeDecoder
    tree: Tree
    method: Method
    config: SearchConfig
    eos: frozenset[int]
    score: Score
    leaves: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waves: int = 0

    def __post_init__(self) -> None:
        self._sampling = Sampling(self.config.temperature, self.config.top_k, self.config.top_p)
        self._next = len(self.leaves)  # numbers the rollouts, and with the seed their randomness
        self._rollout = np.zeros(0, np.int64)  # the walkers: which rollout,
        self._node = np.zeros(0, np.int32)  # where it is,
        self._opens = np.zeros(0, bool)  # and whether it must leave the tree with its next token
        self._uniforms: dict[int, NDArray[np.float64]] = {}
        self._pending: list[int] = []

    def run(self, budget: int, on_step: Callable[[], bool] = lambda: True) -> None:
        """Finish rollouts until there are `budget` in all, or nothing is left to explore.

        `on_step` is called after every forward pass; when it answers False no rollout is started any more, and
        the search ends with the wave under way.
        """
        going = True
        while True:
            if going:
                self._start(budget)
            if len(self._pending) >= self.config.width or not self._node.size:
                if not self._pending:
                    return
                self._finish_wave()
                continue
            self._step(budget)
            going = on_step() and going

    @property
    def walkers(self) -> int:
        """Rollouts under way."""
        return int(self._node.size)

    def _start(self, budget: int) -> None:
        """Fill the free places of the batch with new walkers."""
        room = min(self.config.width, budget - len(self.leaves) - len(self._pending)) - self._node.size
        if self.method.extend == "beam":  # one walker, which the joint extension multiplies
            room = int(not self._next)
        if room <= 0 or (self.tree.size > 1 and self.method.fresh and self._all_open_mass() == 0):
            return
        with self._timed("select"):
            rollouts = range(self._next, self._next + room)
            self._next += room
            for rollout in rollouts:
                self._uniforms[rollout] = self._draw_uniforms(rollout)
            levels = self.config.max_tokens + 2
            rows = np.stack([self._uniforms[rollout][:levels] for rollout in rollouts])
            stops = self.method.select(self.tree, rows, self.config)
            self.tree.count_along(self.tree.pending, stops, 1)
        done = self.tree.terminal[stops]
        self._pending += stops[done].tolist()
        with self._timed("decode"):
            self._decode_missing(stops[~done])
        self._rollout = np.concatenate([self._rollout, np.array(rollouts)[~done]])
        self._node = np.concatenate([self._node, stops[~done]])
        self._opens = np.concatenate([self._opens, np.full((~done).sum(), self.method.fresh)])

    def _all_open_mass(self) -> float:
        """What is left to explore, rollouts under way taken as explored."""
        if self._node.size:
            self.method.backup(self.tree, self._node, self.config.inverse_temperature)
        return float(self.tree.open_mass[ROOT])

    def _draw_uniforms(self, rollout: int) -> NDArray[np.float64]:
        """A rollout's own random numbers: for each level one for selection, then one for the token."""
        key = np.array([self.config.seed, rollout], np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).random(2 * (self.config.max_tokens + 2))

    def _decode_missing(self, nodes: NDArray[np.int32]) -> None:
        """Decode what a resumed tree lacks above and at `nodes`, a level at a time."""
        needed = self.tree.ancestors(nodes)
        needed = needed[~self.decoder.is_decoded(needed)]
        for depth in np.unique(self.tree.depth[needed]):
            level = needed[self.tree.depth[needed] == depth]
            self.decoder.step(level, self.tree.parent[level], self.tree.token[level])

    def _step(self, budget: int) -> None:
        """Give every walker its next token."""
        with self._timed("decode"):
            nodes, at = np.unique(self._node, return_inverse=True)
            new = nodes[~self.decoder.is_decoded(nodes)]
            if new.size:
                self.decoder.step(new, self.tree.parent[new], self.tree.token[new])
            source, tokens, log_priors = self._extend(self.decoder.logits(nodes), at, budget)
        with self._timed("select"):
            arrived: list[int] = []
            kept: list[int] = []
            exhausted: list[int] = []
            for walker, token, log_prior in zip(source.tolist(), tokens.tolist(), log_priors.tolist(), strict=True):
                parent = int(self._node[walker])
                if log_prior == -np.inf:  # rounding had left a remainder of probability where there is none
                    exhausted.append(parent)
                    continue
                finished = token in self.eos
                terminal = finished or self.tree.depth[parent] + 1 == self.config.max_tokens
                child = self.tree.add(parent, token, log_prior, terminal, finished)
                self.tree.pending[child] += 1
                (self._pending if terminal else arrived).append(child)
                if not terminal:
                    kept.append(walker)
            if exhausted:
                nodes = np.array(exhausted, np.int32)
                self.tree.exhausted[nodes] = True
                self.tree.count_along(self.tree.pending, nodes, -1)
                self.method.backup(self.tree, nodes, self.config.inverse_temperature)
            # In the order of their nodes, walkers keep their rows in the decoder's buffers.
            order = np.argsort(arrived, kind="stable")
            self._node = np.array(arrived, np.int32)[order]
            self._rollout = self._rollout[kept][order]
            self._opens = np.zeros(len(arrived), bool)

    def _extend(
        self, logits: mx.array, at: NDArray[np.int64], budget: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """Next tokens from the logits `[nodes, V]` of the walkers' nodes: (walker, token, log p) for each."""
        walkers = np.arange(len(at))
        if self.method.extend == "beam":
            return self._extend_beams(logits, budget)
        if self.method.extend == "argmax":
            log_p = self._sampling.log_probs(logits)
            tokens = mx.argmax(log_p, axis=-1, keepdims=True)
            drawn = tokens[:, 0], mx.take_along_axis(log_p, tokens, axis=-1)[:, 0]
            self.decoder.flush(*drawn)
            return walkers, np.array(drawn[0])[at], np.array(drawn[1], np.float64)[at]
        level = self.config.max_tokens + 2 + self.tree.depth[self._node]
        uniforms = np.array(
            [self._uniforms[rollout][i] for rollout, i in zip(self._rollout.tolist(), level, strict=True)],
            np.float32,
        )
        parts = []
        for group, exclude in ((np.flatnonzero(~self._opens), None), (np.flatnonzero(self._opens), self._taken())):
            if group.size:
                drawn = self._sampling.draw(logits[mx.array(at[group])], uniforms[group], exclude)
                parts.append((group, *drawn))
        self.decoder.flush(*(array for _, *drawn in parts for array in drawn))
        return (
            np.concatenate([group for group, _, _ in parts]),
            np.concatenate([np.array(tokens) for _, tokens, _ in parts]),
            np.concatenate([np.array(log_p, np.float64) for _, _, log_p in parts]),
        )

    def _taken(self) -> NDArray[np.int32] | None:
        """The tokens that the walkers which must open a child may not draw: int32 `[R, K]`, rows filled up."""
        children = self.tree.children(self._node[self._opens])
        if not children.counts.any():
            return None
        taken = np.zeros((len(children.counts), int(children.counts.max())), np.int32)
        for row, start, count in zip(taken, children.starts, children.counts, strict=True):
            tokens = self.tree.token[children.nodes[start : start + count]]
            row[:count] = tokens
            row[count:] = tokens[-1]
        return taken

    def _extend_beams(
        self, logits: mx.array, budget: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        log_p = self._sampling.log_probs(logits)
        so_far = np.array([self.tree.log_probability(int(node)) for node in self._node], np.float32)
        vocabulary = log_p.shape[-1]
        totals = (log_p + mx.array(so_far)[:, None]).reshape(-1)
        beams = min(budget - len(self.leaves) - len(self._pending), totals.size)
        best = mx.argpartition(-totals, beams - 1)[:beams]
        self.decoder.flush(best, log_p)
        chosen = np.sort(np.array(best))
        walkers, tokens = np.divmod(chosen, vocabulary)
        log_priors = np.array(mx.take(log_p.reshape(-1), mx.array(chosen)), np.float64)
        possible = log_priors > -np.inf
        self._rollout = np.zeros(len(self._node), np.int64)
        return walkers[possible], tokens[possible].astype(np.int32), log_priors[possible]

    def _finish_wave(self) -> None:
        """Score what has finished, and back it up."""
        leaves = np.array(self._pending, np.int32)
        unscored = np.unique(leaves[np.isnan(self.tree.reward[leaves])])
        if unscored.size:
            with self._timed("reward"):
                rewards = self.score(unscored)
            self.tree.reward[unscored] = rewards
            self.tree.value[unscored] = rewards
        with self._timed("backup"):
            self.tree.count_along(self.tree.visits, leaves, 1)
            self.tree.count_along(self.tree.pending, leaves, -1)
            above = np.concatenate([leaves, self._node])
            self.method.backup(self.tree, above, self.config.inverse_temperature)
        self.leaves += self._pending
        self._pending = []
        self.waves += 1

    def _timed(self, phase: str) -> "_Timer":
        return _Timer(self.seconds, phase)


class _Timer:
    def __init__(self, seconds: dict[str, float], phase: str) -> None:
        self._seconds, self._phase = seconds, phase

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._phase] += time.perf_counter() - self._started
