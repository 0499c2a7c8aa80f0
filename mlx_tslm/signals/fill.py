"""Filling in missing values, where a person asks for it."""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.source import Channel, Source

_LONGEST = 10


def fill(source: Source, way: str) -> Source:
    """Missing values filled in, with a note of how many.

    Args:
        way: `linear` (along the line between the neighbours) or `hold` (the last value before); with `=N`, gaps
            of up to N samples are filled, else of up to 10. A missing value at an end is held from the nearest one.

    Raises:
        TSLMError: no such way; a longer gap (says where and how long); nothing but missing values; a cell
            that holds something that is no number.
    """
    found = re.fullmatch(r"(linear|hold)(?:=(\d+))?", way)
    if found is None:
        raise TSLMError(f"--fill {way}: write linear or hold, with =N for gaps of up to N samples, as in linear=25")
    longest = int(found[2] or _LONGEST)
    channels, notes = [], []
    for channel in source.channels:
        missing = np.isnan(channel.values)
        if channel.faults:
            at = min(channel.faults)
            raise TSLMError(
                f"channel {channel.name!r} has {channel.faults[at]!r} at sample {at}, which is no gap to fill"
            )
        if not missing.any():
            channels.append(channel)
            continue
        values = _filled(channel, missing, found[1], longest)
        channels.append(replace(channel, values=values))
        count, total = int(missing.sum()), len(missing)
        notes.append(f"channel {channel.name!r}: {count} of {total} values were missing and filled in ({found[1]})")
    return replace(source, channels=channels, notes=(*source.notes, *notes))


def _filled(channel: Channel, missing: NDArray[np.bool_], way: str, longest: int) -> NDArray[np.float64]:
    if missing.all():
        raise TSLMError(f"channel {channel.name!r} holds nothing but missing values here")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    widest = int(lengths.argmax())
    if lengths[widest] > longest:
        raise TSLMError(
            f"channel {channel.name!r} lacks {lengths[widest]} values in a row from sample {starts[widest]}, more "
            f"than the {longest} that are filled; choose another part, or --fill {way}={lengths[widest]}"
        )
    good = np.flatnonzero(~missing)
    if way == "linear":
        return np.interp(np.arange(len(missing)), good, channel.values[good])
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(missing))))
    return channel.values[np.where(last < 0, good[0], last)]
