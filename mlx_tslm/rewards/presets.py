"""Rewards by name: the terms there are, and the sum of them that a stage asks for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlx_tslm.errors import TSLMError
from mlx_tslm.rewards.base import CombinedReward, Reward
from mlx_tslm.rewards.claims import ENTRIES
from mlx_tslm.rewards.consistency import ConsistencyReward
from mlx_tslm.rewards.format import FormatReward
from mlx_tslm.rewards.grounding import GroundingReward
from mlx_tslm.rewards.likelihood import CoherenceReward, LikelihoodReward
from mlx_tslm.rewards.spectral import SpectralReward
from mlx_tslm.suggest import did_you_mean

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage

TERMS: Mapping[str, type[Reward]] = {
    "format": FormatReward,
    "grounding": GroundingReward,
    "spectral": SpectralReward,
    "coherence": CoherenceReward,
    "likelihood": LikelihoodReward,
    "consistency": ConsistencyReward,
}
# Format and grounding sum to 1, here and in the stages: an answer that comes in the right form and whose claims
# hold gets 1, one that does neither 0. The spectral term only takes away (a decade of distance costs its weight),
# so it is kept small beside the reward that a true claim earns. So does coherence: what a model draws is seldom
# more than a nat a token below its entropy, junk many. Likelihood is left out, as p(x) is in π* already, and so is
# self-consistency, which is no function of the answer alone and so nothing a search can converge to.
FREE = {"format": 0.2, "grounding": 0.8, "spectral": 0.2, "coherence": 0.05}
"""The weights where there is no stage."""


def default_reward(stage: "Stage | None" = None) -> CombinedReward:
    """The reward that a stage asks for (`Stage.rewards`), or that of a free question."""
    return named_reward(stage.rewards if stage is not None else FREE)


def check_stage(stage: "Stage") -> None:
    """See that what a stage says its answers are held to is there: terms of the reward, kinds of claims.

    Raises:
        TSLMError: one is not (named).
    """
    default_reward(stage)
    named = [*stage.claims, *(kind for topic in stage.topics for kind in topic)]
    named += [kind for kind, _ in stage.implies.values()]
    if odd := next((kind for kind in named if kind not in ENTRIES), None):
        raise TSLMError(
            f"{stage.name}: there is no kind of claim {odd!r}; choose from {', '.join(sorted(ENTRIES))}"
        )


def named_reward(weights: Mapping[str, float]) -> CombinedReward:
    """A weighted sum of terms by their names.

    Raises:
        TSLMError: there is no such term (lists them).
    """
    for name in weights:
        if name not in TERMS:
            known = ", ".join(TERMS)
            raise TSLMError(f"there is no reward {name!r}; choose from {known}{did_you_mean(name, TERMS)}")
    return CombinedReward({name: (TERMS[name](), weight) for name, weight in weights.items()})
