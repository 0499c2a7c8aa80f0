"""Stage 5, ECG-QA CoT: questions about a 12-lead ECG (PTB-XL, 10 s at 100 Hz), with a rationale.

The published data take every fifth sample of PTB-XL's 500 Hz records, without a filter, and `from_row` does
the same. A user's recording is given to `prompt` at 100 Hz; `signals.resample` filters it first, which costs
nothing below 50 Hz.

`ecg_answers.csv` holds the answers that each ECG-QA template allows, `ecg_questions.csv` the wordings of those
that allow more than yes and no (Oh et al., 2023, CC BY 4.0; see NOTICE).
"""

import ast
import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages.answers import Labels
from mlx_tslm.stages.asked import Assumed, choice
from mlx_tslm.stages.base import Channel, RawSeries, Sample, Stage, as_recordings
from mlx_tslm.stages.rows import field, text

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_BY_FOLDED = {lead.casefold(): lead for lead in LEADS}
_FEW = 3  # leads: a recording of so few is read whole
_NO_CONTEXT = "12-lead ECG recording."

_INSTRUCTION = """You are an expert cardiologist analyzing an ECG (electrocardiogram).\x20

Clinical Context: {context}

Your task is to examine the ECG signal and answer the following medical question:

Question: {question}

Instructions:
- Begin by analyzing the time series without assuming a specific answer.
- Think step-by-step about what the observed patterns suggest regarding the cardiac condition.
- Write your rationale as a single, natural paragraph — do not use bullet points, numbered steps, or section headings.
- Do **not** mention any final answer until the very end.
- Consider the ECG morphology, intervals, and any abnormalities that relate to the question."""  # noqa: E501
_CHOOSE = """Based on your analysis of the ECG data, select your answer from the following options:
{answers}

- Make sure that your last word is the answer. You MUST end your response with "Answer: \""""
_FREE = """Based on your analysis of the ECG data, provide your answer.
Make sure that your last word is the answer. You MUST end your response with "Answer: \""""


@cache
def template_answers() -> Mapping[int, tuple[str, ...]]:
    """The answers that each ECG-QA template on PTB-XL allows, by template_id."""
    text = resources.files(__package__).joinpath("ecg_answers.csv").read_text("utf-8")
    rows = csv.DictReader(text.split("\n"))
    return {int(row["template_id"]): tuple(ast.literal_eval(row["classes"])) for row in rows}


def answers_of(template_id: int | str) -> tuple[str, ...]:
    """The answers that a template allows.

    Raises:
        TSLMError: there is no such template.
    """
    known = template_answers()
    try:
        return known[int(float(template_id))]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise TSLMError(f"ECG-QA has no template {template_id!r}; they are {min(known)} to {max(known)}") from None


# What stands for the words that a template leaves open.
_OPEN = {
    "attribute": r"(?:(?!\bin (?:lead|limb|chest)\b|\buncertain symptoms\b).)+",
    "lead": r"(?:lead )?(?:I{1,3}|aV[RLF]|V[1-6])|limb leads|chest leads",
    "feature": r"(?:rr|pr|qt) interval|(?:p|qrs) duration|qt corrected",
    "range": r"within|above|below",
}


@cache
def _templates() -> Mapping[int, re.Pattern[str]]:
    """The wordings of ECG-QA's templates that allow more than yes and no, by template_id."""
    rows = csv.DictReader(
        resources.files(__package__).joinpath("ecg_questions.csv").read_text("utf-8").splitlines()
    )
    patterns = {}
    for row in rows:
        parts = re.split(r"\{(\w+)\}", _spaced(row["question"]))
        opened = [f"(?:{_OPEN[part]})" if at % 2 else re.escape(part) for at, part in enumerate(parts)]
        patterns[int(row["template_id"])] = re.compile("".join(opened), re.IGNORECASE)
    return patterns


def template_of(question: str) -> int | None:
    """The ECG-QA template that a question is worded as, told by its fixed words; None where it is none."""
    asked = _spaced(question)
    return next((number for number, worded in _templates().items() if worded.fullmatch(asked)), None)


