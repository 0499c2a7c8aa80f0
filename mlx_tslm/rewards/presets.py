"""Which reward a stage gets when the user names none."""

from typing import TYPE_CHECKING

from mlx_tslm.rewards.base import CombinedReward
from mlx_tslm.rewards.format import FormatReward
from mlx_tslm.rewards.grounding import GroundingReward
from mlx_tslm.rewards.spectral import SpectralReward

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage

# Format and grounding sum to 1: an answer that comes in the right form and whose claims hold gets 1, one that
# does neither 0. The spectral term only takes away (a decade of distance costs its weight), so it is kept small
# beside the reward that a true claim earns. Likelihood is left out, as p(x) is in π* already, and so is
# self-consistency, which is no function of the answer alone and so nothing that a search can converge to.
DEFAULT_WEIGHTS: dict[str, dict[str, float]] = {
    "stage1": {"format": 0.5, "grounding": 0.5, "spectral": 0.1},
    "stage2": {"format": 0.2, "grounding": 0.8, "spectral": 0.2},
    "stage3": {"format": 0.4, "grounding": 0.6, "spectral": 0.1},
    "stage4": {"format": 0.4, "grounding": 0.6, "spectral": 0.1},
    "stage5": {"format": 0.4, "grounding": 0.6, "spectral": 0.1},
}
FREE_WEIGHTS = {"format": 0.2, "grounding": 0.8, "spectral": 0.2}


def default_reward(stage: "Stage | None" = None) -> CombinedReward:
    """The reward of a stage: format, grounding and spectral terms with `DEFAULT_WEIGHTS`.

    Args:
        stage: a stage, or None for a free prompt (`FREE_WEIGHTS`).
    """
    weights = DEFAULT_WEIGHTS.get(stage.name, FREE_WEIGHTS) if stage is not None else FREE_WEIGHTS
    terms = {"format": FormatReward(), "grounding": GroundingReward(), "spectral": SpectralReward()}
    return CombinedReward({name: (terms[name], weight) for name, weight in weights.items()})
