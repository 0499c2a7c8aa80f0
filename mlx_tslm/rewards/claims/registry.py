"""The kinds of claims that are known, and what is done with any of them: read, check, state a line."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar

import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.rewards.claims import eeg, heart, level, movement, reader, series, sleep, spread
from mlx_tslm.rewards.claims.claim import Claim, Entry
from mlx_tslm.rewards.facts.signal import SignalFacts

P = ParamSpec("P")
T = TypeVar("T")

NARROW = 1.5  # a range whose ends differ by more than this factor is a band, not a line

_BUILT_IN = (series, spread, level, heart, movement, eeg, sleep)
ENTRIES: dict[str, Entry] = {entry.kind: entry for domain in _BUILT_IN for entry in domain.ENTRIES}
"""The entries by kind, to be read; `register` adds one."""

_caches: list[Any] = []


def remembered(function: "Callable[P, T]") -> "Callable[P, T]":
    """What a function of a text, or of a text and a question, returned, until another kind of claim is registered.

    Every allowed answer is put behind each rationale: what is read in one must not be read again for each of them.
    """
    cached = lru_cache(maxsize=512)(function)  # of questions no more: each holds its recording
    _caches.append(cached)
    return cached  # type: ignore[return-value]


def register(entry: Entry) -> None:
    """Add a kind of claim, or put it in the place of the one of its name.

    Raises:
        TSLMError: a pattern is no regular expression, or an example is read as something else than it says. Nothing
            is registered then.
    """
    for saying in entry.sayings:
        try:
            re.compile(saying.pattern)
            re.compile(saying.unless)
        except re.error as error:
            raise TSLMError(f"claim {entry.kind!r}: the pattern {saying.pattern!r} is none: {error}") from error
    known = tuple({**ENTRIES, entry.kind: entry}.values())
    expected = [(text, [claim]) for text, claim in entry.examples.items()]
    for text, claims in [*expected, *((text, []) for text in entry.counterexamples)]:
        found = [claim for claim in reader.read(text, known) if claim.kind == entry.kind]
        if found != claims:
            raise TSLMError(f"claim {entry.kind!r}: its example {text!r} is read as {found or 'nothing'}")
    ENTRIES[entry.kind] = entry
    for cached in _caches:
        cached.cache_clear()


def read(text: str) -> list[Claim]:
    """Every claim in a text, each once, in the order of the text."""
    return reader.read(text, tuple(ENTRIES.values()))


def check(claim: Claim, facts: SignalFacts) -> float | None:
    """How far a claim agrees with the signal, 0 … 1; None where the signal cannot tell.

    A size that nothing can have is wrong, measured or not. A denied number tells nothing: what a number is not is
    always easy to say.
    """
    entry = ENTRIES.get(claim.kind)
    if entry is None or not facts.series:
        return None
    return facts.judged(claim, entry, _agreement)


def _agreement(claim: Claim, entry: Entry, facts: SignalFacts) -> float | None:
    if claim.negated and claim.numbers is not None:
        return None
    if claim.numbers is not None and claim.value in entry.possible:
        least, most = entry.possible[claim.value]
        if claim.numbers[0] < least or claim.numbers[-1] > most:
            return 0.0
    measured = facts.measured(entry.measure)
    agreement = None if measured is None else entry.agrees(claim, measured)
    if agreement is None or not np.isfinite(agreement):
        return None
    return 1.0 - agreement if claim.negated else agreement


def cycles_per_sample(claim: Claim, rate: float | None) -> tuple[float, ...]:
    """The frequency that a claim states, in cycles a sample; several where the sampling interval is unknown.

    Without a rate Hz and bpm say nothing: ().
    """
    entry = ENTRIES.get(claim.kind)
    return entry.line(claim, rate) if entry is not None and entry.line is not None else ()


def is_line(claim: Claim) -> bool:
    """Whether a claim states one frequency: not denied, and no wider than `NARROW`."""
    entry = ENTRIES.get(claim.kind)
    if claim.negated or claim.numbers is None or entry is None or entry.line is None:
        return False
    return max(claim.numbers) <= NARROW * min(claim.numbers)


def implied(answer: str) -> list[Claim]:
    """What a final answer says of the signal without saying it: the claims of the entries that know it."""
    plain = answer.strip(" .").casefold().replace("_", " ")
    return [Claim(entry.kind, entry.answers[plain]) for entry in ENTRIES.values() if plain in entry.answers]
