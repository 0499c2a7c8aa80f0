"""Conversion from a `.pt` and a base LLM to a folder: every weight, every refusal, and what a kill leaves."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from fake_hub import COMMIT, FakeHub
from mlx.utils import tree_flatten

from mlx_tslm import conversion
from mlx_tslm.conversion import keymap, recipe, store, verify, writer
from mlx_tslm.conversion.base import open_base
from mlx_tslm.conversion.checkpoint import open_checkpoint
from mlx_tslm.conversion.plan import plan
from mlx_tslm.conversion.pt import writer as pt_writer
from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model

FILES = Path(__file__).parent / "data" / "checkpoints"
SMALL_LLAMA = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "rope_theta": 10000.0,
}  # fmt: skip


def small_base(folder: Path, layers: int, **patched: np.ndarray) -> Path:
    """A Llama of the width that the checkpoints in `data` were made for, with some of its weights given."""
    folder.mkdir(parents=True)
    config = SMALL_LLAMA | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny.GOLDEN / "llama" / name, folder)
    mx.random.seed(0)
    weights = dict(tree_flatten(language_model.build(config).parameters()))
    weights |= {name: mx.array(value) for name, value in patched.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def load(folder: Path) -> dict[str, mx.array]:
    return {name: array for path in folder.glob("model*.safetensors") for name, array in mx.load(str(path)).items()}


def as_float32(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("MLX_TSLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny bases and checkpoints: `llama/`, `gemma/`, `llama.pt`, `llama-lora.pt` …"""
    folder = tmp_path_factory.mktemp("files")
    for kind in ("llama", "gemma"):
        tiny.write_base(kind, folder / kind)
        tiny.write_checkpoint(kind, folder / f"{kind}.pt", max_patches=40)
        tiny.write_checkpoint(kind, folder / f"{kind}-lora.pt", lora=4, max_patches=40)
    return folder


# ---- the weights ----


def test_agrees_with_peft(tmp_path: Path) -> None:
    """Fused weights equal those of PEFT's own `merge_and_unload` (`sp_lora.npz`, made by `make.py`)."""
    golden = np.load(FILES / "sp_lora.npz")
    base = small_base(
        tmp_path / "base", 2, **{name[5:]: golden[name] for name in golden if name.startswith("base.")}
    )
    summary = conversion.convert(FILES / "sp_lora.pt", tmp_path / "out", llm=str(base), verify=True)
    weights = load(tmp_path / "out")
    for name in golden:
        if name.startswith("merged."):
            np.testing.assert_allclose(weights[f"language_model.{name[7:]}"], golden[name], atol=1e-6, rtol=0)
            assert np.abs(golden[name] - golden[f"base.{name[7:]}"]).max() > 1e-3
    np.testing.assert_array_equal(weights["encoder.patch_embed.weight"], golden["patch_embed"].swapaxes(1, 2))
    np.testing.assert_array_equal(weights["projector.linear.bias"], golden["projector_bias"])
    assert summary.config.lora.scale == 2.0
    assert summary.config.encoder_config.max_patches == 20
    assert summary.config.encoder_config.num_hidden_layers == 2


