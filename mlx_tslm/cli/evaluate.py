"""`eval`: how well a model answers a stage's data, by one method or several."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mlx_tslm.cli import options
from mlx_tslm.cli.terminal import console, facts, if_interrupted, note, status, table, working
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError, visible
from mlx_tslm.suggest import did_you_mean

EXAMPLES = examples(
    "mlx-tslm eval --model demo --source synthetic --limit 20",
    "mlx-tslm eval --model stage4 --method greedy maxent-ts --num-rollouts 16 -o eval/sleep",
)


@options.expand
def evaluate(
    model: options.Model,
    searching: options.Searching,
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage",
            help="stage1 … stage5, or a task of your own (TOML). [default: what the model was trained on]",
        ),
    ] = None,
    backend: options.Backend = "mlx",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="greedy, sample, maxent-ts, dts, dts*, mcts, beam or best-of-n. Repeatable.",
            metavar="NAME…",
            show_default="greedy",
        ),
    ] = None,
    data_table: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="A table of questions about your own recordings (CSV), or the folder of its questions.csv, in "
            "place of a stage's data set.",
            metavar="QUESTIONS",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="train, validation or test; of a table also all. A table without splits is split anew, "
            "as `train` does it.",
        ),
    ] = "test",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first samples only.")] = None,
    source: Annotated[
        str, typer.Option("--source", help="published; or synthetic or realistic: rows made from a seed.")
    ] = "published",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder with the published files. [default: where `data fetch` puts them]"),
    ] = None,
    ablate: Annotated[
        str | None,
        typer.Option(
            "--ablate",
            help="Tamper with the series, to see whether answers depend on them: zero, shuffle (in time), noise "
            "(of two deviations) or swap (with another sample's).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for answers and figures; what is finished there is not done again.",
            show_default="eval/MODEL-STAGE-SPLIT",
        ),
    ] = None,
) -> None:
    """Answer a stage's samples and compute its metrics. Stopped, it goes on where it was.

    Every method may spend the same on a sample: --num-rollouts times --max-tokens tokens. Several processes share
    the samples: `mlx.launch -n 2 python -m mlx_tslm eval …`.
    """
    from mlx_tslm import data, evaluation, stages
    from mlx_tslm.data import own
    from mlx_tslm.evaluation.baselines import ZEROED
    from mlx_tslm.system.distributed import group

    config = searching.config()
    methods = list(dict.fromkeys(method or ["greedy"]))
    if data_table is not None and not own.is_table(data_table):
        raise TSLMError(f"--data {data_table}: give a table (CSV), or a folder with a questions.csv")
    if source not in data.SOURCES:
        known = ", ".join(data.SOURCES) + did_you_mean(source, data.SOURCES)
        raise TSLMError(f"--source {source}: choose {known}")
    if data_table is None and split not in data.SPLITS:
        known = ", ".join(data.SPLITS) + did_you_mean(split, data.SPLITS)
        raise TSLMError(f"--split {split}: choose {known}")
    evaluation.check(methods, ablate)
    terms = searching.terms()
    named = stages.get(stage) if stage else None
    loaded = options.load(model, backend)
    chosen = named or loaded.stage
    if chosen is None and data_table is None:
        raise TSLMError(f"{model} does not say what stage it was trained on; choose one: --stage stage1 … stage5")
    if chosen is not None and data_table is None and chosen.name not in stages.names():
        raise TSLMError(f"{chosen.name} is a task of one's own: name the table of its questions with --data")
    chosen = chosen and chosen.reading(loaded.config.leads)
    training: data.Dataset | None = None
    with working(f"opening {data_table or (chosen and chosen.name)}"):
        if data_table is not None:
            questions = own.open_table(str(data_table), chosen)
            rows = questions.of(split, limit)
            training = questions.of("train") if split != "train" and "train" in questions.assigned else None
        else:
            size = {"size": limit} if source != "published" and limit else {}
            assert chosen is not None
            rows = data.load(chosen, split, data_dir, limit, source=source, **size)  # type: ignore[arg-type]
            rows.stage = chosen
    for remark in questions.notes if data_table is not None else ():
        note(remark)
    out = output
    if out is None:
        name = re.sub(r"[^\w.]+", "-", Path(model).name)
        made = source if source != "published" else None
        by = backend if backend != "mlx" else None
        out = Path("eval", "-".join(filter(None, (name, rows.stage.name, split, made, ablate, by))))

    first = group().rank() == 0
    share = f" (a share of 1 in {group().size()})" if group().size() > 1 else ""
    kept = f"finished samples are kept in {out}; the same command goes on from there"
    with if_interrupted(kept), _bars(disable=not first) as bars:
        tasks: dict[str, Any] = {}

        def report(name: str, finished: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None)
                if finished and first:
                    said = f"{name}: {finished} of {total} samples are in {out} already{share}"
                    bars.console.print(visible(said), style="dim")
            bars.update(tasks[name], completed=finished, total=total)

        result = evaluation.evaluate(
            loaded, rows, out, methods, config, terms, " ".join(searching.reward or ["default"]), ablate, report
        )
        if data_table is not None and ablate is None:
            beside = evaluation.baselines(
                loaded, rows, out, config, training, lambda _, done, total: report(ZEROED, done, total)
            )
            result = result and result | {"baselines": beside}
    if result is not None:
        show(result, str(data_table.name) + "," if data_table else source)
        console.print(Text(f"answers, metrics and confusion matrices are in {out}", style="dim"))


def show(result: dict[str, Any], source: str) -> None:
    """Print the figures of an evaluation, a column for each way to answer."""
    columns = {
        (name, readout): (figures, scores)
        for name, figures in result["methods"].items()
        for readout, scores in figures["metrics"].items()
    }
    for name, figures in (result.get("baselines") or {}).items():
        columns |= {(name, readout): (figures, scores) for readout, scores in figures["metrics"].items()}
    names = [name if readout == "answer" else f"{name}\n{readout}" for name, readout in columns]
    gap = " " if len(columns) <= 3 else "\n"
    rows = []
    for metric in dict.fromkeys(metric for _, scores in columns.values() for metric in scores):
        cells = [_estimate(scores.get(metric), gap) for _, scores in columns.values()]
        rows.append((metric.replace("_", " "), *cells))
    titles = {
        "tokens": "tokens spent a sample",
        "forward_passes": "forward passes a sample",
        "seconds": "seconds a sample",
        "finished": "answers that came to an end",
    }
    for key, title in titles.items():
        rows.append((title, *(f"{figures['spent'][key]:.3g}" for figures, _ in columns.values())))
    what = f"{result['stage']}, {source} {result['split']} split" + (
        f", series ablated: {result['ablate']}" if result["ablate"] else ""
    )
    console.print(table(["", *(f">{name}" for name in names)], rows, title=what))
    if any("templates" in figures for figures in result["methods"].values()):
        _show_templates(result, list(columns), names)
    budget = result["budget"]
    samples = next(iter(result["methods"].values()))
    counts = f"{samples['samples']}"
    if samples["unlabelled"]:
        counts += f", {samples['unlabelled']} of them without a known label and left out"
    if malformed := len(result["malformed"]):
        counts += f"; {malformed} malformed row{'s' if malformed > 1 else ''} left out"
    console.print(
        facts(
            [
                ("samples", counts),
                (
                    "budget a sample",
                    f"{budget['tokens']} tokens for every method: {budget['num_rollouts']} answers of up to "
                    f"{budget['max_tokens']} tokens; greedy and sample use one of them",
                ),
                (
                    "in brackets",
                    "95 % bootstrap intervals; `published` figures count as OpenTSLM's evaluation does",
                ),
            ]
        )
    )


def _show_templates(result: dict[str, Any], columns: list[tuple[str, str]], names: list[str]) -> None:
    """Accuracy of each ECG-QA template."""
    tables = [result["methods"][name]["templates"][readout] for name, readout in columns]
    rows = [
        (template, one["samples"], *(f"{each[template]['accuracy']:.3f}" for each in tables))
        for template, one in tables[0].items()
    ]
    console.print(table([">template", ">samples", *(f">{name}" for name in names)], rows, title="accuracy"))


def _estimate(one: dict[str, float] | None, gap: str) -> str:
    if one is None:
        return ""
    digits = 1 if one["value"] >= 10 else 3
    return f"{one['value']:.{digits}f}{gap}({one['low']:.{digits}f} … {one['high']:.{digits}f})"


def _bars(disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=status,
        transient=True,
        disable=disable,
    )
