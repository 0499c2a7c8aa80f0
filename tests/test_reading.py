"""Recordings through the front door: options, standard input, cases, batches, and what programs are told."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_tslm.cli import main
from mlx_tslm.search import SearchResult

A = [round(0.3 * (at * 7 % 11) - 1, 2) for at in range(64)]
LONG = "patient,time_s,hr\n" + "".join(f"{who},{at},{60 + who + at % 5}\n" for who in (1, 2) for at in range(32))


def write(folder: Path, text: str, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def asked(command: str, model: Path, *more: object) -> list[str]:
    few = ["--num-rollouts", "2", "--width", "2"] if command == "search" else []
    return [command, "--model", str(model), "--stage", "stage1", "--max-tokens", "2", *few, *map(str, more)]


def generated(capsys: pytest.CaptureFixture[str], model: Path, *more: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(asked("generate", model, "--json", "-", *more)) == 0
    return json.loads(capsys.readouterr().out)


def test_json_says_what_was_read(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"2024-03-01 10:00:{at:02d},{A[at]}\n" for at in range(60))
    path = write(tmp_path, "time,ecg [mV]\n" + rows)
    (read,) = generated(capsys, tiny_folder, "--series", path, "--start", 2, "--seconds", 20)["recordings"]
    assert (read["names"], read["units"], read["rate"], read["samples"]) == (["ecg"], ["mV"], 1.0, 20)
    assert read["first"] == [A[2:7]] and read["start"] == "2024-03-01T10:00:02"
    assert read["notes"] == ["left out column 'time': it holds dates"]
    found = tmp_path / "found.json"
    assert main(asked("search", tiny_folder, "--series", path, "--json", found)) == 0
    saved = json.loads(found.read_text())
    assert saved["recordings"][0]["samples"] == 60 and saved["notes"]
    assert len(SearchResult.load(found).completions) == 2


def test_standard_input(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps({"fs": 50, "ppg": A})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    (read,) = generated(capsys, tiny_folder, "--series", "-")["recordings"]
    assert (read["names"], read["rate"], read["samples"]) == (["ppg"], 50.0, 64)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(asked("generate", tiny_folder, "--series", "-")) == 2
    assert "standard input is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "options", "first", "rate"),
    [
        (LONG, ["--case", "2"], [62, 63, 64], 1.0),
        ("v\n" + "".join(f"{'' if at == 3 else at}\n" for at in range(32)), ["--fill", "linear"], [0, 1, 2, 3],
         None),
        ("v\n" + "".join(f"{'' if at == 3 else at}\n" for at in range(32)), ["--start", "4"], [4, 5], None),
        ("a;b\n" + "".join(f"1,{at:03d};2\n" for at in range(32)), ["--decimal", ",", "--channel", "a"],
         [1.0, 1.001], None),
        ("1,2\n3,4\n" * 16, ["--delimiter", ",", "--channel", "0"], [1, 3, 1], None),
        ("time,v\n" + "".join(f"{at * 4},{at}\n" for at in range(32)), ["--time", "time=ms"], [0, 1], 250.0),
        ("junk,1,2\nv\n" + "\n".join(map(str, A)), ["--skip-lines", "1"], A[:3], None),
        ("t,v\n" + "".join(f"{at + (at > 9) * 5},{at}\n" for at in range(32)), ["--time", "t=s", "--rate", "1"],
         [0, 1, 2], 1.0),
    ],
)  # fmt: skip
def test_options_decide(
    text: str,
    options: list[str],
    first: list[float],
    rate: float | None,
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (read,) = generated(capsys, tiny_folder, "--series", write(tmp_path, text), *options)["recordings"]
    assert read["first"][0][: len(first)] == pytest.approx(first) and read["rate"] == rate


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (LONG, [], "choose one of the 2 with --case: 1, 2"),
        (LONG, ["--case", "9"], "there is no case '9'"),
        ("v\n1\n2\n3\n", ["--case", "1"], "there is one series"),
        ("v\n1\n\nx\n", ["--fill", "spline"], "write linear or hold"),
        ("v\n1\n2\n", ["--decimal", "x"], "--decimal is . or ,"),
        ("v\n1\n2\n", ["--delimiter", "::"], "--delimiter is one character"),
        ("a,v\n1,2\n2,3\n", ["--time", "z"], "there is no column 'z'"),
        ("a,v\n1,2\n2,3\n", ["--time", "a=weeks"], "there is no unit 'weeks'"),
        ("v\n1\n2\n", ["--skip-lines", "-1"], "0 or more"),
    ],
)
def test_options_that_fit_nothing(
    text: str,
    options: list[str],
    says: str,
    tmp_path: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path, text)
    assert main(asked("generate", tiny_folder, "--series", path, *options)) == 2
    last = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert last.startswith("error: ") and says in last


def test_a_batch_has_a_line_for_each_series(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    write(folder, LONG, "b.csv")
    write(folder, "v\n" + "\n".join(map(str, A)), "a.csv")
    write(folder, "no numbers here\n", "c.csv")
    write(folder, "left alone", "notes.md")
    out = tmp_path / "found.jsonl"
    assert main(asked("search", tiny_folder, "--batch", folder, "--json", out)) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(Path(line["series"]).name, line["case"]) for line in lines] == [
        ("a.csv", None), ("b.csv", "1"), ("b.csv", "2"), ("c.csv", None),
    ]  # fmt: skip
    assert "header but no rows" in lines[3]["error"] and "best" not in lines[3]
    assert [line["recordings"][0]["first"][0][0] for line in lines[:3]] == [A[0], 61, 62]
    for line in lines[:3]:
        assert set(line["best"]) == {"text", "answer", "reward", "logprob"} and line["headline"]
    printed = capsys.readouterr()
    assert "b.csv [2]: " in printed.out and "left out: c.csv" in printed.err


def test_batches_that_cannot_be(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(asked("search", tiny_folder, "--batch", empty)) == 2
    assert "there is no recording in" in capsys.readouterr().err
    assert main(asked("search", tiny_folder, "--batch", write(tmp_path, "nothing\n"))) == 2
    assert "none of the 1 recordings" in capsys.readouterr().err
    assert main(asked("search", tiny_folder)) == 2
    assert "--series" in capsys.readouterr().err
