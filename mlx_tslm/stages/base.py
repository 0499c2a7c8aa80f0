"""What every stage has: a prompt from raw series or from a row of its data set, and a parser for its answers."""

import ast
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.prompt import Prompt, Series
from mlx_tslm.signals.recording import Recording

RawSeries = Recording | ArrayLike | Sequence[Recording] | Sequence[ArrayLike]

_SPECIAL_TOKEN = re.compile(r"<\|[^<>|]*\|>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>")


Labels = Sequence[str] | Mapping[str, str]
"""Allowed final answers. A mapping also says what each stands for, and those words are read as the same answer."""


def worded(answer: str, labels: Labels | None) -> str:
    """An answer for people: with what it stands for, "(b) an upward trend", where the labels say it."""
    return f"{answer} {labels[answer]}" if isinstance(labels, Mapping) and answer in labels else answer


class Sample(NamedTuple):
    """A row of a data set as a model sees it: the prompt, and the reference answer (no special tokens)."""

    prompt: Prompt
    answer: str


class Stage(ABC):
    """One stage of the curriculum.

    Attributes:
        name: "stage1" ... "stage5".
        key: "tsqa", "m4", "har", "sleep" or "ecg".
        title: what the stage is about, for people.
        rate: the sampling rate its models were trained at, in Hz, or None where there is no such rate.
        channels: how many channels it takes (the most it takes, for ECG).
        labels: the answers it may give, or None where they are free or depend on the sample.
        marker: what stands before the final answer of a chain of thought.
        chain_of_thought: whether an answer is a rationale that ends with "Answer: ...".
        default_question: what it is asked where no question is given.
        options: names of the keyword arguments that `prompt` takes besides the question.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    title: ClassVar[str]
    rate: ClassVar[float | None] = None
    channels: ClassVar[int] = 1
    labels: ClassVar[tuple[str, ...] | None] = None
    marker: ClassVar[str | None] = "Answer:"
    chain_of_thought: ClassVar[bool] = False
    default_question: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    _takes_question: ClassVar[bool] = False  # whether its models were trained with a question in the prompt

    def prompt(self, series: RawSeries, question: str | None = None, **options: Any) -> Prompt:
        """The stage's prompt for a recording.

        Args:
            series: **raw** values, sampled at the stage's rate (nothing is resampled here): a `Recording`,
                `[T]`, `[channels, T]`, a list of channels `[T]`, or a list of recordings. They are normalised
                by the stage's own rule, and their mean and deviation are written into the text before them.
            question: what to ask, where the stage was trained with a question (TSQA, ECG). In the others a
                question goes before their fixed last words, which no training sample had: see `notes`.
            **options: the stage's own, see `options`.

        Raises:
            TSLMError: a wrong number of channels, an unknown option, an empty, non-numeric, NaN or infinite
                series.
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            known = f"takes {', '.join(self.options)}" if self.options else "takes no options"
            raise TSLMError(f"{self.name} ({self.key}) has no option {unknown[0]!r}; it {known}")
        pre, post = self._texts(question if question and question.strip() else None, **options)
        return Prompt(pre.strip(), tuple(self._series(as_recordings(series))), post.strip())

    @abstractmethod
    def from_row(self, row: Mapping[str, Any], data_dir: str | Path | None = None) -> Sample:
        """The prompt and the reference answer of a row of the stage's published data set.

        Args:
            row: the published columns; a list may be the text of a list, as it is in the CSV files.
            data_dir: where the recordings are that a row names (ECG only: the PTB-XL folder).

        Raises:
            TSLMError: a column is missing (named) or cannot be read.
        """

    def allowed(self, prompt: Prompt) -> Labels | None:
        """The answers that a prompt of this stage allows, as far as it can be seen from the prompt; None: any."""
        return self.labels

    def parse(self, text: str, labels: Labels | None = None) -> str | None:
        """The final answer in a model's text: what stands after the last "Answer:".

        Special tokens, white space and trailing periods are taken off. An answer that equals one of the
        labels, or what it stands for, without regard to case is returned in the label's own spelling, any other
        one as it stands.
        Without an "Answer:" the whole text is the answer where it equals a label, or where the stage has no
        chain of thought; otherwise there is none.

        Args:
            labels: the labels to match, where the sample has its own; the stage's where None.
        """
        *before, answer = _SPECIAL_TOKEN.sub("", text).split("Answer:")
        answer = answer.strip().rstrip(".").strip()
        known = (self.labels or ()) if labels is None else labels
        for label in known:
            spellings = (label, known[label]) if isinstance(known, Mapping) else (label,)
            if answer.casefold() in (one.strip().rstrip(".").casefold() for one in spellings):
                return label
        return (answer or None) if before or not self.chain_of_thought else None

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
        if question and question.strip() != self.default_question and not self._takes_question:
            notes.append(f"{self.name} was trained on one fixed question: yours goes before it")
        return notes

    @abstractmethod
    def _texts(self, question: str | None, *args: Any, **options: Any) -> tuple[str, str]:
        """The text before the series and the text after them, not yet stripped."""

    @abstractmethod
    def _series(self, recordings: Sequence[Recording]) -> list[Series]:
        """Each channel normalised, with the text before it."""

    def _only(self, recordings: Sequence[Recording]) -> NDArray[np.float64]:
        """The values `[channels, T]` of as many channels as the stage takes, from one recording or several."""
        names = [name for recording in recordings for name in recording.names]
        if len(names) != self.channels:
            wanted = "one channel" if self.channels == 1 else f"{self.channels} channels"
            raise TSLMError(
                f"{self.name} ({self.key}) takes {wanted}, but there are {len(names)}; "
                f"choose among {', '.join(names)}"
            )
        if len({recording.values.shape[1] for recording in recordings}) > 1:
            lengths = ", ".join(str(recording.values.shape[1]) for recording in recordings)
            raise TSLMError(f"the recordings have different lengths ({lengths} samples); cut them to one")
        return np.concatenate([recording.values for recording in recordings])

    def _ask_before(self, question: str | None, words: str) -> str:
        """The fixed last words, with a user's own question before them."""
        if question is None or question.strip() == self.default_question:
            return words
        return f"{question.strip()}\n\n{words}"


