"""A model of one's own: the table of questions, its splits, the task as TOML, and the commands."""

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_tslm import data, rewards, stages
from mlx_tslm.cli import main
from mlx_tslm.data import own
from mlx_tslm.data.own import splits
from mlx_tslm.errors import TSLMError
from mlx_tslm.stages import task

HEAD = "recording,question,answer,person"
WORDS = ("fast", "none", "slow")


def write_recording(folder: Path, name: str, samples: int = 60, rate: float = 50.0, speed: float = 3.0) -> None:
    t = np.arange(samples) / rate
    rows = (f"{a:.4f},{np.sin(2 * np.pi * speed * a) + 0.01 * i:.5f}" for i, a in enumerate(t))
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(["time,v", *rows]) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 recordings of eight persons, and their questions."""
    for number in range(24):
        write_recording(tmp_path / "recordings", f"{number}.csv", speed=1.0 + number % 3)
    (tmp_path / "questions.csv").write_text("\n".join([HEAD, *questions()]) + "\n")
    return tmp_path


def questions(count: int = 24) -> list[str]:
    return [f'{n}.csv,"Fast, slow or none?",{WORDS[n % 3]},p{n // 3}' for n in range(count)]


def refused(folder: Path, rows: Sequence[str], head: str = HEAD, **more: Any) -> str:
    table = folder / "other.csv"
    table.write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(TSLMError) as caught:
        own.Questions(table, **more).check_ready(4096)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_task_is_made_of_the_table(folder: Path) -> None:
    table = own.Questions(folder)
    stage = table.stage
    assert (stage.labels, stage.rate, stage.length, stage.channels) == (WORDS, 50.0, 60, 1)
    rows = table.of("test")
    sample = rows.stage.from_row(rows[0])
    assert sample.prompt.asked == "Fast, slow or none?" and sample.answer in WORDS
    assert rows[0]["from"]["recording"] == f"{rows[0]['from']['row'] - 2}.csv"
    assert any("24 questions, split by recording and person (8)" in note for note in table.notes)


def test_the_same_interface_as_the_published_data(folder: Path) -> None:
    rows = data.load(None, "train", source=folder, limit=3)
    assert len(rows) == 3 and rows.split == "train" and len(list(rows)) == 3
    assert len(data.load(None, "all", source=folder / "questions.csv")) == 24
    with pytest.raises(TSLMError, match="there is no split 'exam'"):
        data.load(None, "exam", source=folder)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6), st.sampled_from("abc")), min_size=20, max_size=80),
    st.integers(0, 5),
)
def test_no_recording_and_no_person_is_in_two_splits(rows: list[tuple[int, int, str]], seed: int) -> None:
    keys = [[("recording", one), ("person", two)] for one, two, _ in rows]
    groups = splits.together(keys)
    drawn = splits.stratified(groups, [answer for *_, answer in rows], seed, splits.SHARES)
    home: dict[object, str] = {}
    for own_keys, split in zip(keys, drawn, strict=True):
        for key in own_keys:
            assert home.setdefault(key, split) == split
    if len(set(groups)) >= 3:
        assert set(drawn) == set(splits.SHARES)
    assert drawn == splits.stratified(groups, [answer for *_, answer in rows], seed, splits.SHARES)


@given(st.lists(st.integers(10, 60), min_size=2, max_size=4), st.integers(0, 9))
def test_each_answers_rows_are_shared_out_alike(counts: list[int], seed: int) -> None:
    answers = [str(at) for at, count in enumerate(counts) for _ in range(count)]
    drawn = splits.stratified(list(range(len(answers))), answers, seed, splits.SHARES)
    for at, count in enumerate(counts):
        for split, share in splits.SHARES.items():
            got = sum(d == split and a == str(at) for d, a in zip(drawn, answers, strict=True))
            assert abs(got - share * count) <= 1.0 + 1e-9


def test_another_seed_is_another_split(folder: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        (folder / "task.toml").write_text(f'name = "speed"\nlabels = {json.dumps(WORDS)}\nsplit_seed = {seed}\n')
        drawn.append(own.Questions(folder, stages.get(str(folder / "task.toml"))).assigned)
    assert drawn[0] == drawn[1] != drawn[2]


BAD: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "missing": (lambda rows: ["no.csv,q,fast,", *rows], r"row 2: .*no\.csv"),
    "outside the labels": (
        lambda rows: [*rows, "1.csv,q,sideways,p0"],
        "row 26: .*its answer 'sideways' is none",
    ),
    "too short": (lambda rows: [*rows, "short.csv,q,fast,"], "row 26: short.csv: it has 20 samples, too short for"),
    "another rate": (
        lambda rows: [*rows, "rate.csv,q,fast,"],
        "row 26: rate.csv: it is recorded at 250 Hz",
    ),
    "no answer": (lambda rows: [*rows[:3], "3.csv,q,,p1", *rows[3:]], "row 5: its answer is empty"),
    "cells too many": (
        lambda rows: [*rows[:3], "3.csv,a, b,fast,p1"],
        "row 5: has 5 cells, but there are 4",
    ),
    "no number in it": (lambda rows: [*rows, "text.csv,q,fast,"], "row 26: .*text.csv"),
    "ten examples": (lambda rows: rows[:10], r"has 10 examples \(rows 2 to 11\), too few"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_one_line_that_names_it(kind: str, folder: Path) -> None:
    change, said = BAD[kind]
    write_recording(folder / "recordings", "short.csv", samples=20)
    write_recording(folder / "recordings", "rate.csv", rate=250.0)
    (folder / "recordings" / "text.csv").write_text("name,place\nann,here\nbob,there\n")
    (folder / "task.toml").write_text(f'name = "speed"\nlabels = {json.dumps(WORDS)}\nrate = 50\nlength = 60\n')
    assert re.search(said, refused(folder, change(questions()), stage=stages.get(str(folder / "task.toml"))))


def test_all_bad_rows_are_found_before_training(folder: Path) -> None:
    rows = questions()
    rows[4], rows[9], rows[20] = "a.csv,q,fast,", "b.csv,q,fast,", "c.csv,q,,"
    assert refused(folder, rows).endswith("2 more rows are wrong: 11, 22")


@pytest.mark.parametrize(
    ("head", "row", "said"),
    (
        (HEAD.replace("recording", "recoding"), "", "has a column 'recoding'; call it 'recording'"),
        (HEAD.replace("answer", "reply"), "", "has no column 'answer'"),
        (f"{HEAD},answer", "", "has two columns called 'answer'"),
        (f"{HEAD},split", "0.csv,q,fast,p0,exam", "row 2: its split is 'exam'"),
        (f"{HEAD},start", "0.csv,q,fast,p0,soon", "row 2: its start is 'soon', not a number"),
        (f"{HEAD},seconds", "0.csv,q,fast,p0,99", r"row 2: .*the window ends at 99 s, but the recording has 1.2 s"),
        (f"{HEAD},channel", "0.csv,q,fast,p0,ecg", "row 2: .*there is no channel 'ecg'"),
    ),
)
def test_columns_that_are_wrong(head: str, row: str, said: str, folder: Path) -> None:
    assert re.search(said, refused(folder, [row, *questions()] if row else questions(), head))


def test_a_person_or_a_recording_in_two_splits(folder: Path) -> None:
    given = [f"{row},{'test' if at > 20 else 'train'}" for at, row in enumerate(questions())]
    head = f"{HEAD},split"
    (folder / "good.csv").write_text("\n".join([head, *given]))
    good = own.Questions(folder / "good.csv")
    assert set(good.assigned) == {"train", "validation", "test"} and good.assigned[21:] == ["test"] * 3
    given[5] = given[5].replace("train", "test")
    assert "row 7: person 'p1' is in test, but in train in row 5" in refused(folder, given, head)
    given[5] = "21.csv,q,slow,,train"
    assert "row 23: recording '21.csv' is in test, but in train in row 7" in refused(folder, given, head)
    given[5] = "5.csv,q,slow,p1,"
    assert "row 7: its split is empty, where others have one" in refused(folder, given, head)


def test_windows_channels_and_cases(folder: Path) -> None:
    t = np.arange(100) / 50
    np.savez(folder / "two.npz", left=np.sin(t), right=np.cos(t), fs=50.0)
    rows = [f"two.npz,{WORDS[n % 3]},{0.02 * n:g},0.4,right" for n in range(24)]
    (folder / "t.csv").write_text(
        "\n".join(["recording;answer;start;seconds;channel", *(r.replace(",", ";") for r in rows)])
    )
    table = own.Questions(folder / "t.csv")
    recording = table.of("all")[3]["recording"]
    assert (recording.names, recording.values.shape, recording.rate) == (("right",), (1, 20), 50.0)
    np.testing.assert_allclose(recording.values[0], np.cos(t)[3:23])
    assert len(set(table.assigned)) == 1, "one recording is in one split"


def test_a_rate_that_the_file_does_not_state_is_the_tasks(folder: Path) -> None:
    np.save(folder / "bare.npy", np.arange(200.0))
    (folder / "task.toml").write_text(f'name = "speed"\nlabels = {json.dumps(WORDS)}\nrate = 50\nresample = true\n')
    write_recording(folder / "recordings", "rate.csv", samples=250, rate=250.0)
    (folder / "t.csv").write_text("recording,answer,start,seconds\nbare.npy,fast,1,2\nrate.csv,slow,,\n")
    rows = own.Questions(folder / "t.csv", stages.get(str(folder / "task.toml"))).of("all")
    assert rows[0]["recording"].values[0].tolist() == np.arange(50.0, 150.0).tolist()
    assert (rows[1]["recording"].rate, rows[1]["recording"].values.shape) == (50.0, (1, 50))


def test_rationales_stand_before_the_answer(folder: Path) -> None:
    rows = [f"{n}.csv,It turns. ,{WORDS[n % 3]}" for n in range(24)]
    (folder / "t.csv").write_text("\n".join(["recording,rationale,answer", *rows]))
    table = own.Questions(folder / "t.csv")
    row = table.of("all")[0]
    assert row["target"] == "It turns. Answer: fast" and table.stage.parse(row["target"]) == "fast"
    (folder / "task.toml").write_text(f'name = "speed"\nlabels = {json.dumps(WORDS)}\n')
    with pytest.raises(TSLMError, match=r"row 2: .*no marker that parts a rationale"):
        own.Questions(folder / "t.csv", stages.get(str(folder / "task.toml")))


def test_a_published_stages_wording_with_ones_own_answers(folder: Path) -> None:
    stage = own.open_table(str(folder), "stage5").stage
    assert stage.labels == WORDS and stage.name == "questions" and stage.group == "" and stage.medical
    question = stage.prompt(np.zeros((1, 60)) + np.arange(60), "Fast, slow or none?")
    assert (
        "expert cardiologist" in question.pre and "fast, none, slow" in question.post and question.labels == WORDS
    )


@pytest.mark.parametrize("name", stages.names())
def test_the_published_stages_stand_in_the_terms_of_a_task(name: str, tmp_path: Path) -> None:
    """Written as TOML, each is read as a stage that words, normalises and judges as it does."""
    stage = stages.get(name)
    rewards.check_stage(stage)
    text = task.dumps(stage)
    head, _, tables = text.partition("\n[")
    lines = [line for line in head.splitlines() if not line.startswith(("name =", "key ="))]
    file = tmp_path / "own.toml"
    file.write_text("\n".join(['name = "one of my own"', *lines]) + (f"\n[{tables}" if tables else "\n"))
    mine = stages.get(str(file))
    series = np.random.default_rng(0).normal(size=(stage.channels, 200))
    for question in (None, "What (a) now (b) then?"):
        a, b = stage.prompt(series, question), mine.prompt(series, question)
        assert (a.pre, a.post, a.labels, a.asked) == (b.pre, b.post, b.labels, b.asked)
        for one, other in zip(a.series, b.series, strict=True):
            assert one.text == other.text and (one.values == other.values).all()
    for said in ("So. Answer: N2", "(b)", "Answer: walking_up.", "nothing"):
        assert stage.parse(said) == mine.parse(said)
    left_out = {"name", "key", "title", "published", "group", "trained_on"}
    for field in fields(stage):
        if field.name not in left_out:
            assert getattr(mine, field.name) == getattr(stage, field.name), field.name


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=30), min_size=3, max_size=3),
    st.none() | st.floats(0.1, 1e5),
    st.dictionaries(st.text(min_size=1, max_size=8).map(str.casefold), st.just("yes"), max_size=3),
)
def test_a_task_is_written_as_it_is_read(texts: list[str], rate: float | None, synonyms: dict[str, str]) -> None:
    raw: dict[str, Any] = {"name": "own", "labels": ["yes", "no"], "rate": rate, "synonyms": synonyms}
    raw |= dict(zip(("pre", "post", "title"), texts, strict=True))
    first = task.from_dict({key: value for key, value in raw.items() if value is not None}, stages.get)

    again = task.from_dict(tomllib.loads(task.dumps(first)), stages.get)
    for field in fields(first):
        assert getattr(again, field.name) == getattr(first, field.name), field.name


WRONG = {
    'labels = ["a", "b"]': "name is missing",
    'name = "x"\nlabels = ["a", "A."]': "'a' stands there twice",
    'name = "x"\nlabels = ["a"]': "give at least two",
    'name = "x"\nlable = ["a", "b"]': "unknown key 'lable'",
    'name = "x"\npre = "{quest}"': "pre: 'quest' in braces is not known",
    'name = "x"\npost = "{"': "post: ",
    'name = "x"\nlike = "stage9"': "there is no stage 'stage9'",
    'name = "ecg"': "there is a stage called 'ecg' already",
    'name = "../x"': "use letters, digits",
    'name = "x"\nrate = -1': "rate must be a positive number",
    'name = "x"\nlength = 0': "length must be at least one sample",
    'name = "x"\nnormalise = "minmax"': "choose unbiased-epsilon",
    'name = "x"\nresample = true': "resample needs the rate",
    'name = "x"\nmetrics = ["auc"]': "there is no 'auc'",
    'name = "x"\nlabels = ["a", "b"]\n[synonyms]\nc = "d"': "'d' is none of the labels",
    "name = ": "is no TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_task_that_is_wrong_is_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "task.toml"
    file.write_text(text)
    with pytest.raises(TSLMError) as caught:
        stages.get(str(file))
    assert WRONG[text] in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_claims_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text('name = "x"\n[claims]\nspeed = 1.0\n')
    with pytest.raises(TSLMError, match="there is no kind of claim 'speed'; choose from"):
        rewards.check_stage(stages.get(str(tmp_path / "task.toml")))


def test_train_then_eval_then_ask(
    folder: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("sklearn")
    import mlx.core as mx

    from mlx_tslm import load
    from mlx_tslm.training import config

    monkeypatch.chdir(tmp_path)
    short = config.load(config.OWN, model=str(tiny_folder), source=str(folder))
    assert short.on_table and short.stages[0].patience > 1 and short.stages[0].lora
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'model = "{tiny_folder}"\nsource = "{folder}"\n[[stages]]\nname = "own"\nlora = true\nepochs = 1\n'
        "batch_size = 8\n"
    )
    (folder / "bad.csv").write_text("\n".join([HEAD, *questions(), "no.csv,q,fast,p0"]))
    (folder / "few.csv").write_text("\n".join([HEAD, *questions(12)]))
    for name, said in (("bad.csv", "bad.csv, row 26: there is no file"), ("few.csv", "12 examples (rows 2 to 13)")):
        assert main(["train", str(folder / name), "--model", str(tiny_folder), "-o", "none"]) == 2
        error = capsys.readouterr().err
        assert said in error and not Path("none").exists(), error
    mx.disable_compile()
    try:
        assert main(["train", str(folder / "questions.csv"), "-o", "none"]) == 2
        assert "--model" in capsys.readouterr().err and not Path("none").exists()
        assert main(["train", str(plan), "-o", "mine"]) == 0
    finally:
        mx.enable_compile()
    assert "24 questions, split by recording and person" in capsys.readouterr().err
    model = load("mine")
    assert model.stage is not None and model.stage.name == "questions" and model.stage.labels == WORDS
    assert model.config.trained_on == {"questions": {**model.config.trained_on["questions"], "rate": 50.0}}  # type: ignore[index]
    assert stages.get("mine/own/model/task.toml").labels == WORDS

    assert main(["eval", "--model", "mine", "--data", str(folder), "--max-tokens", "4"]) == 0
    shown = capsys.readouterr().out
    assert "majority" in shown and "zeroed series" in shown
    out = Path("eval/mine-questions-test")
    lines = [json.loads(line) for line in (out / "greedy.jsonl").read_text().splitlines()]
    numbers = [at for at, split in enumerate(own.Questions(folder).assigned) if split == "test"]
    assert [one["from"] for one in lines] == [
        {"row": at + 2, "recording": f"{at}.csv", "case": None} for at in numbers
    ]
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["baselines"]["majority"]["metrics"]["answer"]["accuracy"]["value"] == pytest.approx(
        sum(WORDS[at % 3] == figures["baselines"]["majority"]["answer"] for at in numbers) / len(numbers)
    )
    assert figures["baselines"]["zeroed series"]["samples"] == len(numbers)

    asked = ["generate", "--model", "mine", "--series", str(folder / "recordings" / "0.csv"), "--max-tokens", "2"]
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "questions"
    assert main(["eval", "--model", "mine", "--max-tokens", "4"]) == 2
    assert "name the table of its questions with --data" in capsys.readouterr().err


def test_a_training_that_has_not_ended_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curriculum.json").write_text('{"digest": "", "model": "", "stages": ["own"]}')
    assert main(["generate", "--model", str(tmp_path / "run"), "--series", "x.csv"]) == 2
    assert main(["search", "--model", str(tmp_path / "run"), "--batch", str(tmp_path)]) == 2
    assert "has not come to its end" in capsys.readouterr().err
