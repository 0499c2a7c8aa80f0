"""What a Flamingo model costs beside the soft-prompt model on the same 12-lead ECG, and how its file is converted.

    python benchmarks/flamingo.py [--shape gemma-3-270m] [--layers N] [--rounds 3] [--rows 32]

Random weights of a published shape in float32; both models have one LLM. Reading the prompt is timed in turns. So
is a decode step of many rows, against the plain LLM's behind the same number of text positions: once behind the
ECG, where every row sees the mean of the latents, and once behind one series, where every row attends to them.
Beside the ratio stands what the weights that are read explain. Then a checkpoint of that shape is written as
OpenTSLM writes it, and converted in a process of its own, whose memory is the figure. `--layers` takes some of the
LLM's layers, where the whole does not fit into memory. Appends one line to benchmarks/results/flamingo.jsonl.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx_tslm  # noqa: F401  # before MLX: it loads the BLAS that MLX is to use

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from benchmarks.suite.machine import describe
from benchmarks.suite.shapes import SHAPES, SyntheticTokenizer, prompt_of
from mlx_tslm.cli.terminal import console, facts
from mlx_tslm.conversion.save import save_checkpoint
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import FlamingoConfig, ModelConfig
from mlx_tslm.models.flamingo import FlamingoModel
from mlx_tslm.models.flamingo_text import IMAGE
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import TreeDecoder

RESULTS = Path(__file__).parent / "results" / "flamingo.jsonl"
POSITIONS, STEPS = 3300, 4
GEMMA = {
    "model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
    "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768, "query_pre_attn_scalar": 256, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
    "sliding_window": 512, "sliding_window_pattern": 6, "tie_word_embeddings": True, "vocab_size": 262144,
    "bos_token_id": 2, "eos_token_id": 1, "torch_dtype": "float32",
}  # fmt: skip
LLAMA_3B = {
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
    "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma-3-270m": GEMMA,
    "gemma-3-1b": GEMMA | {"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26},
    "llama-3.2-1b": SHAPES["Llama-3.2-1B"].text_config(),
    "llama-3.2-3b": SHAPES["Llama-3.2-1B"].text_config() | LLAMA_3B,
    "smollm2-135m": SHAPES["SmolLM2-135M"].text_config(),
}


class Words(SyntheticTokenizer):
    """A token a word, and one of its own for a series."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [self.convert_tokens_to_ids(word) for word in text.split()]
        return [self.bos_token_id, *ids] if add_special_tokens else ids

    def convert_tokens_to_ids(self, word: str) -> int:
        return self.eos_token_id - 2 if word == IMAGE else sum(word.encode()) % (self.bos_token_id - 1)


def models(shape: str) -> tuple[FlamingoModel, SoftPromptModel]:
    """Both variants on one LLM, random."""
    text_config = CONFIGS[shape]
    tokenizer = Words(text_config["vocab_size"])
    flamingo = FlamingoModel(FlamingoConfig(text_config), tokenizer)
    soft = SoftPromptModel(ModelConfig(text_config), tokenizer)
    soft.language_model = flamingo.language_model
    for model in (flamingo, soft):
        parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
        keys = mx.random.split(mx.random.key(0), len(parameters))
        weights = []
        for (name, array), key in zip(parameters, keys, strict=True):
            if name.endswith("weight") and array.ndim >= 2:
                array = mx.random.normal(array.shape, key=key) / array.shape[-1] ** 0.5
            weights.append((name, mx.full(1, 0.5) if name.endswith("_gate") else array))
        model.update(tree_unflatten(weights))
        model.eval()
        mx.eval(model.parameters())
    return flamingo, soft


def in_turns(rounds: int, calls: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Seconds of each call, a number a round, after a round that does not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            seconds = call()
            if number:
                found[name].append(seconds)
    return found


class Reading:
    """A model that reads a prompt: seconds a call, memory that it adds at most, and the prompt as it is kept."""

    def __init__(self, model: CausalModel, prompt: Any) -> None:
        self._model, self._prompt = model, prompt
        self.kept: PromptCache | None = None
        self.added = 0

    def __call__(self) -> float:
        self.kept = None
        mx.clear_cache()
        mx.reset_peak_memory()
        before, start = mx.get_active_memory(), time.perf_counter()
        self.kept = self._model.prefill(self._prompt)
        seconds = time.perf_counter() - start
        self.added = max(self.added, mx.get_peak_memory() - before)
        return seconds


def stepping(model: CausalModel, read: PromptCache, rows: int) -> float:
    """Seconds of a step of so many rows behind a prompt, the median of a few."""
    decoder = TreeDecoder(model.language_model, read)
    nodes, parents, seconds = np.arange(rows, dtype=np.int32) + 1, np.zeros(rows, np.int32), []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        decoder.step(nodes, parents, nodes % 100)
        decoder.flush(decoder.logits(nodes))
        seconds.append(time.perf_counter() - start)
        nodes, parents = nodes + rows, nodes
    return statistics.median(seconds[1:])


def work(model: CausalModel, positions: int) -> float:
    """GFLOP of reading so many positions: the products with weights, in and before the LLM's layers."""
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    names = ("language_model.model.layers.", "gated_blocks.")
    return 2e-9 * positions * sum(array.size for name, array in parameters if name.startswith(names))


def read_weights(model: FlamingoModel, attends: bool) -> float:
    """Weights that a step reads over those that the plain LLM's reads."""

    def size(names: Sequence[str]) -> int:
        return sum(weights[name].size for name in names)

    weights = dict(cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())))
    llm = [name for name in weights if name.startswith("language_model.")]  # the embeddings as the head
    own = [name for name in weights if name.startswith("gated_blocks.") and "to_kv" not in name]
    return 1 + size([name for name in own if attends or ".to_" not in name]) / size(llm)


