"""Stated confidence: T is found again, the error falls, no order changes; what is fitted is kept and used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import calibration
from mlx_tslm.calibration import Calibration, brier, fit, padded, tempered
from mlx_tslm.cli import main
from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation.calibrate import Candidate, agrees, choose
from mlx_tslm.evaluation.metrics.reliability import bins, expected_error, perfect_error, reliability_svg
from mlx_tslm.sampling import Sampling
from mlx_tslm.search import SearchResult
from mlx_tslm.search.answers import confidences
from mlx_tslm.training import config as training_config
from mlx_tslm.training import run as training_run
from mlx_tslm.training.config import Curriculum, StageConfig
from mlx_tslm.training.run import Trained
from mlx_tslm.training.trainer import Progress as TrainingProgress

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda one: sum(one) > 1e-3)


def forecasts(number: int, answers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, the first column (no allowed answer) small, and which answer came true."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.full(answers, 0.6), number)
    true = np.concatenate([np.full((number, 1), 0.02), 0.98 * true], axis=1)
    drawn = (true.cumsum(axis=1) < rng.random(number)[:, None]).sum(axis=1)
    return true, np.where(drawn == 0, -1, drawn)


@given(SHARES, st.floats(0.05, 20))
def test_tempering_keeps_order_and_sums_to_one(shares: list[float], temperature: float) -> None:
    weights = np.array(shares) / sum(shares)
    found = tempered(weights, temperature)
    assert found.sum() == pytest.approx(1)
    assert (found[weights == 0] == 0).all()
    assert (np.diff(found[np.argsort(weights, kind="stable")]) >= -1e-12).all()
    np.testing.assert_allclose(tempered(found, 1 / temperature)[weights > 1e-3], weights[weights > 1e-3], atol=1e-4)


def test_certainty_and_nothing_found() -> None:
    assert tempered([0.0, 1.0], 5.0).tolist() == [0.0, 1.0]
    assert tempered([0.0, 0.0], 5.0).tolist() == [0.0, 0.0]
    assert confidences(np.array([0.3, 0.7]), None).tolist() == [0.3, 0.7]
    fitted = Calibration(1.0, 0.95, 10.0, 2.0)
    assert confidences(np.array([0.2, 0.8]), fitted) == pytest.approx([1 / 3, 2 / 3])


@settings(max_examples=15)
@given(st.floats(0.3, 4), st.integers(2, 6), st.integers(0, 1000))
def test_known_miscalibration_is_found_again(temperature: float, answers: int, seed: int) -> None:
    """Shares that are true probabilities to the power T, so over- or under-confident, are put right by this T."""
    true, right = forecasts(4000, answers, seed)
    found, _ = fit(tempered(true, 1 / temperature), right)
    assert found == pytest.approx(temperature, rel=0.15)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_the_error_falls_and_the_answers_stay(temperature: float) -> None:
    true, right = forecasts(2000, 4, 3)
    stated = tempered(true, 1 / temperature)
    fitted = choose([Candidate(Sampling(), 10.0, stated, right)], origin={"of": "forecasts"})
    assert fitted.calibration.confidence_temperature == pytest.approx(temperature, rel=0.15)
    assert fitted.error.value < 0.05 < fitted.raw.value
    assert fitted.error.low <= fitted.error.value <= fitted.error.high
    assert fitted.error.value < 2 * fitted.perfect.high
    assert fitted.right == np.mean(right == stated[:, 1:].argmax(axis=1) + 1)
    kept = fitted.calibration.origin
    assert kept["of"] == "forecasts" and kept["expected_calibration_error"]["value"] == fitted.error.value


def test_the_better_candidate_is_taken() -> None:
    """λ and p by the answers' Brier score: shares that know more win, whatever their scale."""
    true, right = forecasts(1000, 4, 5)
    worse = np.full_like(true, 1 / true.shape[1])
    candidates = [
        Candidate(Sampling(0.7), 1.0, worse, right),
        Candidate(Sampling(1.0, top_p=0.9), 20.0, tempered(true, 3.0), right),
    ]
    found = choose(candidates).calibration
    assert (found.temperature, found.top_p, found.inverse_temperature) == (1.0, 0.9, 20.0)
    assert found.confidence_temperature == pytest.approx(1 / 3, rel=0.15)


