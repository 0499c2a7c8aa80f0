"""What `generate` and `search` have in common: their options, and the way from files to a prompt."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_tslm.cli.terminal import note, panel, status
from mlx_tslm.errors import TSLMError
from mlx_tslm.system import blas

if TYPE_CHECKING:
    from mlx_tslm.models.base import BaseModel
    from mlx_tslm.prompt import Prompt
    from mlx_tslm.rewards import CombinedReward, RewardContext
    from mlx_tslm.signals import Recording
    from mlx_tslm.stages import Stage

_RECORDING = "Recording"
_SAMPLING = "Sampling"
_WORDING = "Wording"

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="A converted folder, `demo`, `stage1` … `stage5`, or an `OpenTSLM/…` name."),
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
    list[Path],
    typer.Option("--series", "-s", help="CSV, NPY, NPZ, JSON(L), WFDB or EDF. Repeatable.", metavar="FILE…"),
]
Question = Annotated[str | None, typer.Option("--question", "-q", help="What to ask.")]
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
        "--answers", help="Stage 5: the answers to choose from, comma-separated.", rich_help_panel=_WORDING
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
Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        "--column",
        help="Channel or column to take. Repeatable. [default: all]",
        rich_help_panel=_RECORDING,
        metavar="NAME…",
    ),
]
Rate = Annotated[
    float | None, typer.Option("--rate", help="Resample to this rate, in Hz.", rich_help_panel=_RECORDING)
]
SourceRate = Annotated[
    float | None,
    typer.Option("--source-rate", help="Rate of a file that states none, in Hz.", rich_help_panel=_RECORDING),
]
Start = Annotated[
    float,
    typer.Option(
        "--start", help="Begin here, in seconds (in samples where the rate is unknown).", rich_help_panel=_RECORDING
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        help="Take this much, in seconds (in samples where the rate is unknown).",
        rich_help_panel=_RECORDING,
    ),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="Longest answer.", rich_help_panel=_SAMPLING)]
TopP = Annotated[
    float | None, typer.Option("--top-p", help="Keep the most probable mass.", rich_help_panel=_SAMPLING)
]
TopK = Annotated[
    int | None, typer.Option("--top-k", help="Keep the most probable tokens.", rich_help_panel=_SAMPLING)
]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.", rich_help_panel=_SAMPLING)]


@dataclass(frozen=True)
class Asked:
    """A model, the prompt it gets and the recordings in it, what rewards may look at, and notes for a person."""

    model: "BaseModel"
    stage: "Stage"
    prompt: "Prompt"
    recordings: "list[Recording]"
    context: "RewardContext"
    notes: list[str]


def ask(
    model: str,
    backend: str,
    files: list[Path],
    question: str | None,
    stage: str | None,
    wording: dict[str, Any],
    channels: list[str] | None,
    rate: float | None,
    source_rate: float | None,
    start: float,
    seconds: float | None,
    draw: bool,
) -> Asked:
    """Read, cut and resample the recordings, load the model, and make the prompt of its stage.

    Args:
        backend: of `loading.BACKENDS`.
        wording: options of the stage's prompt; None where not given.
        draw: whether the recordings are drawn and the notes printed, on stderr.

    Raises:
        TSLMError: a recording, the stage or the model is not as it should be.
    """
    from mlx_tslm import depth, signals, stages
    from mlx_tslm.rewards import RewardContext

    chosen = stages.get(stage) if stage else None
    recordings = [signals.read(file, channels or None, source_rate) for file in files]
    recordings = [signals.window(recording, start, seconds) for recording in recordings]
    if rate is not None:
        recordings = [_resample(recording, rate, file) for recording, file in zip(recordings, files, strict=True)]
    if draw:
        for recording, file in zip(recordings, files, strict=True):
            _draw(recording, file)

    loaded = load(model, backend)
    chosen = chosen or loaded.stage
    if chosen is None:
        raise TSLMError(f"{model} does not say what stage it was trained on; choose one: --stage stage1 … stage5")
    loaded.stage = chosen = stages.get(chosen.name, loaded.config.leads)
    given = {name: value for name, value in wording.items() if value is not None}
    if "answers" in given:
        given["answers"] = [answer.strip() for answer in given["answers"].split(",") if answer.strip()]
    trained = depth.of(loaded.config.trained_on, chosen.name)
    own_rate = (trained and trained.rate) or chosen.rate
    recordings, notes = depth.at_own_rate(recordings, own_rate if rate is None else None)
    prompt = chosen.prompt(recordings, question, **given)
    labels = given.get("answers")
    if labels is None and "template_id" in given:
        labels = stages.ecg.ECG.answers(given["template_id"])
    context = RewardContext(prompt, chosen, recordings[0].rate or chosen.rate, labels and tuple(labels))
    notes += chosen.notes(recordings, question)
    notes += depth.outside(recordings, trained, read=len(prompt.series))
    notes = list(dict.fromkeys(notes))
    if draw:
        for remark in notes:
            note(remark)
    return Asked(loaded, chosen, prompt, recordings, context, notes)


def reward_of(terms: list[str]) -> "CombinedReward":
    """A weighted sum of the named terms.

    Raises:
        TSLMError: there is no such term, or a weight is not a number.
    """
    from mlx_tslm import rewards

    known = {
        "format": rewards.FormatReward,
        "grounding": rewards.GroundingReward,
        "spectral": rewards.SpectralReward,
        "likelihood": rewards.LikelihoodReward,
        "consistency": rewards.ConsistencyReward,
    }
    chosen = {}
    for term in terms:
        name, _, weight = term.partition("=")
        if name not in known:
            raise TSLMError(f"there is no reward {name!r}; choose from {', '.join(known)}")
        try:
            chosen[name] = (known[name](), float(weight or 1))
        except ValueError:
            raise TSLMError(f"--reward {term}: {weight!r} is no number; write for example {name}=0.5") from None
    return rewards.CombinedReward(chosen)


def load(model: str, backend: str = "mlx") -> "BaseModel":
    """Load a model, having warned where it is going to be slow for want of a BLAS."""
    warn_without_blas()
    with status.status(f"loading {model}"):
        from mlx_tslm.loading import load

        return load(model, backend)


def warn_without_blas() -> None:
    """One line on stderr where Linux has nothing but the reference BLAS."""
    if sys.platform == "linux" and blas.load() is None:
        status.print(
            "[yellow]warning:[/] no BLAS was found, so MLX runs at a fraction of this machine's speed; "
            'install one: pip install "mlx-tslm\\[mkl]", or apt-get install libopenblas0-pthread',
            soft_wrap=True,
        )


def _resample(recording: "Recording", rate: float, file: Path) -> "Recording":
    from mlx_tslm.signals import resample

    if recording.rate is None:
        raise TSLMError(
            f"{file} does not state its sampling rate, so --rate cannot change it; add --source-rate HZ"
        )
    return resample(recording, rate)


def _draw(recording: "Recording", file: Path) -> None:
    from mlx_tslm.signals import sparkline

    samples = recording.values.shape[1]
    length = f"{samples} samples" + (
        f", {recording.seconds:g} s at {recording.rate:g} Hz" if recording.rate else ""
    )
    width = max(10, min(72, status.width - 4))
    height = 3 if len(recording.names) == 1 else 1
    lines = []
    for name, unit, values in zip(recording.names, recording.units, recording.values, strict=True):
        lines.append(f"{name}{f' [{unit}]' if unit else ''}  {values.min():g} … {values.max():g}")
        lines.append(sparkline(values, width, height))
    status.print(panel("\n".join(lines), title=file.name, subtitle=length))
