"""The log of a stage's training: one JSON object a line, and its picture."""

import json
from html import escape
from pathlib import Path
from typing import Any

from mlx_tslm.files import write_atomically

_WIDTH, _HEIGHT, _LEFT, _TOP = 720, 280, 56, 40


class Log:
    """`loss.jsonl` of a stage: lines with `step` and `loss` (training) or `validation_loss`.

    Args:
        folder: where it is kept.
        step: the step that training goes on from; later lines are of steps that are going to be done again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "loss.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.entries: list[dict[str, Any]] = [one for line in lines if (one := json.loads(line))["step"] <= step]
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
        last, top = training[-1][0], max(loss for _, loss in training + validation) or 1.0

        def at(step: int, loss: float) -> tuple[float, float]:
            x = _LEFT + (_WIDTH - _LEFT - 24) * step / last
            return round(x, 1), round(_HEIGHT - 40 - (_HEIGHT - 40 - _TOP) * loss / top, 1)

        points = " ".join("{},{}".format(*at(*one)) for one in training)
        dots = "".join('<circle cx="{}" cy="{}" r="4" fill="#c2410c"/>'.format(*at(*one)) for one in validation)
        best = min((loss for _, loss in validation), default=None)
        said = f"training {training[-1][1]:.3f}" + (f", validation at best {best:.3f}" if best is not None else "")
        write_atomically(
            self._path.with_suffix(".svg"),
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="12" fill="#555">'
            '<rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="{_LEFT}" y="22" font-size="14" fill="#222">{escape(title)}: {said}</text>'
            f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - 40}H{_WIDTH - 24}" fill="none" stroke="#999"/>'
            f'<text x="{_LEFT - 6}" y="{_TOP + 4}" text-anchor="end">{top:.2f}</text>'
            f'<text x="{_LEFT - 6}" y="{_HEIGHT - 36}" text-anchor="end">0</text>'
            f'<text x="{_WIDTH - 24}" y="{_HEIGHT - 22}" text-anchor="end">step {last}</text>'
            f'<polyline points="{points}" fill="none" stroke="#1f6f8b" stroke-width="1.5"/>{dots}'
            f'<text x="{_LEFT}" y="{_HEIGHT - 10}">line: training loss a step; points: validation loss</text>'
            "</svg>\n",
        )
