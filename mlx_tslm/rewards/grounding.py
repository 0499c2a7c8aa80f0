"""Do the claims in an answer hold for the signal?"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward, facts_of
from mlx_tslm.rewards.claims import ENTRIES, Claim, check, implied, read
from mlx_tslm.rewards.format import final_answer
from mlx_tslm.stages.base import Question

Topics = tuple[tuple[str, ...], ...]

VAGUE = 0.75  # what a true claim is worth that leaves out the number it could have stated


def score(judged: Iterable[tuple[Claim, float | None]], weights: Mapping[str, float], topics: Topics = ()) -> float:
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
        kind, number_of = claim.kind, ENTRIES[claim.kind].number_of
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
    entry knows it (running is intense; deep sleep has delta waves).

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
        return np.array([score(self._judge(completion, question), weights, topics) for completion in completions])

    def check(self, completion: Completion, question: Question) -> list[tuple[Claim, float]]:
        """Every checkable claim of an answer with its agreement, 0 … 1: what a report shows."""
        judged = self._judge(completion, question)
        return [(claim, agreement) for claim, agreement in judged if agreement is not None]

    def _judge(self, completion: Completion, question: Question) -> list[tuple[Claim, float | None]]:
        claims = read(_spell_out(completion.text, question.pre))
        if question.stage is not None:
            answer = final_answer(completion, question) or ""
            claims += [*_implied(answer, question.stage.implies), *_asked(question.asked, answer)]
        return [(claim, check(claim, facts_of(question))) for claim in dict.fromkeys(claims)]

    def _expected(self, question: Question) -> tuple[Mapping[str, float], Topics]:
        weights: Mapping[str, float] = dict.fromkeys(ENTRIES, 1.0)
        topics: Topics = ()
        if self.weights is not None:
            weights = self.weights
        elif question.stage is not None:
            weights, topics = question.stage.claims or weights, question.stage.topics
        return weights, topics if self.topics is None else self.topics


def _implied(answer: str, implies: Mapping[str, tuple[str, str]]) -> list[Claim]:
    """What a final answer says of the signal without saying it: as the stage says, else as the entries know it."""
    told = implies.get(answer.strip(" .").casefold())
    return [Claim(*told)] if told else implied(answer)


def _asked(question: str, answer: str) -> list[Claim]:
    """What "yes" or "no" says where it is asked whether there are symptoms of something."""
    found = re.search(r"\b(?:symptoms?|signs?|evidence) of ([\w ]+)\?", question, re.IGNORECASE)
    plain = answer.strip(" .").casefold()
    if found is None or plain not in ("yes", "no"):
        return []
    return [replace(claim, negated=plain == "no") for claim in implied(found[1])]


def _spell_out(text: str, question: str) -> str:
    """What the choice of an option says: "(b)" becomes the question's text for it, "12 samples" a season's."""
    option = re.fullmatch(r"\s*\(?([a-z])\)[\s.]*|\s*answer:\s*\(?([a-z])\)?[\s.]*", text, re.IGNORECASE)
    if option:
        listed = re.search(rf"\({option[1] or option[2]}\)\s*([^()]+)", question, re.IGNORECASE)
        text = listed[1] if listed else text
    bare = re.sub(r"^\s*\([a-z]\)\s*", "", text, flags=re.IGNORECASE).strip(" .")
    if re.fullmatch(r"\d+ \w+", bare) and re.search(r"\b(?:season|period|cycle)", question, re.IGNORECASE):
        return f"A season of {bare}."
    if bare.lower() in ("low", "moderate", "high") and re.search(r"\bnoise\b", question, re.IGNORECASE):
        return f"The noise is {bare}."
    return text
