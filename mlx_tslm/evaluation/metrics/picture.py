"""A confusion matrix as an SVG picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.charts import GREY, picture, text

_CELL, _CHARACTER, _PAD = 44, 6.6, 16


def confusion_svg(classes: Sequence[str], counts: NDArray[np.int64], title: str) -> str:
    """Draw counts `[gold, answer]`, each cell shaded by its share of its row. Empty last rows are left out."""
    rows = [at for at in range(len(classes)) if at < len(classes) - 1 or counts[at].any()]
    left = _PAD + 24 + _CHARACTER * max(len(classes[at]) for at in rows)
    head = _PAD + 52 + 0.72 * _CHARACTER * max(map(len, classes))
    width = left + _CELL * len(classes) + max(_PAD, 0.72 * _CHARACTER * len(classes[-1]))
    width, height = max(width, 2 * _PAD + 7.6 * len(title)), head + _CELL * len(rows) + _PAD
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [text(_PAD, _PAD + 26, "rows: reference; columns: answer", fill=GREY)]
    for column, name in enumerate(classes):
        x, y = left + _CELL * (column + 0.5), head - 6
        parts.append(text(x, y, name, transform=f"rotate(-45 {x:.0f} {y:.0f})"))
    for line, at in enumerate(rows):
        y = head + _CELL * line
        parts.append(text(left - 8, y + _CELL / 2 + 4, classes[at], text_anchor="end"))
        for column, count in enumerate(counts[at].tolist()):
            x, share = left + _CELL * column, shares[at, column]
            shade = ",".join(f"{255 + share * (full - 255):.0f}" for full in (8, 81, 156))
            box = f'x="{x:.0f}" y="{y:.0f}" width="{_CELL}" height="{_CELL}"'
            parts.append(f'<rect {box} fill="rgb({shade})" stroke="#ddd"/>')
            if count:
                ink = "#fff" if share > 0.5 else "#222"
                parts.append(text(x + _CELL / 2, y + _CELL / 2 + 4, str(count), text_anchor="middle", fill=ink))
    return picture(width, height, title, parts)
