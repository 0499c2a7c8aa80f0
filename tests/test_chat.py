"""`chat` in a terminal of its own, and what a model keeps between two questions about one recording."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model
from tiny_flamingo import tiny_model as tiny_flamingo

from mlx_tslm import stages
from mlx_tslm.cli import main
from mlx_tslm.generation import generate
from mlx_tslm.models.causal import CausalModel

# --- in a pty ---


class Terminal:
    """A process on the other end of a terminal."""

    def __init__(self, *arguments: object, cwd: Path) -> None:
        here, there = pty.openpty()
        self._end = here
        env = os.environ | {"TERM": "dumb", "COLUMNS": "200", "MLX_TSLM_CACHE": str(cwd / "cache")}
        command = [sys.executable, "-m", "mlx_tslm", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdin=there,
            stdout=there,
            stderr=there,
            env=env,
            cwd=cwd,
            start_new_session=True,
            close_fds=True,
        )
        os.close(there)
        self.text = ""

    def until(self, pattern: str, seconds: float = 90) -> str:
        """What is printed up to the first match from here on."""
        began, seen = time.monotonic(), ""
        while not re.search(pattern, seen):
            assert time.monotonic() - began < seconds, f"no {pattern!r} in {seen!r}"
            if select.select([self._end], [], [], 0.2)[0]:
                try:
                    seen += os.read(self._end, 65536).decode("utf-8", "replace")
                except OSError:  # the other end is closed
                    break
        self.text += seen
        return seen

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.fixture
def terminal(tiny_folder: Path, airline: Path, tmp_path: Path) -> Iterator[Terminal]:
    asked = ["chat", tiny_folder, "--series", airline, "--stage", "2", "--max-tokens", "12", "--num-rollouts", "2"]
    one = Terminal(*asked, cwd=tmp_path)
    yield one
    one.close()


def test_a_conversation(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("> ")
    assert "144 samples" in terminal.text and "Ctrl-D" in terminal.text
    terminal.type("Is there a trend?\n")
    assert "0 of" in terminal.until(r"\d+ of \d+ positions.*\s+> ")
    terminal.type("Is there a season?\n")
    kept = re.search(r"(\d+) of (\d+) positions", terminal.until(r"\d+ of \d+ positions.*\s+> "))
    assert kept is not None and 36 < int(kept[1]) < int(kept[2])  # the recording's 36 patches, and the words before
    terminal.type("/json said.json\n")
    terminal.until("> ")
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["question"] == "Is there a season?"
    terminal.type("\x1b[A\x1b[A\n")  # two lines up: the last question again
    again = terminal.until(r"\d+ of \d+ positions.*\s+> ")
    same = re.search(r"(\d+) of (\d+) positions", again)
    assert same is not None and int(same[1]) == int(same[2]) - 1
    terminal.type("/search\n")
    assert "forward passes" in terminal.until(r"peak memory.*\s+> ")
    terminal.type("/json found.json\n")
    terminal.until("> ")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["question"] == "Is there a season?" and len(found["completions"]) == 2
    terminal.type("/serch\n")
    assert "did you mean /search?" in terminal.until("error.*\\s+> ")
    terminal.type("\x04")
    terminal.until("$^", seconds=60) if terminal.process.poll() is None else None
    assert terminal.process.wait(30) == 0
    assert "Traceback" not in terminal.text


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(
    tiny_folder: Path, airline: Path, tmp_path: Path
) -> None:
    asked = ["chat", tiny_folder, "--series", airline, "--stage", "2", "--max-tokens", "60000"]
    terminal = Terminal(*asked, "--temperature", "1", "--top-k", "2", cwd=tmp_path)
    try:
        terminal.until("> ")
        terminal.type("Say much.\n")
        terminal.until(r"Say much\.\r?\n.*\S")
        time.sleep(0.3)
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.until(r"(stopped|kept)\s+> ")
        os.killpg(terminal.process.pid, signal.SIGINT)  # at the prompt: the line is dropped, no more
        terminal.until("> ")
        terminal.type("/help\n")
        assert "/json" in terminal.until(r"this list\s+> ")
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()
    assert "stopped" in terminal.text and "Traceback" not in terminal.text


def test_a_pipe_is_a_conversation_too(
    tiny_folder: Path, airline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["What?", "/json -"])

    def read(_: str = "") -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setenv("MLX_TSLM_MODEL", str(tiny_folder))
    assert main(["chat", "--series", str(airline), "--stage", "2", "--max-tokens", "4"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["question"] == "What?" and said["finish_reason"] in ("stop", "length")


# --- what is kept ---

RECORDING = np.sin(np.arange(64) / 5) + np.arange(64) / 20


def logits(model: CausalModel, stage: str, question: str, values: Any = RECORDING) -> mx.array:
    return model.follow(model.prefill(stages.get(stage).prompt(values, question)))[0]


@pytest.mark.parametrize("kind", ["llama", "gemma", "flamingo"])
def test_what_is_kept_changes_no_answer(kind: str) -> None:
    model = tiny_flamingo("llama") if kind == "flamingo" else tiny_model(kind)
    fresh = {question: logits(model, "stage2", question) for question in ("Why?", "Why not?")}
    other = logits(model, "stage2", "Why?", RECORDING[::-1])
    kept = model.keep()
    logits(model, "stage2", "Why?")
    assert (kept.encoded, kept.positions) == (1, 0)
    for question, expected in fresh.items():
        assert mx.abs(logits(model, "stage2", question) - expected).max() < 1e-4
        assert kept.encoded == 1 and kept.positions > 10
    assert mx.abs(logits(model, "stage2", "Why?", RECORDING[::-1]) - other).max() < 1e-4  # another recording
    assert kept.encoded == 2


def test_where_the_question_stands_before_the_series_it_is_read_anew() -> None:
    model = tiny_model("llama")
    expected = logits(model, "stage1", "Is it so?")
    kept = model.keep()
    logits(model, "stage1", "Or is it so?")
    assert mx.abs(logits(model, "stage1", "Is it so?") - expected).max() < 1e-4
    patches = 64 // 4
    assert kept.encoded == 1 and kept.positions < patches  # the encoder's work is kept, the words before it are few


def test_answers_are_not_turns() -> None:
    """An answer given before is no part of the next prompt."""
    model, prompt = tiny_model("llama"), stages.get("stage2").prompt(RECORDING, "Why?")
    alone = generate(model, prompt, max_tokens=8)
    model.keep()
    generate(model, stages.get("stage2").prompt(RECORDING, "What is it?"), max_tokens=8)
    assert generate(model, prompt, max_tokens=8) == alone
