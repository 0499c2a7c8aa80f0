"""What a reward is, what it may look at, and how several make one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.rewards.facts.signal import SignalFacts
from mlx_tslm.stages.base import Question


@lru_cache(maxsize=16)
def facts_of(question: Question) -> SignalFacts:
    """Measurements of a question's recordings, each made when first asked for, once for all answers to it."""
    raw = [one.raw for one in question.series]
    in_units = all(values is not None for values in raw)
    series = [one.values.astype(np.float64) if one.raw is None else one.raw for one in question.series]
    return SignalFacts(series, question.rate, in_units)


@dataclass(frozen=True, eq=False)
class Scores:
    """Rewards of n answers.

    Args:
        total: float64 `[n]`, finite.
        columns: each term's own values before weighting, float64 `[n]`; NaN where a term has nothing to say.
    """

    total: NDArray[np.float64]
    columns: dict[str, NDArray[np.float64]]

    def present(self, name: str) -> float:
        """Share of the answers for which a term had something to say, 0 … 1."""
        column = self.columns[name]
        return float(np.isfinite(column).mean()) if column.size else 0.0


class Reward(ABC):
    """Scores finished answers in batches. Higher is better; about 0 … 1 suits the search's default λ.

    Attributes:
        highest: no answer gets more. Infinite where that is not known; a search can't stop early then.
    """

    name: str = "reward"
    highest: float = math.inf
    optional: bool = False  # may answer NaN: "nothing to judge here", which adds 0

    @abstractmethod
    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        """Return float64 `[n]`, one value an answer."""

    def score(self, completions: Sequence[Completion], question: Question) -> Scores:
        """Return the checked totals and the terms behind them.

        Raises:
            TSLMError: the reward raised, or answered NaN, infinity or the wrong number of values.
        """
        column = evaluate(self, completions, question)
        return Scores(total=np.nan_to_num(column), columns={self.name: column})


class CallableReward(Reward):
    """A user's function from a list of completions to one float each."""

    def __init__(self, function: Callable[[list[Completion]], Any], name: str | None = None) -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", "reward").strip("<>")

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        return np.asarray(self.function(list(completions)), dtype=np.float64)


class CombinedReward(Reward):
    """A weighted sum of terms.

    A term that is absent from an answer (NaN) adds 0 to it. Weights are not renormalised: an answer which says
    nothing must not outrank one which says something true.

    Args:
        terms: name → (reward or callable, weight). The name is the term's column in the result.
    """

    name = "combined"

    def __init__(self, terms: Mapping[str, "tuple[Reward | Callable[..., Any], float]"]) -> None:
        if not terms:
            raise TSLMError("a combined reward needs at least one term")
        self.terms = {name: (as_reward(term), float(weight)) for name, (term, weight) in terms.items()}
        for name, (_, weight) in self.terms.items():
            if not np.isfinite(weight):
                raise TSLMError(f"the weight of reward term {name!r} is {weight}; give a finite number")
        # A term that is absent adds 0; what one of negative weight adds at most is not known.
        bounds = [max(0.0, term.highest) if weight >= 0 else math.inf for term, weight in self.terms.values()]
        weights = [weight for _, weight in self.terms.values()]
        self.highest = sum(weight * bound for weight, bound in zip(weights, bounds, strict=True) if weight)
        self.highest = self.highest if math.isfinite(self.highest) else math.inf

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        return self.score(completions, question).total

    def score(self, completions: Sequence[Completion], question: Question) -> Scores:
        columns = {name: evaluate(term, completions, question, name) for name, (term, _) in self.terms.items()}
        total = np.zeros(len(completions))
        for name, (_, weight) in self.terms.items():
            total += weight * np.nan_to_num(columns[name])
        return Scores(total=total, columns=columns)


def as_reward(reward: "Reward | Callable[..., Any]") -> Reward:
    """Return a `Reward` as it is, and any callable on a list of completions as one.

    Raises:
        TSLMError: it is neither.
    """
    if isinstance(reward, Reward):
        return reward
    if callable(reward) and not isinstance(reward, type):
        return CallableReward(reward)
    raise TSLMError(f"a reward must be a Reward or a function of a list of completions, not {reward!r}")


def evaluate(
    reward: Reward, completions: Sequence[Completion], question: Question, name: str | None = None
) -> NDArray[np.float64]:
    """Call a reward and check what it answers: float64 `[n]`, with NaN only where the reward is optional.

    Raises:
        TSLMError: it raised, or answered with the wrong number of values, NaN or infinity; names the completion.
    """
    name = name or reward.name
    try:
        values = np.asarray(reward(completions, question), dtype=np.float64)
    except TSLMError:
        raise
    except Exception as error:
        where = _offender(reward, completions, question)
        raise TSLMError(f"reward {name!r} raised {type(error).__name__}: {error}{where}") from error
    if values.shape != (len(completions),):
        raise TSLMError(
            f"reward {name!r} answered shape {list(values.shape)} for {len(completions)} completions;"
            " return one float each"
        )
    bad = np.isinf(values) if reward.optional else ~np.isfinite(values)
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise TSLMError(f"reward {name!r} is {values[index]} for {_describe(completions, index)}")
    return values


def _offender(reward: Reward, completions: Sequence[Completion], question: Question) -> str:
    """Find the completion that makes a reward raise by asking for each alone."""
    for index, completion in enumerate(completions):
        try:
            reward([completion], question)
        except Exception:
            return f", at {_describe(completions, index)}"
    return f", on a batch of {len(completions)} completions"


def _describe(completions: Sequence[Completion], index: int) -> str:
    return f"completion {index}: {completions[index].text[:120]!r}"
