"""What a reward is, what it may look at, and how several make one."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.prompt import Prompt
from mlx_tslm.rewards.facts.signal import SignalFacts

if TYPE_CHECKING:
    from mlx_tslm.stages import Labels, Stage

_NUMBER = r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
_STATED_SCALE = re.compile(rf"mean {_NUMBER} and std {_NUMBER}", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class RewardContext:
    """What a reward may look at beside the answers: the question and its signals, never a gold label.

    Args:
        prompt: what the model was asked.
        stage: the task; None for a free prompt.
        rate: samples a second of the series, in Hz. Left out, the stage's own; None where that has none.
        labels: the allowed final answers. Left out, those the stage sees in the prompt; None where it is open.
        series: the recordings in their own units, float64 `[T]` each. Left out, they are recovered from the
            prompt: a stage's prompt states each series' mean and standard deviation in its text.
    """

    prompt: Prompt
    stage: "Stage | None" = None
    rate: float | None = None
    labels: "Labels | None" = None
    series: Sequence[NDArray[np.float64]] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if self.stage is not None:
            object.__setattr__(self, "rate", self.rate if self.rate is not None else self.stage.rate)
            if self.labels is None:
                object.__setattr__(self, "labels", self.stage.allowed(self.prompt))

    @cached_property
    def signals(self) -> tuple[tuple[NDArray[np.float64], ...], bool]:
        """The series, float64 `[T]` each, and whether they are in their own units (else normalised)."""
        if self.series:
            return tuple(np.asarray(values, dtype=np.float64) for values in self.series), True
        recovered = [_rescale(series.text, series.values) for series in self.prompt.series]
        return tuple(values for values, _ in recovered), all(known for _, known in recovered)

    @cached_property
    def facts(self) -> SignalFacts:
        """Measurements of the signals, each made when first asked for."""
        series, in_units = self.signals
        return SignalFacts(series, self.rate, in_units)


def _rescale(text: str, values: NDArray[np.float32]) -> tuple[NDArray[np.float64], bool]:
    stated = _STATED_SCALE.search(text)
    # A deviation that four decimals cannot hold leaves the scale unknown.
    if stated is None or float(stated[2]) <= 1e-3:
        return values.astype(np.float64), False
    return values.astype(np.float64) * float(stated[2]) + float(stated[1]), True


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
    """Scores finished answers in batches. Higher is better; about 0 … 1 suits the search's default λ."""

    name: str = "reward"
    optional: bool = False  # may answer NaN: "nothing to judge here", which adds 0

    @abstractmethod
    def __call__(self, completions: Sequence[Completion], context: RewardContext) -> NDArray[np.float64]:
        """Return float64 `[n]`, one value an answer."""

    def score(self, completions: Sequence[Completion], context: RewardContext) -> Scores:
        """Return the checked totals and the terms behind them.

        Raises:
            TSLMError: the reward raised, or answered NaN, infinity or the wrong number of values.
        """
        column = evaluate(self, completions, context)
        return Scores(total=np.nan_to_num(column), columns={self.name: column})


class CallableReward(Reward):
    """A user's function from a list of completions to one float each."""

    def __init__(self, function: Callable[[list[Completion]], Any], name: str | None = None) -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", "reward").strip("<>")

    def __call__(self, completions: Sequence[Completion], context: RewardContext) -> NDArray[np.float64]:
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

    def __call__(self, completions: Sequence[Completion], context: RewardContext) -> NDArray[np.float64]:
        return self.score(completions, context).total

    def score(self, completions: Sequence[Completion], context: RewardContext) -> Scores:
        columns = {name: evaluate(term, completions, context, name) for name, (term, _) in self.terms.items()}
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
    reward: Reward, completions: Sequence[Completion], context: RewardContext, name: str | None = None
) -> NDArray[np.float64]:
    """Call a reward and check what it answers: float64 `[n]`, with NaN only where the reward is optional.

    Raises:
        TSLMError: it raised, or answered with the wrong number of values, NaN or infinity; names the completion.
    """
    name = name or reward.name
    try:
        values = np.asarray(reward(completions, context), dtype=np.float64)
    except TSLMError:
        raise
    except Exception as error:
        where = _offender(reward, completions, context)
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


def _offender(reward: Reward, completions: Sequence[Completion], context: RewardContext) -> str:
    """Find the completion that makes a reward raise by asking for each alone."""
    for index, completion in enumerate(completions):
        try:
            reward([completion], context)
        except Exception:
            return f", at {_describe(completions, index)}"
    return f", on a batch of {len(completions)} completions"


def _describe(completions: Sequence[Completion], index: int) -> str:
    return f"completion {index}: {completions[index].text[:120]!r}"
