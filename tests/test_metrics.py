"""Metrics against hand-worked cases, the libraries, and each other."""

import builtins
import itertools
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation import metrics
from mlx_tslm.evaluation.metrics import Judged, published
from mlx_tslm.evaluation.metrics.classification import _groups, _kappa, _resampled_kappa
from mlx_tslm.evaluation.metrics.estimate import estimate, resampled
from mlx_tslm.evaluation.metrics.picture import confusion_svg
from mlx_tslm.interval import wilson

pytest.importorskip("sklearn")

SLEEP = ("Wake", "Non-REM stage 1", "Non-REM stage 2", "Non-REM stage 3", "REM sleep", "Movement")


def judged(stage: str, gold: str, answer: str | None, labels: tuple[str, ...], group: int | None = None) -> Judged:
    """A sample whose texts have the stage's own form."""
    before = "" if stage == "tsqa" else "Because. Answer: "
    text = "" if answer is None else before + answer
    return Judged(text, answer, before + gold, gold, labels, group)


ABC = ("(a)", "(b)", "(c)")


def test_empty_and_invented_answers_count_as_wrong_but_not_in_the_published_figures() -> None:
    samples = [judged("tsqa", "(a)", "(a)", ABC)] * 2 + [judged("tsqa", "(b)", "(b)", ABC)] * 2
    samples += [judged("tsqa", "(a)", None, ABC), judged("tsqa", "(b)", "(q)", ABC)]
    scores = metrics.classification_scores("tsqa", samples, resamples=20)
    assert scores["accuracy"].value == pytest.approx(4 / 6)
    assert scores["accuracy_published"].value == pytest.approx(5 / 6)  # the empty one
    assert scores["answered"].value == pytest.approx(4 / 6)
    # (a) and (b): precision 1, recall 2/3, F1 0.8. "other" is a class of its own, F1 0.
    assert scores["macro_f1"].value == pytest.approx(1.6 / 3)
    assert scores["macro_f1_published"].value == pytest.approx(0.8)


def test_published_average_has_labels_that_never_occur() -> None:
    har = ("biking", "lying", "running", "sitting")
    samples = [judged("har", label, label, har) for label in ("biking", "lying")]
    scores = metrics.classification_scores("har", samples, resamples=20)
    assert scores["macro_f1"].value == 1.0
    assert scores["macro_f1_published"].value == 0.5


@pytest.mark.parametrize(
    ("rules", "text", "read"),
    [
        ("tsqa", "(B) upward", "(b)"),
        ("tsqa", "", ""),
        ("har", "It moves. Answer: Walking.", "walking"),
        ("har", "so Answer: biking, Answer: lying<|end_of_text|>", "lying"),
        ("har", "Answer:walking", "answer:walking"),  # no blank, so the whole text is the answer
        ("sleep", "Answer: NREM stage 4.", "non-rem stage 3"),
        ("sleep", "Answer: Non-REM stage 2<eos>", "non-rem stage 2"),
        ("sleep", "Answer: non-REM sleep", "rem sleep"),
        ("sleep", "Answer: Awake", "wake"),
        ("sleep", "Answer: Movement time", "movement"),
        ("ecg", "Answer: Yes.", "yes"),
    ],
)
def test_published_reading(rules: str, text: str, read: str) -> None:
    assert published.read(rules, text) == read


def test_published_accuracy_of_har_minds_the_period() -> None:
    one = Judged("x Answer: walking.", "walking", "y Answer: walking", "walking", ("walking",))
    assert not published.correct("har", one)
    assert metrics.classification_scores("har", [one], resamples=5)["macro_f1_published"].value == 1.0


def test_groups_are_averaged_by_their_sizes() -> None:
    yes_no, leads = ("yes", "no"), ("lead I", "lead II")
    samples = [judged("ecg", g, a, yes_no, 1) for g, a in (("yes", "yes"), ("no", "no"), ("no", "no"))]
    samples.append(judged("ecg", "lead I", "lead II", leads, 7))
    scores = metrics.classification_scores("ecg", samples, resamples=20)
    assert scores["accuracy"].value == scores["macro_f1"].value == scores["macro_f1_published"].value == 0.75
    table = metrics.per_group("ecg", samples)
    assert table[1] == {"samples": 3, "accuracy": 1.0, "macro_f1": 1.0, "macro_f1_published": 1.0}
    assert table[7]["accuracy"] == table[7]["macro_f1"] == 0.0


