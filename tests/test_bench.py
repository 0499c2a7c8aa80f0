"""The benchmarks measure what they say, go on where they stopped, and make tables from raw data alone."""

import json
import math
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from test_torch import WITHOUT_TORCH

from benchmarks.suite import conversion, cost, readme, run, search, stages, suites
from benchmarks.suite import torch as pytorch
from benchmarks.suite.measure import Case, Measured, Spread, Variant, ratio, run_case
from benchmarks.suite.results import Results, Sample
from benchmarks.suite.shapes import SHAPES, prompt_of, random_model
from benchmarks.suite.steppers import CachedRow, CopiedPrefix, SharedPrefix, Uncached, repeat
from benchmarks.suite.tables import seconds_text
from mlx_tslm.cli import main
from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.search import METHODS

TINY = replace(
    suites.SUITES["quick"],
    name="full",
    shape=SHAPES["tiny"],
    conversions=("bfloat16",),
    bandwidth=1 << 20,
    prompts=(64, 96),
    steps=((64, 4),),
    batch=(64, 4),
    search=(6, 3, 64, 4),
    bookkeeping=200,
    torch_prompts=(64,),
    torch_rows=4,
    torch_job=(4, 64, 4),
    torch_width=2,
    stage_budget=(3, 2, 4),
    rollouts=(1, 4),
    widths=(1, 4),
    depths=(2, 4),
    sweep=(4, 2, 64, 4),
)
PAGE = Path(__file__).parents[1] / "benchmarks" / "README.md"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a tiny suite's results, conversions left out, and both files that hold tables."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "README.md").write_text(PAGE.read_text())
    (root / "README.md").write_text("# x\n<!-- bench-table:start -->\n<!-- bench-table:end -->\nmore\n")
    run.run(TINY, root / "benchmarks" / "results", ["decoding", "search", "scaling"])
    readme.write(root)
    return root


