"""The published splits, sample for sample, without the libraries that made them.

The original divides TSQA and M4 with `datasets.Dataset.train_test_split` and Sleep with scikit-learn's
`train_test_split(stratify=...)`. Both come down to NumPy's seeded permutations, whose streams NumPy keeps
unchanged; the tests hold index lists that the two libraries gave.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError

Indices = NDArray[np.int64]

_TEST = 0.1
_VALIDATION = 0.1 / (1 - _TEST)  # of what the test split leaves


def random_splits(count: int, seeds: tuple[int, int]) -> dict[str, Indices]:
    """Test 10 %, then validation 10 % of the whole, each drawn with its own seed.

    Returns:
        train, validation and test: row numbers in the order of the published split.
    """
    rest, test = _shuffle_split(count, _TEST, seeds[0])
    train, validation = _shuffle_split(len(rest), _VALIDATION, seeds[1])
    return {"train": rest[train], "validation": rest[validation], "test": test}


def stratified_splits(labels: Sequence[str], seeds: tuple[int, int]) -> dict[str, Indices]:
    """As `random_splits`, with each label's share kept in every split.

    Raises:
        TSLMError: a label occurs too seldom to be in every split.
    """
    classes = np.asarray(labels)
    rest, test = _stratified_split(classes, _TEST, seeds[0])
    train, validation = _stratified_split(classes[rest], _VALIDATION, seeds[1])
    return {"train": rest[train], "validation": rest[validation], "test": test}


def _shuffle_split(count: int, test_size: float, seed: int) -> tuple[Indices, Indices]:
    """`datasets.Dataset.train_test_split(test_size, seed=seed)`: the head of one permutation is the test split."""
    test = ceil(test_size * count)
    order = np.random.default_rng(seed).permutation(count)
    return order[test:], order[:test]


def _stratified_split(labels: NDArray[np.str_], test_size: float, seed: int) -> tuple[Indices, Indices]:
    """scikit-learn's `train_test_split(test_size=test_size, random_state=seed, stratify=labels)`."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    test = ceil(test_size * len(labels))
    train = len(labels) - test
    if counts.min() < 2 or min(test, train) < len(counts):
        raise TSLMError(
            f"{len(labels)} rows with {len(counts)} labels are too few to split by label; is the file whole?"
        )
    random = np.random.RandomState(seed)  # the legacy stream is what scikit-learn draws from
    in_train = _apportion(counts, train, random)
    in_test = _apportion(counts - in_train, test, random)
    splits: tuple[list[Indices], list[Indices]] = ([], [])
    for code, (n_train, n_test) in enumerate(zip(in_train, in_test, strict=True)):
        rows = np.flatnonzero(codes == code)[random.permutation(counts[code])]
        splits[0].append(rows[:n_train])
        splits[1].append(rows[n_train : n_train + n_test])
    return random.permutation(np.concatenate(splits[0])), random.permutation(np.concatenate(splits[1]))


def _apportion(counts: Indices, total: int, random: np.random.RandomState) -> Indices:
    """Share `total` out in proportion to `counts`, the largest remainders first, ties by lot."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    left = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if left == 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        chosen = random.choice(tied, size=min(len(tied), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    return shares.astype(np.int64)
