"""The PyTorch path computes what the MLX path computes; and without PyTorch it says so."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from test_cli import refused

import mlx_tslm
from mlx_tslm import Prompt, Series, conversion
from mlx_tslm.cli import main
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.search import METHODS, tree_search

TOLERANCE = 1e-4  # on every logit, whose standard deviation is 4
WAVE = np.sin(np.arange(97) / 3)
PROMPT = Prompt("What is this?", [Series("a wave", WAVE), Series("half of it", WAVE[:50])], "Answer:")
BACKENDS = ("torch", "torch-uncached")


@pytest.fixture
def needs_torch() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed (the extra mlx-tslm[torch])")


Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Convert a tiny model by the front door, once a kind, to float32."""

    @cache
    def make(kind: str, lora: int | None = None, fuse: bool = True, tied: bool = True, pad: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("torch")
        base = tiny.write_base(kind, folder / "base")
        if not tied:
            weights = mx.load(str(base / "model.safetensors"))
            head = tiny.noise("lm_head", weights["model.embed_tokens.weight"].shape) / 8
            weights["lm_head.weight"] = mx.array(head).astype(mx.bfloat16)
            mx.save_safetensors(str(base / "model.safetensors"), weights)
            edit(base, tie_word_embeddings=False)
        checkpoint = tiny.write_checkpoint(kind, folder / "tiny.pt", lora)
        conversion.convert(checkpoint, folder / "model", llm=str(base), dtype="float32", fuse=fuse)
        if pad:
            edit(folder / "model", pad_text_left=True)
        return folder / "model"

    return make


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


MODELS = {
    "llama": {"kind": "llama"},
    "llama with its own head": {"kind": "llama", "tied": False},
    "llama with LoRA beside it": {"kind": "llama", "lora": 16, "fuse": False},
    "llama with LoRA fused": {"kind": "llama", "lora": 16},
    "gemma": {"kind": "gemma"},
    "gemma with LoRA beside it": {"kind": "gemma", "lora": 4, "fuse": False},
    "gemma padded on the left": {"kind": "gemma", "pad": True},
}


@pytest.fixture(params=MODELS)
def folder(request: pytest.FixtureRequest, convert: Convert) -> Path:
    return convert(**MODELS[request.param])


@pytest.mark.usefixtures("needs_torch")
@pytest.mark.parametrize("prompt", [PROMPT, Prompt("Nothing but text.")], ids=["series", "text"])
def test_forced_tokens_have_the_same_logits(folder: Path, prompt: Prompt) -> None:
    forced = np.random.default_rng(0).integers(3, 300, 40).tolist()  # past Gemma's window of 32
    here = np.array(mlx_tslm.load(folder).score(prompt, forced))
    there = np.array(mlx_tslm.load(folder, "torch").score(prompt, forced))
    assert here.shape == there.shape == (41, tiny.VOCAB)
    assert here.std() > 1
    np.testing.assert_allclose(there, here, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("needs_torch")
@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_on_has_the_same_logits(folder: Path, backend: str) -> None:
    here, there = mlx_tslm.load(folder), mlx_tslm.load(folder, backend)
    read = there.prefill(PROMPT, bos=True)
    for _ in range(2):  # what was read before stays as it is
        logits, longer = there.read_on(read, [40, 41, 42])
        expected, _ = here.read_on(here.prefill(PROMPT, bos=True), [40, 41, 42])
        assert longer.length == read.length + 3
        np.testing.assert_allclose(np.array(logits), np.array(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("needs_torch")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tree_has_the_same_logits(folder: Path, backend: str) -> None:
    """Paths that fork, go on, and go on from far above; behind an opening that is read with the prompt."""
    models = [mlx_tslm.load(folder), mlx_tslm.load(folder, backend)]
    reads = [model.prefill(PROMPT, opening=[40, 41]) for model in models]
    assert reads[0].length == reads[1].length
    decoders = [model.decoder(read) for model, read in zip(models, reads, strict=True)]
    rng, size = np.random.default_rng(1), 1
    front = np.zeros(3, np.int32)
    for turn in range(12):
        parents = rng.integers(0, size, 3).astype(np.int32) if turn % 4 == 3 else front[[0, 0, 1]]
        front = np.arange(size, size + 3, dtype=np.int32)
        size += 3
        tokens = rng.integers(3, 300, 3).astype(np.int32)
        for decoder in decoders:
            assert not decoder.is_decoded(front).any()
            decoder.step(front, parents, tokens)
    nodes = np.arange(size, dtype=np.int32)
    here, there = (np.array(decoder.logits(nodes)) for decoder in decoders)
    np.testing.assert_allclose(there, here, rtol=0, atol=TOLERANCE)
    assert decoders[1].is_decoded(nodes).all()
    assert decoders[1].forward_passes == decoders[1].tokens == 36  # one row at a time


@pytest.mark.usefixtures("needs_torch")
@pytest.mark.parametrize("backend", BACKENDS)
def test_generation_is_the_same(folder: Path, backend: str) -> None:
    here, there = mlx_tslm.load(folder), mlx_tslm.load(folder, backend)
    for options in ({}, {"temperature": 1.0, "top_k": 50, "top_p": 0.9, "seed": 3}):
        streams = [mlx_tslm.stream_generate(model, PROMPT, 12, **options) for model in (here, there)]
        one, other = ([(response.token, response.text) for response in stream] for stream in streams)
        assert one == other


@pytest.mark.usefixtures("needs_torch")
def test_batches_are_the_same(convert: Convert) -> None:
    prompts = [PROMPT, Prompt("Two?", PROMPT.series[:1]), Prompt("Three")]

    def answers(model: BaseModel) -> dict[int, tuple[int, ...]]:
        responses = generate_batch(model, prompts, 2, 8, temperature=1.0, seeds=range(3))
        return {one.index: one.completion.tokens for one in responses}

    folder = convert("llama")
    assert answers(mlx_tslm.load(folder, "torch")) == answers(mlx_tslm.load(folder))


@pytest.mark.usefixtures("needs_torch")
@pytest.mark.parametrize("method", METHODS)
def test_searches_are_the_same(convert: Convert, method: str) -> None:
    folder = convert("llama", lora=16, fuse=False)
    options: dict[str, Any] = {"num_rollouts": 12, "width": 4, "max_tokens": 6, "seed": 5}

    def reward(completions: Any) -> list[float]:
        return [sum(one.tokens) % 100 / 100 for one in completions]

    here, *there = (
        tree_search(mlx_tslm.load(folder, backend), PROMPT, method, reward, **options)
        for backend in ("mlx", *BACKENDS)
    )
    for result in there:
        assert [one.tokens for one in result.completions] == [one.tokens for one in here.completions]
        assert result.best.text == here.best.text
        assert result.root_value == pytest.approx(here.root_value, abs=1e-5)
        np.testing.assert_allclose(
            [one.weight for one in result.completions], [one.weight for one in here.completions], atol=1e-4
        )
        assert result.stats.forward_passes >= here.stats.forward_passes
        assert result.stats.peak_memory > 0
    resumed = tree_search(
        mlx_tslm.load(folder, "torch"), PROMPT, method, reward, resume=there[0], **options | {"width": 2}
    )
    assert resumed.root_value == pytest.approx(here.root_value, abs=1e-5)


@pytest.mark.usefixtures("needs_torch")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_front_door(
    backend: str, demo_folder: Path, airline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "--model",
        demo_folder,
        "--series",
        airline,
        "--column",
        "Passengers",
        "--question",
        "What is the trend?",
    ]
    answered = []
    for choice in ("mlx", backend):
        command = ["generate", *asked, "--max-tokens", 16, "--json", "-", "--backend", choice]
        assert main([str(one) for one in command]) == 0
        answered.append(json.loads(capsys.readouterr().out))
    assert answered[1]["text"] == answered[0]["text"] != ""
    assert answered[1]["settings"]["backend"] == backend

    files = {suffix: tmp_path / f"found.{suffix}" for suffix in ("json", "html")}
    budget = ("--num-rollouts", 6, "--width", 3, "--max-tokens", 12, "--reward", "format=1")
    written = [one for suffix, file in files.items() for one in (f"--{suffix}", file)]
    command = ["search", *asked, *budget, *written, "--backend", backend]
    assert main([str(one) for one in command]) == 0
    found = json.loads(files["json"].read_text())
    assert len(found["completions"]) == found["stats"]["rollouts"] > 0
    assert found["best"]["text"] in capsys.readouterr().out.replace("\n", " ")
    assert "<html" in files["html"].read_text()

    evaluated = ["eval", "--model", demo_folder, "--source", "synthetic", "--limit", 2, "-o", tmp_path / "eval"]
    evaluated += ["--method", "greedy", "--method", "best-of-n", "--num-rollouts", 2, "--max-tokens", 8]
    assert main([str(one) for one in [*evaluated, "--backend", backend]]) == 0
    figures = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert list(figures["methods"]) == ["greedy", "best-of-n"]
    line = refused(capsys, *evaluated)  # the answers of MLX don't go where those of PyTorch are
    assert "model" in line and "--output" in line


@pytest.mark.usefixtures("needs_torch")
def test_a_quantized_model_is_refused(convert: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(convert("llama"), tmp_path / "model")
    edit(tmp_path / "model", quantization={"group_size": 32, "bits": 4})
    np.savetxt(tmp_path / "a.csv", WAVE)
    line = refused(capsys, "generate", "-m", tmp_path / "model", "-s", tmp_path / "a.csv", "--backend", "torch")
    assert "quantized" in line and "-q" in line


@pytest.mark.usefixtures("needs_torch")
def test_weights_that_do_not_fit(convert: Convert, tmp_path: Path) -> None:
    shutil.copytree(convert("llama"), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = mx.load(str(file))
    for name in ("language_model.model.norm.weight", "encoder.input_norm.weight"):
        mx.eval(weights)
        mx.save_safetensors(str(file), {key: value for key, value in weights.items() if key != name})
        with pytest.raises(mlx_tslm.TSLMError, match=r"do not fit .*norm.weight"):
            mlx_tslm.load(tmp_path / "model", "torch")


WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

real = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "torch" else real(name, *rest)
from mlx_tslm.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_torch(airline: Path, demo_folder: Path) -> None:
    asked = ["generate", "-m", demo_folder, "-s", airline, "--column", "Passengers", "--max-tokens", "2"]
    for backend, code in (("torch", 2), ("mlx", 0)):
        command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, asked), "--backend", backend]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        says = 'error: the PyTorch backend needs torch, which is not installed: pip install "mlx-tslm[torch]"'
        assert (done.stderr.rstrip().endswith(says)) == (code == 2)
        assert "Traceback" not in done.stderr


def test_no_such_backend(airline: Path, demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "search"):
        line = refused(capsys, command, "-m", demo_folder, "-s", airline, "--backend", "jax")
        assert "'jax'" in line and "mlx, torch, torch-uncached" in line
