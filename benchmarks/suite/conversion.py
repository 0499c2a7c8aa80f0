"""Topic `conversion`: seconds and peak memory against the size of the output, each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

from benchmarks.suite.measure import Case, Measured, Variant
from benchmarks.suite.shapes import Shape
from benchmarks.suite.suites import Workbench
from mlx_tslm.conversion.pt.writer import save_opentslm
from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model
from mlx_tslm.models.config import EncoderConfig, ModelConfig
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.system.memory import peak_resident

LOADED = "nothing: imports alone"
_SETTINGS: dict[str, dict[str, Any]] = {"bfloat16": {}, "float32": {"dtype": "float32"}, "4-bit": {"quantize": 4}}
OUTPUTS = {
    f"{name}{', verified' if verify else ''}": {**settings, "verify": verify}
    for name, settings in _SETTINGS.items()
    for verify in (False, True)
}
"""Arguments of `conversion.convert`, by what comes out."""
_RANK = 16


def cases(bench: Workbench) -> Iterator[Case]:
    """One case: all outputs."""
    yield Case(
        "convert",
        {"shape": bench.suite.shape.name, "lora_rank": _RANK},
        [LOADED, *bench.suite.conversions],
        partial(_conversions, bench.suite.shape),
        bench.suite.slow_rounds,
        warmup=False,
    )


def _conversions(shape: Shape, names: frozenset[str]) -> Mapping[str, Variant]:
    folder = tempfile.TemporaryDirectory(prefix="mlx-tslm-bench-")
    root = Path(folder.name)
    write_source(shape, root)

    def run(name: str) -> Measured:
        assert folder  # the files live as long as the calls
        if name == LOADED:
            return _in_child({})
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            job = {
                "source": str(root / "model_checkpoint.pt"),
                "llm": str(root / "base"),
                "output": f"{scratch}/out",
            }
            return _in_child(job | OUTPUTS[name])

    return {name: partial(run, name) for name in names}


def write_source(shape: Shape, folder: Path) -> None:
    """Write `base/`, a Hugging Face folder in bfloat16, and `model_checkpoint.pt` with LoRA: all weights random."""
    base = folder / "base"
    base.mkdir()
    config = shape.text_config()
    (base / "config.json").write_text(json.dumps(config))
    Tokenizer(models.WordLevel({"word": 0, "end": 1}, "word")).save(str(base / "tokenizer.json"))
    rng = np.random.default_rng(0)

    def random(dims: tuple[int, ...]) -> NDArray[np.float32]:
        return rng.standard_normal(dims, np.float32) * 0.02

    weights = {
        name: mx.array(random(dims)).astype(mx.bfloat16)
        for name, dims in _parameter_shapes(language_model.build(config)).items()
    }
    mx.save_safetensors(str(base / "model.safetensors"), weights, metadata={"format": "pt"})
    trained = {
        name: random(dims)
        for name, dims in _parameter_shapes(SoftPromptModel(ModelConfig(config, EncoderConfig()))).items()
        if not name.startswith("language_model.")
    }
    adapted = {name: array.shape for name, array in weights.items() if name.endswith("_proj.weight")}
    for name, (out, width) in adapted.items():
        stem = f"language_model.{name.removesuffix('.weight')}"
        trained[f"{stem}.lora_a"] = random((width, _RANK))
        trained[f"{stem}.lora_b"] = random((_RANK, out))
    modules = {name.split(".")[-2] for name in adapted}
    save_opentslm(folder / "model_checkpoint.pt", trained, alpha=2.0 * _RANK, target_modules=sorted(modules))


def _parameter_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: array.shape for name, array in cast(list[tuple[str, mx.array]], tree_flatten(module.parameters()))
    }


def _in_child(job: dict[str, Any]) -> Measured:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.suite.conversion"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    if done.returncode:
        raise TSLMError(f"the conversion that was to be timed failed: {done.stderr.strip().splitlines()[-1:]}")
    told = json.loads(done.stdout)
    return Measured(told.pop("seconds"), told)


def _child() -> None:
    """Convert as standard input says and print what it took."""
    from mlx_tslm import conversion

    job = json.load(sys.stdin)
    started = time.perf_counter()
    told = {}
    if job:
        told["bytes"] = conversion.convert(**job).size
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_resident": peak_resident(), **told}))


if __name__ == "__main__":
    _child()
