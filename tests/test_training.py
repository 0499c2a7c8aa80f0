"""Training: OpenTSLM's loss, batches, the trainer's promises, and `mlx-tslm train` through the front door."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map, tree_unflatten
from test_golden import EXPECTED, model_of, prompt

import mlx_tslm
from mlx_tslm import conversion, data
from mlx_tslm.cli import main
from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt
from mlx_tslm.training import config, memory
from mlx_tslm.training import loss as losses
from mlx_tslm.training import run as runs
from mlx_tslm.training.batches import chunks, collate, example, in_batches, steps_per_epoch
from mlx_tslm.training.config import Curriculum, StageConfig
from mlx_tslm.training.optimizer import optimizer_for
from mlx_tslm.training.start import flat, prepare
from mlx_tslm.training.trainer import Progress

STAGE = StageConfig("stage1", {"stage1": 12}, epochs=2, batch_size=4, validation_samples=4, lora=True, warmup=0.2)

ENVIRONMENT = os.environ | {
    "MLX_DISABLE_COMPILE": "1",  # see `quick`
    "MKL_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_base("llama", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Steps are few here: compiling takes longer than it saves."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def curriculum(base: Path, *stages: StageConfig, **more: Any) -> Curriculum:
    settings = {"source": "synthetic", "max_patches": 64, "dtype": "float32", **more}
    return Curriculum(str(base), stages or (STAGE,), **settings)


def mean_loss(model: SoftPromptModel, examples: list[Any], checkpoint: bool = False) -> float:
    batch = collate(examples)
    return float(losses.token_losses(model, batch, checkpoint).sum() / batch.weights.sum())


@pytest.mark.parametrize("checkpoint", (False, True))
@pytest.mark.parametrize("key", [key for key, entry in EXPECTED.items() if "loss" in entry])
def test_the_loss_of_one_sample_is_the_originals(key: str, checkpoint: bool) -> None:
    entry = EXPECTED[key]
    model = model_of(entry)
    one = example(model, prompt(entry["case"]), entry["answer"])
    one.answer.pop()  # the stored answer ends with the text of the end token already
    assert mean_loss(model, [one], checkpoint) == pytest.approx(entry["loss"], abs=2e-5)


def some_examples(model: SoftPromptModel) -> list[Any]:
    rng = np.random.default_rng(0)

    def series(count: int, length: int) -> tuple[Series, ...]:
        return tuple(Series(f"s{i}:", rng.standard_normal(length).astype(np.float32)) for i in range(count))

    prompts = [Prompt("a", series(1, 61), "bc"), Prompt("abcd", series(3, 17), ""), Prompt("", (), "no series")]
    return [
        example(model, one, answer) for one, answer in zip(prompts, ("yes", "a longer answer", "x"), strict=True)
    ]


@pytest.mark.parametrize("kind", ("llama", "gemma"))
def test_a_samples_loss_does_not_depend_on_its_batch_mates(kind: str) -> None:
    model = tiny.tiny_model(kind, max_patches=64)
    examples = some_examples(model)
    batch = collate(examples)
    together = np.array(losses.token_losses(model, batch).sum(axis=1) / batch.weights.sum(axis=1))
    alone = [mean_loss(model, [one]) for one in examples]
    np.testing.assert_allclose(together, alone, atol=2e-5)


@pytest.mark.parametrize(
    "name", ("encoder.layers.2.linear1.weight", "language_model.model.layers.1.mlp.up_proj.weight")
)
def test_gradients_are_slopes(name: str) -> None:
    """Along a random direction, against a difference of losses."""
    model = tiny.tiny_model("llama", max_patches=64)
    batch = collate(some_examples(model))
    weights = flat(model.parameters())
    direction = mx.random.normal(weights[name].shape, key=mx.random.key(3)) * 1e-3

    def value(array: mx.array) -> mx.array:
        model.load_weights([(name, array)], strict=False)
        return losses.token_losses(model, batch).sum()

    slope = float((mx.grad(value)(weights[name]) * direction).sum())
    found = float(value(weights[name] + direction) - value(weights[name] - direction)) / 2
    assert slope == pytest.approx(found, rel=0.02, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 7), st.integers(0, 9))
def test_an_epoch_has_every_sample_once(count: int, size: int, seed: int) -> None:
    parts = list(chunks(range(count), size, np.random.default_rng(seed)))
    batches = [batch for part in parts for batch in in_batches(part, part, size)]
    assert sorted(one for batch in batches for one in batch) == list(range(count))
    assert len(batches) == steps_per_epoch(count, size)
    assert all(batch == sorted(batch) for batch in batches)


def test_rates_rise_and_fall_and_adamw_is_torchs() -> None:
    """Two steps by hand: Loshchilov and Hutter's update with Adam's bias correction, decay before the step."""
    model = tiny.tiny_model("llama", max_patches=64)
    stage = StageConfig("stage1", lr_encoder=0.1, lr_projector=0.2, warmup=0.5, weight_decay=0.5)
    prepare(model, stage)
    optimizer = optimizer_for(stage, 4, model)
    before = {name: np.array(value) for name, value in flat(model.trainable_parameters()).items()}
    assert not any(name.startswith("language_model") for name in before)
    mean = square = 0.0
    expected = dict(before)
    for step, share in enumerate((0.0, 0.5), 1):
        gradients = {name: mx.full(value.shape, 0.3 * step) for name, value in before.items()}
        optimizer.update(model, tree_unflatten(list(gradients.items())))
        mean, square = 0.9 * mean + 0.1 * 0.3 * step, 0.999 * square + 0.001 * (0.3 * step) ** 2
        move = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        for name, value in expected.items():
            rate = share * (0.1 if name.startswith("encoder.") else 0.2)
            expected[name] = value * (1 - rate * 0.5) - rate * move
    for name, value in flat(model.trainable_parameters()).items():
        np.testing.assert_allclose(np.array(value), expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ("llama", "gemma"))
def test_a_batch_gives_the_logits_that_the_model_gives_one_by_one(kind: str) -> None:
    model = tiny.tiny_model(kind, lora=4, fuse=False, max_patches=64)
    rows = data.load("stage3", "train", source="synthetic", size=3)
    samples = [rows.stage.from_row(row) for row in rows]
    batch = collate([example(model, *sample) for sample in samples])
    logits = losses.answer_logits(model, batch)
    for row, (asked, answer) in enumerate(samples):
        ids = [*model.tokenizer.encode(answer), model.tokenizer.eos_token_id]
        assert batch.targets[row, : len(ids)].tolist() == ids and float(batch.weights[row].sum()) == len(ids)
        wanted = model.score(asked, ids[:-1])
        assert mx.abs(logits[row, : len(ids)] - wanted).max().item() < 5e-3


def lines(folder: Path) -> list[dict[str, Any]]:
    kept = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in kept]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_tslm.training.trainer._LOG_EVERY", 1)
    plan = curriculum(base, STAGE, replace(STAGE, name="stage3", samples={"stage1": 4, "stage3": 4}))
    runs.train(plan, tmp_path / "whole")

    def stop_at(stage: str, step: int) -> Any:
        def report(config: StageConfig, progress: Progress, doing: str) -> None:
            if (config.name, progress.step, doing) == (stage, step, "training"):
                raise KeyboardInterrupt

        return report

    for stage, step in (("stage1", 2), ("stage1", 5), ("stage3", 3)):
        with pytest.raises(KeyboardInterrupt):
            runs.train(plan, tmp_path / "stopped", stop_at(stage, step))
    runs.train(plan, tmp_path / "stopped")
    for stage in ("stage1", "stage3"):
        assert lines(tmp_path / "stopped" / stage) == lines(tmp_path / "whole" / stage)
        kept, expected = (mx.load(str(tmp_path / run / stage / "best.safetensors")) for run in ("stopped", "whole"))
        assert all(mx.array_equal(kept[name], expected[name]) for name in expected)
    losses = [one["loss"] for one in lines(tmp_path / "whole" / "stage1") if "loss" in one]
    assert len(losses) == 6 and losses[-1] < losses[0]


def test_what_is_written_is_one_model_in_three_forms(base: Path, tmp_path: Path) -> None:
    """The converted folder, and OpenTSLM's checkpoint with the base LLM, answer alike; the base stays as it was."""
    (trained,) = runs.train(curriculum(base, replace(STAGE, epochs=1), leads=("II",)), tmp_path / "run")
    checkpoint = read(trained.folder / "model_checkpoint.pt")
    assert list(checkpoint) == [
        "encoder_state", "projector_state", "lora_enabled", "lora_state", "lora_config", "val_loss", "epoch",
    ]  # fmt: skip
    assert checkpoint["epoch"] == 1 and checkpoint["val_loss"] == pytest.approx(trained.progress.best)
    summary = conversion.convert(
        trained.folder / "model_checkpoint.pt", tmp_path / "converted", llm=str(base), fuse=False
    )
    one, other = mlx_tslm.load(trained.folder / "model"), mlx_tslm.load(summary.path)
    assert one.stage is not None and one.stage.name == "stage1" and one.config.leads == ["II"]
    rows = data.load("stage1", "test", source="synthetic")
    asked = rows.stage.from_row(rows[0]).prompt
    np.testing.assert_allclose(np.array(one.score(asked, [5])), np.array(other.score(asked, [5])), atol=2e-3)
    kept = {name: value for name, value in flat(one.language_model.parameters()).items() if "lora_" not in name}
    for name, value in tiny.base_weights("llama").items():
        there = kept.get(name, kept.get(name.replace("_proj.weight", "_proj.linear.weight")))
        assert np.array_equal(np.array(there.astype(mx.float32)), value), name
    assert (trained.folder / "loss.svg").read_text().startswith("<svg")