def as_recordings(series: RawSeries) -> list[Recording]:
    """Recordings from what `Stage.prompt` takes; a list of channels `[T]` is one recording."""
    if isinstance(series, Recording):
        return [series]
    if isinstance(series, Sequence) and len(series) and all(map(_is_recording, series)):
        return [item if isinstance(item, Recording) else Recording(item) for item in series]
    return [Recording(series)]  # type: ignore[arg-type]


def field(row: Mapping[str, Any], column: str) -> Any:
    """A column of a row, or a TSLMError that names it."""
    value = row.get(column)
    if value is None:
        raise TSLMError(f"the row has no column {column!r}; it has {', '.join(map(str, row))}")
    return value


def text(row: Mapping[str, Any], column: str) -> str:
    """A column that holds text, as it stands."""
    value = field(row, column)
    if not isinstance(value, str) or not value.strip():
        raise TSLMError(f"column {column!r} holds {value!r} where text is needed")
    return value


def numbers(row: Mapping[str, Any], column: str) -> NDArray[np.float32]:
    """A column that holds a list of numbers, or its text: float32 `[T]`, `[[...]]` of one list unwrapped."""
    value = field(row, column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value.strip())  # "[1., .5]" is Python, but not JSON
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise TSLMError(f"column {column!r} is not a list of numbers: {value[:40]!r}") from None
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise TSLMError(f"column {column!r} is not a list of numbers: {str(value)[:40]!r}") from None
    return array[0] if array.ndim == 2 and len(array) == 1 else array


def _is_recording(item: Any) -> bool:
    return isinstance(item, Recording) or (isinstance(item, np.ndarray) and item.ndim == 2)