@pytest.mark.parametrize("hit", [True, False])
def test_few_samples_that_agree_do_not_make_certainty(hit: bool) -> None:
    shares = np.tile([0.0, 0.7, 0.3], (10, 1))
    temperature, _ = fit(shares, np.full(10, 1 if hit else -1))
    assert 0.05 < temperature < 20
    assert (temperature < 1) == hit


def test_brier_score_of_sure_answers() -> None:
    shares = padded([[1.0], [0.0, 1.0]])
    assert shares.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert brier(shares, np.array([0, 1])) == 0
    assert brier(shares, np.array([1, -1])) == 2


def test_expected_error_by_hand() -> None:
    confidence, right = [0.95, 0.95, 0.95, 0.95, 0.5, 0.5], [True, True, True, False, True, False]
    found = bins(confidence, right)
    assert [(one.samples, one.right) for one in found] == [(2, 0.5), (4, 0.75)]
    assert expected_error(confidence, right).value == pytest.approx(4 / 6 * 0.2)
    assert bins([0.0, 1.0], [False, True]) == [(1, 0.0, 0.0), (1, 1.0, 1.0)]
    svg = reliability_svg(found, "title")
    assert svg.startswith("<svg") and svg.count("<circle") == 2


def test_a_perfect_forecaster_shows_an_error_too() -> None:
    """As the field knows it: at 200 samples 0.05 to 0.07, at 2,000 a third of that."""
    confidence = np.random.default_rng(0).uniform(0.3, 1, 2000)
    few, many = perfect_error(confidence[:200]), perfect_error(confidence)
    assert 0.04 < few.value < 0.1 and many.value < few.value / 2


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("Walking!", "walking", True),
        ("84 bpm", "88 bpm", True),
        ("84 bpm", "90 bpm", False),
        ("84", "88", False),
        ("yes", None, False),
    ],
)
def test_what_counts_as_right(answer: str, gold: str | None, same: bool) -> None:
    assert agrees(answer, gold) == same


def test_what_was_fitted_is_kept_beside_what_was(tmp_path: Path) -> None:
    one, other = Calibration(1.0, 0.95, 10.0, 2.0, origin={"samples": 9}), Calibration(0.7, 1.0, 5.0, 0.5)
    assert calibration.read(tmp_path) == {}
    calibration.write(tmp_path, "stage1", one)
    calibration.write(tmp_path, "stage3", other)
    assert calibration.read(tmp_path) == {"stage1": one, "stage3": other}


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"stage1": 1}', '{"stage1": {}}', '{"stage1": {"temperature": 0, "top_p": 2}}']
)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / calibration.FILE).write_text(content)
    with pytest.raises(TSLMError, match=r"calibration\.json"):
        calibration.read(tmp_path)


# The front door


def run(*arguments: object) -> int:
    return main([*map(str, arguments)])


