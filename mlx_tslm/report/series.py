"""The series as they are drawn: what the model was given, in the recording's own units and under its names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlx_tslm.rewards import RewardContext
    from mlx_tslm.signals import Recording

MOST_POINTS = 2400  # of a series in the page; a longer one is sent as the extremes of stretches


def panels(context: "RewardContext", recordings: "Sequence[Recording]" = ()) -> list[dict[str, Any]]:
    """One drawing a series of the prompt: name, unit, number of samples, and the points to join.

    A stage may choose among a recording's channels (the 12 leads of 15), so each series is looked up by its shape;
    one that no channel has is drawn as the prompt gives it, without a name.
    """
    channels = [
        (values, name, unit)
        for recording in recordings
        for values, name, unit in zip(recording.values, recording.names, recording.units, strict=True)
    ]
    found = []
    for series, recovered in zip(context.prompt.series, context.signals[0], strict=True):
        wanted = _standard(series.values)
        at = next((i for i, (values, *_) in enumerate(channels) if _alike(_standard(values), wanted)), None)
        values, name, unit = channels.pop(at) if at is not None else (recovered, "", "")
        where, points = envelope(np.asarray(values, np.float64))
        found.append(
            {"name": name, "unit": unit, "samples": len(values), "at": where.tolist(), "values": points.tolist()}
        )
    return found


def envelope(values: NDArray[np.float64], most: int = MOST_POINTS) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """At most `most` points that draw a series `[T]` without losing a peak: (sample numbers, values).

    A long one is cut into stretches, and each gives its smallest and its largest sample.
    """
    if len(values) <= most:
        return np.arange(len(values)), values
    edges = np.linspace(0, len(values), most // 2 + 1).astype(int)
    stretches = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    extremes = [low + f(values[low:high]) for low, high in stretches for f in (np.argmin, np.argmax)]
    where = np.unique(np.array(extremes, np.int64))
    return where, values[where]


def _standard(values: NDArray[Any]) -> NDArray[np.float64]:
    centred = np.asarray(values, np.float64) - np.mean(values, dtype=np.float64)
    return centred / max(float(centred.std()), 1e-12) if np.ptp(values) > 0 else np.zeros(len(values))


def _alike(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return len(a) == len(b) and bool(np.allclose(a, b, atol=1e-2))
