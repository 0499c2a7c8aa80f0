"""What is kept when a process is killed, stopped or runs out of disk, and that the next one goes on from it."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny
from test_evaluation import FEW, Rows, records, trends
from test_training import STAGE, curriculum, lines

from benchmarks.reliability import children
from mlx_tslm import conversion, evaluation, files, loading
from mlx_tslm.cli import main
from mlx_tslm.conversion.pt import writer as pt_writer
from mlx_tslm.conversion.writer import staged
from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation.figures import figures
from mlx_tslm.evaluation.folder import Folder, write
from mlx_tslm.files import replacing, scratch_of, whole_lines, write_atomically
from mlx_tslm.training import run as runs
from mlx_tslm.training.config import StageConfig
from mlx_tslm.training.trainer import Progress

LINE_ENDS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
"""What `str.splitlines` takes for the end of a line beside carriage return and line feed."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_base("llama", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    mx.disable_compile()
    yield
    mx.enable_compile()


# ---- one file ----


@pytest.mark.parametrize("after", (False, True))
def test_a_killed_writer_leaves_one_scratch_file_that_the_next_takes_over(tmp_path: Path, after: bool) -> None:
    folder, death = tmp_path / "work", children.Death(change=0, after=after)
    folder.mkdir()

    def write_it() -> int:
        write_atomically(Path("found.json"), "new")
        return 0

    (folder / "found.json").write_text("old")
    for _ in range(3):
        assert children.run(write_it, folder, death).code == -signal.SIGKILL
        left = {"found.json"} if after else {"found.json", ".found.new.json"}
        assert {path.name for path in folder.iterdir()} == left
        assert (folder / "found.json").read_text() == ("new" if after else "old")
    assert children.run(write_it, folder).code == 0
    assert [path.name for path in folder.iterdir()] == ["found.json"]
    assert (folder / "found.json").read_text() == "new"


def test_writers_of_one_path_wait_for_each_other(tmp_path: Path) -> None:
    path, whole = tmp_path / "found.json", {str(number) * 100_000 for number in range(6)}

    def write_many(number: int) -> None:
        for _ in range(10):
            write_atomically(path, str(number) * 100_000)

    threads = [threading.Thread(target=write_many, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_text() in whole
    assert [one.name for one in tmp_path.iterdir()] == ["found.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text("old")
    with (
        pytest.raises(TSLMError, match=r"disk is full: .*found\.json was not written; free some space"),
        replacing(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeyboardInterrupt), replacing(path) as scratch:
        scratch.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["found.json"]


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "all of it")
    reader.join()
    assert got == ["all of it"] and pipe.is_fifo()


def test_a_checkpoint_that_was_being_written_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "model_checkpoint.pt"
    scratch_of(path).write_bytes(b"half of one" * 10_000)
    pt_writer.write(path, {"epoch": 1})
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and path.stat().st_size < 10_000


# ---- records ----


@pytest.mark.parametrize("end", LINE_ENDS)
def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path, end: str) -> None:
    folder = Folder(tmp_path / "out")
    folder.agree({}, {"greedy": {}})
    with folder.open("greedy") as file:
        for index in range(3):
            write(file, {"index": index, "reference": f"one{end}two\r\nthree"})
        file.write('{"index": 3, "reference": "on')  # as a kill leaves it
    assert [one["reference"] for one in folder.read("greedy").values()] == [f"one{end}two\r\nthree"] * 3


def test_a_line_that_was_cut_inside_of_a_character_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes("ä\nü".encode()[:-1])
    assert whole_lines(path) == ["ä"]
    path.write_bytes(b"\xff\n")
    with pytest.raises(TSLMError, match="no UTF-8 text"):
        whole_lines(path)


def test_an_evaluation_keeps_samples_with_every_line_end_in_them(tmp_path: Path) -> None:
    rows = trends(len(LINE_ENDS))
    for row, end in zip(rows, LINE_ENDS, strict=True):
        row["Question"] = row["Answer"] = f"which{end}way"
    rows = Rows("stage2", [{"caption": row["Answer"], "series": row["Series"]} for row in rows])
    model = tiny.tiny_model("llama")
    result = evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], FEW)
    assert result is not None and result["methods"]["greedy"]["samples"] == len(rows)
    again = evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], FEW)
    assert again == result


