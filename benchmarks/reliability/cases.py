"""The registry: a case tries one promise, counts what it tried, and says what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Figure = int | float | str


@dataclass
class Run:
    """One case under way.

    Attributes:
        folder: the case's own, empty at first.
        short: whether a few tries are enough, for CI.
        figures: what was counted and measured, in the order in which the page shows it.
        faults: where the promise was broken, a line each.
    """

    folder: Path
    short: bool = False
    figures: dict[str, Figure] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def count(self, name: str, more: int = 1) -> None:
        """Add to a figure that counts."""
        self.figures[name] = int(self.figures.get(name, 0)) + more

    def check(self, holds: object, fault: str) -> bool:
        """Note a fault where something does not hold."""
        if not holds:
            self.faults.append(fault)
        return bool(holds)


@dataclass(frozen=True)
class Case:
    """A promise and the function that tries it.

    Attributes:
        name: of the case, as `--only` takes it.
        part: the heading it stands under, of `page.PARTS`.
        promise: in one sentence, as users may rely on it.
        function: tries it.
    """

    name: str
    part: str
    promise: str
    function: Callable[[Run], None]


CASES: dict[str, Case] = {}
"""All cases, by name, in the order of their modules."""


def case(part: str, promise: str) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a function as a case; its name is the function's, with hyphens."""

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        name = function.__name__.replace("_", "-")
        CASES[name] = Case(name, part, promise, function)
        return function

    return register
