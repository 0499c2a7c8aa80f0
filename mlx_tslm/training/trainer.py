"""One stage's training: epochs of batches, validation, early stopping, and checkpoints to go on from."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_unflatten

from mlx_tslm.errors import TSLMError
from mlx_tslm.files import replacing
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.cpu.elementwise import differentiable
from mlx_tslm.models.samples import Batch
from mlx_tslm.models.weights import save_arrays
from mlx_tslm.system.distributed import group
from mlx_tslm.training import memory
from mlx_tslm.training.batches import Example, collate
from mlx_tslm.training.config import StageConfig
from mlx_tslm.training.data import StageData
from mlx_tslm.training.log import Log
from mlx_tslm.training.optimizer import optimizer_for
from mlx_tslm.training.start import flat

_LOG_EVERY = 10  # steps
_SAVE_SECONDS = 120.0
_BETTER = 1e-4  # by so much a validation loss must be lower, as in OpenTSLM


@dataclass
class Progress:
    """Where a stage's training stands.

    Args:
        step: batches done, of `steps` in all.
        epoch: the one under way, from 0.
        loss: of the last batch; `best` is the lowest validation loss so far, `bad_epochs` the epochs since.
        tokens: positions that went through the LLM, padding not counted, and `seconds` they took; of all runs.
        finished: whether the stage is done.
    """

    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float = float("nan")
    best: float = float("inf")
    bad_epochs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    finished: bool = False


Report = Callable[[StageConfig, Progress, str], None]
"""Called with the stage, where it stands, and what is being done: "training", "validating"."""


class Trainer:
    """Trains one stage in a folder, from its checkpoint on where there is one.

    Args:
        model: prepared for the stage (`start.prepare`); it holds the stage's best weights at the end.
        stage: how it is trained.
        samples: on what.
        folder: for `state.safetensors`, `best.safetensors`, `loss.jsonl` and `loss.svg`.
        report: see `Report`.

    Raises:
        TSLMError: the data are not those that the checkpoint was made with.
    """

    def __init__(
        self, model: CausalModel, stage: StageConfig, samples: StageData, folder: Path, report: Report
    ) -> None:
        self._model, self._stage, self._samples, self._folder, self._report = model, stage, samples, folder, report
        self._group = group()
        folder.mkdir(parents=True, exist_ok=True)
        steps = stage.epochs * samples.steps_per_epoch
        self.progress = Progress(steps=steps)
        self._optimizer = optimizer_for(stage, steps, model)
        self._data = samples.fingerprint()
        self._losses: list[float] = []  # of the steps since the log's last line
        self._resume()
        one = self.progress
        self._log = Log(folder, one.step, one.epoch) if self._group.rank() == 0 else None
        self._saved = self._began = time.monotonic()
        self._largest = 0

    def run(self) -> Progress:
        """Train to the end; a Ctrl-C saves first. The model is left with its best weights.

        Raises:
            TSLMError: a loss that is no number, or a batch that does not fit into memory.
        """
        one = self.progress
        step, losses = self._compiled()
        try:
            while not one.finished:
                done = one.step - one.epoch * self._samples.steps_per_epoch
                for examples in self._samples.epoch(one.epoch, done):
                    self._take(step, examples)
                self._end_epoch(losses)
        except KeyboardInterrupt:
            self._save()
            raise
        if (self._folder / "best.safetensors").exists():
            self._model.load_weights(str(self._folder / "best.safetensors"), strict=False)
        return one

    def _compiled(self) -> tuple[Callable[..., mx.array], Callable[..., mx.array]]:
        """A training step (returns the loss), and the summed loss and number of tokens of each row."""
        from mlx_tslm.training.loss import token_losses

        model, optimizer, stage = self._model, self._optimizer, self._stage
        state: list[Any] = [model.state, optimizer.state]

        def loss(total: mx.array, *arrays: mx.array) -> mx.array:
            return token_losses(model, Batch(*arrays), stage.gradient_checkpointing).sum() / total

        @partial(mx.compile, inputs=state, outputs=state)
        def step(total: mx.array, *arrays: mx.array) -> mx.array:
            with differentiable():  # what is checkpointed is computed again here
                value, gradients = nn.value_and_grad(model, loss)(total, *arrays)
            gradients = nn.average_gradients(gradients)
            gradients, _ = optim.clip_grad_norm(gradients, stage.clip)
            optimizer.update(model, gradients)
            return value

        @partial(mx.compile, inputs=[model.state])
        def losses(*arrays: mx.array) -> mx.array:
            return token_losses(model, Batch(*arrays)).sum(axis=1) / Batch(*arrays).weights.sum(axis=1)

        return step, losses

    def _take(self, step: Callable[..., mx.array], examples: list[Example]) -> None:
        """Train on one batch: this process on its share of the rows, with the weight they have in the whole."""
        one, began = self.progress, time.monotonic()
        if examples:
            size = self._group.size()
            share = examples[self._group.rank() :: size] or examples[:1]
            batch = collate(share, self._model.config.encoder_config.patch_size)
            self._check_memory(batch)
            # Gradients are averaged over the processes, so each one's part is multiplied by their number.
            total = sum(len(example.answer) for example in examples) / size
            if len(examples) <= self._group.rank():
                batch = batch._replace(weights=mx.zeros_like(batch.weights))
            value = step(mx.array(total, mx.float32), *batch)
            if size > 1:
                value = mx.distributed.all_sum(value) / size
            mx.eval(value, self._model.state, self._optimizer.state)
            one.loss = float(value)
            if not np.isfinite(one.loss):
                raise TSLMError(
                    f"{self._stage.name}: the loss is {one.loss} at step {one.step + 1}, on the batch of "
                    f"{', '.join(example.where for example in examples)}; {self._kept()}. Lower the learning rates"
                )
            one.tokens += sum(example.length for example in examples)
            self._losses.append(one.loss)
        one.step += 1
        one.seconds += time.monotonic() - began
        if self._losses and (one.step % _LOG_EVERY == 0 or one.step == one.steps):
            if self._log:
                mean = float(np.mean(self._losses))
                self._log.add(step=one.step, epoch=one.epoch, loss=mean, seconds=round(one.seconds, 1))
            self._losses = []
        self._report(self._stage, one, "training")
        if time.monotonic() - self._saved > _SAVE_SECONDS and one.step % _LOG_EVERY == 0:
            self._save()

    def _end_epoch(self, losses: Callable[..., mx.array]) -> None:
        """Validate, keep the weights if they are the best so far, and see whether to go on."""
        one, began = self.progress, time.monotonic()
        self._report(self._stage, one, "validating")
        rows: list[float] = []
        for number, examples in enumerate(self._samples.validation()):
            if number % self._group.size() == self._group.rank():
                batch = collate(examples, self._model.config.encoder_config.patch_size)
                rows += cast(list[float], losses(*batch).tolist())
        sums = mx.distributed.all_sum(mx.array([sum(rows), len(rows)], mx.float32))  # a process may have no row
        loss = float(sums[0] / mx.maximum(sums[1], 1))
        one.seconds += time.monotonic() - began
        if not np.isfinite(loss):
            raise TSLMError(f"{self._stage.name}: the validation loss is {loss}; {self._kept()}")
        one.epoch += 1
        one.bad_epochs = 0 if loss + _BETTER < one.best else one.bad_epochs + 1
        if one.bad_epochs == 0:
            one.best = loss
            self._write("best.safetensors", flat(self._model.trainable_parameters()))
        one.finished = one.epoch == self._stage.epochs or one.bad_epochs >= self._stage.patience
        if self._log:
            self._log.add(step=one.step, epoch=one.epoch, validation_loss=loss, seconds=round(one.seconds, 1))
            self._log.draw(self._stage.name)
        self._save()

    def _check_memory(self, batch: Batch) -> None:
        if batch.tokens.size > self._largest:
            self._largest = batch.tokens.size
            memory.check(self._model, batch, self._stage)

    def _kept(self) -> str:
        saved = self._folder / "state.safetensors"
        return f"the last good checkpoint is {saved}" if saved.exists() else "no checkpoint was made before"

    def _save(self) -> None:
        """Write what is needed to go on exactly."""
        self._saved = time.monotonic()
        arrays = {f"model.{name}": array for name, array in flat(self._model.trainable_parameters()).items()}
        arrays |= {f"optimizer.{name}": array for name, array in flat(self._optimizer.state).items()}
        facts = {"progress": asdict(self.progress), "losses": self._losses, "data": self._data}
        self._write("state.safetensors", arrays, facts)

    def _write(self, name: str, arrays: dict[str, mx.array], facts: dict[str, Any] | None = None) -> None:
        if self._group.rank() == 0:
            with replacing(self._folder / name) as new:
                save_arrays(new, arrays, {key: json.dumps(value) for key, value in (facts or {}).items()})

    def _resume(self) -> None:
        path = self._folder / "state.safetensors"
        if not path.exists():
            return
        arrays, facts = cast(tuple[dict[str, mx.array], dict[str, str]], mx.load(str(path), return_metadata=True))
        if json.loads(facts["data"]) != self._data:
            raise TSLMError(f"{self._folder} was trained on other data; give another --output, or delete it")
        parts: dict[str, list[tuple[str, mx.array]]] = {"model": [], "optimizer": []}
        for name, array in arrays.items():
            owner, _, rest = name.partition(".")
            parts[owner].append((rest, array))
        self._model.load_weights(parts["model"], strict=False)
        self._optimizer.state = cast(dict[str, Any], tree_unflatten(parts["optimizer"]))
        self.progress = Progress(**json.loads(facts["progress"]))
        self._losses = json.loads(facts.get("losses", "[]"))
