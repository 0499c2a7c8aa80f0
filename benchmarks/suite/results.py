"""Raw results: JSON lines, one a sample, that only grow; a table is never made from anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlx_tslm.errors import TSLMError

SCHEMA = 1
"""Version of the lines."""


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        case: what was measured, e.g. "decode-step".
        parameters: its sizes, e.g. {"shape": "SmolLM2-135M", "prompt": 512, "rows": 32}.
        variant: which of the things that are compared.
        round: samples of one case and round were taken one after the other in one process, and are a pair.
        seconds: NaN where the variant was skipped.
        values: other numbers, e.g. bytes and forward passes.
        session: the run that took it, see `Results.machines`.
        warmup: a first call, which no table counts.
        skipped: why there is no measurement.
    """

    case: str
    parameters: Mapping[str, Any]
    variant: str
    round: int
    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)
    session: str = ""
    warmup: bool = False
    skipped: str | None = None


def key_of(case: str, parameters: Mapping[str, Any]) -> str:
    """What tells one case from another."""
    return case + json.dumps(parameters, sort_keys=True)


class Results:
    """One topic's samples on one machine: `MACHINE/TOPIC.jsonl`.

    Args:
        path: the file; it need not exist yet.

    Attributes:
        machines: for each session, the machine as it was (`machine.describe`).
        samples: all samples, in the order they were taken.

    Raises:
        TSLMError: the file is not one of results, or of another schema version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machines: dict[str, dict[str, Any]] = {}
        self.samples: list[Sample] = []
        self._whole = 0  # bytes of whole lines: a killed run may leave a part of one
        if path.exists():
            self._read(path.read_bytes())

    def start(self, session: str, machine: dict[str, Any]) -> None:
        """Open a session, under which samples are added; without any it leaves no trace."""
        self.machines[session] = machine

    def add(self, samples: Sequence[Sample]) -> None:
        """Append the samples of one round, together."""
        lines: list[dict[str, Any]] = []
        for session in {sample.session for sample in samples} - {sample.session for sample in self.samples}:
            machine = self.machines[session]
            lines.append({"schema": SCHEMA, "kind": "session", "session": session, "machine": machine})
        for sample in samples:
            line = {"schema": SCHEMA, "kind": "sample", **asdict(sample)}
            absent = {"seconds", "values"} if sample.skipped else {"skipped"}
            lines.append({name: value for name, value in line.items() if name not in absent})
        self._append(lines)
        self.samples += samples

    def rounds(self, case: str, parameters: Mapping[str, Any]) -> list[dict[str, Sample]]:
        """The measured rounds of a case: for each, the samples by variant. Warm-ups are left out."""
        wanted = key_of(case, parameters)
        rounds: dict[tuple[str, int], dict[str, Sample]] = {}
        for sample in self.samples:
            if not sample.warmup and key_of(sample.case, sample.parameters) == wanted:
                rounds.setdefault((sample.session, sample.round), {})[sample.variant] = sample
        return list(rounds.values())

    def cases(self, name: str) -> list[Mapping[str, Any]]:
        """The parameters of all cases of that name, in the order they were first measured."""
        measured = [one for one in self.samples if one.case == name and not one.warmup]
        found = {key_of(one.case, one.parameters): one.parameters for one in measured}
        return list(found.values())

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(self._whole)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(data)

    def _read(self, data: bytes) -> None:
        self._whole = data.rfind(b"\n") + 1
        for number, text in enumerate(data[: self._whole].splitlines(), 1):
            try:
                line = json.loads(text)
                schema, kind = line.pop("schema"), line.pop("kind")
            except (ValueError, KeyError, AttributeError):
                raise self._bad(number) from None
            if schema != SCHEMA:
                raise TSLMError(
                    f"{self.path}, line {number}: results of schema version {schema}, but this mlx-tslm reads "
                    f"version {SCHEMA}; move the file away and measure again"
                )
            try:
                if kind == "session":
                    self.machines[line["session"]] = line["machine"]
                else:
                    self.samples.append(Sample(**{"seconds": float("nan")} | line))
            except (TypeError, KeyError):
                raise self._bad(number) from None

    def _bad(self, number: int) -> TSLMError:
        return TSLMError(f"{self.path}, line {number}: not a benchmark result; repair it or move the file away")
