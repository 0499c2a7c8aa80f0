"""Do the claims in an answer hold for the signal?"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward, RewardContext
from mlx_tslm.rewards.checks import CHECKS, FINDINGS, SLEEP_BANDS, check_claim
from mlx_tslm.rewards.claims import Claim
from mlx_tslm.rewards.extraction import extract
from mlx_tslm.rewards.format import final_answer

# What each stage's answers are held to, and how much each kind of claim counts among those an answer makes.
# Restating the mean, which the prompt gives away, counts little.
_GENERAL = {
    **{"trend": 1.0, "turn": 1.0, "season": 1.0, "period": 1.0, "noise": 0.5, "volatility": 1.0, "outlier": 0.5},
    **{"change": 0.5, "mean": 0.1, "min": 0.25, "max": 0.25, "min_at": 0.25, "max_at": 0.25},
}
STAGE_WEIGHTS: dict[str, dict[str, float]] = {
    "stage1": _GENERAL,
    "stage2": _GENERAL,
    "stage3": {
        **{"intensity": 1.0, "cadence": 1.0, "frequency": 0.5, "season": 0.5, "period": 0.5, "mean": 0.25},
        "gravity": 1.0,
        "activity": 1.0,
    },
    "stage4": {"band": 1.0, "frequency": 0.5, "sleep": 1.0},
    "stage5": {"heart_rate": 1.0, "rhythm": 1.0, "intervals": 0.5, "frequency": 0.25, "finding": 1.0},
}

STAGE_TOPICS = {"stage2": (("trend", "turn", "change"), ("season", "period"), ("noise", "volatility"))}
"""What a caption is about: of each topic one kind of claim at least; where there is none, the first is missed."""

ACTIVITY_INTENSITY = {
    **dict.fromkeys(("lying", "sitting", "standing"), "low"),
    **dict.fromkeys(("walking", "walking_up", "walking_down"), "moderate"),
    "biking": "light",
    "running": "high",
}


class GroundingReward(Reward):
    """Weighted share of an answer's checkable claims that hold, 0 … 1; NaN where it makes none.

    Agreement is graded: a number by exp(−½ (log(claimed/measured) / 0.1)²), a category by how clearly the signal
    has it; a denied claim gets 1 − agreement. Claims of one kind are averaged first, so that saying a true thing
    in many ways counts once, and naming every possibility counts as a guess. In stages 3 and 4 the final
    answer is itself a claim (running is intense; deep sleep has delta waves). A caption that passes over the
    trend, the season or the noise (`STAGE_TOPICS`) is no better than one that is wrong there: else it would pay to
    say less.

    Args:
        weights: kind of claim → weight, at least 0; kinds not named are ignored. Left out, the stage's own
            (`STAGE_WEIGHTS`), and without a stage every kind counts 1.
    """

    name = "grounding"
    optional = True

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = dict(weights) if weights is not None else None

    def __call__(self, completions: Sequence[Completion], context: RewardContext) -> NDArray[np.float64]:
        return np.array([self._score(completion, context) for completion in completions])

    def _score(self, completion: Completion, context: RewardContext) -> float:
        weights = self._weights(context)
        kinds: dict[str, list[float]] = defaultdict(list)
        for claim, agreement in self.check(completion, context):
            if weights.get(claim.kind, 0.0) > 0:
                kinds[claim.kind].append(agreement)
        if not kinds:
            return float("nan")
        if self.weights is None and context.stage is not None:
            for topic in STAGE_TOPICS.get(context.stage.name, ()):
                if not kinds.keys() & set(topic):
                    kinds[topic[0]].append(0.0)
        total = sum(weights[kind] for kind in kinds)
        return sum(weights[kind] * float(np.mean(values)) for kind, values in kinds.items()) / total

    def check(self, completion: Completion, context: RewardContext) -> list[tuple[Claim, float]]:
        """Every checkable claim of an answer with its agreement, 0 … 1: what a report shows."""
        text = _spell_out(completion.text, context.prompt.pre)
        claims = extract(text)
        if any(claim.kind == "period" for claim in claims):
            # "a season of 12" is one claim: a wrong period earns nothing for there being a season
            claims = [claim for claim in claims if claim != Claim("season", "present")]
        if context.stage is not None:
            answer = final_answer(completion, context)
            claims += _implied(answer) + _asked(context.prompt.pre, answer)
        facts = context.facts
        checked = []
        for claim in claims:
            agreement = check_claim(claim, facts)
            if agreement is not None:
                checked.append((claim, agreement))
        return checked

    def _weights(self, context: RewardContext) -> Mapping[str, float]:
        if self.weights is not None:
            return self.weights
        if context.stage is not None and context.stage.name in STAGE_WEIGHTS:
            return STAGE_WEIGHTS[context.stage.name]
        return dict.fromkeys(CHECKS, 1.0)


def _implied(answer: str | None) -> list[Claim]:
    """What a final answer says of the signal without saying it."""
    plain = (answer or "").strip(" .").casefold()
    if plain.replace(" ", "_") in ACTIVITY_INTENSITY:
        return [Claim("activity", ACTIVITY_INTENSITY[plain.replace(" ", "_")])]
    return [Claim("sleep", plain)] if plain in (*SLEEP_BANDS, "movement") else []


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
