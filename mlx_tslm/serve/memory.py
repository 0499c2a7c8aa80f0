"""Prompts that were read lately, kept within a number of bytes; the least recently used goes first."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from mlx_tslm.models.base import BaseModel
from mlx_tslm.stages.base import Question


class Prompts:
    """Reads prompts, each once as long as it is remembered.

    Args:
        model: reads them.
        limit: bytes of keys and values that are kept.
    """

    def __init__(self, model: BaseModel, limit: int) -> None:
        self._model, self._limit = model, limit
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = Lock()

    def prefill(self, prompt: Question, room: int = 0, opening: Sequence[int] = ()) -> Any:
        """As the model's own; whether there is room for an answer is checked each time."""
        key = self._key(prompt, opening)
        with self._lock:
            read = self._kept.get(key)
            if read is not None:
                self._kept.move_to_end(key)
        if read is not None:
            longest = int(self._model.config.text_config.get("max_position_embeddings", 1 << 62))
            self._model.check_room(read.length - len(opening), room, longest)
            return read
        read = self._model.prefill(prompt, room, opening)
        with self._lock:
            self._kept[key] = read
            while self._kept and sum(one.nbytes for one in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
        return read

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        with self._lock:
            return sum(one.nbytes for one in self._kept.values())

    def _key(self, prompt: Question, opening: Sequence[int]) -> bytes:
        digest = hashlib.sha256(repr((prompt.pre, prompt.post, list(opening))).encode())
        for series in prompt.series:
            digest.update(repr((series.text, len(series.values))).encode())
            digest.update(np.ascontiguousarray(series.values).tobytes())
        return digest.digest()


class Remembering:
    """A model whose `prefill` goes through `Prompts`; all else is the model's."""

    def __init__(self, model: BaseModel, prompts: Prompts) -> None:
        self._model, self.prefill = model, prompts.prefill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
