"""Whether an answer depends on the recording: what a model makes of the same words with other samples before them.

A model is forced through an answer that was given to the intact recording. How far its distributions move when the
samples are tampered with is the Kullback-Leibler divergence KL(p ‖ q) in nats, p with the intact series and q with
the others: of the next token, summed along the answer, and of the allowed answers behind its rationale.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.models.base import BaseModel
from mlx_tslm.search.labels import Completer
from mlx_tslm.search.tree import ROOT, Tree
from mlx_tslm.stages.ablation import ablated
from mlx_tslm.stages.base import Question

if TYPE_CHECKING:
    from mlx_tslm.search.result import ScoredCompletion, SearchResult

BOUND = 0.05
"""Nats by which an answer has to move to count as dependent on the recording."""

_TEXT_BOUND = 1.0  # nats of one text's log p: a ratio of probabilities under e


@dataclass(frozen=True)
class Forced:
    """What a model says along an answer that it is forced through.

    Attributes:
        logits: float32 `[K, V]`, before each of the answer's K tokens.
        answers: log share of each allowed answer behind the rationale; None where they are no closed set, or the
            answer never came to its marker.
    """

    logits: mx.array
    answers: dict[str, float] | None


def force(model: BaseModel, read: Any, question: Question, tokens: Sequence[int]) -> Forced:
    """Force a model through an answer.

    Args:
        read: the prompt, as `model.prefill` has it.
        question: says which answers are allowed, and what stands before them.
        tokens: the answer, K ≥ 1; its last token is not read.
    """
    logits, _ = model.read_on(read, tokens[:-1])
    rationale = before_answer(model.tokenizer, question, tokens)
    if rationale is None:
        return Forced(logits, None)
    return Forced(logits, answer_log_shares(model, read, question, tokens[:rationale]))


def before_answer(tokenizer: Any, question: Question, tokens: Sequence[int]) -> int | None:
    """How many of an answer's tokens stand before its final answer, the marker among them.

    None where the allowed answers are no closed set, or there is no marker.
    """
    if question.stage is None or not question.labels:
        return None
    marker = question.stage.marker
    if marker is None:
        return 0
    ends = (
        count
        for count in range(1, len(tokens) + 1)
        if tokenizer.decode(list(tokens[:count]), skip_special_tokens=True).rstrip().endswith(marker)
    )
    return next(ends, None)


def answer_log_shares(
    model: BaseModel, read: Any, question: Question, rationale: Sequence[int], temperature: float = 1.0
) -> dict[str, float]:
    """log p of each allowed answer behind a rationale, its end token included, normalised to sum to 1.

    All of them are scored as a trie, a level in one pass.
    """
    assert question.stage is not None and question.labels
    completer = Completer(
        model.tokenizer,
        question.stage.marker,
        question.labels,
        tuple(rationale),
        temperature,
        model.eos_token_ids,
    )
    tree = Tree()
    completer.complete(model.decoder(model.read_on(read, rationale)[1]), tree, np.array([ROOT], np.int32))
    logprobs: dict[str, list[float]] = {}
    for leaf in np.flatnonzero(tree.finished).tolist():
        text = model.tokenizer.decode([*rationale, *tree.path(leaf)], skip_special_tokens=True).strip()
        if (answer := question.parse(text)) is not None:
            logprobs.setdefault(answer, []).append(float(tree.logprob[leaf]))
    return _normalised({answer: float(np.logaddexp.reduce(each)) for answer, each in logprobs.items()})


def kl_of_tokens(p: mx.array, q: mx.array) -> NDArray[np.float64]:
    """KL(p ‖ q) in nats of each row of logits `[K, V]`: float64 `[K]`."""
    log_p, log_q = (one - mx.logsumexp(one, axis=-1, keepdims=True) for one in (p, q))
    terms = mx.where(log_p > -mx.inf, mx.exp(log_p) * (log_p - log_q), 0.0)  # −inf marks ids that are no token
    return np.maximum(np.array(mx.sum(terms, axis=-1), np.float64), 0.0)


def kl_of_answers(p: Mapping[str, float], q: Mapping[str, float]) -> float:
    """KL(p ‖ q) in nats, from log shares of the same answers."""
    return max(0.0, sum(math.exp(log_p) * (log_p - q[answer]) for answer, log_p in p.items()))


def with_remark(model: BaseModel, question: Question, result: "SearchResult") -> "SearchResult":
    """The result, with one more note where its headline does not depend on the series."""
    note = remark(model, question, result, result.best)
    return replace(result, notes=(*result.notes, note)) if note else result


def remark(model: BaseModel, question: Question, result: "SearchResult", one: "ScoredCompletion") -> str | None:
    """A sentence where a search's headline does not depend on the series, else None.

    The prompt is read once with the series zeroed; the headline's text, and all answers behind its rationale where
    the search had completed them, are scored behind it. It does not depend on the series where these answers move
    by less than `BOUND`, and the text before them is as probable as it was, within a factor of e.

    Args:
        model: was searched.
        question: was asked.
        result: of the search.
        one: its headline.
    """
    if not question.series or not one.tokens:
        return None
    tree, config = result.tree, result.config
    completed = bool(tree.closed[one.rationale])
    count = len(result.prefix) + int(tree.depth[one.rationale]) if completed else len(one.tokens)
    bos = result.stats.prompt_tokens > model.count_positions(question)
    read = model.prefill(ablated(question, "zero"), room=len(one.tokens), bos=bos)
    said = []
    if completed:
        behind = [each for each in result.completions if each.rationale == one.rationale]
        intact = _normalised({each.answer: each.logprob for each in behind if each.answer is not None})
        zeroed = answer_log_shares(model, read, question, one.tokens[:count], config.sampling.temperature)
        moved = kl_of_answers(intact, zeroed)
        if moved >= BOUND:
            return None
        said.append(f"the answers behind it move by {moved:.3f} nats, less than {BOUND:g}")
    if count:
        logits, _ = model.read_on(read, one.tokens[: count - 1])
        scores, _ = config.sampling.score(logits, np.array(one.tokens[:count], np.int32)[:, None])
        known = np.full(count, np.nan) if one.logprobs is None else one.logprobs[:count]
        less = float(np.nansum(known - np.array(scores, np.float64)[:, 0]))  # NaN: tokens that were given
        if not abs(less) < _TEXT_BOUND:
            return None
        said.insert(0, f"its text is {math.exp(-less):.2f} times as probable")
    return f"this answer hardly depends on the series: with all samples 0, {' and '.join(said)}"


def _normalised(logprobs: Mapping[str, float]) -> dict[str, float]:
    total = float(np.logaddexp.reduce(list(logprobs.values()))) if logprobs else 0.0
    return {answer: logprob - total for answer, logprob in logprobs.items()}
