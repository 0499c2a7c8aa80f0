"""Label completion: behind a rationale every allowed answer is scored, and none is drawn.

Where a rollout comes to the marker of its final answer, the tokens of all allowed answers are put behind it as a
trie, a level of it in one forward pass for all rationales that wait. From the marker on p has the temperature but
neither top-k nor top-p, and an answer's p includes its end token. What the allowed answers leave over is the mass
of all other answers: one leaf without a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import Decoder
from mlx_tslm.sampling import Sampling
from mlx_tslm.search.tree import NEGLIGIBLE, NO_TOKEN, Tree

LEAST_LOG_P = -1e4
"""In place of log p = −∞, which no tree can hold: a temperature near 0 puts it on nearly everything."""


@dataclass(frozen=True)
class Trie:
    """Token sequences that share their beginnings, each with an end token behind it; level after level.

    Attributes:
        token: int32 `[N]`, an entry's token; `NO_TOKEN` for the end.
        parent: int32 `[N]`, the entry before it; −1 behind the rationale.
        level: int32 `[N]`, tokens from the rationale, this one included.
    """

    token: NDArray[np.int32]
    parent: NDArray[np.int32]
    level: NDArray[np.int32]

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]]) -> Trie:
        """The trie of distinct, non-empty sequences."""
        front: dict[tuple[int, ...], int] = {(): -1}
        left = {(*sequence, NO_TOKEN) for sequence in sequences}
        entries: list[tuple[int, int, int]] = []  # token, parent, level
        level = 0
        while left:
            level += 1
            steps = sorted({sequence[:level] for sequence in left})
            following = {}
            for step in steps:
                following[step] = len(entries)
                entries.append((step[-1], front[step[:-1]], level))
            front = following
            left = {sequence for sequence in left if len(sequence) > level}
        return cls(*np.array(entries, np.int32).reshape(-1, 3).T)

    @property
    def depth(self) -> int:
        """Tokens of the longest sequence, its end included."""
        return int(self.level.max(initial=0))


def complete(
    decoder: Decoder,
    tree: Tree,
    nodes: NDArray[np.int32],
    trie: Trie,
    temperature: float,
    eos: NDArray[np.int32],
    rows: int,
) -> None:
    """Put every sequence of a trie behind nodes of the tree, with its p; nothing is left to explore below them.

    Args:
        decoder: decodes nodes; its ids are the tree's.
        tree: gets the new nodes. Their `log_prior` is such that the children of a node share its mass, so that
            `logprob` of an end is log p of the whole sequence.
        nodes: int32 `[M]`, distinct nodes without children.
        trie: what to put there.
        temperature: of p, above 0.
        eos: int32 `[E]`, the tokens that end an answer; what they hold together counts.
        rows: the most nodes of one forward pass.

    Raises:
        TSLMError: the model's logits are NaN.
    """
    log_p, entropies, ids = _score(decoder, tree, nodes, trie, Sampling(temperature), eos, rows)
    logprob = log_p.copy()
    for level in range(2, trie.depth + 1):
        here = trie.level == level
        logprob[:, here] += logprob[:, trie.parent[here]]
    mass = np.where(trie.token == NO_TOKEN, logprob, -np.inf)
    total = np.full(len(nodes), -np.inf)
    for entry in reversed(range(len(trie.token))):  # a parent comes before its children
        above = trie.parent[entry]
        if above < 0:
            total = np.logaddexp(total, mass[:, entry])
        else:
            mass[:, above] = np.logaddexp(mass[:, above], mass[:, entry])
    log_prior = mass - np.where(trie.parent < 0, 0.0, mass[:, trie.parent])
    for level in range(1, trie.depth + 1):
        here = np.flatnonzero(trie.level == level)
        ends = np.broadcast_to(trie.token[here] == NO_TOKEN, (len(nodes), len(here))).ravel()
        added = tree.add(
            _above(trie, nodes, ids)[:, here].ravel(),
            np.where(ends, eos[0], np.tile(trie.token[here], len(nodes))).astype(np.int32),
            log_prior[:, here].ravel(),
            ends,
            ends,
            entropies[:, here].ravel(),
            enumerated=True,
        )
        tree.closed[added] = ~ends
    tree.closed[nodes] = True
    missing = -np.expm1(np.minimum(total, 0.0))
    at = missing > NEGLIGIBLE
    if at.any():
        none = np.full(at.sum(), NO_TOKEN, np.int32)
        ends = np.ones(at.sum(), bool)
        tree.add(nodes[at], none, np.log(missing[at]), ends, ~ends, enumerated=True)


def _above(trie: Trie, nodes: NDArray[np.int32], ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """The tree's node that each entry hangs on: int32 `[M, N]`."""
    return np.where(trie.parent < 0, nodes[:, None], ids[:, trie.parent])


