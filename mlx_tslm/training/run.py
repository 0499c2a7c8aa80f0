"""A curriculum's training: its stages in turn, each in its folder and from the best of the one before."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mlx_tslm import stages
from mlx_tslm.conversion import store
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import scratch_of, write_atomically
from mlx_tslm.system.distributed import group
from mlx_tslm.training import outputs
from mlx_tslm.training.config import Curriculum, StageConfig
from mlx_tslm.training.data import StageData
from mlx_tslm.training.start import prepare, round_base, start
from mlx_tslm.training.trainer import Progress, Report, Trainer


@dataclass(frozen=True)
class Trained:
    """What a stage came to: its folder, and where its training stood at the end."""

    stage: StageConfig
    folder: Path
    progress: Progress


def train(
    curriculum: Curriculum, output: Path, report: Report = lambda stage, progress, doing: None
) -> list[Trained]:
    """Train a curriculum, from where an earlier run of it stopped.

    Args:
        output: a folder; each stage gets one in it, with `model/` (for `mlx-tslm`), `model_checkpoint.pt` (for
            OpenTSLM), `base/` where the LLM itself was trained, `loss.jsonl`, `loss.svg`, and what is needed to go
            on.
        report: called after each step.

    Raises:
        TSLMError: the folder holds another curriculum's training, the model or the data are not to be had, a batch
            does not fit into memory, or a loss is no number.
    """
    alone = group().rank() == 0
    with _claimed(curriculum, output) if alone else nullcontext():
        return _train(curriculum, output, report, alone)


def _train(curriculum: Curriculum, output: Path, report: Report, alone: bool) -> list[Trained]:
    model = start(curriculum)
    base: str | None = None if store.read_config(Path(curriculum.model)) else curriculum.model
    trained = []
    for stage in curriculum.stages:
        prepare(model, stage)
        folder = output / stage.name
        trainer = Trainer(model, stage, StageData(model, curriculum, stage), folder, report)
        written = trainer.progress.finished and (folder / outputs.CHECKPOINT).exists()  # written last of all
        progress = trainer.run()
        if stage.trains_language_model:
            base = None
            round_base(model.language_model, outputs.stored_dtype(model))
        if alone and not written:
            trained_for = stage.name if stage.name in stages.names() else None
            outputs.write(model, trained_for, folder, base, val_loss=progress.best, epoch=progress.epoch)
        base = base or str(folder / "base")
        trained.append(Trained(stage, folder, progress))
    return trained


@contextmanager
def _claimed(curriculum: Curriculum, output: Path) -> Iterator[None]:
    """Make the folder this curriculum's; where the block fails with nothing to go on from, it goes again."""
    made = next((path for path in [*reversed(output.parents), output] if not path.exists()), None)
    _claim(curriculum, output)
    try:
        yield
    except BaseException:
        if made is not None and not any(output.rglob("*.safetensors")):
            shutil.rmtree(made, ignore_errors=True)
        raise


def _claim(curriculum: Curriculum, output: Path) -> None:
    """Make the folder this curriculum's, or see that it is."""
    mark = output / "curriculum.json"
    if mark.exists():
        try:
            digest = json.loads(mark.read_text("utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            raise TSLMError(f"{mark} is damaged; give another --output, or delete {output}") from None
        if digest != curriculum.digest():
            raise TSLMError(
                f"{output} holds the training of another curriculum; give another --output, or delete it"
            )
        return
    if output.exists() and (not output.is_dir() or any(path != scratch_of(mark) for path in output.iterdir())):
        raise TSLMError(f"{output} exists and holds no training; give another --output")
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, json.dumps({"digest": curriculum.digest(), "model": curriculum.model}, indent=2) + "\n")