def test_kappa_of_a_known_table() -> None:
    # 20 of 50 and 15 of 50 agree, Cohen's usual example: kappa = (0.7 − 0.5) / (1 − 0.5) = 0.4
    pairs = [("Wake", "Wake")] * 20 + [("Wake", "REM sleep")] * 5
    pairs += [("REM sleep", "Wake")] * 10 + [("REM sleep", "REM sleep")] * 15
    samples = [judged("sleep", gold, answer, SLEEP) for gold, answer in pairs]
    kappa = metrics.classification_scores("sleep", samples, kappa=True, resamples=200)["kappa"]
    assert kappa.value == pytest.approx(0.4)
    assert kappa.low < 0.4 < kappa.high


def some_samples(stage: str, seed: int, count: int) -> list[Judged]:
    rng = np.random.default_rng(seed)
    sets = [("yes", "no"), ("a", "b", "c")] if stage == "ecg" else [SLEEP[:4]]
    samples = []
    for _ in range(count):
        group = int(rng.integers(len(sets)))
        labels = sets[group]
        answer = rng.choice([*labels, "nonsense"]) if rng.random() < 0.5 else labels[0]
        samples.append(
            judged(stage, str(rng.choice(labels)), str(answer), labels, group if stage == "ecg" else None)
        )
    return samples


@settings(max_examples=20, deadline=None)
@given(stage=st.sampled_from(["sleep", "ecg"]), seed=st.integers(0, 999), count=st.integers(1, 30))
def test_intervals_resample_the_same_figures_that_scikit_learn_gives(stage: str, seed: int, count: int) -> None:
    """A resample in which every sample comes once is the data itself."""
    samples = some_samples(stage, seed, count)
    once, cell = np.ones((1, count), np.int64), np.arange(count)
    for rules, group in itertools.product((None, stage), (0, 1)):
        for one in _groups(rules, samples)[group : group + 1]:
            assert one.resampled_macro_f1(once, cell[one.at])[0] == pytest.approx(one.macro_f1())
    if stage == "sleep":
        (whole,) = _groups(None, samples)
        assert _resampled_kappa(once, whole.gold, whole.answer)[0] == pytest.approx(_kappa(whole))


@pytest.mark.parametrize("stage", ["tsqa", "sleep"])
def test_a_rare_class_does_not_lower_the_published_interval(stage: str) -> None:
    """Where all is right it is right in every resample, those without the rare class included."""
    rare, usual = ("(b)", "(a)") if stage == "tsqa" else ("Movement", "Wake")
    labels = ABC if stage == "tsqa" else SLEEP
    samples = [judged(stage, one, one, labels) for one in (rare, *[usual] * 9)]
    one = metrics.classification_scores(stage, samples, resamples=100)["macro_f1_published"]
    assert one == (1.0, 1.0, 1.0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99))
def test_intervals_hold_their_values_and_repeat(seed: int) -> None:
    samples = some_samples("ecg", seed, 60)
    scores = metrics.classification_scores("ecg", samples, resamples=100)
    assert scores == metrics.classification_scores("ecg", samples, resamples=100)
    for name, one in scores.items():
        if name != "macro_f1":  # which of the classes occur may shift a macro-F1's whole interval
            assert one.low - 1e-9 <= one.value <= one.high + 1e-9
    assert scores["macro_f1"] != metrics.classification_scores("ecg", samples, resamples=100, seed=1)["macro_f1"]


def test_interval_of_a_share_is_the_binomial_one() -> None:
    values = np.array([1.0, 0.0])
    low, high = estimate(0.3, lambda drawn: drawn @ values / 100, resampled([30, 70], 4000, 0))[1:]
    assert (low, high) == (
        pytest.approx(0.21, abs=0.011),
        pytest.approx(0.39, abs=0.011),
    )  # quantiles of B(100, 0.3)


def test_classes_and_confusion() -> None:
    samples = [judged("tsqa", g, a, ABC) for g, a in (("(a)", "(a)"), ("(a)", "(b)"), ("(b)", None))]
    names, counts = metrics.confusion(samples)
    assert names == ["(a)", "(b)", "(c)", "other"]
    assert counts.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    table = metrics.per_class(samples)
    assert table["(a)"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "samples": 2}
    assert table["other"]["samples"] == 0


