"""A claim, an entry (all that is to be known of one kind of claim), and the ways to say it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlx_tslm.rewards.facts.signal import SignalFacts

Match = re.Match[str]
Stated = tuple[str, tuple[float, ...] | None]  # a claim's value and numbers


@dataclass(frozen=True)
class Claim:
    """One statement about the signal.

    Args:
        kind: what is claimed, the name of an entry: "trend", "period", "heart_rate", …
        value: the category ("up", "regular", "delta", …), or the unit of the numbers.
        numbers: one number, or the two ends of a range, ascending; None for a category.
        negated: whether the text denies it.
        span: where it stands in the text, (first character, one past the last); equality doesn't look at it.
    """

    kind: str
    value: str
    numbers: tuple[float, ...] | None = None
    negated: bool = False
    span: tuple[int, int] = field(default=(0, 0), compare=False)

    def __str__(self) -> str:
        """In a few words, such as "heart rate 60 to 100 per minute" or "no season"."""
        kind, value = self.kind.replace("_", " "), "" if self.value == "present" else self.value
        if self.numbers is not None:
            stated = " to ".join(f"{number:g}" for number in dict.fromkeys(self.numbers))
            plural = self.kind == "period" and self.numbers[-1] != 1
            value = f"{stated} {value}s" if plural else f"{stated} {value}"
        words = f"{kind} {value}".strip()
        return words if not self.negated else f"not: {words}" if value else f"no {words}"


@dataclass(frozen=True)
class Saying:
    """One way to say a claim.

    Args:
        pattern: a regular expression over the `lexicon`, matched inside a clause; letter case doesn't count. Its
            groups `a` and `b` are numbers. What it matches is used up, no other claim is read from it; where it has
            groups whose names begin with `said`, only those.
        value: the category, or the unit of the numbers; or a function of the match to value and numbers, None for
            no claim; or None for words that are no claim at all (of the recording: "sampled at 100 Hz").
        unless: a pattern that must be nowhere in the phrase around the match.
        whole: whether it speaks of the whole series: no claim beside words of a part ("at first") or of another
            thing ("the noise rises").
        denies: whether the words deny the value themselves ("aperiodic").
        only_denied: whether it is a claim only where it is denied ("no trend"; "trend" alone says nothing).
    """

    pattern: str
    value: str | Callable[[Match], Stated | None] | None = ""
    unless: str = ""
    whole: bool = False
    denies: bool = False
    only_denied: bool = False

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE)

    @cached_property
    def excluded(self) -> re.Pattern[str] | None:
        return re.compile(self.unless, re.IGNORECASE) if self.unless else None


@dataclass(frozen=True, eq=False)
class Entry:
    """One kind of claim: how it is said, what measures it, how close is close, and examples.

    Args:
        kind: its name.
        sayings: the ways to say it.
        measure: what the signal has: a function of the facts, called once a recording; None where the signal
            cannot tell.
        agrees: (claim, what was measured) → how far the claim holds, 0 … 1; None where it cannot be told. Denial is
            dealt with elsewhere.
        line: (claim, rate in Hz or None) → the frequencies that it may mean, cycles a sample; None for kinds that
            state none.
        possible: the least and the largest number that can be true of anything, in the claim's unit; a claim
            beyond them is wrong, whether or not the signal can tell.
        number_of: for a kind whose claims leave out a number that they could have stated ("it repeats"): the kind
            that states it ("every 12 samples").
        answers: final answers that are claims of this kind, lower case → value ("running" → "high").
        examples: sentence → the one claim of this kind that it makes.
        counterexamples: sentences that make no claim of this kind.
    """

    kind: str
    sayings: tuple[Saying, ...]
    measure: Callable[[SignalFacts], Any]
    agrees: Callable[[Claim, Any], float | None]
    line: Callable[[Claim, float | None], tuple[float, ...]] | None = None
    possible: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    number_of: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, Claim] = field(default_factory=dict)
    counterexamples: tuple[str, ...] = ()