def test_a_model_is_calibrated_and_a_search_says_so(
    demo_folder: Path, tmp_path: Path, airline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = shutil.copytree(demo_folder, tmp_path / "demo")
    assert "p, λ and T are unknown" in (demo / "README.md").read_text()
    asked = ("--model", demo, "--series", airline, "--stage", "stage1", "--question", "Trend? (a) up (b) down")
    search = ("search", *asked, "--num-rollouts", 2, "--max-tokens", 12, "--json", tmp_path / "found.json")
    assert run(*search, "--html", tmp_path / "page.html") == 0
    before = json.loads((tmp_path / "found.json").read_text())
    assert before["calibration"] is None and before["confidence"] == before["weight"]
    assert "not calibrated" in capsys.readouterr().out
    assert '"calibrated":false' in (tmp_path / "page.html").read_text()

    few = ("--source", "synthetic", "--num-rollouts", 2, "--max-tokens", 12, "--temperature", 1.5)
    files = ("--output", tmp_path / "out", "--json", tmp_path / "fit.json")
    fit = ("calibrate", demo, "--stage", "stage1", *few, *files)
    assert run(*fit, "--limit", 4) == 2
    assert "4 samples of stage1 are too few" in " ".join(capsys.readouterr().err.split())
    records = tmp_path / "out" / "stage1-synthetic-validation" / "p-1.5-0.95.jsonl"
    first = records.read_text()
    assert len(first.splitlines()) == 4
    assert run(*fit, "--limit", 10) == 0
    assert records.read_text().startswith(first)  # it went on from there
    assert (tmp_path / "out" / "reliability-stage1.svg").read_text().startswith("<svg")
    fitted = calibration.read(demo)["stage1"]
    told = json.loads((tmp_path / "fit.json").read_text())["stage1"]
    assert told["calibration"]["confidence_temperature"] == fitted.confidence_temperature
    assert (fitted.temperature, fitted.top_p, fitted.origin["samples"]) == (1.5, 0.95, 10)
    assert fitted.origin["of"] == "synthetic validation split"
    assert "## How sure is an answer? stage1\n\nOn 10 samples" in (demo / "README.md").read_text()

    assert run(*search) == 0
    assert "not calibrated" not in capsys.readouterr().out
    after = json.loads((tmp_path / "found.json").read_text())
    assert after["config"]["temperature"] == 1.5
    assert after["config"]["inverse_temperature"] == fitted.inverse_temperature
    assert after["calibration"]["confidence_temperature"] == fitted.confidence_temperature
    weights = [one["weight"] for one in after["answers"]]
    shares = np.array([*weights, max(0.0, 1 - sum(weights))])
    stated = [one["confidence"] for one in after["answers"]]
    assert stated == pytest.approx(tempered(shares, fitted.confidence_temperature)[:-1].tolist())
    loaded = SearchResult.load(tmp_path / "found.json")
    assert loaded.calibration == fitted and loaded.confidence == after["confidence"]

    assert run(*search, "--reward", "format") == 0  # not what was fitted
    assert "not calibrated" in capsys.readouterr().out
    assert run(*search, "--inverse-temperature", 3) == 0
    assert "not calibrated" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["config"]["inverse_temperature"] == 3


def test_training_ends_with_a_fit(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, with the demo in the place of what was trained: once fitted it is not fitted again."""
    stage = StageConfig("last", samples={"stage1": 4})
    plan = Curriculum("elsewhere", (stage,), source="synthetic")
    shutil.copytree(demo_folder, tmp_path / "last" / "model")
    done = [Trained(stage, tmp_path / "last", TrainingProgress(steps=1))]
    monkeypatch.setattr(training_run, "train", lambda *_: done)
    monkeypatch.setattr(training_config, "load", lambda *_, **__: plan)
    assert run("train", "mine", "-o", tmp_path, "--calibrate", 3) == 0
    assert "stay unknown: 3 samples of stage1 are too few" in " ".join(capsys.readouterr().err.split())
    assert run("train", "mine", "-o", tmp_path, "--calibrate", 8) == 0
    file = tmp_path / "last" / "model" / calibration.FILE
    fitted, first = calibration.read(file.parent), file.read_text()
    assert fitted["stage1"].origin["samples"] == 8
    assert run("train", "mine", "-o", tmp_path, "--calibrate", 9) == 0
    assert file.read_text() == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "test"), "says nothing about it"),
        (("--reward", "format"), "leave it out"),
        (("--source", "nowhere"), "choose published"),
        (("--json", "absent/fit.json"), "there is no folder"),
        (("--source", "synthetic", "--stage", "stage9"), "no stage 'stage9'"),
    ],
)
def test_what_cannot_be_fitted(
    arguments: tuple[object, ...], says: str, demo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("calibrate", demo_folder, *arguments) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (demo_folder / calibration.FILE).exists()
