"""One answer: what completions are counted as, which answer is shown, and how sure it is said to be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import TSLMError, stages
from mlx_tslm.cli import main
from mlx_tslm.completion import Completion
from mlx_tslm.search import SearchConfig, SearchResult
from mlx_tslm.search.answers import effective_number, said
from mlx_tslm.search.result import ScoredCompletion, SearchStats
from mlx_tslm.search.tree import ROOT, Tree
from mlx_tslm.stages.base import Question

STATS = SearchStats(4, 4, 1, 5, 1, 1.0, 3, 4, 5, {"total": 1.0}, 0)


def question(key: str | None, labels: Any = None) -> Question:
    return Question(stage=stages.get(key) if key else None, labels=labels)


def completed(text: str, asked: Question, finished: bool = True) -> Completion:
    return Completion(text, (1,), -1.0, asked.parse(text), finished)


def result(*found: tuple[str, float, float], asked: Question | None = None, **more: Any) -> SearchResult:
    """A result of these texts, with their weights and rewards; each its own rationale."""
    asked = asked or question("ecg")
    tree, completions = Tree(), []
    for token, (text, weight, reward) in enumerate(found):
        root, true = np.array([ROOT], np.int32), np.array([True])
        node = int(tree.add(root, np.array([token], np.int32), np.array([-1.0]), true, true)[0])
        one = completed(text, asked)
        completions.append(
            ScoredCompletion(
                **vars(one), weight=weight, reward=reward, node=node, rationale=node, said=said(one, asked)
            )
        )
    tree.visits[:] = 1
    return SearchResult(completions, 0.0, tree, STATS, SearchConfig(method="best-of-n"), **more)


# --- what a completion answers


@pytest.mark.parametrize(
    "text",
    [
        "Answer: **walking**",
        "ANSWER: walking",
        "Answer: walking!",
        'Answer: "Walking".',
        "answer: `walking`\nAnd so on.",
        "It moves. Answer: walking\nAnswer:",
        "Answer: walking\n\nAnswer: **",
        "Answer: _walking_,",
        "Answer:\nwalking",
    ],
)
def test_final_answers_are_compared_folded(text: str) -> None:
    asked = question("har", stages.get("har").labels)
    assert said(completed(text, asked), asked) == ("walking",)
    free = question("ecg")  # where the answers are free, they are one group
    assert len(result((text, 0.5, 1.0), ("Answer: walking", 0.5, 0.5), asked=free).answers) == 1


@pytest.mark.parametrize("text", ["Answer: swimming", "It moves.", "Answer: ", "", "Answer: walking or running"])
def test_what_is_not_allowed_is_no_answer(text: str) -> None:
    asked = question("har", stages.get("har").labels)
    assert said(completed(text, asked), asked) is None


def test_an_answer_that_was_cut_off_is_none_but_a_caption_says_what_it_says() -> None:
    free, caption = question("ecg"), question("m4")
    assert said(completed("Answer: sinus", free, finished=False), free) is None
    assert said(completed("Answer: sinus", free), free) == ("sinus",)
    told = said(completed("The trend is upward. The noise", caption, finished=False), caption)
    assert told == ("trend up", "season not stated", "noise not stated")


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        (
            "It rises steadily. A pattern repeats every 12 samples, and its swings grow. There is little noise.",
            ("trend up", "period 12 samples", "noise low"),
        ),
        ("No trend. No season. The noise is high.", ("trend flat", "no season", "noise high")),
        ("It climbs to a peak and then falls.", ("turn peak", "season not stated", "noise not stated")),
        ("A pattern repeats.", ("trend not stated", "season", "noise not stated")),
        ("of their.580 samples", None),
        ("", None),
    ],
)
def test_a_caption_answers_with_its_claims(text: str, claims: tuple[str, ...] | None) -> None:
    asked = question("m4")
    assert said(completed(text, asked), asked) == claims


# --- which answer is shown


def test_the_answer_is_the_one_with_the_most_weight_and_its_best_text() -> None:
    found = result(
        ("Junk that pays. Answer: maybe", 0.02, 1.0),
        ("Long. Answer: yes", 0.4, 0.7),
        ("Short. Answer: Yes!", 0.2, 0.9),
        ("Answer: no", 0.3, 0.95),
        ("cut", 0.08, 0.2),
    )
    assert (found.answer, found.headline, found.best.text) == ("Yes", "Yes", "Short. Answer: Yes!")
    assert found.weight == found.confidence == pytest.approx(0.6)
    assert found.answers == pytest.approx({"Yes": 0.6, "no": 0.3, "maybe": 0.02})
    assert found.unanswered == pytest.approx(0.08)


def test_among_equal_rewards_the_most_probable_text_is_shown() -> None:
    found = result(("One. Answer: yes", 0.5, 0.7), ("Two. Answer: yes", 0.5, 0.7))
    likely = [replace(one, logprob=-float(at)) for at, one in enumerate(found.completions)]
    assert replace(found, completions=likely).best.text == "One. Answer: yes"
    assert replace(found, completions=likely[::-1]).best.text == "One. Answer: yes"


def test_claims_of_a_caption_have_shares_of_their_own() -> None:
    found = result(
        ("It rises. A season of 12 samples. The noise is low.", 0.5, 0.9),
        ("It rises. A season of 6 samples. The noise is low.", 0.3, 0.9),
        ("It falls. A season of 12 samples. The noise is low.", 0.2, 0.9),
        asked=question("m4"),
    )
    assert found.answer == "trend up, period 12 samples, noise low"
    claims = {"trend up": 0.8, "period 12 samples": 0.7, "noise low": 1.0}
    assert found.ranked[0].claims == pytest.approx(claims)
    assert found.ranked[1].claims["trend up"] == pytest.approx(0.8)
    assert found.summary()["answers"][0]["claims"] == pytest.approx(claims)


def test_without_a_third_of_the_weight_there_is_no_clear_answer() -> None:
    found = result(("Answer: a", 0.3, 1.0), ("Answer: b", 0.32, 0.5), ("Answer: c", 0.3, 0.1), ("none", 0.08, 0.0))
    assert (found.answer, found.headline) == (None, "no clear answer")
    assert (found.best.text, found.weight, next(iter(found.answers))) == ("Answer: b", 0.32, "b")
    thirds = result(*((f"Answer: {one}", 1 / 3, 0.5) for one in "abc"))
    assert thirds.answer == "a"
    nothing = result(("Nothing", 0.6, 0.1), ("No", 0.4, 0.3))
    assert (nothing.answer, nothing.best.text, nothing.weight, nothing.confidence) == (None, "No", 0.0, 0.0)
    assert (nothing.answers, nothing.unanswered) == ({}, 1.0)
    json.dumps(nothing.to_dict(), allow_nan=False)


# --- how sure it is


def test_four_rationales_that_agree_are_not_certainty() -> None:
    found = result(*((f"{n}. Answer: yes", 0.25, 0.5) for n in range(4)))
    assert (found.confidence, found.effective_rationales) == (1.0, pytest.approx(4))
    assert found.interval == (pytest.approx(0.510, abs=1e-3), 1.0)  # Wilson (1927) for 4 of 4
    one = result(("Answer: yes", 1.0, 0.5))
    assert one.interval[0] < 0.25 and one.interval[1] == 1
    exact = replace(one, exhausted=True)
    assert exact.interval == (1.0, 1.0)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_effective_number_lies_between_one_and_all(weights: list[float]) -> None:
    total = sum(weights)
    found = result(*((f"{n}. Answer: yes", weight / total, 0.5) for n, weight in enumerate(weights)))
    assert 1 - 1e-9 <= found.effective_rationales <= len(weights) + 1e-9
    low, high = found.interval
    assert 0 <= low <= found.confidence <= high <= 1
    assert high - low > 0


def test_labels_behind_one_rationale_are_one_rationale() -> None:
    found = result(("A. Answer: yes", 0.3, 0.5), ("A. Answer: no", 0.2, 0.5), ("B. Answer: no", 0.5, 0.5))
    tree = found.tree
    tree.closed[1] = True
    together = [replace(one, rationale=1 if one.text[0] == "A" else 3) for one in found.completions]
    assert effective_number(together, tree) == pytest.approx(2)
    tree.visits[1] = 3  # three rollouts came to it
    assert effective_number(together, tree) == pytest.approx(1 / (0.25 / 3 + 0.25))


# --- kept in files


def test_a_result_of_the_second_format_is_weighed_anew(tmp_path: Path) -> None:
    found = result(("A. Answer: yes", 0.6, 0.9), ("Answer: Yes", 0.2, 0.5), ("cut", 0.2, 0.1))
    old = found.to_dict() | {"format": 2}
    old["best"], old["answers"] = vars(found.best) | {"logprobs": None, "entropies": None}, found.answers
    for name in ("answer", "headline", "weight", "confidence", "interval", "effective_rationales"):
        del old[name]
    tree = found.tree
    for one in old["completions"]:
        del one["said"]
        tree.reward[one["node"]] = tree.value[one["node"]] = one["reward"]
    old["tree"] = tree.to_dict()
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = SearchResult.load(tmp_path / "old.json")
    assert (read.answer, len(read.answers)) == ("yes", 1)
    shares = np.exp([0.9, 0.5, 0.1]) / np.exp([0.9, 0.5, 0.1]).sum()
    assert [one.weight for one in read.completions] == pytest.approx(shares.tolist())
    assert "earlier version" in read.notes[-1]
    read.save(tmp_path / "new.json")
    again = SearchResult.load(tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text())["format"] == 3
    assert again.to_dict() == read.to_dict()
    (tmp_path / "later.json").write_text(json.dumps(old | {"format": 4}))
    with pytest.raises(TSLMError, match="format 4"):
        SearchResult.load(tmp_path / "later.json")


# --- through the front door


@pytest.mark.parametrize("method", ["maxent-ts", "best-of-n"])
def test_terminal_page_and_json_have_one_headline(
    demo_folder: Path, airline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    files = {"--json": tmp_path / "found.json", "--html": tmp_path / "page.html"}
    asked = ["search", "--model", str(demo_folder), "--series", str(airline), "--method", method]
    asked += ["--stage", "stage1", "--question", "What is it? (a) no trend (b) an upward trend"]
    asked += ["--num-rollouts", "4", "--max-tokens", "12", *(str(one) for pair in files.items() for one in pair)]
    assert main(asked) == 0
    found = json.loads(files["--json"].read_text())
    out = " ".join(capsys.readouterr().out.split())
    page = files["--html"].read_text("utf-8")
    read = SearchResult.load(files["--json"])
    assert (found["answer"], found["weight"], found["confidence"]) == (read.answer, read.weight, read.confidence)
    words = {"(a)": "(a) no trend", "(b)": "(b) an upward trend"}.get(found["answer"], "no clear answer")
    assert f"│ {words} │" in out
    assert f'"headline":{json.dumps(words)}' in page
    low, high = found["interval"]
    assert 0 <= low <= found["confidence"] <= high <= 1
    assert sum(one["weight"] for one in found["answers"]) + found["no_allowed_answer"] == pytest.approx(1)
    assert {one["answer"] for one in found["answers"]} <= {"(a)", "(b)"}