def _spaced(question: str) -> str:
    return " ".join(question.split()).rstrip("?.! ")


@cache
def _known_answers() -> tuple[str, ...]:
    """All answers that templates allow, each once, without "yes", "no" and the like."""
    every = dict.fromkeys(one for answers in template_answers().values() for one in answers)
    return tuple(one for one in every if one not in ("no", "yes", "not sure", "none"))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ECGStage(Stage):
    """The question and the clinical context stand in the instruction, the possible answers in the last words.

    Attributes:
        leads: those that are read, for a model that was not trained on all twelve.
    """

    leads: tuple[str, ...] = LEADS

    def __post_init__(self) -> None:
        if unknown := [lead for lead in self.leads if lead not in LEADS]:
            raise TSLMError(f"there is no ECG lead {unknown[0]!r}; the leads are {', '.join(LEADS)}")
        object.__setattr__(self, "leads", tuple(lead for lead in LEADS if lead in self.leads))

    def texts(
        self,
        question: str | None,
        answers: Sequence[str] | None = None,
        clinical_context: str | None = None,
        template_id: int | None = None,
        **options: Any,
    ) -> tuple[str, str, Labels | None]:
        if answers is None and template_id is not None:
            answers = answers_of(template_id)
        pre = self.pre.format(context=clinical_context or _NO_CONTEXT, question=question or self.default_question)
        labels = tuple(answers) if answers else self.labels
        return pre, _CHOOSE.format(answers=", ".join(labels)) if labels else self.post, labels

    def reading(self, leads: Sequence[str] | None) -> Stage:
        return replace(self, leads=tuple(leads)) if leads else self

    def assume(self, question: str) -> Assumed | None:
        template = template_of(question)
        if template is not None:
            return Assumed(answers_of(template), f"ECG-QA's template {template}")
        if offered := choice(question, _known_answers()):
            return Assumed(offered, "a choice")
        return super().assume(question)

    def choose(self, recordings: Sequence[Recording]) -> list[Channel]:
        return [channel for recording in recordings for channel in self._leads(recording)]

    def _leads(self, recording: Recording) -> list[Channel]:
        """Each lead, in the standard order where the channels are named so."""
        channels = {lead: at for at, name in enumerate(recording.names) if (lead := _standard(name))}
        if not channels:
            if len(recording.names) > len(LEADS):
                raise TSLMError(
                    f"stage5 (ecg) takes up to {len(LEADS)} leads, but there are {len(recording.names)} channels; "
                    f"choose among {', '.join(recording.names)}"
                )
            # A few channels of unknown names are taken to be those leads that the model knows best.
            few = len(recording.names) <= max(_FEW, len(self.leads))
            names = (*self.leads, *(lead for lead in LEADS if lead not in self.leads)) if few else LEADS
            channels = {lead: at for at, lead in enumerate(names[: len(recording.names)])}
        chosen = [lead for lead in self.leads if lead in channels]
        if len(channels) <= _FEW or not chosen:
            chosen = [lead for lead in LEADS if lead in channels][: max(_FEW, len(self.leads))]
        return [Channel(lead, recording, channels[lead]) for lead in chosen]

    def notes(self, series: RawSeries, question: str | None = None) -> list[str]:
        notes = super().notes(series, question)
        for recording in as_recordings(series):
            standard = [name for name in recording.names if _standard(name)]
            others = [name for name in recording.names if not _standard(name)]
            if standard and others:
                notes.append(f"left out {', '.join(others)}: not among the twelve standard leads")
            if len(self.leads) == len(LEADS):
                continue
            read = [channel.word for channel in self._leads(recording)]
            if len(read) < len(recording.names):
                notes.append(f"of {len(recording.names)} channels, this model reads {', '.join(read)}")
            if not standard:
                notes.append(f"which leads these are is not known: taken to be {', '.join(read)}")
        return notes

    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        """See `Stage.from_row`. The signals are the row's `signals` (`[T, leads]` or `[leads, T]`, the longer axis
        is time), or the WFDB records of its `ecg_paths`, or of its `ecg_id` below `data_dir`. Of more than 1000
        samples every fifth is taken. A row of one's own table is taken as it is.
        """
        if isinstance(row.get("recording"), Recording):
            return super().from_row(row)
        context = row.get("clinical_contexts") or row.get("clinical_context")
        context = context[0] if isinstance(context, (list, tuple)) else context
        if context is None or (isinstance(context, float) and math.isnan(context)):
            context = _NO_CONTEXT
        prompt = self.prompt(
            [_every_fifth(recording) for recording in _row_recordings(row, data_dir)],
            text(row, "question"),
            clinical_context=context,
            template_id=None if "answers" in row else field(row, "template_id"),
            answers=row.get("answers"),
        )
        return Sample(prompt, text(row, "rationale").strip())


