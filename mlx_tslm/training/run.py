"""A training run: its folder, with the log of the loss and checkpoints to go on from."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten


def flat(tree: Any) -> dict[str, mx.array]:
    """A tree's arrays by their dotted names."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(tree)))


class Run:
    """A run of one or more phases, each trained in turn.

    Args:
        folder: where `loss.jsonl` and one checkpoint a phase are kept.
        seed: of the batches. A run that is stopped and started again sees the same batches.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        folder.mkdir(parents=True, exist_ok=True)

    def log(self, **entry: Any) -> None:
        """Add a line to the log, and print it."""
        with (self.folder / "loss.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        print(" ".join(f"{key} {value}" for key, value in entry.items()), flush=True)

    def train(
        self,
        phase: str,
        model: nn.Module,
        loss: Callable[..., mx.array],
        make_batch: Callable[[np.random.Generator], tuple[mx.array, ...]],
        steps: int,
        rate: float,
        check: Callable[[], dict[str, float]] | None = None,
        every: int = 500,
    ) -> None:
        """Train one phase from its checkpoint on: AdamW, warm-up, cosine decay, gradients clipped to norm 1.

        Args:
            phase: its name, in the log and the checkpoint.
            model: what is trained; frozen parameters stay.
            loss: the arrays of a batch to a scalar.
            make_batch: a batch from a generator of random numbers, which depends on the step alone.
            steps: batches in all.
            rate: the peak learning rate.
            check: measures to log beside the loss.
            every: steps between checkpoints, and between checks.
        """
        warm_up = max(1, min(200, steps // 8))
        schedule = optim.join_schedules(
            [
                optim.linear_schedule(rate / 100, rate, warm_up),
                optim.cosine_decay(rate, steps - warm_up, rate / 50),
            ],
            [warm_up],
        )
        optimizer = optim.AdamW(schedule, betas=[0.9, 0.98], weight_decay=0.01)
        optimizer.init(model.trainable_parameters())
        start, began, cpu = self._resume(phase, model, optimizer)
        gradient = nn.value_and_grad(model, loss)
        state = [model.state, optimizer.state]

        @partial(mx.compile, inputs=state, outputs=state)
        def step(*batch: mx.array) -> mx.array:
            value, gradients = gradient(*batch)
            gradients, _ = optim.clip_grad_norm(gradients, 1.0)
            optimizer.update(model, gradients)
            return value

        losses: list[float] = []
        for number in range(start, steps):
            batch = make_batch(np.random.default_rng([self.seed, sum(map(ord, phase)), number]))
            value = step(*batch)
            mx.eval(value, state)
            losses.append(float(value))
            if (number + 1) % 25 == 0 or number + 1 == steps:
                mean = round(float(np.mean(losses)), 4)
                losses = []
                spent = {"seconds": time.time() - began, "cpu_seconds": time.process_time() - cpu}
                self.log(phase=phase, step=number + 1, loss=mean, **{k: round(v, 1) for k, v in spent.items()})
            if (number + 1) % every == 0 or number + 1 == steps:
                self._save(phase, model, optimizer, number + 1, time.time() - began, time.process_time() - cpu)
                if check:
                    self.log(phase=phase, step=number + 1, **check())

    def entries(self, key: str) -> list[dict[str, Any]]:
        """The log's lines that have `key`; of a step that was logged twice, the later one."""
        lines = map(json.loads, (self.folder / "loss.jsonl").read_text().splitlines())
        return list({(line["phase"], line["step"]): line for line in lines if key in line}.values())

    def picture(self, width: int = 720, height: int = 260) -> str:
        """The loss of each phase over its steps, as SVG."""
        lines = self.entries("loss")
        top = max(line["loss"] for line in lines)
        parts, x = [], 40.0
        for phase in dict.fromkeys(line["phase"] for line in lines):
            own = [line for line in lines if line["phase"] == phase]
            span = (width - 60) * len(own) / len(lines)
            across = [x + span * line["step"] / own[-1]["step"] for line in own]
            up = [height - 30 - (height - 50) * line["loss"] / top for line in own]
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
            parts.append(f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="1.5"/>')
            parts.append(
                f'<text x="{x + 4:.0f}" y="14">{phase}: {own[-1]["step"]} steps, {own[-1]["loss"]:.2f}</text>'
            )
            x += span
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">'
            f'<path d="M40 20V{height - 30}H{width - 20}" fill="none" stroke="#999"/>'
            f'<text x="4" y="24">{top:.1f}</text><text x="24" y="{height - 28}">0</text>{"".join(parts)}'
            f'<text x="40" y="{height - 10}">loss by step</text></svg>\n'
        )

    def _resume(self, phase: str, model: nn.Module, optimizer: optim.Optimizer) -> tuple[int, float, float]:
        """Load the phase's checkpoint; returns the steps done, and when (clock, CPU clock) it would have begun."""
        path = self.folder / f"{phase}.safetensors"
        now = time.time(), time.process_time()
        if not path.exists():
            return 0, *now
        arrays, done = cast(tuple[dict[str, mx.array], dict[str, str]], mx.load(str(path), return_metadata=True))
        parts: dict[str, list[tuple[str, mx.array]]] = {"model": [], "optimizer": []}
        for name, array in arrays.items():
            owner, _, rest = name.partition(".")
            parts[owner].append((rest, array))
        model.load_weights(parts["model"])
        optimizer.state = tree_unflatten(parts["optimizer"])
        return int(done["step"]), now[0] - float(done["seconds"]), now[1] - float(done["cpu_seconds"])

    def _save(self, phase: str, model: nn.Module, optimizer: optim.Optimizer, step: int, *spent: float) -> None:
        arrays = {f"model.{name}": array for name, array in flat(model.parameters()).items()}
        arrays |= {f"optimizer.{name}": array for name, array in flat(optimizer.state).items()}
        done = {"step": str(step), "seconds": str(spent[0]), "cpu_seconds": str(spent[1])}
        new = self.folder / f"{phase}.new.safetensors"
        mx.save_safetensors(str(new), arrays, done)
        new.rename(self.folder / f"{phase}.safetensors")
