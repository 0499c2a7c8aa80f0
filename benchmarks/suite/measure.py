"""How things are measured: in turns, warm-up apart, and compared within a round."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from rich.filesize import decimal

from benchmarks.suite.results import Results, Sample
from mlx_tslm.system import memory

_HEADROOM = 0.8
"""Share of the free memory that a variant may need."""


@dataclass(frozen=True)
class Measured:
    """Seconds of one call, and whatever else it tells."""

    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)


Variant = Callable[[], Measured]


@dataclass(frozen=True)
class Case:
    """Things that are compared with each other, or one thing alone.

    Args:
        name: of the case.
        parameters: its sizes.
        variants: names of what is compared; of another program as "program: …".
        build: from the names that can run to the calls; it does what must not be timed.
        rounds: how often each is measured.
        needs: bytes a variant takes, where that may be more than a machine has.
        warmup: whether each is called once before it counts.
    """

    name: str
    parameters: Mapping[str, Any]
    variants: Sequence[str]
    build: Callable[[frozenset[str]], Mapping[str, Variant]]
    rounds: int
    needs: Mapping[str, int] = field(default_factory=dict)
    warmup: bool = True


def timed(call: Callable[[], Any]) -> Measured:
    """Call once; with MLX's peak memory, and how much of it was not there before (`added_memory`), in bytes."""
    gc.collect()  # what an earlier call has left must not be freed while this one is measured
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    started = time.perf_counter()
    call()
    seconds = time.perf_counter() - started
    peak = mx.get_peak_memory()
    return Measured(seconds, {"peak_memory": peak, "added_memory": max(0, peak - before)})


def run_case(case: Case, results: Results, session: str, report: Callable[[str], None] = lambda _: None) -> None:
    """Take the samples of a case that `results` does not have yet: A B A B, a round at a time."""
    complete = [one for one in results.rounds(case.name, case.parameters) if one.keys() >= set(case.variants)]
    missing = range(len(complete), case.rounds)
    if not missing:
        return
    free = memory.free()
    skipped = {
        name: f"needs {decimal(case.needs[name])} and {decimal(free)} are free"
        for name in case.variants
        if case.needs.get(name, 0) > _HEADROOM * free
    }
    report(f"{case.name} {' '.join(f'{key}={value}' for key, value in case.parameters.items())}")
    calls = case.build(frozenset(case.variants) - skipped.keys()) if len(skipped) < len(case.variants) else {}

    def sample(name: str, number: int, warmup: bool) -> Sample:
        measured = Measured(float("nan")) if name in skipped else calls[name]()
        return Sample(
            case.name,
            case.parameters,
            name,
            number,
            measured.seconds,
            measured.values,
            session,
            warmup,
            skipped.get(name),
        )

    if case.warmup:
        results.add([sample(name, 0, True) for name in case.variants if name not in skipped])
    for number in missing:
        results.add([sample(name, number, False) for name in case.variants])


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Raises ValueError where there are none."""
        return cls(statistics.median(numbers), min(numbers), max(numbers), len(numbers))


def values(rounds: Sequence[Mapping[str, Sample]], variant: str, name: str = "seconds") -> list[float]:
    """A variant's seconds (or another of its values), a number a round; skipped rounds are left out."""
    found = [one[variant] for one in rounds if variant in one and not one[variant].skipped]
    return [one.seconds if name == "seconds" else one.values[name] for one in found]


def ratio(rounds: Sequence[Mapping[str, Sample]], over: str, under: str, name: str = "seconds") -> Spread | None:
    """`over` divided by `under` within each round; None where no round has both."""
    both = [one for one in rounds if over in one and under in one and not (one[over].skipped or one[under].skipped)]
    pairs = zip(values(both, over, name), values(both, under, name), strict=True)
    ratios = [above / below for above, below in pairs]
    return Spread.of(ratios) if ratios else None
