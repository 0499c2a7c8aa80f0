"""`search`: many answers, their rewards and their weights."""

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
from mlx_tslm.cli.terminal import console, facts, note, one_line, panel, shares, status, table
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.search import Progress, SearchResult
    from mlx_tslm.signals import Recording
    from mlx_tslm.stages import Labels


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
) -> None:
    """Search over whole answers: the best one, the alternatives, and what each weighs."""
    from mlx_tslm.search import MaxEntTS, presets
    from mlx_tslm.search.api import SearchError

    config = searching.config(method=method)
    presets.get(config.method)  # settings are checked before anything slow happens
    outputs.check(json=json_file, html=html_file)
    terms = searching.terms()
    if batch:
        if asking.series or html_file is not None:
            raise TSLMError("--batch takes the place of --series, and writes no --html page")
        loaded = options.load(asking.model, asking.backend)

        def one(file: Path, how: Reading) -> "tuple[SearchResult, list[Recording]]":
            asked = asking.put(loaded, [how.read(file)], how.rate)
            return MaxEntTS(loaded, terms, config).search(asked.question), asked.recordings

        search_all(batch, json_file, reading, one)
        return
    if not asking.series:
        raise TSLMError("name a recording with --series, or several with --batch")
    asked = asking.ask(reading)
    result: SearchResult | None
    failure: SearchError | None = None
    with watching() as watch:
        try:
            result = MaxEntTS(asked.model, terms, config).search(asked.question, watch)
        except SearchError as error:  # what was found before is shown all the same
            failure, result = error, error.result
    if result is not None:
        for remark in result.notes:
            note(remark)
        show(result, asked.question.labels)
        if json_file is not None:
            read = [recording.summary() for recording in asked.recordings]
            saved = result.to_dict() | {"recordings": read, "notes": asked.notes}
            text = json.dumps(saved, allow_nan=False, separators=(",", ":"))
            outputs.write(json_file, text, "the whole result")
        if html_file is not None:
            from mlx_tslm.report.page import fill, page_data

            data = page_data(result, asked.question, asked.model.tokenizer, asking.model, asked.notes)
            outputs.write(html_file, fill(data), "the page")
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
                    Text("best so far: ") + Text(one_line(result.best.text, status.width - 14), style="bold"),
                    shares((one_line(answer, 48), weight) for answer, weight in _head(result.answers)),
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
    """The best answer, the alternatives with their weights, and the cost."""
    from mlx_tslm.stages import worded

    best, stats = result.best, result.stats
    console.print(panel(best.text, title="best answer", style="green"))
    terms = ", ".join(f"{name} {value:.2f}" for name, value in best.columns.items() if value is not None)
    console.print(
        Text(f"reward {best.reward:.3f} from {terms or 'nothing'}; log p {best.logprob:.1f}", style="dim")
    )
    weights: dict[str, float] = {}
    for one in result.completions:
        weights[one.text] = weights.get(one.text, 0.0) + one.weight
    if any(one.answer != one.text.rstrip(". ") for one in result.completions):  # the text is more than the answer
        console.print(Text("\nfinal answers, by weight", style="bold"))
        answers = ((one_line(worded(answer, labels), 60), weight) for answer, weight in _head(result.answers))
        console.print(shares(answers))
    console.print(Text("\nanswers in full, by weight", style="bold"))
    by_text = {one.text: one for one in result.completions}
    rows = [
        (f"{weight:.3f}", f"{by_text[text].reward:.3f}", f"{by_text[text].logprob:.1f}", one_line(text, 200))
        for text, weight in _head(dict(sorted(weights.items(), key=lambda item: -item[1])))
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
                    f"{stats.rollouts} {'rationales' if result.config.complete_answers else 'answers'} in "
                    f"{stats.waves} waves, {stats.nodes} nodes, {stats.depth} deep",
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
                ("time", f"{stats.seconds['total']:.1f} s ({seconds})"),
                ("sampled from", f"{result.config.sampling} of the model"),
                ("peak memory", decimal(stats.peak_memory)),
            ]
        )
    )


def _head(weights: dict[str, float], count: int = 5) -> list[tuple[str, float]]:
    return list(weights.items())[:count]
