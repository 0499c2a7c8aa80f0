"""A question, and the stage it is a question of.

A question goes unchanged from the command line, a data set's row or Python through the model, the search, the
rewards and the page: nothing after it has to guess what was asked, or what the recording was. A stage is one
declarative value that owns the wording, the normalising and the judging of a task.

What is said here in words ("population-floor", "grounding", "captions") names something elsewhere, so that no arrow
runs back from a stage to a reward or a metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mlx_tslm.errors import TSLMError
from mlx_tslm.series import Series
from mlx_tslm.signals.objects import recordings as as_recordings
from mlx_tslm.signals.recording import Recording
from mlx_tslm.stages import rows
from mlx_tslm.stages.answers import Labels, final_answer, folded
from mlx_tslm.stages.asked import Assumed, choice, whether
from mlx_tslm.stages.normalising import NORMALISERS

RawSeries = Any
"""What people have: see `signals.objects.recordings`."""


@dataclass(frozen=True, eq=False)
class Question:
    """`pre`, then each series' text and its patches, then `post`. Each text piece is tokenized on its own.

    Args:
        pre, series, post: what the model reads, in order. What is no `Series` already may be anything that
            `Stage.prompt` takes; each channel is then normalised and introduced by its mean and deviation, as the
            question's stage does it, or stage 1.
        stage: the task this is a question of; None for a free one.
        labels: the allowed final answers; None where they are free.
        asked: the question in a person's words; "" where there is none.
    """

    pre: str = ""
    series: Any = ()
    post: str = ""
    stage: "Stage | None" = None
    labels: Labels | None = None
    asked: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.series, list | tuple) and all(isinstance(one, Series) for one in self.series)):
            read = as_recordings(self.series)
            made = self.stage._series(read) if self.stage is not None else _introduced(read)
            object.__setattr__(self, "series", tuple(made))

    def __repr__(self) -> str:
        name = f"{self.stage.name}: " if self.stage is not None else ""
        words = self.asked or self.pre or self.post
        told = ", ".join(map(repr, self.series)) or "no series"
        return f"<Question {name}{shown(words)} about {told}>"

    @property
    def rate(self) -> float | None:
        """Samples a second of the series, in Hz: their own where it is known, else the stage's, else None."""
        own = next((one.rate for one in self.series if one.rate is not None), None)
        return own if own is not None or self.stage is None else self.stage.rate

    def parse(self, text: str) -> str | None:
        """The final answer in a model's text, as the stage reads it; of a free question, the text itself."""
        return self.stage.parse(text, self.labels) if self.stage is not None else text.strip() or None


def shown(text: str, most: int = 60) -> str:
    """A text in quotation marks on one line, its end left out where it is long."""
    text = " ".join(text.split())
    return repr(text if len(text) <= most else text[: most - 1] + "…")


Prompt = Question
"""The name for a question of one's own, without a stage."""


class Sample(NamedTuple):
    """A row of a data set as a model sees it: the question, and the reference answer (no special tokens)."""

    prompt: Question
    answer: str


