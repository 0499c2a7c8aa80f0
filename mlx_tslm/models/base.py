"""What a model is to the rest of the package, whichever library computes it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.calibration import Calibration
from mlx_tslm.errors import TooLong, TSLMError
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.sampling import DEFAULT, Sampling
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


class Read(Protocol):
    """A prompt that has been read."""

    @property
    def length(self) -> int:
        """Positions taken by the prompt."""
        ...


class Decoder(Protocol):
    """Decodes the nodes of a tree of tokens behind a prompt, node 0. See `tree_decoder.TreeDecoder`."""

    forward_passes: int
    tokens: int

    def step(self, nodes: NDArray[np.int32], parents: NDArray[np.int32], tokens: NDArray[np.int32]) -> None: ...

    def is_decoded(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]: ...

    def logits(self, nodes: NDArray[np.int32]) -> mx.array: ...

    def flush(self, *outputs: mx.array) -> None: ...


@runtime_checkable
class Pipelined(Decoder, Protocol):
    """A decoder that can be a pass ahead of its caller. See `pipelined.PipelinedDecoder`."""

    def ahead(self, parents: NDArray[np.int32], tokens: mx.array) -> mx.array: ...

    def settle(self, nodes: NDArray[np.int32]) -> None: ...

    def submit(self, *outputs: mx.array) -> None: ...


class Rows(Protocol):
    """Answers to different prompts, a row each. See `row_decoder.Batch`."""

    def logits(self) -> mx.array: ...

    def seat(self, seat: int, read: Any) -> None: ...

    def keep(self, seats: list[int]) -> None: ...

    def step(self, tokens: mx.array) -> None: ...


FREE = -1
"""In place of a node, where a row has ended."""


@dataclass(frozen=True)
class Footprint:
    """What decoding takes.

    Attributes:
        position: bytes of a position's keys and values in all layers; `state` of its final state.
        heads: of a layer, at most; `vocabulary`: entries of the logits.
    """

    position: int
    state: int
    heads: int
    vocabulary: int


class BaseModel(ABC):
    """Encoder and language model, with the tokenizer and the stage they were trained for.

    Attributes:
        config: sizes and provenance.
        tokenizer: a Hugging Face tokenizer that puts its BOS before what it encodes, as the base LLM's does.
        stage: the wording this checkpoint was trained on, or None.
        sampling: the distribution its answers are sampled from unless told otherwise.
        calibrations: what was fitted on validation samples, by the stage's name; empty where nothing was.
    """

    config: ModelConfig
    tokenizer: Any
    stage: "Stage | None"
    sampling: Sampling = DEFAULT
    calibrations: Mapping[str, Calibration] = MappingProxyType({})

    def __repr__(self) -> str:
        text = self.config.text_config
        stage = f" for {self.stage.name}" if self.stage is not None else ""
        return (
            f"<{type(self).__name__}{stage}: {text.get('model_type')} of {text.get('num_hidden_layers')} layers, "
            f"{text.get('hidden_size')} wide, sampled at {self.sampling}>"
        )

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The tokens that end an answer.

        Raises:
            TSLMError: the tokenizer names none.
        """
        ids = getattr(self.tokenizer, "eos_token_ids", None) or {self.tokenizer.eos_token_id}
        if None in ids:
            raise TSLMError(
                "the model's tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json"
            )
        return frozenset(ids)

    @property
    def end_token_id(self) -> int:
        """The token that a trained answer ends with."""
        eos = self.tokenizer.eos_token_id
        return int(min(self.eos_token_ids) if eos is None else eos)

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of pre, each series' text, and post: each piece on its own, each with its own BOS.

        Raises:
            TSLMError: a piece is no text, as an argument in another encoding than the terminal's, or needs a token
                that the model has no embedding for.
        """
        pieces = [prompt.pre, *(series.text for series in prompt.series), prompt.post]
        for text in pieces:
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                around = text[max(0, error.start - 20) : error.end + 20]
                raise TSLMError(f"the prompt holds what is no UTF-8 text, at {around!r}; retype it") from None
        ids = [list(self.tokenizer.encode(piece)) for piece in pieces]
        if self.config.pad_text_left:
            longest = max(map(len, ids))
            ids = [([self.tokenizer.pad_token_id] * (longest - len(piece)) + piece)[: len(piece)] for piece in ids]
        for piece in ids:
            self.check_tokens(piece)
        return ids

    @cached_property
    def token_ids(self) -> frozenset[int]:
        """Ids that the tokenizer has a token for."""
        return frozenset(self.tokenizer.get_vocab().values())

    @abstractmethod
    def know_tokens(self) -> None:
        """Never sample an id that the tokenizer has no token for: a table of embeddings may be padded beyond it."""

    def check_tokens(self, ids: Iterable[int]) -> None:
        """Refuse tokens that the table of embeddings has no row for.

        Raises:
            TSLMError: there is one (named).
        """
        rows = self.config.text_config["vocab_size"]
        for token in ids:
            if not 0 <= token < rows:
                name = self.tokenizer.convert_ids_to_tokens(token) if token in self.token_ids else None
                raise TSLMError(
                    f"token {token}{f' ({name!r})' if name else ''} has no row among the model's {rows} "
                    "embeddings: the tokenizer is of another model; leave such text out, or convert with the "
                    "right base LLM"
                )

    def most_probable(self, logits: mx.array, where: Callable[[], str] = lambda: "after the prompt") -> int:
        """The token that a prompt's last logits `[1, V]` favour; `where` finds out where they go astray.

        Raises:
            TSLMError: they are no numbers: the weights are damaged, or too large for their dtype.
        """
        if not mx.isfinite(mx.max(logits)).item():  # NaN if any is; −inf marks ids that are no token
            raise self.astray(where())
        return int(np.array(mx.argmax(logits)))

    def astray(self, where: str) -> TSLMError:
        """The error for logits that are NaN or infinite; it names the weight that is, too.

        Args:
            where: they were found: "after the prompt".
        """
        said, damage = f"the model's logits are NaN or infinite {where}", self.damage()
        if damage is not None:
            return TSLMError(f"{said}: {damage}; convert the checkpoint again")
        return TSLMError(
            f"{said}, though its weights are finite: they overflow their dtype; convert the checkpoint again with "
            "--dtype float32"
        )

    def damage(self) -> str | None:
        """The first weight that holds NaN or infinite values, in words; None where none does."""
        return None

    def count_positions(self, prompt: Prompt) -> int:
        """Positions that a prompt takes; nothing is computed.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """
        text = sum(map(len, self.tokenize(prompt)))
        if not prompt.series:
            return text
        return text + self.pad_series(prompt.series).size // self.config.encoder_config.patch_size

    def lesson(self, prompt: Prompt, answer: str) -> tuple[list[list[int]], list[int]]:
        """A sample to train on, as OpenTSLM has it.

        Returns:
            Token ids of the prompt's pieces, as `tokenize` gives them, and of the answer, its labels.
        """
        ids = [*self.tokenizer.encode(answer), self.end_token_id]
        self.check_tokens(ids)
        return self.tokenize(prompt), ids

    def pad_series(self, series: Sequence[Series]) -> NDArray[np.float32]:
        """The series of one sample as the encoder gets them: float32 `[N, T]`.

        Shorter series are padded with zeros on the right to the longest, rounded up to whole patches.

        Raises:
            TSLMError: a series is longer than the encoder's positional table.
        """
        sizes = self.config.encoder_config
        longest = max(len(one.values) for one in series)
        if longest > sizes.max_samples:
            raise TooLong(
                f"a series of {longest} samples is longer than the {sizes.max_samples} this model can read",
                "resample it (--rate) or cut a window (--start, --seconds)",
            )
        padded = np.zeros((len(series), -(-longest // sizes.patch_size) * sizes.patch_size), np.float32)
        for row, one in zip(padded, series, strict=True):
            row[: len(one.values)] = one.values
        return padded

    def visible(self, pieces: Sequence[Sequence[int]], patches: Sequence[Any]) -> NDArray[np.bool_] | None:
        """Which positions of a prompt may be attended to: bool `[L]`, or None for all.

        Args:
            pieces: token ids, as `tokenize` gives them.
            patches: of each series, its embeddings `[patches, H]`.
        """
        if not self.config.pad_text_left:
            return None
        shown = []
        for index, piece in enumerate(pieces):
            shown.append(np.array(piece) != self.tokenizer.pad_token_id)
            if 0 < index <= len(patches):
                shown.append(np.ones(len(patches[index - 1]), bool))
        return np.concatenate(shown)

    def check_room(self, positions: int, room: int, limit: int | None) -> None:
        """Refuse a prompt that, with the `room` tokens to follow, is longer than the model's context.

        Raises:
            TSLMError: it is.
        """
        if limit is not None and positions + room > limit:
            raise TooLong(
                f"the prompt takes {positions} positions and the answer up to {room}, but the model's context has "
                f"{limit}",
                "shorten the series (--rate, --seconds) or lower --max-tokens",
            )

    @abstractmethod
    def score(self, prompt: Prompt, token_ids: Sequence[int]) -> mx.array:
        """Logits after the prompt and after each forced token: float32 `[len(token_ids) + 1, V]`."""

    @abstractmethod
    def prefill(self, prompt: Prompt, room: int = 0, opening: Sequence[int] = (), bos: bool | None = None) -> Any:
        """Run the prompt once and keep what decoding needs: a `Read`.

        Trained models open their answers with BOS. Where BOS is the most probable next token it is taken into the
        prompt, so that what follows is the answer itself.

        Args:
            prompt: what to read.
            room: how many tokens are to follow, `opening` included.
            opening: the answer's first tokens, where they are given; they are read with the prompt.
            bos: whether BOS is taken into the prompt, whatever its probability; None leaves it to that.

        Raises:
            TSLMError: the prompt and the room are longer than the model's context.
        """

    @abstractmethod
    def read_on(self, read: Any, tokens: Sequence[int]) -> tuple[mx.array, Any]:
        """Read tokens behind a prompt that was read, which stays as it is, in one pass.

        Returns:
            Logits before each token and after the last, float32 `[len(tokens) + 1, V]`, and the prompt with them.
        """

    @abstractmethod
    def decoder(self, read: Any) -> Decoder:
        """A decoder of many answers to a prompt that was read."""

    @abstractmethod
    def rows(self) -> Rows:
        """A batch of answers to different prompts, empty yet."""

    def follow(self, read: Any) -> tuple[mx.array, Callable[[mx.array], mx.array]]:
        """One answer: the logits `[1, V]` of its first token, and a call from a token `[1]` to the next logits."""
        rows = self.rows()
        rows.seat(0, read)

        def advance(token: mx.array) -> mx.array:
            rows.step(token)
            return rows.logits()

        return rows.logits(), advance

    def footprint(self) -> Footprint | None:
        """What decoding takes, where it is known beforehand."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of a few weights and of what computes them, by which other models are told."""

    @abstractmethod
    def peak_memory(self) -> int:
        """Bytes held at most so far, as far as the library tells."""
