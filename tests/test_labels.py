"""Label completion: every allowed answer behind a rationale, exact where all can be listed, right or refused."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sampling import reference_log_p
from test_search import PROMPT, small_model

from mlx_tslm import TSLMError, tree_search
from mlx_tslm.cli import main
from mlx_tslm.completion import Completion
from mlx_tslm.models import branch
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import TreeDecoder
from mlx_tslm.search import METHODS, SearchConfig, SearchError, SearchResult, memory
from mlx_tslm.search.labels import Trie
from mlx_tslm.search.tree import NO_TOKEN, ROOT

EOS, MARKER, LONGEST = 0, 3, 6
PIECES = {EOS: "", 1: "a", 2: "b", MARKER: ":"}
Path_ = tuple[int, ...]


class Characters:
    """A tokenizer of pieces of text; the longest that fits is taken, and what fits none is left out."""

    bos_token_id, all_special_ids, eos_token_id = None, (EOS,), EOS

    def __init__(self, pieces: dict[int, str] = PIECES) -> None:
        self.pieces = pieces

    def encode(self, text: str) -> list[int]:
        tokens = []
        while text:
            fitting = {piece: token for token, piece in self.pieces.items() if piece and text.startswith(piece)}
            piece = max(fitting, key=len, default=text[0])
            tokens += [fitting[piece]] if piece in fitting else []
            text = text[len(piece) :]
        return tokens

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(self.pieces[token] for token in tokens)


def stage(marker: str | None = ":") -> Any:
    def parse(text: str, labels: Any = None) -> str | None:
        *before, answer = text.split(":")
        return answer.strip() or None if before or marker is None else None

    return SimpleNamespace(name="toy", marker=marker, topics=(), parse=parse, rate=None)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SoftPromptModel:
    model = small_model()
    monkeypatch.setattr(model, "tokenizer", Characters())
    return model


LABELS = ("a", "b", "ab", "bba")  # beginnings of each other
SEQUENCES = {"a": (1,), "b": (2,), "ab": (1, 2), "bba": (2, 2, 1)}


def reward_of(text: str) -> float:
    return float(np.random.default_rng([7, *text.encode()]).random())


def reward(completions: list[Completion]) -> list[float]:
    return [reward_of(one.text) for one in completions]


def run(model: SoftPromptModel, labels: Any = LABELS, of: Any = None, **options: Any) -> SearchResult:
    question = dataclasses.replace(PROMPT, stage=of or stage(), labels=labels)
    options = {"max_tokens": LONGEST, "num_rollouts": 500, "top_p": 1.0, "reward": reward, **options}
    return tree_search(model, question, **options)


def listed(model: SoftPromptModel, **sampling: Any) -> dict[Path_, float]:
    """log p of every way to end: (rationale, label, end), (rationale,) for what follows it else, or cut off."""
    uncut = {name: value for name, value in sampling.items() if name == "temperature"}
    found: dict[Path_, float] = {}

    def after(path: Path_, **options: Any) -> Any:
        return reference_log_p(np.array(model.score(PROMPT, path))[-1], **options)

    def walk(path: Path_, logprob: float) -> None:
        log_p = after(path, **sampling)
        for token in np.flatnonzero(np.isfinite(log_p)).tolist():
            longer, total = (*path, token), logprob + log_p[token]
            if token == MARKER and len(longer) + 4 <= LONGEST:
                left = 1.0
                for label in SEQUENCES.values():
                    of_label, at = 0.0, longer
                    for each in (*label, EOS):
                        of_label += after(at, **uncut)[each]
                        at = (*at, each)
                    found[at] = total + of_label
                    left -= math.exp(of_label)
                found[longer] = total + math.log(left)
            elif token in (EOS, MARKER) or len(longer) == LONGEST:
                found[longer] = total
            else:
                walk(longer, total)

    walk((), 0.0)
    return found


# --- exactness


@pytest.mark.parametrize("lam", [1.0, 10.0])
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.7}, {"top_p": 0.95, "temperature": 1.5}, {"top_p": 0.9}], ids=str
)
@pytest.mark.parametrize("width", [1, 16])
def test_it_is_exact_when_every_rationale_is_known(
    model: SoftPromptModel, lam: float, sampling: dict[str, Any], width: int
) -> None:
    logprobs = listed(model, **sampling)
    result = run(model, inverse_temperature=lam, width=width, **sampling)
    text = model.tokenizer.decode
    total = math.log(sum(math.exp(log_p + lam * reward_of(text(path))) for path, log_p in logprobs.items()))
    assert sum(map(math.exp, logprobs.values())) == pytest.approx(1, abs=1e-5)
    assert result.exhausted
    assert {one.tokens for one in result.completions} == set(logprobs)
    if width == 1:  # side by side, rollouts without a marker may meet
        assert len(result.completions) == len(logprobs)
    times = Counter(one.tokens for one in result.completions)
    assert result.root_value == pytest.approx(total / lam, abs=1e-5)
    for one in result.completions:
        assert one.logprob == pytest.approx(logprobs[one.tokens], abs=1e-4)
        assert one.reward == reward_of(one.text)
        assert one.finished == (one.tokens[-1] == EOS)
        share = math.exp(logprobs[one.tokens] + lam * one.reward - total)
        assert one.weight * times[one.tokens] == pytest.approx(share, abs=1e-5)
    assert "ab" in result.answers and None not in result.answers


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_can_and_counts_rationales(
    model: SoftPromptModel, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    step = TreeDecoder.step

    def spy(decoder: TreeDecoder, nodes: Any, parents: Any, tokens: Any) -> None:
        decoded.extend(nodes.tolist())
        step(decoder, nodes, parents, tokens)

    monkeypatch.setattr(TreeDecoder, "step", spy)
    budget = 6 if method == "beam" else 30
    result = run(model, method=method, num_rollouts=budget, width=8, complete_answers=True)
    tree, stats = result.tree, result.stats
    assert result.config.complete_answers
    assert stats.rollouts == tree.visits[ROOT] == (1 if method == "greedy" else budget)
    assert len(decoded) == len(set(decoded)) <= stats.tokens_decoded
    assert len(decoded) == stats.tokens_decoded or not branch.ON_CPU  # what goes ahead does not come here
    assert not tree.terminal[decoded].any()
    assert sum(one.weight for one in result.completions) == pytest.approx(1)
    assert not tree.pending.any()
    closed = {one.rationale for one in result.completions if tree.closed[one.rationale]}
    assert closed or method in ("greedy", "beam")
    for node in closed:
        behind = [one for one in result.completions if one.rationale == node]
        assert Counter(one.answer for one in behind) == Counter([*LABELS, None])
        assert len({one.tokens for one in behind}) == len(LABELS) + 1
        assert sum(math.exp(one.logprob) for one in behind) == pytest.approx(math.exp(tree.logprob[node]))
        nothing = next(one for one in behind if one.answer is None)
        assert not nothing.finished
        assert tree.token[nothing.node] == NO_TOKEN
        assert nothing.text.endswith(":")
        for one in behind:
            assert one.logprobs is not None and one.logprobs.shape == (len(one.tokens),)
    inner = np.unique(tree.parent[1:])
    below = tree.enumerated[1:]
    if method not in ("beam", "greedy"):
        np.testing.assert_allclose(tree.taken[np.unique(tree.parent[1:][below])], 1, atol=1e-5)
    assert (tree.rest()[inner][tree.closed[inner]] == 0).all()


def test_the_trees_do_by_default_and_the_others_do_not(model: SoftPromptModel) -> None:
    by_default = {name for name in METHODS if run(model, method=name, num_rollouts=4).config.complete_answers}
    assert by_default == {"maxent-ts", "dts", "dts*", "mcts"}
    assert not run(model, num_rollouts=4, complete_answers=False).tree.closed.any()


def test_what_is_drawn_more_often_weighs_as_often(model: SoftPromptModel) -> None:
    """Best-of-N's rationales with repetition, its labels by p: on average what MaxEnt-TS has exactly."""
    exact = run(model, inverse_temperature=2.0)
    found = run(model, method="best-of-n", num_rollouts=2000, inverse_temperature=2.0, complete_answers=True)
    for label, share in exact.answers.items():
        assert found.answers[label] == pytest.approx(share, abs=0.05)
    assert found.root_value == pytest.approx(exact.root_value, abs=0.02)


