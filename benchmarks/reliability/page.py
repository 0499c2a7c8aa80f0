"""RELIABILITY.md, made from the raw results and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PARTS = (
    "Interruptions",
    "Downloads",
    "Hostile files",
    "The page and the terminal",
    "Numbers",
    "Long runs",
)
NOT_TRIED = (
    "A Mac: neither its memory pressure, its sleep, its file system nor Metal's precision.",
    "The real Hub: its part is played by a server on this machine.",
    "Power cuts: a killed process loses nothing that it handed to the system, a machine without power may.",
    "Network file systems, whose locks and renames may be weaker.",
)
_HEAD = """# Reliability

What mlx-tslm promises when something goes wrong, each promise with what was tried. `scripts/torture` tries them,
adds a line a case to `results/reliability.jsonl`, and writes this page from those lines; `scripts/torture --short`
takes a few tries of each and writes nothing, which CI does.
"""


def page(results: Path) -> str:
    """The page, of the last line of each case in `results/reliability.jsonl`."""
    last: dict[str, dict[str, Any]] = {}
    for text in results.read_text("utf-8").split("\n"):
        if text.strip():
            line = json.loads(text)
            last[line["case"]] = line
    parts = [_HEAD]
    for part in PARTS:
        lines = [line for line in last.values() if line["part"] == part]
        if lines:
            rows = [_row(line) for line in lines]
            parts.append("\n".join([f"## {part}\n", "| promise | tried | broken |", "|---|---|---:|", *rows, ""]))
    parts.append("\n".join(["## Not tried\n", *(f"- {text}" for text in NOT_TRIED), ""]))
    where = sorted({(line["machine"], line["commit"] or "no commit") for line in last.values()})
    parts.append("Measured on " + "; ".join(f"{machine} ({commit})" for machine, commit in where) + ".\n")
    return "\n".join(parts)


def _row(line: dict[str, Any]) -> str:
    tried = "; ".join(f"{name}: {_shown(value)}" for name, value in line["figures"].items())
    return f"| {line['promise']} (`{line['case']}`) | {tried} | {len(line['faults'])} |"


def _shown(value: int | float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else value