def test_an_llm_that_is_trained_itself_is_written_too(base: Path, tmp_path: Path) -> None:
    first = replace(STAGE, name="words", epochs=1, lora=False, lr_llm=1e-3)
    trained = runs.train(curriculum(base, first, replace(STAGE, epochs=1)), tmp_path / "run")
    assert not (trained[1].folder / "base").exists()
    new = str(trained[0].folder / "base")
    for one in trained:
        summary = conversion.convert(
            one.folder / "model_checkpoint.pt", tmp_path / one.stage.name, llm=new, dtype="float32"
        )
        converted, folder = mlx_tslm.load(summary.path), mlx_tslm.load(one.folder / "model")
        folder.update(tree_map(lambda array: array.astype(mx.float32), folder.parameters()))
        rows = data.load("stage1", "test", source="synthetic")
        asked = rows.stage.from_row(rows[1]).prompt
        np.testing.assert_allclose(
            np.array(converted.score(asked, [7])), np.array(folder.score(asked, [7])), atol=2e-3
        )


def test_outputs_that_a_kill_has_prevented_are_written_by_the_next_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mlx_tslm.training.outputs.write", killed)
        runs.train(curriculum(base, replace(STAGE, epochs=1)), tmp_path / "run")
    (trained,) = runs.train(curriculum(base, replace(STAGE, epochs=1)), tmp_path / "run")
    assert (trained.folder / "model_checkpoint.pt").exists() and mlx_tslm.load(trained.folder / "model")


