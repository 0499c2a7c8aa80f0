"""What a reader found in a file, before channels are chosen and a part is cut out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.recording import Recording, bounds, find_channel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class How:
    """What a person says about a file that does not say it itself.

    Attributes:
        case: one of several in a file, by its name or its number from 0.
        delimiter: what parts the columns of a table: a character, "tab" or "blank".
        decimal: the decimal mark of a table, "." or ",".
        time: the column of times, as `NAME` or `NAME=UNIT` (ns, us, ms, s, min, h, d; dmy or mdy for dates), or
            "none".
        skip_lines: lines above a table that are not looked at.
        max_gb: the most that arrays in a compressed file may unpack to, in GB.
    """

    case: str | int | None = None
    delimiter: str | None = None
    decimal: str | None = None
    time: str | None = None
    skip_lines: int = 0
    max_gb: float = 1.0

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise TSLMError(f"--decimal is . or , and not {self.decimal!r}")
        marks = {"tab": "\t", "\\t": "\t", "blank": " ", "space": " "}
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", marks.get(self.delimiter, self.delimiter))
            if len(self.delimiter) != 1:
                raise TSLMError(f"--delimiter is one character, tab or blank, not {self.delimiter!r}")
        if self.skip_lines < 0:
            raise TSLMError(f"--skip-lines must be 0 or more, not {self.skip_lines}")


class SeveralCases(TSLMError):
    """A file holds several series one after the other, and which one is meant was not said.

    Args:
        problem: why there are several.
        cases: their names, in the file's order.
    """

    def __init__(self, problem: str, cases: Sequence[str]) -> None:
        shown = ", ".join(cases[:6]) + (f", … {cases[-1]}" if len(cases) > 6 else "")
        super().__init__(f"{problem}; choose one of the {len(cases)} with --case: {shown}")
        self.problem, self.cases = problem, tuple(cases)


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel as a file holds it.

    Attributes:
        values: `[T]`, NaN where a value is missing.
        unit: "" where not known.
        rate: samples a second, or None.
        faults: what stands in a sample's place where it is no number.
        label: the name as the file spells it, unit included.
    """

    name: str
    values: Array
    unit: str = ""
    rate: float | None = None
    faults: dict[int, str] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """All channels of a file.

    Attributes:
        channels: those that are taken where a person chooses none.
        others: further columns of numbers (times, counters), which are taken where they are named.
        times: seconds of each sample from the first, where the steps are uneven.
        start: when the first sample was taken.
        rows: what to call each sample in a message (a line of a file), or None.
        notes: for a person.
        left_out: columns that hold no numbers, and what they hold.
        group: chosen in place of its channels: an array's name, with the names of its rows.
    """

    channels: Sequence[Channel]
    others: Sequence[Channel] = ()
    times: Array | None = None
    start: datetime | None = None
    rows: Sequence[int] | None = None
    notes: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Sequence[str]] = field(default_factory=dict)

    def select(self, chosen: Sequence[str | int] | None) -> "Source":
        """These channels, each by its name or its number from 0, in this order.

        Raises:
            TSLMError: there is no such channel, it holds no numbers, or it was given twice.
        """
        if chosen is None:
            return self
        names = [channel.name for channel in self.channels]
        picked: list[Channel] = []
        for one in chosen:
            if isinstance(one, str) and one in self.groups and one not in names:
                picked += [self.channels[names.index(name)] for name in self.groups[one]]
                continue
            picked.append(self._find(one, names))
        if not picked:
            raise TSLMError("no channel was chosen")
        for at, channel in enumerate(picked):
            if any(channel is other for other in picked[:at]):
                raise TSLMError(f"channel {channel.name!r} was given twice")
        return replace(self, channels=picked)

    def _find(self, one: str | int, names: list[str]) -> Channel:
        if isinstance(one, str) and names.count(one) == 0:
            wanted = one.strip().casefold()
            for channel in self.channels:
                if channel.label.casefold() == wanted:
                    return channel
            for channel in self.others:
                if wanted in (channel.label.casefold(), channel.name.casefold()):
                    return channel
            if one in self.left_out:
                raise TSLMError(f"column {one!r} cannot be a channel: it holds {self.left_out[one]}")
        return self.channels[find_channel(one, names)]


def cut(source: Source, start: float, seconds: float | None) -> Source:
    """The part of a source, see `recording.window`."""
    rate = source.channels[0].rate
    total = len(source.channels[0].values)
    first, last = bounds(total, rate, source.times, start, seconds)
    if (first, last) == (0, total):
        return source
    part = slice(first, last)
    channels = [
        replace(
            channel,
            values=channel.values[part],
            faults={at - first: text for at, text in channel.faults.items() if first <= at < last},
        )
        for channel in source.channels
    ]
    ahead = first / rate if rate else None if source.times is None else float(source.times[first])
    return replace(
        source,
        channels=channels,
        times=None if source.times is None else source.times[part] - source.times[first],
        start=source.start + timedelta(seconds=ahead) if source.start and ahead is not None else None,
        rows=None if source.rows is None else source.rows[part],
    )


def finish(source: Source) -> Recording:
    """The recording, if its channels fit together and no value is missing.

    Raises:
        TSLMError: the channels' rates or lengths differ; a value is missing, infinite or no number (says where).
    """
    for channel in source.channels:
        bad = np.flatnonzero(~np.isfinite(channel.values))
        if not len(bad):
            continue
        at = int(bad[0])
        where = f"row {source.rows[at]}, column" if source.rows is not None else f"sample {at} of channel"
        if at in channel.faults:
            fault = f"is {channel.faults[at]!r}, not a number"
        elif np.isinf(channel.values[at]):
            fault = f"is '{channel.values[at]}', not a finite number"
        else:
            fault = "is missing"
        raise TSLMError(
            f"{where} {channel.name!r} {fault}, as {len(bad)} of {len(channel.values)} values are; cut them out "
            "with --start and --seconds, or fill them with --fill linear or --fill hold"
        )
    return Recording(
        [channel.values for channel in source.channels],
        [channel.name for channel in source.channels],
        source.channels[0].rate,
        [channel.unit for channel in source.channels],
        source.notes + tuple(_coarse(channel) for channel in source.channels if _coarse(channel)),
        source.start,
        source.times,
    )


def one_rate(source: Source) -> Source:
    """The source, if its channels have one rate and one length.

    Raises:
        TSLMError: they differ (lists them).
    """
    rates = {channel.rate for channel in source.channels}
    if len(rates) > 1:
        listed = ", ".join(
            f"{channel.name} {channel.rate:g} Hz" if channel.rate else channel.name for channel in source.channels
        )
        raise TSLMError(f"the channels have different rates ({listed}); choose some of one rate")
    if len({len(channel.values) for channel in source.channels}) > 1:
        listed = ", ".join(f"{channel.name}: {len(channel.values)}" for channel in source.channels)
        raise TSLMError(f"the channels have different lengths ({listed}); choose some")
    return source


def _coarse(channel: Channel) -> str:
    """A note where numbers are too large for what changes in them to be kept."""
    values = channel.values
    span = float(np.ptp(values))
    grain = float(np.spacing(np.abs(values).max()))
    if grain > 1e-3 * span and np.abs(values).max() > 2**52:
        return f"channel {channel.name!r}: its numbers are so large that changes below {grain:g} are lost"
    return ""