class Channel(NamedTuple):
    """One channel as a stage reads it: what its text calls it, and where it comes from."""

    word: str
    recording: Recording
    row: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A task. Its texts are templates in the terms of `str.format`.

    Attributes:
        name: "stage1" ... "stage5", or a name of one's own.
        key: a short one, such as "har".
        title: what it is about, for people.
        pre, post: the texts before and after the series; `{question}` and `{labels}` are filled in. Where neither
            has a `{question}`, the task is fixed: a person's own question goes before `post`.
        series_text: the text before each series: `{channel}`, `{recording}` (" (Recording 2)" where there are
            several), `{mean}`, `{std}`.
        default_question: what it is asked where no question is given.
        normalise: how a series is normalised, a key of `NORMALISERS`.
        channels: how many channels it takes; more than one have names in `channel_words`.
        channel_words: what the texts call them.
        rate: the sampling rate its models were trained at, in Hz, or None where there is no such rate.
        length: samples that a question about a table's recording reads, from its start on; None reads all.
        resample: whether a table's recordings of another rate are brought to `rate`, in place of being refused.
        split_seed: of the splits of a table that has none of its own.
        trained_on: what the recordings of OpenTSLM's own model spanned, as `depth.TrainedOn.from_dict` reads it, or
            None where its code does not say.
        labels: the answers it may give, or None where they are free or depend on the question.
        synonyms: other spellings of labels, in lower case, and the label each means.
        marker: what stands before the final answer, "Answer:"; None where the whole text is the answer.
        options: names of the keyword arguments that `prompt` takes besides the question. `answers` are the allowed
            ones, in place of `labels`; the wording is the same.
        rewards: terms of the reward and their weights; names as `--reward` takes them.
        claims: kinds of claims that its answers are held to, and how much each counts.
        topics: what an answer has to speak of: of each topic one kind of claim at least.
        implies: what a final answer says of the signal without saying it: label in lower case → (kind, value).
        concludes: words that come to a final answer without naming it: label in lower case → a regular expression.
        metrics: how its answers are counted: "classification", "kappa", "captions".
        published: the rules of OpenTSLM's own evaluation for it, or None.
        group: the column by which figures are grouped, or "".
        medical: whether an answer might be taken for a diagnosis.
        series_columns, answer_column, question_column: of its data set's rows.
        option_columns: options of `prompt` that rows have, and their columns.
    """

    name: str
    key: str
    title: str
    pre: str
    post: str
    series_text: str
    default_question: str
    normalise: str = "unbiased"
    channels: int = 1
    channel_words: tuple[str, ...] = ()
    rate: float | None = None
    length: int | None = None
    resample: bool = False
    split_seed: int = 0
    trained_on: Mapping[str, Any] | None = None
    labels: tuple[str, ...] | None = None
    synonyms: Mapping[str, str] = field(default_factory=dict)
    marker: str | None = None
    options: tuple[str, ...] = ("answers",)
    rewards: Mapping[str, float] = field(
        default_factory=lambda: {"format": 0.4, "grounding": 0.6, "spectral": 0.05, "coherence": 0.05}
    )
    claims: Mapping[str, float] = field(default_factory=dict)
    topics: tuple[tuple[str, ...], ...] = ()
    implies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    concludes: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("classification",)
    published: str | None = None
    group: str = ""
    medical: bool = False
    series_columns: tuple[str, ...] = ("series",)
    answer_column: str = "answer"
    question_column: str | None = None
    option_columns: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Stage {self.name} ({self.key}): {self.title}>"

    def prompt(self, series: RawSeries, question: str | None = None, **options: Any) -> Question:
        """The question for a recording.

        Args:
            series: **raw** values, sampled at the stage's rate (nothing is resampled here): a `Recording`,
                `[T]`, `[channels, T]`, a list of channels `[T]`, or a list of recordings; arrays and tensors of
                NumPy, MLX or PyTorch; Series and frames of pandas or polars, whose columns are channels. They are
                normalised by the stage's own rule, and their mean and deviation are written into the text before.
            question: what to ask, where the stage was trained with a question (TSQA, ECG). In the others a
                question goes before their fixed last words, which no training sample had: see `notes`.
            **options: the stage's own, see `options`.

        Raises:
            TSLMError: a wrong number of channels, an unknown option, an empty, non-numeric, NaN or infinite
                series.
        """
        pre, post, labels = self.prepare(question, **options)
        asked = question.strip() if question else ""
        read = tuple(self._series(as_recordings(series)))
        return Question(pre.strip(), read, post.strip(), self, labels, asked or self.default_question)

    def prepare(self, question: str | None = None, **options: Any) -> tuple[str, str, Labels | None]:
        """`texts` of a person's words, which are checked; arguments and errors as in `prompt`."""
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            known = f"takes {', '.join(self.options)}" if self.options else "takes no options"
            raise TSLMError(f"{self.name} ({self.key}) has no option {unknown[0]!r}; it {known}")
        return self.texts(question if question and question.strip() else None, **options)

    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        """The question and the reference answer of a row of the stage's data set.

        Args:
            row: the published columns; a list may be the text of a list, as it is in the CSV files. Or a row of a
                table of one's own, with `recording` (a `Recording`), `question` and `target`, the whole answer.
            data_dir: where the recordings are that a row names (ECG only: the PTB-XL folder).

        Raises:
            TSLMError: a column is missing (named) or cannot be read.
        """
        if isinstance(row.get("recording"), Recording):
            return Sample(self.prompt(row["recording"], row.get("question")), rows.text(row, "target"))
        series = [rows.numbers(row, column) for column in self.series_columns]
        question = rows.text(row, self.question_column) if self.question_column else None
        options = {option: str(rows.field(row, column)) for option, column in self.option_columns.items()}
        recording = Recording(series if len(series) > 1 else series[0], rate=row.get("rate"))
        return Sample(self.prompt(recording, question, **options), rows.text(row, self.answer_column).strip())

    def texts(
        self, question: str | None, answers: Sequence[str] | None = None, **options: Any
    ) -> tuple[str, str, Labels | None]:
        """The texts before and after the series, not yet stripped, and the allowed answers."""
        filled = {"question": question or self.default_question, "labels": ", ".join(self.labels or ())}
        pre, post = self.pre.format(**filled), self.post.format(**filled)
        if not (self.takes_question or question is None or question.strip() == self.default_question):
            post = f"{question.strip()}\n\n{post}"
        return pre, post, tuple(answers) if answers else self.labels

    def assume(self, question: str) -> Assumed | None:
        """The answers that a person's question allows by its wording; None where they are the stage's own, or free.

        "A or B?" has the two; a question that asks whether has no, yes and the stage's labels beside.
        """
        if self.labels is None and self.marker is None:
            return None  # the answer is a text of its own
        known = self.labels or ()
        if offered := choice(question, (*known, *self.synonyms)):
            return Assumed(tuple(self.synonyms.get(folded(one), one) for one in offered), "a choice")
        return Assumed(("no", "yes", *known), "one that asks whether") if whether(question) else None

    def target(self, answer: str, rationale: str = "") -> str:
        """The text that a model is to write: the rationale, then the marker and the answer.

        Raises:
            TSLMError: there is a rationale, but no marker that would tell it from the answer.
        """
        reasons = rationale.strip()
        if self.marker is None:
            if reasons:
                raise TSLMError(f"{self.name} has no marker that parts a rationale from its answer; give it one")
            return answer
        if reasons and self.marker in reasons and self.parse(reasons) == self.parse(f"{self.marker} {answer}"):
            return reasons
        return f"{reasons} {self.marker} {answer}".strip()

    def reading(self, leads: Sequence[str] | None) -> "Stage":
        """The stage as a model has it that was trained on these leads of an ECG; itself where it is of none."""
        return self

    @property
    def takes_question(self) -> bool:
        """Whether its models were trained with a question in the prompt."""
        return "{question}" in self.pre + self.post

    def parse(self, text: str, labels: Labels | None = None) -> str | None:
        """The final answer in a model's text: what stands after the last "Answer:" that anything follows.

        Special tokens, white space, bold and quotation marks, further lines and closing punctuation are taken off.
        An answer that equals one of the labels, or what it stands for, without regard to case is returned in the
        label's own spelling, any other one as it stands. Without an "Answer:" the whole text is the answer where it
        equals a label, or where the stage has no marker; otherwise there is none.

        Args:
            labels: the labels to match, where the question has its own; the stage's where None.
        """
        return final_answer(text, self.marker, (self.labels or ()) if labels is None else labels, self.synonyms)

    def notes(self, series: RawSeries, question: str | None = None) -> list[str]:
        """What a person should know before trusting an answer about this series, one sentence each.

        Constant channels, a sampling rate other than the stage's, a question that the stage was not trained
        to take, and whatever the recording's own notes say.
        """
        notes: list[str] = []
        for recording in as_recordings(series):
            notes += recording.notes
            if self.rate is not None and recording.rate is not None and recording.rate != self.rate:
                notes.append(f"recorded at {recording.rate:g} Hz, but {self.name} was trained at {self.rate:g} Hz")
            notes += [
                f"channel {name!r} is constant ({values[0]:g}): it is only centred"
                for name, values in zip(recording.names, recording.values, strict=True)
                if (values == values[0]).all()
            ]
        if question and question.strip() != self.default_question and not self.takes_question:
            notes.append(f"{self.name} was trained on one fixed question: yours goes before it")
        return notes

    def choose(self, recordings: Sequence[Recording]) -> list[Channel]:
        """The channels that are read, in order: as many as the stage takes, from one recording or several.

        Those that bear the names in `channel_words` are taken by name, whatever else is there.

        Raises:
            TSLMError: there are more or fewer, or of different lengths.
        """
        found = [(recording, index) for recording in recordings for index in range(len(recording.names))]
        names = [recording.names[index].casefold() for recording, index in found]
        named = [names.index(word.casefold()) for word in self.channel_words if names.count(word.casefold()) == 1]
        if len(named) == self.channels:
            found = [found[at] for at in named]
        if len(found) != self.channels:
            wanted = "one channel" if self.channels == 1 else f"{self.channels} channels"
            listed = ", ".join(recording.names[index] for recording, index in found)
            tall = any(one.values.shape[0] > max(self.channels, one.values.shape[1]) for one in recordings)
            advice = "an array is [channels, T]: transpose it" if tall else f"choose among {listed}"
            raise TSLMError(f"{self.name} ({self.key}) takes {wanted}, but there are {len(found)}; {advice}")
        if len({recording.values.shape[1] for recording in recordings}) > 1:
            lengths = ", ".join(str(recording.values.shape[1]) for recording in recordings)
            raise TSLMError(f"the recordings have different lengths ({lengths} samples); cut them to one")
        words = self.channel_words or ("",) * len(found)
        return [Channel(word, *one) for word, one in zip(words, found, strict=True)]

    def _series(self, recordings: Sequence[Recording]) -> list[Series]:
        """Each channel normalised, with the text before it."""
        number = {id(recording): at for at, recording in enumerate(recordings, 1)}
        made = []
        for word, recording, row in self.choose(recordings):
            raw = recording.values[row]
            values, mean, std = NORMALISERS[self.normalise](raw)
            which = f" (Recording {number[id(recording)]})" if len(recordings) > 1 else ""
            text = self.series_text.format(channel=word, recording=which, mean=f"{mean:.4f}", std=f"{std:.4f}")
            name = recording.names[row]
            name = word if name == str(row) else name
            made.append(Series(text, values, raw, name, recording.units[row], recording.rate))
        return made


def _introduced(recordings: Sequence[Recording]) -> list[Series]:
    """The channels of recordings for a question without a stage, as stage 1 has them."""
    made = []
    for one in recordings:
        for name, unit, raw in zip(one.names, one.units, one.values, strict=True):
            values, mean, std = NORMALISERS["unbiased"](raw)
            text = f"This is the time series, it has mean {mean:.4f} and std {std:.4f}."
            made.append(Series(text, values, raw, name, unit, one.rate))
    return made
