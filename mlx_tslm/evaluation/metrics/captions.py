"""BLEU, ROUGE and perplexity of captions."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.evaluation.metrics.estimate import Estimate, estimate, require, resampled
from mlx_tslm.evaluation.metrics.judged import Judged


def caption_scores(judged: Sequence[Judged], resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """The metrics of stage 2.

    Args:
        judged: at least one sample.
        resamples, seed: of the bootstrap.

    Returns:
        `bleu`: corpus BLEU-4, 0 … 100, sacrebleu's defaults (13a tokens, exponential smoothing).
        `rouge1`, `rouge2`, `rougeL`: mean F-measure with stemming, 0 … 1, rouge-score's.
        `perplexity`: exp of the mean negative log-likelihood of a token of the reference captions under the
        model, end token included; left out where no sample has one.

    Raises:
        TSLMError: a library is not installed.
    """
    require("sacrebleu", "rouge_score")
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    weights = resampled(np.ones(len(judged)), resamples, seed)
    bleu = BLEU()
    whole = bleu.corpus_score([one.text for one in judged], [[one.reference for one in judged]])
    sentences = [BLEU(effective_order=True).sentence_score(one.text, [one.reference]) for one in judged]
    statistics = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in sentences])

    def bleus(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array(
            [
                BLEU.compute_bleu(row[:4].tolist(), row[4:8].tolist(), int(row[8]), int(row[9]), "exp").score
                for row in drawn @ statistics
            ]
        )

    scores = {"bleu": estimate(whole.score, bleus, weights)}
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rouge = [scorer.score(one.reference, one.text) for one in judged]
    for name in ("rouge1", "rouge2", "rougeL"):
        values = np.array([one[name].fmeasure for one in rouge])
        scores[name] = estimate(values.mean(), _mean_of(values), weights)
    nll, tokens = np.array([one.nll for one in judged]), np.array([one.nll_tokens for one in judged])
    if tokens.all():
        value = np.exp(nll.sum() / tokens.sum())
        scores["perplexity"] = estimate(value, lambda drawn: np.exp(drawn @ nll / (drawn @ tokens)), weights)
    return scores


def _mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    return lambda drawn: drawn @ values / len(values)
