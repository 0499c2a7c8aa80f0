"""`train`: a curriculum, stage by stage."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlx_tslm.cli.terminal import console, note, status, table
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.training import config, run, trainer

_FITTING = 600.0  # seconds


EXAMPLES = examples(
    "mlx-tslm train opentslm -o runs/llama",
    "mlx-tslm train mine.toml --model demo-folder  # goes on from a converted model",
)


def train(
    curriculum: Annotated[
        str,
        typer.Argument(
            help="A curriculum: a TOML file, or opentslm, flamingo, guide or demo. Or a table of questions about "
            "your own recordings (CSV), or the folder of its questions.csv.",
            metavar="CURRICULUM|QUESTIONS",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the run; one that was stopped goes on.", show_default="runs/NAME"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="What to start from, in place of the curriculum's: a base LLM, a converted folder, demo, or "
            "stage1 … stage5.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Of a table: a task of your own (TOML), or stage1 … stage5. [default: made of the table]",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder with the published files. [default: where `data fetch` puts them]"),
    ] = None,
    calibrate: Annotated[
        int,
        typer.Option(
            "--calibrate",
            help="Validation samples of each stage that the last model's p, λ and T are fitted on, in ten minutes "
            "at most; 0 leaves them unknown.",
        ),
    ] = 32,
) -> None:
    """Train encoder, projector and LoRA through a curriculum. Stopped, the same command goes on where it was.

    On a table, each row asks about a recording: its columns are recording, question, answer and, where wanted,
    rationale, split, person, start, seconds, channel and case. The folder is then a model: `eval --model FOLDER
    --data QUESTIONS`.

    Each stage's folder gets model/ (for mlx-tslm), model_checkpoint.pt (for OpenTSLM), and the log of its loss. How
    sure answers of the last model are is fitted at the end (see `calibrate`, which does it on more samples). On
    several machines: `mlx.launch -n 2 python -m mlx_tslm train …`.
    """
    from mlx_tslm.data.own import is_table
    from mlx_tslm.system.distributed import group
    from mlx_tslm.training import config

    own = is_table(curriculum)
    if own and model is None:
        raise TSLMError(f"say which model is to learn from {curriculum}: --model demo, stage5, or a folder")
    if own and not Path(curriculum).exists():
        raise TSLMError(f"there is no table {curriculum}")
    source = {"source": str(Path(curriculum).resolve())} if own else {}
    folder_of_data = str(data_dir) if data_dir else None
    chosen = config.load(
        config.OWN if own else curriculum, model=model, task=task, data_dir=folder_of_data, **source
    )
    if chosen.task is not None:
        from mlx_tslm import rewards, stages

        rewards.check_stage(stages.get(chosen.task))
    from mlx_tslm.training.run import train as train_stages

    folder = output or Path("runs") / Path(curriculum).stem
    with Display() as display:
        trained = train_stages(chosen, folder, display, note)
    if group().rank():
        return
    rows = []
    for one in trained:
        where = one.progress
        speed = f"{where.tokens / where.seconds:,.0f}" if where.seconds else "–"
        rows.append((one.stage.name, where.epoch, where.step, f"{where.best:.4f}", speed, one.folder / "model"))
    console.print(table(("stage", ">epochs", ">steps", ">validation loss", ">tokens/s", "model"), rows))
    if calibrate:
        _calibrate(chosen, trained[-1], calibrate)


def _calibrate(curriculum: "config.Curriculum", last: "run.Trained", count: int) -> None:
    """Fit p, λ and T of the last stage's model and keep them in its folder, unless they are there already."""
    from mlx_tslm import calibration
    from mlx_tslm.cli.calibrate import show
    from mlx_tslm.cli.samples import Samples
    from mlx_tslm.data.own import open_table
    from mlx_tslm.evaluation.calibrate import STRENGTHS
    from mlx_tslm.evaluation.calibrate import calibrate as fit
    from mlx_tslm.evaluation.folder import Folder
    from mlx_tslm.loading import load
    from mlx_tslm.search import SearchConfig

    place = last.folder / "model"
    model, fits = load(place), {}
    trained_on = list(last.stage.samples) or [last.stage.name]
    if curriculum.on_table and model.stage is not None:
        trained_on = [model.stage.name]
    names = [name for name in trained_on if name not in calibration.read(place)]
    search = SearchConfig(num_rollouts=16, width=4, inverse_temperature=STRENGTHS[3])
    for name in names:
        about = f"{Path(curriculum.source).name} validation split"
        try:
            if curriculum.on_table:
                rows = open_table(curriculum.source, model.stage).of("validation", count)
            else:
                folder_of_data = Path(curriculum.data_dir) if curriculum.data_dir else None
                samples = Samples(source=curriculum.source, data_dir=folder_of_data)
                rows = samples.open(name, "validation", count, model)
            folder = Folder(last.folder / "calibration" / name)
            fits[name] = fit(model, rows, folder, search, seconds=_FITTING / len(names), about=about)
        except TSLMError as error:  # what was trained is whole without it
            note(f"{name}: p, λ and T stay unknown: {error}; `mlx-tslm calibrate {place}` fits them")
            continue
        calibration.write(place, name, fits[name].calibration)
    if fits:
        show(fits)


class Display:
    """A line for the stage under way; silent in all processes but the first."""

    def __enter__(self) -> Self:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=status,
        )
        self._bars.start()
        self._stage = ""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is KeyboardInterrupt:
            status.print("stopped and saved; the same command goes on from here")

    def __call__(self, stage: "config.StageConfig", progress: "trainer.Progress", doing: str) -> None:
        from mlx_tslm.system.distributed import group

        if group().rank():
            return
        if stage.name != self._stage:
            self._stage = stage.name
            self._task = self._bars.add_task(stage.name, total=progress.steps, said="")
        speed = f"{progress.tokens / progress.seconds:,.0f} tokens/s" if progress.seconds else ""
        best = f"best {progress.best:.4f}" if progress.best < float("inf") else ""
        said = "  ".join(
            filter(None, (f"loss {progress.loss:.4f}", best, speed, doing if doing != "training" else ""))
        )
        self._bars.update(
            self._task, completed=progress.step, description=f"{stage.name}, epoch {progress.epoch + 1}", said=said
        )
