"""Topic `scaling`: seconds and memory of a whole search as one of its sizes grows."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from benchmarks.suite.measure import Case, Variant
from benchmarks.suite.search import searched
from benchmarks.suite.suites import Workbench

SWEEPS = ("rollouts", "width", "prompt", "depth")


def cases(bench: Workbench) -> Iterator[Case]:
    """One case a sweep; its variants are the sizes."""
    suite = bench.suite
    sizes: dict[str, Sequence[int]] = {
        "rollouts": suite.rollouts,
        "width": suite.widths,
        "prompt": suite.prompts,
        "depth": suite.depths,
    }
    rollouts, width, prompt, tokens = suite.sweep
    for sweep in SWEEPS:
        fixed = {"rollouts": rollouts, "width": width, "prompt": prompt, "depth": tokens}
        if sweep in ("prompt", "depth"):
            fixed["rollouts"] = width  # one wave
        del fixed[sweep]
        yield Case(
            f"scaling-{sweep}",
            {"shape": suite.shape.name, **fixed},
            [str(size) for size in sizes[sweep]],
            partial(_sweep, bench, sweep, fixed),
            suite.slow_rounds if sweep != "width" else 1,
            warmup=False,
        )


def _sweep(bench: Workbench, sweep: str, fixed: Mapping[str, int], names: frozenset[str]) -> Mapping[str, Variant]:
    def at(size: int) -> Variant:
        sizes = {**fixed, sweep: size}
        prompt = bench.prompt(sizes["prompt"])
        return searched(bench.model, prompt, sizes["rollouts"], sizes["width"], sizes["depth"])

    return {name: at(int(name)) for name in names}
