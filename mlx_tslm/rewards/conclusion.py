"""What a final answer says of the signal, and whether it is what its rationale concluded.

A final answer from a closed set is read as what sets it apart from the others of that set. Where the list offers
bradycardia and tachycardia beside it, "sinus rhythm" means a rate between the two; where it doesn't, any rate. So
an answer's agreement is its own over that of the answer which the signal agrees with most.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from mlx_tslm.rewards.base import facts_of
from mlx_tslm.rewards.claims import ENTRIES, Claim, check, implied, named, read, remembered
from mlx_tslm.stages.answers import folded
from mlx_tslm.stages.base import Question, Stage

CONCLUSION = "conclusion"
"""The kind of claim, always wrong, that an answer makes which contradicts its own rationale."""

NAMED = "label"
"""The kind of claim that an answer makes of which no entry knows what it says of the signal."""

_UNKNOWN = 0.5  # what such an answer is worth where another that was allowed fits: both may be so
_FITS = 0.1  # what an answer's agreement has to be at least for others to be held against it


def judged_answer(answer: str, question: Question) -> list[tuple[Claim, float | None]]:
    """The claims of a final answer with their agreements: against those of the other allowed answers.

    "Yes" and "no" are claims of what was asked.
    """
    words = _words(question).get(folded(answer), answer)
    if folded(words) in ("yes", "no"):
        return [(claim, _asked_agrees(claim, question)) for claim in _asked(question, folded(words) == "no")]
    claims, best = _claims(words, question), _best(question)
    judged: list[tuple[Claim, float | None]] = []
    if not claims and best:
        kind = max(best, key=lambda one: best[one])
        return [(Claim(kind, folded(answer)), 1.0 - _UNKNOWN * best[kind])]
    if not claims and _words(question).keys() & {"yes", "no"}:  # "not sure"
        told = [claim for claim in _asked(question, False) if _asked_agrees(claim, question) is not None]
        return [(replace(claim, value=folded(answer)), _UNKNOWN) for claim in told]
    for claim in claims:
        agreement = check(claim, facts_of(question))
        rival = best.get(claim.kind, 0.0) if question.labels else _best_of(claim, question)
        judged.append((claim, agreement if agreement is None else _beside(agreement, rival)))
    return judged


def concluded(rationale: str, answer: str, question: Question) -> bool | None:
    """Whether a final answer is what its rationale concludes; None where that concludes nothing of its kind.

    The last word counts: of several names that are given and not denied, or of the denials of the one that counts.
    """
    words = _words(question).get(folded(answer), answer)
    no = folded(words) == "no"
    if no or folded(words) == "yes":
        said = [replace(claim, negated=claim.negated != no) for claim in _asked(question, no)]
        return _agrees(_told(rationale, question), said[0], no) if said else None
    known = _claims(words, question)
    if known and not ENTRIES[known[0].kind].answers:
        return None
    value, kind = (known[0].value, known[0].kind) if known else (folded(words), NAMED)
    told = [claim for claim in _told(rationale, question) if claim.kind in (kind, NAMED) or not known]
    told = [claim for claim in told if claim.kind == NAMED or ENTRIES[claim.kind].answers]
    named = [claim.value for claim in told if not claim.negated]
    if named:
        return named[-1] == value
    return False if any(claim.value == value for claim in told) else None


def _agrees(told: tuple[Claim, ...], asked: Claim, no: bool) -> bool | None:
    """Whether what is told agrees with a "no", or a "yes", to what was asked."""
    same = [claim for claim in told if (claim.kind, claim.value) == (asked.kind, asked.value)]
    if same:
        return (same[-1].negated != asked.negated) == no
    entry = ENTRIES[asked.kind]
    others = [claim for claim in told if claim.kind == asked.kind and not claim.negated]
    return no if others and entry.answers and not asked.negated else None


@remembered
def _told(rationale: str, question: Question) -> tuple[Claim, ...]:
    """What a rationale says, in its order."""
    return tuple(sorted((*mentions(rationale, question), *read(rationale)), key=lambda claim: claim.span))


@remembered
def mentions(text: str, question: Question) -> tuple[Claim, ...]:
    """The final answers that a text names, or concludes in the stage's own words, as claims; see `Stage.concludes`.

    Of names inside of each other the longest counts.
    """
    if question.stage is None:
        return ()
    found: list[Claim] = []
    for kind, value, pattern in (*_names(question.stage), *_unknown(question)):
        for match, negated, at in named(pattern, text):
            span = (at + match.start(), at + match.end())
            if not any(one.span[0] < span[1] and span[0] < one.span[1] for one in found):
                found.append(Claim(kind, value, None, negated, span))
    return tuple(sorted(found, key=lambda claim: claim.span))


@remembered
def _names(stage: Stage) -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """Kind, value, and what names it, the longest names first: of the entries whose claims the stage counts."""
    entries = [entry for entry in ENTRIES.values() if entry.answers and entry.kind in stage.claims]
    spelled = sorted(((name, entry) for entry in entries for name in entry.answers), key=lambda one: -len(one[0]))
    names = [
        (
            entry.kind,
            entry.answers[name],
            re.compile(rf"\b{re.escape(name)}\b".replace(r"\ ", "[ _]"), re.IGNORECASE),
        )
        for name, entry in spelled
    ]
    for label, words in stage.concludes.items():
        for claim in implied(label):
            names.append((claim.kind, claim.value, re.compile(words, re.IGNORECASE)))
    return tuple(names)


@remembered
def _unknown(question: Question) -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """The same for allowed answers of which no entry knows; short ones ("yes", "none") are words like any other."""
    words = {folded(one) for one in _words(question).values()}
    names = sorted((one for one in words if len(one) > 5 and not implied(one)), key=lambda one: -len(one))
    return tuple((NAMED, name, _naming(name)) for name in names)


def _naming(name: str) -> re.Pattern[str]:
    """What matches a name, its blanks written as underscores or not."""
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)".replace(r"\ ", "[ _]"), re.IGNORECASE)


def spelled_out(text: str, question: Question) -> str:
    """What the choice of an option says: "(b)" becomes the question's text for it, "12 samples" a season's."""
    asked = question.asked or question.pre
    option = re.fullmatch(r"\s*\(?([a-z])\)[\s.]*", text, re.IGNORECASE)
    if option:
        listed = re.search(rf"\({option[1]}\)\s*([^()]+)", asked, re.IGNORECASE)
        text = listed[1] if listed else text
    bare = re.sub(r"^\s*\([a-z]\)\s*", "", text, flags=re.IGNORECASE).strip(" .")
    if re.fullmatch(r"\d+ \w+", bare) and re.search(r"\b(?:season|period|cycle)", asked, re.IGNORECASE):
        return f"A season of {bare}."
    if bare.lower() in ("low", "moderate", "high") and re.search(r"\b(?:nois[ey]|volatil)", asked, re.IGNORECASE):
        return f"The noise is {bare}."
    return text


# --- what answers say ---
@lru_cache(maxsize=64)
def _words(question: Question) -> Mapping[str, str]:
    """Each allowed answer, folded, and its words: "(b)" → "an upward trend"."""
    labels = question.labels or ()
    told = labels if isinstance(labels, Mapping) else {label: label for label in labels}
    return {folded(one): words for label, words in told.items() for one in (label, words)}


@remembered
def _claims(words: str, question: Question) -> tuple[Claim, ...]:
    """What an answer says of the signal: as the stage says, as the entries know it, or in its words."""
    stage = question.stage
    told = stage.implies.get(folded(words)) if stage is not None else None
    if told:
        return (Claim(*told),)
    known = [claim for claim in implied(words) if stage is None or not stage.claims or claim.kind in stage.claims]
    return tuple(known or read(spelled_out(words, question)))


@remembered
def _best(question: Question) -> Mapping[str, float]:
    """Kind of claim → the highest agreement among the allowed answers that are claims of that kind."""
    best: dict[str, float] = {}
    for words in set(_words(question).values()):
        for claim in _claims(words, question):
            agreement = check(claim, facts_of(question))
            if agreement is not None:
                best[claim.kind] = max(agreement, best.get(claim.kind, 0.0))
    return best


def _best_of(claim: Claim, question: Question) -> float:
    """The highest agreement among all answers that the claim's entry knows."""
    return max([_agreement(one, question) for one in _known(claim)], default=0.0)


