"""How fast training is, in MLX and in PyTorch, what checkpointing and buckets save, and what two processes bring.

    python benchmarks/training.py [--rounds 5]

A model of the shape of SmolLM2-135M (random weights, float32), encoder and projector trained with the LLM frozen,
as in OpenTSLM's first stage: batches of 4 samples of about 256 positions. MLX and PyTorch take the same steps on
the same batch in turns, in two processes of which one waits, after a round that does not count; their losses are
compared. The limit is the time that the step's matrix products take alone, at the speed of one large product.
PyTorch is left out where it is not installed.

Padding is counted, not timed: positions of batches over positions of samples, for the synthetic curriculum in the
demo's mixture. Two processes train the demo model on the same batches as one, one core each. They are started here
as `mlx.launch` would start them: its own threads wait in busy loops, which takes a core. Appends one line to
benchmarks/results/training.jsonl.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import mlx_tslm  # before MLX: it loads the BLAS that MLX is to use

# isort: split
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from benchmarks.suite.machine import describe
from benchmarks.suite.shapes import SHAPES, prompt_of, random_model
from mlx_tslm import conversion
from mlx_tslm.cli.terminal import console, facts
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.cpu.elementwise import differentiable
from mlx_tslm.system.allocator import keep_freed_memory
from mlx_tslm.training import config
from mlx_tslm.training.batches import Batch, collate, example, in_batches
from mlx_tslm.training.config import StageConfig
from mlx_tslm.training.data import StageData
from mlx_tslm.training.loss import token_losses
from mlx_tslm.training.memory import needed
from mlx_tslm.training.start import flat, prepare

RESULTS = Path(__file__).parent / "results" / "training.jsonl"
SHAPE, ROWS, POSITIONS, ANSWER = "SmolLM2-135M", 4, 192, 62
STAGE = StageConfig("stage1", batch_size=ROWS)


def the_batch(model: CausalModel) -> Batch:
    """Four samples of 256 positions."""
    answer = " ".join(f"w{i}" for i in range(ANSWER))
    samples = [example(model, prompt_of(model, POSITIONS, seed), answer) for seed in range(ROWS)]
    return collate(samples)


class MLXSteps:
    """Training steps in MLX, as the trainer takes them."""

    def __init__(self, checkpoint: bool = False) -> None:
        self.model = random_model(SHAPES[SHAPE])
        prepare(self.model, STAGE)
        self.batch = the_batch(self.model)
        optimizer = optim.AdamW(1e-4, bias_correction=True)
        optimizer.init(self.model.trainable_parameters())
        self._state = state = [self.model.state, optimizer.state]

        def loss(*arrays: mx.array) -> mx.array:
            return token_losses(self.model, Batch(*arrays), checkpoint).sum() / arrays[-1].sum()

        @partial(mx.compile, inputs=state, outputs=state)
        def step(*arrays: mx.array) -> mx.array:
            with differentiable():
                value, gradients = nn.value_and_grad(self.model, loss)(*arrays)
            optimizer.update(self.model, optim.clip_grad_norm(gradients, 1.0)[0])
            return value

        self._step = step

    def __call__(self) -> tuple[float, float]:
        """Seconds of a step, and its loss."""
        began = time.perf_counter()
        value = self._step(*self.batch)
        mx.eval(value, self._state)
        return time.perf_counter() - began, float(value)


def torch_worker(folder: Path) -> None:
    """Take a step in PyTorch for every line read, and print its seconds and loss."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F

    from mlx_tslm.models.config import ModelConfig
    from mlx_tslm.torch_backend.model import TorchModel

    model = TorchModel(ModelConfig.from_dict(json.loads((folder / "config.json").read_text())), None, None,
                       load_file(folder / "model.safetensors"), device="cpu")  # fmt: skip
    batch = {name: torch.from_numpy(array) for name, array in np.load(folder / "batch.npz").items()}
    model.language_model.requires_grad_(False)
    trained = [*model.encoder.train().parameters(), *model.projector.train().parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    index, answers = batch["patch_index"].long(), batch["answer_index"].long()
    for _ in sys.stdin:
        began = time.perf_counter()
        optimizer.zero_grad()
        patches = model.projector(model.encoder(batch["series"])).flatten(0, 1)
        h = model.language_model.get_input_embeddings()(batch["tokens"].long())
        h = torch.where(index[..., None] >= 0, patches[index.clamp(min=0)], h)
        h = model.language_model.model(inputs_embeds=h, use_cache=False).last_hidden_state
        h = h.gather(1, answers[..., None].expand(-1, -1, h.shape[-1]))
        logits = model.language_model.lm_head(h)
        losses = F.cross_entropy(logits.flatten(0, 1), batch["targets"].long().flatten(), reduction="none")
        loss = (losses * batch["weights"].flatten()).sum() / batch["weights"].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        print(time.perf_counter() - began, loss.item(), flush=True)


class TorchSteps:
    """`torch_worker` in a process of its own; it waits while others measure."""

    def __init__(self, steps: MLXSteps, folder: Path) -> None:
        mx.save_safetensors(str(folder / "model.safetensors"), flat(steps.model.parameters()))
        (folder / "config.json").write_text(json.dumps(steps.model.config.to_dict()))
        np.savez(folder / "batch.npz", **{name: np.array(array) for name, array in steps.batch._asdict().items()})  # type: ignore[arg-type]
        command = [sys.executable, __file__, "--torch-worker", str(folder)]
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> tuple[float, float]:
        """Seconds of a step, and its loss."""
        assert self._worker.stdin and self._worker.stdout
        print(file=self._worker.stdin, flush=True)
        seconds, loss = map(float, self._worker.stdout.readline().split())
        return seconds, loss


def matrix_products(batch: Batch) -> float:
    """Floating-point operations of a step's products: the frozen LLM forth and back, the encoder thrice."""
    shape = SHAPES[SHAPE]
    positions, patches = batch.tokens.size, batch.series.size // 4
    attention = 4 * ROWS * batch.tokens.shape[1] ** 2 * shape.heads * shape.head_dim * shape.layers
    llm = 2 * positions * shape.layer_parameters + attention
    head = 2 * batch.targets.size * shape.head_parameters
    return float(2 * (llm + head) + 3 * 2 * patches * 2_000_000)


def speed_of_products(rounds: int) -> float:
    """Operations a second of a product of the LLM's size, [1024, 576] by [576, 1536], the median."""
    a, b = mx.random.normal((1024, 576)), mx.random.normal((576, 1536))
    mx.eval(a, b)
    took = []
    for _ in range(rounds * 4):
        began = time.perf_counter()
        mx.eval([a @ b for _ in range(8)])
        took.append((time.perf_counter() - began) / 8)
    return 2 * 1024 * 576 * 1536 / statistics.median(took)


def peak_memory(checkpoint: bool) -> tuple[int, int]:
    """Bytes that a step adds to the model's, measured and as the trainer estimates it."""
    steps = MLXSteps(checkpoint)
    steps()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    steps()
    return mx.get_peak_memory() - before, needed(steps.model, steps.batch, checkpoint)


def padding(model: CausalModel) -> dict[str, float]:
    """Positions of batches over positions of samples, in random order and in buckets."""
    curriculum = config.load("demo")
    samples = {name: count // 20 for name, count in curriculum.stages[0].samples.items()}
    stage = StageConfig("base", samples, batch_size=16, validation_samples=1)
    examples = [one for batch in StageData(model, curriculum, stage).epoch(0) for one in batch]
    order = np.random.default_rng(0).permutation(len(examples))
    shuffled = [examples[i] for i in order]
    real = sum(one.length for one in examples)

    def padded(batches: list[Any]) -> float:
        return sum(len(batch) * max(one.length for one in batch) for batch in batches) / real

    return {
        "in random order": padded([shuffled[at : at + 16] for at in range(0, len(shuffled), 16)]),
        "in buckets": padded(in_batches(examples, [one.length for one in examples], 16)),
    }


def processes(model: Path, folder: Path) -> dict[str, Any]:
    """Tokens a second and losses of the same training by one process and by two, one core each."""
    plan = folder / "plan.toml"
    plan.write_text(
        f'model = "{model}"\nsource = "synthetic"\n[[stages]]\nname = "stage2"\nsamples = {{ stage2 = 960 }}\n'
        "validation_samples = 8\nbatch_size = 16\n"
    )
    hosts = folder / "hosts.json"
    found: dict[str, Any] = {}
    for count in (1, 2):
        hosts.write_text(json.dumps([[f"127.0.0.1:{free_port()}"] for _ in range(count)]))
        command = [sys.executable, "-m", "mlx_tslm", "train", str(plan), "-o", str(folder / str(count))]
        one_core = os.environ | {"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        together = {"MLX_HOSTFILE": str(hosts)} if count > 1 else {}
        started = [
            subprocess.Popen(command, env=one_core | together | {"MLX_RANK": str(rank)}) for rank in range(count)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"training with {count} processes failed; what they said is above")
        lines = [json.loads(line) for line in (folder / str(count) / "stage2/loss.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "loss" in line]
        found[f"{count}"] = {
            "seconds of the last 30 steps": round(steps[-1]["seconds"] - steps[-4]["seconds"], 2),
            "losses": [round(line["loss"], 5) for line in steps],
        }
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    keep_freed_memory()
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_worker:
        return torch_worker(options.torch_worker)
    mx.set_default_device(mx.cpu)
    figures: dict[str, Any] = {"benchmark": "training", "date": time.strftime("%Y-%m-%d"), "machine": describe(),
                               "rounds": options.rounds}  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = MLXSteps()
        ways = {"mlx": ours}
        try:
            import torch  # noqa: F401

            ways["torch"] = TorchSteps(ours, folder)  # type: ignore[assignment]
        except ImportError:
            console.print("PyTorch is not installed: it is left out")
        rounds = [{way: step() for way, step in ways.items()} for _ in range(options.rounds + 1)]
        positions = ours.batch.tokens.size
        for way in ways:
            seconds = statistics.median(one[way][0] for one in rounds[1:])
            figures[f"{way}: seconds a step"] = round(seconds, 3)
            figures[f"{way}: tokens a second"] = round(positions / seconds, 1)
        if "torch" in ways:
            ratios = [one["torch"][0] / one["mlx"][0] for one in rounds[1:]]
            figures["torch over mlx"] = [round(f(ratios), 2) for f in (statistics.median, min, max)]
            figures["largest difference of losses"] = max(abs(one["torch"][1] - one["mlx"][1]) for one in rounds)
        floor = matrix_products(ours.batch) / speed_of_products(options.rounds)
        figures["matrix products alone, seconds"] = round(floor, 3)
        figures["mlx over matrix products"] = round(figures["mlx: seconds a step"] / floor, 2)
        for checkpoint in (False, True):
            measured, estimated = peak_memory(checkpoint)
            how = "with checkpointing" if checkpoint else "without checkpointing"
            figures[f"memory {how}, MB"] = {"measured": measured // 10**6, "estimated": estimated // 10**6}
        conversion.convert("demo", folder / "demo", dtype="float32", fuse=False)
        padded = padding(mlx_tslm.load(folder / "demo"))
        figures["positions over samples' own"] = {way: round(value, 3) for way, value in padded.items()}
        figures["processes"] = processes(folder / "demo", folder)
    console.print(facts(figures.items()))
    with RESULTS.open("a") as file:
        file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
