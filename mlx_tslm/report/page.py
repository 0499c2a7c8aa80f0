"""Fills the page: one JSON block in a template that draws it. The page loads nothing from anywhere."""

import html
import json
import math
import platform
import re
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_tslm.errors import TSLMError, visible
from mlx_tslm.files import write_atomically
from mlx_tslm.report.answers import answer_rows, completion_rows
from mlx_tslm.report.branches import list_branches
from mlx_tslm.report.series import panel
from mlx_tslm.report.spectra import compare_spectra
from mlx_tslm.report.still import still
from mlx_tslm.stages import worded

if TYPE_CHECKING:
    from mlx_tslm.search import SearchResult
    from mlx_tslm.stages.base import Question


def write_html(
    result: "SearchResult",
    path: str | Path,
    *,
    question: "Question",
    tokenizer: Any,
    model: str,
    notes: Sequence[str] = (),
    recording: str = "",
) -> None:
    """Write a search result as one HTML file that needs no network.

    Args:
        result: what the search found.
        path: the file; it is replaced as a whole or not at all.
        question: what was asked, with its series.
        tokenizer: the model's; its `decode(ids, skip_special_tokens=True)` gives the tree its texts.
        model: its name, for people.
        notes: what a person should know before trusting an answer, one sentence each.
        recording: its name, for the title; the channels' names where it has none.

    Raises:
        TSLMError: the file cannot be written.
    """
    page = fill(page_data(result, question, tokenizer, model, notes, recording))
    try:
        write_atomically(Path(path), page)
    except OSError as error:
        raise TSLMError(f"cannot write {path}: {error.strerror}") from None


def page_data(
    result: "SearchResult",
    question: "Question",
    tokenizer: Any,
    model: str,
    notes: Sequence[str] = (),
    recording: str = "",
) -> dict[str, Any]:
    """Everything that the page shows; arguments as in `write_html`. `page.html` says how each part is drawn."""
    from mlx_tslm.search import presets

    stage, config = question.stage, result.config
    texts = [question.pre]
    for series in question.series:
        texts += [series.text, f"[{series.name or 'series'}: {len(series.values)} samples]"]
    completions = completion_rows(result, question)
    return {
        "question": question.asked or "What is in these series?",
        "recording": recording,
        "model": model,
        "stage": f"{stage.name}: {stage.title}" if stage else None,
        "medical": stage is not None and stage.medical,
        "method": config.method,
        "method_title": presets.get(config.method).title,
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "notes": [*notes, *result.notes],
        "prompt": [text for text in [*texts, question.post] if text],
        "rate": question.rate,
        "signals": [panel(one) for one in question.series],
        "columns": list(result.best.columns),
        "completions": completions,
        "finished": result.stats.rollouts,
        "headline": worded(result.headline, question.labels),
        "clear": result.answer is not None,
        "effective": result.effective_rationales,
        "calibrated": result.calibration is not None,
        "answers": answer_rows(result, question),
        "unanswered": result.unanswered,
        "tree": list_branches(result, tokenizer, {row["node"]: row["nodes"] for row in completions}),
        "spectra": compare_spectra(result, question),
        "root_value": result.root_value,
        "exhausted": result.exhausted,
        "stats": vars(result.stats),
        "settings": config.to_dict(),
        "versions": _versions(),
    }


def fill(data: dict[str, Any]) -> str:
    """The page with `data` in it. No text in the data can end the block that it stands in."""
    block = json.dumps(_plain(data), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        block = block.replace(character, f"\\u{ord(character):04x}")
    about = ", ".join(dict.fromkeys(one["name"] for one in data["signals"] if one["name"]))
    title = " - ".join(part for part in (data["question"], data["recording"] or about) if part)
    parts = {"title": html.escape(visible(title)), "data": block, "still": still(data)}
    template = resources.files("mlx_tslm.report").joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _plain(value: Any) -> Any:
    """Numbers that JSON can hold, six digits each; NaN and infinity as None; texts without hidden characters."""
    if isinstance(value, str):
        return visible(value)  # no mark of direction turns what stands beside it
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):  # NumPy's float64 too
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in ("mlx-tslm", "mlx", "mlx-lm", "numpy", "scipy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "mlx-tslm" not in found:
        import mlx_tslm

        found["mlx-tslm"] = mlx_tslm.__version__
    return {**found, "system": f"{platform.system()} {platform.machine()}"}