def _known(claim: Claim) -> list[Claim]:
    return [Claim(claim.kind, value) for value in dict.fromkeys(ENTRIES[claim.kind].answers.values())]


def _agreement(claim: Claim, question: Question) -> float:
    return check(claim, facts_of(question)) or 0.0


def _beside(agreement: float, best: float) -> float:
    return agreement / best if best >= max(agreement, _FITS) else agreement


# --- what is asked ---
_AUXILIARY = re.compile(r"^\s*(is|are|was|were|does|do|did|has|have|can|could)\s+(.+)$", re.IGNORECASE)
_SHOWN = re.compile(r"\b(?:symptoms?|signs?|evidence) of ([\w -]+)", re.IGNORECASE)


@remembered
def _asked(question: Question, no: bool) -> tuple[Claim, ...]:
    """What "yes" says where a question asks whether, or what "no" does."""
    for claims in _stated(question.asked.partition("?")[0]):
        if claims:
            return tuple(replace(claim, negated=claim.negated != no, span=(0, 0)) for claim in claims)
    return ()


def _stated(asked: str) -> Iterator[list[Claim]]:
    """What may be claimed where it is asked whether: "is this | flutter", "the rhythm | is | regular"."""
    shown, found = _SHOWN.search(asked), _AUXILIARY.match(asked)
    if shown:
        yield implied(shown[1])
        yield read(shown[1])
    if not found:
        return
    words = found[2].split()
    for first in range(len(words)):
        yield implied(" ".join(words[first:]))
    verb = [found[1]] if found[1].lower() in ("is", "are", "was", "were") else []
    for first in range(1, len(words)):
        yield read(" ".join([*words[:first], *verb, *words[first:]]) + ".")


def _asked_agrees(claim: Claim, question: Question) -> float | None:
    """A claim of what was asked: against all that its entry knows, as a "no" stands for any of the others."""
    agreement = check(replace(claim, negated=False), facts_of(question))
    if agreement is None:
        return None
    others = [_agreement(one, question) for one in _known(claim) if one.value != claim.value]
    if others and max(agreement, *others) >= _FITS:
        agreement = agreement / (agreement + max(others))
    return float(np.clip(1.0 - agreement if claim.negated else agreement, 0.0, 1.0))
