"""Answers of several clients in one batch: rows join and leave between steps."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import BaseModel
from mlx_tslm.sampling import Sampling
from mlx_tslm.serve.memory import Prompts
from mlx_tslm.serve.turns import Turns
from mlx_tslm.stages.base import Question


@dataclass(frozen=True)
class Piece:
    """What one token added to an answer.

    Attributes:
        text: it added; "" where it only began a character.
        token: its id, None where nothing more came than an end.
        logprob: log p of it, in nats.
        prompt_tokens: positions of the prompt.
        reason: "stop" or "length" where it was the last.
    """

    text: str
    token: int | None
    logprob: float
    prompt_tokens: int
    reason: str | None = None


@dataclass(eq=False)
class Wanted:
    """An answer that a client waits for.

    Attributes:
        question: what is asked.
        sampling, max_tokens, seed, stop: how it is drawn, and texts that end it.
        tell: called from the answering thread with each `Piece`, or with the error that ended it.
        cancelled: set where nobody waits any more.
    """

    question: Question
    sampling: Sampling
    max_tokens: int
    seed: int
    stop: tuple[str, ...]
    tell: Callable[[Piece | TSLMError], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


class _Row:
    """An answer under way."""

    def __init__(self, wanted: Wanted, model: BaseModel, prompt_tokens: int) -> None:
        self.wanted, self.prompt_tokens = wanted, prompt_tokens
        self.uniforms: NDArray[np.float32] = np.random.default_rng(wanted.seed).random(
            wanted.max_tokens, dtype=np.float32
        )
        self.count = 0
        self._detokenizer = model.tokenizer.detokenizer
        self._special = set(model.tokenizer.all_special_ids)
        self._eos = model.eos_token_ids
        self._held = ""  # text that may be the beginning of a stop text

    def take(self, token: int, logprob: float) -> bool:
        """Tell the client of one more token; whether it was the last."""
        wanted = self.wanted
        self.count += 1
        reason = "stop" if token in self._eos else "length" if self.count == wanted.max_tokens else None
        if token not in self._special:
            self._detokenizer.add_token(token)
        if reason:
            self._detokenizer.finalize()
        text = self._held + self._detokenizer.last_segment
        found = [at for at in (text.find(stop) for stop in wanted.stop) if at >= 0]
        if found:
            text, reason = text[: min(found)], "stop"
        keep = 0 if reason else max((_overlap(text, stop) for stop in wanted.stop), default=0)
        self._held = text[len(text) - keep :]
        wanted.tell(Piece(text[: len(text) - keep], token, logprob, self.prompt_tokens, reason))
        return reason is not None


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of a text are the first of a stop text."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


class Answers:
    """The thread that answers; prompts are read by it too, between the steps of the answers under way.

    Args:
        model: answers.
        prompts: reads, and remembers.
        turns: at the device.
        width: how many answers are under way at once.
        waiting: how many may wait for a seat.
    """

    def __init__(
        self, model: BaseModel, prompts: Prompts, turns: Turns, width: int = 16, waiting: int = 64
    ) -> None:
        self._model, self._prompts, self._turns, self._width = model, prompts, turns, width
        self._waiting: queue.Queue[Wanted | None] = queue.Queue(waiting)
        self._rows: list[_Row] = []
        self._batch = model.rows()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def ask(self, wanted: Wanted) -> bool:
        """Put an answer in the queue; False where it is full."""
        try:
            self._waiting.put_nowait(wanted)
        except queue.Full:
            return False
        return True

    @property
    def under_way(self) -> int:
        """Answers that are being drawn or wait."""
        return len(self._rows) + self._waiting.qsize()

    def close(self) -> None:
        """End the thread; answers under way are cut off."""
        for row in self._rows:
            row.wanted.cancelled.set()
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            while len(self._rows) < self._width:
                try:
                    wanted = self._waiting.get(block=not self._rows)
                except queue.Empty:
                    break
                if wanted is None:
                    return
                if not wanted.cancelled.is_set():
                    self._seat(wanted)
            self._leave([row for row in self._rows if row.wanted.cancelled.is_set()])
            if self._rows:
                self._step()

    def _seat(self, wanted: Wanted) -> None:
        try:
            with self._turns:
                read = self._prompts.prefill(wanted.question, wanted.max_tokens)
                self._batch.seat(len(self._rows), read)
        except Exception as error:  # one client's request must not end the others'
            wanted.tell(_as_told(error))
            return
        self._rows.append(_Row(wanted, self._model, read.length))

    def _step(self) -> None:
        rows = self._rows
        try:
            with self._turns:
                tokens, logprobs = self._draw()
                self._batch.step(mx.array(tokens))
        except Exception as error:
            for row in rows:
                row.wanted.tell(_as_told(error))
            self._rows, self._batch = [], self._model.rows()
            return
        self._leave([row for row, token, p in zip(rows, tokens, logprobs, strict=True) if row.take(int(token), p)])

    def _draw(self) -> tuple[NDArray[np.int32], list[float]]:
        """A token a row, each from its own distribution."""
        logits = self._batch.logits()
        tokens, logprobs = np.zeros(len(self._rows), np.int32), [0.0] * len(self._rows)
        kinds: dict[Sampling, list[int]] = {}
        for at, row in enumerate(self._rows):
            kinds.setdefault(row.wanted.sampling, []).append(at)
        for sampling, seats in kinds.items():
            uniforms = np.array([self._rows[at].uniforms[self._rows[at].count] for at in seats])
            drawn, known = sampling.draw(logits[mx.array(seats)], uniforms)
            tokens[seats] = np.array(drawn)
            for at, logprob in zip(seats, np.array(known).tolist(), strict=True):
                logprobs[at] = logprob
        return tokens, logprobs

    def _leave(self, gone: list[_Row]) -> None:
        if gone:
            kept = [at for at, row in enumerate(self._rows) if row not in gone]
            self._rows = [self._rows[at] for at in kept]
            with self._turns:
                self._batch.keep(kept)


def _as_told(error: Exception) -> TSLMError:
    return error if isinstance(error, TSLMError) else TSLMError(f"{type(error).__name__} while answering")