# --- sets of labels


@st.composite
def label_sets(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=25))


@given(label_sets(), st.sampled_from([1, 7, 256]))
@settings(max_examples=25, deadline=None)
def test_any_set_of_labels_and_any_width_of_a_pass(labels: list[str], rows: int) -> None:
    model = small_model()
    kept, most = model.tokenizer, memory.LABEL_ROWS
    model.tokenizer, memory.LABEL_ROWS = Characters(), rows
    try:
        result = run(model, labels, num_rollouts=4, width=4, max_tokens=8)
        tokens = model.tokenizer.encode
        for one in result.completions:
            if one.rationale != one.node and one.answer is not None:
                text = one.text.split(":")[1]
                assert text in labels
                log_p = np.array(mx.array(model.score(PROMPT, one.tokens)))
                log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
                expected = sum(log_p[at][token] for at, token in enumerate(one.tokens))
                assert one.logprob == pytest.approx(expected, abs=1e-3)
                assert one.tokens[-len(tokens(text)) - 1 :] == (*tokens(text), EOS)
        assert sum(one.weight for one in result.completions) == pytest.approx(1)
        for node in {one.rationale for one in result.completions if result.tree.closed[one.rationale]}:
            answers = {one.answer for one in result.completions if one.rationale == node}
            assert answers == {*labels, None}
    finally:
        model.tokenizer, memory.LABEL_ROWS = kept, most