def test_training_checkpoint_with_bfloat16_adapters_and_rank_stabilised_scale(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base", 1)
    conversion.convert(FILES / "training.pt", tmp_path / "out", llm=str(base), verify=True)
    state = read(FILES / "training.pt")["lora_state"]
    name = "model.layers.0.mlp.up_proj"
    a, b = (state[f"base_model.model.{name}.lora_{side}.default.weight"].numpy() for side in "AB")
    expected = np.array(load(base)[f"{name}.weight"]) + 4 / np.sqrt(2) * b @ a
    np.testing.assert_allclose(load(tmp_path / "out")[f"language_model.{name}.weight"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_every_parameter_of_the_model(files: Path, tmp_path: Path, kind: str) -> None:
    """The folder holds what the tiny model, built another way, has in memory."""
    summary = conversion.convert(
        files / f"{kind}-lora.pt", tmp_path / "out", llm=str(files / kind), dtype="float32", verify=True
    )
    model = tiny.tiny_model(kind, lora=4, max_patches=40)
    expected = dict(tree_flatten(model.parameters()))
    weights = load(tmp_path / "out")
    assert set(weights) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, atol=2e-6, rtol=0, err_msg=name)
    assert (
        sum(summary.parameters.values())
        == sum(array.size for array in expected.values()) + summary.parameters["lora"]
    )
    assert summary.config.text_config["torch_dtype"] == "float32"


def test_dtypes_are_kept(files: Path, tmp_path: Path) -> None:
    conversion.convert(files / "llama-lora.pt", tmp_path / "out", llm=str(files / "llama"))
    for name, array in load(tmp_path / "out").items():
        assert array.dtype == (mx.bfloat16 if name.startswith("language_model.") else mx.float32), name
    conversion.convert(
        files / "llama.pt", tmp_path / "half", llm=str(files / "llama"), dtype="float16", verify=True
    )
    assert load(tmp_path / "half")["language_model.model.norm.weight"].dtype == mx.float16


def test_adapters_kept(files: Path, tmp_path: Path) -> None:
    conversion.convert(files / "llama-lora.pt", tmp_path / "out", llm=str(files / "llama"), fuse=False, verify=True)
    weights = load(tmp_path / "out")
    model = tiny.tiny_model("llama", lora=4, fuse=False, max_patches=40)
    expected = dict(tree_flatten(model.parameters()))
    assert set(weights) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(as_float32(weights[name]), as_float32(expected[name]), err_msg=name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["lora"]["rank"], config["lora"]["alpha"], config["lora"]["fused"]) == (4, 12.0, False)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("fuse", [True, False])
def test_quantizes_the_linear_layers_only(files: Path, tmp_path: Path, bits: int, fuse: bool) -> None:
    out = tmp_path / "out"
    summary = conversion.convert(
        files / "llama-lora.pt", out, llm=str(files / "llama"), quantize=bits, group_size=32, fuse=fuse, verify=True
    )
    weights = load(out)
    inner = "" if fuse else ".linear"
    quantized = {name.removesuffix(".scales") for name in weights if name.endswith(".scales")}
    linears = {name.removesuffix(".weight") for name in tiny.linear_shapes("llama")}
    assert quantized == {f"language_model.{name}{inner}" for name in linears}
    name = "model.layers.1.mlp.down_proj"
    codes, scales, biases = (
        weights[f"language_model.{name}{inner}.{part}"] for part in ("weight", "scales", "biases")
    )
    wide = [part.astype(mx.float32) for part in (scales, biases)]
    values = as_float32(mx.dequantize(codes, *wide, group_size=32, bits=bits))
    expected = tiny.base_weights("llama")[f"{name}.weight"]
    if fuse:  # before quantizing
        lora = tiny.lora_weights("llama", 4)
        expected = expected + 3.0 * (lora[f"{name}.lora_a"] @ lora[f"{name}.lora_b"]).T
    step = np.ptp(expected) / (2**bits - 1)
    assert np.abs(values - expected).max() < 1.5 * step + 3 * 2.0**-8 * np.abs(expected).max()  # bfloat16 scales
    assert summary.config.quantization == {"group_size": 32, "bits": bits, "mode": "affine"}
    assert any(f"{bits}-bit" in row.dtype and row.difference > 0 for row in summary.comparisons)


@pytest.mark.parametrize(
    "options",
    [{}, {"fuse": False}, {"quantize": 4, "group_size": 32}, {"quantize": 8, "group_size": 64, "fuse": False}],
)
def test_the_result_loads(files: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    from mlx_tslm import Prompt, Series
    from mlx_tslm import load as load_model

    conversion.convert(files / "llama-lora.pt", tmp_path / "out", llm=str(files / "llama"), **options)
    model = load_model(tmp_path / "out")
    prompt = Prompt("a", [Series("b", np.sin(np.arange(10.0)))], "c")
    logits = np.array(model.score(prompt, [5, 6]))
    assert logits.shape == (3, tiny.VOCAB)
    reference = np.array(tiny.tiny_model("llama", lora=4, max_patches=40).score(prompt, [5, 6]))
    tolerance = 3.0 if options.get("quantize") == 4 else 0.5
    assert np.abs(logits - reference).mean() < tolerance


def test_large_models_are_sharded(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_SHARD", 2_000_000)
    out = tmp_path / "out"
    summary = conversion.convert(files / "llama.pt", out, llm=str(files / "llama"), verify=True)
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert len(shards) > 3
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == summary.size
    for name, shard in index["weight_map"].items():
        assert name in mx.load(str(out / shard))


def test_tensors_stream(tmp_path: Path) -> None:
    """MLX never holds more than a few tensors, whatever the model's size."""
    base = tmp_path / "base"
    base.mkdir()
    config = SMALL_LLAMA | {"num_hidden_layers": 40, "hidden_size": 32, "intermediate_size": 2048}
    (base / "config.json").write_text(json.dumps(config))
    shutil.copy(tiny.GOLDEN / "llama" / "tokenizer.json", base)
    model = language_model.build(config)
    mx.save_safetensors(str(base / "model.safetensors"), dict(tree_flatten(model.parameters())))
    del model
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    summary = conversion.convert(FILES / "sp_plain.pt", tmp_path / "out", llm=str(base), quantize=8, group_size=32)
    largest = 2048 * 32 * 4
    assert summary.size > 30 * largest
    assert mx.get_peak_memory() - before < 8 * largest


def test_base_in_the_wrappings_of_a_multimodal_model(files: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(files / "gemma", base)
    weights = mx.load(str(base / "model.safetensors"))
    wrapped = {f"language_model.{name}": array for name, array in weights.items()}
    mx.save_safetensors(str(base / "model.safetensors"), wrapped | {"vision_tower.x": mx.zeros(1)})
    conversion.convert(files / "gemma.pt", tmp_path / "out", llm=str(base), verify=True)
    conversion.convert(files / "gemma.pt", tmp_path / "usual", llm=str(files / "gemma"))
    assert set(load(tmp_path / "out")) == set(load(tmp_path / "usual"))


def test_verification_finds_a_changed_weight(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    conversion.convert(files / "llama-lora.pt", out, llm=str(files / "llama"), quantize=4, group_size=32)
    checkpoint, base = open_checkpoint(files / "llama-lora.pt"), open_base(files / "llama", "llama")
    targets = plan(checkpoint, base, base.weights(), conversion.plan.Quantization(4, 32))
    assert all(row.agrees for row in verify.verify(out, targets, base.weights()))
    for name in ("encoder.layers.3.norm2.bias", "language_model.model.layers.2.mlp.up_proj.scales"):
        weights = load(out)
        changed = weights | {name: weights[name] * 1.5}
        spoilt = tmp_path / name
        spoilt.mkdir()
        mx.save_safetensors(str(spoilt / "model.safetensors"), changed)
        with pytest.raises(
            TSLMError, match=rf"verification failed: {name.rpartition('.')[0]}\.(bias|weight) differs"
        ):
            verify.verify(spoilt, targets, base.weights())


def test_a_failed_verification_leaves_nothing(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(folder: Path, *_: Any) -> None:
        raise TSLMError("verification failed: x")

    monkeypatch.setattr(conversion.converter, "compare", spoil)
    with pytest.raises(TSLMError, match="verification"):
        conversion.convert(files / "llama.pt", tmp_path / "out", llm=str(files / "llama"), verify=True)
    assert list(tmp_path.iterdir()) == []


# ---- the folder ----


def test_the_folder_is_whole(files: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    summary = conversion.convert(
        files / "llama-lora.pt", tmp_path / "out", llm=str(files / "llama"), command="mlx-tslm convert x",
        progress=lambda *step: seen.append(step),
    )  # fmt: skip
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "README.md",
        "tokenizer.json",
    } <= names
    card = (out / "README.md").read_text()
    for words in ("llama-lora.pt", store.sha256(files / "llama-lora.pt"), "rank 4, alpha 12", "mlx-tslm convert x"):
        assert words in card
    assert str(files) not in card
    assert summary.size < (out / "model.safetensors").stat().st_size < summary.size + 20_000
    assert summary.peak_memory > 0
    assert summary.seconds > 0
    assert seen[-1] == ("converting", summary.size, summary.size)
    assert json.loads((out / "config.json").read_text())["model_type"] == "opentslm_sp"
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_output_is_kept_unless_forced(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {"llm": str(files / "llama")}
    conversion.convert(files / "llama.pt", out, **options)
    with pytest.raises(TSLMError, match="--force"):
        conversion.convert(files / "llama-lora.pt", out, **options)
    assert json.loads((out / "config.json").read_text())["lora"] is None
    conversion.convert(files / "llama-lora.pt", out, force=True, **options)
    assert json.loads((out / "config.json").read_text())["lora"]["rank"] == 4
    assert list(tmp_path.iterdir()) == [out]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    with pytest.raises(TSLMError, match="is no converted model"):
        conversion.convert(files / "llama.pt", precious, force=True, **options)
    assert (precious / "thesis.txt").read_text() == "mine"


def test_no_space(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(TSLMError, match="no space: the model needs"):
        conversion.convert(files / "llama.pt", tmp_path / "out", llm=str(files / "llama"))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TSLMError, match="the disk is full"):
        conversion.convert(files / "llama.pt", tmp_path / "out", llm=str(files / "llama"))
    assert not list(tmp_path.iterdir())


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(files: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(files / "llama.pt", tmp_path / "out", llm=str(files / "llama"), progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_a_kill_leaves_nothing_or_a_whole_model(files: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, over a model that is being replaced and then over none."""
    program = (
        "import sys; from mlx_tslm import conversion; print('ready', flush=True)\n"
        "options = {'llm': sys.argv[3], 'force': True}\n"
        "while True: conversion.convert(sys.argv[1], sys.argv[2], **options)\n"
    )
    out = tmp_path / "out"
    clock = random.Random(0)
    command = [sys.executable, "-c", program, str(files / "llama-lora.pt"), str(out), str(files / "llama")]
    for attempt in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(clock.uniform(0.0, 0.25))
            process.send_signal(signal.SIGKILL)
        if out.exists():
            assert store.read_config(out) is not None
            index = json.loads((out / "model.safetensors.index.json").read_text())
            assert set(load(out)) == set(index["weight_map"])
            assert (out / "README.md").exists()
        if attempt == 1:
            shutil.rmtree(out, ignore_errors=True)
    conversion.convert(files / "llama.pt", out, llm=str(files / "llama"), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the killed runs' folders are gone


def test_a_model_that_was_being_replaced_comes_back(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    conversion.convert(files / "llama.pt", out, llm=str(files / "llama"))
    out.rename(tmp_path / ".out.old-1")  # a kill between the two renames
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(files / "llama-lora.pt", out, llm=str(files / "llama"), force=True, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((out / "config.json").read_text())["lora"] is None


# ---- what is refused ----


def changed(path: Path, source: Path, change: Any) -> Path:
    """A copy of a checkpoint with something changed in it."""
    content = read(source)
    change(content)
    pt_writer.write(path, content)
    return path


def lora_config(content: dict[str, Any]) -> dict[str, Any]:
    return content["lora_config"]["default"].state


QUERY = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("encoder_state"), "no OpenTSLM checkpoint: encoder_state is missing"),
        (lambda c: c["encoder_state"].pop("pos_embed"), "the tensor pos_embed is missing"),
        (lambda c: c["encoder_state"].pop("encoder.layers.4.norm1.bias"), r"layers\.4\.norm1\.bias is missing"),
        (lambda c: c["encoder_state"].update(extra=c["encoder_state"]["pos_embed"]), "unexpected tensor, extra"),
        (
            lambda c: c["encoder_state"].update({"input_norm.bias": np.zeros(7, np.float32)}),
            r"input_norm\.bias has shape \[7\], but \[128\] is needed",
        ),
        (
            lambda c: c["encoder_state"].update({"input_norm.bias": np.zeros(128, np.int64)}),
            "input_norm.bias is of int64",
        ),
        (lambda c: c["encoder_state"].update(pos_embed="x"), "pos_embed is a str, not a tensor"),
        (lambda c: c["projector_state"].pop("projector.1.weight"), r"projector\.1\.weight is missing"),
        (lambda c: c["projector_state"].update({"projector.1.bias": np.zeros(3, np.float32)}), r"has shape \[3\]"),
        (lambda c: c.pop("lora_state"), "lora_state is missing"),
        (lambda c: c.pop("lora_config"), "lora_config is missing"),
        (lambda c: c["lora_state"].clear(), "lora_state is empty"),
        (lambda c: c["lora_state"].pop(QUERY), r"layers\.1\.self_attn\.q_proj\.lora_A is missing"),
        (
            lambda c: [c["lora_state"].pop(QUERY.replace("_A", s)) for s in ("_A", "_B")],
            r"the adapter of model\.layers\.1\.self_attn\.q_proj is missing",
        ),
        (lambda c: c["lora_state"].update({QUERY: np.zeros((5, 64), np.float32)}), "but rank 4 is stated"),
        (lambda c: c["lora_state"].update({QUERY: np.zeros((4, 65), np.float32)}), r"updates a \[64, 65\] weight"),
        (lambda c: c["lora_state"].update(x=np.zeros((4, 4), np.float32)), "x is no LoRA weight"),
        (lambda c: c["lora_state"].update({QUERY.replace("default", "b"): c["lora_state"][QUERY]}), "called b"),
        (lambda c: lora_config(c).update(use_dora=True), "use_dora is set"),
        (lambda c: lora_config(c).update(bias="all"), "biases"),
        (lambda c: lora_config(c).pop("lora_alpha"), "lora_alpha is missing"),
        (lambda c: lora_config(c).update(alpha_pattern={".*q": 3}), "regular expression"),
        (
            lambda c: c.update(lora_config={"a": c["lora_config"]["default"], "b": c["lora_config"]["default"]}),
            r"2 adapters \(a, b\), but the one that was saved is default",
        ),
    ],
)  # fmt: skip
def test_bad_checkpoints(files: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = changed(tmp_path / "bad.pt", files / "llama-lora.pt", change)
    with pytest.raises(TSLMError, match=message):
        conversion.convert(path, tmp_path / "out", llm=str(files / "llama"))
    assert list(tmp_path.iterdir()) == [path]


def test_alpha_of_single_modules_is_honoured(files: Path, tmp_path: Path) -> None:
    path = changed(
        tmp_path / "x.pt", files / "llama-lora.pt", lambda c: lora_config(c).update(alpha_pattern={"q_proj": 2})
    )
    adapters = open_checkpoint(path).adapters
    assert adapters["model.layers.0.self_attn.q_proj"].scale == 0.5
    assert adapters["model.layers.0.self_attn.k_proj"].scale == 3.0
    with pytest.raises(TSLMError, match="leave out --no-fuse"):
        conversion.convert(path, tmp_path / "out", llm=str(files / "llama"), fuse=False)


def test_bad_bases(files: Path, tmp_path: Path) -> None:
    def fails(message: str, llm: object = None, source: Path = files / "llama.pt", **options: Any) -> None:
        with pytest.raises(TSLMError, match=message) as error:
            conversion.convert(source, tmp_path / "out", llm=str(llm) if llm else None, **options)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()

    fails("is 72 wide, but the checkpoint was trained with one of width 64", files / "gemma")
    fails("give its folder or Hub name with --llm")
    fails("there is no folder", tmp_path / "none")
    fails("there is no config.json", tmp_path)
    fails("--q-group-size 48 does not exist", files / "llama", quantize=4, group_size=48)
    fails(
        "does not divide the 64 inputs of .*; take --q-group-size 32 or 64",
        files / "llama",
        quantize=4,
        group_size=128,
    )
    fails("does not divide the 72 .*leave out -q", files / "gemma", source=files / "gemma.pt", quantize=4)
    fails("--q-bits 3 does not exist", files / "llama", quantize=3)
    fails("--dtype int8 does not exist", files / "llama", dtype="int8")

    def broken(**changes: Any) -> Path:
        folder = tmp_path / "base"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files / "llama", folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    fails("base LLM of type 'qwen3' is not supported", broken(model_type="qwen3"))
    fails("is quantized already", broken(quantization={"bits": 4}))
    fails("but its config.json says", broken(intermediate_size=96))
    folder = broken()
    (folder / "config.json").write_text("{")
    fails("config.json cannot be read", folder)
    (broken() / "tokenizer.json").unlink()
    fails("there is no tokenizer", folder)
    (broken() / "model.safetensors").unlink()
    fails(r"there is no model\*\.safetensors", folder)
    data = (broken() / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    fails("is damaged or truncated", folder)
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (broken() / "model.safetensors.index.json").write_text(json.dumps(index))
    fails("model-00002-of-00002.safetensors is missing", folder)


# ---- names ----


def test_key_map_is_the_model_s() -> None:
    """Explicit names both ways: what the map says is what the model in memory is made of."""
    expected = {
        name
        for name, _ in tree_flatten(tiny.tiny_model("llama").parameters())
        if not name.startswith("language_model")
    }
    assert set(keymap.encoder_names(6).values()) | set(keymap.projector_names().values()) == expected


def test_state_for_torch_is_the_original_s(tmp_path: Path) -> None:
    """`save_opentslm` writes OpenTSLM's names and layouts (spelt out independently in `tiny.checkpoint`)."""
    content = read(tiny.write_checkpoint("llama", tmp_path / "x.pt", lora=4, max_patches=8))
    expected = tiny.checkpoint("llama", lora=4, max_patches=8)
    assert content["lora_enabled"] is True
    for state in ("encoder_state", "projector_state", "lora_state"):
        assert set(content[state]) == set(expected[state])
        for name, values in expected[state].items():
            np.testing.assert_array_equal(content[state][name].numpy(), values)
    real = read(FILES / "sp_lora.pt")["lora_config"]["default"]
    assert set(content["lora_config"]["default"].state) <= set(real.state)


def test_save_opentslm_refuses_what_does_not_belong(tmp_path: Path) -> None:
    weights = dict(tiny.encoder_weights(64, 8))
    with pytest.raises(TSLMError, match="has no place"):
        pt_writer.save_opentslm(tmp_path / "x.pt", weights | {"language_model.norm": np.zeros(1)})
    with pytest.raises(TSLMError, match="alpha is needed"):
        pt_writer.save_opentslm(tmp_path / "x.pt", weights | {"language_model.a.lora_a": np.zeros((2, 1))})
    weights.pop("encoder.pos_embed")
    with pytest.raises(TSLMError, match=r"the weight encoder\.pos_embed is missing"):
        pt_writer.save_opentslm(tmp_path / "x.pt", weights)


# ---- recipes, the Hub and the cache ----


def test_published_recipes() -> None:
    families = recipe.published()
    assert list(families) == [f"stage{n}" for n in range(1, 6)]
    for stage, recipes in families.items():
        assert [r.base for r in recipes] == ["llama-3.2-1b", "llama-3.2-3b", "gemma-3-270m", "gemma-3-1b"]
        assert all(r.stage == stage and r.variant == "sp" for r in recipes)
    assert recipe.resolve("stage5").repo == "OpenTSLM/llama-3.2-1b-ecg-sp"
    assert recipe.resolve("stage2", base="gemma-3-1b").repo == "OpenTSLM/gemma-3-1b-pt-m4-sp"
    assert recipe.resolve("stage2", base="gemma-3-1b").llm == "google/gemma-3-1b-pt"
    assert recipe.resolve("stage1", llm="/my/llama").llm == "/my/llama"
    assert recipe.resolve("OpenTSLM/gemma-3-270m-sleep-sp") == recipe.resolve("stage4", base="gemma-3-270m")
    assert recipe.resolve("me/other").repo == "me/other"
    assert recipe.resolve("x.pt", base="gemma-3-270m").llm == "google/gemma-3-270m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "stage6"}, "unknown source 'stage6' .did you mean stage5"),
        ({"source": "stage1", "base": "gpt"}, "no base LLM called 'gpt'; there is llama-3.2-1b, llama-3.2-3b"),
        ({"source": "OpenTSLM/llama-3.2-1b-ecg-sp", "variant": "flamingo"}, "is of the variant sp, not flamingo"),
        ({"source": "stage1", "variant": "x"}, "unknown variant 'x'"),
        ({"source": "OpenTSLM/llama-3.2-3b-ecg-flamingo", "variant": "sp"}, "variant flamingo, not sp"),
        ({"source": str(FILES)}, "is a folder"),
        ({"source": "none.toml"}, "cannot read the recipe"),
    ],
)
def test_bad_sources(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(TSLMError, match=message):
        recipe.resolve(**arguments)


def test_flamingo_file_without_a_model(files: Path) -> None:
    with pytest.raises(TSLMError, match=r"flamingo\.pt: vision_encoder: the tensor patch_embed.weight is missing"):
        conversion.convert(FILES / "flamingo.pt", llm=str(files / "llama"))


def test_a_recipe_of_one_s_own(files: Path, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "mine.toml"
    shutil.copy(files / "llama.pt", tmp_path / "best.pt")
    shutil.copytree(files / "llama", tmp_path / "llama")
    path.write_text('stage = "har"\ncheckpoint = "best.pt"\nllm = "./llama"\n')
    summary = conversion.convert(path)
    assert summary.config.stage == "stage3"
    assert summary.path.parent == cache / "models"
    assert conversion.ensure_converted(path) == summary.path
    bad = {
        'stage = "har"\n': "either repo",
        'repo = "a/b"\n': "llm is missing",
        'repo = "a/b"\nllm = "c/d"\nlayers = 3\n': "unknown key 'layers'",
        'repo = "a/b"\nllm = 3\n': "llm must be text",
        'repo = "a/b"\nllm = "c/d"\nstage = "stage9"\n': "stage9",
        'llm = "c/d"\ndefault = "x"\n[base.y]\nrepo = "a/b"\n': "no .base",
        "llm": "cannot read the recipe",
    }
    for text, message in bad.items():
        path.write_text(text)
        with pytest.raises(TSLMError, match=message):
            recipe.load(path)


def test_cache(files: Path, cache: Path) -> None:
    assert store.converted() == []
    first = conversion.convert(files / "llama.pt", llm=str(files / "llama"))
    second = conversion.convert(files / "llama.pt", llm=str(files / "llama"), quantize=4, group_size=32)
    assert first.path.parent == second.path.parent == cache / "models"
    assert first.path.name == f"llama-{store.sha256(files / 'llama.pt')[:8]}"
    assert second.path.name == f"{first.path.name}-4bit"
    models = store.converted()
    assert [model.name for model in models] == [first.path.name, second.path.name]
    assert models[0].size > first.size
    assert conversion.ensure_converted(second.path.name) == second.path
    assert conversion.ensure_converted(files / "llama.pt") == first.path


def test_from_the_hub(files: Path, cache: Path, hub: FakeHub) -> None:
    """What comes from the Hub keeps its name and commit, in the folder's name and in the card."""
    hub.add("meta-llama/Llama-3.2-1B", files / "llama")
    hub.repos["OpenTSLM/llama-3.2-1b-har-sp"] = {"model_checkpoint.pt": (files / "llama.pt").read_bytes()}
    path = conversion.ensure_converted("stage3")
    assert path == cache / "models" / "llama-3.2-1b-har-sp"
    card = (path / "README.md").read_text()
    for words in (
        "OpenTSLM/llama-3.2-1b-har-sp/model_checkpoint.pt", COMMIT, "base_model: meta-llama/Llama-3.2-1B",
        "Llama 3.2 Community License", "stage3",
    ):  # fmt: skip
        assert words in card
    assert conversion.ensure_converted("OpenTSLM/llama-3.2-1b-har-sp") == path
    assert store.converted()[0].config["stage"] == "stage3"