def decoding(shape: str, rounds: int, rows: int) -> dict[str, Any]:
    """The figures of reading and of decoding."""
    flamingo, soft = models(shape)
    ecg, one = prompt_of(soft, POSITIONS), prompt_of(soft, 700)
    pair: dict[str, CausalModel] = {"flamingo": flamingo, "soft prompt": soft}
    turns = {name: Reading(model, ecg) for name, model in pair.items()}
    seconds = {name: statistics.median(found) for name, found in in_turns(rounds, dict(turns)).items()}
    prompts = {name: cast(PromptCache, turn.kept) for name, turn in turns.items()}
    figures: dict[str, Any] = {
        "prompt positions": {name: prompt.length for name, prompt in prompts.items()},
        "reading, GFLOP with weights": {name: work(pair[name], one.length) for name, one in prompts.items()},
        "prompt kept, MB": {name: prompt.nbytes / 1e6 for name, prompt in prompts.items()},
        "reading adds at most, MB": {name: turn.added / 1e6 for name, turn in turns.items()},
        "reading, seconds": seconds,
        "reading, soft prompt over flamingo": seconds["soft prompt"] / seconds["flamingo"],
    }
    cases = (("12-lead ECG", prompts["flamingo"], False), ("one series", flamingo.prefill(one), True))
    for name, behind, attends in cases:
        plain = replace(behind, condition=None)
        found = in_turns(
            rounds,
            {
                "flamingo": partial(stepping, flamingo, behind, rows),
                "plain LLM": partial(stepping, flamingo, plain, rows),
            },
        )
        ratios = [a / b for a, b in zip(found["flamingo"], found["plain LLM"], strict=True)]
        figures[f"step of {rows} rows behind {name}"] = {
            "flamingo, ms": 1000 * statistics.median(found["flamingo"]),
            "plain LLM, ms": 1000 * statistics.median(found["plain LLM"]),
            "ratio": statistics.median(ratios),
            "weights read, ratio": read_weights(flamingo, attends),
        }
    return figures


def write_checkpoint(shape: str, folder: Path) -> None:
    """A base LLM's config and tokenizer, and a checkpoint as OpenTSLM's training writes it."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    flamingo, _ = models(shape)
    size = CONFIGS[shape]["vocab_size"]
    vocabulary = {f"w{i}": i for i in range(size - 4)} | {"<e>": size - 4}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<e>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(CONFIGS[shape]))
    weights = dict(cast(list[tuple[str, mx.array]], tree_flatten(flamingo.parameters())))
    table = "language_model.model.embed_tokens.weight"
    weights[table] = weights[table][: len(vocabulary) + 3]  # and the three new tokens
    save_checkpoint(folder / "model_checkpoint.pt", flamingo.config, weights, None, val_loss=1.0, epoch=1)


CONVERT = """
import sys, time
from mlx_tslm import conversion
from mlx_tslm.system.memory import peak_resident
before = peak_resident()
done = conversion.convert(sys.argv[1], sys.argv[2], llm=sys.argv[3], dtype=sys.argv[4])
print(done.source_size, done.size, done.seconds, before, peak_resident())
"""


def converting(shape: str, layers: int) -> dict[str, Any]:
    """The figures of a conversion, to float32 and to bfloat16."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part = ["--shape", shape, "--layers", str(layers)]
        subprocess.run([sys.executable, __file__, *part, "--write", name], check=True)
        for dtype in ("float32", "bfloat16"):
            source, out = folder / "model_checkpoint.pt", folder / dtype
            command = [sys.executable, "-c", CONVERT, str(source), str(out), name, dtype]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            size, written, seconds, before, peak = map(float, told)
            figures[f"conversion to {dtype}"] = {
                "file, MB": size / 1e6,
                "written, MB": written / 1e6,
                "seconds": seconds,
                "memory before, MB": before / 1e6,
                "memory at most, MB": peak / 1e6,
            }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=CONFIGS, default="gemma-3-270m")
    parser.add_argument("--layers", type=int, help="of the LLM; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layers:
        CONFIGS[options.shape]["num_hidden_layers"] = options.layers
    if options.write:
        write_checkpoint(options.shape, options.write)
        return
    layers = CONFIGS[options.shape]["num_hidden_layers"]
    figures = {"shape": options.shape, "layers": layers, **decoding(options.shape, options.rounds, options.rows)}
    mx.clear_cache()
    figures |= converting(options.shape, layers)
    line = {"benchmark": "flamingo", "date": time.strftime("%Y-%m-%d"), "machine": describe(), **figures}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    console.print(facts([(name, json.dumps(value)) for name, value in figures.items()]))


if __name__ == "__main__":
    main()