def test_hundreds_of_labels_in_passes_no_wider_than_allowed(
    model: SoftPromptModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [format(number, "b").replace("0", "a").replace("1", "b") for number in range(300)]
    widest: list[int] = []
    step = TreeDecoder.step

    def spy(decoder: TreeDecoder, nodes: Any, parents: Any, tokens: Any) -> None:
        widest.append(len(nodes))
        step(decoder, nodes, parents, tokens)

    monkeypatch.setattr(TreeDecoder, "step", spy)
    options = {"num_rollouts": 3, "width": 3, "max_tokens": 14, "seed": 2}
    whole = run(model, labels, **options)
    assert 64 < max(widest) <= memory.LABEL_ROWS
    size = 1 + len(Trie.of(Characters().encode(label) for label in labels).token)
    config = SearchConfig(**options)
    enough = memory.needed(model.footprint(), 9, config, False, size, 64)
    monkeypatch.setattr(memory, "available", lambda: enough)
    widest.clear()
    split = run(model, labels, **options)
    assert max(widest) == 64
    assert split.notes == ("memory is short: the allowed answers are scored 64 tokens at a time",)
    assert not whole.notes
    assert [one.tokens for one in split.completions] == [one.tokens for one in whole.completions]
    assert [one.weight for one in split.completions] == pytest.approx([one.weight for one in whole.completions])
    assert len({one.answer for one in whole.completions if one.answer}) == len(set(labels))
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(TSLMError, match="3 rollouts of up to 14 tokens"):
        run(model, labels, **options)


@pytest.mark.parametrize(
    ("pieces", "marker", "label"),
    [
        ({1: "a", 2: " a", 3: ":"}, (3,), (2,)),  # a space belongs to the word
        ({1: "a", 2: ": ", 3: ":"}, (2,), (1,)),  # or to the marker
        ({1: "a", 2: " ", 3: ":"}, (3,), (2, 1)),  # or is a token
    ],
)
def test_labels_are_tokens_as_they_stand_behind_the_marker(
    model: SoftPromptModel,
    monkeypatch: pytest.MonkeyPatch,
    pieces: dict[int, str],
    marker: Path_,
    label: Path_,
) -> None:
    monkeypatch.setattr(model, "tokenizer", Characters({EOS: ""} | pieces))
    result = run(model, ["a"], num_rollouts=60)
    ends = {one.tokens[-len(label) - 2 :] for one in result.completions if one.answer == "a" and one.finished}
    assert (*marker, *label, EOS) in ends


def test_words_that_explain_a_label_are_the_label(model: SoftPromptModel, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(model, {"a": "bb", "b": "ab"}, stage(None), reward=lambda c: [0.0] * len(c))
    said = {one.text for one in result.completions}
    assert said == {"a", "bb", "b", "ab", ""}


def test_an_answer_without_a_rationale_is_completed_at_once(model: SoftPromptModel) -> None:
    result = run(model, of=stage(None))
    assert result.exhausted
    assert result.stats.rollouts == 1
    assert result.stats.tokens_decoded == 5  # a, ab, b, bb, bba
    assert {one.text for one in result.completions} == {*LABELS, ""}
    assert result.stats.forward_passes == 1 + 3
    many = run(model, of=stage(None), method="best-of-n", num_rollouts=9, complete_answers=True)
    assert many.stats.rollouts == 9
    assert many.answers == pytest.approx(result.answers)


# --- right or refused


@pytest.mark.parametrize(
    ("labels", "of"),
    [(None, stage()), ((), stage()), (None, stage(marker=None))],
)
def test_without_a_closed_set_or_a_marker_answers_are_drawn(model: SoftPromptModel, labels: Any, of: Any) -> None:
    result = run(model, labels, of, num_rollouts=8)
    assert not result.config.complete_answers and not result.tree.closed.any() and not result.notes
    asked = run(model, labels, of, num_rollouts=8, complete_answers=True)
    assert not asked.config.complete_answers
    assert "no closed set" in asked.notes[0]


def test_labels_longer_than_an_answer_may_be(model: SoftPromptModel) -> None:
    result = run(model, num_rollouts=8, max_tokens=3)
    assert not result.config.complete_answers
    assert "the longest allowed answer takes 4 tokens, and max_tokens is 3" in result.notes[0]
    with pytest.raises(
        TSLMError, match="takes 4 tokens, and max_tokens is 3; raise it, or do not complete answers"
    ):
        run(model, num_rollouts=8, max_tokens=3, complete_answers=True)


def test_a_greedy_p_has_nothing_to_complete(model: SoftPromptModel) -> None:
    assert not run(model, temperature=0.0, num_rollouts=2).config.complete_answers
    with pytest.raises(TSLMError, match="complete_answers needs a temperature above 0"):
        run(model, temperature=0.0, complete_answers=True)
    cold = run(model, temperature=1e-30, num_rollouts=4)
    assert sum(one.weight for one in cold.completions) == pytest.approx(1)
    json.dumps(cold.to_dict(), allow_nan=False)


def test_several_end_tokens_count_together(model: SoftPromptModel, monkeypatch: pytest.MonkeyPatch) -> None:
    one_end = {one.tokens: one.logprob for one in run(model, ["a"]).completions}
    monkeypatch.setattr(Characters, "eos_token_ids", {EOS, 2}, raising=False)
    for one in run(model, ["a"]).completions:
        if one.answer == "a" and one.tokens in one_end and 2 not in one.tokens:
            log_p = reference_log_p(np.array(model.score(PROMPT, one.tokens[:-1]))[-1])
            more = np.logaddexp(log_p[EOS], log_p[2]) - log_p[EOS]
            assert one.logprob - one_end[one.tokens] == pytest.approx(more, abs=1e-4)


def test_a_reward_of_nan_for_a_label_is_refused_and_nothing_is_lost(model: SoftPromptModel) -> None:
    calls = 0

    def breaks(completions: list[Completion]) -> list[float]:
        nonlocal calls
        calls += 1
        return [math.nan if calls > 2 and one.answer == "ab" else reward_of(one.text) for one in completions]

    with pytest.raises(SearchError, match=r"is nan for completion .*ab") as error:
        run(model, reward=breaks, width=4)
    found = error.value.result
    assert found is not None
    assert sum(one.weight for one in found.completions) == pytest.approx(1)
    assert not found.exhausted
    read = SearchResult.from_dict(json.loads(json.dumps(found.to_dict())))
    on = run(model, resume=read)
    whole = run(model)
    assert on.exhausted
    assert on.root_value == pytest.approx(whole.root_value, abs=1e-5)
    assert on.answers == pytest.approx(whole.answers, abs=1e-5)


def test_logits_that_are_nan_behind_the_marker_stop_the_search(
    model: SoftPromptModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, step = TreeDecoder.logits, TreeDecoder.step
    label = False

    def spy(decoder: TreeDecoder, nodes: Any, parents: Any, tokens: Any) -> None:
        nonlocal label
        label = label or MARKER in np.asarray(tokens)
        step(decoder, nodes, parents, tokens)

    monkeypatch.setattr(TreeDecoder, "step", spy)
    monkeypatch.setattr(
        TreeDecoder, "logits", lambda decoder, nodes: logits(decoder, nodes) * (float("nan") if label else 1.0)
    )
    with pytest.raises(SearchError, match=r"logits are NaN after answer tokens .* and a label"):
        run(model)


# --- saving and going on


@pytest.mark.parametrize("method", ["maxent-ts", "dts", "mcts", "best-of-n"])
def test_a_saved_search_goes_on(model: SoftPromptModel, method: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": method, "complete_answers": True, "width": 4}
    half = run(model, num_rollouts=12, **options)
    half.save(tmp_path / "half.json")
    read = SearchResult.load(tmp_path / "half.json")
    assert read.to_dict() == half.to_dict()
    same = run(model, num_rollouts=12, resume=read, **options)
    assert same.stats.tokens_decoded == 0
    assert same.answers == pytest.approx(half.answers)
    on = run(model, num_rollouts=20, resume=read, **options)
    assert on.stats.rollouts == on.tree.visits[ROOT] == 20
    assert sum(one.weight for one in on.completions) == pytest.approx(1)
    with pytest.raises(TSLMError, match="had complete_answers = True, not False"):
        run(model, num_rollouts=20, resume=read, **options | {"complete_answers": False})
    plain = run(model, num_rollouts=4, method=method, complete_answers=False)
    assert not run(model, num_rollouts=5, method=method, resume=plain).config.complete_answers


def test_a_root_moves_to_a_marker_and_into_the_labels(model: SoftPromptModel) -> None:
    result = run(model, width=1)
    shares = {one.tokens: one.weight for one in result.completions}
    for opening in ((MARKER,), (MARKER, 2), (1,)):
        moved = result.descend(opening)
        below = {tokens: weight for tokens, weight in shares.items() if tokens[: len(opening)] == opening}
        assert {one.tokens: one.weight for one in moved.completions} == pytest.approx(
            {tokens: weight / sum(below.values()) for tokens, weight in below.items()}
        )
        again = SearchResult.from_dict(json.loads(json.dumps(moved.to_dict())))
        on = run(model, resume=again)
        assert {one.tokens for one in on.completions} == set(below)
        assert on.stats.tokens_decoded == 0


# --- the trie


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_trie_has_every_sequence_once(sequences: list[list[int]]) -> None:
    trie = Trie.of(sequences)

    def path(entry: int) -> Path_:
        return (*path(trie.parent[entry]), int(trie.token[entry])) if entry >= 0 else ()

    ends = [path(entry) for entry in np.flatnonzero(trie.token == NO_TOKEN)]
    assert sorted(ends) == sorted({(*sequence, NO_TOKEN) for sequence in map(tuple, sequences)})
    assert (trie.parent < np.arange(len(trie.parent))).all()
    assert [len(path(entry)) for entry in range(len(trie.token))] == trie.level.tolist()
    assert trie.depth == 1 + max(map(len, sequences))
    starts = {sequence[:end] for sequence in map(tuple, sequences) for end in range(1, len(sequence) + 1)}
    assert (trie.token != NO_TOKEN).sum() == len(starts)


# --- through the front door


def search(folder: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    series = tmp_path / "ecg.csv"
    if not series.exists():
        seconds = np.arange(1000) / 100
        beats = np.exp(-(((seconds % 0.8) - 0.4) ** 2) / 0.0005)
        np.savetxt(series, np.column_stack([beats, -beats]), delimiter=",", header="II,V1", comments="")
    asked = ["--model", str(folder), "--series", str(series), "--source-rate", "100"]
    if "--stage" not in options:
        asked += ["--stage", "stage5", "--question", "Is this sinus rhythm?", "--answers", "yes,no"]
    asked += ["--num-rollouts", "4", "--width", "2"]
    file = tmp_path / "found.json"
    assert main(["search", *asked, "--json", str(file), "--html", str(tmp_path / "page.html"), *options]) == 0
    return dict(json.loads(file.read_text()))


def test_search_completes_answers_unless_told_not_to(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(demo_folder, tmp_path)
    assert found["config"]["complete_answers"] is True
    assert found["stats"]["rollouts"] == 4
    assert (found["config"]["temperature"], found["config"]["top_p"]) == (1.0, 0.95)
    assert "temperature 1, top-p 0.95" in capsys.readouterr().out
    by_rationale = Counter(one["rationale"] for one in found["completions"])
    assert 3 in by_rationale.values()  # yes, no and neither
    assert sum(one["weight"] for one in found["completions"]) == pytest.approx(1)
    assert search(demo_folder, tmp_path, "--no-complete-answers")["config"]["complete_answers"] is False
    assert search(demo_folder, tmp_path, "--method", "best-of-n")["config"]["complete_answers"] is False
    best = search(demo_folder, tmp_path, "--method", "best-of-n", "--complete-answers", "--top-p", "0.9")
    assert best["config"]["complete_answers"] is True
    assert best["config"]["top_p"] == 0.9


@pytest.mark.parametrize("backend", ["torch", "torch-uncached"])
def test_pytorch_completes_the_same(demo_folder: Path, tmp_path: Path, backend: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra mlx-tslm[torch])")
    options = (
        "--stage",
        "stage1",
        "--question",
        "What is it? (a) no trend (b) an upward trend",
        "--max-tokens",
        "24",
    )
    ours = search(demo_folder, tmp_path, "--channel", "II", *options)
    theirs = search(demo_folder, tmp_path, "--channel", "II", *options, "--backend", backend)
    assert theirs["stats"]["rollouts"] == ours["stats"]["rollouts"] == 1
    assert [one["tokens"] for one in theirs["completions"]] == [one["tokens"] for one in ours["completions"]]
    assert len(ours["completions"]) == 5  # letters, words, and neither
    for one, other in zip(ours["completions"], theirs["completions"], strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=0.3)  # the language model is bfloat16
    assert theirs["stats"]["tokens_decoded"] == ours["stats"]["tokens_decoded"] < theirs["stats"]["forward_passes"]


def test_nothing_else_changed_where_answers_are_drawn(model: SoftPromptModel) -> None:
    """Completion draws the same rationales as a search without it, whose tokens before the marker are the same."""
    drawn = run(model, method="best-of-n", num_rollouts=30, seed=4)
    completed = run(model, method="best-of-n", num_rollouts=30, seed=4, complete_answers=True)

    def rationales(result: SearchResult) -> set[Path_]:
        texts = (one.tokens[: one.tokens.index(MARKER)] for one in result.completions if MARKER in one.tokens)
        return {tokens for tokens in texts if len(tokens) + 5 <= LONGEST}

    assert rationales(drawn) == rationales(completed)
