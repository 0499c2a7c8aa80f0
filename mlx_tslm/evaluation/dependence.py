"""Does a model's answer depend on the recording at all? Answers to intact series against series tampered with.

In every row the words of the prompt stay, mean and deviation included: what the encoder gets is other samples, and
nothing else changes. See `search.dependence` for what is measured.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.interval import wilson
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.search.answers import said
from mlx_tslm.search.dependence import BOUND, Forced, force, kl_of_answers, kl_of_tokens
from mlx_tslm.stages.ablation import ablated, exchanged, without
from mlx_tslm.stages.answers import folded
from mlx_tslm.stages.base import Question

Progress = Callable[[str, int, int], None]
"""(what is done, answers finished, answers in all)."""

ZERO, SHUFFLE, NOISE, OTHER = "all samples 0", "shuffled in time", "noise of two deviations", "another recording"
DECISIVE = (ZERO, NOISE)
"""What answers have to be moved by: after a shuffle, or from another recording, the same may be true."""


class Mean(NamedTuple):
    """A mean over samples with its 95 % interval; None where one sample gives no interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Moved:
    """How far answers move when the series are tampered with in one way.

    Attributes:
        samples: so many were asked.
        answer: KL in nats of the next token, summed along the intact greedy answer.
        per_token: its mean over tokens.
        labels: KL in nats of the allowed answers behind the intact rationale, normalised among them; None where no
            sample has a closed set and a rationale that came to its marker.
        changed: the share of samples whose greedy answer is another one.
    """

    samples: int
    answer: Mean
    per_token: float
    labels: Mean | None
    changed: Mean


