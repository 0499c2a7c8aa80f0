"""The log of a stage's training: one JSON object a line, and its picture."""

import json
from pathlib import Path
from typing import Any

from mlx_tslm.charts import COLOURS, Line, Panel, chart
from mlx_tslm.files import whole_lines, write_atomically


class Log:
    """`loss.jsonl` of a stage: lines with `step` and `loss` (training) or `validation_loss`.

    Args:
        folder: where it is kept.
        step, epoch: that training goes on from; later lines are of what is going to be done again.
    """

    def __init__(self, folder: Path, step: int, epoch: int) -> None:
        self._path = folder / "loss.jsonl"
        lines = [json.loads(line) for line in whole_lines(self._path)] if self._path.exists() else []
        self.entries: list[dict[str, Any]] = [
            one for one in lines if one["step"] <= step and ("loss" in one or one["epoch"] <= epoch)
        ]
        write_atomically(self._path, "".join(json.dumps(one) + "\n" for one in self.entries))

    def add(self, **entry: Any) -> None:
        """Write a line."""
        self.entries.append(entry)
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def draw(self, title: str) -> None:
        """Write `loss.svg`: training loss over the steps as a line, validation losses as points."""
        training = [(one["step"], one["loss"]) for one in self.entries if "loss" in one]
        validation = [(one["step"], one["validation_loss"]) for one in self.entries if "validation_loss" in one]
        if not training:
            return
        best = min((loss for _, loss in validation), default=None)
        said = f"training {training[-1][1]:.3f}" + (f", validation at best {best:.3f}" if best is not None else "")
        lines = [
            Line(training, dots=False),
            *([Line(validation, colour=COLOURS[1], joined=False)] * bool(validation)),
        ]
        panel = Panel(lines, "step", "loss", bottom=0.0, width=640, height=200)
        note = "line: training loss a step; points: validation loss"
        write_atomically(self._path.with_suffix(".svg"), chart(f"{title}: {said}", [panel], note))
