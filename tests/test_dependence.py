"""Whether answers depend on the recording: the divergences, models that look and models that don't, `check`."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny_flamingo
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model

from mlx_tslm import stages
from mlx_tslm.cli import main
from mlx_tslm.cli.samples import stages_of
from mlx_tslm.evaluation.dependence import NOISE, OTHER, SHUFFLE, ZERO, measure
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.search import tree_search
from mlx_tslm.search.dependence import answer_log_shares, before_answer, kl_of_answers, kl_of_tokens, remark
from mlx_tslm.series import Series
from mlx_tslm.stages.ablation import exchanged, without
from mlx_tslm.stages.base import Question

LOGITS = st.lists(st.floats(-30, 30), min_size=5, max_size=5)


def log_softmax(logits: list[float]) -> np.ndarray:
    return np.array(logits) - np.logaddexp.reduce(logits)


@given(LOGITS, LOGITS)
def test_divergence_of_tokens(p: list[float], q: list[float]) -> None:
    log_p, log_q = log_softmax(p), log_softmax(q)
    found = kl_of_tokens(mx.array([[*p, -math.inf]]), mx.array([[*q, -math.inf]]))
    assert found[0] == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(), rel=1e-4, abs=1e-4)
    assert kl_of_tokens(mx.array([p]), mx.array([p]))[0] == 0


def test_divergence_of_answers() -> None:
    p, q = {"a": math.log(0.75), "b": math.log(0.25)}, {"a": math.log(0.25), "b": math.log(0.75)}
    assert kl_of_answers(p, q) == pytest.approx(0.5 * math.log(3))
    assert kl_of_answers(p, p) == 0


def asked(stage: str, count: int, channels: int = 3) -> list[Question]:
    """Short questions, in which the series have a say."""
    rng = np.random.default_rng(1)
    labels = ("a", "b", "c", "up")
    return [
        Question(
            "Look:",
            tuple(Series(f"{name}:", rng.standard_normal(40).cumsum(), name=name) for name in "xyz"[:channels]),
            "What is it?",
            stages.get(stage),
            labels,
        )
        for _ in range(count)
    ]


MODELS: dict[str, Any] = {
    "soft prompt": lambda: tiny_model("llama"),
    "soft prompt, padded on the left": lambda: tiny_model("gemma", pad_text_left=True),
    "Flamingo": lambda: tiny_flamingo.tiny_model("llama"),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> CausalModel:
    return MODELS[request.param]()


def blinded(model: CausalModel) -> CausalModel:
    """The same model, to which all series are alike."""
    weights = model.encoder.patch_embed.weight
    model.encoder.patch_embed.weight = mx.zeros_like(weights)
    return model


@pytest.mark.parametrize("bos", [True, False])
def test_reading_on_has_the_logits_of_one_long_pass(model: CausalModel, bos: bool) -> None:
    question = asked("stage3", 1)[0]
    read = model.prefill(question, bos=bos)
    tokens = [40, 41, 42, 43]
    opening = [model.tokenizer.bos_token_id] * bos
    logits, longer = model.read_on(read, tokens)
    whole = np.array(model.score(question, [*opening, *tokens]))[len(opening) :]
    np.testing.assert_allclose(np.array(logits), whole, atol=5e-4)
    assert (read.length, longer.length) == (model.count_positions(question) + bos, read.length + 4)
    again, _ = model.read_on(model.read_on(read, tokens[:2])[1], tokens[2:])  # and `read` is as it was
    np.testing.assert_allclose(np.array(again), whole[2:], atol=5e-4)


def test_shares_of_answers_are_those_of_whole_passes(model: CausalModel) -> None:
    question = asked("stage4", 1)[0]
    tokenizer = model.tokenizer
    rationale = tokenizer.encode("Slow. Answer:")[1:]
    assert before_answer(tokenizer, question, [*rationale, 50, 51]) == len(rationale)
    assert before_answer(tokenizer, question, rationale[:2]) is None
    read = model.prefill(question)
    bos = [tokenizer.bos_token_id] * (read.length - model.count_positions(question))
    found = answer_log_shares(model, read, question, rationale)
    assert question.labels is not None and set(found) == set(question.labels)
    expected = {}
    for label in question.labels:
        tokens = [*tokenizer.encode(f"Slow. Answer: {label}")[1:], model.end_token_id]
        logits = np.array(model.score(question, [*bos, *tokens[:-1]]), np.float64)[len(bos) :]
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        expected[label] = log_p[np.arange(len(tokens)), tokens][len(rationale) :].sum()
    total = np.logaddexp.reduce(list(expected.values()))
    assert found == pytest.approx({label: one - total for label, one in expected.items()}, abs=1e-3)


@pytest.mark.parametrize("kind", ["soft prompt", "Flamingo"])  # the tiny Gemma is sure of its words, whatever comes
def test_a_model_that_looks_and_one_that_does_not(kind: str) -> None:
    model = MODELS[kind]()
    questions = asked("stage3", 2)
    sees = measure(model, questions, max_tokens=6)
    assert list(sees.recordings) == [ZERO, SHUFFLE, NOISE, OTHER]
    assert list(sees.channels) == ["x", "y", "z"]
    assert all(one.answer.value > 0.05 for one in sees.recordings.values())
    assert sees.depends and "depend on the recording" in sees.sentence
    blind = measure(blinded(model), questions, max_tokens=6)
    for one in (*blind.recordings.values(), *blind.channels.values()):
        assert one.answer.value < 1e-4 and one.changed.value == 0
    assert not blind.depends and "hardly depend" in blind.sentence


def test_one_sample_of_one_channel() -> None:
    """No other recording, no channel to leave out, no interval: and it says that it may be chance."""
    model = tiny_model()
    found = measure(model, asked("stage1", 1, channels=1), max_tokens=4)
    assert list(found.recordings) == [ZERO, SHUFFLE, NOISE] and not found.channels
    assert found.recordings[ZERO].answer.low is None
    assert "take more samples" in found.sentence
    assert found.recordings[ZERO].labels is not None  # behind no marker: the answer begins at once


def test_words_stay_and_only_samples_change() -> None:
    one, other = asked("stage3", 2)
    taken = exchanged(one, other)
    assert [series.text for series in taken.series] == [series.text for series in one.series]
    assert all(
        np.array_equal(a.values, np.resize(b.values, len(a.values)))
        for a, b in zip(taken.series, other.series, strict=True)
    )
    left = without(one, [1])
    assert not left.series[1].values.any() and left.series[1].text == one.series[1].text
    assert left.series[0] is one.series[0]


# The line of a search


@pytest.mark.parametrize("complete", [True, False])
def test_a_search_says_when_its_headline_does_not_depend_on_the_series(complete: bool) -> None:
    model = tiny_model()
    question = asked("stage1", 1, channels=1)[0]
    settings: dict[str, Any] = {"num_rollouts": 4, "width": 2, "max_tokens": 12, "complete_answers": complete}
    result = tree_search(model, question, **settings)
    assert remark(model, question, result, result.best) is None
    result = tree_search(blinded(model), question, **settings)
    said = remark(model, question, result, result.best)
    assert said is not None and said.startswith("this answer hardly depends on the series")
    assert ("nats" in said) == complete
    assert remark(model, Question(pre="No series."), result, result.best) is None


# The front door


@pytest.fixture
def demo(demo_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_folder, tmp_path / "demo")


@pytest.fixture
def blind_demo(demo: Path) -> Path:
    """The demo with a projector of zeros."""
    file = demo / "model.safetensors"
    weights = dict(mx.load(str(file)))
    weights |= {name: mx.zeros_like(one) for name, one in weights.items() if name.startswith("projector.")}
    mx.save_safetensors(str(file), weights, {"format": "mlx"})
    return demo


def check(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def test_the_demo_depends_on_the_recording(demo: Path, tmp_path: Path) -> None:
    """On two stages, which take least time; CI checks all five (`.ci/run`)."""
    few = ("--source", "synthetic", "--limit", 2, "--max-tokens", 24, "--json", tmp_path / "found.json")
    assert check(demo, *few, "--stage", "stage1", "--stage", "stage2") == 0
    found = json.loads((tmp_path / "found.json").read_text())["stages"]
    assert list(found) == ["stage1", "stage2"]
    card = (demo / "README.md").read_text()
    for name, one in found.items():
        assert one["depends"] and one["recordings"][one["least"]]["answer"]["value"] > 0.05
        assert f"## Does the answer depend on the recording? {name}\n\n{one['sentence']}" in card


def test_what_is_checked_by_default_is_what_the_model_was_trained_on() -> None:
    model = tiny_model()
    model.config.trained_on = {name: {} for name in stages.names()}
    assert stages_of(model, "it", None) == (list(stages.names()), [])
    model.config.trained_on, model.stage = None, stages.get("stage4")
    assert stages_of(model, "it", None) == (["stage4"], [])


def test_a_blind_model_is_found_out(
    blind_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], airline: Path
) -> None:
    few = ("--stage", "stage2", "--source", "synthetic", "--limit", 2, "--max-tokens", 24)
    assert check(blind_demo, *few) == 1
    assert "hardly depend on the recording" in " ".join(capsys.readouterr().out.split())
    card = (blind_demo / "README.md").read_text()
    assert card.startswith("---") and "hardly depend on the recording" in card
    assert check(blind_demo, *few, "--bound", "0") == 0  # said anew, in the same place
    again = (blind_demo / "README.md").read_text()
    assert again.count("Does the answer depend") == 1 and "hardly" not in again
    written = ("--json", tmp_path / "found.json", "--html", tmp_path / "found.html")
    asked = ("search", "--model", blind_demo, "--series", airline, "--num-rollouts", 4, "--max-tokens", 24)
    assert main([*map(str, (*asked, *written))]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "note: this answer hardly depends on the series" in printed
    assert any("hardly depends" in one for one in json.loads((tmp_path / "found.json").read_text())["notes"])
    assert "hardly depends on the series" in (tmp_path / "found.html").read_text()


def test_recordings_of_ones_own(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.savetxt(folder / f"{name}.csv", rng.standard_normal(60).cumsum(), header="v", comments="")
    (folder / "c.csv").write_text("v\nnothing\n")
    asked = ("--batch", folder, "--max-tokens", 16, "--json", tmp_path / "found.json")
    assert check(demo, *asked) == 0
    assert "left out c.csv" in capsys.readouterr().err
    found = json.loads((tmp_path / "found.json").read_text())["stages"]
    assert found["stage2"]["samples"] == 2 and not found["stage2"]["channels"]
    question = ("--stage", "stage5", "--question", "Is it fast?", "--answers", "yes,no")
    assert check(demo, *asked, *question) in (0, 1)
    assert json.loads((tmp_path / "found.json").read_text())["stages"]["stage5"]["samples"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--batch", "EMPTY"), "no recording in"),
        (("--batch", "WORDS"), "none of the 1 recordings"),
        (("--source", "nowhere"), "choose published"),
        (("--stage", "stage9"), "no stage 'stage9'"),
        (("--source", "synthetic", "--limit", 0), "--limit 0"),
        (("--source", "synthetic", "--limit", 1, "--bound", -1), "0 nats or more"),
        (("--source", "synthetic", "--split", "rest"), "no split 'rest'"),
        (("--source", "synthetic", "--question", "Why?"), "go with --batch"),
        (("--source", "synthetic", "--json", "absent/found.json"), "no folder"),
    ],
)
def test_what_cannot_be_checked(
    arguments: tuple[object, ...], says: str, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.csv").write_text("v\nnothing\n")
    places = {"EMPTY": tmp_path / "empty", "WORDS": tmp_path / "words"}
    before = (demo / "README.md").read_text()
    assert check(demo, *(places.get(one, one) for one in arguments)) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert says in error and "Traceback" not in error
    assert (demo / "README.md").read_text() == before


def test_a_stage_that_the_model_was_not_trained_on_is_noted(
    tiny_folder: Path, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--source", "synthetic", "--limit", 1, "--max-tokens", 4)
    assert check(tiny_folder, *few) == 2  # nobody says which
    assert "--stage stage1" in " ".join(capsys.readouterr().err.split())
    config = json.loads((demo / "config.json").read_text())
    config["trained_on"] = {"stage1": config["trained_on"]["stage1"]}
    (demo / "config.json").write_text(json.dumps(config))
    check(demo, *few, "--stage", "stage3")
    assert "was not trained on stage3, but on stage1" in " ".join(capsys.readouterr().err.split())
