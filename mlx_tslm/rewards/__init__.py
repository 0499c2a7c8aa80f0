"""Score finished answers without gold labels. NumPy and SciPy only."""

from mlx_tslm.rewards.base import CallableReward, CombinedReward, Reward, Scores, as_reward, facts_of
from mlx_tslm.rewards.consistency import ConsistencyReward
from mlx_tslm.rewards.format import FormatReward
from mlx_tslm.rewards.grounding import GroundingReward
from mlx_tslm.rewards.likelihood import CoherenceReward, LikelihoodReward
from mlx_tslm.rewards.presets import TERMS, check_stage, default_reward, named_reward
from mlx_tslm.rewards.spectral import SpectralReward

__all__ = [
    "TERMS",
    "CallableReward",
    "CoherenceReward",
    "CombinedReward",
    "ConsistencyReward",
    "FormatReward",
    "GroundingReward",
    "LikelihoodReward",
    "Reward",
    "Scores",
    "SpectralReward",
    "as_reward",
    "check_stage",
    "default_reward",
    "facts_of",
    "named_reward",
]
