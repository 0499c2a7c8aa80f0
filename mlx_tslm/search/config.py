"""The settings of a search: one dataclass, the same names in Python and on the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.sampling import DEFAULT, Sampling
from mlx_tslm.schema import checked_seed


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search.

    Args:
        method: a preset's name, see `mlx_tslm.search.METHODS`.
        num_rollouts: how many answers to finish; for beam search, how many beams there are.
        width: how many rollouts are under way at once, and are scored and backed up together: a wave.
        inverse_temperature: λ of the reward; larger is greedier. The target is π*(x) ∝ p(x) exp(λ r(x)).
        temperature, top_k, top_p: the sampling distribution p, see `Sampling`. A temperature or top-p of None is
            the model's own; a top-p of 1 cuts nothing.
        max_tokens: the longest answer, in tokens.
        seed: of all draws. The same seed, settings and machine give the same result.
        complete_answers: where the allowed answers are a closed set, score each of them behind every rationale
            instead of drawing one; a rollout is a rationale then. None: the tree methods do, unless `temperature`
            is 0 or `max_tokens` below what the longest allowed answer takes.
        stop_early: start no rollout any more once the answer would stay whatever they brought, see
            `stopping.settled`; a reward of unknown bound is never stopped.
        explore: share of MaxEnt-TS's walkers that follow p instead of the estimate of π*, 0 … 1.
        exploration: c of UCT (DTS*, MCTS), in units of the reward.
        widening, widening_power: C and α of progressive widening (DTS, DTS*, MCTS): a node at its N-th visit
            takes a new draw while it has fewer than C Nᵅ.

    Raises:
        TSLMError: a setting is out of range.
    """

    method: str = "maxent-ts"
    num_rollouts: int = 64
    width: int = 16
    inverse_temperature: float = 1.0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    max_tokens: int = 256
    seed: int = 0
    complete_answers: bool | None = None
    stop_early: bool = True
    explore: float = 0.25
    exploration: float = 1.0
    widening: float = 1.0
    widening_power: float = 0.5

    def __post_init__(self) -> None:
        checked_seed(self.seed)
        for name, least in (("num_rollouts", 1), ("width", 1), ("max_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if not (isinstance(value, Integral) and least <= int(value) < 2**64):
                raise TSLMError(f"{name} is {value}; it must be a whole number, {least} or more")
            object.__setattr__(self, name, int(value))
        for name in ("inverse_temperature", "widening"):
            if not 0 < getattr(self, name) < float("inf"):
                raise TSLMError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("explore", "widening_power"):
            if not 0 <= getattr(self, name) <= 1:
                raise TSLMError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if not 0 <= self.exploration < float("inf"):
            raise TSLMError(f"exploration is {self.exploration}; it must be 0 or more")
        Sampling(self.temperature or 0.0, self.top_k, self.top_p)  # checks them
        if self.complete_answers and self.temperature == 0:
            raise TSLMError("complete_answers needs a temperature above 0: greedy p has one answer only")

    @property
    def sampling(self) -> Sampling:
        """The distribution p; what is left to the model is `DEFAULT`'s until `resolved`."""
        temperature = DEFAULT.temperature if self.temperature is None else self.temperature
        return Sampling(temperature, self.top_k, DEFAULT.top_p if self.top_p is None else self.top_p)

    def resolved(self, own: Sampling) -> SearchConfig:
        """The settings with the temperature and top-p of a model's `own` p where they are left to it."""
        temperature = own.temperature if self.temperature is None else self.temperature
        top_p = (own.top_p or 1.0) if self.top_p is None else self.top_p
        if (temperature, top_p) == (self.temperature, self.top_p):
            return self
        return replace(self, temperature=temperature, top_p=top_p)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> SearchConfig:
        """The inverse of `to_dict`; unknown keys are ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in names})
