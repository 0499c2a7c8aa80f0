"""A recording: channels sampled together. Choosing channels, cutting in time, changing the sampling rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.series import check_series


@dataclass(frozen=True, eq=False)
class Recording:
    """Channels that were sampled together, as they were recorded.

    Attributes:
        values: float64 `[channels, T]`, finite; one-dimensional input is one channel.
        names: one a channel; "0", "1", ... where the source has none.
        rate: samples a second (Hz), or None where it is not known.
        units: one a channel; "" where not known.
        notes: what a person should know about how it was read (a date column that was left out, ...).
        start: when the first sample was taken, without a zone; None where not known.
        times: float64 `[T]`, seconds from the first sample, where the steps are uneven (there is no rate then);
            None where they are even, or not known.

    Raises:
        TSLMError: no samples, not numeric, NaN or infinite (says which channel and sample), a rate that
            is not positive.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    rate: float | None
    units: tuple[str, ...]
    notes: tuple[str, ...]
    start: datetime | None
    times: NDArray[np.float64] | None

    def __init__(
        self,
        values: ArrayLike,
        names: Sequence[str] = (),
        rate: float | None = None,
        units: Sequence[str] = (),
        notes: Sequence[str] = (),
        start: datetime | None = None,
        times: NDArray[np.float64] | None = None,
    ) -> None:
        rows = _rows(values)
        names = tuple(names) or tuple(str(index) for index in range(len(rows)))
        if len(names) != len(rows):
            raise TSLMError(f"{len(names)} channel names were given for {len(rows)} channels")
        checked = [check_series(row, f"channel {name!r}") for row, name in zip(rows, names, strict=True)]
        object.__setattr__(self, "values", np.stack(checked))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "rate", None if rate is None else check_rate(rate))
        object.__setattr__(self, "units", tuple(units) or ("",) * len(rows))
        object.__setattr__(self, "notes", tuple(notes))
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "times", times)

    def __repr__(self) -> str:
        rate = f" at {self.rate:g} Hz" if self.rate else ""
        names = ", ".join(self.names[:12]) + (", …" if len(self.names) > 12 else "")
        return f"<Recording {names}: {self.values.shape[1]} samples{rate}>"

    @property
    def seconds(self) -> float | None:
        """The recording's length in seconds, or None where the rate is not known."""
        return None if self.rate is None else self.values.shape[1] / self.rate

    def summary(self) -> dict[str, Any]:
        """What was read, for a program to check: names, units, rate, samples, start, first values and notes."""
        return {
            "names": list(self.names),
            "units": list(self.units),
            "rate": self.rate,
            "samples": self.values.shape[1],
            "seconds": self.seconds,
            "start": None if self.start is None else self.start.isoformat(),
            "first": self.values[:, :5].tolist(),
            "notes": list(self.notes),
        }

    def select(self, channels: Sequence[str | int]) -> "Recording":
        """These channels, in this order, each by its name or by its number from 0.

        A text that is a channel's name is taken as the name, one that is a number as the number; names
        match without regard to case where that is unambiguous.

        Raises:
            TSLMError: no such channel (lists the names).
        """
        where = [find_channel(channel, self.names) for channel in channels]
        if not where:
            raise TSLMError("no channel was chosen")
        return replace(
            self,
            values=self.values[where],
            names=tuple(self.names[index] for index in where),
            units=tuple(self.units[index] for index in where),
        )


