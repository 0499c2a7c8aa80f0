"""Accuracy, macro-F1 and Cohen's kappa of labelled answers.

Point figures are scikit-learn's. Shares have the score interval; the other intervals resample the cells of the
confusion matrices, which is the same as resampling the samples, all resamples at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.evaluation.metrics import published
from mlx_tslm.evaluation.metrics.estimate import Estimate, estimate, require, resampled
from mlx_tslm.evaluation.metrics.judged import Judged
from mlx_tslm.interval import wilson

OTHER = "other"
"""The class of answers that are missing, or outside the labels."""

_MOST_LABELS = 20  # in a confusion matrix


@dataclass(frozen=True)
class _Group:
    """Samples that one macro-F1 is taken over.

    Attributes:
        at: int64 `[n]`, which samples.
        gold, answer: int64 `[n]`, classes; `len(classes)` stands for `OTHER`.
        classes: the classes averaged over.
        listed_only: average over `classes` and nothing else, else over what occurs, `OTHER` included.
        absent: where `listed_only`, whether classes that no sample has count too, with F1 = 0.
    """

    at: NDArray[np.int64]
    gold: NDArray[np.int64]
    answer: NDArray[np.int64]
    classes: Sequence[str]
    listed_only: bool
    absent: bool

    def macro_f1(self) -> float:
        from sklearn.metrics import f1_score

        labels = list(range(len(self.classes))) if self.listed_only else None
        known = self.gold < len(self.classes)  # the published evaluation leaves unknown references out
        if not known.any():
            return 0.0
        gold, answer = self.gold[known], self.answer[known]
        return float(f1_score(gold, answer, labels=labels, average="macro", zero_division=0))

    def resampled_macro_f1(self, weights: NDArray[np.int64], cell: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same for each of the resamples `weights` `[B, C]`; `cell` `[n]` is where samples are counted."""
        cells, first = np.unique(cell, return_index=True)
        size = len(self.classes) + 1
        counts = np.zeros((len(weights), size, size))
        for column, sample in zip(cells, first, strict=True):
            counts[:, self.gold[sample], self.answer[sample]] += weights[:, column]
        counts[:, -1] = 0
        hits = np.diagonal(counts, axis1=1, axis2=2)
        either = counts.sum(1) + counts.sum(2)
        f1 = 2 * hits / np.maximum(either, 1)
        if self.listed_only:
            taken = (counts.sum(axis=2) > 0)[:, :-1] | self.absent
            return (f1[:, :-1] * taken).sum(axis=1) / np.maximum(taken.sum(axis=1), 1)
        return f1.sum(axis=1) / np.maximum((either > 0).sum(axis=1), 1)


