"""A curriculum's training: its stages in turn, each in its folder and from the best of the one before."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mlx_tslm import stages
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import scratch_of, write_atomically
from mlx_tslm.loading import RUN
from mlx_tslm.system.distributed import group
from mlx_tslm.training import outputs
from mlx_tslm.training.config import Curriculum, StageConfig
from mlx_tslm.training.data import StageData, questions_of
from mlx_tslm.training.start import converted_folder, prepare, round_base, start
from mlx_tslm.training.trainer import Progress, Report, Trainer


@dataclass(frozen=True)
class Trained:
    """What a stage came to: its folder, and where its training stood at the end."""

    stage: StageConfig
    folder: Path
    progress: Progress


def train(
    curriculum: Curriculum,
    output: Path,
    report: Report = lambda stage, progress, doing: None,
    tell: Callable[[str], None] = lambda note: None,
) -> list[Trained]:
    """Train a curriculum, from where an earlier run of it stopped.

    Args:
        output: a folder; each stage gets one in it, with `model/` (for `mlx-tslm`), `model_checkpoint.pt` (for
            OpenTSLM), `base/` where the LLM itself was trained, `loss.jsonl`, `loss.svg`, and what is needed to go
            on.
        report: called after each step.
        tell: called with what a person should know of a table of their own, a sentence at a time.

    Raises:
        TSLMError: the folder holds another curriculum's training, the model or the data are not to be had, a batch
            does not fit into memory, or a loss is no number.
    """
    alone = group().rank() == 0
    with _claimed(curriculum, output) if alone else nullcontext():
        return _train(curriculum, output, report, tell, alone)


def _train(
    curriculum: Curriculum, output: Path, report: Report, tell: Callable[[str], None], alone: bool
) -> list[Trained]:
    model = start(curriculum)
    base: str | None = None if converted_folder(curriculum.model) else curriculum.model
    questions = questions_of(curriculum, model) if curriculum.on_table else None
    for note in questions.notes if questions and alone else ():
        tell(note)
    trained = []
    for stage in curriculum.stages:
        prepare(model, stage)
        folder = output / stage.name
        samples = StageData(model, curriculum, stage, questions)
        if alone:
            _claim(curriculum, output)  # what can be wrong with the data has been found by now
        trainer = Trainer(model, stage, samples, folder, report)
        written = trainer.progress.finished and (folder / outputs.CHECKPOINT).exists()  # written last of all
        progress = trainer.run()
        if stage.trains_language_model:
            base = None
            round_base(model.language_model, outputs.stored_dtype(model))
        if alone and not written:
            trained_for = stages.get(stage.name) if stage.name in stages.names() else None
            if questions is not None:
                trained_for = questions.stage
                model.config.trained_on = {trained_for.name: samples.spans().to_dict()}
            outputs.write(model, trained_for, folder, base, val_loss=progress.best, epoch=progress.epoch)
        base = base or str(folder / "base")
        trained.append(Trained(stage, folder, progress))
    return trained


@contextmanager
def _claimed(curriculum: Curriculum, output: Path) -> Iterator[None]:
    """Make the folder this curriculum's; where the block fails with nothing to go on from, it goes again."""
    made = next((path for path in [*reversed(output.parents), output] if not path.exists()), None)
    _check_output(curriculum, output)
    try:
        yield
    except BaseException:
        if made is not None and not any(output.rglob("*.safetensors")):
            shutil.rmtree(made, ignore_errors=True)
        raise


def _check_output(curriculum: Curriculum, output: Path) -> None:
    """See that the folder is free, or this curriculum's already."""
    mark = output / RUN
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


def _claim(curriculum: Curriculum, output: Path) -> None:
    """Make the folder this curriculum's."""
    output.mkdir(parents=True, exist_ok=True)
    names = [stage.name for stage in curriculum.stages]
    said = {"digest": curriculum.digest(), "model": curriculum.model, "stages": names}
    write_atomically(output / RUN, json.dumps(said, indent=2) + "\n")
