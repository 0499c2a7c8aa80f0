"""How `generate` and `search` read recordings: the options for it, and the way from files to recordings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_tslm.cli.terminal import panel, status
from mlx_tslm.errors import TSLMError

if TYPE_CHECKING:
    from mlx_tslm.signals import How, Recording

_RECORDING = "Recording"
_DRAWN = 24  # channels; of more the rest is counted

Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        "--column",
        help="Channel or column to take. Repeatable. [default: all]",
        rich_help_panel=_RECORDING,
        metavar="NAME…",
    ),
]
Rate = Annotated[
    float | None, typer.Option("--rate", help="Resample to this rate, in Hz.", rich_help_panel=_RECORDING)
]
SourceRate = Annotated[
    float | None,
    typer.Option("--source-rate", help="Rate of a file that states none, in Hz.", rich_help_panel=_RECORDING),
]
Start = Annotated[
    float,
    typer.Option(
        "--start", help="Begin here, in seconds (in samples where the rate is unknown).", rich_help_panel=_RECORDING
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        help="Take this much, in seconds (in samples where the rate is unknown).",
        rich_help_panel=_RECORDING,
    ),
]
Case = Annotated[
    str | None,
    typer.Option(
        "--case", help="One of several series in a file, by its name or number.", rich_help_panel=_RECORDING
    ),
]
Fill = Annotated[
    str | None,
    typer.Option(
        "--fill",
        help="Fill missing values: linear or hold, with =N for gaps of up to N samples (10).",
        rich_help_panel=_RECORDING,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter", help="What parts a table's columns: a character, tab or blank.", rich_help_panel=_RECORDING
    ),
]
Decimal = Annotated[
    str | None, typer.Option("--decimal", help="A table's decimal mark, . or ,", rich_help_panel=_RECORDING)
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="The column of times; =ns, us, ms, s, min, h or d states its unit, =dmy or mdy the order of its "
        "dates. none: no column is.",
        metavar="NAME[=UNIT]",
        rich_help_panel=_RECORDING,
    ),
]
SkipLines = Annotated[
    int, typer.Option("--skip-lines", help="Leave out the first lines of a table.", rich_help_panel=_RECORDING)
]
MaxGb = Annotated[
    float, typer.Option("--max-gb", help="The most a compressed file may unpack to.", rich_help_panel=_RECORDING)
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a person said of how recordings are read; see `signals.read` and `signals.How`."""

    channel: Channels = None
    rate: Rate = None
    source_rate: SourceRate = None
    start: Start = 0.0
    seconds: Seconds = None
    case: Case = None
    fill: Fill = None
    delimiter: Delimiter = None
    decimal: Decimal = None
    time: Time = None
    skip_lines: SkipLines = 0
    max_gb: MaxGb = 1.0

    def read(self, file: Path) -> "Recording":
        """The part of a recording that was asked for, at the rate that was asked for.

        Raises:
            TSLMError: see `signals.read`; the file's own rate is not known, so it cannot be changed.
        """
        from mlx_tslm import signals

        recording = signals.read(
            file,
            self.channel or None,
            self.source_rate,
            start=self.start,
            seconds=self.seconds,
            fill=self.fill,
            how=self.how(),
        )
        if self.rate is None:
            return recording
        if recording.rate is None and recording.times is None:
            raise TSLMError(
                f"{file} does not state its sampling rate, so --rate cannot change it; add --source-rate HZ"
            )
        return signals.resample(recording, self.rate)

    def how(self) -> "How":
        """What a person said in the file's place."""
        from mlx_tslm.signals import How

        return How(self.case, self.delimiter, self.decimal, self.time, self.skip_lines, self.max_gb)

    def of_case(self, case: str | None) -> "Reading":
        """The same for one case of a file."""
        return self if case is None else replace(self, case=case)


def draw(recording: "Recording", file: Path) -> None:
    """Names, units, ranges and shapes of a recording's channels, on stderr."""
    from mlx_tslm.signals import sparkline

    samples = recording.values.shape[1]
    length = f"{samples} samples" + (
        f", {recording.seconds:g} s at {recording.rate:g} Hz" if recording.rate else ""
    )
    width = max(10, min(72, status.width - 4))
    height = 3 if len(recording.names) == 1 else 1
    lines = []
    channels = list(zip(recording.names, recording.units, recording.values, strict=True))
    for name, unit, values in channels[:_DRAWN]:
        lines.append(f"{name}{f' [{unit}]' if unit else ''}  {values.min():g} … {values.max():g}")
        lines.append(sparkline(values, width, height))
    if len(channels) > _DRAWN:
        lines.append(f"and {len(channels) - _DRAWN} more")
    status.print(panel("\n".join(lines), title=file.name, subtitle=length))
