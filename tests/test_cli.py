"""The front door, as people and scripts use it."""

import dataclasses
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_base, write_checkpoint

from mlx_tslm.cli import main
from mlx_tslm.cli.search import search as search_command
from mlx_tslm.cli.words import repeat_flags


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`mlx-tslm …` in a process of its own."""
    command = [sys.executable, "-m", "mlx_tslm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that bad input gets."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    # Drawings of readable recordings may precede the error; the error itself is the last line, and alone.
    *_, last = printed.err.rstrip("\n").split("\n")
    assert printed.err.count("error:") == 1 and last.startswith("error: ")
    assert "Traceback" not in printed.err
    return last


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["--help"], ("convert", "generate", "search", "models", "info")),
        (["data", "list"], ("stage1 (tsqa)", "stage5 (ecg)")),
    ],
)
def test_help_and_lists_import_nothing_heavy(arguments: list[str], shows: tuple[str, ...]) -> None:
    program = (
        f"import sys; from mlx_tslm.cli import main; code = main({arguments});"
        "heavy = {'mlx', 'mlx.core', 'mlx_lm', 'scipy', 'huggingface_hub', 'transformers', 'wfdb', 'torch'};"
        "print('HEAVY', sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert all(words in result.stdout for words in shows)
    assert result.stdout.strip().endswith("HEAVY []")


def test_version_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "mlx-tslm 0.1.0\n"
    assert main([]) == 0
    assert "Usage: mlx-tslm" in capsys.readouterr().out


def test_several_values_after_one_flag() -> None:
    given = ["--series", "a", "b", "--question", "q", "--channel", "x", "y", "--json", "--series", "c"]
    assert list(repeat_flags(given, {"--series", "--channel"})) == [
        *("--series", "a", "--series", "b", "--question", "q"),
        *("--channel", "x", "--channel", "y", "--json", "--series", "c"),
    ]


def test_unknown_command_option_and_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such command 'transmogrify'; see `mlx-tslm --help`" in refused(capsys, "transmogrify")
    assert "--nope" in refused(capsys, "generate", "--nope")
    assert "'--model'" in refused(capsys, "generate", "--series", "a.csv")
    assert "source" in refused(capsys, "convert").lower()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.csv", None, "no file"),
        ("empty.csv", "", "empty"),
        ("words.csv", "a,b\nx,y\nz,w\n", "no column of numbers"),
        ("hole.csv", "a\n1\nnan\n3\n", "missing"),
        ("huge.csv", "a\n1\ninf\n3\n", "inf"),
        ("song.mp3", "tune", "unknown file type"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "search"])
def test_bad_series(
    command: str, name: str, content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    line = refused(capsys, command, "--model", "demo", "--series", file)
    assert says in line and name in line


def test_bad_stage_channel_window_and_rate(airline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("generate", "--model", "demo", "--series", airline)
    assert "stage5 (ecg)" in refused(capsys, *asked, "--stage", "stage9")
    assert "Passengers" in refused(capsys, *asked, "--column", "Ships")
    assert "144" in refused(capsys, *asked, "--start", "200")
    assert "--source-rate" in refused(capsys, *asked, "--rate", "10")


def test_no_such_model(airline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "generate", "--model", tmp_path, "--series", airline)
    assert "mlx-tslm convert" in line and str(tmp_path) in line


def test_a_process_that_is_refused_has_no_traceback() -> None:
    result = run("generate", "--model", "demo", "--series", "nothing.csv")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.strip() == "error: there is no file nothing.csv"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m mlx_tslm info | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr


def test_info() -> None:
    result = run("info")
    assert result.returncode == 0
    for name in ("mlx-tslm", "mlx-lm", "python", "device", "BLAS", "memory"):
        assert name in result.stdout


def test_models() -> None:
    result = run("models")
    assert result.returncode == 0
    for name in ("demo", "stage1", "stage2", "stage3", "stage4", "stage5"):
        assert name in result.stdout


@pytest.mark.skipif(sys.platform == "darwin", reason="Accelerate sees to its threads itself")
def test_processes_launched_together_share_the_cores(tmp_path: Path) -> None:
    """As `mlx.launch` starts them; two that take every core each are tens of times slower than one."""
    hosts = tmp_path / "hosts.json"

    def threads(addresses: list[str], **more: str) -> str:
        hosts.write_text(json.dumps([[address] for address in addresses]))
        env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        program = "import os, mlx_tslm; print(os.environ.get('OMP_NUM_THREADS'))"
        given = env | {"MLX_HOSTFILE": str(hosts), "MLX_RANK": "1"} | more
        done = subprocess.run(
            [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert threads(["127.0.0.1:1", "127.0.0.1:2"]) == share
    assert threads(["10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2"]) == share
    assert threads(["10.0.0.1:1", "10.0.0.2:1"]) == "None"
    assert threads(["127.0.0.1:1", "127.0.0.1:2"], OMP_NUM_THREADS="7") == "7"


def test_warns_once_without_a_blas(airline: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux needs a BLAS")
    monkeypatch.setenv("MLX_TSLM_BLAS", "none")
    asked = ("--model", tiny_folder, "--stage", "stage1", "--series", airline, "--max-tokens", "2")
    result = run("generate", *asked)
    assert result.returncode == 0
    assert result.stderr.count("mlx-tslm[mkl]") == 1 and "libopenblas0-pthread" in result.stderr


def test_generate_streams_to_stdout_and_draws_on_stderr(airline: Path, tiny_folder: Path) -> None:
    asked = ("--model", tiny_folder, "--stage", "tsqa", "--series", airline, "--max-tokens", "8")
    result = run("generate", *asked, "--question", "Is there a trend?")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() and "note" not in result.stdout
    assert "airline.csv" in result.stderr and "144 samples" in result.stderr
    assert any("\u2801" <= character <= "\u28ff" for character in result.stderr)
    assert "note: left out column 'Date'" in result.stderr
    assert "opentslm_sp" not in result.stderr  # transformers' remark about a model type that it does not know


def test_generate_json(airline: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", "--model", str(tiny_folder), "--stage", "stage1", "--series", str(airline), "--json", "-"]
    asked += ["--max-tokens", "16"]

    def answer(*more: str) -> dict[str, Any]:
        assert main([*asked, *more]) == 0
        return json.loads(capsys.readouterr().out)

    first = answer()
    assert first["tokens"] == answer()["tokens"]
    assert 0 < len(first["tokens"]) <= 16
    assert first["logprob_drawn"] == pytest.approx(0)  # greedy: all mass on the token that is taken
    assert first["prompt_tokens"] > 36  # 144 samples are 36 patches, and there is text around them
    assert (first["stage"], first["settings"]["temperature"]) == ("stage1", 0)
    sampled = answer("--temperature", "1", "--seed", "3")
    assert (
        sampled["logprob_drawn"] < 0 and sampled["tokens"] == answer("--temperature", "1", "--seed", "3")["tokens"]
    )
    assert sampled["tokens"] != answer("--temperature", "1", "--seed", "4")["tokens"]


def test_generate_and_search_say_the_same_of_a_greedy_answer(
    airline: Path, demo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--model", str(demo_folder), "--series", str(airline), "--max-tokens", "48", "--json", "-", "--quiet"]
    assert main(["generate", *asked]) == 0
    said = json.loads(capsys.readouterr().out)
    assert main(["search", *asked, "--method", "greedy"]) == 0
    best = json.loads(capsys.readouterr().out)["best"]
    assert said["text"] == best["text"]
    # In bfloat16 the two decoders differ in the last digits, and a token at the edge of top-p may go either way.
    assert said["logprob"] == pytest.approx(best["logprob"], abs=0.1) and said["logprob"] < -3
    assert said["logprob_under"] == "temperature 1, top-p 0.95 of the model"


def test_a_token_that_the_model_s_own_distribution_cuts_off_has_no_logarithm(
    airline: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model's tokens at temperature 9 are hardly ever all within its top-p."""
    asked = ["--model", str(tiny_folder), "--stage", "1", "--series", str(airline), "--max-tokens", "64"]
    assert main(["generate", *asked, "--temperature", "9", "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["logprob"] is None and said["logprob_drawn"] < -64


def test_the_window_and_the_rate_reach_the_model(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "sine.npy", np.sin(np.arange(400) / 5))
    asked = ["generate", "--model", str(tiny_folder), "--stage", "stage1", "--series", str(tmp_path / "sine.npy")]
    asked += ["--json", "-", "--max-tokens", "1", "--question", "Q"]

    def positions(*more: str) -> int:
        assert main([*asked, *more]) == 0
        return json.loads(capsys.readouterr().out)["prompt_tokens"]

    whole = positions()
    assert whole - positions("--start", "200") == pytest.approx(50, abs=6)  # the stated mean may tokenize otherwise
    halved = positions("--source-rate", "100", "--rate", "50")
    assert whole - halved == pytest.approx(50, abs=6)
    cut = positions("--source-rate", "100", "--rate", "50", "--seconds", "2")
    assert halved - cut == pytest.approx(25, abs=6)


def test_a_model_that_knows_no_stage(airline: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--stage" in refused(capsys, "generate", "--model", tiny_folder, "--series", airline)


def test_a_constant_series_is_legitimate_and_noted(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "flat.npy", np.full(64, 3.5))
    asked = ["generate", "--model", str(tiny_folder), "--stage", "stage1", "--series", str(tmp_path / "flat.npy")]
    assert main([*asked, "--max-tokens", "4", "--json", "-"]) == 0
    assert "constant" in " ".join(json.loads(capsys.readouterr().out)["notes"])


def test_a_series_beyond_the_positional_table(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "long.npy", np.random.default_rng(0).normal(size=4097))
    asked = ("--model", tiny_folder, "--stage", "stage1", "--series", tmp_path / "long.npy")
    line = refused(capsys, "generate", *asked)
    assert "4097" in line and "4096" in line and "resample" in line


def test_settings_out_of_range(airline: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--model", tiny_folder, "--stage", "stage1", "--series", airline)
    assert "temperature" in refused(capsys, "generate", *asked, "--temperature", "-1")
    assert "top_p" in refused(capsys, "generate", *asked, "--top-p", "1.5")
    assert "--max-tokens" in refused(capsys, "generate", *asked, "--max-tokens", "0")
    assert "--num-rollouts" in refused(capsys, "search", *asked, "--num-rollouts", "0")
    assert "maxent-ts" in refused(capsys, "search", *asked, "--method", "guessing")
    assert "grounding" in refused(capsys, "search", *asked, "--reward", "beauty")
    assert "no number" in refused(capsys, "search", *asked, "--reward", "format=much")
    assert "no folder" in refused(capsys, "search", *asked, "--json", "/nowhere/at/all.json")


def test_search_defaults_are_the_configuration_s() -> None:
    from mlx_tslm.search import SearchConfig

    parameters = inspect.signature(search_command).parameters
    for field in dataclasses.fields(SearchConfig):
        if field.name in parameters and field.name != "inverse_temperature":  # the model may state its own
            assert parameters[field.name].default == field.default, field.name


def test_search_prints_best_alternatives_and_cost_and_saves(
    airline: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlx_tslm.search import SearchResult

    asked = ["search", "--model", str(tiny_folder), "--stage", "stage1", "--series", str(airline)]
    asked += ["--num-rollouts", "12", "--width", "4", "--max-tokens", "6", "--json", str(tmp_path / "found.json")]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    for word in ("─ answer ─", "weight", "reward", "forward passes", "12 answers in"):
        assert word in printed
    found = SearchResult.load(tmp_path / "found.json")
    assert len(found.completions) == 12 and sum(one.weight for one in found.completions) == pytest.approx(1)
    assert found.config.width == 4
    assert main([*asked, "--reward", "likelihood", "--reward", "format=0.5"]) == 0
    assert set(SearchResult.load(tmp_path / "found.json").best.columns) == {"likelihood", "format"}


def test_search_counts_an_options_words_as_its_letter(
    airline: Path, demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlx_tslm.search import SearchResult

    question = "What is the trend? (a) no trend (b) a downward trend (c) an upward trend"
    asked = ["--model", str(demo_folder), "--stage", "stage1", "--series", str(airline), "--max-tokens", "8"]
    asked += ["--question", question]
    files = ["--json", str(tmp_path / "found.json"), "--html", str(tmp_path / "page.html")]
    assert main(["search", *asked, "--num-rollouts", "4", "--temperature", "2", *files]) == 0
    found = SearchResult.load(tmp_path / "found.json")
    assert next(iter(found.answers)) == "(c)" and "an upward trend" not in found.answers
    assert "(c) an upward trend" in capsys.readouterr().out
    assert "(c) an upward trend" in (tmp_path / "page.html").read_text("utf-8")
    capsys.readouterr()
    assert main(["generate", *asked, "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["text"], said["answer"]) == ("an upward trend", "(c)")


def test_ctrl_c_stops_after_the_wave_and_reports(airline: Path, tiny_folder: Path) -> None:
    asked = ["search", "--model", str(tiny_folder), "--stage", "stage1", "--series", str(airline)]
    asked += ["--num-rollouts", "100000", "--width", "4", "--max-tokens", "12"]
    command = [sys.executable, "-m", "mlx_tslm", *asked]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:  # the note comes when the prompt is made, just before the search
        if line.startswith("note:"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "─ answer ─" in out and "forward passes" in out
    assert "Traceback" not in err and err.strip().endswith("interrupted")


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.pt").write_text("dear diary")
    out = tmp_path / "out"
    assert "notes.pt" in refused(capsys, "convert", tmp_path / "notes.pt", "-o", out)
    assert "stage9" in refused(capsys, "convert", "stage9", "-o", out)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.pt"]


def test_convert_verify_quantize_and_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_checkpoint("llama", tmp_path / "tiny.pt", lora=16)
    out = tmp_path / "out"
    asked = ["convert", str(checkpoint), "--llm", str(write_base("llama", tmp_path / "base")), "-o", str(out)]
    assert main([*asked, "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "encoder.pos_embed" in printed and "tensors agree" in printed and "tiny.pt" in printed
    assert main(asked) == 0 and "already" in capsys.readouterr().out
    assert main([*asked, "--force", "-q", "--q-group-size", "32"]) == 0
    assert json.loads((out / "config.json").read_text())["quantization"]["bits"] == 4
    assert "gpt2" in refused(capsys, "convert", checkpoint, "--base", "gpt2", "-o", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_demo_answers(demo_folder: Path, airline: Path, tmp_path: Path) -> None:
    """The embedded model finds the growth and the yearly season of a recording that it has never seen."""
    asked = ["--model", str(demo_folder), "--series", str(airline), "--max-tokens", "64"]
    settings = ["--num-rollouts", "32", "--width", "8", "--inverse-temperature", "10", "--seed", "0"]
    assert main(["search", *asked, *settings, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    text = max(found["completions"], key=lambda one: one["reward"])["text"].lower()
    assert any(word in text for word in ("upward", "increas", "ris", "grow"))
    assert "12 samples" in text