ECG = ECGStage(
    name="stage5",
    key="ecg",
    title="questions about a 12-lead ECG (ECG-QA)",
    pre=_INSTRUCTION,
    post=_FREE,
    series_text="This is ECG Lead {channel}{recording}, it has mean {mean} and std {std}:",
    default_question="What diagnostic symptoms does this ECG show?",
    normalise="population",
    rate=100.0,
    channels=12,
    trained_on={"samples": (1000, 1000), "channels": (12, 12), "rate": 100.0},
    marker="Answer:",
    options=("clinical_context", "template_id", "answers"),
    claims={
        **{"heart_rate": 1.5, "intervals": 1.0, "atria": 1.0, "rhythm": 0.5, "variability": 0.5},
        "frequency": 0.25,
        "finding": 2.0,
    },
    topics=(("heart_rate",), ("intervals",), ("atria", "rhythm", "variability")),
    published="ecg",
    group="template_id",
    medical=True,
    question_column="question",
    answer_column="rationale",
)
"""Options of `prompt`: `clinical_context` ("12-lead ECG recording." where not given), and `template_id` (of
ECG-QA) or `answers`, the possible answers; with neither, the answer is left free, as in the original.

A recording whose channels bear the names of standard leads gives these in the standard order, and its
other channels are left out (see `notes`); otherwise its channels are I, II, III, aVR, ... by position.
"""


def _standard(name: str) -> str | None:
    """The standard lead that a channel's name means, or None."""
    return _BY_FOLDED.get(name.casefold().removeprefix("ecg").removeprefix("lead").strip(" _-"))


def _row_recordings(row: Mapping[str, Any], data_dir: str | Path | None) -> list[Recording]:
    signals = row.get("signals")
    if signals is not None:
        array = np.asarray(signals)
        array = array.T if array.ndim == 2 and array.shape[0] > array.shape[1] else array
        return [Recording(array, row.get("leads", ()), row.get("rate"))]
    paths = row.get("ecg_paths")
    if not paths:
        if data_dir is None:
            raise TSLMError("the row names a PTB-XL record: say where PTB-XL is (data_dir)")
        paths = [record_path(data_dir, field(row, "ecg_id"))]
    from mlx_tslm.signals.files import read

    return [read(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]


def record_path(data_dir: str | Path, ecg_id: Any) -> Path:
    """Where PTB-XL's 500 Hz record of an `ecg_id` (17, "17", "[17]", [17]) lies below PTB-XL's folder."""
    first = ecg_id[0] if isinstance(ecg_id, (list, tuple)) and ecg_id else ecg_id
    try:
        number = int(str(first).strip(" []"))
    except ValueError:
        raise TSLMError(f"column 'ecg_id' holds {ecg_id!r}, not the number of an ECG") from None
    return Path(data_dir) / "records500" / f"{number // 1000 * 1000:05d}" / f"{number:05d}_hr.hea"


def _every_fifth(recording: Recording) -> Recording:
    if recording.values.shape[1] <= 1000 or recording.rate == ECG.rate:
        return recording
    return Recording(
        recording.values[:, ::5], recording.names, recording.rate and recording.rate / 5, recording.units
    )
