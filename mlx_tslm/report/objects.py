"""A result where Python people meet it: a page, a notebook's cell, a figure, a frame."""

import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.report.page import fill, page_data
from mlx_tslm.report.still import still

if TYPE_CHECKING:
    from mlx_tslm.search import SearchResult


def page(result: "SearchResult") -> str:
    """The whole page; see `SearchResult.to_html`."""
    return fill(_data(result))


def fragment(result: "SearchResult") -> str:
    """What a notebook shows of a result: the page's parts that need no script."""
    if result.shown is None:  # loaded from a file, which has no question
        from html import escape

        return f"<pre>{escape(repr(result))}</pre>"
    return f"<div>{still(_data(result))}</div>"


def figure(result: "SearchResult") -> Any:
    """The series above, the answers' weights below, as a Matplotlib figure."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TSLMError("a picture needs Matplotlib: pip install matplotlib") from None
    data = _data(result)
    _show_in_notebooks()
    drawn = Figure(figsize=(8, 5), layout="constrained")
    above, below = drawn.subplots(2, 1)
    for one in data["signals"]:
        above.plot(one["at"], one["values"], "." if one["samples"] == 1 else "-", label=one["name"] or None)
    if any(one["name"] for one in data["signals"]):
        above.legend(loc="upper left", fontsize="small")
    above.set(
        title=data["question"], xlabel="samples", ylabel=data["signals"][0]["unit"] if data["signals"] else ""
    )
    rows = data["answers"][:6][::-1]
    below.barh([_short(row["text"] or "") for row in rows], [row["weight"] for row in rows])
    below.set(xlim=(0, 1), xlabel="share of the weight")
    return drawn


def picture(result: "SearchResult") -> bytes:
    """The figure as PNG.

    Raises:
        TSLMError: Matplotlib is not installed.
    """
    held = BytesIO()
    figure(result).savefig(held, format="png", dpi=150)
    return held.getvalue()


def _show_in_notebooks() -> None:
    """Let a notebook draw figures that pyplot does not know of."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and (shell := ipython.get_ipython()) is not None:
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"})


def frame(result: "SearchResult") -> Any:
    """A row a completion, the heaviest first."""
    try:
        import pandas as pd
    except ImportError:
        raise TSLMError("to_pandas() needs pandas: pip install pandas") from None
    rows = [
        {
            "text": one.text,
            "answer": one.answer,
            "weight": one.weight,
            "reward": one.reward,
            "logprob": one.logprob,
            "tokens": len(one.tokens),
            "finished": one.finished,
            **one.columns,
        }
        for one in sorted(result.completions, key=lambda one: -one.weight)
    ]
    return pd.DataFrame(rows)


def _data(result: "SearchResult") -> dict[str, Any]:
    if result.shown is None:
        raise TSLMError("a result that was loaded from a file does not hold its question; search again to show it")
    question, tokenizer, model = result.shown
    return page_data(result, question, tokenizer, model)


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
