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
from mlx_tslm.evaluation.samples import Item
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.rewards import Reward
from mlx_tslm.sampling import Sampling
from mlx_tslm.search import MaxEntTS, SearchConfig
from mlx_tslm.stages import Stage
from mlx_tslm.stages.base import Question

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
    items: Iterable[Item],
    method: str,
    config: SearchConfig,
    reward: Reward | None = None,
) -> Iterator[Record]:
    """Answer the questions and yield a record of each as it is finished.

    A record has `index`, of a table's row `from`; `gold`, `reference`, `group`; `options`, what a multiple-choice
    question offers by letter ({"(a)": "no trend", …}, else None), and `labels`, the allowed answers, or None;
    `answers`, for each way to read an answer off its `text` and `answer`: "answer", what is shown (of a search the
    allowed final answer with the most weight, clear or not), and for a search "best-rewarded", the completion with
    the highest reward; `tokens`, `forward_passes` and `seconds` spent, `prompt_tokens`, `finished` (the share of
    completions that came to their end); for captions `nll` and `nll_tokens` of the reference.

    Raises:
        TSLMError: a prompt does not fit the model, or the reward failed.
    """
    config = config.resolved(model.sampling)
    if method in BATCHED:
        answered = _batched(model, stage, items, method, config)
    else:
        answered = _searched(model, stage, items, replace(config, method=method), reward)
    for item, texts, spent in answered:
        labels = item.question.labels
        record: Record = {
            "index": item.index,
            **({"from": item.origin} if item.origin else {}),
            "gold": item.gold,
            "group": item.group,
            "options": dict(labels) if isinstance(labels, Mapping) else None,
            "labels": list(labels) if labels is not None else None,
            "answers": {name: {"text": text, "answer": item.question.parse(text)} for name, text in texts.items()},
            "reference": item.reference,
            **spent,
        }
        if "captions" in stage.metrics:
            record |= _likelihood(model, item)
        yield record


_Answered = Iterator[tuple[Item, dict[str, str], dict[str, Any]]]


def _batched(model: BaseModel, stage: Stage, items: Iterable[Item], method: str, config: SearchConfig) -> _Answered:
    under_way: dict[int, Item] = {}
    reading: Item | None = None

    def prompts() -> Iterator[Question]:
        nonlocal reading
        for number, item in enumerate(asked):
            under_way[number] = reading = item
            yield item.question
            reading = None

    asked, seeded = tee(items)
    seeds = (config.seed + item.index for item in seeded)
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
    model: BaseModel, stage: Stage, items: Iterable[Item], config: SearchConfig, reward: Reward | None
) -> _Answered:
    for item in items:
        try:
            result = MaxEntTS(model, reward, replace(config, seed=config.seed + item.index)).search(item.question)
        except TSLMError as error:
            raise _of_sample(item, stage, error) from None
        rewarded = max(result.completions, key=lambda one: (one.reward, one.logprob))
        ended = {one.rationale for one in result.completions if one.finished}
        stats = result.stats
        yield (
            item,
            {"answer": result.best.text, "best-rewarded": rewarded.text},
            {
                "tokens": stats.tokens_decoded,
                "forward_passes": stats.forward_passes,
                "seconds": stats.seconds["total"],
                "prompt_tokens": stats.prompt_tokens,
                "finished": sum(one.rationale in ended for one in result.completions) / len(result.completions),
            },
        )


def _of_sample(item: Item, stage: Stage, error: TSLMError) -> TSLMError:
    """The error with the sample's number, and with advice that holds for a data set's samples."""
    if isinstance(error, TooLong):
        return TSLMError(f"sample {item.index}: {error.problem}; evaluate a model trained on {stage.name}")
    return TSLMError(f"sample {item.index}: {error}")


def _likelihood(model: BaseModel, item: Item) -> dict[str, float]:
    """Negative log-likelihood of the reference, end token included, after the BOS that answers begin with."""
    tokenizer = model.tokenizer
    tokens = [*tokenizer.encode(item.reference), tokenizer.eos_token_id]
    opening = int(tokens[0] == tokenizer.bos_token_id)
    logits = model.score(item.question, tokens[:-1])[opening:]
    of_tokens = mx.take_along_axis(logits, mx.array(tokens[opening:])[:, None], axis=-1)[:, 0]
    nll = mx.sum(mx.logsumexp(logits, axis=-1) - of_tokens)
    return {"nll": float(nll), "nll_tokens": len(tokens) - opening}
