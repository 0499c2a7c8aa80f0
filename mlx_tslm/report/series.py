"""The series as they are drawn: what the model was given, in the recording's own units and under its names."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.series import Series

MOST_POINTS = 2400  # of a series in the page; a longer one is sent as the extremes of stretches


def panel(series: Series) -> dict[str, Any]:
    """One drawing: name, unit, number of samples, and the points to join."""
    values = series.values.astype(np.float64) if series.raw is None else series.raw
    where, points = envelope(values)
    return {
        "name": series.name,
        "unit": series.unit,
        "samples": len(values),
        "at": where.tolist(),
        "values": points.tolist(),
    }


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
