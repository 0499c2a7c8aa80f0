"""`chat`: a recording is read once and asked about again and again; each question stands alone."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.text import Text

from mlx_tslm.cli import options, outputs
from mlx_tslm.cli.reading import Reading, draw
from mlx_tslm.cli.terminal import console, json_text, note, one_line, status
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError
from mlx_tslm.suggest import did_you_mean

if TYPE_CHECKING:
    from mlx_tslm.models.causal import CausalModel
    from mlx_tslm.search import SearchConfig
    from mlx_tslm.signals import Recording

EXAMPLES = examples(
    "mlx-tslm chat demo --series airline.csv",
    "mlx-tslm chat stage5 --series ecg/s0010_re --rate 100",
    'echo "Is there a trend?" | mlx-tslm chat demo --series airline.csv --stage 1',
)
_COMMANDS = {
    "/search": "search over whole answers to the last question, or to the one behind it",
    "/json": "write the last answer or search to the file behind it; - is standard output",
    "/help": "this list",
}


@dataclass(frozen=True, kw_only=True)
class Chatting(options.Asking):
    """What is talked about, with which model; the questions come later."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", envvar="MLX_TSLM_MODEL", help="A converted folder, `demo`, `stage1` … or a Hub name."
        ),
    ]
    question: str | None = field(default=None, init=False)
    backend: str = field(default="mlx", init=False)


@options.expand
def chat(asking: Chatting, reading: Reading, searching: options.Searching) -> None:
    """Ask about a recording, again and again.

    Each question is asked alone, for no model was trained on turns; what the model made of the recording is kept.
    Lines that begin with / are commands: /search, /json FILE, /help. Ctrl-C stops an answer, Ctrl-D ends.
    """
    config = searching.config()
    if not asking.series:
        raise TSLMError("name a recording: --series FILE")
    asking.check()
    recordings = [reading.read(file) for file in asking.series]
    for recording, file in zip(recordings, asking.series, strict=True):
        draw(recording, file)
    model = cast("CausalModel", options.load(asking.model))  # the backend is MLX
    _Chat(asking, model, recordings, reading.rate, searching, config).run()


class _Chat:
    """A conversation: the model and the recordings that all questions share, and what was answered last."""

    def __init__(
        self,
        asking: Chatting,
        model: "CausalModel",
        recordings: "list[Recording]",
        rate: float | None,
        searching: options.Searching,
        config: "SearchConfig",
    ) -> None:
        self._asking, self._model, self._recordings, self._rate = asking, model, recordings, rate
        self._terms, self._config = searching.terms(), config
        self._kept = model.keep()
        self._noted: set[str] = set()
        self._question: str | None = None
        self._last: dict[str, Any] | None = None

    def run(self) -> None:
        """Take line after line until there is none."""
        prompt = self._put("").question
        status.print(
            f'Ask, or press Enter for "{one_line(prompt.asked, 60)}"; /help lists commands, Ctrl-D ends.',
            style="dim",
        )
        for line in _lines():
            try:
                self._take(line.strip())
            except TSLMError as error:
                status.print("error: ", style="bold red", end="")
                status.print(str(error), soft_wrap=True)
            except KeyboardInterrupt:
                console.print()
                status.print("stopped")

    def _take(self, line: str) -> None:
        if not line.startswith("/"):
            self._answer(line)
            return
        name, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "/search": self._search, "/json": self._save, "/help": lambda _: self._help()
        }  # fmt: skip
        if name not in commands:
            raise TSLMError(f"there is no {name}{did_you_mean(name, commands)}; /help lists what there is")
        commands[name](rest.strip())

    def _put(self, question: str) -> options.Asked:
        asked = self._asking.put(self._model, self._recordings, self._rate, question)
        for remark in asked.notes:
            if remark not in self._noted:
                note(remark)
        self._noted.update(asked.notes)
        return asked

    def _answer(self, question: str) -> None:
        from mlx_tslm.generation import stream_generate

        self._question = question
        asked, config = self._put(question), self._config
        settings = config.max_tokens, config.temperature or 0.0, config.top_k, config.top_p, config.seed
        text, logprob, count, reason = "", 0.0, 0, "interrupted"
        try:
            for one in stream_generate(self._model, asked.question, *settings):
                text, logprob, count = text + one.text, logprob + one.model_logprob, count + 1
                reason = one.finish_reason or reason
                console.print(Text(one.text), end="", soft_wrap=True)
                console.file.flush()
        finally:
            if count:
                self._last = {
                    "question": asked.question.asked,
                    "text": text,
                    "answer": asked.question.parse(text),
                    "logprob": logprob if math.isfinite(logprob) else None,
                    "finish_reason": reason,
                    "notes": asked.notes,
                }
        console.print()
        status.print(
            f"{count} tokens at {one.generation_tps:.0f}/s; {self._kept.positions} of {one.prompt_tokens} "
            f"positions of the prompt were kept",
            style="dim",
        )

    def _search(self, question: str) -> None:
        from mlx_tslm.cli.search import show, watching
        from mlx_tslm.search import MaxEntTS

        self._question = question or self._question or ""
        asked = self._put(self._question)
        with watching() as watch:
            result = MaxEntTS(self._model, self._terms, self._config).search(asked.question, watch)
        for remark in result.notes:
            note(remark)
        show(result, asked.question.labels)
        self._last = result.to_dict() | {"question": asked.question.asked, "notes": [*asked.notes, *result.notes]}

    def _save(self, file: str) -> None:
        if self._last is None:
            raise TSLMError("nothing has been answered yet: ask first")
        if not file:
            raise TSLMError("name a file: /json found.json, or /json - for standard output")
        if file != "-":
            outputs.check(json=file)
        outputs.write(file, json_text(self._last), "it")

    def _help(self) -> None:
        for name, does in _COMMANDS.items():
            console.print(f"{name:8} {does}")


def _lines() -> Iterator[str]:
    """What a person types, with the arrow keys for lines typed before, or a pipe holds. Ctrl-C drops a line."""
    people = sys.stdin.isatty()
    if people:
        try:
            import readline

            readline.parse_and_bind("tab: complete")
        except ImportError:  # Python was built without it: lines are typed without history
            pass
    while True:
        try:
            yield input("> " if people else "")
        except EOFError:
            if people:
                status.print()
            return
        except KeyboardInterrupt:
            status.print()