@dataclass(frozen=True)
class Dependence:
    """What a check found.

    Attributes:
        samples: so many were asked.
        bound: nats, what `least` is held to.
        recordings: all series at once tampered with, by the way it was done.
        channels: one channel with all samples 0, by its name; empty where a question has one channel.
    """

    samples: int
    bound: float
    recordings: dict[str, Moved]
    channels: dict[str, Moved]

    @cached_property
    def least(self) -> str:
        """Which of `DECISIVE` moves the answers less."""
        return min(DECISIVE, key=lambda name: self.recordings[name].answer.value)

    @property
    def depends(self) -> bool:
        """Whether each of `DECISIVE` moves the answers by `bound` nats at least."""
        return self.recordings[self.least].answer.value >= self.bound

    @property
    def sentence(self) -> str:
        """What follows, for people."""
        moved = self.recordings[self.least].answer
        spread = "" if moved.low is None else f" ({nats(moved.low)} to {nats(moved.high)})"
        many = "1 sample" if self.samples == 1 else f"{self.samples} samples"
        least = f"{nats(moved.value)}{spread} nats for {self.least}, on {many}"
        if not self.depends:
            return (
                f"The answers hardly depend on the recording: they move by {least}, less than {self.bound:g}. They "
                "come from the words of the prompt; do not take them for a reading of the recording."
            )
        unsure = moved.low is None or moved.low < self.bound
        return (
            f"The answers depend on the recording: they move by at least {least}, where {self.bound:g} is asked."
            + (" That may be chance: take more samples." if unsure else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "samples": self.samples,
            "bound": self.bound,
            "depends": self.depends,
            "least": self.least,
            "sentence": self.sentence,
            "recordings": {name: _plain(one) for name, one in self.recordings.items()},
            "channels": {name: _plain(one) for name, one in self.channels.items()},
        }


def nats(value: float | None) -> str:
    """Three digits, and no more than thousandths."""
    return "–" if value is None else f"{value:.3f}" if value < 9.9995 else f"{value:.3g}"


def measure(
    model: BaseModel,
    questions: Sequence[Question],
    max_tokens: int = 256,
    width: int = 8,
    bound: float = BOUND,
    progress: Progress | None = None,
) -> Dependence:
    """Ask a model questions about intact recordings, and about the same ones tampered with.

    Each prompt is read once for its own greedy answer and for the intact one's; greedy answers share their forward
    passes, `width` at a time.

    Args:
        model: a loaded model.
        questions: with series, one at least. "Another recording" is that of the question half of them away.
        max_tokens: of an answer.
        bound: nats, see `Dependence.depends`.

    Raises:
        TSLMError: there is no question, one has no series, or a prompt does not fit the model.
    """
    if not questions or not all(question.series for question in questions):
        raise TSLMError("there is no recording to check the model on")
    if not 0 <= bound < math.inf:
        raise TSLMError(f"the bound is {bound:g}; it must be 0 nats or more")
    return _Check(model, questions, max_tokens, width, bound, progress or (lambda *_: None)).run()


class _Sample(NamedTuple):
    """One answer to one tampered prompt beside the intact one."""

    answer: float
    tokens: int
    labels: float | None
    changed: bool


class _Check:
    def __init__(
        self,
        model: BaseModel,
        questions: Sequence[Question],
        max_tokens: int,
        width: int,
        bound: float,
        progress: Progress,
    ) -> None:
        self._model, self._questions, self._bound, self._progress = model, questions, bound, progress
        self._max_tokens, self._width = max_tokens, width
        self._asked: list[tuple[int, str, bool]] = []  # of each tampered prompt: sample, way, one channel alone
        self._moved: list[tuple[float, int, float | None]] = []
        self._intact: tuple[Forced, bool]

    def run(self) -> Dependence:
        total = len(self._questions)
        intact: list[Any] = [None] * total
        for done, response in enumerate(self._answer(self._questions), 1):
            intact[response.index] = response.completion
            self._progress("intact recordings", done, total)
        total = sum(len(list(self._ways(at))) for at in range(total))
        changed: dict[int, bool] = {}
        for done, response in enumerate(self._answer(self._tampered(intact), self._read), 1):
            at, *_ = self._asked[response.index]
            now, before = (_final(self._questions[at], one) for one in (response.completion, intact[at]))
            changed[response.index] = now != before
            self._progress("tampered recordings", done, total)
        found: dict[tuple[str, bool], list[_Sample]] = {}
        for number, (_, way, alone) in enumerate(self._asked):
            found.setdefault((way, alone), []).append(_Sample(*self._moved[number], changed[number]))
        return Dependence(
            len(self._questions),
            self._bound,
            {way: _summary(samples) for (way, alone), samples in found.items() if not alone},
            {way: _summary(samples) for (way, alone), samples in found.items() if alone},
        )

    def _answer(self, questions: Any, read: Any = None) -> Iterator[Any]:
        return generate_batch(self._model, questions, self._width, self._max_tokens, read=read)

    def _tampered(self, intact: Sequence[Any]) -> Iterator[Question]:
        """The prompts in their order; before a sample's first, the model is forced through its intact answer."""
        for at, question in enumerate(self._questions):
            self._tokens = intact[at].tokens
            read = self._model.prefill(question, self._max_tokens)
            bos = read.length > self._model.count_positions(question)
            self._intact = force(self._model, read, question, self._tokens), bos
            for way, alone, changed in self._ways(at):
                self._asked.append((at, way, alone))
                yield changed

    def _read(self, question: Question) -> Any:
        forced, bos = self._intact
        read = self._model.prefill(question, self._max_tokens, bos=bos)
        other = force(self._model, read, question, self._tokens)
        labels = None
        if forced.answers is not None and other.answers is not None:
            labels = kl_of_answers(forced.answers, other.answers)
        moved = kl_of_tokens(forced.logits, other.logits)
        self._moved.append((float(moved.sum()), len(moved), labels))
        return read

    def _ways(self, at: int) -> Iterator[tuple[str, bool, Question]]:
        """How a sample's series are tampered with: the name, whether one channel alone is, the question then."""
        question, many = self._questions[at], len(self._questions)
        for way, ablate in ((ZERO, "zero"), (SHUFFLE, "shuffle"), (NOISE, "noise")):
            yield way, False, ablated(question, ablate, at)
        if many > 1:
            yield OTHER, False, exchanged(question, self._questions[(at + max(1, many // 2)) % many])
        if len(question.series) > 1:
            for channel, series in enumerate(question.series):
                yield series.name or f"channel {channel + 1}", True, without(question, [channel])


def _final(question: Question, one: Completion) -> Sequence[str]:
    """What an answer comes to, to be compared: its final answer or a caption's claims; else its words."""
    return [folded(each) for each in said(one, question) or (" ".join(one.text.split()),)]


def _summary(samples: Sequence[_Sample]) -> Moved:
    labels = [one.labels for one in samples if one.labels is not None]
    share = float(np.mean([one.changed for one in samples]))
    return Moved(
        len(samples),
        _mean([one.answer for one in samples]),
        sum(one.answer for one in samples) / sum(one.tokens for one in samples),
        _mean(labels) if labels else None,
        Mean(share, *wilson(share, len(samples))),
    )


def _mean(values: Sequence[float]) -> Mean:
    """With Student's interval; no divergence is below 0."""
    from scipy.stats import t

    value = float(np.mean(values))
    if len(values) == 1:
        return Mean(value, None, None)
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Mean(value, max(0.0, value - half), value + half)


def _plain(one: Moved) -> dict[str, Any]:
    return {name: each._asdict() if isinstance(each, Mean) else each for name, each in vars(one).items()}
