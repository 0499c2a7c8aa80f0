"""The stages' prompts equal OpenTSLM's own to the character; answers are parsed; mistakes are named.

The golden texts and values come from OpenTSLM's data set classes: see `data/stages/make.py` and the origin kept in
`data/stages/golden.json`.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_tslm import TSLMError, stages
from mlx_tslm.signals import Recording
from mlx_tslm.stages.ecg import LEADS, answers_of, record_path
from mlx_tslm.stages.tsqa import QUESTIONS

DATA = Path(__file__).parent / "data" / "stages"
ROWS = json.loads((DATA / "rows.json").read_text(encoding="utf-8"))
GOLDEN = json.loads((DATA / "golden.json").read_text(encoding="utf-8"))
KEYS = ("tsqa", "m4", "har", "sleep", "ecg")


@pytest.mark.parametrize(("key", "index"), [(key, index) for key in KEYS for index in range(len(ROWS[key]))])
def test_prompt_of_a_row_is_the_originals(key: str, index: int) -> None:
    row, expected = dict(ROWS[key][index]), GOLDEN[key][index]
    if "ecg_paths" in row:
        pytest.importorskip("wfdb", reason="needs the formats extra")
        row["ecg_paths"] = [str(DATA / path) for path in row["ecg_paths"]]
    prompt, answer = stages.get(key).from_row(row)
    assert prompt.pre == expected["pre"]
    assert [series.text for series in prompt.series] == expected["series"]
    assert prompt.post == expected["post"]
    assert answer == expected["answer"]
    with np.load(DATA / "golden.npz") as golden:
        for number, series in enumerate(prompt.series):
            assert series.values.dtype == np.float32
            np.testing.assert_allclose(series.values, golden[f"{key}-{index}-{number}"], rtol=0, atol=1e-6)


def test_prompt_from_raw_series_is_the_rows() -> None:
    row = ROWS["har"][0]
    axes = [json.loads(row[f"{axis}_axis"]) for axis in "xyz"]
    expected = stages.get("har").from_row(row).prompt
    for series in (axes, np.array(axes), Recording(axes, rate=50.0), [Recording(axis) for axis in axes]):
        prompt = stages.get("har").prompt(series)
        assert (prompt.pre, prompt.post) == (expected.pre, expected.post)
        for ours, theirs in zip(prompt.series, expected.series, strict=True):
            assert ours.text == theirs.text
            np.testing.assert_array_equal(ours.values, theirs.values)


def test_lists_and_their_text_are_the_same_row() -> None:
    row = dict(ROWS["sleep"][0])
    as_text = stages.get("sleep").from_row(row).prompt.series[0]
    row["time_series"] = json.loads(row["time_series"])[0]
    as_list = stages.get("sleep").from_row(row).prompt.series[0]
    assert as_text.text == as_list.text
    np.testing.assert_array_equal(as_text.values, as_list.values)


def test_registry() -> None:
    assert stages.names() == ("stage1", "stage2", "stage3", "stage4", "stage5")
    for name, key in zip(stages.names(), KEYS, strict=True):
        assert stages.get(name) is stages.get(key.upper())
        assert (stages.get(name).name, stages.get(name).key) == (name, key)
    with pytest.raises(TSLMError, match=r"stage6.*stage1 \(tsqa\).*stage5 \(ecg\)"):
        stages.get("stage6")


@pytest.mark.parametrize("key", KEYS)
def test_a_constant_series_is_centred_and_noted(key: str) -> None:
    stage = stages.get(key)
    series = np.full((stage.channels, 50), 1000.1)  # no float32, and its float32 sum rounds
    prompt = stage.prompt(series)
    for one in prompt.series:
        np.testing.assert_array_equal(one.values, 0)
        assert "mean 1000.1" in one.text and "std 0.0000" in one.text
    assert len([note for note in stage.notes(series) if "constant" in note]) == stage.channels


@pytest.mark.parametrize("key", KEYS)
def test_a_single_sample_is_constant(key: str) -> None:
    stage = stages.get(key)
    assert all((one.values == 0).all() for one in stage.prompt(np.ones((stage.channels, 1))).series)


@pytest.mark.parametrize("key", KEYS)
def test_the_default_question_is_the_trained_prompt(key: str) -> None:
    stage = stages.get(key)
    series = np.arange(stage.channels * 20.0).reshape(stage.channels, 20)
    trained, asked = stage.prompt(series), stage.prompt(series, stage.default_question)
    assert (trained.pre, trained.post) == (asked.pre, asked.post)
    assert stage.default_question in trained.pre + trained.post
    free = stage.prompt(series, "Is it blue?")
    assert "Is it blue?" in free.pre + free.post
    assert free.pre.endswith(trained.pre[-40:]) or key == "tsqa"
    assert bool(stage.notes(series, "Is it blue?")) == (key not in ("tsqa", "ecg"))


def test_tsqa_task() -> None:
    stage = stages.get("tsqa")
    series = [1.0, 2.0, 4.0]
    assert stage.prompt(series).post == "Predict the Trend Answer:"
    assert stage.prompt(series, "Are there outliers?").post == "Predict the Outlier Answer:"
    assert stage.prompt(series, "Why?", task="Shape").post == "Predict the Shape Answer:"
    asked = stage.prompt(series, task="season")
    assert (asked.pre, asked.post) == (QUESTIONS["Season"], "Predict the Season Answer:")
    with pytest.raises(TSLMError, match=r"no question for the task 'Shape'.*Trend, Volatility"):
        stage.prompt(series, task="Shape")


def test_tsqa_default_question_is_the_data_sets() -> None:
    assert ROWS["tsqa"][0]["Question"] == stages.get("tsqa").default_question


def test_ecg_leads_are_found_by_name() -> None:
    stage = stages.get("ecg")
    values = np.arange(40.0).reshape(4, 10) ** 2
    recording = Recording(values, ("v1", "vx", "Lead II", "avr"), rate=100.0)
    prompt = stage.prompt(recording)
    assert [one.text.split(",")[0] for one in prompt.series] == [
        "This is ECG Lead II",
        "This is ECG Lead aVR",
        "This is ECG Lead V1",
    ]
    assert "mean " + f"{values[2].mean():.4f}" in prompt.series[0].text
    assert any("left out vx" in note for note in stage.notes(recording))
    unnamed = stage.prompt(np.random.default_rng(0).normal(size=(12, 8)))
    assert [one.text.split(",")[0][17:] for one in unnamed.series] == list(LEADS)
    with pytest.raises(TSLMError, match=r"up to 12 leads.*13"):
        stage.prompt(np.ones((13, 8)))


def test_ecg_recordings_are_numbered() -> None:
    rng = np.random.default_rng(0)
    prompt = stages.get("ecg").prompt([rng.normal(size=(2, 8)), Recording(rng.normal(size=(1, 8)))])
    assert [one.text.split(", it")[0] for one in prompt.series] == [
        "This is ECG Lead I (Recording 1)",
        "This is ECG Lead II (Recording 1)",
        "This is ECG Lead I (Recording 2)",
    ]


def test_ecg_answers() -> None:
    stage = stages.get("ecg")
    series = np.arange(8.0)
    assert answers_of(1) == ("no", "not sure", "yes")
    assert "options:\nno, not sure, yes\n" in stage.prompt(series, template_id=1).post
    assert "options:\nred, blue\n" in stage.prompt(series, answers=["red", "blue"]).post
    assert "options" not in stage.prompt(series).post
    assert "Clinical Context: a fall\n" in stage.prompt(series, clinical_context="a fall").pre
    with pytest.raises(TSLMError, match="no template 71"):
        stage.prompt(series, template_id=71)


def test_ecg_record_path() -> None:
    for ecg_id in (17123, "17123", "[17123]", [17123]):
        assert record_path("ptb", ecg_id) == Path("ptb/records500/17000/17123_hr.hea")
    with pytest.raises(TSLMError, match="ecg_id"):
        record_path("ptb", "seventeen")


@pytest.mark.parametrize(
    ("key", "text", "labels", "answer"),
    [
        ("har", "It moves. Answer: Walking.", None, "walking"),
        ("har", "Answer: sitting. No, Answer: walking_down<|end_of_text|>", None, "walking_down"),
        ("har", "It moves.", None, None),
        ("har", "running<eos>", None, "running"),
        ("har", "Answer: swimming.", None, "swimming"),
        ("har", "Answer: ", None, None),
        ("sleep", "... Answer:\nnon-rem Stage 2 ", None, "Non-REM stage 2"),
        ("ecg", "Answer: Not sure.", ("no", "not sure", "yes"), "not sure"),
        ("ecg", "Answer: Not sure.", None, "Not sure"),
        ("tsqa", "(b)", None, "(b)"),
        ("tsqa", "<|begin_of_text|>(B) This time series has an upward trend.<|end_of_text|>", None, "(b)"),
        ("tsqa", "Answer: c).", None, "(c)"),
        ("tsqa", "A.", None, "(a)"),
        ("tsqa", "upward", None, "upward"),
        ("tsqa", "Rising.", ("rising", "falling"), "rising"),
        ("tsqa", "", None, None),
        ("m4", " It rises.</s>", None, "It rises"),
    ],
)
def test_parse(key: str, text: str, labels: tuple[str, ...] | None, answer: str | None) -> None:
    assert stages.get(key).parse(text, labels) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("(c)", "(c)"),
        ("a rise, then a fall.", "(b)"),
        ("(b) a rise, then a fall", "(b)"),
        ("NO TREND<|end_of_text|>", "(a)"),
        ("b", "(b)"),
        ("a valley", "a valley"),  # not offered
    ],
)
@pytest.mark.parametrize("gap", [" ", "\n"])
def test_an_option_is_its_letter_or_its_words(text: str, answer: str, gap: str) -> None:
    stage = stages.get("tsqa")
    question = gap.join(("Trend(s)?", "(a) no trend", "(b) a rise, then a fall", "(c) (very) low."))
    labels = stage.prompt([1.0, 2.0], question).labels
    assert labels == {"(a)": "no trend", "(b)": "a rise, then a fall", "(c)": "(very) low"}
    assert stage.parse(text, labels) == answer


def test_options_of_the_data_sets_own_questions() -> None:
    stage = stages.get("tsqa")
    for task in QUESTIONS:
        labels = stage.prompt([1.0, 2.0], task=task).labels
        assert isinstance(labels, dict) and tuple(labels) == stage.labels
        assert all(words.startswith("This time series has ") for words in labels.values())
    assert stage.prompt([1.0, 2.0], "Is it flat?").labels == stage.labels
    har = stages.get("har")
    assert har.prompt(np.ones((3, 8))).labels == har.labels
    assert stages.worded("(b)", {"(b)": "up"}) == "(b) up"
    assert stages.worded("yes", ("yes",)) == "yes"


@pytest.mark.parametrize("key", ["tsqa", "har", "sleep", "ecg"])
def test_parse_reads_the_reference_answer(key: str) -> None:
    for row, golden in zip(ROWS[key], GOLDEN[key], strict=True):
        expected = row.get("label") or row.get("answer") or row["Answer"].strip()
        assert stages.get(key).parse(golden["answer"]) == expected


@pytest.mark.parametrize(
    ("key", "series", "message"),
    [
        ("m4", np.ones((2, 9)), r"takes one channel, but there are 2; choose among 0, 1"),
        ("har", np.ones((6, 9)), r"takes 3 channels, but there are 6"),
        ("tsqa", [], "empty"),
        ("tsqa", [1.0, float("nan")], "nan at sample 1"),
        ("tsqa", ["a", "b"], "not numeric"),
        ("har", [[1.0, 2.0], [1.0], [1.0, 2.0]], "different lengths"),
        ("har", [Recording([1.0, 2.0])] * 2 + [Recording([1.0])], r"different lengths \(2, 2, 1 samples\)"),
    ],
)
def test_wrong_series_are_named(key: str, series: object, message: str) -> None:
    with pytest.raises(TSLMError, match=message):
        stages.get(key).prompt(series)  # type: ignore[arg-type]


def test_wrong_rows_and_options_are_named() -> None:
    with pytest.raises(TSLMError, match="no column 'z_axis'"):
        stages.get("har").from_row({"x_axis": "[1]", "y_axis": "[1]", "rationale": "x"})
    with pytest.raises(TSLMError, match="column 'x_axis' is not a list of numbers"):
        stages.get("har").from_row({"x_axis": "x_axis", "y_axis": "[1]", "z_axis": "[1]", "rationale": "x"})
    with pytest.raises(TSLMError, match="data_dir"):
        stages.get("ecg").from_row({"ecg_id": "[1]", "question": "?", "template_id": 1, "rationale": "x"})
    with pytest.raises(TSLMError, match=r"no option 'task'; it takes clinical_context"):
        stages.get("ecg").prompt(np.arange(9.0), task="x")
    with pytest.raises(TSLMError, match="no option 'task'; it takes no options"):
        stages.get("m4").prompt(np.arange(9.0), task="x")


def test_a_different_rate_is_noted() -> None:
    notes = stages.get("ecg").notes(Recording(np.arange(9.0), rate=500.0))
    assert any("500 Hz" in note and "100 Hz" in note for note in notes)


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (("v5",), ["V5"]),
        (("ECG",), ["II"]),
        (("ch1", "ch2"), ["II", "V1"]),
        (("a", "b", "c"), ["I", "II", "V1"]),
        (("i", "v2", "v6"), ["I", "V2", "V6"]),
        (("i", "ii", "iii", "v1"), ["II", "V1"]),
        (("i", "iii", "v2", "v3", "v4"), ["I", "III", "V2"]),
        (LEADS, ["II", "V1"]),
    ],
)
def test_a_model_of_two_leads_takes_up_to_three_under_any_name(names: tuple[str, ...], read: list[str]) -> None:
    stage = stages.get("ecg", ("II", "V1"))
    values = np.random.default_rng(0).standard_normal((len(names), 12))
    prompt = stage.prompt(Recording(values, names, rate=100.0))
    assert [one.text.split(",")[0][17:] for one in prompt.series] == read
    notes = " ".join(stage.notes(Recording(values, names, rate=100.0)))
    assert (f"of {len(names)} channels, this model reads {', '.join(read)}" in notes) == (len(read) < len(names))
    assert ("which leads these are is not known" in notes) == (names[0] in ("ECG", "ch1", "a"))
