"""Results in Python and in notebooks: what they show, and what an interrupt leaves."""

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_model

import mlx_tslm
from mlx_tslm.cli import main
from mlx_tslm.errors import TSLMError
from mlx_tslm.search import SearchResult, tree_search
from mlx_tslm.signals import Recording

HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


def found(model: Any, values: Any = None, **settings: Any) -> SearchResult:
    values = Recording(np.sin(np.arange(64) / 5), ["wave"]) if values is None else values
    asked = mlx_tslm.stages.get("stage2").prompt(values, HOSTILE)
    return tree_search(model, asked, **({"num_rollouts": 6, "width": 2, "max_tokens": 6} | settings))


def test_a_result_shows_itself(model: Any, tmp_path: Path) -> None:
    result = found(model)
    line = repr(result)
    assert "6 answers by maxent-ts" in line and len(line) < 250 and "\n" not in line
    cell = result._repr_html_()
    assert "<polyline" in cell and "<table" in cell and "wave: 64 samples" in cell
    assert "<script" not in cell and "&lt;script&gt;" in cell and "http" not in cell
    page = result.to_html()
    assert page.startswith("<!DOCTYPE html>") and "default-src 'none'" in page
    result.save(tmp_path / "found.json")
    loaded = SearchResult.load(tmp_path / "found.json")
    assert "SearchResult" in loaded._repr_html_()
    with pytest.raises(TSLMError, match="loaded from a file"):
        loaded.to_html()


def test_one_sample_is_a_dot(model: Any) -> None:
    assert "<circle" in found(model, [3.0])._repr_html_()


def test_frames_and_figures(model: Any) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    result = found(model)
    table = result.to_pandas()
    assert len(table) == len(result.completions) and table["weight"].sum() == pytest.approx(1)
    assert table["weight"].is_monotonic_decreasing and {"text", "answer", "reward"} <= set(table.columns)
    assert len(result.plot().axes) == 2


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_keeps_what_was_found(model: Any, times: int) -> None:
    """A Ctrl-C ends the search with its wave, a second one with its token."""
    state = {"sent": 0}

    def interrupt(progress: Any) -> None:
        if progress.rollouts >= 4 and state["sent"] < times:
            state["sent"] += 1
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = found(model, num_rollouts=5000, progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert result.interrupted and 4 <= result.stats.rollouts < 5000
    assert f"interrupted after {result.stats.rollouts} of 5000" in result.notes[-1]
    assert "interrupted" in repr(result)
    assert sum(one.weight for one in result.completions) == pytest.approx(1)
    more = tree_search(
        model,
        result.shown.question,  # type: ignore[union-attr]
        num_rollouts=result.stats.rollouts + 4,
        width=2,
        max_tokens=6,
        resume=result,
    )
    assert not more.interrupted and more.stats.rollouts >= result.stats.rollouts


def test_an_interrupt_before_anything_was_found_is_one(model: Any) -> None:
    def interrupt(progress: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        found(model, max_tokens=400, num_rollouts=5000, width=64, progress=interrupt)


def test_a_search_in_a_thread_has_no_handler(model: Any) -> None:
    results: list[SearchResult] = []
    thread = threading.Thread(target=lambda: results.append(found(model)))
    thread.start()
    thread.join()
    assert len(results) == 1 and not results[0].interrupted


def test_progress_in_a_notebook(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    from mlx_tslm.search import notebook

    said: list[str] = []

    class Handle:
        def update(self, content: Any, raw: bool) -> None:
            said.append(content["text/plain"])

    def show(content: Any, raw: bool, display_id: bool) -> Handle:
        said.append(content["text/plain"])
        return Handle()

    monkeypatch.setattr(notebook, "_in_kernel", lambda: True)
    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(notebook, "_PATIENCE", 1e6)
    found(model)
    assert said == []  # nothing is said of a short one
    monkeypatch.setattr(notebook, "_PATIENCE", 0.0)
    monkeypatch.setattr(notebook, "_EVERY", 0.0)
    found(model)
    assert "of 6 answers" in said[0] and said[-1] == ""


def test_a_picture_to_paste_elsewhere(tiny_folder: Path, airline: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    asked = ["search", "--model", str(tiny_folder), "--stage", "1", "--series", str(airline), "--num-rollouts", "2"]
    assert main([*asked, "--max-tokens", "4", "--png", str(tmp_path / "found.png")]) == 0
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert [path.name for path in tmp_path.iterdir()] == ["found.png"]


ROOT = Path(__file__).parents[1]


def test_the_example_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", "--output-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(ROOT / "docs" / "example.ipynb")], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cells = json.loads((tmp_path / "example.ipynb").read_text())["cells"]
    shown = [out["data"] for cell in cells for out in cell.get("outputs", ()) if "data" in out]
    assert any("<polyline" in "".join(data.get("text/html", "")) for data in shown)
    assert any("image/png" in data for data in shown)


def test_readme_s_example_says_what_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"## From Python\n\n```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    exec(block[1], {})
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "an upward trend" and second.startswith("(c) 0.9") and "an upward trend" in second
