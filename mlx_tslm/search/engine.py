"""The one loop of every search: select, decode, score, back up.

Walkers are rollouts under way. All of them take one token in one forward pass; those that meet at a node share
it. One that finishes leaves the batch and the next one takes its place; when a wave's worth has finished, it is
scored by one call and backed up in one pass. Where every rollout must bring a new answer, walkers that end together
bring one: the others are forgotten, and new ones take their places.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import FREE, Decoder, Pipelined
from mlx_tslm.sampling import entropy
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.labels import Completer
from mlx_tslm.search.presets import Method
from mlx_tslm.search.tree import ROOT, Tree

Score = Callable[[NDArray[np.int32]], NDArray[np.float64]]
"""Finished answers (their last nodes, int32 [n]) -> rewards, float64 [n]."""

_Drawn = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]
"""Next tokens: (walker, token, log p, entropy of p) for each."""

_Draws = tuple[mx.array, mx.array, mx.array]
"""Next tokens on the device, unread: tokens, log p, entropies, `[R]` each."""


_Group = tuple[NDArray[np.int64], mx.array, mx.array, mx.array]
"""Some walkers, and their draws."""


@dataclass(frozen=True)
class _Flight:
    """A pass that was submitted before the tokens it begins with were read.

    Attributes:
        rows: int64 `[R]`; which walker each of its rows is: as they were when it was submitted, and from their move
            on for each of the first walkers its row.
        draws: the next tokens of its rows.
    """

    rows: NDArray[np.int64]
    draws: _Draws


@dataclass
class Engine:
    """A search that can go on.

    Attributes:
        decoder: decodes nodes; its ids are the tree's.
        tree: what is known. Rollouts that are pending in it are taken up again.
        method: the rules.
        config: the settings.
        max_depth: tokens of the longest path.
        eos: the tokens that end an answer.
        score: the reward.
        leaves: the last node of every finished rollout, in the order they were scored; a closed node where the
            labels behind it are its answers.
        labels: completes answers behind closed nodes; None where answers are drawn.
        started: rollouts begun so far; their numbers, with the seed, are their randomness.
        seconds: time by phase: "select", "decode", "reward", "backup".
        waves: how often rollouts were scored.
    """

    decoder: Decoder
    tree: Tree
    method: Method
    config: SearchConfig
    max_depth: int
    eos: frozenset[int]
    score: Score
    labels: Completer | None = None
    leaves: list[int] = field(default_factory=list)
    started: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waves: int = 0

    def __post_init__(self) -> None:
        self._sampling = self.config.sampling
        self._eos = np.array(sorted(self.eos), np.int32)
        here = self.tree.pending.copy()  # rollouts that are pending at a node and no further down
        np.subtract.at(here, self.tree.parent[1:], self.tree.pending[1:])
        at = np.repeat(np.arange(self.tree.size, dtype=np.int32), here)
        if self.tree.size == 1:
            self._close(np.array([ROOT], np.int32))
        ended = self._ended(at)
        self._pending: list[int] = []
        self._finish(at[ended])
        self._node = at[~ended]  # the walkers: where each is,
        self._uniforms = self._begin(len(self._node))  # and its random numbers [walkers, 2, depth + 1]
        self._flight: _Flight | None = None
        if self.leaves:  # the settings may be others than those that the values were made with
            answers = self._answers(np.unique(np.array(self.leaves, np.int32)))
            self.method.backup(self.tree, answers, self.config.inverse_temperature)

    def run(
        self,
        budget: int,
        on_step: Callable[[], bool] = lambda: True,
        settled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Finish rollouts until there are `budget` in all, or nothing is left to explore.

        `on_step` is called after every forward pass, `settled` after every wave; when the one answers False or the
        other True no rollout is started any more, and the search ends with those under way.

        Raises:
            TSLMError: the reward failed, or the model's logits are NaN. What was found before is kept.
        """
        going = not self.leaves or not settled()
        with self._timed("decode"):
            self._decode_missing(self._node)
        while True:
            if going:
                self._start(budget)
            if len(self._pending) >= self.config.width or not self._node.size:
                if not self._pending:
                    return
                self._finish_wave()
                going = going and not settled()
                continue
            self._step(budget)
            going = on_step() and going

    def answers(self) -> list[int]:
        """The answers of the finished rollouts: one each, with multiplicity; of a closed node all, once."""
        found: list[int] = []
        completed = set()
        for end in self.leaves:
            if end not in completed:
                found += self._answers(np.array([end], np.int32)).tolist()
                if self.tree.closed[end]:
                    completed.add(end)
        return found

    @property
    def walkers(self) -> int:
        """Rollouts under way."""
        return int(self._node.size)

    def _start(self, budget: int) -> None:
        """Fill the free places of the batch with new walkers."""
        room = min(self.config.width, budget - len(self.leaves) - len(self._pending)) - self._node.size
        if self.method.extend == "beam":  # one walker, which the joint extension multiplies
            room = int(not self.started)
        if self.method.fresh and self.tree.closed[ROOT]:  # there is one rationale, the empty one
            room = min(room, int(not self.started))
        if room <= 0 or (self.method.fresh and self.tree.size > 1 and not self.tree.rest().any()):
            return
        with self._timed("select"):
            uniforms = self._begin(room)
            stops = self.method.select(self.tree, uniforms[:, 0], self.config)
            self.tree.count_along(self.tree.pending, stops, 1)
        done = self._ended(stops)
        self._finish(stops[done])
        with self._timed("decode"):
            self._decode_missing(stops[~done])
        self._node = np.concatenate([self._node, stops[~done]])
        self._uniforms = np.concatenate([self._uniforms, uniforms[~done]])

    def _begin(self, count: int) -> NDArray[np.float64]:
        """Number new rollouts and draw their random numbers, each from a stream of its own.

        Float64 `[count, 2, max_depth + 1]`: for each level one for selection and one for the token.
        """
        numbers = range(self.started, self.started + count)
        self.started += count
        uniforms = np.empty((count, 2, self.max_depth + 1))
        for row, number in zip(uniforms, numbers, strict=True):
            key = np.array([self.config.seed, number], np.uint64)
            np.random.Generator(np.random.Philox(key=key)).random(out=row)
        return uniforms

    def _decode_missing(self, nodes: NDArray[np.int32]) -> None:
        """Decode what a resumed tree lacks above and at `nodes`, a level at a time."""
        needed = self.tree.ancestors(nodes)
        needed = needed[~self.decoder.is_decoded(needed)]
        for depth in np.unique(self.tree.depth[needed]):
            self._decode(needed[self.tree.depth[needed] == depth])

    def _decode(self, nodes: NDArray[np.int32]) -> None:
        self.decoder.step(nodes, self.tree.parent[nodes], self.tree.token[nodes])

    def _step(self, budget: int) -> None:
        """Give every walker its next token."""
        with self._timed("decode"):
            walkers, tokens, log_priors, entropies = self._extend(budget)
        with self._timed("select"):
            if np.isnan(log_priors).any():
                path = self.tree.path(int(self._node[walkers[np.isnan(log_priors)][0]]))
                raise TSLMError(f"the model's logits are NaN after answer tokens {path}; check its weights")
            self._land(self._move(walkers, tokens, log_priors, entropies))

    def _move(
        self,
        walkers: NDArray[np.int64],
        tokens: NDArray[np.int32],
        log_priors: NDArray[np.float64],
        entropies: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Take walkers to the tokens drawn for them; beams may multiply and die out on the way.

        Returns:
            Which of the walkers before each one is that goes on.
        """
        tree, possible = self.tree, log_priors > -np.inf
        # Where nothing could be drawn, what was thought a remainder of probability is rounding.
        tree.taken[self._node[walkers[~possible]]] = 1.0
        walkers, tokens = walkers[possible], tokens[possible]
        log_priors, entropies = log_priors[possible], entropies[possible]
        change = np.bincount(walkers, minlength=len(self._node)) - 1
        uneven = np.flatnonzero(change)
        tree.count_along(tree.pending, self._node[uneven], change[uneven])
        parents = self._node[walkers]
        finished = np.isin(tokens, self._eos)
        terminal = finished | (tree.depth[parents] + 1 == self.max_depth)
        drawn, known = self.method.extend == "sample", tree.size
        nodes = tree.add(parents, tokens, log_priors, terminal, finished, entropies, enumerated=not drawn)
        np.add.at(tree.pending, nodes, 1)
        self._close(np.unique(nodes[(nodes >= known) & ~terminal]))
        ended = self._ended(nodes)
        self._finish(nodes[ended])
        # In the order of their nodes, walkers keep their rows in the decoder's buffers.
        going = np.flatnonzero(~ended)
        going = going[np.argsort(nodes[going], kind="stable")]
        self._node, self._uniforms = nodes[going], self._uniforms[walkers[going]]
        return walkers[going]

    def _finish(self, ends: NDArray[np.int32]) -> None:
        """Rollouts have ended at these nodes: score them with the next wave, but no new answer twice."""
        if self.method.fresh:
            found, first = np.unique(ends, return_index=True)
            first = first[(self.tree.visits[found] == 0) & ~np.isin(found, self._pending)]
            self.tree.count_along(self.tree.pending, np.delete(ends, first), -1)
            ends = ends[np.sort(first)]
        self._pending += ends.tolist()

    def _close(self, nodes: NDArray[np.int32]) -> None:
        """Draw no further where an answer begins; without room for every label the rollout is cut off."""
        if self.labels is None or not nodes.size:
            return
        nodes = nodes[self.labels.reached(self.tree, nodes)]
        fits = self.tree.depth[nodes] + self.labels.longest <= self.max_depth
        self.tree.closed[nodes[fits]] = True
        self.tree.terminal[nodes[~fits]] = True

    def _ended(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether rollouts at these nodes draw no further."""
        return self.tree.terminal[nodes] | self.tree.closed[nodes]

    def _answers(self, ends: NDArray[np.int32]) -> NDArray[np.int32]:
        """The answers of distinct ends of rollouts: themselves, or all behind those that are closed."""
        below = np.concatenate([ends[:0], *self.tree.levels_below(ends[self.tree.closed[ends]])])
        return np.concatenate([ends[~self.tree.closed[ends]], below[self.tree.terminal[below]]])

    def _logits(self, walkers: slice) -> tuple[mx.array, NDArray[np.int64]]:
        """Logits `[nodes, V]` where some walkers are, and which row is whose; decodes what has not been yet."""
        nodes, at = np.unique(self._node[walkers], return_inverse=True)
        new = nodes[~self.decoder.is_decoded(nodes)]
        if new.size:
            self._decode(new)
        return self.decoder.logits(nodes), at

    def _extend(self, budget: int) -> _Drawn:
        """The walkers' next tokens."""
        if self.method.extend == "sample":
            return self._sample()
        logits, at = self._logits(slice(None))
        if self.method.extend == "beam":
            return self._extend_beams(logits, budget)
        log_p = self._sampling.log_probs(logits)
        best = mx.argmax(log_p, axis=-1, keepdims=True)
        best_log_p = mx.take_along_axis(log_p, best, axis=-1)
        entropies = entropy(log_p)
        self.decoder.flush(best, best_log_p, entropies)
        return (
            np.arange(len(at)),
            np.array(best, np.int32)[at, 0],
            np.array(best_log_p, np.float64)[at, 0],
            np.array(entropies, np.float64)[at],
        )

    def _sample(self) -> _Drawn:
        parts = self._draw()
        if not self._submit(parts):
            self.decoder.flush(*(array for _, *draws in parts for array in draws))
        tokens, log_p, entropies = (np.concatenate([np.array(part[i]) for part in parts]) for i in (1, 2, 3))
        walkers = np.concatenate([part[0] for part in parts])
        return walkers, tokens, log_p.astype(np.float64), entropies.astype(np.float64)

    def _draw(self) -> list[_Group]:
        """Groups of walkers and their next tokens, unread."""
        parts: list[_Group] = []
        first = 0
        if self._flight is not None:  # the first walkers' have been submitted; the others have just started
            first, rows = len(self._flight.rows), mx.array(self._flight.rows)
            tokens, log_p, entropies = self._flight.draws
            parts.append((np.arange(first), tokens[rows], log_p[rows], entropies[rows]))
        if first == self._node.size:
            return parts
        logits, at = self._logits(slice(first, None))
        node = self._node[first:]
        uniforms = self._uniforms[first + np.arange(len(at)), 1, self.tree.depth[node]]
        opens = self.method.fresh & (self.tree.taken[node] > 0)
        for group, exclude in ((np.flatnonzero(~opens), None), (np.flatnonzero(opens), self._taken(node[opens]))):
            if group.size:
                drawn = self._sampling.draw_with_entropy(logits[mx.array(at[group])], uniforms[group], exclude)
                parts.append((first + group, *drawn))
        return parts

    def _submit(self, parts: list[_Group]) -> bool:
        """Let the next pass begin before these tokens are read, if they cannot but lead to different nodes.

        A walker that turns out to have ended leaves its row a step late.
        """
        self._flight = None
        goes_on = np.flatnonzero(self.tree.depth[self._node] + 1 < self.max_depth)
        if not (isinstance(self.decoder, Pipelined) and goes_on.size):
            return False
        if np.unique(self._node).size < self._node.size:
            return False
        place = np.argsort(np.concatenate([part[0] for part in parts]))
        tokens = mx.concatenate([part[1] for part in parts])[mx.array(place[goes_on])]
        logits = self.decoder.ahead(self._node[goes_on], tokens)
        uniforms = self._uniforms[goes_on, 1, self.tree.depth[self._node[goes_on]] + 1]
        draws = self._sampling.draw_with_entropy(logits, uniforms)
        mx.async_eval(*(array for _, *drawn in parts for array in drawn))
        self.decoder.submit(*draws)
        self._flight = _Flight(goes_on, draws)
        return True

    def _land(self, before: NDArray[np.int64]) -> None:
        """Tell the decoder which nodes the rows in flight have become; `before` as `_move` gives it."""
        if self._flight is None:
            return
        assert isinstance(self.decoder, Pipelined)
        now = np.full(before.max(initial=self._flight.rows.max()) + 1, FREE, np.int32)
        now[before] = self._node
        self.decoder.settle(now[self._flight.rows])
        rows = np.searchsorted(self._flight.rows, before)
        self._flight = _Flight(rows, self._flight.draws) if rows.size else None

    def _taken(self, nodes: NDArray[np.int32]) -> NDArray[np.int32] | None:
        """The tokens that walkers who must open a child of these nodes may not draw: int32 `[R, K]`, filled up."""
        if not nodes.size:
            return None
        children = self.tree.children(nodes)
        column = np.minimum(np.arange(children.counts.max()), children.counts[:, None] - 1)
        return self.tree.token[children.nodes[children.starts[:, None] + column]]

    def _extend_beams(self, logits: mx.array, budget: int) -> _Drawn:
        """The most probable continuations of all beams together, as many as answers are still wanted."""
        log_p = self._sampling.log_probs(logits)
        totals = (log_p + mx.array(self.tree.logprob[self._node].astype(np.float32))[:, None]).reshape(-1)
        beams = min(budget - len(self.leaves) - len(self._pending), totals.size)
        best = mx.argpartition(-totals, beams - 1)[:beams]
        entropies = entropy(log_p)
        self.decoder.flush(best, log_p, entropies)
        chosen = np.sort(np.array(best))
        log_priors = np.array(mx.take(log_p.reshape(-1), mx.array(chosen)), np.float64)
        chosen, log_priors = chosen[log_priors > -np.inf], log_priors[log_priors > -np.inf]
        walkers, tokens = np.divmod(chosen, log_p.shape[-1])
        return (
            walkers.astype(np.int64),
            tokens.astype(np.int32),
            log_priors,
            np.array(entropies, np.float64)[walkers],
        )

    def _finish_wave(self) -> None:
        """Score the next `width` of what has finished, and back it up."""
        leaves = np.array(self._pending[: self.config.width], np.int32)
        ends = np.unique(leaves)
        empty = ends[self.tree.closed[ends]]
        empty = empty[self.tree.taken[empty] == 0]
        if empty.size and self.labels is not None:
            with self._timed("decode"):
                self.labels.complete(self.decoder, self.tree, empty)
        answers = self._answers(ends)
        unscored = np.unique(answers[np.isnan(self.tree.reward[answers])])
        if unscored.size:
            with self._timed("reward"):
                rewards = self.score(unscored)
            self.tree.reward[unscored] = rewards
            self.tree.value[unscored] = rewards
        with self._timed("backup"):
            self.tree.count_along(self.tree.visits, leaves, 1)
            self.tree.count_along(self.tree.pending, leaves, -1)
            for below in self.tree.levels_below(ends[self.tree.closed[ends]]):
                self.tree.visits[below] = self.tree.visits[self.tree.parent[below]]
            self.method.backup(self.tree, answers, self.config.inverse_temperature)
        self.leaves += leaves.tolist()
        self._pending = self._pending[len(leaves) :]
        self.waves += 1

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started
