"""Which rows are trained on, validated on and tested on: whole recordings and persons, by answer, from a seed."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

SHARES = {"test": 0.15, "validation": 0.15, "train": 0.7}


def together(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """The group of each row: rows that share a key, by whatever way round, are in one.

    Args:
        keys: of each row, such as its recording and its person.
    """
    leader: dict[Hashable, Hashable] = {}

    def find(key: Hashable) -> Hashable:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for own in keys:
        for key in own[1:]:
            leader[find(key)] = find(own[0])
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(find(own[0]), len(numbers)) for own in keys]


def stratified(groups: Sequence[int], answers: Sequence[str], seed: int, shares: dict[str, float]) -> list[str]:
    """The split of each row: no group in two splits, each answer's rows shared out as `shares` says.

    The largest group goes first, each to the split that lacks most of its answers (Sechidis, Tsoumakas and
    Vlahavas, "On the stratification of multi-label data", 2011, with the group as what has several labels); ties
    are broken by the seed. Where there are as many groups as splits, no split is left empty.
    """
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for group, answer in zip(groups, answers, strict=True):
        members[group][answer] += 1
    total = Counter(answers)
    lack = {split: {answer: share * count for answer, count in total.items()} for split, share in shares.items()}
    for answer, count in total.items():  # one of each at least, where there are enough
        small = [split for split in shares if split != "train" and count >= len(shares)]
        for split in small:
            lack[split][answer] = max(1.0, lack[split][answer])
        lack["train"][answer] = count - sum(lack[split][answer] for split in shares if split != "train")
    rng = np.random.default_rng(seed)
    lot = {group: rng.random() for group in sorted(members)}
    chosen: dict[int, str] = {}
    order = sorted(members, key=lambda group: (-members[group].total(), lot[group]))
    for number, group in enumerate(order):
        empty = [split for split in shares if split not in chosen.values()]
        open_to = empty if len(order) - number <= len(empty) else list(shares)
        need = {
            split: sum(min(lack[split][one], count) / total[one] for one, count in members[group].items())
            for split in open_to
        }
        best = max(open_to, key=lambda split: (need[split], sum(lack[split].values()), shares[split]))
        chosen[group] = best
        for answer, count in members[group].items():
            lack[best][answer] -= count
    return [chosen[group] for group in groups]
