"""The options that commands share, each declared once, and the way from them to a model and a question.

`expand` puts the fields of `Asking`, `Searching` or `reading.Reading` in the place of a command's one parameter of
that type.
"""

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_tslm.cli import reading
from mlx_tslm.cli.terminal import note, status, working
from mlx_tslm.errors import TSLMError
from mlx_tslm.system import blas

if TYPE_CHECKING:
    from mlx_tslm.models.base import BaseModel
    from mlx_tslm.rewards import CombinedReward
    from mlx_tslm.search import SearchConfig
    from mlx_tslm.signals import Recording
    from mlx_tslm.stages.base import Question as AskedQuestion

_SAMPLING = "Sampling"
_SEARCH = "Search"
_WORDING = "Wording"
_NAMED = 8  # assumed answers that a note names

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="MLX_TSLM_MODEL",
        show_envvar=True,
        help="A converted folder, `demo`, `stage1` … `stage5`, or an `OpenTSLM/…` name.",
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        help="mlx; for comparison torch, one answer at a time, or torch-uncached, which reads the prompt again for "
        "every token.",
    ),
]
SeriesFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--series",
        "-s",
        help="A table (CSV, Excel, Parquet), NumPy, JSON, MATLAB, HDF5, WAV, WFDB, EDF or FIT; - is standard "
        "input. Repeatable.",
        metavar="FILE…",
    ),
]
Question = Annotated[str | None, typer.Option("--question", help="What to ask.")]
StageName = Annotated[
    str | None, typer.Option("--stage", help="Wording of the prompt. [default: what the model was trained on]")
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task", help="Stage 1: the kind of question, as in Predict the … Answer.", rich_help_panel=_WORDING
    ),
]
Answers = Annotated[
    str | None,
    typer.Option(
        "--answers",
        help="The answers to choose from, comma-separated.",
        show_default="what the question's wording allows",
        rich_help_panel=_WORDING,
    ),
]
TemplateId = Annotated[
    int | None,
    typer.Option(
        "--template-id", help="Stage 5: take ECG-QA's answers for this template.", rich_help_panel=_WORDING
    ),
]
ClinicalContext = Annotated[
    str | None,
    typer.Option("--clinical-context", help="Stage 5: what is known of the patient.", rich_help_panel=_WORDING),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.", rich_help_panel=_SAMPLING)]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        min=0,
        help="Of the model's distribution.",
        show_default="what the model's calibration.json or generation_config.json says, else 1",
        rich_help_panel=_SAMPLING,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Keep the most probable mass; 1 keeps all.",
        show_default="what the model's calibration.json or generation_config.json says, else 0.95",
        rich_help_panel=_SAMPLING,
    ),
]
CompleteAnswers = Annotated[
    bool | None,
    typer.Option(
        "--complete-answers/--no-complete-answers",
        help="Where the answers are a closed set, score each behind every rationale instead of drawing one.",
        show_default="the tree methods do",
        rich_help_panel=_SAMPLING,
    ),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", min=1, help="Keep the most probable tokens.", rich_help_panel=_SAMPLING)
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the sampling.", rich_help_panel=_SAMPLING)]


NumRollouts = Annotated[
    int, typer.Option("--num-rollouts", min=1, help="Answers that a search finishes.", rich_help_panel=_SEARCH)
]
Width = Annotated[
    int,
    typer.Option("--width", min=1, help="Answers under way at once: a wave, or a batch.", rich_help_panel=_SEARCH),
]
InverseTemperature = Annotated[
    float | None,
    typer.Option(
        "--inverse-temperature",
        help="λ of the reward; larger is greedier.",
        show_default="what the model's calibration.json says, else 1",
        rich_help_panel=_SEARCH,
    ),
]
RewardTerms = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        help="A term and its weight, such as grounding=0.8: format, grounding, spectral, likelihood or "
        "consistency. Repeatable.",
        metavar="NAME[=WEIGHT]",
        show_default="the stage's",
        rich_help_panel=_SEARCH,
    ),
]
Explore = Annotated[
    float,
    typer.Option(
        "--explore", min=0, max=1, help="Share of walkers that follow the model alone.", rich_help_panel=_SEARCH
    ),
]


StopEarly = Annotated[
    bool,
    typer.Option(
        "--stop-early/--no-stop-early",
        help="Stop once no rollout that is left could change the answer.",
        rich_help_panel=_SEARCH,
    ),
]


