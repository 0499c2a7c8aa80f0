"""The methods: each one a choice of rules for the one engine."""

from dataclasses import dataclass
from typing import Literal

from mlx_tslm.errors import TSLMError
from mlx_tslm.search.backup import Backup, Weigh, calibrated, counted, mean, soft_mean, soft_prior
from mlx_tslm.search.select import Select, at_root, unexplored, widened_boltzmann, widened_uct
from mlx_tslm.suggest import did_you_mean

Extend = Literal["sample", "argmax", "beam"]
"""How rollouts get their tokens: drawn from p; the most probable; or jointly, the most probable paths."""


@dataclass(frozen=True)
class Method:
    """A search method.

    Attributes:
        title: one line for people.
        select: where rollouts start.
        extend: how they get their tokens.
        backup: how rewards become values.
        weigh: what a node's children stand for in the result.
        fresh: whether a rollout must open a child that is not in the tree yet.
    """

    title: str
    select: Select
    extend: Extend
    backup: Backup
    weigh: Weigh
    fresh: bool = False

    @property
    def branches(self) -> bool:
        """Whether rollouts start within the tree: a tree method."""
        return self.select is not at_root


METHODS = {
    "maxent-ts": Method(
        "maximum-entropy tree search: soft Bellman values, every rollout a new answer",
        unexplored,
        "sample",
        soft_prior,
        calibrated,
        fresh=True,
    ),
    "dts": Method("diffusion-style tree sampling: soft values", widened_boltzmann, "sample", soft_mean, counted),
    "dts*": Method("tree search by UCT on soft values", widened_uct, "sample", soft_mean, counted),
    "mcts": Method("Monte Carlo tree search: UCT on mean values", widened_uct, "sample", mean, counted),
    "beam": Method("beam search: the most probable paths", at_root, "beam", soft_prior, calibrated),
    "best-of-n": Method("independent samples, the best by reward", at_root, "sample", soft_mean, counted),
    "greedy": Method("the most probable token at every step", at_root, "argmax", soft_prior, calibrated),
}


def get(name: str) -> Method:
    """The method of that name.

    Raises:
        TSLMError: there is none (lists them).
    """
    if name not in METHODS:
        raise TSLMError(
            f"unknown search method {name!r}; choose from {', '.join(METHODS)}{did_you_mean(name, METHODS)}"
        )
    return METHODS[name]