def classification_scores(
    rules: str | None, judged: Sequence[Judged], kappa: bool = False, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """The metrics of labelled answers.

    Args:
        rules: of the published evaluation, see `published`; None leaves its figures out.
        kappa: whether Cohen's kappa is wanted too.
        judged: at least one sample.
        resamples, seed: of the bootstrap.

    Returns:
        `accuracy`, `accuracy_published`, `macro_f1`, `macro_f1_published` and `answered`, the share of samples
        whose answer is one of the labels; where it is wanted `kappa`. All 0 … 1 but kappa, −1 … 1. Where samples
        have groups, macro-F1 is taken over each and averaged by the groups' sizes.

    Raises:
        TSLMError: scikit-learn is not installed.
    """
    require("sklearn")
    sound = _groups(None, judged)
    as_published = _groups(rules, judged) if rules else sound
    right = np.array([one.answer == one.gold for one in judged])
    right_published = np.array([published.correct(rules, one) for one in judged]) if rules else right
    answered = np.array([one.answer in (one.labels or ()) for one in judged])

    # Samples that are alike in all that is counted are one cell.
    columns = [right, right_published, answered]
    for groups in (sound, as_published):
        spread = np.zeros((3, len(judged)), np.int64)
        for number, group in enumerate(groups):
            spread[:, group.at] = np.full(len(group.at), number), group.gold, group.answer
        columns += list(spread)
    _, first, cell, counts = np.unique(
        np.stack(columns).astype(np.int64), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    weights = resampled(counts, resamples, seed)

    def share(values: NDArray[np.bool_]) -> Estimate:
        return Estimate(float(values.mean()), *wilson(float(values.mean()), len(judged)))

    def macro_f1(groups: Sequence[_Group]) -> Estimate:
        def average(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
            cells = [cell[group.at] for group in groups]
            sizes = np.stack([drawn[:, np.unique(own)].sum(axis=1) for own in cells])
            each = [group.resampled_macro_f1(drawn, own) for group, own in zip(groups, cells, strict=True)]
            return (sizes * np.stack(each)).sum(axis=0) / len(judged)

        value = sum(len(group.at) * group.macro_f1() for group in groups) / len(judged)
        return estimate(value, average, weights)

    scores = {
        "accuracy": share(right),
        **({"accuracy_published": share(right_published)} if rules else {}),
        "macro_f1": macro_f1(sound),
        **({"macro_f1_published": macro_f1(as_published)} if rules else {}),
        "answered": share(answered),
    }
    if kappa:
        (whole,) = sound
        scores["kappa"] = estimate(
            _kappa(whole), lambda drawn: _resampled_kappa(drawn, whole.gold[first], whole.answer[first]), weights
        )
    return scores


def per_group(rules: str | None, judged: Sequence[Judged]) -> dict[int, dict[str, float]]:
    """For each group (ECG-QA template): `samples`, `accuracy`, `macro_f1` and, with rules, `macro_f1_published`."""
    require("sklearn")
    table = {}
    sound = _groups(None, judged)
    for own, other in zip(sound, _groups(rules, judged) if rules else sound, strict=True):
        members = [judged[at] for at in own.at]
        table[members[0].group or 0] = {
            "samples": len(members),
            "accuracy": sum(one.answer == one.gold for one in members) / len(members),
            "macro_f1": own.macro_f1(),
            **({"macro_f1_published": other.macro_f1()} if rules else {}),
        }
    return table


def per_class(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """For each label, and `OTHER` where it occurs: `precision`, `recall`, `f1` and `samples`."""
    require("sklearn")
    from sklearn.metrics import precision_recall_fscore_support

    gold, answers = [one.gold for one in judged], [_within(one) for one in judged]
    names = sorted({*gold, *answers} - {OTHER}) + [OTHER] * (OTHER in answers)
    columns = precision_recall_fscore_support(gold, answers, labels=names, zero_division=0)
    table = np.stack(columns).T.tolist()
    return {
        name: {"precision": row[0], "recall": row[1], "f1": row[2], "samples": int(row[3])}
        for name, row in zip(names, table, strict=True)
    }


def confusion(judged: Sequence[Judged]) -> tuple[list[str], NDArray[np.int64]]:
    """Classes and how often each answer was given for each: int64 `[gold, answer]`.

    The last class is `OTHER`. Of more than 20 labels the rarer ones are counted there too.
    """
    require("sklearn")
    from sklearn.metrics import confusion_matrix

    names = list(dict.fromkeys(label for one in judged for label in one.labels or ()))
    gold, answers = [one.gold for one in judged], [_within(one) for one in judged]
    if len(names) > _MOST_LABELS:
        names = sorted(set(gold), key=lambda name: (-gold.count(name), name))[:_MOST_LABELS]
    kept = set(names)
    folded = [[name if name in kept else OTHER for name in side] for side in (gold, answers)]
    return [*names, OTHER], confusion_matrix(*folded, labels=[*names, OTHER])


def _groups(rules: str | None, judged: Sequence[Judged]) -> list[_Group]:
    """What macro-F1 is taken over, read by the published rules where they are given."""
    members: dict[int | None, list[int]] = {}
    for at, one in enumerate(judged):
        members.setdefault(one.group, []).append(at)
    groups = []
    for ats in members.values():
        own = [judged[at] for at in ats]
        if rules:
            classes = published.classes(rules, own)
            gold = [published.read(rules, one.reference) for one in own]
            answers = [published.read(rules, one.text) for one in own]
        else:
            classes = list(dict.fromkeys(label for one in own for label in one.labels or ()))
            gold, answers = [one.gold for one in own], [_within(one) for one in own]
        number = {name: at for at, name in enumerate(classes)}
        gold_codes, answer_codes = (
            np.array([number.get(name, len(classes)) for name in side]) for side in (gold, answers)
        )
        absent = rules not in published.OCCURRING
        groups.append(_Group(np.array(ats), gold_codes, answer_codes, classes, bool(rules), absent))
    return groups


def _within(one: Judged) -> str:
    return one.answer if one.answer is not None and one.answer in (one.labels or ()) else OTHER


def _kappa(group: _Group) -> float:
    from sklearn.metrics import cohen_kappa_score

    if len({*group.gold.tolist(), *group.answer.tolist()}) == 1:
        return 1.0  # all the same, and right: sklearn divides 0 by 0
    return float(cohen_kappa_score(group.gold, group.answer))


def _resampled_kappa(
    weights: NDArray[np.int64], gold: NDArray[np.int64], answer: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cohen's kappa, (observed − expected agreement) / (1 − expected), of each resample `[B, C]`."""
    size = max(gold.max(), answer.max()) + 1
    total = weights.sum(axis=1)
    of_gold, of_answer = (weights @ np.eye(size)[side] / total[:, None] for side in (gold, answer))
    observed = weights @ (gold == answer) / total
    expected = (of_gold * of_answer).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), 1.0)
