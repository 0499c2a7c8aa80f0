"""What the completions of a search answer, taken together: one answer, how sure it is, and what else was found.

A completion answers with its label where the answers are a closed set, else with its final answer; a caption with
the claims it makes, one of each topic of its stage. Completions that answer alike are one group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.calibration import Calibration, tempered
from mlx_tslm.completion import Completion
from mlx_tslm.interval import wilson
from mlx_tslm.rewards.claims import ENTRIES, read
from mlx_tslm.stages.answers import folded

if TYPE_CHECKING:
    from mlx_tslm.search.result import ScoredCompletion
    from mlx_tslm.search.tree import Tree
    from mlx_tslm.stages.base import Question

CLEAR = 1 / 3 - 1e-9
"""The least share of the mass that an answer holds; where none does, there is no clear answer."""

UNCLEAR = "no clear answer"
NONE = "no allowed answer"

Said = tuple[str, ...]
"""What a completion answers: the final answer alone, or a caption's claims."""


@dataclass(frozen=True)
class Answer:
    """Completions that answer alike.

    Attributes:
        answer: what they answer; a caption's claims with commas between them.
        weight: their share of π*.
        confidence: how sure that is, see `confidences`.
        interval: what the confidence may be, at 95 %: low and high.
        best: of the completions, the one with the highest reward; among equals, the most probable.
        completions: how many there are.
        claims: of a caption, each of its claims, and the weight of all completions that make it, whatever else
            they say.
    """

    answer: str
    weight: float
    confidence: float
    interval: tuple[float, float]
    best: ScoredCompletion
    completions: int
    claims: dict[str, float]


def said(one: Completion, question: Question) -> Said | None:
    """What a completion answers; None where that is no allowed answer.

    An answer that was cut off is none, unless it is a text without a marker, which says what it says so far.
    """
    stage, answer = question.stage, one.answer
    if answer is None:
        return None
    if question.labels:
        return (answer,) if answer in question.labels else None
    if stage is not None and stage.marker is None and stage.topics:
        return _claims(one.text, stage.topics)
    cut_off = not one.finished and stage is not None and stage.marker is not None
    return None if cut_off else (answer,)


def _claims(text: str, topics: Iterable[Sequence[str]]) -> Said | None:
    """Of each topic the claim that says most: of its first kind that is claimed, the first one in the text."""
    found, stated = read(text), []
    for kinds in topics:
        claims = [claim for claim in found if claim.kind in kinds]
        exact = {claim.kind for claim in claims if claim.numbers is not None and not claim.negated}
        claims = [claim for claim in claims if claim.negated or ENTRIES[claim.kind].number_of not in exact]
        first = min(claims, key=lambda claim: kinds.index(claim.kind), default=None)
        stated.append(str(first) if first is not None else f"{kinds[0]} not stated")
    return tuple(stated) if any(not one.endswith(" not stated") for one in stated) else None


def rank(
    completions: Sequence[ScoredCompletion], effective: float | None, calibration: Calibration | None = None
) -> list[Answer]:
    """The answers by weight, largest first; among equals, the one with the higher reward.

    Free answers are one where they differ in case and punctuation alone; they are spelt as the best completion
    spells them.

    Args:
        completions: those of a search, with their weights.
        effective: of how many rationales their weights speak, see `effective_number`; None where they are exact.
        calibration: of the model, for searches like this one; None where there is none.
    """
    groups: dict[Said, list[ScoredCompletion]] = defaultdict(list)
    for one in completions:
        if one.said is not None:
            groups[tuple(map(folded, one.said))].append(one)
    of_claims: dict[tuple[int, str], float] = defaultdict(float)
    for key, group in groups.items():
        for place in enumerate(key):
            of_claims[place] += sum(one.weight for one in group)
    weights = np.array([min(1.0, sum(one.weight for one in group)) for group in groups.values()])
    stated = confidences(np.append(weights, max(0.0, 1 - weights.sum())), calibration)
    found = []
    for (key, group), weight, confidence in zip(groups.items(), weights.tolist(), stated.tolist(), strict=False):
        best = max(group, key=lambda one: (one.reward, one.logprob))
        words = best.said or ()
        claims = {word: of_claims[place] for word, place in zip(words, enumerate(key), strict=True)}
        found.append(
            Answer(
                ", ".join(words),
                weight,
                confidence,
                wilson(confidence, effective) if effective is not None else (confidence, confidence),
                best,
                len(group),
                claims if len(words) > 1 else {},
            )
        )
    return sorted(found, key=lambda one: (-one.weight, -one.best.reward, -one.best.logprob))


def confidences(shares: NDArray[np.float64], calibration: Calibration | None) -> NDArray[np.float64]:
    """How sure each answer is, from the answers' shares of π*, float64 `[A]`; the last is of no allowed answer.

    They are the shares themselves where no calibration of the model's says otherwise; it never changes their order.
    """
    return shares if calibration is None else tempered(shares, calibration.confidence_temperature)


def effective_number(completions: Iterable[ScoredCompletion], tree: Tree) -> float:
    """Of how many rationales that weigh alike the completions' weights speak: (Σ w)² / Σ w² (Kish, 1965).

    Completions behind one closed node are one rationale, found as often as rollouts came to it.
    """
    closed: dict[int, float] = defaultdict(float)
    squares = total = 0.0
    for one in completions:
        total += one.weight
        if tree.closed[one.rationale]:
            closed[one.rationale] += one.weight
        else:
            squares += one.weight**2
    squares += sum(weight**2 / max(int(tree.visits[node]), 1) for node, weight in closed.items())
    return total**2 / squares if squares > 0 else 1.0
