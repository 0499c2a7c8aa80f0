"""The final answer in a model's text, and which of the allowed ones it is."""

import re
from collections.abc import Mapping, Sequence

Labels = Sequence[str] | Mapping[str, str]
"""Allowed final answers. A mapping also says what each stands for, and those words are read as the same answer."""

_SPECIAL_TOKEN = re.compile(r"<\|[^<>|]*\|>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>")
_DECORATION = " \t*_`\"'“”‘’"


def final_answer(text: str, marker: str | None, labels: Labels, synonyms: Mapping[str, str]) -> str | None:
    """What stands after the last marker that anything follows; see `Stage.parse`.

    Args:
        marker: "Answer:"; None where the whole text is the answer, though one may stand in it.
        labels: the allowed answers.
        synonyms: other spellings in lower case, and the label each means.
    """
    first, *marked = re.split(re.escape(marker or "Answer:"), _SPECIAL_TOKEN.sub("", text), flags=re.IGNORECASE)
    said = [answer for one in marked if (answer := bare(one.strip(_DECORATION + "\n").partition("\n")[0]))]
    answer = said[-1] if said else "" if marked else bare(first)
    wanted = answer.casefold()
    for label in labels:
        if wanted in (folded(label), *([folded(labels[label])] if isinstance(labels, Mapping) else ())):
            return label
    if wanted in synonyms:
        return synonyms[wanted]
    return (answer or None) if marked or marker is None else None


def bare(answer: str) -> str:
    """An answer without what people and models put around it: `**walking**!` is walking."""
    return answer.strip(_DECORATION + "\n").rstrip(".,;:!?").strip(_DECORATION + "\n")


def folded(answer: str) -> str:
    """An answer as it is compared: bare, in lower case."""
    return bare(answer).casefold()


def worded(answer: str, labels: Labels | None) -> str:
    """An answer for people: with what it stands for, "(b) an upward trend", where the labels say it."""
    return f"{answer} {labels[answer]}" if isinstance(labels, Mapping) and answer in labels else answer
