"""How good answers are: plain NumPy and the usual libraries, no model.

`accuracy`, `macro_f1` and `kappa` count as one should: an answer that is missing or outside a sample's labels is
wrong, and counts as a false positive of a further class, "other". `accuracy_published` and `macro_f1_published`
repeat the evaluation that OpenTSLM's scores come from, see `published`, so that they can be compared with these.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlx_tslm.evaluation.metrics.captions import caption_scores
from mlx_tslm.evaluation.metrics.classification import OTHER, classification_scores, confusion, per_class, per_group
from mlx_tslm.evaluation.metrics.estimate import Estimate, require
from mlx_tslm.evaluation.metrics.judged import Judged
from mlx_tslm.evaluation.metrics.picture import confusion_svg

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage

__all__ = [
    "OTHER",
    "Estimate",
    "Judged",
    "caption_scores",
    "classification_scores",
    "confusion",
    "confusion_svg",
    "per_class",
    "per_group",
    "require",
    "scores",
]


def scores(stage: "Stage", judged: Sequence[Judged]) -> dict[str, Estimate]:
    """The metrics that a stage names (`Stage.metrics`), by their own names.

    Raises:
        TSLMError: a library is not installed.
    """
    found: dict[str, Estimate] = {}
    if "classification" in stage.metrics:
        found |= classification_scores(stage.published, judged, kappa="kappa" in stage.metrics)
    if "captions" in stage.metrics:
        found |= caption_scores(judged)
    return found
