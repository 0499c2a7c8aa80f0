"""Completions and final answers as the page lists them."""

from typing import TYPE_CHECKING, Any

from mlx_tslm.rewards import GroundingReward
from mlx_tslm.stages import worded

if TYPE_CHECKING:
    from mlx_tslm.search import SearchResult
    from mlx_tslm.search.answers import Said
    from mlx_tslm.stages.base import Question

CHECKED = 200  # texts whose claims are listed; the others have small weights


def completion_rows(result: "SearchResult", question: "Question") -> list[dict[str, Any]]:
    """Each distinct text once, by weight: its weight in all, and what its best-rewarded completion has.

    `times` says how many completions have the text, `nodes` where they end; `claims` are the statements that can
    be checked against the signal, each with its agreement 0 … 1.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in sorted(result.completions, key=lambda one: (-one.reward, -one.logprob)):
        row = rows.setdefault(
            one.text,
            {
                "text": one.text,
                "answer": _words(one.said, question),
                "weight": 0.0,
                "reward": one.reward,
                "columns": [one.columns.get(name) for name in result.best.columns],
                "logprob": one.logprob,
                "tokens": len(one.tokens),
                "finished": one.finished,
                "times": 0,
                "node": one.node,
                "nodes": [],
                "best": one.text == result.best.text,
                "claims": [],
                "one": one,
            },
        )
        row["weight"] += one.weight
        row["times"] += 1
        row["nodes"] += [one.node] if one.node not in row["nodes"] else []
    listed = sorted(rows.values(), key=lambda row: -row["weight"])
    grounding = GroundingReward()
    for rank, row in enumerate(listed):
        one = row.pop("one")
        if rank < CHECKED or row["best"]:
            row["claims"] = [[str(claim), agreement] for claim, agreement in grounding.check(one, question)]
    return listed


def answer_rows(result: "SearchResult", question: "Question") -> list[dict[str, Any]]:
    """The allowed final answers by weight; of a caption, each claim with the weight of all that make it."""
    return [
        {
            "text": _words(one.best.said, question),
            "weight": one.weight,
            "confidence": one.confidence,
            "interval": one.interval,
            "times": one.completions,
            "reward": one.best.reward,
            "claims": list(one.claims.items()),
        }
        for one in result.ranked
    ]


def _words(said: "Said | None", question: "Question") -> str | None:
    return None if said is None else worded(", ".join(said), question.labels)