def lines(root: Path, topic: str) -> list[dict]:
    (path,) = (root / "benchmarks" / "results").glob(f"*/{topic}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_names_its_schema_and_machine(measured: Path) -> None:
    for topic in ("decoding", "search", "scaling"):
        first, *samples = lines(measured, topic)
        assert (
            first["kind"] == "session"
            and {"chip", "cores", "memory", "os", "blas", "load"} <= first["machine"].keys()
        )
        assert all(line["schema"] == 1 and line["session"] == first["session"] for line in samples)
        assert all(line["seconds"] > 0 for line in samples)


def test_tables_hold_every_topic_and_the_rest_of_the_text(measured: Path) -> None:
    page, front = (measured / "benchmarks" / "README.md").read_text(), (measured / "README.md").read_text()
    for word in (
        "whole search",
        "BatchGenerator",
        "memory read",
        "exponent",
        "each operation measured alone",
        "forward passes of a search",
        "decoding behind it",
        "PREDICTION, not measured",
        "GFLOP/s",
        "peer over mlx-tslm",
    ):
        assert word in page
    assert "## How it is measured" in page
    assert front.startswith("# x\n") and front.endswith("more\n") and "decode step" in front
    assert readme.stale(measured) == []


def test_plots_are_drawings(measured: Path) -> None:
    plots = list((measured / "benchmarks" / "plots").glob("*.svg"))
    assert len(plots) == 2
    for path in plots:
        tags = [element.tag.rpartition("}")[2] for element in ET.fromstring(path.read_text()).iter()]
        assert tags.count("circle") == 8  # two points in each of four panels


def test_check_finds_a_figure_that_was_typed(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = measured / "benchmarks" / "README.md"
    honest = page.read_text()
    assert main(["bench", "table", "--check", "--root", str(measured)]) == 0
    page.write_text(honest.replace(" GFLOP/s |", "0 GFLOP/s |", 1))
    assert main(["bench", "table", "--check", "--root", str(measured)]) == 1
    assert "differs" in capsys.readouterr().out
    assert main(["bench", "table", "--root", str(measured)]) == 0
    assert page.read_text() == honest


def test_a_second_run_measures_nothing_again(measured: Path) -> None:
    (path,) = (measured / "benchmarks" / "results").glob("*/scaling.jsonl")
    before = path.read_bytes()
    run.run(TINY, measured / "benchmarks" / "results", ["scaling"])
    assert path.read_bytes() == before


class Clock:
    """A case of two variants that write down when they are called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def case(self, rounds: int, needs: Mapping[str, int] | None = None, warmup: bool = True) -> Case:
        return Case("clock", {"size": 1}, ["a", "b"], self.build, rounds, needs or {}, warmup)

    def build(self, names: frozenset[str]) -> dict[str, Variant]:
        def variant(name: str) -> Variant:
            def call() -> Measured:
                self.calls.append(name)
                return Measured(float(len(self.calls)))

            return call

        return {name: variant(name) for name in names}


def opened(path: Path, session: str) -> Results:
    results = Results(path)
    results.start(session, {"id": "m"})
    return results


def test_rounds_alternate_and_go_on_after_a_stop(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "x.jsonl"
    run_case(clock.case(2), opened(path, "one"), "one")
    assert "".join(clock.calls) == "ababab"  # the first two are the warm-up
    with path.open("ab") as file:
        file.write(b'{"schema": 1, "kind": "sam')  # what a kill leaves
    run_case(clock.case(3), opened(path, "two"), "two")
    assert "".join(clock.calls[6:]) == "abab"
    results = Results(path)
    assert len(results.rounds("clock", {"size": 1})) == 3
    assert set(results.machines) == {"one", "two"}
    run_case(clock.case(3), opened(path, "three"), "three")
    assert len(clock.calls) == 10 and "three" not in Results(path).machines


def test_what_does_not_fit_is_skipped_and_said(tmp_path: Path) -> None:
    clock, results = Clock(), opened(tmp_path / "x.jsonl", "one")
    run_case(clock.case(2, {"b": 1 << 60}, warmup=False), results, "one")
    assert clock.calls == ["a", "a"]
    rounds = Results(results.path).rounds("clock", {"size": 1})
    assert "needs" in (rounds[0]["b"].skipped or "") and math.isnan(rounds[0]["b"].seconds)
    assert ratio(rounds, "b", "a") is None


def test_a_ratio_is_the_median_of_the_ratios_in_each_round() -> None:
    pairs = [(2.0, 1.0), (30.0, 10.0), (8.0, 2.0)]
    rounds = [
        {name: Sample("c", {}, name, i, seconds) for name, seconds in zip("ab", pair, strict=True)}
        for i, pair in enumerate(pairs)
    ]
    assert ratio(rounds, "a", "b") == Spread(3.0, 2.0, 4.0, 3)  # that of the medians would be 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"schema": 99, "kind": "session", "session": "s", "machine": {}}', "schema version 99"),
        ("1, 2", "line 1: not a benchmark result"),
        ('{"schema": 1, "kind": "sample", "speed": 3}', "line 1: not a benchmark result"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "benchmarks" / "results" / "m" / "search.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert main(["bench", "table", "--root", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_unknown_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "run", "--suite", "huge", "--output", str(tmp_path)]) == 2
    assert "quick, full" in capsys.readouterr().err
    assert main(["bench", "run", "--only", "cooking", "--output", str(tmp_path)]) == 2
    assert "'cooking'" in capsys.readouterr().err
    assert main(["bench", "table", "--root", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_page_without_its_markers_is_refused(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "results").symlink_to(measured / "benchmarks" / "results")
    (tmp_path / "benchmarks" / "README.md").write_text("nothing here")
    with pytest.raises(TSLMError, match="lacks the lines"):
        readme.write(tmp_path)


def test_shapes_and_the_cost_model_count_what_is_there() -> None:
    shape = SHAPES["tiny"]
    model = random_model(shape)
    matrices = {
        name: array.size
        for name, array in tree_flatten(model.language_model.parameters())
        if array.ndim == 2  # type: ignore[union-attr]
    }
    assert sum(matrices.values()) == shape.parameters
    prompt = model.prefill(prompt_of(model, 64))
    assert prompt.length == 64
    parts = cost.decode_step(shape, cost.FLOAT32, 64, 4, 10)
    assert parts["prefix"].nbytes == prompt.nbytes
    assert parts["linears"].nbytes + parts["head"].nbytes == 4 * shape.parameters
    assert parts["linears"].flops == 2 * 4 * shape.layer_parameters
    # Two products of [rows · heads, D] with [D, 64] a layer.
    assert parts["prefix"].flops == 2 * 2 * 4 * shape.heads * shape.head_dim * 64 * shape.layers


def test_the_least_time_is_bandwidth_or_arithmetic() -> None:
    limits = cost.Limits(100.0, {1: 10.0, 100: 1000.0})
    assert cost.Part(200.0, 10.0, 1).seconds(limits) == 2.0
    assert cost.Part(200.0, 3000.0, 100).seconds(limits) == 3.0
    assert limits.flops_at(10) == pytest.approx(505.0)  # half way on a logarithmic scale
    assert limits.flops_at(1e6) == 1000.0


def test_the_ways_to_decode_that_are_compared_do_the_same() -> None:
    model = random_model(SHAPES["tiny"])
    asked = prompt_of(model, 64)
    prompt = model.prefill(asked)
    shared, copied = SharedPrefix(model, prompt, 3), CopiedPrefix(model, prompt, 3)
    repeat(shared, 5)
    repeat(copied, 5)  # the same uniform numbers, so the same tokens
    ours = shared.decoder.logits(shared._nodes)
    np.testing.assert_allclose(ours, lm.logits(model.language_model, copied._states), atol=1e-3)
    assert copied.nbytes >= 3 * prompt.nbytes
    row, one = CachedRow(model, prompt), SharedPrefix(model, prompt, 1)
    repeat(row, 4)
    repeat(one, 5)  # a row has taken its first token when it is made
    np.testing.assert_allclose(
        lm.logits(model.language_model, row._state), one.decoder.logits(one._nodes), atol=1e-3
    )
    Uncached(model, asked, 3).step()


def test_a_conversion_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    conversion.write_source(SHAPES["tiny"], tmp_path)
    job = {"source": str(tmp_path / "model_checkpoint.pt"), "llm": str(tmp_path / "base")}
    told = conversion._in_child(job | {"output": str(tmp_path / "out"), "verify": True})
    assert told.seconds > 0
    assert told.values["bytes"] == pytest.approx(
        sum(p.stat().st_size for p in tmp_path.glob("out/*.safetensors")), rel=0.01
    )
    with pytest.raises(TSLMError, match="timed failed"):
        conversion._in_child({"source": str(tmp_path / "none.pt"), "output": str(tmp_path / "x")})


def test_random_weights_draw_like_a_trained_model() -> None:
    model = random_model(SHAPES["tiny"])
    logits = lm.logits(model.language_model, model.prefill(prompt_of(model, 64)).state)
    log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    entropy = -mx.sum(mx.exp(log_p) * log_p).item()
    assert 0.1 < entropy < 4


def test_a_shape_says_its_dtype() -> None:
    shape = replace(SHAPES["tiny"], dtype="bfloat16")
    model = random_model(shape)
    assert model.dtype == mx.bfloat16 and model.encoder.pos_embed.dtype == mx.float32
    assert 2 * shape.kv_bytes == SHAPES["tiny"].kv_bytes
    assert cost.precision(shape) == cost.BFLOAT16


def test_pytorch_gets_the_same_weights_in_the_same_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason=WITHOUT_TORCH)
    from benchmarks.suite import torch_worker as worker

    shape = replace(SHAPES["tiny"], dtype="bfloat16")
    monkeypatch.setitem(SHAPES, "tiny-bf16", shape)
    ours, theirs = random_model(shape), worker.torch_model("tiny-bf16")
    prompt = prompt_of(ours, 64)
    assert str(theirs.language_model.dtype) == "torch.bfloat16"
    difference = np.array(ours.score(prompt, [3, 4]) - theirs.score(prompt, [3, 4]))
    assert np.abs(difference).max() < 0.5  # logits have a deviation of 6.5


def test_an_unknown_shape_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "run", "--shape", "GPT-5", "--output", str(tmp_path)]) == 2
    assert "choose from tiny, SmolLM2-135M" in " ".join(capsys.readouterr().err.split())


def test_pytorch_is_measured_beside_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra mlx-tslm[torch])")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more are slower on so little, most of all on a busy machine
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "README.md").write_text(PAGE.read_text())
    run.run(TINY, tmp_path / "benchmarks" / "results", ["torch"], ["mlx", "torch"])
    found: dict[str, set[str]] = {}
    for line in lines(tmp_path, "torch")[1:]:
        found.setdefault(line["case"], set()).add(line["variant"])
        assert line["seconds"] > 0
        if line["variant"] == pytorch.UNCACHED:  # two tokens stand for all that were decoded one at a time
            passes, measured = line["values"]["passes"], line["values"]["measured_seconds"]
            assert line["seconds"] > measured * (passes - 1) / 2
    run.run(TINY, tmp_path / "benchmarks" / "results", ["stages"], ["mlx", "torch"], "1")
    beside: dict[str, list[float]] = {}
    for line in lines(tmp_path, "stages"):
        if line.get("case") == "stage-torch":
            beside.setdefault(line["variant"], []).append(line["seconds"])
    assert beside.keys() == {pytorch.OURS, pytorch.CACHED, pytorch.UNCACHED}
    assert found == {
        "torch-prefill": {pytorch.OURS, pytorch.TORCH},
        "torch-step": {search.SHARED, pytorch.STATIC},
        "torch-job": {pytorch.OURS, pytorch.GENERATE},
        "torch-search": {pytorch.OURS, pytorch.CACHED, pytorch.UNCACHED},
    }
    readme.write(tmp_path)
    page = (tmp_path / "benchmarks" / "README.md").read_text()
    assert "transformers' `generate` against ours" in page and "static cache" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| stage1 (tsqa)")]
    for seconds in beside.values():  # ours too is that of the rounds with PyTorch
        assert f"| {seconds_text(Spread.of(seconds))} |" in row


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--suite", "huge"), "unknown suite 'huge'; choose from quick, full"),
        (("--only", "speed"), "unknown benchmark 'speed'"),
        (("--backends", "mlx,jax"), "unknown backend 'jax'; choose from mlx, torch"),
        (("--backends", "torch"), "--backends mlx,torch"),
        (("--only", "torch"), "--backends mlx,torch"),
        (("--stages", "4-6"), "1-5"),
        (("--stages", "ecg"), "1-5"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "run", *arguments, "--output", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_pytorch_that_is_not_installed_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "bench", "run", "--backends", "mlx,torch"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "mlx-tslm[torch]"' in done.stderr and "Traceback" not in done.stderr


def test_every_method_is_measured_on_the_chosen_stages(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "README.md").write_text(PAGE.read_text())
    run.run(TINY, tmp_path / "benchmarks" / "results", ["stages"], of_stages="1,3")
    samples = [line for line in lines(tmp_path, "stages")[1:] if not line["warmup"]]
    assert {line["parameters"]["stage"] for line in samples} == {"stage1", "stage3"}
    assert {line["variant"] for line in samples} == set(METHODS)
    for line in samples:
        told = line["values"]
        assert told["seconds_prefill"] + told["seconds_decode"] < line["seconds"]
        assert told["peak_memory"] > 0 and 0 <= told["distinct_2"] <= 1 and told["depth"] <= 4
        assert told["forward_passes"] <= told["tokens_decoded"] + 1
    readme.write(tmp_path)
    page = (tmp_path / "benchmarks" / "README.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| stage1 (tsqa)")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:4] == ["~40 s (published)", "~25 s (published)", "~8-10 s (published)"]
    assert cells[5:7] == ["", ""] and all(cells[7:])  # PyTorch was not asked
    assert "~12-15 s (published)" in page and "distinct-2" in page and "| stage3 | dts* |" in page


def test_distinct_n_counts_runs_of_tokens() -> None:
    assert stages.distinct([(1, 2, 3), (1, 2)], 2) == 2 / 3
    assert stages.distinct([(1, 1, 1, 1)], 3) == 1 / 2
    assert stages.distinct([(1,)], 2) == 0


def test_a_mac_is_measured_by_one_command(tmp_path: Path) -> None:
    """With the environment and `mlx-tslm` stood in for: a checkpoint that cannot be had stops nothing."""
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(PAGE.parents[1] / "scripts" / "mac_bench", tmp_path / "scripts")
    (tmp_path / "scripts" / "_env.sh").write_text(
        f"environment() {{ echo extras $1; }}\ncd {tmp_path}\ngit init -q\n"
    )
    command = tmp_path / "mlx-tslm"
    command.write_text('#!/bin/sh\necho "$@"\n[ "$1" != generate ]\n')
    command.chmod(0o755)

    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run([script, *arguments], env=path, capture_output=True, text=True, check=False)

    look, record = said(), said("--suite", "full", "--no-torch")
    assert (look.returncode, record.returncode) == (0, 0)
    assert "formats,plots,torch\n" in look.stdout and "formats,plots\n" in record.stdout
    assert "\nbench run --suite quick --backends mlx,torch\n" in look.stdout and "bench table" not in look.stdout
    assert "\nbench run --suite full --backends mlx\nbench table\n" in record.stdout
    assert "pull request" in record.stdout
    wrong = said("--fast")
    assert wrong.returncode == 2 and "unknown option --fast" in wrong.stderr
