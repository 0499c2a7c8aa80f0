"""`data`: the stages' data sets: what there is, fetching them, and looking at a row."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlx_tslm.cli.terminal import console, facts, if_interrupted, panel, progress_bar, table, working
from mlx_tslm.cli.words import Command, Group, examples
from mlx_tslm.errors import TSLMError
from mlx_tslm.suggest import did_you_mean

if TYPE_CHECKING:
    from mlx_tslm.fetching.http import Progress

app = typer.Typer(
    cls=Group,
    help="The stages' data sets: list them, fetch them, look at a row.",
    epilog=examples("mlx-tslm data list", "mlx-tslm data show stage1 --source synthetic"),
    no_args_is_help=True,
)

StageName = Annotated[str, typer.Argument(metavar="STAGE", help="stage1 … stage5, or tsqa, m4, har, sleep, ecg.")]


@app.command("list", cls=Command, epilog=examples("mlx-tslm data list"))
def show_list() -> None:
    """Show the data sets, and which are on this machine."""
    from mlx_tslm import stages
    from mlx_tslm.data.published import sources

    rows = []
    for name, source in sources.SOURCES.items():
        folder = sources.cache(name)
        here = all(sources.present(archive, folder) for archive in source.archives)
        key = stages.get(name).key
        rows.append((f"{name} ({key})", source.title, source.size, source.split, str(folder) if here else "no"))
    console.print(table(["stage", "data set", "download", "test / validation", "on this machine"], rows))
    console.print("`mlx-tslm data fetch STAGE` fetches one; `show STAGE --source synthetic` needs none.")


@app.command(cls=Command, epilog=examples("mlx-tslm data fetch stage1"))
def fetch(stage: StageName) -> None:
    """Download a data set; a download that broke off goes on where it ended."""
    from mlx_tslm.data.published import sources

    with if_interrupted("what was fetched is kept; the same command goes on from there"), _bars() as report:
        folder = sources.fetch(stage, report)
    console.print(Text(f"{stage} is in {folder}"))


@app.command(
    cls=Command,
    epilog=examples(
        "mlx-tslm data show stage1 --source synthetic", "mlx-tslm data show ecg --split test --index 7"
    ),
)
def show(
    stage: StageName,
    index: Annotated[int, typer.Option("--index", min=0, help="Row, from 0.")] = 0,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "train",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder with the published files. [default: where fetch puts them]"),
    ] = None,
    source: Annotated[
        str, typer.Option("--source", help="published; or synthetic or realistic: rows made from a seed.")
    ] = "published",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the synthetic rows.")] = 0,
) -> None:
    """Show a row as a model sees it: the prompt's pieces, the series drawn, the reference answer."""
    from mlx_tslm import data
    from mlx_tslm.signals import sparkline

    if source not in data.SOURCES:
        known = ", ".join(data.SOURCES) + did_you_mean(source, data.SOURCES)
        raise TSLMError(f"--source {source}: choose {known}")
    options: dict[str, Any] = {"seed": seed} if source != "published" else {"data_dir": data_dir}
    with working(f"opening {stage}"):
        rows = data.load(stage, split, source=source, **options)  # type: ignore[arg-type]
    if not 0 <= index < len(rows):
        raise TSLMError(f"--index {index}: the {split} split of {stage} has rows 0 to {len(rows) - 1}")
    sample = rows.stage.from_row(rows[index])
    console.print(panel(sample.prompt.pre, title="before the series"))
    width = max(10, min(72, console.width - 4))
    for series in sample.prompt.series:
        console.print(Text(series.text))
        console.print(
            Text(sparkline(series.values, width, 3 if len(sample.prompt.series) == 1 else 1), style="cyan")
        )
    console.print(panel(sample.prompt.post, title="after the series"))
    console.print(panel(sample.answer, title="reference answer", style="green"))
    counts = f"{len(rows)} rows" + (f", {len(rows.malformed)} malformed" if rows.malformed else "")
    console.print(facts([("row", f"{index} of the {split} split ({counts})")]))


@contextmanager
def _bars() -> "Iterator[Progress]":
    """One bar for each thing that is done, as it begins."""
    with progress_bar() as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=None)
            bars.update(tasks[what], completed=done, total=total)

        yield report
