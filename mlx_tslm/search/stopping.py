"""When a search may stop early: once no rollout that is left could change the headline."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlx_tslm.search.answers import CLEAR
from mlx_tslm.search.tree import Tree
from mlx_tslm.stages.answers import folded

if TYPE_CHECKING:
    from mlx_tslm.search.result import ScoredCompletion


def settled(
    completions: "Sequence[ScoredCompletion]", tree: Tree, left: int, inverse_temperature: float, highest: float
) -> bool:
    """Whether the answer stays even if every rollout that is left supports the runner-up with the highest reward.

    A rollout that is left stands for as much as the most that one stands for which has been found. Of independent
    rollouts each stands for the same, so that this is exact; in a tree it is an estimate.

    Args:
        completions: what was found, with weights that sum to 1.
        tree: where it lies.
        left: how many rollouts are left.
        inverse_temperature: λ.
        highest: the most that the reward can be; infinite where that is not known, and nothing is settled then.
    """
    if not math.isfinite(highest):
        return False
    groups: dict[tuple[str, ...], float] = defaultdict(float)
    weights: dict[tuple[int, int], float] = defaultdict(float)
    worth: dict[tuple[int, int], float] = defaultdict(float)  # exp(λ V̂), where the highest reward's is 1
    for place, one in enumerate(completions):
        if one.said is not None:
            groups[tuple(map(folded, one.said))] += one.weight
        closed = bool(tree.closed[one.rationale])
        rationale = one.rationale, -1 if closed else place  # of what was drawn each is a rollout of its own
        share = math.exp(min(0.0, float(tree.logprob[one.node] - tree.logprob[one.rationale]))) if closed else 1.0
        weights[rationale] += one.weight
        worth[rationale] += share * math.exp(min(0.0, inverse_temperature * (one.reward - highest)))
    if not groups or any(worth[rationale] <= 0.0 for rationale in weights):
        return False
    stands_for = [
        weight / worth[rationale] / (max(1, int(tree.visits[rationale[0]])) if rationale[1] < 0 else 1)
        for rationale, weight in weights.items()
    ]
    more = left * max(stands_for)
    first, second = sorted([*groups.values(), 0.0], reverse=True)[:2]
    return first > second + more and first >= CLEAR * (1 + more)
