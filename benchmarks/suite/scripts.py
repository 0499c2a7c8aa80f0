"""The figures of the scripts in `benchmarks/`: the last line of each `results/NAME.jsonl`, as a table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("answering", "flamingo", "loading", "quantized", "training")
_ABOUT = ("benchmark", "date", "machine")


def scripts_table(results: Path) -> str:
    """A row a figure, or nothing where no script has run."""
    rows = []
    for name in NAMES:
        path = results / f"{name}.jsonl"
        if not path.exists():
            continue
        last: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
        where = last["machine"]
        if isinstance(where, dict):
            where = f"{where['chip']}, {where['cores']} cores, {where['blas']}"
        rows.append(f"| **`benchmarks/{name}.py`** | {where} |")
        figures = {key: value for key, value in last.items() if key not in _ABOUT}
        rows += [f"| {name.replace('_', ' ')} | {value} |" for name, value in _flat(figures)]
    return "\n".join(["| what | figure |", "| --- | ---: |", *rows]) if rows else ""


def _flat(figures: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}, ")
        elif isinstance(value, list):
            yield f"{before}{name}", ", ".join(map(_number, value))
        else:
            yield f"{before}{name}", _number(value)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
