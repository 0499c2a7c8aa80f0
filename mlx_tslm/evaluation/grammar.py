"""What an answer of the synthetic curriculum may be: a final answer of its stage, in its stage's own words."""

import re
from typing import Any

from mlx_tslm import data
from mlx_tslm.data.synthetic.ecg import RHYTHMS
from mlx_tslm.evaluation.captions import read_caption
from mlx_tslm.stages import Labels, Stage

_WORD = re.compile(r"[^\W\d_]+")
_RATE = re.compile(r"\d{2,3} bpm")


def accepted(stage: Stage, text: str, labels: Labels | None, references: set[str]) -> bool:
    """Whether a parser finds an answer that the stage gives: of `labels`, or one that its `references` gave.

    A caption has to say something of trend, season and noise; a heart rate has to be one.
    """
    if "captions" in stage.metrics:
        claims = read_caption(text)
        return None not in (claims.direction, claims.period, claims.noise)
    said = stage.parse(text, labels)
    if said is None:
        return False
    if stage.key == "ecg" and not labels:
        return said in ("yes", "no", *RHYTHMS) or _RATE.fullmatch(said) is not None
    return said in (labels or ()) or said in references


def words(text: str) -> set[str]:
    """The words of a text, without its numbers."""
    return set(_WORD.findall(text))


def references(stage: Stage, size: int = 1500) -> tuple[set[str], set[str]]:
    """The final answers that a stage's training gave, and all words of them, from so many rows of each kind."""
    answers: set[str] = set()
    vocabulary: set[str] = set()
    for source in ("synthetic", "realistic"):
        drawn: dict[str, Any] = {"source": source, "size": size}
        for row in data.load(stage.name, "train", **drawn):
            reference = row[stage.answer_column]
            vocabulary |= words(reference)
            answers.add(stage.parse(reference, ()) or "")
    return answers, vocabulary
