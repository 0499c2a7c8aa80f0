"""Do the claims in an answer hold for the signal?"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward, facts_of
from mlx_tslm.rewards.claims import ENTRIES, Claim, check, read, remembered
from mlx_tslm.rewards.conclusion import CONCLUSION, concluded, judged_answer, mentions, spelled_out
from mlx_tslm.rewards.format import final_answer, split
from mlx_tslm.stages.base import Question

Topics = tuple[tuple[str, ...], ...]
Judged = tuple[Claim, float | None]
"""A claim with its agreement, 0 … 1; None where it can't be checked."""

VAGUE = 0.6  # what a true claim is worth that leaves out the number it could have stated


def score(judged: Iterable[Judged], weights: Mapping[str, float], topics: Topics = ()) -> float:
    """Weighted share of the claims that hold, 0 … 1; NaN where none could be checked.

    Claims of one kind are averaged first, so that saying a true thing in many ways counts once, and naming every
    possibility counts as a guess. A claim without its number ("it repeats") is worth `VAGUE` of its agreement;
    beside the number ("every 12 samples") it is worth no more than that. Denials of one kind are one claim, as true
    as the least true of them: "neither up nor down" is wrong where it rises, and denying much earns no more.

    Args:
        judged: each claim with its agreement, 0 … 1; None where it can't be checked.
        weights: kind of claim → weight; kinds not named are ignored.
        topics: of each at least one kind has to be there, else the first is wrong: it must not pay to say less.
    """
    judged = list(judged)
    numbers: dict[str, list[float | None]] = defaultdict(list)
    for claim, agreement in judged:
        if claim.numbers is not None and not claim.negated:
            numbers[claim.kind].append(agreement)
    kinds: dict[str, list[float]] = defaultdict(list)
    denied: dict[str, float] = {}
    for claim, agreement in judged:
        kind, number_of = claim.kind, ENTRIES[claim.kind].number_of if claim.kind in ENTRIES else None
        if number_of and claim.numbers is None and not claim.negated and agreement is not None:
            if number_of in numbers:
                known = [one for one in numbers[number_of] if one is not None]
                kind, agreement = number_of, min(agreement, max(known)) if known else None
            else:
                agreement *= VAGUE
        if agreement is None or weights.get(kind, 0.0) <= 0:
            continue
        if claim.negated:
            denied[kind] = min(agreement, denied.get(kind, 1.0))
        else:
            kinds[kind].append(agreement)
    for kind, agreement in denied.items():
        kinds[kind].append(agreement)
    if not kinds:
        return float("nan")
    for topic in topics:
        if not kinds.keys() & set(topic):
            kinds[topic[0]].append(0.0)
    total = sum(weights.get(kind, 0.0) for kind in kinds)
    return sum(weights.get(kind, 0.0) * float(np.mean(values)) for kind, values in kinds.items()) / total


class GroundingReward(Reward):
    """Weighted share of an answer's checkable claims that hold, 0 … 1; NaN where it makes none: see `score`.

    Agreement is graded: a number by exp(−½ (log(claimed/measured) / 0.1)²), a category by how clearly the signal
    has it; a denied claim gets 1 − agreement, a denied number nothing. A final answer is itself a claim where an
    entry knows it, held against the other answers that were allowed; one that contradicts what its rationale
    concludes is wrong. See `conclusion`.

    Args:
        weights: kind of claim → weight, at least 0; kinds not named are ignored. Left out, the stage's own, and
            without a stage every kind counts 1.
        topics: what an answer has to speak of. Left out, the stage's own if the weights are.
    """

    name = "grounding"
    highest = 1.0
    optional = True

    def __init__(self, weights: Mapping[str, float] | None = None, topics: Topics | None = None) -> None:
        self.weights = dict(weights) if weights is not None else None
        self.topics = topics

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        weights, topics = self._expected(question)
        return np.array([score(_judge(completion, question), weights, topics) for completion in completions])

    def check(self, completion: Completion, question: Question) -> list[tuple[Claim, float]]:
        """Every checkable claim of an answer with its agreement, 0 … 1: what a report shows."""
        judged = _judge(completion, question)
        return [(claim, agreement) for claim, agreement in judged if agreement is not None]

    def _expected(self, question: Question) -> tuple[Mapping[str, float], Topics]:
        weights: Mapping[str, float] = dict.fromkeys(ENTRIES, 1.0)
        topics: Topics = ()
        if self.weights is not None:
            weights = self.weights
        elif question.stage is not None:
            weights, topics = question.stage.claims or weights, question.stage.topics
            weights = {CONCLUSION: max(weights.values()), **weights}
        return weights, topics if self.topics is None else self.topics


def _judge(completion: Completion, question: Question) -> list[Judged]:
    """Each claim of an answer once: those of its rationale, then what the final answer says."""
    if question.stage is None:
        return list(_judge_rationale(completion.text, question))
    rationale, answers = split(completion.text, question)
    answer = final_answer(completion, question) or ""
    if not answers:  # the whole text is the answer, or there is none
        known = judged_answer(answer, question) if answer else []
        return known or list(_judge_rationale(spelled_out(rationale, question), question))
    judged = dict(_judge_rationale(rationale, question))
    contradicted = concluded(rationale, answer, question) is False
    for claim, agreement in judged_answer(answer, question):
        judged[claim] = 0.0 if contradicted else agreement
    if contradicted:
        judged[Claim(CONCLUSION, answer)] = 0.0
    return list(judged.items())


@remembered
def _judge_rationale(text: str, question: Question) -> tuple[Judged, ...]:
    named = mentions(text, question)
    told = [*named, *(claim for claim in read(text) if not any(_inside(claim, one) for one in named))]
    facts = facts_of(question)
    return tuple((claim, check(claim, facts)) for claim in dict.fromkeys(sorted(told, key=lambda one: one.span)))


def _inside(claim: Claim, other: Claim) -> bool:
    return other.span[0] <= claim.span[0] and claim.span[1] <= other.span[1]
