"""How sure an answer's share of π* makes one: what was fitted on validation samples, and where it came from.

A share says how an answer stands among those that were found, under p and λ as they are. Its logarithm over one
temperature T, normalised again, is how often such an answer is right (temperature scaling: Guo et al., 2017, with
log shares in place of logits). T is above 0, so the order of the answers never changes. p, λ and T of a stage are
fitted together, by the Brier score (Brier, 1950) of the answers' shares, which is proper and bounded.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from mlx_tslm.errors import TSLMError
from mlx_tslm.files import write_atomically
from mlx_tslm.schema import Positive, validate

if TYPE_CHECKING:
    from mlx_tslm.search.config import SearchConfig

FILE = "calibration.json"
"""In a model's folder, an entry a stage."""

_LEAST, _MOST = 0.05, 20.0  # T


@dataclass(frozen=True)
class Calibration:
    """What was fitted for one stage of one model.

    Args:
        temperature, top_p: of the distribution p that answers are sampled from.
        inverse_temperature: λ.
        confidence_temperature: T.
        method: of the searches.
        origin: on which samples and how it was fitted, and how well it holds; for people.
    """

    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    inverse_temperature: Positive
    confidence_temperature: Positive
    method: str = "maxent-ts"
    origin: dict[str, Any] = field(default_factory=dict)

    def holds_for(self, config: "SearchConfig") -> bool:
        """Whether it was fitted for searches like this one, its settings resolved."""
        p = config.sampling
        own = (self.method, self.temperature, self.top_p, self.inverse_temperature, None)
        return own == (config.method, p.temperature, p.top_p or 1.0, config.inverse_temperature, p.top_k)


def read(folder: Path) -> dict[str, Calibration]:
    """What a model's folder says of its stages; empty where it says nothing.

    Raises:
        TSLMError: the file is damaged, or a value is out of range (named).
    """
    file = folder / FILE
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TSLMError(f"{file} cannot be used ({error}); mend it or remove it") from None
    entries = validate(dict[str, dict[str, Any]], content, str(file))
    return {stage: validate(Calibration, entry, f"{file}: {stage}") for stage, entry in entries.items()}


def write(folder: Path, stage: str, fitted: Calibration) -> None:
    """Keep what was fitted for a stage, beside what the folder says of others."""
    entries = {name: asdict(one) for name, one in (read(folder) | {stage: fitted}).items()}
    write_atomically(folder / FILE, json.dumps(entries, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def tempered(shares: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Shares ∝ shares^(1/T): float64 of the same shape `[..., K]`; each row sums to 1, and what has 0 keeps it."""
    shares = np.asarray(shares, np.float64)
    if temperature == 1 or not (shares > 0).any(axis=-1).all():
        return shares
    with np.errstate(divide="ignore"):
        logs = np.log(shares) / temperature
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def brier(shares: NDArray[np.float64], right: NDArray[np.int64]) -> float:
    """Σ_k (share_k − [k is right])², a mean over samples: 0 is perfect, 2 certain and wrong.

    Args:
        shares: float64 `[N, K]`, 0 where a sample has fewer than K answers.
        right: int64 `[N]`, which answer is right; −1 where none that was found is.
    """
    rows = np.arange(len(shares))
    found = np.where(right >= 0, shares[rows, right], 0.0)
    return float(np.mean((shares**2).sum(axis=1) - 2 * found + 1))


def fit(shares: NDArray[np.float64], right: NDArray[np.int64]) -> tuple[float, float]:
    """The T with the best Brier score, and that score; arguments as in `brier`.

    As if one more sample spoke for T = 1, with (log T)²: so T stays within reason where every answer is right.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return brier(tempered(shares, np.exp(log_t)), right) + log_t**2 / len(shares)

    grid = np.linspace(np.log(_LEAST), np.log(_MOST), 41)  # first: the score need not have one valley only
    best = int(np.argmin([loss(at) for at in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x)), float(found.fun)


def padded(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Rows of different lengths as `[N, K]`, filled up with 0."""
    filled = np.zeros((len(rows), max(map(len, rows), default=0)))
    for at, row in enumerate(rows):
        filled[at, : len(row)] = row
    return filled