def test_many_labels_are_folded() -> None:
    labels = tuple(f"label {i}" for i in range(40))
    samples = [judged("ecg", label, label, labels, 1) for label in labels] + [
        judged("ecg", "label 39", "label 0", labels, 1)
    ]
    names, counts = metrics.confusion(samples)
    assert len(names) == 21 and names[0] == "label 39" and names[-1] == "other"
    assert counts.sum() == 41


def test_picture() -> None:
    svg = confusion_svg(["a & b", "<c>", "other"], np.array([[3, 1, 0], [0, 12, 2], [0, 0, 0]]), "stage3, <greedy>")
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"3", "1", "12", "2", "a & b", "<c>"} <= set(texts) and texts.count("other") == 1
    width = float(root.get("width", 0))
    assert all(float(e.get("x", 0)) < width for e in root.iter("{http://www.w3.org/2000/svg}text"))


def test_captions() -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    reference = "The series rises steadily from start to end with little noise."
    perfect = Judged(reference, reference, reference, reference, nll=8.0, nll_tokens=10)
    scores = metrics.caption_scores([perfect] * 3, resamples=50)
    assert scores["bleu"].value == pytest.approx(100) and scores["rougeL"].value == pytest.approx(1)
    assert scores["bleu"].low == pytest.approx(100)
    assert scores["perplexity"].value == pytest.approx(np.exp(0.8))

    half = Judged("The series falls.", "", reference, reference, nll=30.0, nll_tokens=10)
    mixed = metrics.caption_scores([perfect, half] * 5, resamples=200)
    for name, one in mixed.items():
        assert one.low < one.value < one.high, name
    assert mixed["rouge1"].value == pytest.approx((1 + 2 * (2 / 3) * (2 / 11) / (2 / 3 + 2 / 11)) / 2)
    assert mixed["perplexity"].value == pytest.approx(np.exp(3.8 / 2))


def test_bleu_of_a_resample_is_the_corpus_score() -> None:
    """The whole corpus from its sentences' counts, as resamples are scored, is sacrebleu's own figure."""
    pytest.importorskip("rouge_score")
    words = ["the", "series", "rises", "and", "falls", "with", "a", "season", "of", "twelve"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size=12)) for _ in range(8)]
    samples = [Judged(a, a, b, b) for a, b in itertools.pairwise(texts)]
    one = metrics.caption_scores([samples[0]] * 5, resamples=10)["bleu"]
    assert one.low == pytest.approx(one.value) == pytest.approx(one.high)
    assert metrics.caption_scores(samples, resamples=10).keys() == {"bleu", "rouge1", "rouge2", "rougeL"}


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import_ = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return import_(name, *args, **kwargs)

    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TSLMError, match=r"sacrebleu.*mlx-tslm\[eval\]"):
        metrics.require("sklearn", "sacrebleu")


@pytest.mark.parametrize(
    ("hits", "number", "expected"),
    [
        (3, 3, (0.43849, 1.0)),
        (0, 3, (0.0, 0.56151)),
        (1, 2, (0.09453, 0.90547)),
        (8, 10, (0.49016, 0.94331)),  # R: prop.test(8, 10, correct = FALSE)
    ],
)
def test_a_share_s_interval_has_a_width_at_both_ends(hits: int, number: int, expected: tuple[float, float]) -> None:
    assert wilson(hits / number, number) == pytest.approx(expected, abs=1e-4)
    samples = [judged("stage1", "(a)", "(a)" if at < hits else "(b)", ABC) for at in range(number)]
    scores = metrics.classification_scores("stage1", samples, resamples=20)
    for name in ("accuracy", "accuracy_published"):
        assert scores[name][1:] == pytest.approx(expected, abs=1e-4)
    assert scores["answered"].low == pytest.approx(wilson(1, number)[0])


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.1, 1e6))
def test_a_share_s_interval_holds_it(share: float, number: float) -> None:
    low, high = wilson(share, number)
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0
    assert wilson(1 - share, number) == pytest.approx((1 - high, 1 - low), abs=1e-9)
