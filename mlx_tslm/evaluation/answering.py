"""From questions to records: greedy and sampled answers in batches, searches one sample at a time.

Every method has the same budget for a sample, `num_rollouts` × `max_tokens` tokens. A search may spend all of it;
"greedy" and "sample" write one answer of up to `max_tokens`, and have no use for the rest. What was spent stands in
the record.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import tee
from typing import Any

import mlx.core as mx

from mlx_tslm import search
from mlx_tslm.errors import TooLong, TSLMError
from mlx_tslm.evaluation.folder import Record
from mlx_tslm.evaluation.samples import Question
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.prompt import Prompt
from mlx_tslm.rewards import Reward, RewardContext
from mlx_tslm.sampling import Sampling
from mlx_tslm.search import MaxEntTS, SearchConfig
from mlx_tslm.stages import Stage

BATCHED = ("greedy", "sample")
"""Methods that write one answer a sample, many samples at a time."""

METHODS = (*BATCHED, *(name for name in search.METHODS if name not in BATCHED))
_OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")
_OF_BUDGET = ("num_rollouts", "max_tokens")


def settings(method: str, config: SearchConfig, reward: str) -> dict[str, Any]:
    """What a method's answers depend on, beside the budget."""
    if method == "greedy":
        return {}
    every = config.to_dict()
    if method == "sample":
        return {name: every[name] for name in _OF_SAMPLING}
    return {name: value for name, value in every.items() if name not in ("method", *_OF_BUDGET)} | {
        "reward": reward
    }


def budget(config: SearchConfig) -> dict[str, int]:
    """What every method may spend on a sample."""
    return {name: getattr(config, name) for name in _OF_BUDGET}


def answers(
    model: BaseModel,
    stage: Stage,
    questions: Iterable[Question],
    method: str,
    config: SearchConfig,
    reward: Reward | None = None,
) -> Iterator[Record]:
    """Answer the questions and yield a record of each as it is finished.

    A record has `index`, `gold`, `reference`, `group`, and `options`, what a multiple-choice question offers by
    letter ({"(a)": "no trend", …}, else None); `answers`, for each way to read an answer off its `text`
    and `answer`: "answer" for the batched methods, for a search "posterior" (the final answer with the most
    weight) and "best" (that of the completion with the highest reward); `tokens`, `forward_passes` and `seconds`
    spent, `prompt_tokens`, `finished` (the share of completions that came to their end); for captions `nll` and
    `nll_tokens` of the reference.

    Raises:
        TSLMError: a prompt does not fit the model, or the reward failed.
    """
    config = config.resolved(model.sampling)
    if method in BATCHED:
        answered = _batched(model, stage, questions, method, config)
    else:
        answered = _searched(model, stage, questions, replace(config, method=method), reward)
    for question, texts, spent in answered:
        record: Record = {
            "index": question.index,
            "gold": question.gold,
            "group": question.group,
            "options": dict(question.labels) if isinstance(question.labels, Mapping) else None,
            "answers": {
                name: {"text": text, "answer": stage.parse(text, question.labels)} for name, text in texts.items()
            },
            "reference": question.reference,
            **spent,
        }
        if stage.key == "m4":
            record |= _likelihood(model, question)
        yield record


_Answered = Iterator[tuple[Question, dict[str, str], dict[str, Any]]]


def _batched(
    model: BaseModel, stage: Stage, questions: Iterable[Question], method: str, config: SearchConfig
) -> _Answered:
    under_way: dict[int, Question] = {}
    reading: Question | None = None

    def prompts() -> Iterator[Prompt]:
        nonlocal reading
        for number, question in enumerate(asked):
            under_way[number] = reading = question
            yield question.prompt
            reading = None

    asked, seeded = tee(questions)
    seeds = (config.seed + question.index for question in seeded)
    p = Sampling(0.0) if method == "greedy" else config.sampling
    sampling = (p.temperature, p.top_k, p.top_p)
    try:
        for response in generate_batch(model, prompts(), config.width, config.max_tokens, *sampling, seeds=seeds):
            yield (
                under_way.pop(response.index),
                {"answer": response.completion.text},
                {
                    "tokens": len(response.completion.tokens),
                    "forward_passes": response.forward_passes,
                    "seconds": response.seconds,
                    "prompt_tokens": response.prompt_tokens,
                    "finished": float(response.completion.finished),
                },
            )
    except TSLMError as error:
        raise (_of_sample(reading, stage, error) if reading else error) from None


def _searched(
    model: BaseModel, stage: Stage, questions: Iterable[Question], config: SearchConfig, reward: Reward | None
) -> _Answered:
    for question in questions:
        engine = MaxEntTS(model, reward, replace(config, seed=config.seed + question.index))
        try:
            result = engine.search(
                question.prompt, context=RewardContext(question.prompt, stage, labels=question.labels)
            )
        except TSLMError as error:
            raise _of_sample(question, stage, error) from None
        top = next(iter(result.answers), None)
        ended = {one.rationale for one in result.completions if one.finished}
        agreeing = [one for one in result.completions if one.answer == top]
        stats = result.stats
        yield (
            question,
            {"posterior": max(agreeing, key=lambda one: one.weight).text, "best": result.best.text},
            {
                "tokens": stats.tokens_decoded,
                "forward_passes": stats.forward_passes,
                "seconds": stats.seconds["total"],
                "prompt_tokens": stats.prompt_tokens,
                "finished": sum(one.rationale in ended for one in result.completions) / len(result.completions),
            },
        )


def _of_sample(question: Question, stage: Stage, error: TSLMError) -> TSLMError:
    """The error with the sample's number, and with advice that holds for a data set's samples."""
    if isinstance(error, TooLong):
        return TSLMError(f"sample {question.index}: {error.problem}; evaluate a model trained on {stage.name}")
    return TSLMError(f"sample {question.index}: {error}")


def _likelihood(model: BaseModel, question: Question) -> dict[str, float]:
    """Negative log-likelihood of the reference, end token included, after the BOS that answers begin with."""
    tokenizer = model.tokenizer
    tokens = [*tokenizer.encode(question.reference), tokenizer.eos_token_id]
    opening = int(tokens[0] == tokenizer.bos_token_id)
    logits = model.score(question.prompt, tokens[:-1])[opening:]
    of_tokens = mx.take_along_axis(logits, mx.array(tokens[opening:])[:, None], axis=-1)[:, 0]
    nll = mx.sum(mx.logsumexp(logits, axis=-1) - of_tokens)
    return {"nll": float(nll), "nll_tokens": len(tokens) - opening}
