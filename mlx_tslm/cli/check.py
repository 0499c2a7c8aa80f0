"""`check`: does a model's answer depend on the recording at all?"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlx_tslm.cli import options, outputs
from mlx_tslm.cli.reading import Reading
from mlx_tslm.cli.samples import Samples, stages_of
from mlx_tslm.cli.terminal import console, json_text, note, progress_bar, table
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.evaluation.dependence import Dependence, Mean, Moved
    from mlx_tslm.models.base import BaseModel
    from mlx_tslm.stages.base import Question

EXAMPLES = examples(
    "mlx-tslm check demo --source synthetic",
    "mlx-tslm check stage5 --batch recordings/ --json moved.json",
)
_HEADS = ("series", ">answer moves, nats", ">a token", ">labels move, nats", ">answer changes, %")


@options.expand
def check(
    model: Annotated[
        str,
        typer.Argument(
            help="A converted folder, `demo`, `stage1` … `stage5`, or an `OpenTSLM/…` name.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    reading: Reading,
    samples: Samples,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Repeatable. [default: what the model was trained on]", metavar="STAGE…"),
    ] = None,
    batch: Annotated[
        list[Path] | None,
        typer.Option(
            "--batch",
            help="Check on the recordings of these files and folders, not on a stage's samples. Repeatable.",
            metavar="PATH…",
        ),
    ] = None,
    question: options.Question = None,
    answers: options.Answers = None,
    template_id: options.TemplateId = None,
    task: options.Task = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.", rich_help_panel="Samples")] = (
        "test"
    ),
    limit: Annotated[int, typer.Option("--limit", help="The first samples or recordings only.")] = 24,
    bound: Annotated[
        float, typer.Option("--bound", help="Nats by which answers have to move; below, the exit code is 1.")
    ] = 0.05,
    max_tokens: options.MaxTokens = 256,
    width: options.Width = 8,
    json_file: outputs.JsonFile = None,
) -> None:
    """Does a model's answer depend on the recording at all?

    The series are zeroed, shuffled, disturbed by noise of two standard deviations, taken from another recording,
    and left out one by one, while the words of the prompt stay. Measured is how far the model's distribution moves
    (KL divergence, 95 % intervals): summed along its greedy answer to the intact recording, and over the allowed
    answers behind it. What follows goes into the model's card. Exits with 1 where zeroing the series, or noise,
    moves the answers by less than --bound.
    """
    from mlx_tslm.loading import folder_of

    samples.check()
    if batch is None and (question or answers or template_id is not None or task):
        raise TSLMError("--question, --answers, --template-id and --task go with --batch: samples have their own")
    outputs.check(json=json_file)
    loaded = options.load(model)
    chosen, notes = stages_of(loaded, model, stage)
    if batch and not stage:
        chosen = [loaded.stage.name] if loaded.stage else chosen[:1]
    for remark in notes:
        note(remark)
    found: dict[str, Any] = {}
    blind = False
    for name in chosen:
        if batch:
            asking = options.Asking(
                model=model, stage=name, question=question, answers=answers, template_id=template_id, task=task
            )
            asked, what = _recordings(loaded, batch, reading, asking, limit), "recordings of one's own"
        else:
            from mlx_tslm.evaluation.samples import items

            rows = samples.open(name, split, limit, loaded)
            asked = [item.question for item in items(rows, range(len(rows)))]
            what = f"{samples.source} {split} split"
        one = _measure(loaded, name, asked, max_tokens, width, bound)
        _show(name, what, one)
        found[name] = {"of": what, **one.to_dict()}
        blind |= not one.depends
        if not _add_to_card(folder_of(model), name, what, one):
            notes.append(f"the model's card was not written: {folder_of(model)} is not yours to write in")
            note(notes[-1])
    if json_file is not None:
        whole = {"model": model, "notes": notes, "stages": found}
        outputs.write(json_file, json_text(whole, indent=2), "what was measured")
    if blind:
        raise typer.Exit(1)


def _recordings(
    model: "BaseModel", paths: list[Path], reading: Reading, asking: options.Asking, limit: int
) -> "list[Question]":
    """A question about each recording that can be read.

    Raises:
        TSLMError: there is none.
    """
    from mlx_tslm import signals

    found = [pair for path in paths for pair in signals.cases(path, reading.how())]
    if not found:
        known = ", ".join(signals.FILE_TYPES)
        raise TSLMError(f"there is no recording in {', '.join(map(str, paths))}; known types are {known}")
    asked, failures = [], []
    for file, case in found[:limit]:
        try:
            put = asking.put(model, [reading.of_case(case).read(file)], reading.rate)
        except TSLMError as error:
            failures.append(f"{file.name}: {error}")
            note(f"left out {failures[-1]}")
            continue
        asked.append(put.question)
    if not asked:
        raise TSLMError(f"none of the {len(failures)} recordings can be asked about; the first: {failures[0]}")
    return asked


def _measure(
    model: "BaseModel", stage: str, asked: "list[Question]", max_tokens: int, width: int, bound: float
) -> "Dependence":
    from mlx_tslm.evaluation.dependence import measure

    with progress_bar() as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(f"{stage}, {what}", total=total)
            bars.update(tasks[what], completed=done)

        return measure(model, asked, max_tokens, width, bound, report)


def _show(stage: str, what: str, one: "Dependence") -> None:
    console.print(table(_HEADS, _rows(one), title=f"{stage}, {what}, {one.samples} samples"))
    console.print(Text(one.sentence, style="green" if one.depends else "bold red"))
    console.print()


def _rows(one: "Dependence") -> "Iterable[tuple[str, ...]]":
    for name, moved in [
        *one.recordings.items(),
        *((f"without {name}", each) for name, each in one.channels.items()),
    ]:
        yield name, *_cells(moved)


def _cells(moved: "Moved") -> tuple[str, ...]:
    from mlx_tslm.evaluation.dependence import nats

    def cell(mean: "Mean | None") -> str:
        if mean is None:
            return "–"
        return nats(mean.value) + ("" if mean.low is None else f" ({nats(mean.low)} … {nats(mean.high)})")

    changed = " … ".join(f"{100 * (end or 0.0):.0f}" for end in moved.changed[1:])
    return (
        cell(moved.answer),
        f"{moved.per_token:.3f}",
        cell(moved.labels),
        f"{100 * moved.changed.value:.0f} ({changed})",
    )


def _add_to_card(folder: Path, stage: str, what: str, one: "Dependence") -> bool:
    from mlx_tslm.conversion.card import add_section

    heads = [head.removeprefix(">") for head in _HEADS]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in _rows(one)]
    text = (
        f"## Does the answer depend on the recording? {stage}\n\n{one.sentence}\n\n" + "\n".join(lines) + "\n\n"
        f"Measured by `mlx-tslm check` on {one.samples} samples ({what}): how far the model's distribution moves "
        "from that with the intact series (KL divergence), summed along its greedy answer, and of the allowed "
        "answers behind it, with 95 % intervals."
    )
    return add_section(folder, f"check {stage}", text)
