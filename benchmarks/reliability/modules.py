"""The modules whose cases there are, in the order in which they run. Those that fork come before MLX has worked."""

from importlib import import_module

MODULES = ("interruptions", "numbers", "long_runs")


def load() -> None:
    """Import them all, which registers their cases."""
    for name in MODULES:
        import_module(f"benchmarks.reliability.{name}")
