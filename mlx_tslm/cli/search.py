"""`search`: many answers, their rewards and their weights."""

import importlib.util
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.text import Text

from mlx_tslm.cli import options, outputs
from mlx_tslm.cli.batch import batch as search_all
from mlx_tslm.cli.reading import Reading
from mlx_tslm.cli.terminal import console, facts, note, one_line, panel, percent, plural, shares, status, table
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.search import Progress, SearchResult
    from mlx_tslm.stages import Labels

_LISTED = 5  # answers and texts that the terminal shows


EXAMPLES = examples(
    "mlx-tslm search --model demo --series airline.csv",
    "mlx-tslm search --model demo --series airline.csv --num-rollouts 32 --json found.json --html found.html",
    "mlx-tslm search --model stage5 --batch recordings/ --json found.jsonl",
)


@options.expand
def search(
    asking: options.Asking,
    reading: Reading,
    searching: options.Searching,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="maxent-ts, dts, dts*, mcts, beam, best-of-n or greedy.", rich_help_panel="Search"
        ),
    ] = "maxent-ts",
    batch: Annotated[
        list[Path] | None,
        typer.Option(
            "--batch",
            help="Search each recording of these files and folders by itself, instead of --series. Repeatable.",
            metavar="PATH…",
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write the whole result, tree included, to this file; of a batch, a line each; - is stdout.",
        ),
    ] = None,
    html_file: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Write the result as one HTML page to this file."),
    ] = None,
    png_file: Annotated[
        str | None,
        typer.Option("--png", metavar="FILE", help="Draw signal and answers into this file; needs Matplotlib."),
    ] = None,
) -> None:
    """Search over whole answers: the one with the most weight, how sure it is, and what else was found."""
    from mlx_tslm.search import MaxEntTS, presets
    from mlx_tslm.search.api import SearchError
    from mlx_tslm.search.dependence import with_remark

    config = searching.config(method=method)
    presets.get(config.method)  # settings are checked before anything slow happens
    outputs.check(json=json_file, html=html_file, png=png_file)
    if png_file is not None and importlib.util.find_spec("matplotlib") is None:
        raise TSLMError("--png needs Matplotlib: pip install matplotlib")
    terms = searching.terms()
    if batch:
        if asking.series or html_file is not None or png_file is not None:
            raise TSLMError("--batch takes the place of --series, and writes no --html page and no --png")
        loaded = options.load(asking.model, asking.backend)

        def one(file: Path, how: Reading) -> "tuple[SearchResult, options.Asked]":
            asked = asking.put(loaded, [how.read(file)], how.rate)
            settings = searching.fitted(config, loaded, asked.question)
            found = MaxEntTS(loaded, terms, settings).search(asked.question)
            return with_remark(loaded, asked.question, found), asked

        search_all(batch, json_file, reading, one)
        return
    if not asking.series:
        raise TSLMError("name a recording with --series, or several with --batch")
    asked = asking.ask(reading)
    result: SearchResult | None
    failure: SearchError | None = None
    config = searching.fitted(config, asked.model, asked.question)
    with watching() as watch:
        try:
            result = MaxEntTS(asked.model, terms, config).search(asked.question, watch)
        except SearchError as error:  # what was found before is shown all the same
            failure, result = error, error.result
    if result is not None:
        result = with_remark(asked.model, asked.question, result)
        for remark in result.notes:
            note(remark)
        show(result, asked.question.labels)
        if json_file is not None:
            read = [recording.summary() for recording in asked.recordings]
            saved = result.to_dict() | {"recordings": read, "notes": [*asked.notes, *result.notes]}
            text = json.dumps(saved, allow_nan=False, separators=(",", ":"))
            outputs.write(json_file, text, "the whole result")
        if html_file is not None:
            from mlx_tslm.report.page import fill, page_data

            names = ", ".join(file.name for file in asking.series)
            data = page_data(result, asked.question, asked.model.tokenizer, asking.model, asked.notes, names)
            outputs.write(html_file, fill(data), "the page")
        if png_file is not None:
            from mlx_tslm.report.objects import picture

            outputs.write_bytes(png_file, picture(result), "the picture")
    if failure is not None:
        raise failure
    if watch.stopped:
        raise typer.Exit(130)


