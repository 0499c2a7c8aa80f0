"""Whether what was said to be 80 % sure is right in 80 % of cases: expected calibration error, and its plot."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlx_tslm.charts import GREY, Line, Panel, chart
from mlx_tslm.evaluation.metrics.estimate import Estimate
from mlx_tslm.interval import wilson

BINS = 15


class Bin(NamedTuple):
    """Answers of like confidence.

    Attributes:
        samples: so many.
        confidence: their mean confidence.
        right: the share of them that is right.
    """

    samples: int
    confidence: float
    right: float


def bins(confidence: ArrayLike, right: ArrayLike) -> list[Bin]:
    """Answers by confidence, in `BINS` bins of equal width without the empty ones.

    Args:
        confidence: float `[N]`, 0 … 1, of each sample's answer.
        right: bool `[N]`, whether it is right.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    which = _which(confidence)
    return [
        Bin(int(here.sum()), float(confidence[here].mean()), float(right[here].mean()))
        for number in np.unique(which)
        for here in (which == number,)
    ]


def expected_error(confidence: ArrayLike, right: ArrayLike, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Expected calibration error (Naeini et al., 2015): the mean over samples of |right − confidence| of their bin.

    The interval is the percentile bootstrap's, over samples. The error is not 0 for a perfect forecaster either:
    see `perfect_error`.

    Raises:
        ValueError: there is no sample.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not confidence.size:
        raise ValueError("no samples")
    drawn = np.random.default_rng(seed).integers(0, len(right), (resamples, len(right)))
    errors = _errors(confidence[drawn], right[drawn])
    low, high = np.percentile(errors, (2.5, 97.5))
    return Estimate(float(_errors(confidence[None], right[None])[0]), float(low), float(high))


def perfect_error(confidence: ArrayLike, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The error that these confidences would have if they were true: the mean and the middle 95 % of it."""
    confidence = np.asarray(confidence, np.float64)
    right = np.random.default_rng(seed).random((resamples, len(confidence))) < confidence
    errors = _errors(np.broadcast_to(confidence, right.shape), right.astype(np.float64))
    low, high = np.percentile(errors, (2.5, 97.5))
    return Estimate(float(errors.mean()), float(low), float(high))


def reliability_svg(found: Sequence[Bin], title: str, note: str = "") -> str:
    """The share of right answers against their confidence, with Wilson's intervals, beside the diagonal."""
    lines = [
        Line([(0.0, 0.0), (1.0, 1.0)], colour=GREY, dots=False, dashed=True),
        Line(
            [(one.confidence, one.right) for one in found],
            spans=[wilson(one.right, one.samples) for one in found],
            joined=False,
        ),
    ]
    panel = Panel(lines, "confidence", "right", x_ticks=(0, 0.5, 1), bottom=0.0, top=1.0, width=260, height=260)
    return chart(title, [panel], note)


def _which(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def _errors(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row of `[B, N]`: Σ over bins of |Σ right − Σ confidence| / N."""
    rows = np.arange(len(confidence))[:, None]
    gaps = np.zeros((len(confidence), BINS))
    np.add.at(gaps, (rows, _which(confidence)), right - confidence)
    return np.asarray(np.abs(gaps).sum(axis=1) / confidence.shape[1])