@dataclass(frozen=True)
class Asked:
    """A model, what it is asked, the recordings that were read, and notes for a person."""

    model: "BaseModel"
    question: "AskedQuestion"
    recordings: "list[Recording]"
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked, about which files, of which model."""

    model: Model
    series: SeriesFiles = None
    question: Question = None
    stage: StageName = None
    backend: Backend = "mlx"
    task: Task = None
    answers: Answers = None
    template_id: TemplateId = None
    clinical_context: ClinicalContext = None

    def ask(self, how: reading.Reading) -> Asked:
        """Read, cut and resample the recordings, load the model, and make the question of its stage.

        The recordings are drawn and the notes printed on stderr, once all that was asked for is known to be there.

        Args:
            how: the recordings are read.

        Raises:
            TSLMError: a recording, the stage or the model is not as it should be.
        """
        if not self.series:
            raise TSLMError("name a recording: --series FILE")
        self.check()
        recordings = [how.read(file) for file in self.series]
        for recording, file in zip(recordings, self.series, strict=True):
            reading.draw(recording, file)
        asked = self.put(load(self.model, self.backend), recordings, how.rate)
        for remark in asked.notes:
            note(remark)
        return asked

    def check(self) -> None:
        """See that there is such a model and such a stage, and that the stage takes the wording, before all else.

        Raises:
            TSLMError: there is none, or it does not.
        """
        from mlx_tslm import stages
        from mlx_tslm.loading import check

        check(self.model, self.backend)
        if self.stage:
            stages.get(self.stage).prepare(self.question, **self.wording())

    def wording(self) -> dict[str, Any]:
        """The stage's own options, as `Stage.prompt` takes them."""
        given = {name: getattr(self, name) for name in ("task", "template_id", "clinical_context")}
        if self.answers is not None:
            said = re.split(r",(?![^()]*\))", self.answers)  # commas in parentheses part nothing
            given["answers"] = [answer.strip() for answer in said if answer.strip()]
        return {name: value for name, value in given.items() if value is not None}

    def put(
        self, model: "BaseModel", recordings: "list[Recording]", rate: float | None, question: str | None = None
    ) -> Asked:
        """The question about recordings that have been read, for a model that has been loaded.

        Args:
            model: is asked.
            recordings: what about.
            rate: in Hz, where a person asked for one: then they stay at it.
            question: in place of the one of the command line.
        """
        asked = self.question if question is None else question
        from mlx_tslm import depth, stages

        chosen = stages.get(self.stage) if self.stage else model.stage
        if chosen is None:
            raise TSLMError(
                f"{self.model} does not say what stage it was trained on; choose one: --stage stage1 … stage5"
            )
        chosen = chosen.reading(model.config.leads)
        wording, assumed = self.wording(), list[str]()
        if "answers" not in wording and asked and self.template_id is None and (found := chosen.assume(asked)):
            wording["answers"] = found.answers
            more = f" and {len(found.answers) - _NAMED} more" if len(found.answers) > _NAMED else ""
            assumed = [
                f"the question was taken for {found.as_what}, with the answers "
                f"{', '.join(found.answers[:_NAMED])}{more}; --answers gives others"
            ]
        trained = depth.of(model.config.trained_on, chosen.name)
        own_rate = depth.own_rate(trained, chosen) if rate is None else None
        recordings, notes = depth.at_own_rate(recordings, own_rate)
        made = chosen.prompt(recordings, asked, **wording)
        notes += [*chosen.notes(recordings, asked), *assumed]
        notes += depth.outside(recordings, trained, read=len(made.series))
        return Asked(model, made, recordings, list(dict.fromkeys(notes)))


@dataclass(frozen=True, kw_only=True)
class Searching:
    """The budget of a search, and what it draws from."""

    num_rollouts: NumRollouts = 64
    width: Width = 16
    inverse_temperature: InverseTemperature = None
    reward: RewardTerms = None
    explore: Explore = 0.25
    max_tokens: MaxTokens = 256
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    seed: Seed = 0
    complete_answers: CompleteAnswers = None
    stop_early: StopEarly = True

    def config(self, **more: Any) -> "SearchConfig":
        """The settings, checked.

        Raises:
            TSLMError: one is out of range.
        """
        from mlx_tslm.search import SearchConfig

        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "reward"}
        if self.inverse_temperature is None:
            del own["inverse_temperature"]
        return SearchConfig(**own, **more)

    def fitted(self, config: "SearchConfig", model: "BaseModel", question: "AskedQuestion") -> "SearchConfig":
        """The settings with p and λ as they were fitted for the question's stage, where nobody said otherwise."""
        known = model.calibrations.get(question.stage.name) if question.stage else None
        if known is None or config.method != known.method:
            return config
        names = ("temperature", "top_p", "inverse_temperature")
        return replace(config, **{name: getattr(known, name) for name in names if getattr(self, name) is None})

    def terms(self) -> "CombinedReward | None":
        """The reward that was named, or None for the stage's.

        Raises:
            TSLMError: there is no such term, or a weight is not a number.
        """
        if not self.reward:
            return None
        from mlx_tslm.rewards import named_reward

        weights = {}
        for term in self.reward:
            name, _, weight = term.partition("=")
            try:
                weights[name] = float(weight or 1)
            except ValueError:
                raise TSLMError(f"--reward {term}: {weight!r} is no number; write for example {name}=0.5") from None
        return named_reward(weights)


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its dataclasses as options of its own, as typer reads them."""
    shown: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        if is_dataclass(kind := parameter.annotation) and isinstance(kind, type):
            inside = list(inspect.signature(kind).parameters.values())
            groups[parameter.name] = kind, [one.name for one in inside]
            shown += inside
        else:
            shown.append(parameter)

    def run(**given: Any) -> None:
        made = {name: kind(**{one: given.pop(one) for one in inside}) for name, (kind, inside) in groups.items()}
        command(**made, **given)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__annotations__ = {one.name: one.annotation for one in shown}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]
    )
    return run


def load(model: str, backend: str = "mlx") -> "BaseModel":
    """Load a model, having warned where it is going to be slow for want of a BLAS."""
    warn_without_blas()
    with working(f"loading {model}"):
        from mlx_tslm.loading import load

        return load(model, backend)


def warn_without_blas() -> None:
    """One line on stderr where Linux has nothing but the reference BLAS."""
    if sys.platform == "linux" and blas.load() is None:
        status.print(
            "warning: no BLAS was found, so MLX runs at a fraction of this machine's speed; "
            'install one: pip install "mlx-tslm[mkl]", or apt-get install libopenblas0-pthread',
            style="yellow",
            soft_wrap=True,
        )
