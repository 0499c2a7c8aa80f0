"""The front door, as people and scripts use it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlx_tslm.cli import _repeat_flags, main


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`mlx-tslm …` in a process of its own."""
    command = [sys.executable, "-m", "mlx_tslm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that bad input gets."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    # Drawings of readable recordings may precede the error; the error itself is the last line, and alone.
    *_, last = printed.err.rstrip("\n").split("\n")
    assert printed.err.count("error:") == 1 and last.startswith("error: ")
    assert "Traceback" not in printed.err
    return last


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from mlx_tslm.cli import main; code = main(['--help']);"
        "heavy = {'mlx', 'mlx.core', 'mlx_lm', 'scipy', 'huggingface_hub', 'transformers', 'wfdb', 'torch'};"
        "print('HEAVY', sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert all(command in result.stdout for command in ("convert", "generate", "search", "models", "info"))
    assert result.stdout.strip().endswith("HEAVY []")


def test_version_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "mlx-tslm 0.1.0\n"
    assert main([]) == 0
    assert "Usage: mlx-tslm" in capsys.readouterr().out


def test_several_values_after_one_flag() -> None:
    given = ["--series", "a", "b", "--question", "q", "--channel", "x", "y", "--json", "--series", "c"]
    assert list(_repeat_flags(given)) == [
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
        ("hole.csv", "a\n1\nnan\n3\n", "nan"),
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


def test_warns_once_without_a_blas(airline: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux needs a BLAS")
    monkeypatch.setenv("MLX_TSLM_BLAS", "none")
    result = run("generate", "--model", demo_model, "--series", airline, "--max-tokens", "2")
    assert result.returncode == 0
    assert result.stderr.count("mlx-tslm[mkl]") == 1 and "libopenblas0-pthread" in result.stderr


def test_generate_streams_text_and_draws_the_series(airline: Path, demo_model: Path) -> None:
    result = run("generate", "--model", demo_model, "--series", airline, "--question", "Is there a trend?")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert "airline.csv" in result.stderr and "144 samples" in result.stderr
    assert any("⠀" <= character <= "⣿" for character in result.stderr)


def test_generate_json(airline: Path, demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", "--model", str(demo_model), "--series", str(airline), "--max-tokens", "16", "--json"]
    assert main(asked) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(asked) == 0
    again = json.loads(capsys.readouterr().out)
    assert first["text"] == again["text"] and first["tokens"] == again["tokens"]
    assert 0 < len(first["tokens"]) <= 16
    assert first["logprob"] == pytest.approx(0)  # greedy: all mass on the token that is taken
    assert first["prompt_tokens"] > 36  # 144 samples are 36 patches, and there is text around them
    assert first["settings"]["temperature"] == 0
    assert first["stage"] == "stage1"


def test_a_constant_series_is_legitimate_and_noted(
    tmp_path: Path, demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "flat.npy", np.full(64, 3.5))
    asked = ["generate", "--model", str(demo_model), "--series", str(tmp_path / "flat.npy"), "--max-tokens", "4"]
    assert main([*asked, "--json"]) == 0
    assert "constant" in " ".join(json.loads(capsys.readouterr().out)["notes"])


def test_a_series_beyond_the_positional_table(
    tmp_path: Path, demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "long.npy", np.random.default_rng(0).normal(size=1_000_000))
    line = refused(capsys, "generate", "--model", demo_model, "--series", tmp_path / "long.npy")
    assert "longer than" in line and "resample" in line


def test_settings_out_of_range(airline: Path, demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("generate", "--model", demo_model, "--series", airline)
    assert "temperature" in refused(capsys, *asked, "--temperature", "-1")
    assert "top_p" in refused(capsys, *asked, "--top-p", "1.5")
    assert "max_tokens" in refused(capsys, *asked, "--max-tokens", "0")


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.pt").write_text("dear diary")
    out = tmp_path / "out"
    assert "notes.pt" in refused(capsys, "convert", tmp_path / "notes.pt", "-o", out)
    assert "not supported yet" in refused(capsys, "convert", "stage1", "--variant", "flamingo", "-o", out)
    assert "stage9" in refused(capsys, "convert", "stage9", "-o", out)
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.pt"]


def test_convert_verify_and_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["convert", "demo", "-o", str(out), "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "encoder.pos_embed" in printed
    assert (out / "config.json").exists()
    assert str(out) in refused(capsys, "convert", "demo", "-o", out)
    assert main(["convert", "demo", "-o", str(out), "--force", "-q", "4", "--group-size", "32"]) == 0
    assert json.loads((out / "config.json").read_text())["quantization"]["bits"] == 4
