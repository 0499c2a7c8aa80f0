"""Did the answer come, is it one of those allowed, and is it put as a person would put it?"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.rewards.base import Reward
from mlx_tslm.rewards.wording import wording
from mlx_tslm.stages.answers import folded
from mlx_tslm.stages.base import Question

TRAILING = 0.7  # what is left where more words follow the final answer


class FormatReward(Reward):
    """1 for one final answer from the allowed set behind a text that is well worded; see `wording`.

    0 for no answer, one outside the set, several that differ, or an unfinished one. Where the task has no set of
    answers, any non-empty one is allowed. Letter case and surrounding punctuation don't count.
    """

    name = "format"
    highest = 1.0

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        allowed = _allowed(question)
        return np.array([_score(completion, question, allowed) for completion in completions])


def _allowed(question: Question) -> set[str] | None:
    """The answers that count, folded; None where any does, as where letters are asked for but no options given."""
    labels = question.labels or ()
    if not labels or (not isinstance(labels, Mapping) and all(re.fullmatch(r"\([a-z]\)", one) for one in labels)):
        return None
    return {folded(label) for label in labels}


def _score(completion: Completion, question: Question, allowed: set[str] | None) -> float:
    answer = final_answer(completion, question)
    if not completion.finished or not answer or not re.search(r"\w", answer):
        return 0.0
    if allowed is not None and folded(answer) not in allowed:
        return 0.0
    rationale, answers = split(completion.text, question)
    said = {folded(one) for one in answers}
    if len(said) > 1:
        return 0.0
    more = completion.text.rpartition(answers[-1])[2] if answers else ""
    if allowed is not None and not answers:
        more = _besides(rationale, answer, question)
        if any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", more) for one in allowed - {folded(answer)}):
            return 0.0
    if (answers[-1] if answers else completion.text).rstrip().endswith("?"):
        return 0.0
    prompt = f"{question.pre} {question.post}"
    worded = wording(rationale, prompt if answers else "") * wording(answers[0] if answers else "")
    return worded * 0.8 ** (max(len(answers), 1) - 1) * (TRAILING if re.search(r"\w", more) else 1.0)


def _besides(text: str, answer: str, question: Question) -> str:
    """What a text without a marker says besides the answer that was read in it, folded: nothing, usually."""
    labels = question.labels
    words = labels.get(answer, "") if isinstance(labels, Mapping) else ""
    rest = text.casefold()
    for form in filter(None, (folded(words), folded(answer))):
        rest = rest.replace(form, " ", 1)
    return rest.removeprefix("this time series has")


def split(text: str, question: Question) -> tuple[str, list[str]]:
    """What stands before the first marker of a final answer, and what follows on the line of each.

    Without a marker the whole text is what stands before it.
    """
    marker = (question.stage.marker if question.stage is not None else None) or "Answer:"
    first, *marked = re.split(re.escape(marker), text, flags=re.IGNORECASE)
    lines = [one.strip().partition("\n")[0].strip() for one in marked]
    return first.strip(), [line for line in lines if line]


def final_answer(completion: Completion, question: Question) -> str | None:
    """The final answer: as given, else as the question reads it."""
    return completion.answer if completion.answer is not None else question.parse(completion.text)