def resample(recording: Recording, rate: float) -> Recording:
    """The recording at another sampling rate.

    A zero-phase FIR low-pass (`scipy.signal.resample_poly`, Kaiser window) keeps what the new rate cannot
    hold from folding back; the ends are extended along the line between first and last sample, so an offset
    makes no step there. The ratio of the rates is taken as the nearest fraction with a denominator up to
    10,000. `ceil(T * rate / recording.rate)` samples come out. Where the steps are uneven, values between two
    samples are interpolated linearly, without a low-pass, and a note says what was bridged.

    Args:
        rate: samples a second, > 0.

    Raises:
        TSLMError: a rate that is not positive, or a recording whose own rate is not known.
    """
    check_rate(rate)
    if recording.rate is None and recording.times is not None:
        return _even(recording, recording.times, rate)
    if recording.rate is None:
        raise TSLMError(f"cannot resample to {rate:g} Hz: the recording's own sampling rate is not known")
    length = recording.values.shape[1]
    _refuse_many(length * (rate / recording.rate), length, length / recording.rate, rate)
    ratio = Fraction(rate / recording.rate).limit_denominator(10_000)
    if ratio == 1:
        return recording
    if ratio == 0:
        raise TSLMError(f"cannot resample from {recording.rate:g} to {rate:g} Hz: the rates are too far apart")
    from scipy.signal import resample_poly

    # About the mean: the filter's gain differs by 4e-4 between its phases, which an offset would turn into ripple.
    mean = recording.values.mean(axis=1, keepdims=True)
    values = resample_poly(recording.values - mean, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return replace(recording, values=values + mean, rate=float(rate))


def _even(recording: Recording, times: NDArray[np.float64], rate: float) -> Recording:
    """A recording with uneven steps at an even rate, by linear interpolation."""
    _refuse_many(times[-1] * rate, len(times), times[-1], rate)
    count = int(times[-1] * rate + 1e-6) + 1
    at = np.arange(count) / rate
    values = [np.interp(at, times, row) for row in recording.values]
    widest = float(np.diff(times).max()) if len(times) > 1 else 0.0
    note = f"interpolated linearly to {rate:g} Hz; the widest gap that was bridged is {widest:.6g} s"
    return replace(recording, values=np.stack(values), rate=float(rate), times=None, notes=(*recording.notes, note))


def _refuse_many(count: float, length: int, seconds: float, rate: float) -> None:
    """Refuse a rate at which so many samples would be made up that it is a slip."""
    if not count <= 100 * length + 1000:
        raise TSLMError(
            f"at {rate:g} Hz the {seconds:g} s of {length} samples would become {count:.3g}; choose a lower --rate"
        )


def window(recording: Recording, start: float = 0.0, seconds: float | None = None) -> Recording:
    """A part of the recording.

    Args:
        start: where it begins, in seconds; **in samples where neither rate nor times are known**.
        seconds: how long it is, in the same unit; None takes all that is left. Both are rounded to whole
            samples.

    Raises:
        TSLMError: the part is empty, begins before the recording or reaches beyond its end (says how long
            the recording is).
    """
    first, last = bounds(recording.values.shape[1], recording.rate, recording.times, start, seconds)
    times = recording.times
    ahead = first / recording.rate if recording.rate else None if times is None else float(times[first])
    return replace(
        recording,
        values=recording.values[:, first:last],
        times=None if times is None else times[first:last] - times[first],
        start=recording.start + timedelta(seconds=ahead) if recording.start and ahead is not None else None,
    )


def bounds(
    total: int, rate: float | None, times: NDArray[np.float64] | None, start: float, seconds: float | None
) -> tuple[int, int]:
    """The first sample of a part and the one behind its last, see `window`."""
    if rate is None and times is not None:
        return _uneven_bounds(times, start, seconds)
    scale, unit = (1.0, "samples") if rate is None else (rate, "s")
    length = f"the recording has {total / scale:g} {unit}"
    if not math.isfinite(start) or start < 0:
        raise TSLMError(f"the window's start must be 0 or more {unit}, not {start:g}")
    first = round(start * scale)
    if first >= total:
        raise TSLMError(f"the window starts at {start:g} {unit}, but {length}")
    if seconds is None:
        last = total
    elif not math.isfinite(seconds) or round(seconds * scale) < 1:
        raise TSLMError(f"the window must be at least one sample long, not {seconds:g} {unit}")
    else:
        last = first + round(seconds * scale)
    if last > total:
        raise TSLMError(f"the window ends at {last / scale:g} {unit}, but {length}; choose a shorter one")
    return first, last


def _uneven_bounds(times: NDArray[np.float64], start: float, seconds: float | None) -> tuple[int, int]:
    if not math.isfinite(start) or start < 0:
        raise TSLMError(f"the window's start must be 0 or more s, not {start:g}")
    end = math.inf if seconds is None else start + seconds
    length = f"the recording has {times[-1]:g} s"
    if start > times[-1]:
        raise TSLMError(f"the window starts at {start:g} s, but {length}")
    if seconds is not None and end > times[-1] + float(np.median(np.diff(times))) * 1.01:
        raise TSLMError(f"the window ends at {end:g} s, but {length}; choose a shorter one")
    first, last = (int(at) for at in np.searchsorted(times, [start - 1e-9, end - 1e-9]))
    if last <= first:
        raise TSLMError(f"there is no sample between {start:g} and {end:g} s")
    return first, last


def check_rate(rate: float) -> float:
    """Return `rate`, or raise a TSLMError that says it must be a positive number of Hz."""
    if not (math.isfinite(rate) and rate > 0):
        raise TSLMError(f"a sampling rate must be a positive number of Hz, not {rate}")
    return float(rate)


def find_channel(channel: str | int, names: Sequence[str]) -> int:
    """The index of a channel that is given by name or number.

    Raises:
        TSLMError: there is none, or the name fits several (lists the names).
    """
    if isinstance(channel, str):
        if list(names).count(channel) > 1:
            places = ", ".join(str(at) for at, name in enumerate(names) if name == channel)
            raise TSLMError(f"several channels are called {channel!r}; choose by number: {places}")
        if channel in names:
            return list(names).index(channel)
        folded = [index for index, name in enumerate(names) if name.casefold() == channel.strip().casefold()]
        if len(folded) == 1:
            return folded[0]
    try:
        index = int(channel)
    except ValueError:
        index = -1
    if not 0 <= index < len(names):
        listed = ", ".join(name if name == str(at) else f"{at}: {name}" for at, name in enumerate(names))
        raise TSLMError(f"there is no channel {channel!r}; the channels are {listed}")
    return index


def _rows(values: ArrayLike) -> Sequence[ArrayLike]:
    """The channels of `[T]`, `[channels, T]` or a sequence of `[T]`."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise TSLMError("the channels have different lengths") from None
    if array.ndim == 0 or array.size == 0:
        raise TSLMError("the recording is empty" if array.ndim else f"not a series of numbers: {values!r}")
    if array.ndim > 2:
        raise TSLMError(f"a recording is [T] or [channels, T], but the shape given is {list(array.shape)}")
    if array.dtype.kind == "c":
        raise TSLMError("the values are complex; a recording holds real numbers")
    return [array] if array.ndim == 1 else list(array)
