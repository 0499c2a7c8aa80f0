"""`calibrate`: how sure an answer's share makes one, fitted on validation samples and kept with the model."""

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlx_tslm.cli import options, outputs
from mlx_tslm.cli.samples import Samples, stages_of
from mlx_tslm.cli.terminal import console, note, percent, progress_bar, table
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import write_atomically

if TYPE_CHECKING:
    from mlx_tslm.evaluation.calibrate import Fitted


EXAMPLES = examples("mlx-tslm calibrate demo --source synthetic --limit 50")


@options.expand
def calibrate(
    model: Annotated[
        str, typer.Argument(help="A converted folder, or what `check` takes.", metavar="MODEL", show_default=False)
    ],
    searching: options.Searching,
    samples: Samples,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Repeatable. [default: what the model was trained on]", metavar="STAGE…"),
    ] = None,
    split: Annotated[
        str,
        typer.Option("--split", help="train or validation; a test is not for fitting.", rich_help_panel="Samples"),
    ] = "validation",
    limit: Annotated[int, typer.Option("--limit", help="The first samples only.", rich_help_panel="Samples")] = 200,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Begin no sample of a stage after so long.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for what the searches found, which is not done again, and the reliability plots.",
            show_default="calibration/MODEL",
        ),
    ] = None,
    json_file: outputs.JsonFile = None,
) -> None:
    """Fit p, λ and one temperature T a stage, so that an answer that is called 80 % sure is right in 80 % of cases.

    p is what answers are sampled from: --temperature and --top-p, or the best of a few. λ is the best of several. T
    acts on the answers' log shares and never changes their order. All three go into calibration.json in the model's
    folder, where `search` finds them. Stopped, the same command goes on where it was.
    """
    from mlx_tslm import calibration
    from mlx_tslm.conversion.card import add_section
    from mlx_tslm.evaluation.calibrate import STRENGTHS
    from mlx_tslm.evaluation.calibrate import calibrate as fit
    from mlx_tslm.evaluation.folder import Folder
    from mlx_tslm.evaluation.metrics.reliability import reliability_svg
    from mlx_tslm.loading import folder_of

    samples.check()
    if split == "test":
        raise TSLMError("--split test: what is fitted on a test says nothing about it; take validation")
    if searching.reward:
        raise TSLMError("--reward: what is fitted is kept for the stage's own reward; leave it out")
    config = searching.config()
    if searching.inverse_temperature is None:
        config = replace(config, inverse_temperature=STRENGTHS[3])
    outputs.check(json=json_file)
    loaded, place = options.load(model), folder_of(model)
    if not os.access(place, os.W_OK):
        raise TSLMError(f"{place} is not yours to write in; copy the model to another folder")
    chosen, notes = stages_of(loaded, model, stage)
    for remark in notes:
        note(remark)
    out = output or Path("calibration", re.sub(r"[^\w.]+", "-", Path(model).name))
    fits: dict[str, Fitted] = {}
    for name in chosen:
        rows = samples.open(name, split, limit, loaded)
        about = f"{samples.source} {split} split"
        with progress_bar() as bars:
            task = bars.add_task(name, total=None)

            def report(done: int, total: int, bars: Any = bars, task: Any = task) -> None:
                bars.update(task, completed=done, total=total)

            try:
                fits[name] = fit(
                    loaded,
                    rows,
                    Folder(out / f"{name}-{samples.source}-{split}"),
                    config,
                    seconds=60 * minutes if minutes is not None else None,
                    progress=report,
                    about=about,
                )
            except KeyboardInterrupt:
                bars.stop()
                note(f"finished searches are kept in {out}; the same command goes on from there")
                raise
        one = fits[name]
        calibration.write(place, name, one.calibration)
        add_section(place, f"calibration {name}", f"## How sure is an answer? {name}\n\n{_sentence(one)}")
        error = one.error
        write_atomically(
            out / f"reliability-{name}.svg",
            reliability_svg(
                one.bins,
                f"{name}: how often answers are right",
                f"expected calibration error {error.value:.3f} ({error.low:.3f} to {error.high:.3f})",
            ),
        )
    show(fits)
    console.print(Text(f"fitted values are in {place / calibration.FILE}, plots in {out}", style="dim"))
    if json_file is not None:
        found = {name: _plain(one) for name, one in fits.items()}
        outputs.write(json_file, json.dumps(found, indent=2, allow_nan=False) + "\n", "what was fitted")


def show(fits: "dict[str, Fitted]") -> None:
    """Print what was fitted, a row a stage."""
    rows = []
    for name, one in fits.items():
        fitted = one.calibration
        rows.append(
            (
                name,
                fitted.origin["samples"],
                f"{fitted.temperature:g} / {fitted.top_p:g}",
                f"{fitted.inverse_temperature:g}",
                f"{fitted.confidence_temperature:.2f}",
                percent(one.right),
                f"{one.raw.value:.3f}",
                f"{one.error.value:.3f} ({one.error.low:.3f} … {one.error.high:.3f})",
                f"{one.perfect.value:.3f}",
            )
        )
    heads = ["stage", ">samples", ">temperature / top-p", ">λ", ">T", ">right"]
    heads += [">ECE of weight", ">of confidence", ">at best"]
    title = "expected calibration error (ECE), 15 bins, cross-fitted; at best: a perfect forecaster's"
    console.print(table(heads, rows, title=title))


def _sentence(one: "Fitted") -> str:
    fitted, error = one.calibration, one.error
    return (
        f"On {fitted.origin['samples']} samples ({fitted.origin['of']}), with temperature {fitted.temperature:g}, "
        f"top-p {fitted.top_p:g} and λ = {fitted.inverse_temperature:g}, {percent(one.right)} of the answers were "
        f"right. With T = {fitted.confidence_temperature:.2f} the expected calibration error of the confidence is "
        f"{error.value:.3f} ({error.low:.3f} to {error.high:.3f}); a perfect forecaster would show "
        f"{one.perfect.value:.3f}. Measured by `mlx-tslm calibrate`."
    )


def _plain(one: "Fitted") -> dict[str, Any]:
    return {
        "calibration": asdict(one.calibration),
        "right": one.right,
        "error_of_shares": one.raw._asdict(),
        "error_of_confidence": one.error._asdict(),
        "perfect_forecaster": one.perfect._asdict(),
        "bins": [each._asdict() for each in one.bins],
    }
