"""The command line as a stranger meets it: wrong words, one word for one thing, files and standard output."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_cli import refused
from tiny import write_base, write_checkpoint

from mlx_tslm import stages
from mlx_tslm.cli import main
from mlx_tslm.errors import TSLMError
from mlx_tslm.suggest import closest

COMMANDS = ("convert", "generate", "search", "chat", "data list", "data fetch", "data show", "eval", "train")
COMMANDS += ("serve", "check", "calibrate", "models", "info", "bench run", "bench table")


@pytest.mark.parametrize(
    ("arguments", "meant", "helps"),
    [
        ("generate --temp 1", "--temperature", "mlx-tslm generate"),
        ("search --tempature 1", "--temperature", "mlx-tslm search"),
        ("search --rollouts 3", "--num-rollouts", "mlx-tslm search"),
        ("generate --max-new-tokens 3", "--max-tokens", "mlx-tslm generate"),
        ("convert demo --dype float32", "--dtype", "mlx-tslm convert"),
        ("data show stage1 --sorce synthetic", "--source", "mlx-tslm data show"),
        ("bench run --suit quick", "--suite", "mlx-tslm bench run"),
        ("serach", "search", "mlx-tslm"),
        ("run demo", "chat", "mlx-tslm"),
        ("data lst", "list", "mlx-tslm data"),
        ("--model demo", "behind the command", "mlx-tslm"),
    ],
)
def test_wrong_flags_and_commands(
    arguments: str, meant: str, helps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *arguments.split())
    assert meant in line and line.endswith(f"see `{helps} --help`")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("generate --model dmeo", "demo"),
        ("search --model OpenTSLM/llama3.2-1b-ecg", "llama-3.2-1b-ecg-sp"),
        ("convert stgae5", "stage5"),
        ("convert stage5 --base gema-3-1b", "gemma-3-1b"),
        ("generate --model demo --stage stagee3", "stage3"),
        ("generate --model demo --stage hra", "har"),
        ("search --model demo --method maxent", "maxent-ts"),
        ("search --model demo --reward grouding", "grounding"),
        ("eval --model demo --method gredy", "greedy"),
        ("eval --model demo --source synthetc", "synthetic"),
        ("eval --model demo --split tset", "test"),
        ("train opentslmm", "opentslm"),
        ("generate --model demo --backend toch", "torch"),
    ],
)
def test_wrong_names(
    arguments: str, meant: str, airline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = ["--series", airline] if arguments.startswith(("generate", "search")) else []
    if "OpenTSLM/" in arguments:  # it might be anyone's on the Hub: only what cannot be is answered here
        assert meant in closest("llama3.2-1b-ecg-sp", ["llama-3.2-1b-ecg-sp", "llama-3.2-1b-m4-sp"])
        return
    assert f"did you mean {meant}" in refused(capsys, *arguments.split(), *series)


@pytest.mark.parametrize("word", ["2", "stage2", "Stage 2", "stage-2", "02", "m4", " M4 "])
def test_a_stage_by_any_of_its_names(word: str) -> None:
    assert stages.get(word).name == "stage2"


def test_a_number_that_is_no_stage() -> None:
    with pytest.raises(TSLMError, match="no stage '9'"):
        stages.get("9")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--seed", "-1"),
        ("--seed", "1.5"),
        ("--max-tokens", "0"),
        ("--top-k", "0"),
        ("--top-p", "0"),
        ("--template-id", "3", "--stage", "2"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "search"])
def test_values_are_checked_before_a_series_is_drawn(
    command: str, wrong: tuple[str, ...], airline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([command, "--model", "demo", "--series", str(airline), *wrong]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert wrong[0].strip("-").replace("-", "_") in printed.err.replace("-", "_")


def test_a_wrong_model_is_known_before_a_series_is_drawn(airline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", "dmeo", "--series", str(airline)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


# --- one word for one thing ---


@pytest.fixture
def asked(airline: Path, tiny_folder: Path) -> list[str]:
    return ["--model", str(tiny_folder), "--stage", "1", "--series", str(airline), "--max-tokens", "4"]


def test_json_is_a_path(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "said.json"
    assert main(["generate", *asked, "--json", str(file)]) == 0
    said = json.loads(file.read_text())
    assert said["text"] in capsys.readouterr().out.strip() or not said["text"]


@pytest.mark.parametrize("command", ["generate", "search"])
def test_json_on_standard_output(
    command: str,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, *asked, *(["--num-rollouts", "4"] if command == "search" else []), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert isinstance(json.loads(printed.out), dict)
    assert "144 samples" in printed.err  # the drawing
    assert [*tmp_path.iterdir()] == []
    assert main(["models"]) == 0
    assert "stage5" in capsys.readouterr().out  # the next command has its standard output back


def test_a_batch_on_standard_output(
    tiny_folder: Path, airline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(tiny_folder), "--stage", "1", "--batch", str(airline), "--max-tokens", "4"]
    assert main(["search", *asked, "--num-rollouts", "2", "--json", "-"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["series"].endswith("airline.csv")


@pytest.mark.parametrize("name", ["folder", "folder/", "absent/", "absent/found.json"])
@pytest.mark.parametrize(("command", "flag"), [("generate", "--json"), ("search", "--json"), ("search", "--html")])
def test_a_folder_is_no_file(
    command: str, flag: str, name: str, asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    line = refused(capsys, command, *asked, flag, f"{tmp_path}/{name}")
    assert f"{flag} {tmp_path}/{name}" in line and "folder" in line
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_old_spellings_work_with_a_note(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *asked, "-q", "Why?", "--json"]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "--question" in printed.err and "--json -" in printed.err
    evaluated = ["eval", *asked[:4], "--source", "synthetic", "--limit", "1", "--max-tokens", "1"]
    assert main([*evaluated, f"--out={tmp_path / 'e'}"]) == 0
    assert "--out is now --output" in capsys.readouterr().err and (tmp_path / "e").is_dir()


@pytest.mark.parametrize(
    ("arguments", "new"),
    [
        ("convert demo -q 4 --q-bits 8", "--q-bits"),
        ("convert demo --group-size 32 --q-group-size 64", "--q-group-size"),
        ("eval --model demo --out a -o b", "--output"),
        ("eval --model demo --output a --out b", "--output"),
        ("generate --model demo -q a --question b", "--question"),
        ("bench run --results a --output b", "--output"),
    ],
)
def test_where_old_and_new_clash_the_error_names_the_new(
    arguments: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"give {new} alone" in refused(capsys, *arguments.split())


def test_a_value_that_looks_like_an_old_spelling_is_a_value(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "said.json"
    assert main(["generate", *asked, "--question", "-q", "--json", str(file)]) == 0
    assert "is now" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    checkpoint = write_checkpoint("llama", folder / "tiny.pt", lora=16)
    return ["convert", str(checkpoint), "--llm", str(write_base("llama", folder / "base"))]


@pytest.mark.parametrize(
    ("flags", "bits", "group"),
    [
        (["-q"], 4, 64),
        (["-q", "--q-bits", "8", "--q-group-size", "32"], 8, 32),
        (["--q-bits", "8"], 8, 64),
        (["-q", "8"], 8, 64),
        (["-q8", "--group-size", "32"], 8, 32),
        (["--quantize=4"], 4, 64),
    ],
)
def test_quantizing_as_mlx_lm_has_it(
    flags: list[str],
    bits: int,
    group: int,
    tiny_files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*tiny_files, *flags, "-o", str(tmp_path / "out")]) == 0
    stored = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    assert (stored["bits"], stored["group_size"]) == (bits, group)
    old = "--q-bits" not in flags and flags != ["-q"]
    assert ("release only" in capsys.readouterr().err) == old


def test_what_is_converted_already_is_no_error(
    tiny_files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main([*tiny_files, "-o", out]) == 0
    written = (tmp_path / "out" / "config.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main([*tiny_files, "-o", out]) == 0
    said = capsys.readouterr().out
    assert out in said and "already" in said and "--force" in said
    assert (tmp_path / "out" / "config.json").stat().st_mtime_ns == written
    assert out in refused(capsys, *tiny_files, "-q", "-o", out)  # another conversion is in the way
    assert main([*tiny_files, "-o", out, "--force"]) == 0
    assert (tmp_path / "out" / "config.json").stat().st_mtime_ns != written


# --- help, completion, version, environment ---


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    *_, end = capsys.readouterr().out.partition("Examples:")
    assert f"mlx-tslm {command}" in end and "╭" not in end


def test_versions_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    assert capsys.readouterr().out.startswith("mlx-tslm ")


@pytest.mark.parametrize(
    ("typed", "offered"), [("mlx-tslm gen", "generate"), ("mlx-tslm search --num", "--num-rollouts")]
)
def test_a_shell_completes(typed: str, offered: str) -> None:
    env = os.environ | {
        "_MLX_TSLM_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run([sys.executable, "-m", "mlx_tslm"], env=env, capture_output=True, text=True, check=False)
    assert offered in done.stdout.split(), done.stderr


def test_completion_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "mlx_tslm", "--show-completion", "bash"]
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(command)}; true"], capture_output=True, text=True, check=False
    )
    assert "_MLX_TSLM_COMPLETE" in done.stdout + done.stderr


def test_the_model_of_the_environment(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLX_TSLM_MODEL", asked[1])
    assert main(["generate", *asked[2:], "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["model"] == asked[1]
    monkeypatch.delenv("MLX_TSLM_MODEL")
    assert "MLX_TSLM_MODEL" in refused(capsys, "generate", *asked[2:])


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_and_verbose(place: str, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def run(*flags: str) -> Any:
        capsys.readouterr()
        code = main([*flags, "generate", *asked] if place == "before" else ["generate", *asked, *flags])
        return code, capsys.readouterr()

    code, quiet = run("--quiet")
    assert code == 0 and quiet.err == ""
    assert run()[1].err != ""
    code, verbose = run("--verbose")
    assert code == 0 and "loaded" in verbose.err
    assert main(["--quiet", "generate", *asked, "--stage", "stage9"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["generate", *asked, "--stage", "stage9", "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_answers_at_once() -> None:
    """0.3 s on an idle machine; in a process of its own it is held against Python with typer and rich alone."""
    bare = [
        sys.executable,
        "-c",
        "import typer.core, typer.rich_utils, rich.table, rich.live, rich.progress",
    ]
    ours = [sys.executable, "-m", "mlx_tslm", "--help"]

    def best(command: list[str]) -> float:
        took = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            took.append(time.perf_counter() - began)
        return min(took)

    assert best(ours) < 2.5 * best(bare) + 0.2


def test_a_failed_training_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'model = "absent/folder/of/mine"\nsource = "synthetic"\n[[stages]]\nname = "stage1"\n'
        "samples = {stage1 = 4}\nvalidation_samples = 2\n"
    )
    refused(capsys, "train", "mine.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]
    refused(capsys, "train", "mine.toml", "-o", "deep/er/run")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


# --- the package ---

ROOT = Path(__file__).parents[1]


def test_the_demo_s_card_says_whose_it_is(demo_folder: Path) -> None:
    card = (demo_folder / "README.md").read_text("utf-8")
    assert "trained by the mlx-tslm authors" in card and "license: mit" in card
    assert "are OpenTSLM's work" not in card and "The architecture is OpenTSLM's" in card


def test_the_package_page_stands_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"Homepage", "Source", "Issues", "Changelog"} <= set(project["urls"])
    assert "Programming Language :: Python :: 3.11" in project["classifiers"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert all(link.startswith("https://") for link in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", readme))
    install = readme.partition("## Install")[2].partition("## Use")[0]
    assert "pip install -e" not in install and 'pip install "mlx-tslm' in install
    for name in ("OpenTSLM", "S-ADT", "2510.02410"):
        assert name in (ROOT / "docs" / "citing.md").read_text("utf-8")
    assert "cff-version" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_readme_names_exit_codes_and_variables() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("MLX_TSLM_MODEL", "MLX_TSLM_CACHE", "MLX_TSLM_BLAS", "HF_HUB_OFFLINE", "| 130 |", "| 2 |"):
        assert name in readme