def test_it_stops_early_and_keeps_the_best(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = replace(STAGE, epochs=9, patience=2, lr_encoder=1e-9, lr_projector=1e-9, lr_lora=1e-9)
    (trained,) = runs.train(curriculum(base, stage), tmp_path / "run")
    assert trained.progress.epoch == 3 and trained.progress.bad_epochs == 2


def test_a_loss_that_is_no_number_names_its_batch(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = losses.token_losses, []

    def poisoned(*args: Any) -> mx.array:
        calls.append(0)
        return real(*args) * (float("nan") if len(calls) == 5 else 1.0)

    monkeypatch.setattr(losses, "token_losses", poisoned)
    with pytest.raises(TSLMError, match=r"loss is nan at step \d.*stage1 train \d+.*last good checkpoint"):
        runs.train(curriculum(base), tmp_path / "run")
    monkeypatch.setattr(losses, "token_losses", real)
    (trained,) = runs.train(curriculum(base), tmp_path / "run")
    assert np.isfinite(trained.progress.best) and trained.progress.step == 6


def test_what_does_not_fit_into_memory_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    with pytest.raises(
        TSLMError, match=r"batch of 4 samples .* GB are free: lower batch_size, or set gradient_check"
    ):
        runs.train(curriculum(base), tmp_path / "run")


def test_another_curriculum_or_other_data_are_told(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = curriculum(base, replace(STAGE, epochs=1, samples={"stage1": 4}))
    runs.train(short, tmp_path / "run")
    with pytest.raises(TSLMError, match="another curriculum"):
        runs.train(replace(short, seed=1), tmp_path / "run")
    monkeypatch.setattr("mlx_tslm.training.data.fingerprint", lambda rows: "other")
    with pytest.raises(TSLMError, match="other data"):
        runs.train(short, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(TSLMError, match="holds no training"):
        runs.train(short, tmp_path / "mine")


@pytest.mark.parametrize("name", config.builtin())
def test_the_curricula_that_come_with_the_package_are_whole(name: str) -> None:
    plan = config.load(name)
    assert {stage for one in plan.stages for stage in one.samples or (one.name,)} == {
        f"stage{i}" for i in range(1, 6)
    }
    assert [one.name for one in plan.stages] == sorted(one.name for one in plan.stages)
    assert plan.stages[-1].name == "stage5"  # whose wording the model then has by default


BROKEN = {
    "epoch = 3": "unknown key 'epoch' in stage1",
    "epochs = 0": "epochs must be at least 1",
    "epochs = 2.5": "epochs = 2.5 in stage1; it must be of type int",
    "lr_encoder = 3": "lr_encoder must lie between 0 and 1",
    "lora = 1": "must be of type bool",
    "samples = { stage9 = 3 }": "samples of 'stage9'",
    "samples = { stage1 = 0 }": "give at least 1",
    "warmup = 1.0": "warmup",
    "x = [": "no TOML",
    "lr_encoder = 0\nlr_projector = 0\nlr_lora = 0": "nothing to train",
    "validation_samples = 2": "synthetic rows never end",
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_a_broken_curriculum_is_one_clear_line(
    wrong: str, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(f'model = "{base}"\nsource = "synthetic"\n[[stages]]\nname = "stage1"\n{wrong}\n')
    assert main(["train", str(file), "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert BROKEN[wrong] in said and len(said.strip().splitlines()) == 1, said


def test_the_command_trains_and_says_where_the_model_is(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        'source = "synthetic"\nmax_patches = 64\ndtype = "float32"\nmodel = "elsewhere"\n'
        '[[stages]]\nname = "stage1"\n'
        "samples = { stage1 = 8 }\nvalidation_samples = 4\nlora = true\n"
    )
    command = [sys.executable, "-m", "mlx_tslm"]
    train = [*command, "train", str(file), "--model", str(base), "-o", "run", "--calibrate", "0"]
    done = subprocess.run(
        train, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "stage1" in done.stdout and "run/stage1/model" in done.stdout.replace("\n", "")
    series = tmp_path / "series.csv"
    series.write_text("\n".join(str(i % 7) for i in range(64)))
    options = ["--series", str(series), "--max-tokens", "4", "--json", "-"]
    asked = [*command, "generate", "--model", "run/stage1/model", *options]
    answer = subprocess.run(
        asked, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_adapters_that_are_fused_are_part_of_the_llm_from_then_on(tiny_folder: Path, tmp_path: Path) -> None:
    short = replace(STAGE, samples={"stage1": 4}, epochs=1)
    runs.train(curriculum(tiny_folder, short), tmp_path / "run")
    before, after = (mlx_tslm.load(folder) for folder in (tiny_folder, tmp_path / "run"))
    weights = flat(after.language_model.parameters())
    assert any(name.endswith("lora_a") for name in weights) and after.config.lora and not after.config.lora.fused
    for name, array in flat(before.language_model.parameters()).items():
        stored = weights.get(name, weights.get(name.replace("_proj.weight", "_proj.linear.weight")))
        assert stored is not None and mx.array_equal(array, stored), name


def test_two_processes_have_the_losses_of_one(base: Path, tmp_path: Path) -> None:
    launch = shutil.which("mlx.launch", path=str(Path(sys.executable).parent))
    if launch is None or not mx.distributed.is_available():
        pytest.skip("mlx.launch, or a backend for it, is not there")
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'model = "{base}"\nsource = "synthetic"\nmax_patches = 64\ndtype = "float32"\n'
        '[[stages]]\nname = "stage1"\n'
        "samples = { stage1 = 5 }\nvalidation_samples = 2\nlora = true\nepochs = 1\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom mlx_tslm.training import config, run\n"
        "(trained,) = run.train(config.load(sys.argv[1]), Path(sys.argv[2]))\n"
        "print('best', trained.progress.best, flush=True)\n"
    )
    command = [sys.executable, str(script), str(plan)]
    found = []
    for start in ([], [launch, "-n", "2", "--backend", "ring"]):
        out = tmp_path / f"run{len(found)}"
        done = subprocess.run(
            [*start, *command, str(out)], env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False
        )
        assert (out / "stage1" / "model").exists(), done.stderr
        found.append([float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("best")])
    one, two = (lines(tmp_path / name / "stage1") for name in ("run0", "run1"))
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    for a, b in zip(one, two, strict=True):
        assert a.get("loss", a.get("validation_loss")) == pytest.approx(
            b.get("loss", b.get("validation_loss")), abs=1e-3
        )
    assert len(found[1]) == 2 and found[1] == pytest.approx(found[0] * 2, abs=1e-3), (
        "each process knows the best loss"
    )
