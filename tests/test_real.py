"""The check on real recordings: each question can be asked, and answers are judged as a person would judge them."""

from pathlib import Path

import numpy as np
import pytest

from mlx_tslm import stages
from mlx_tslm.evaluation import real
from mlx_tslm.rewards.facts import physiology
from mlx_tslm.signals import Recording, read, resample

FOLDER = Path(__file__).parent / "data" / "real"
QUESTIONS = FOLDER / "questions.toml"


def test_questions_can_be_asked_and_their_right_answers_are_judged_right() -> None:
    asked = list(real.items(QUESTIONS, [FOLDER]))
    assert len(asked) > 20
    for item in asked:
        stage = stages.get(item.stage, ("II", "V1"))
        options = {key: value for key, value in item.asked.items() if key != "question"}
        prompt = stage.prompt(item.recording, item.asked.get("question"), **options)
        assert prompt.series
        for answer in item.expects.get("right", []):
            assert real.judge(item, f"As it looks. Answer: {answer}") == real.RIGHT
        for answer in item.expects.get("known", []):
            assert real.judge(item, f"As it looks. Answer: {answer}") == real.WRONG
        assert real.judge(item, "The peak biking of their.580 samples") == real.UNCLEAR


def test_the_rate_that_is_asked_for_is_the_records() -> None:
    record = resample(read(FOLDER / "s0010_re.hea"), 100.0)
    leads = [record.values[i] for i in (1, 6, 10)]
    found = physiology.find_beats(leads, 100.0)
    assert found is not None
    told = {item.expects["rate"] for item in real.items(QUESTIONS, [FOLDER]) if "rate" in item.expects}
    assert told == {round(60 / np.diff(found.times).mean())}


@pytest.mark.parametrize(
    ("expects", "text", "verdict"),
    [
        ({"rate": 80}, "Fast. Answer: 84 bpm", real.RIGHT),
        ({"rate": 80}, "Fast. Answer: 84 beats a minute.", real.RIGHT),
        ({"rate": 80}, "Fast. Answer: 86 bpm", real.WRONG),
        ({"rate": 80}, "Fast. Answer: 84 samples", real.UNCLEAR),
        ({"rate": 80}, "It beats 80 times.", real.UNCLEAR),
        ({"direction": "upward"}, "The trend is upward and steady.", real.RIGHT),
        ({"direction": "upward"}, "It falls faster and faster.", real.WRONG),
        ({"direction": "upward"}, "biking", real.UNCLEAR),
        ({"period": [9, 10]}, "It has a season of 10 samples with steady swings.", real.RIGHT),
        ({"period": [9, 10]}, "There is no season.", real.WRONG),
    ],
)
def test_judging(expects: dict, text: str, verdict: str) -> None:
    stage = "stage5" if "rate" in expects else "stage2"
    assert real.judge(real.Item("", Recording([0.0, 1.0]), stage, {}, expects), text) == verdict