def _score(
    decoder: Decoder,
    tree: Tree,
    nodes: NDArray[np.int32],
    trie: Trie,
    p: Sampling,
    eos: NDArray[np.int32],
    rows: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """log p of each entry after the one before it, the entropy there, and the entries' ids: `[M, N]` each.

    The ids are those that the tree will give them: level after level, and in a level node after node.
    """
    shape = (len(nodes), len(trie.token))
    log_p, entropies, ids = np.empty(shape), np.empty(shape), np.empty(shape, np.int32)
    first = tree.size
    for level in range(1, trie.depth + 1):
        here = np.flatnonzero(trie.level == level)
        ids[:, here] = first + np.arange(len(nodes) * len(here)).reshape(len(nodes), len(here))
        first += len(nodes) * len(here)
    above = _above(trie, nodes, ids)
    for level in range(trie.depth):
        following = np.flatnonzero(trie.level == level + 1)
        groups, owner = np.unique(trie.parent[following], return_inverse=True)
        at = np.broadcast_to(owner, (len(nodes), len(owner))) + len(groups) * np.arange(len(nodes))[:, None]
        if level:
            parents, before = ids[:, groups].ravel(), above[:, groups].ravel()
            leading = np.tile(trie.token[groups], len(nodes))
        else:
            parents, before, leading = nodes, tree.parent[nodes], tree.token[nodes]
        # Every child's token of a parent, as many columns as the widest has; the end's are behind them.
        column = np.concatenate([np.arange(count) for count in np.bincount(owner)])
        wanted = np.full((len(groups), column.max() + 1), eos[0], np.int32)
        order = np.argsort(owner, kind="stable")
        wanted[owner[order], column] = np.where(trie.token[following] == NO_TOKEN, eos[0], trie.token[following])[
            order
        ]
        wanted = np.concatenate([wanted, np.tile(eos, (len(groups), 1))], axis=1)
        found, spread = [], []
        for start in range(0, len(parents), rows):
            part = slice(start, start + rows)
            new = ~decoder.is_decoded(parents[part])
            if new.any():
                decoder.step(parents[part][new], before[part][new], leading[part][new])
            tokens = np.tile(wanted, (len(nodes), 1))[part]
            scores = p.score(decoder.logits(parents[part]), tokens)
            decoder.flush(*scores)
            found.append(np.array(scores[0], np.float64))
            spread.append(np.array(scores[1], np.float64))
        of_parent, entropy = np.maximum(np.concatenate(found), LEAST_LOG_P), np.concatenate(spread)
        if np.isnan(of_parent).any():
            path = tree.path(int(nodes[np.isnan(of_parent[at]).any(axis=(1, 2))][0]))
            raise TSLMError(f"the model's logits are NaN after answer tokens {path} and a label; check its weights")
        place = np.empty(len(following), np.int64)
        place[order] = column
        log_p[:, following] = of_parent[at, place]
        ends = trie.token[following] == NO_TOKEN
        log_p[:, following[ends]] = np.logaddexp.reduce(of_parent[:, -len(eos) :], axis=1)[at[:, ends]]
        entropies[:, following] = entropy[at]
    return log_p, entropies, ids


@dataclass(frozen=True)
class Completer:
    """When a rollout has come to its answer, and what is put there.

    Args:
        tokenizer: the model's.
        marker: what stands before the final answer, such as "Answer:"; None where the answer begins at once.
        labels: the allowed answers, not empty. Where a mapping says what each stands for, those words count too.
        prefix: tokens that all answers open with.
        temperature: of p.
        eos: the tokens that end an answer.
        rows: the most nodes of one forward pass; memory bounds it (see `memory.check`).
    """

    tokenizer: Any
    marker: str | None
    labels: Sequence[str] | Mapping[str, str]
    prefix: tuple[int, ...]
    temperature: float
    eos: frozenset[int]
    rows: int = 256
    _tries: tuple[Trie, Trie] = field(init=False, repr=False)
    _may_end: dict[int, bool] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        told = self.labels.values() if isinstance(self.labels, Mapping) else ()
        texts = [text for each in (*self.labels, *told) if (text := each.strip())]
        # A label's tokens depend on what stands before it: the marker and a space; or white space, or nothing.
        alone = Trie.of(map(self._encode, texts))
        tries = (Trie.of(map(self._behind_marker, texts)) if self.marker else alone, alone)
        object.__setattr__(self, "_tries", tries)

    @property
    def longest(self) -> int:
        """Tokens of the longest label, its end included."""
        return max(trie.depth for trie in self._tries)

    @property
    def size(self) -> int:
        """Nodes that completing one rationale adds to the tree."""
        return 1 + max(len(trie.token) for trie in self._tries)

    def reached(self, tree: Tree, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether the path to each node ends with the marker: bool `[R]`."""
        if self.marker is None:
            return np.asarray((nodes == 0) & (not self.prefix))
        return np.array([self._ends(tree, int(node)) for node in nodes], bool)

    def complete(self, decoder: Decoder, tree: Tree, nodes: NDArray[np.int32]) -> None:
        """Put the labels behind distinct nodes that have been reached; see `complete`."""
        spaced = np.array([self._text(tree, int(node))[-1:].strip() == "" for node in nodes], bool)
        eos = np.array(sorted(self.eos), np.int32)
        for trie, group in zip(self._tries, (nodes[~spaced], nodes[spaced]), strict=True):
            if group.size:
                complete(decoder, tree, group, trie, self.temperature, eos, self.rows)

    def _ends(self, tree: Tree, node: int) -> bool:
        token = int(tree.token[node])
        if token not in self._may_end:  # most tokens cannot end a marker: their paths need not be read
            self._may_end[token] = token == NO_TOKEN or str(self.marker)[-1] in self.tokenizer.decode([token])
        return self._may_end[token] and self._text(tree, node).rstrip().endswith(str(self.marker))

    def _text(self, tree: Tree, node: int) -> str:
        path = [*self.prefix, *tree.path(node)]
        return str(self.tokenizer.decode(path, skip_special_tokens=True)) if path else ""

    def _behind_marker(self, label: str) -> list[int]:
        before, whole = self._encode(self.marker or ""), self._encode(f"{self.marker or ''} {label}")
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return self._encode(f" {label}")  # the tokenizer joins the marker's end to what follows

    def _encode(self, text: str) -> list[int]:
        tokens = list(self.tokenizer.encode(text))
        return tokens[1:] if tokens[:1] == [self.tokenizer.bos_token_id] else tokens
