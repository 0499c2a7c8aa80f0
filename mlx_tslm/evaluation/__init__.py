"""How well a model answers a stage's data, by any method, on one machine or several."""

from mlx_tslm.evaluation.answering import METHODS
from mlx_tslm.evaluation.baselines import baselines
from mlx_tslm.evaluation.run import check, evaluate
from mlx_tslm.stages.ablation import ABLATIONS

__all__ = ["ABLATIONS", "METHODS", "baselines", "check", "evaluate"]
