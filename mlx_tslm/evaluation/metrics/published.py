"""How the published evaluation of OpenTSLM reads and counts answers, for comparison with its scores only.

Read from its `evaluation/opentslm` scripts, and for stage 1's accuracy from its `curriculum_learning.py`. It
differs from `stage.parse` and the plain metrics in this:

- an answer begins after the last "Answer: ", with the blank; where that is missing, the whole text is the answer;
- stage 1: accuracy counts an answer as right where the reference begins with it, so an empty one is always right;
  for F1 the first three characters are compared;
- stage 3: accuracy compares to the letter, a trailing period included, F1 without regard to case and punctuation;
- stage 4: sleep stages are recognised by words they contain ("non-rem sleep" becomes REM sleep), and non-REM
  stage 4 is stage 3;
- an answer that is no label is a miss for the right class, but a false positive for none;
- stages 3 and 5: labels that no sample has count in the average as F1 = 0.
"""

import re
from collections.abc import Sequence

from mlx_tslm.evaluation.metrics.judged import Judged

OCCURRING = ("tsqa", "sleep")
"""Rules whose macro-F1 averages over the labels that samples have; the others average over all."""

_PUNCTUATION = ".,!?;:"
_END_TOKENS = re.compile(r"<\|.*?\|>|<eos>$")


def read(rules: str, text: str) -> str:
    """The answer in a text, as F1 compares it.

    Args:
        rules: a stage's `published`: "tsqa", "har", "sleep" or "ecg".
        text: an answer or a reference, whole.
    """
    if rules == "tsqa":
        return _folded(text.strip()[:3])
    answer = _after_last_answer(text)
    return _sleep_stage(answer) if rules == "sleep" else _folded(answer)


def correct(rules: str, one: Judged) -> bool:
    """Whether the published accuracy counts the answer as right."""
    if rules == "tsqa":
        return one.reference.strip().startswith(one.text.strip())
    if rules == "har":
        answer, gold = (_after_last_answer(text, period=False) for text in (one.text, one.reference))
        return answer.replace("<eos>", "") == gold.replace("<eos>", "")
    gold = read(rules, one.reference)
    return read(rules, one.text) == gold and (rules != "ecg" or gold in classes(rules, [one]))


def classes(rules: str, judged: Sequence[Judged]) -> list[str]:
    """The classes that the published macro-F1 averages over, spelt as `read` does."""
    if rules in OCCURRING:
        return sorted({read(rules, one.reference) for one in judged})
    return [label.lower().strip() for label in judged[0].labels or ()]


def _after_last_answer(text: str, period: bool = True) -> str:
    if "Answer: " not in text:
        return text
    answer = _END_TOKENS.sub("", text.rpartition("Answer: ")[2].strip()).strip()
    return answer.removesuffix(".").strip() if period else answer


def _folded(text: str) -> str:
    return text.lower().strip().rstrip(_PUNCTUATION)


def _sleep_stage(text: str) -> str:
    text = _END_TOKENS.sub("", text.strip()).strip().removesuffix(".").strip().lower()
    if "non-rem" in text or "nrem" in text:
        text = text.replace("nrem", "non-rem").replace("non rem", "non-rem")
        for number in "4321":
            if f"stage {number}" in text:
                return f"non-rem stage {min(number, '3')}"
    if "rem" in text and "sleep" in text:
        return "rem sleep"
    if text in ("wake", "awake"):
        return "wake"
    if "movement" in text or text in ("mov", "mt"):
        return "movement"
    return text
