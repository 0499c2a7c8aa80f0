"""What a task means to a model: the wording of its prompt, its normalising, its labels, and how answers are judged.

`get("stage5")` and `get("ecg")` give the same `Stage`, `get("faults.toml")` one of your own. The wording is what
the published OpenTSLM models were trained on, to the character (see NOTICE).
"""

import re
from collections.abc import Sequence

from mlx_tslm.errors import TSLMError
from mlx_tslm.stages import task
from mlx_tslm.stages.answers import Labels, worded
from mlx_tslm.stages.base import Sample, Stage
from mlx_tslm.stages.ecg import ECG
from mlx_tslm.stages.har import HAR
from mlx_tslm.stages.m4 import M4
from mlx_tslm.stages.sleep import SLEEP
from mlx_tslm.stages.tsqa import TSQA
from mlx_tslm.suggest import did_you_mean

__all__ = ["Labels", "Sample", "Stage", "find", "get", "names", "register", "worded"]

_STAGES: dict[str, Stage] = {}  # by name


def register(stage: Stage) -> Stage:
    """Make a stage known under its name and its key, and return it.

    Raises:
        TSLMError: another stage has one of them.
    """
    for known in _STAGES.values():
        if {stage.name.casefold(), stage.key.casefold()} & {known.name.casefold(), known.key.casefold()}:
            raise TSLMError(f"there is a stage {known.name} ({known.key}) already; choose another name and key")
    _STAGES[stage.name] = stage
    return stage


def names() -> tuple[str, ...]:
    """The stages' names, "stage1" to "stage5" and those registered since, in order."""
    return tuple(_STAGES)


def get(name: str, leads: Sequence[str] | None = None) -> Stage:
    """The stage of this name ("stage1" ... "stage5", or "1") or key ("tsqa", "m4", "har", "sleep", "ecg").

    Args:
        name: or a TOML file of a task of one's own, see `task`.
        leads: of an ECG, those that the model reads; all twelve by default.

    Raises:
        TSLMError: there is no such stage (lists them), or no such lead; the file is not as it should be.
    """
    stage = task.read(name, _known) if name.strip().endswith(".toml") else _known(name)
    return stage.reading(leads)


def find(name: str) -> Stage | None:
    """The stage of this name, key or number ("2", "stage 2"), in any case, or None."""
    wanted = name.strip().casefold()
    number = re.fullmatch(r"(?:stage)?[\s_-]*0*(\d+)", wanted)
    wanted = f"stage{number[1]}" if number else wanted
    for stage in _STAGES.values():
        if wanted in (stage.name.casefold(), stage.key.casefold()):
            return stage
    return None


def _known(name: str) -> Stage:
    if (stage := find(name)) is not None:
        return stage
    near = did_you_mean(name, [word for stage in _STAGES.values() for word in (stage.name, stage.key)])
    listed = ", ".join(f"{stage.name} ({stage.key})" for stage in _STAGES.values())
    raise TSLMError(
        f"there is no stage {name!r}{near}; the stages are {listed}, or a task of your own as FILE.toml"
    )


for _stage in (TSQA, M4, HAR, SLEEP, ECG):
    register(_stage)
