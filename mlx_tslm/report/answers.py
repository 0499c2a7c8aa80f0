"""Completions and final answers as the page lists them."""

from typing import TYPE_CHECKING, Any

from mlx_tslm.rewards import GroundingReward
from mlx_tslm.stages import worded

if TYPE_CHECKING:
    from mlx_tslm.rewards.claims import Claim
    from mlx_tslm.search import SearchResult
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
                "answer": one.answer and worded(one.answer, question.labels),
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
            row["claims"] = [[say(claim), agreement] for claim, agreement in grounding.check(one, question)]
    return listed


def answer_rows(result: "SearchResult", question: "Question") -> list[dict[str, Any]]:
    """The final answers by weight: text, weight, number of completions, highest reward."""
    rows: dict[str, dict[str, Any]] = {
        text: {"text": worded(text, question.labels), "weight": weight, "times": 0, "reward": -float("inf")}
        for text, weight in result.answers.items()
    }
    for one in result.completions:
        if one.answer is not None:
            row = rows[one.answer]
            row["times"] += 1
            row["reward"] = max(row["reward"], one.reward)
    return list(rows.values())


def say(claim: "Claim") -> str:
    """A claim in a few words, such as "heart rate 60 to 100 per minute"."""
    words = [claim.kind.replace("_", " ")]
    if claim.numbers is None:
        words.append(claim.value)
    else:
        words.append(" to ".join(f"{number:g}" for number in dict.fromkeys(claim.numbers)))
        plural = claim.kind == "period" and claim.numbers[-1] != 1
        words.append(f"{claim.value}s" if plural else claim.value)
    return ("not: " if claim.negated else "") + " ".join(word for word in words if word)
