"""A confusion matrix as an SVG picture."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_CELL, _CHARACTER, _PAD = 44, 6.6, 16


def confusion_svg(classes: Sequence[str], counts: NDArray[np.int64], title: str) -> str:
    """Draw counts `[gold, answer]`, each cell shaded by its share of its row. Empty last rows are left out."""
    rows = [at for at in range(len(classes)) if at < len(classes) - 1 or counts[at].any()]
    left = _PAD + 24 + _CHARACTER * max(len(classes[at]) for at in rows)
    head = _PAD + 52 + 0.72 * _CHARACTER * max(map(len, classes))
    width = left + _CELL * len(classes) + max(_PAD, 0.72 * _CHARACTER * len(classes[-1]))
    width, height = max(width, 2 * _PAD + 7.6 * len(title)), head + _CELL * len(rows) + _PAD
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_PAD}" y="{_PAD + 8}" font-size="14" font-weight="600">{escape(title)}</text>',
        f'<text x="{_PAD}" y="{_PAD + 26}" fill="#666">rows: reference; columns: answer</text>',
    ]
    for column, name in enumerate(classes):
        x = left + _CELL * (column + 0.5)
        parts.append(f'<text x="{x:.0f}" y="{head - 6:.0f}" transform="rotate(-45 {x:.0f} {head - 6:.0f})">')
        parts.append(f"{escape(name)}</text>")
    for line, at in enumerate(rows):
        y = head + _CELL * line
        parts.append(f'<text x="{left - 8:.0f}" y="{y + _CELL / 2 + 4:.0f}" text-anchor="end">')
        parts.append(f"{escape(classes[at])}</text>")
        for column, count in enumerate(counts[at].tolist()):
            x, share = left + _CELL * column, shares[at, column]
            shade = ",".join(f"{255 + share * (full - 255):.0f}" for full in (8, 81, 156))
            parts.append(
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{_CELL}" height="{_CELL}" fill="rgb({shade})" stroke="#ddd"/>'
            )
            if count:
                ink = "#fff" if share > 0.5 else "#222"
                parts.append(f'<text x="{x + _CELL / 2:.0f}" y="{y + _CELL / 2 + 4:.0f}" text-anchor="middle" ')
                parts.append(f'fill="{ink}">{count}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
