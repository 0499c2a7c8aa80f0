"""How far a quantized model's next token is from the float32 model's, and what the LLM weighs.

    python benchmarks/quantized.py [--captions 12] [--tokens 24]

Converts the demo model as `mlx-tslm convert demo` does, with each dtype and number of bits, and reads captions
of the synthetic test set with each: the figure is the KL divergence of the next token from the float32 model's,
the mean over the tokens of the reference captions. Two rows are no conversion's: the embeddings quantized too,
and the bfloat16 model of 8 bits computed in float32, its scales as they were. Where that one differs from
bfloat16's own it is the kernel: so the error of one layer of 8 bits in bfloat16 is measured too, at several
widths, with `mx.quantized_matmul` and with the weights made dense first, against float32.

Appends one line to benchmarks/results/quantized.jsonl.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx_tslm  # before MLX: it loads the BLAS that MLX is to use

# isort: split
import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from benchmarks.suite.machine import describe
from mlx_tslm import conversion, data
from mlx_tslm.cli.terminal import console, facts
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.system.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "quantized.jsonl"
CONVERSIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "bfloat16, 4 bits": {"quantize": 4},
    "bfloat16, 8 bits": {"quantize": 8},
    "float32, 4 bits": {"quantize": 4, "dtype": "float32"},
    "float32, 8 bits": {"quantize": 8, "dtype": "float32"},
}


def models(folder: Path) -> Iterator[tuple[str, CausalModel]]:
    """The demo model in float32, then each of the others."""
    for name, options in ({"float32": {"dtype": "float32"}} | CONVERSIONS).items():
        options = {"dtype": "bfloat16"} | options
        model = mlx_tslm.load(conversion.convert("demo", folder / name, **options).path)
        yield name, model
        if name == "bfloat16, 4 bits":
            nn.quantize(model.language_model, 64, 4, class_predicate=lambda path, _: path == "model.embed_tokens")
            yield f"{name}, embeddings too", model
        if name == "bfloat16, 8 bits":
            inner = model.language_model
            inner.update(
                tree_map(lambda x: x if x.dtype == mx.uint32 else x.astype(mx.float32), inner.parameters())
            )
            yield f"{name}, computed in float32", model


def log_probabilities(model: CausalModel, captions: int, tokens: int) -> list[mx.array]:
    """Of the next token along each reference caption: float32 `[tokens + 1, V]`."""
    rows = data.load("stage2", "test", source="synthetic", size=captions)
    found = []
    for row in rows:
        sample = rows.stage.from_row(row)
        ids = model.tokenizer.encode(sample.answer, add_special_tokens=False)[:tokens]
        logits = model.score(sample.prompt, ids).astype(mx.float32)
        found.append(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        mx.eval(found[-1])
    return found


def divergence(reference: list[mx.array], other: list[mx.array]) -> float:
    """The mean over all positions, in nats."""
    p, q = mx.concatenate(reference), mx.concatenate(other)
    return mx.where(mx.isfinite(p), mx.exp(p) * (p - q), 0).sum(axis=-1).mean().item()  # type: ignore[return-value]


def layer_errors(widths: tuple[int, ...] = (128, 512, 2048)) -> dict[str, dict[str, float]]:
    """Mean error over mean output of one layer of 8 bits in bfloat16, for each number of inputs."""
    mx.random.seed(0)
    errors: dict[str, dict[str, float]] = {}
    for width in widths:
        x = mx.random.normal((64, width)).astype(mx.bfloat16)
        weights = (mx.random.normal((256, width)) / width**0.5).astype(mx.bfloat16)
        packed, scales, biases = mx.quantize(weights, 64, 8)
        exact = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), 64, 8)
        expected = x.astype(mx.float32) @ exact.T
        found = {
            "quantized": mx.quantized_matmul(x, packed, scales, biases, True, 64, 8),
            "made dense": x @ mx.dequantize(packed, scales, biases, 64, 8).T,
        }
        errors[f"layer of {width} inputs, relative error"] = {
            name: (mx.abs(values.astype(mx.float32) - expected).mean() / mx.abs(expected).mean()).item()  # type: ignore[misc]
            for name, values in found.items()
        }
    return errors


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=24, help="of each caption")
    options = parser.parse_args()
    keep_freed_memory()
    figures: dict[str, Any] = {
        "benchmark": "quantized",
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(),
        "captions": options.captions,
        "tokens of each": options.tokens,
    }
    figures |= layer_errors()
    reference: list[mx.array] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models(Path(folder)):
            found = log_probabilities(model, options.captions, options.tokens)
            reference = reference or found
            arrays = cast(list[tuple[str, mx.array]], tree_flatten(model.language_model.parameters()))
            size = round(sum(array.nbytes for _, array in arrays) / 1e6, 3)
            figures[name] = {"LLM, MB": size} | (
                {"KL from float32": divergence(reference, found)} if found is not reference else {}
            )
    console.print(facts((name, str(value)) for name, value in figures.items()))
    with RESULTS.open("a") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