def test_figures_do_not_depend_on_the_order_of_the_records(tmp_path: Path) -> None:
    """BLEU's interval resamples the records by their places."""
    rows = trends(7)
    rows = Rows(
        "stage2", [{"caption": f"It rises {n} times.", "series": row["Series"]} for n, row in enumerate(rows)]
    )
    model = tiny.tiny_model("llama")
    first = evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], FEW)
    found = records(tmp_path / "out")
    file = tmp_path / "out" / "greedy.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in reversed(found)))
    assert evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], FEW) == first
    assert [one["index"] for one in records(tmp_path / "out")] == list(range(7))
    assert figures(rows.stage, found)[0] == first["methods"]["greedy"]  # type: ignore[index]


def test_a_stopped_evaluation_says_of_each_sample_what_a_whole_one_does(tmp_path: Path) -> None:
    model = tiny.tiny_model("llama")
    evaluation.evaluate(model, trends(7), tmp_path / "whole", ["greedy", "sample"], FEW)

    def stop(_: str, finished: int, __: int) -> None:
        if finished % 3 == 2:
            raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            evaluation.evaluate(model, trends(7), tmp_path / "stopped", ["greedy", "sample"], FEW, progress=stop)
    evaluation.evaluate(model, trends(7), tmp_path / "stopped", ["greedy", "sample"], FEW)
    for method in ("greedy", "sample"):
        one, other = (
            [
                {key: value for key, value in record.items() if key != "seconds"}
                for record in records(folder, method)
            ]
            for folder in (tmp_path / "whole", tmp_path / "stopped")
        )
        assert one == other


# ---- training ----


WORDS = replace(STAGE, name="words", epochs=1, lora=False, lr_llm=1e-3, samples={"stage1": 4})


def trained_files(folder: Path) -> dict[str, Any]:
    """The files of a run; of logs what is no time, of tensors their bytes."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "loss.jsonl":
            found[str(path.relative_to(folder))] = lines(path.parent)
        elif path.name != "state.safetensors" and path.is_file():  # which says how long it took
            found[str(path.relative_to(folder))] = path.read_bytes()
        elif path.is_file():
            found[str(path.relative_to(folder))] = None
    return found


@pytest.mark.parametrize("at", range(9))
def test_a_training_that_is_killed_at_any_rename_goes_on(base: Path, tmp_path: Path, at: int, whole: Any) -> None:
    plan, expected, renames = whole
    if at >= renames:
        pytest.skip("it has fewer renames")

    for when in ("before", "after"):
        out = tmp_path / when
        with pytest.MonkeyPatch.context() as patch, pytest.raises(_Killed):
            _kill_at(patch, at, after=when == "after")
            runs.train(plan, out)
        runs.train(plan, out)
        assert trained_files(out) == expected, when


class _Killed(BaseException):
    pass


def _kill_at(patch: pytest.MonkeyPatch, at: int, after: bool) -> list[int]:
    """Raise at the rename of that number, and let nobody tidy up, as after a kill."""
    count = [0]

    def dying(real: Any) -> Any:
        def rename(*args: Any, **more: Any) -> Any:
            count[0] += 1
            if count[0] - 1 != at:
                return real(*args, **more)
            if after:
                real(*args, **more)
            for name in ("unlink", "rmdir", "remove"):
                patch.setattr(os, name, lambda *args, **more: None)
            raise _Killed

        return rename

    for name in ("rename", "replace"):
        patch.setattr(os, name, dying(getattr(os, name)))
    exchange = files.exchange
    patch.setattr(files, "exchange", dying(exchange))
    return count


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A curriculum whose first stage trains the LLM itself, what its run leaves, and how often that renames."""
    plan = curriculum(base, WORDS)
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        count = _kill_at(patch, -1, after=False)
        runs.train(plan, folder)
    assert count[0] > 5
    return plan, trained_files(folder), count[0]


def test_the_loss_that_is_logged_after_a_stop_is_that_of_a_whole_run(base: Path, tmp_path: Path) -> None:
    """The log has the mean of ten steps, some of which were before the stop."""
    plan = curriculum(base, replace(STAGE, epochs=2, samples={"stage1": 24}))
    runs.train(plan, tmp_path / "whole")
    assert any(one["step"] % 10 for one in lines(tmp_path / "whole" / "stage1") if "loss" in one)

    def stop_at(step: int) -> Any:
        def report(config: StageConfig, progress: Progress, doing: str) -> None:
            if (progress.step, doing) == (step, "training"):
                raise KeyboardInterrupt

        return report

    for step in (3, 6, 7, 11):
        with pytest.raises(KeyboardInterrupt):
            runs.train(plan, tmp_path / "stopped", stop_at(step))
    runs.train(plan, tmp_path / "stopped")
    assert lines(tmp_path / "stopped" / "stage1") == lines(tmp_path / "whole" / "stage1")


