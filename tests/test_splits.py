"""The splits are the published ones, sample for sample.

The golden values come from `datasets` 5.2.0 and scikit-learn 1.9.1 on NumPy 2.4.6, called as OpenTSLM (commit
2968f4b) calls them: two `train_test_split` each, the second on what the first left. Long lists are kept as the
head of the SHA-256 of their numbers joined by commas.
"""

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm.data.published.splits import random_splits, stratified_splits
from mlx_tslm.errors import TSLMError

STAGES = ("Wake", "Non-REM stage 1", "Non-REM stage 2", "Non-REM stage 3", "REM sleep")


def head(rows: np.ndarray) -> str:
    return sha256(",".join(map(str, rows.tolist())).encode()).hexdigest()[:16]


def sleep_labels(count: int) -> list[str]:
    """Labels of unequal shares, one of them rare."""
    cycle = [name for name, odds in zip(STAGES, (5, 2, 9, 3, 4), strict=True) for _ in range(odds)]
    labels = [cycle[(i * i + 7 * i) % len(cycle)] for i in range(count)]
    labels[3 :: max(1, count // 13)] = ["Movement"] * len(labels[3 :: max(1, count // 13)])
    return labels


def test_random_splits_are_those_of_datasets() -> None:
    assert {name: rows.tolist() for name, rows in random_splits(23, (42, 42)).items()} == {
        "train": [0, 14, 5, 3, 8, 7, 22, 20, 9, 11, 13, 15, 6, 1, 16, 21, 19],
        "validation": [4, 12, 2],
        "test": [18, 10, 17],
    }
    assert {name: rows.tolist() for name, rows in random_splits(31, (42, 43)).items()} == {
        "train": [15, 20, 11, 8, 0, 18, 5, 2, 9, 12, 19, 13, 3, 1, 28, 6, 17, 21, 27, 29, 24, 4, 25, 22],
        "validation": [14, 23, 10],
        "test": [30, 16, 7, 26],
    }


@pytest.mark.parametrize(
    ("count", "seeds", "sizes", "heads"),
    [  # the sizes of TSQA and of M4
        (48000, (42, 42), (38400, 4800, 4800), ("5b2fd79792a28129", "3ba692c87d96ef73", "0c5882d13e39c82e")),
        (100000, (42, 43), (80000, 10000, 10000), ("700e76684eea3e43", "c1cb7719fd779d84", "433722cd59e12e3b")),
    ],
)
def test_random_splits_of_published_size(
    count: int, seeds: tuple[int, int], sizes: tuple[int, ...], heads: tuple[str, ...]
) -> None:
    splits = random_splits(count, seeds).values()
    assert tuple(map(len, splits)) == sizes
    assert tuple(map(head, splits)) == heads


def test_stratified_splits_are_those_of_scikit_learn() -> None:
    splits = stratified_splits(["abc"[i % 3] for i in range(45)], (42, 43))
    assert splits["validation"].tolist() == [33, 43, 7, 0, 26]
    assert splits["test"].tolist() == [32, 13, 4, 36, 44]
    assert splits["train"].tolist()[:12] == [20, 15, 39, 40, 25, 5, 11, 31, 28, 16, 19, 41]


@pytest.mark.parametrize(
    ("labels", "heads"),
    [
        (sleep_labels(1999), ("c6af5b51dcfcf8cb", "fb247c3469686758", "746c2a0bf6717ec4")),
        (sleep_labels(34567), ("e0fb8f7a27bea92f", "78388e3eeadfed7c", "3b3104ca19b02055")),
        # equal classes: who gets the odd rows is drawn by lot
        ([f"label {i % 6}" for i in range(20003)], ("1534e077dd7d8d6e", "55970fd747c431bd", "95ca5e7ea4e0ec05")),
    ],
    ids=["small", "large", "ties"],
)
def test_stratified_splits_of_many_rows(labels: list[str], heads: tuple[str, ...]) -> None:
    assert tuple(map(head, stratified_splits(labels, (42, 43)).values())) == heads


@given(st.integers(20, 400), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_splits_are_a_partition(count: int, seed: int, stratified: bool) -> None:
    labels = [("a", "a", "b")[i % 3] for i in range(count)]
    splits = stratified_splits(labels, (seed, 1)) if stratified else random_splits(count, (seed, 1))
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(count))
    assert len(splits["test"]) == -(-count // 10)


def test_too_few_rows_to_stratify() -> None:
    with pytest.raises(TSLMError, match="too few to split by label"):
        stratified_splits(["a"] * 50 + ["b"], (42, 43))
