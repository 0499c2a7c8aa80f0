"""What a model was trained on, and what is said of recordings that are not like it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import depth, signals, stages
from mlx_tslm.cli import main
from mlx_tslm.conversion import recipe
from mlx_tslm.depth import TrainedOn
from mlx_tslm.models.config import ModelConfig

TRAINED = TrainedOn((64, 512), (1, 3), (0.02, 20.0), 50.0)


def recording(samples: int = 128, channels: int = 2, deviation: float = 1.0, rate: float | None = 50.0):
    wave = np.where(np.arange(samples) % 2, 1.0, -1.0) * deviation
    return signals.Recording(np.stack([wave] * channels), rate=rate)


def test_nothing_is_said_of_a_recording_like_those_of_the_training() -> None:
    assert depth.outside([recording()], TRAINED) == []
    assert depth.outside([recording()], None) == []
    assert depth.outside([recording(1)], TrainedOn()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 600}, "600 samples: the model was trained on 64 to 512"),
        ({"samples": 20}, "20 samples: the model was trained on 64 to 512"),
        ({"channels": 5}, "5 channels: the model was trained on 1 to 3"),
        ({"deviation": 900.0}, r"deviation of '0' \(900\), '1' \(900\) .* 0.02 to 20: check the unit"),
        ({"deviation": 0.001}, r"deviation of '0' \(0.001\)"),
        ({"rate": 20.0}, "recorded at 20 Hz: the model was trained at 50 Hz"),
    ],
)
def test_what_lies_outside_is_said(changes: dict, said: str) -> None:
    (note,) = depth.outside([recording(**changes)], TRAINED)
    assert re.search(said, note)


def test_a_flat_channel_and_an_unknown_rate_are_no_matter_of_depth() -> None:
    assert depth.outside([recording(deviation=0.0, rate=None)], TRAINED) == []


@given(st.sampled_from((10.0, 12.5, 25.0, 100.0, 128.0, 500.0)), st.integers(60, 900))
@settings(max_examples=25, deadline=None)
def test_a_known_rate_is_brought_to_the_models_own(rate: float, samples: int) -> None:
    t = np.arange(samples) / rate
    one = signals.Recording(np.sin(2 * np.pi * 0.7 * t), rate=rate)
    (brought,), (note,) = depth.at_own_rate([one], 50.0)
    assert brought.rate == 50.0 and brought.seconds == pytest.approx(one.seconds, abs=0.021)
    assert note == f"brought from {rate:g} to 50 Hz, the rate that the model was trained at"
    inner = slice(25, brought.values.shape[1] - 25)
    wave = np.sin(2 * np.pi * 0.7 * np.arange(brought.values.shape[1]) / 50)
    assert np.allclose(brought.values[0][inner], wave[inner], atol=0.1)


@pytest.mark.parametrize(("rate", "own"), [(None, 50.0), (50.0, 50.0), (20.0, None)])
def test_other_recordings_stay_as_they_are(rate: float | None, own: float | None) -> None:
    one = recording(rate=rate)
    assert depth.at_own_rate([one], own) == ([one], [])


def test_spans_are_measured_on_prompts() -> None:
    stage = stages.get("stage3")
    waves = [np.random.default_rng(n).standard_normal((3, 100 + 50 * n)) * 10**n for n in range(3)]
    measured = depth.measure([stage.prompt(wave) for wave in waves], 50.0)
    assert (measured.samples, measured.channels, measured.rate) == ((100, 200), (3, 3), 50.0)
    assert measured.deviation is not None
    assert 0.7 < measured.deviation[0] < 1.3 and 70 < measured.deviation[1] < 130
    assert TrainedOn.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured


def test_the_demo_model_says_what_it_was_trained_on_and_so_do_the_published_ones() -> None:
    config = ModelConfig({}, trained_on=recipe.demo().trained_on)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    for stage in stages.names():
        trained = depth.of(again.trained_on, stage)
        assert trained is not None and trained.samples is not None and trained.channels is not None
    ecg = depth.of(recipe.resolve("stage5").trained_on, "stage5")
    assert ecg == TrainedOn((1000, 1000), (12, 12), rate=100.0)
    assert depth.of(recipe.resolve("stage1").trained_on, "stage1") is None


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A tiny model that says what it was trained on."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    file = folder / "config.json"
    config = json.loads(file.read_text()) | {"trained_on": {"stage3": TRAINED.to_dict()}}
    file.write_text(json.dumps(config))
    return folder


def told(capsys: pytest.CaptureFixture[str], command: str, folder: Path, samples: int, *more: str) -> str:
    """What is said on stderr about an accelerometer of 10 Hz; the answer itself does not matter."""
    wave = folder.parent / "wave.csv"
    np.savetxt(wave, np.random.default_rng(0).standard_normal((samples, 3)), delimiter=",")
    asked = ["-m", str(folder), "-s", str(wave), "--stage", "stage3", "--source-rate", "10", "--max-tokens", "2"]
    assert main([command, *asked, *more]) == 0
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["generate", "search"])
def test_the_command_line_says_so_before_it_answers(
    capsys: pytest.CaptureFixture[str], folder: Path, command: str
) -> None:
    more = ("--num-rollouts", "2", "--width", "2") if command == "search" else ()
    said = told(capsys, command, folder, 10, *more)
    assert "note: brought from 10 to 50 Hz" in said
    assert "note: 50 samples: the model was trained on 64 to 512" in said


def test_a_rate_that_is_asked_for_is_kept(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    said = told(capsys, "generate", folder, 70, "--rate", "20")
    assert "brought from" not in said
    assert "note: recorded at 20 Hz: the model was trained at 50 Hz" in said
