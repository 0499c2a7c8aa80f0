"""What a task means to a model: the wording of its prompt, its normalising, its labels, its answer's form.

`get("stage5")` and `get("ecg")` give the same `Stage`. The wording is what the published OpenTSLM models were
trained on, to the character (see NOTICE).
"""

from collections.abc import Sequence

from mlx_tslm.errors import TSLMError
from mlx_tslm.stages.base import Labels, Sample, Stage, worded
from mlx_tslm.stages.ecg import ECG
from mlx_tslm.stages.har import HAR
from mlx_tslm.stages.m4 import M4
from mlx_tslm.stages.sleep import Sleep
from mlx_tslm.stages.tsqa import TSQA

__all__ = ["Labels", "Sample", "Stage", "get", "names", "worded"]

_STAGES: tuple[Stage, ...] = (TSQA(), M4(), HAR(), Sleep(), ECG())
_BY_NAME = {name: stage for stage in _STAGES for name in (stage.name, stage.key)}


def names() -> tuple[str, ...]:
    """The stages' names, "stage1" to "stage5", in order."""
    return tuple(stage.name for stage in _STAGES)


def get(name: str, leads: Sequence[str] | None = None) -> Stage:
    """The stage of this name ("stage1" ... "stage5") or key ("tsqa", "m4", "har", "sleep", "ecg"), in any case.

    Args:
        leads: of an ECG, those that the model reads; all twelve by default.

    Raises:
        TSLMError: there is no such stage (lists them), or no such lead.
    """
    stage = _BY_NAME.get(name.strip().lower())
    if stage is None:
        listed = ", ".join(f"{stage.name} ({stage.key})" for stage in _STAGES)
        raise TSLMError(f"there is no stage {name!r}; the stages are {listed}")
    return ECG(leads) if leads and isinstance(stage, ECG) else stage
