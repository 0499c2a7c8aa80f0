"""How well a model answers a stage's data, by any method, on one machine or several."""

from mlx_tslm.evaluation.ablation import ABLATIONS
from mlx_tslm.evaluation.answering import METHODS
from mlx_tslm.evaluation.baselines import baselines
from mlx_tslm.evaluation.run import check, evaluate

__all__ = ["ABLATIONS", "METHODS", "baselines", "check", "evaluate"]
