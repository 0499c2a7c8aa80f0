"""One answer, token by token."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import mlx.core as mx
import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import BaseModel
from mlx_tslm.sampling import Sampling
from mlx_tslm.schema import checked_seed
from mlx_tslm.stages.base import Prompt


@dataclass(frozen=True)
class GenerationResponse:
    """What is known after one more token; the field names are mlx-lm's.

    Attributes:
        text: the text this token added (may be empty).
        token: its id.
        logprob: its log-probability under the distribution that it was drawn from (0 where that is greedy).
        model_logprob: the same under the model's own, `model.sampling`, which a search samples from too; −inf
            where that cuts the token off.
        prompt_tokens: positions of the prompt, series included.
        prompt_tps: prompt positions a second.
        generation_tokens: tokens so far.
        generation_tps: tokens a second.
        peak_memory: bytes.
        finish_reason: "stop" (end token), "length", or None while it goes on.
    """

    text: str
    token: int
    logprob: float
    model_logprob: float
    prompt_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: int
    finish_reason: str | None = None


def check(
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Sampling:
    """See that settings are in range, before anything slow happens, and return the distribution they make.

    Raises:
        TSLMError: one is not (named).
    """
    for name, value, least in (("max_tokens", max_tokens, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or value < least:
            raise TSLMError(f"{name} is {value}; it must be a whole number, {least} or more")
    return Sampling(temperature, top_k, top_p)


def stream_generate(
    model: BaseModel,
    prompt: Prompt,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[GenerationResponse]:
    """Generate one answer and yield it token by token; the last response has a `finish_reason`.

    Args:
        model: a loaded model.
        prompt: the prompt with its series.
        max_tokens: the most tokens to generate.
        temperature: 0 is greedy; otherwise sample from the tempered distribution.
        top_k, top_p: cut the distribution, see `Sampling`.
        seed: of the sampling.

    Raises:
        TSLMError: an option is out of range, the prompt does not fit the model, or its logits are NaN.
    """
    sampling, seed = check(max_tokens, temperature, top_k, top_p, seed), checked_seed(seed)
    eos = model.eos_token_ids
    started = time.perf_counter()
    read = model.prefill(prompt, room=max_tokens)
    prompt_tps = read.length / (time.perf_counter() - started)
    logits, advance = model.follow(read)
    uniforms = np.random.default_rng(seed).random(max_tokens, dtype=np.float32)

    def draw(logits: mx.array, index: int) -> tuple[mx.array, mx.array, mx.array]:
        token, logprob = sampling.draw(logits, uniforms[index : index + 1])
        own = mx.take_along_axis(model.sampling.log_probs(logits), token[:, None], axis=-1)[:, 0]
        mx.async_eval(token, logprob, own)
        return token, logprob, own

    detokenizer = model.tokenizer.detokenizer
    special = set(model.tokenizer.all_special_ids)
    started = time.perf_counter()
    token, logprob, own = draw(logits, 0)
    for count in range(1, max_tokens + 1):
        following = None
        if count < max_tokens:  # queue the next step before waiting for this one
            following = draw(advance(token), count)
        current, logp = int(np.array(token)[0]), float(np.array(logprob)[0])
        if np.isnan(logp):
            raise model.astray(f"after {count - 1} tokens of the answer")
        reason = "stop" if current in eos else "length" if following is None else None
        if current not in special:
            detokenizer.add_token(current)
        if reason:
            detokenizer.finalize()
        yield GenerationResponse(
            text=detokenizer.last_segment,
            token=current,
            logprob=logp,
            model_logprob=float(np.array(own)[0]),
            prompt_tokens=read.length,
            prompt_tps=prompt_tps,
            generation_tokens=count,
            generation_tps=count / (time.perf_counter() - started),
            peak_memory=model.peak_memory(),
            finish_reason=reason,
        )
        if following is None or reason:
            return
        token, logprob, own = following


def generate(
    model: BaseModel,
    prompt: Prompt,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> str:
    """Generate one answer and return its text; arguments and errors as in `stream_generate`."""
    responses = stream_generate(model, prompt, max_tokens, temperature, top_k, top_p, seed)
    return "".join(response.text for response in responses)