def test_a_log_whose_last_line_was_cut_is_read(base: Path, tmp_path: Path) -> None:
    plan = curriculum(base, replace(STAGE, epochs=1, samples={"stage1": 4}))
    runs.train(plan, tmp_path / "run")
    before = lines(tmp_path / "run" / "stage1")
    with (tmp_path / "run" / "stage1" / "loss.jsonl").open("a") as file:
        file.write('{"step": 2, "los')
    runs.train(plan, tmp_path / "run")
    assert lines(tmp_path / "run" / "stage1") == before


def test_a_full_disk_is_said_and_the_training_goes_on_later(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text(
        f'model = "{base}"\nsource = "synthetic"\nmax_patches = 64\n[[stages]]\nname = "stage1"\n'
        "samples = { stage1 = 4 }\nvalidation_samples = 4\n"
    )
    save = mx.save_safetensors

    def full(*args: Any, **more: Any) -> None:
        raise RuntimeError("[write] Unable to write 1024 bytes to file.")

    monkeypatch.setattr(mx, "save_safetensors", full)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert main(["train", str(toml), "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said and "free some space and try again" in said and "Traceback" not in said
    monkeypatch.undo()
    assert mx.save_safetensors is save
    assert main(["train", str(toml), "-o", str(tmp_path / "run")]) == 0
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_damaged_mark_is_said(base: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curriculum.json").write_text("{")
    with pytest.raises(TSLMError, match=r"curriculum\.json is damaged"):
        runs.train(curriculum(base), tmp_path / "run")


# ---- converted folders ----


def make(folder: Path, text: str) -> None:
    with staged(folder, 100, force=True, own=True) as scratch:
        (scratch / "config.json").write_text(text)


@pytest.mark.parametrize("name", ("model", "Z[1]", "a*b", "[!x]?", "{a}"))
@pytest.mark.parametrize("swaps", (True, False))
def test_a_model_is_replaced_without_a_moment_in_which_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, swaps: bool
) -> None:
    out = tmp_path / name
    make(out, "first")
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    renames = [2, 0][swaps]
    for at in range(renames + 1):
        for after in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                _kill_at(patch, at, after)
                try:
                    make(out, "second")
                except _Killed:
                    if swaps:
                        assert (out / "config.json").read_text() in ("first", "second")
            with pytest.raises(KeyboardInterrupt), staged(out, 100, force=True, own=True):
                assert (out / "config.json").read_text() in ("first", "second")  # put back before the work begins
                raise KeyboardInterrupt
            assert [path.name for path in tmp_path.iterdir()] == [name]


def test_exchanging_is_one_step_where_the_system_can(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not files.exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("the file system cannot exchange two names")
    assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()
    assert not files.exchange(tmp_path / "one", tmp_path / "none")


# ---- Ctrl-C ----


@pytest.mark.parametrize("module", ("mlx_tslm.errors", "typer", "numpy", "mlx.core", "transformers"))
def test_ctrl_c_while_modules_are_imported_is_no_traceback(module: str) -> None:
    program = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == module:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "module = sys.argv.pop(1)\n"
        "sys.argv[0] = 'bin/mlx-tslm'\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from mlx_tslm.__main__ import main\n"
        "sys.exit(main())\n"
    )
    series = Path(tiny.__file__).parents[1] / "mlx_tslm" / "demo" / "airline.csv"
    command = [sys.executable, "-c", program, module, "generate", "--model", "demo", "--series", str(series)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert "Traceback" not in done.stderr


def test_loading_follows_a_replacement(base: Path, tmp_path: Path) -> None:
    """A model stays readable while another takes its place."""
    first = conversion.convert(
        tiny.write_checkpoint("llama", tmp_path / "a.pt", max_patches=64), tmp_path / "out", llm=str(base)
    )
    model = loading.load(first.path)
    conversion.convert(tmp_path / "a.pt", tmp_path / "out", llm=str(base), force=True)
    mx.eval(model.parameters())  # lazily, from files that have lost their names
