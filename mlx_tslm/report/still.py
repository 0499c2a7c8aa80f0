"""The answer, the signal and the alternatives as plain HTML and SVG, without scripts, for notebooks."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

_SERIES = 8  # drawn at most
_WIDTH, _HEIGHT = 640, 110


def still(data: dict[str, Any], rows: int = 6) -> str:
    """What matters of a page, from its own data (`page.page_data`); every text in it is escaped.

    Args:
        data: of the page.
        rows: how many answers and texts are listed.
    """
    leader = data["answers"][0] if data["answers"] else None
    sure = ""
    if leader is not None:
        low, high = leader["interval"]
        sure = f"<p>Confidence {_percent(leader['confidence'])} (95 %: {_percent(low)} to {_percent(high)})</p>"
    notes = "".join(f"<p><em>{_text(note)}</em></p>" for note in data["notes"])
    answers = _table(
        ("share of the weight", "answer"),
        [(_percent(row["weight"]), row["text"] or "") for row in data["answers"][:rows]],
    )
    texts = _table(
        ("weight", "reward", "log p", "text"),
        [
            (_percent(row["weight"]), f"{row['reward']:.3f}", f"{row['logprob']:.1f}", row["text"] or "(empty)")
            for row in data["completions"][:rows]
        ],
    )
    best = next(row for row in data["completions"] if row["best"])
    return (
        f"<h3>{_text(data['question'])}</h3>{''.join(map(_signal, data['signals'][:_SERIES]))}"
        f"<h4>Answer: {_text(data['headline'])}</h4>{sure}<p>{_text(best['text'])}</p>{notes}"
        f"<h4>Answers</h4>{answers}<h4>In full</h4>{texts}"
    )


def _signal(one: dict[str, Any]) -> str:
    """One series as a line; one sample is a dot."""
    at, values = one["at"], one["values"]
    low, high = min(values), max(values)
    wide, tall = max(one["samples"] - 1, 1), (high - low) or 1.0
    points = [
        (
            10 + where / wide * (_WIDTH - 20),
            _HEIGHT / 2 if high == low else 10 + (high - value) / tall * (_HEIGHT - 20),
        )
        for where, value in zip(at, values, strict=True)
    ]
    if len(points) == 1:
        points = [(_WIDTH / 2, _HEIGHT / 2)]
        line = f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="4" fill="#0a6a9c"/>'
    else:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        line = f'<polyline points="{path}" fill="none" stroke="#0a6a9c" stroke-width="1.3"/>'
    told = f"{one['name'] or 'series'}{' [' + one['unit'] + ']' if one['unit'] else ''}: {one['samples']} samples"
    return (
        f"<figure style='margin:0 0 .5em'><figcaption>{_text(told)}, {low:g} to {high:g}</figcaption>"
        f'<svg width="100%" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="max-width:{_WIDTH}px" role="img">{line}</svg>'
        "</figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th style='text-align:left'>{_text(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{_text(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else "> 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def _text(text: str) -> str:
    """Escaped; control characters as their pictures, and without those that turn lines or their direction."""
    kept = re.sub("[\u2028\u2029\u202a-\u202e\u2066-\u2069]", " ", text)
    return escape("".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\t\n\r" else c for c in kept))