class _Watch:
    """Shows a search as it goes on; the first Ctrl-C ends it with the wave under way, the second at once."""

    def __init__(self, live: Live) -> None:
        self.stopped = False
        self._live = live
        self._waves = 0
        self._found: RenderableType = Text()

    def __call__(self, progress: "Progress") -> bool:
        if progress.waves > self._waves:
            self._waves = progress.waves
            result = progress.snapshot() if status.is_terminal else None
            if result is not None:
                self._found = Group(
                    Text("so far: ") + Text(one_line(result.headline, status.width - 9), style="bold"),
                    shares((one_line(one.answer, 48), one.weight) for one in result.ranked[:_LISTED]),
                )
        line = (
            f"wave {progress.waves + 1}: {progress.rollouts} of {progress.budget} answers, "
            f"{progress.walkers} under way, {progress.tokens / max(progress.seconds, 1e-9):.0f} tokens/s"
        )
        if self.stopped:
            line += " (stopping after this wave; Ctrl-C again to stop at once)"
        self._live.update(Group(Text(line, style="dim"), self._found))
        return not self.stopped

    def stop(self, *_: object) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True


@contextmanager
def watching() -> Iterator[_Watch]:
    with Live(Text("reading the prompt", style="dim"), console=status, transient=True) as live:
        watch = _Watch(live)
        before = signal.signal(signal.SIGINT, watch.stop)
        try:
            yield watch
        finally:
            signal.signal(signal.SIGINT, before)


def show(result: "SearchResult", labels: "Labels | None") -> None:
    """The answer and how sure it is, what else was found with its weight, and the cost."""
    from mlx_tslm.search.answers import NONE
    from mlx_tslm.stages import worded

    best, stats, top = result.best, result.stats, next(iter(result.ranked), None)
    clear = result.answer is not None
    console.print(panel(worded(result.headline, labels), title="answer", style="green" if clear else "yellow"))
    if top is not None:
        low, high = map(percent, top.interval)
        basis = f"95 % interval {low} to {high}, on {result.effective_rationales:.1f} effective rationales"
        if result.exhausted:
            basis = "exact: nothing is left to explore"
        basis += "" if result.calibration is not None else "; not calibrated"
        console.print(
            Text("" if clear else f"at most {worded(top.answer, labels)}: ")
            + Text(f"confidence {percent(top.confidence)}", style="bold")
            + Text(f" ({basis})")
        )
        if top.claims:
            console.print(shares(top.claims.items()))
    if best.text.rstrip(". ") != (top and top.answer):  # the text is more than the answer
        console.print(Text(f"\n{best.text}"))
    terms = ", ".join(f"{name} {value:.2f}" for name, value in best.columns.items() if value is not None)
    console.print(
        Text(f"reward {best.reward:.3f} from {terms or 'nothing'}; log p {best.logprob:.1f}", style="dim")
    )
    console.print(Text("\nanswers, by weight", style="bold"))
    listed = [(one_line(worded(one.answer, labels), 60), one.weight) for one in result.ranked[:_LISTED]]
    if others := result.ranked[_LISTED:]:
        listed.append((f"{len(others)} other answers", sum(one.weight for one in others)))
    if result.unanswered > 5e-4:
        listed.append((NONE, result.unanswered))
    console.print(shares(listed))
    weights: dict[str, float] = {}
    for one in result.completions:
        weights[one.text] = weights.get(one.text, 0.0) + one.weight
    console.print(Text("\nin full, by weight", style="bold"))
    by_text = {one.text: one for one in result.completions}
    heaviest = sorted(weights.items(), key=lambda item: -item[1])[:_LISTED]
    rows = [
        (
            f"{weight:.3f}",
            f"{by_text[text].reward:.3f}",
            f"{by_text[text].logprob:.1f}",
            one_line(text, 200) or "(empty)",
        )
        for text, weight in heaviest
    ]
    console.print(table([">weight", ">reward", ">log p", "text"], rows))
    if len(weights) > len(rows):
        console.print(Text(f"and {len(weights) - len(rows)} more\n", style="dim"))
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in stats.seconds.items() if name != "total")
    console.print(
        facts(
            [
                (
                    "searched",
                    f"{plural(stats.rollouts, 'rationale' if result.config.complete_answers else 'answer')} in "
                    f"{plural(stats.waves, 'wave')}, {stats.nodes} nodes, {stats.depth} deep",
                ),
                (
                    "value",
                    f"{result.root_value:.4f}"
                    + (", exact: nothing is left to explore" if result.exhausted else ""),
                ),
                (
                    "cost",
                    f"{stats.forward_passes} forward passes for {stats.tokens_decoded} tokens after a prompt of "
                    f"{stats.prompt_tokens}",
                ),
                *([("saved", _saved(result))] if stats.tokens_saved else []),
                ("time", f"{stats.seconds['total']:.1f} s ({seconds})"),
                ("sampled from", f"{result.config.sampling} of the model"),
                ("peak memory", decimal(stats.peak_memory)),
            ]
        )
    )


def _saved(result: "SearchResult") -> str:
    stats = result.stats
    return (
        f"about {stats.tokens_saved} tokens: after {stats.rollouts} of {result.config.num_rollouts} the answer "
        "could not change any more"
    )
