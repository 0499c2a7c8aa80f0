"""Read claims out of an answer's text: clauses, negation, scope, and which words are used up.

The reader is cautious: what speaks of a part of the signal only ("rises at first"), of something else ("the noise
increases"), of the recording ("sampled at 100 Hz"), asks, supposes or foretells is no claim. "No clear
seasonality", "not increasing" and "a trend is absent" are claims, negated. Of several claims that some words could
make, the one that is said with most words has them.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.lexicon import DOWN, UP, numbers

_NEGATOR = re.compile(
    r"\b(?:no(?! doubt| question| less| fewer| exception| wonder)|nothing(?! but)|none|not(?! only"
    r"| just| merely| least| simply)|non(?![- ]?rem)|without(?! (?:a |any )?(?:doubt|question"
    r"|exception|fail))|lacks?|lacking|absence|absent|neither|nor|never|cannot|can't|free (?:of"
    r"|from)|rather than|instead of|rules? out|excludes?|excluded|unlikely|hardly|barely|scarcely"
    r"|little (?:evidence|sign|indication|trace)|fail(?:s|ed)? to|devoid of|far from|not (?:just"
    r"|only|merely) a (?:little|bit|few|small|slight)|anything but|false|untrue|wrong)\b|n['’]t\b",
    re.IGNORECASE,
)
_AFFIRMED = re.compile(
    r"\b(?:cannot|can't|can not|could not|couldn't) be (?:denied|doubted|disputed|questioned|missed"
    r"|overlooked)\b|(?:\b(?:not|never|no)|n['’]t) (?:absent|lacking|missing|without|free of"
    r"|unlikely|lack of|false|wrong)\b|\b(?:wouldn't|would not) (?:deny|doubt)\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"\b(?:(?:cannot|can't|can not) be (?:ruled out|excluded|told|said)|may be asked|is (?:unclear"
    r"|unknown|uncertain))\b",
    re.IGNORECASE,
)
_SEEN = (
    r"(?:present|visible|observed|evident|clear|apparent|seen|found|detected|significant"
    r"|statistically significant|strong|pronounced|marked|notable|noticeable|substantial|real|there"
    r"|in evidence|confirmed|supported|discernible|detectable|obvious|recogni[sz]able|perceptible"
    r"|the case|made out|identified|identifiable|shown|true|meaningful|important|relevant"
    r"|worth mentioning|to speak of|much|great|any|large|happening|what we see|measurable|prominent"
    r"|convincing|exist\w*)\b"
)
_DENIED_AFTER = re.compile(
    rf"^(?:[\s-]+(?!and\b|with\b|that\b|which\b)\w+){{0,3}}?\s+(?:(?:is|are|was|were|appears?"
    r"|seems?)\s+(?:\w+ly\s+)?)?(?:absent|lacking|missing|ruled out|excluded|unlikely"
    r"|nowhere (?:to be (?:seen|found)|in sight)|nil|zero|none|plays? (?:no|hardly any) (?:role"
    r"|part)|non-?existent|negligible|insignificant|imperceptible|invisible|undetectable"
    rf"|(?:\w*n['’]t|not|cannot|can not|never|hardly|barely|scarcely)\s+(?:be\s+)?(?:\w+\s+)?{_SEEN})"
    r"|^\s*[:=–—-]\s*(?:none|no|absent|nil|not\b|n/a)\b",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:if|whether|would|will|suppose|forecast|predict\w*|expected to|unclear"
    r"|next (?:\w+ )?(?:values?|steps?|samples?|points?|days?|weeks?|months?|years?))\b",
    re.I,
)
_LOCAL = re.compile(
    r"\b(?:initial(?:ly)?|at first|beginning|start(?:s|ing|ed)?|then|before|after|afterwards"
    r"|followed by|until|towards?|finally|later|brief(?:ly)?|momentar\w+|temporar\w+|sudden(?:ly)?"
    r"|abrupt(?:ly)?|during|between|spikes?|turns?|midway|early|late|end|half|third|segment|section"
    r"|within each|in each|each time)\b",
    re.IGNORECASE,
)
_WHOLE = re.compile(
    r"\b(?:overall|general(?:ly)?|long[- ]term|throughout|entire|whole|from (?:the "
    r"|its )?(?:very )?(?:start|beginning|first|left)\b.*\b(?:to|end)|over time"
    r"|during the (?:recording|series|record|observation|measurement)|all the (?:time|way)"
    r"|from one end|start to (?:finish|end)|beginning to end)\b",
    re.IGNORECASE,
)
_OTHER_SUBJECT = re.compile(
    r"\b(?:noise|frequency|rates?|power|activity|intensity|baseline|intervals?|seasonality|cycles?"
    r"|peaks?|waves?|delta|theta|alpha|sigma|beta|risk|uncertainty|period|rhythm|beats?|pulse"
    r"|movements?|motion|confidence|cadence|gravity|axis|axes|periods|seasons?|tempo)\b",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(
    r"(?<=[.!?;])\s+|\n+|,?\s+\b(?:(?<!anything )(?<!nothing )but(?!\s+(?:then |later |it "
    rf"|afterwards )*(?:{UP}|{DOWN})\b)|however|whereas|while|although|though|yet)\b,?\s+",
    re.IGNORECASE,
)
_LONGEST_CLAUSE = 500  # characters: a model caught in a loop must not cost seconds to read
_LISTED = re.compile(r"\bn?or\b", re.IGNORECASE)
_AND = re.compile(r"\band\b|(?<!anything )\bbut\b|\bwith\b", re.IGNORECASE)
_JOINT = re.compile(r",|:(?=\s)|\band\b|(?<!anything )\bbut\b|\bwith\b|\bplus\b", re.IGNORECASE)


def read(text: str, entries: tuple[Entry, ...]) -> list[Claim]:
    """Every claim in a text, each once, in the order of the text."""
    claims: dict[Claim, None] = {}
    for start, clause in _clauses(text):
        for claim in _read_clause(clause, entries):
            span = (start + claim.span[0], start + claim.span[1])
            claims.setdefault(Claim(claim.kind, claim.value, claim.numbers, claim.negated, span))
    return list(claims)


def _clauses(text: str) -> Iterator[tuple[int, str]]:
    """Each clause with where it begins; what asks is none."""
    at = 0
    for separator in [*_SEPARATOR.finditer(text), None]:
        end = separator.start() if separator else len(text)
        clause = text[at:end]
        if clause.strip() and not clause.rstrip().endswith("?"):
            yield at, clause[:_LONGEST_CLAUSE]
        at = separator.end() if separator else end


@lru_cache(maxsize=16384)  # the answers of a search share most of theirs
def _read_clause(clause: str, entries: tuple[Entry, ...]) -> tuple[Claim, ...]:
    return tuple(sorted(_find(clause, entries), key=lambda claim: claim.span))


def _find(clause: str, entries: tuple[Entry, ...]) -> Iterator[Claim]:
    matches = [
        (entry.kind, saying, match)
        for entry in entries
        for saying in entry.sayings
        for match in saying.regex.finditer(clause)
        if match[0] and not (saying.excluded and saying.excluded.search(_phrase(match, clause)))
    ]
    matches.sort(key=lambda one: (one[2].start() - one[2].end(), one[2].start()))
    used: list[tuple[int, int]] = []
    for kind, saying, match in matches:
        spans = _words_of(match)
        if any(first < other_end and other < end for first, end in spans for other, other_end in used):
            continue
        stated = _stated(saying, match)
        denied = _denied(match, clause)
        if (stated is None and saying.value is not None) or (saying.only_denied and not denied):
            continue
        if saying.whole and _elsewhere(match, clause):
            continue
        used += spans
        if stated is not None and not _SUPPOSED.search(clause[: match.end()]) and not _UNDECIDED.search(clause):
            yield Claim(kind, *stated, denied != saying.denies, match.span())


def named(pattern: re.Pattern[str], text: str) -> Iterator[tuple[Match, bool, int]]:
    """Where a text says a name as a fact: the match in its clause, if it is denied, where the clause begins."""
    for start, clause in _clauses(text):
        for match in pattern.finditer(clause):
            if not _SUPPOSED.search(clause[: match.end()]) and not _UNDECIDED.search(clause):
                # A name may hold a "not" of its own: "sleep has not begun".
                yield match, not _NEGATOR.search(match[0]) and _denied(match, clause), start


def _words_of(match: Match) -> list[tuple[int, int]]:
    said = [match.span(name) for name in match.re.groupindex if name.startswith("said")]
    return [span for span in said if span[0] >= 0] or [match.span()]


def _stated(saying: Saying, match: Match) -> Stated | None:
    if saying.value is None:
        return None
    return saying.value(match) if callable(saying.value) else (saying.value, numbers(match))


def _phrase(match: Match, clause: str) -> str:
    """The match with what stands around it, up to the next comma, "and" or "with"."""
    before, after = _JOINT.split(clause[: match.start()])[-1], _JOINT.split(clause[match.end() :])[0]
    return before + match[0] + after


def _denied(match: Match, clause: str) -> bool:
    """Whether the match is denied: by itself, by words before it in its phrase, or by those after it."""
    before, after = clause[: match.start()], clause[match.end() :]
    if _AFFIRMED.search(" ".join(before.split()[-6:]) + " " + match[0] + after):
        return False
    listed = _LISTED.search(before.rpartition(",")[2] + match[0] + after)  # "no trend, noise or season"
    phrase = (_AND if listed else _JOINT).split(before)[-1]
    recent = " ".join([*phrase.split()[-6:], match[0]])
    return bool(_NEGATOR.search(recent) or _DENIED_AFTER.match(after))


def _elsewhere(match: Match, clause: str) -> bool:
    """Whether a match speaks of a part of the series, or of something else than the series."""
    if _LOCAL.search(f"{clause[: match.start()]} {clause[match.end() :]}") and not _WHOLE.search(clause):
        return True
    before = " ".join(_JOINT.split(clause[: match.start()])[-1].split()[-3:])
    rest = _JOINT.split(clause[match.end() :])[0].split()
    after = " ".join(rest[: 5 if rest[:1] in (["in"], ["of"]) else 2])
    return bool(_OTHER_SUBJECT.search(f"{before} {after}"))
