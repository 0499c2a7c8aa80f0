"""The next-token distribution p that answers are sampled from, declared once and used everywhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.ops import compiled, exponentials

_Drawn = tuple[mx.array, mx.array, mx.array]
"""Tokens int32 `[R]`, their log p and the entropy of p, float32 `[R]`."""

_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Sampling:
    """Temperature, then top-k, then top-p, then renormalised (the order of Hugging Face transformers).

    Args:
        temperature: divides the logits; 0 puts all mass on the most probable token (greedy).
        top_k: keep the k most probable tokens, or None for all.
        top_p: keep the smallest set of most probable tokens whose mass reaches `top_p`, or None for all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise TSLMError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise TSLMError(f"top_k is {self.top_k}; it must be 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise TSLMError(f"top_p is {self.top_p}; it must be above 0 and at most 1")

    def __str__(self) -> str:
        cuts = {"top-k": self.top_k, "top-p": self.top_p}
        return ", ".join([f"temperature {self.temperature:g}", *(f"{k} {v:g}" for k, v in cuts.items() if v)])

    def scores(self, logits: mx.array) -> mx.array:
        """Unnormalised log p: float32 `[..., V]`, −inf where p is cut off; NaN where logits are NaN or +inf.

        Below what float32 can divide by, a temperature is 0.
        """
        if self.temperature < _LEAST:
            best, top = mx.argmax(logits, axis=-1, keepdims=True), mx.max(logits, axis=-1, keepdims=True)
            return mx.where(mx.arange(logits.shape[-1]) == best, top - top, -mx.inf)
        scores = logits
        if self.temperature != 1:  # from the top: a small temperature makes large scores, which float32 rounds
            scores = (logits - mx.max(logits, axis=-1, keepdims=True)) / min(self.temperature, _MOST)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            kth = -mx.partition(-scores, self.top_k - 1, axis=-1)[..., self.top_k - 1 : self.top_k]
            scores = mx.where(scores >= kth, scores, -mx.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered = mx.sort(scores, axis=-1)[..., ::-1]
            mass = mx.softmax(ordered, axis=-1)
            before = mx.cumsum(mass, axis=-1) - mass
            least = mx.min(mx.where(before < max(self.top_p, _LEAST), ordered, mx.inf), axis=-1, keepdims=True)
            scores = mx.where(scores >= least, scores, -mx.inf)
        return scores

    def log_probs(self, logits: mx.array) -> mx.array:
        """log p: float32 `[..., V]`, −inf where p is cut off."""
        scores = self.scores(logits)
        scores = scores - mx.max(scores, axis=-1, keepdims=True)
        return scores - mx.logsumexp(scores, axis=-1, keepdims=True)

    def draw(
        self, logits: mx.array, uniforms: NDArray[np.floating], exclude: NDArray[np.int32] | None = None
    ) -> tuple[mx.array, mx.array]:
        """Draw one token a row by inverting the cumulative distribution.

        One uniform number a row makes the draw independent of the other rows in the batch.

        Args:
            logits: float32 `[R, V]`.
            uniforms: float `[R]` in [0, 1).
            exclude: int32 `[R, K]`, tokens not to draw (repeat one to fill a row), or None.

        Returns:
            Tokens int32 `[R]` and their log p float32 `[R]`, under p itself: exclusion does not renormalise it.
            A row whose whole mass is excluded gets a token with log p = −inf.
        """
        return self.draw_with_entropy(logits, uniforms, exclude)[:2]

    def draw_with_entropy(
        self, logits: mx.array, uniforms: NDArray[np.floating], exclude: NDArray[np.int32] | None = None
    ) -> _Drawn:
        """`draw`, and with it the entropy of p in nats, float32 `[R]`; exclusion does not change that either."""
        # As float32 a number just under 1 may round to 1.
        below_one = mx.array(np.minimum(uniforms, _BELOW_ONE).astype(np.float32))
        return _drawing(self)(logits, below_one, None if exclude is None else mx.array(exclude))

    def _draw(self, logits: mx.array, uniforms: mx.array, exclude: mx.array | None) -> _Drawn:
        _, mass, _, total, entropies = self._terms(logits)
        if exclude is not None:
            mass = mx.put_along_axis(mass, exclude, mx.array(0.0), axis=-1)
        below = mx.cumsum(mass, axis=-1)
        target = uniforms[:, None] * below[:, -1:]  # sums made in parallel may step up where no mass is
        tokens = mx.argmax((below > target) & (mass > 0), axis=-1, keepdims=True)
        drawn = mx.take_along_axis(mass, tokens, axis=-1)
        return tokens[:, 0].astype(mx.int32), mx.log(drawn / total)[:, 0], entropies[:, 0]

    def score(self, logits: mx.array, tokens: NDArray[np.int32]) -> tuple[mx.array, mx.array]:
        """log p of given tokens and the entropy of p, both in nats.

        Args:
            logits: float32 `[R, V]`.
            tokens: int32 `[R, K]`.

        Returns:
            Float32 `[R, K]`, −inf where p is cut off, and float32 `[R]`.
        """
        scores, _, top, total, entropies = self._terms(logits)
        return mx.take_along_axis(scores, mx.array(tokens), axis=-1) - top - mx.log(total), entropies[:, 0]

    def _terms(self, logits: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array, mx.array]:
        """Scores, exp(scores − top), top, the exponentials' sum, and the entropy; the last three `[R, 1]`."""
        scores = self.scores(logits)
        mass, top, total = exponentials(scores)
        surprise = mx.sum(mx.where(mass > 0, mass * (scores - top), 0), axis=-1, keepdims=True)
        return scores, mass, top, total, mx.log(total) - surprise / total


DEFAULT = Sampling(temperature=1.0, top_p=0.95)
"""Of models that state none: without a cut, one token in twenty of a long answer comes from the tail."""


@cache
def _drawing(sampling: Sampling) -> Callable[[mx.array, mx.array, mx.array | None], _Drawn]:
    return compiled(sampling._draw)


def entropy(log_probs: mx.array) -> mx.array:
    """Entropy in nats, float32 `[...]`, of log p `[..., V]`."""
    return -mx.sum(mx.where(log_probs > -mx.inf, mx.exp(log_probs) * log_probs, 0), axis=-1)
