"""The answers follow from the question, where a person gives nothing else."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import TSLMError, stages
from mlx_tslm.cli import main
from mlx_tslm.stages.asked import choice, whether
from mlx_tslm.stages.ecg import answers_of, template_of

ECG, HAR, SLEEP, TSQA, M4 = (stages.get(key) for key in ("ecg", "har", "sleep", "tsqa", "m4"))


@pytest.mark.parametrize(
    "question",
    [
        "Is there a sign of atrial fibrillation?",
        "does the rhythm change",
        "Are there two or more early beats?",
        "Can P waves be seen?",
        "Can you see P waves?",
        "Was there a pause of 2.5 s?",
        "Isn't this flutter?",
        "Has the rate doubled?",
        "The patient is 81. Is there a sign of infarction?",
        "In lead II, does the ST segment rise?",
        "Is the rhythm regular or not?",
        "Is it regular, yes or no?",
        "Does it show any sign of ischemia or infarction?",
        "Tell me whether it is regular.",
        "Could you tell me if the rhythm is regular?",
        "Any sign of infarction?",
    ],
)
def test_a_question_that_asks_whether_has_yes_and_no(question: str) -> None:
    assert whether(question) and choice(question) is None
    found = ECG.assume(question)
    assert found is not None and found.answers == ("no", "yes")
    walking = HAR.assume(question)
    assert walking is not None and walking.answers == ("no", "yes", *(HAR.labels or ()))


@pytest.mark.parametrize(
    ("question", "offered"),
    [
        ("Is the rhythm regular or irregular?", ("regular", "irregular")),
        ("Is this sinus rhythm or atrial fibrillation?", ("sinus rhythm", "atrial fibrillation")),
        ("Does this ECG show Sinus Rhythm or AFib?", ("sinus rhythm", "AFib")),
        ("Is the rhythm sinus bradycardia or sinus rhythm?", ("sinus bradycardia", "sinus rhythm")),
        ("Is this a normal or an abnormal ECG?", ("normal", "abnormal ECG")),
        ("Is it a level shift or a spike?", ("level shift", "spike")),
        ("Is the heart rate above or below 60?", ("above 60", "below 60")),
        ("Which is longer, the PR or the QT interval?", ("PR", "qt interval")),
        ("What is the trend: up or down?", ("up", "down")),
        ("Is the trend upward, downward or flat?", ("upward", "downward", "flat")),
        ("Is it atrial fibrillation, atrial flutter, or sinus rhythm?",
         ("atrial fibrillation", "atrial flutter", "sinus rhythm")),
        ("Walking or running?", ("Walking", "running")),
    ],
)  # fmt: skip
def test_a_or_b_has_the_two(question: str, offered: tuple[str, ...]) -> None:
    found = ECG.assume(question)
    assert found is not None and found.answers == offered


def test_labels_of_a_stage_are_spelt_as_it_spells_them() -> None:
    found = HAR.assume("Is this person Walking or RUNNING?")
    assert found is not None and found.answers == ("walking", "running")
    found = SLEEP.assume("Is the sleeper awake or in deep sleep?")
    assert found is not None and found.answers[0] == "Wake"


@pytest.mark.parametrize(
    "question",
    [
        "What is the heart rate?",
        "How fast does the heart beat?",
        "Which symptoms of ischemia or infarction are seen?",
        "Describe the rhythm.",
        "Can you tell me what the rhythm is?",
        "Could you please describe the rhythm or the rate?",
        "Do you know what rhythm this is?",
        "",
    ],
)
def test_without_a_match_the_answers_are_free(question: str) -> None:
    assert ECG.assume(question) is None
    assert HAR.assume(question) is None  # its own labels stay


@pytest.mark.parametrize(
    ("question", "template"),
    [
        ("What rhythm-related symptoms does this ECG show?", 10),
        ("  what  rhythm-related symptoms does this ecg show ", 10),
        ("Does this ECG show symptoms of atrial fibrillation?", 1),
        ("Which diagnostic symptom does this ECG show, hypertrophy or conduction disturbance?", 3),
        (
            "Which diagnostic symptom does this ECG show, ischemic in lateral leads or long qt-interval, excluding "
            "uncertain symptoms?",
            5,
        ),
        ("What diagnostic symptoms does this ECG show, including uncertain symptoms?", 8),
        ("What form-related symptoms does this ECG show in lead aVF?", 18),
        ("What leads are showing symptoms of inverted t-waves in this ECG?", 19),
        ("What direction is this ECG deviated to?", 22),
        ("What stage of infarction is this ECG at?", 25),
        ("Which noise does this ECG show in lead V1, static noise or burst noise?", 31),
        ("What kind of noises does this ECG show in lead aVF?", 33),
        ("What kind of extra systole does this ECG show?", 38),
        ("What range does the qt interval of this ECG fall in?", 41),
        ("What numeric features of this ECG fall above the normal range?", 42),
    ],
)
def test_a_template_of_ecg_qa_has_its_answers(question: str, template: int) -> None:
    assert template_of(question) == template
    found = ECG.assume(question)
    assert found is not None and found.answers == answers_of(template)
    assert str(template) in found.as_what


@pytest.mark.parametrize(
    "question",
    [
        "What rhythm is this?",
        "What range does the mood of this ECG fall in?",
        "Does this ECG show symptoms of inverted t-waves in lead V2?",
        "What form-related symptoms does this ECG show in bed?",
    ],
)
def test_other_words_are_no_template(question: str) -> None:
    assert template_of(question) is None


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read(text: str) -> None:
    for stage in (ECG, HAR, SLEEP, TSQA, M4):
        found = stage.assume(text)
        assert found is None or (len(found.answers) > 1 and all(found.answers))


def test_a_caption_is_a_text_of_its_own() -> None:
    assert M4.assume("Is there a trend?") is None


def test_multiple_choice_offers_what_the_question_does_not() -> None:
    series = np.arange(16.0)
    asked = TSQA.prompt(series, "Is there an upward trend?", answers=("yes", "no"))
    assert asked.labels == {"(a)": "yes", "(b)": "no"} and asked.pre.endswith("trend?\n(a) yes\n(b) no")
    assert TSQA.assume("Is it rising? (a) yes (b) no") is None
    with pytest.raises(TSLMError, match="offers its answers itself"):
        TSQA.prompt(series, "Is it rising? (a) yes (b) no", answers=("yes", "no"))
    with pytest.raises(TSLMError, match="27 are too many"):
        TSQA.prompt(series, "Which?", answers=list(map(str, range(27))))


# --- through the front door


def ask(folder: Path, tmp_path: Path, command: str, *options: str) -> dict[str, object]:
    series, out = tmp_path / "ecg.csv", tmp_path / "found.json"
    seconds = np.arange(1000) / 100
    beats = np.exp(-(((seconds % 0.8) - 0.4) ** 2) / 0.0005)
    np.savetxt(series, np.column_stack([beats, -beats]), delimiter=",", header="II,V1", comments="")
    asked = [command, "--model", str(folder), "--series", str(series), "--source-rate", "100", "--max-tokens", "24"]
    if command == "search":
        asked += ["--num-rollouts", "2", "--width", "2", "--json", str(out)]
    assert main([*asked, *options]) == 0
    return dict(json.loads(out.read_text())) if command == "search" else {}


def test_what_was_assumed_is_a_note_and_answers_overrule_it(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whether_so = ("--stage", "stage5", "--question", "Is there a sign of atrial fibrillation?")
    found = ask(demo_folder, tmp_path, "search", *whether_so)
    assert {one["answer"] for one in found["answers"]} <= {"no", "yes"}  # type: ignore[attr-defined]
    assert any("with the answers no, yes; --answers gives others" in note for note in found["notes"])  # type: ignore[attr-defined]
    assert "asks whether" in " ".join(capsys.readouterr().err.split())
    found = ask(demo_folder, tmp_path, "search", *whether_so, "--answers", "no, perhaps (a, b), surely")
    assert {one["answer"] for one in found["answers"]} <= {"no", "perhaps (a, b)", "surely"}  # type: ignore[attr-defined]
    assert not any("--answers" in note for note in found["notes"])  # type: ignore[attr-defined]
    free = ask(demo_folder, tmp_path, "search", "--stage", "stage5", "--question", "What is the heart rate?")
    assert not any("--answers" in note for note in free["notes"])  # type: ignore[attr-defined]


def test_generate_says_where_its_answer_is_not_allowed(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--stage", "stage5", "--question", "Is it regular?", "--answers", "one,two", "--max-tokens", "3")
    ask(demo_folder, tmp_path, "generate", *options)
    assert "no allowed answer: none was given" in capsys.readouterr().err
    ask(demo_folder, tmp_path, "generate", *options, "--json")
    said = json.loads(re.sub(r"^[^{]*", "", capsys.readouterr().out))
    assert said["answer"] is None and any("no allowed answer" in note for note in said["notes"])
