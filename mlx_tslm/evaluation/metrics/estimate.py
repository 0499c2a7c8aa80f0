"""A figure with its interval, by the percentile bootstrap."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlx_tslm.errors import TSLMError

LIBRARIES = {"sklearn": "scikit-learn", "sacrebleu": "sacrebleu", "rouge_score": "rouge-score"}


class Estimate(NamedTuple):
    """A metric over a data set, and the 95 % interval that resampling its samples gives."""

    value: float
    low: float
    high: float


def resampled(counts: ArrayLike, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each kind of sample is drawn when as many as there are get drawn with replacement.

    Args:
        counts: int `[C]`, how many samples there are of each kind.

    Returns:
        int64 `[resamples, C]`.
    """
    counts = np.asarray(counts)
    return np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)


def estimate(value: float, statistic: Callable[[Any], NDArray[np.float64]], weights: NDArray[np.int64]) -> Estimate:
    """The value, with the middle 95 % of `statistic` over resamples `[B, C]` (Efron's percentile interval)."""
    low, high = np.percentile(statistic(weights), (2.5, 97.5))
    return Estimate(float(value), float(low), float(high))


def require(*modules: str) -> None:
    """Import libraries that metrics need; all of them where none is named.

    Raises:
        TSLMError: one is not installed.
    """
    for module in modules or LIBRARIES:
        try:
            import_module(module)
        except ImportError:
            raise TSLMError(
                f'evaluation needs {LIBRARIES[module]}, which is not installed: pip install "mlx-tslm[eval]"'
            ) from None
