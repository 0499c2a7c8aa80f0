"""The answers that a question allows by its wording, where a person gave none."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from mlx_tslm.stages.answers import bare, folded

_LONGEST = 6  # words of an answer that a question offers

_WHETHER = re.compile(
    r"(?:do|does|did|is|are|am|was|were|can|could|may|might|must|shall|should|will|would|has|have|had)(?:n['’]?t)?\b"
    r"|any\b|whether\b",
    re.IGNORECASE,
)
_WHICH = re.compile(r"(?:what|which|how|when|where|who|whom|whose|why)\b", re.IGNORECASE)
_REQUEST = re.compile(
    r"(?:please |kindly )*(?:(?:can|could|would|will|do) you (?:please )?)?(?:please )?"
    r"(?:tell|say|describe|explain|name|list|give|estimate|classify|decide|determine|summari[sz]e|know)"
    r"(?: me| us)?\b(?: if (?=\w))?",
    re.IGNORECASE,
)
_NOT_A_CHOICE = re.compile(
    r"\bor (?:not|no|so|even|rather)\b|\bmore or less\b|\bany\b"
    r"|\b(?:\d\S*|one|two|three|four|five) or (?:more|less|fewer|above|below|over|under|higher|lower|longer)\b",
    re.IGNORECASE,
)
_OF = re.compile(r"^.*\b(?:symptoms?|signs?|evidence) of ", re.IGNORECASE)
_VERB = re.compile(
    r"^.*\b(?:shows?|has|have|contains?|indicates?|suggests?|resembles?|means?|like) ", re.IGNORECASE
)
_SUBJECT = re.compile(r"^\w+(?:n['’]?t)? (?:this|that|it|these|those|they|there) ", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the) ", re.IGNORECASE)
_COMPARED = re.compile(r"(above|below|over|under|before|after)\b", re.IGNORECASE)
_FILLER = re.compile(r"^(?:(?:is|are|was|were|does|do|this|that|it|there|in|at|an?|the) )+", re.IGNORECASE)


class Assumed(NamedTuple):
    """The answers that a question was taken to allow, and what it was taken for, in words."""

    answers: tuple[str, ...]
    as_what: str


def choice(question: str, known: Iterable[str] = ()) -> tuple[str, ...] | None:
    """What "A or B?" offers, "A, B or C?" too; None where it asks something else.

    Args:
        known: answers that are looked for where it is not plain where A begins; they are given in this spelling.
    """
    asked = _last_sentence(question)
    if " or " not in asked.casefold() or _NOT_A_CHOICE.search(asked):
        return None
    if _WHICH.match(asked):
        _, found, asked = re.split(r"([,:])\s*", asked, maxsplit=1) if re.search("[,:]", asked) else ("", "", "")
        if not found:
            return None
    before, _, last = re.sub(r"\s+or\s+", " or ", asked, flags=re.IGNORECASE).rpartition(" or ")
    last = last.partition(",")[0]
    first, *others = re.split(r"\s*,\s*(?:or )?| or ", before.rstrip(", "))
    options = [_first(first, last, known) if _WHETHER.match(first) else first, *others, last]
    options = [_ARTICLE.sub("", bare(one)) for one in options]
    spelt = {folded(one): one for one in known}
    options = [spelt.get(folded(one), one) for one in options]
    fits = all(options) and max(len(one.split()) for one in options) <= _LONGEST
    return tuple(dict.fromkeys(options)) if fits and len({folded(one) for one in options}) > 1 else None


def whether(question: str) -> bool:
    """Whether a question asks whether: "Is it …?", "Does it …?", "Tell me whether …"."""
    asked = _last_sentence(question)
    clauses = [asked, *re.split(r",\s*", asked)[1:]]
    return not _WHICH.match(asked) and any(_WHETHER.match(clause) for clause in clauses)


def _last_sentence(question: str) -> str:
    """What is asked at the end, without what only makes it polite; "" where that is no question."""
    *_, last = re.split(r"(?<=[.?!])\s+", " ".join(question.split())) or [""]
    last = last.rstrip("?.! ")
    polite = _REQUEST.match(last)
    if polite is None:
        return last
    rest = ("whether " if polite[0].endswith("if ") else "") + last[polite.end() :].strip()
    return rest if _WHETHER.match(rest) or _WHICH.match(rest) else ""  # "describe it" asks for a text


def _first(text: str, last: str, known: Iterable[str]) -> str:
    """The first of two options, which stands at the end of a text that begins the question."""
    if (compared := _COMPARED.match(last)) and _COMPARED.fullmatch(text.split()[-1]):  # "above or below 60"
        return text.split()[-1] + last[compared.end() :]
    ending = [one for one in known if re.search(rf"(?<!\w){re.escape(folded(one))}$", folded(text))]
    if ending:
        return max(ending, key=len)
    for ahead in (_OF, _VERB, _SUBJECT):
        if (rest := ahead.sub("", text)) != text:
            return rest
    if _ARTICLE.match(last) and (article := re.search(r"^.*\b(an?|the) ", text, re.IGNORECASE)):
        return text[article.end() :]
    words = text.split()
    return _FILLER.sub("", " ".join(words[-len(_ARTICLE.sub("", last).split()) :]))
