"""Do the claims in an answer hold for the signal?"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward, facts_of
from mlx_tslm.rewards.checks import CHECKS, FINDINGS, check_claim
from mlx_tslm.rewards.claims import Claim
from mlx_tslm.rewards.extraction import extract
from mlx_tslm.rewards.format import final_answer
from mlx_tslm.stages.base import Question


class GroundingReward(Reward):
    """Weighted share of an answer's checkable claims that hold, 0 … 1; NaN where it makes none.

    Agreement is graded: a number by exp(−½ (log(claimed/measured) / 0.1)²), a category by how clearly the signal
    has it; a denied claim gets 1 − agreement. Claims of one kind are averaged first, so that saying a true thing
    in many ways counts once, and naming every possibility counts as a guess. The final answer may itself be a claim
    (`Stage.implies`): running is intense, deep sleep has delta waves. A caption that passes over the trend, the
    season or the noise (`Stage.topics`) is no better than one that is wrong there: else it would pay to say less.

    Args:
        weights: kind of claim → weight, at least 0; kinds not named are ignored. Left out, the stage's own
            (`Stage.claims`), and without a stage every kind counts 1.
    """

    name = "grounding"
    optional = True

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = dict(weights) if weights is not None else None

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        return np.array([self._score(completion, question) for completion in completions])

    def _score(self, completion: Completion, question: Question) -> float:
        weights = self._weights(question)
        kinds: dict[str, list[float]] = defaultdict(list)
        for claim, agreement in self.check(completion, question):
            if weights.get(claim.kind, 0.0) > 0:
                kinds[claim.kind].append(agreement)
        if not kinds:
            return float("nan")
        if self.weights is None and question.stage is not None:
            for topic in question.stage.topics:
                if not kinds.keys() & set(topic):
                    kinds[topic[0]].append(0.0)
        total = sum(weights[kind] for kind in kinds)
        return sum(weights[kind] * float(np.mean(values)) for kind, values in kinds.items()) / total

    def check(self, completion: Completion, question: Question) -> list[tuple[Claim, float]]:
        """Every checkable claim of an answer with its agreement, 0 … 1: what a report shows."""
        text = _spell_out(completion.text, question.pre)
        claims = extract(text)
        if any(claim.kind == "period" for claim in claims):
            # "a season of 12" is one claim: a wrong period earns nothing for there being a season
            claims = [claim for claim in claims if claim != Claim("season", "present")]
        if question.stage is not None:
            answer = final_answer(completion, question)
            claims += _implied(answer, question.stage.implies) + _asked(question.asked, answer)
        facts = facts_of(question)
        checked = []
        for claim in claims:
            agreement = check_claim(claim, facts)
            if agreement is not None:
                checked.append((claim, agreement))
        return checked

    def _weights(self, question: Question) -> Mapping[str, float]:
        if self.weights is not None:
            return self.weights
        if question.stage is not None and question.stage.claims:
            return question.stage.claims
        return dict.fromkeys(CHECKS, 1.0)


def _implied(answer: str | None, implies: Mapping[str, tuple[str, str]]) -> list[Claim]:
    """What a final answer says of the signal without saying it."""
    plain = (answer or "").strip(" .").casefold()
    found = implies.get(plain) or implies.get(plain.replace(" ", "_"))
    return [Claim(*found)] if found else []


def _asked(question: str, answer: str | None) -> list[Claim]:
    """What "yes" or "no" says where it is asked whether an ECG shows symptoms of something."""
    found = re.search(r"\b(?:symptoms?|signs?|evidence) of ([\w ]+)\?", question, re.IGNORECASE)
    plain = (answer or "").strip(" .").casefold()
    if found is None or found[1].casefold() not in FINDINGS or plain not in ("yes", "no"):
        return []
    return [Claim("finding", found[1].casefold(), None, plain == "no")]


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
