"""What was measured on one machine, as the tables and plots ask for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.suite.cost import Limits
from benchmarks.suite.decoding import BANDWIDTH, MATRIX_ROWS
from benchmarks.suite.measure import values
from benchmarks.suite.results import Results, Sample

TOPICS = ("conversion", "decoding", "search", "scaling", "stages", "torch")
Rounds = list[dict[str, Sample]]
"""Measured rounds of a case: for each, the samples by variant."""


def variants(rounds: Rounds) -> list[str]:
    """Their names, in the order they were measured."""
    return list(dict.fromkeys(name for one in rounds for name in one))


class Measurements:
    """All topics of one machine."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.topics = {topic: Results(folder / f"{topic}.jsonl") for topic in TOPICS}

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The machine at every session that measured something, oldest first."""
        sessions = {name: machine for found in self.topics.values() for name, machine in found.machines.items()}
        return [sessions[name] for name in sorted(sessions)]

    @property
    def blas(self) -> str:
        """The BLAS of the measurements, or the GPU."""
        last = self.machines[-1]
        return last["blas"] if last["device"] == "CPU" else last["device"]

    def cases(self, topic: str, name: str) -> list[tuple[Mapping[str, Any], Rounds]]:
        """(parameters, rounds) of all cases of that name."""
        found = self.topics[topic]
        return [(parameters, found.rounds(name, parameters)) for parameters in found.cases(name)]

    def limits(self) -> Limits | None:
        """The best this machine has shown; None where that was not measured."""
        bandwidths = [
            parameters["bytes"] / seconds
            for parameters, rounds in self.cases("decoding", "bandwidth")
            for variant in BANDWIDTH
            for seconds in values(rounds, variant)
        ]
        flops: dict[int, float] = {}
        for _, rounds in self.cases("decoding", "matmul"):
            for rows in MATRIX_ROWS:
                name = f"{rows} rows"
                rates = [one[name].values["flops"] / one[name].seconds for one in rounds]
                flops[rows] = max([*rates, flops.get(rows, 0.0)])
        return Limits(max(bandwidths), flops) if bandwidths and flops else None
