"""Means and standard deviations as the models' training data were normalised with.

The prompt states both to four decimals, and float32 sums depend on their order, so these repeat the order of the
original's arithmetic: torch's for TSQA, M4 and HAR, NumPy's for sleep and ECG. A constant series is special in
all of them: its mean is its value and its deviation 0, exactly. (Where the original's float32 mean is off by a
rounding error, TSQA's division by 1e-8 blows that error up; we don't copy this.)
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Normalised = tuple[NDArray[np.floating], float, float]


def torch_mean(values: Array) -> np.float32:
    """`torch.mean` of a float32 `[T]` on an x86 CPU, to the bit (sums of 8 lanes, four rows at a time)."""
    if _constant(values):
        return values[0]
    lanes = len(values) // 8
    if lanes == 0:
        return np.float32(_row_sum(values) / np.float32(len(values)))
    total = np.float32(0)
    for value in (*values[8 * lanes :], *_row_sum(values[: 8 * lanes].reshape(lanes, 8))):
        total += value
    return np.float32(total / np.float32(len(values)))


def torch_std(values: Array) -> np.float32:
    """`torch.std` (unbiased) of a float32 `[T]`: summed in float64 and rounded. 0 for a single sample."""
    if _constant(values):
        return np.float32(0)
    squares = np.square(values.astype(np.float64) - float(torch_mean(values)))
    return np.float32(np.sqrt(squares.sum() / (len(values) - 1)))


def torch_channel_std(values: Array) -> np.float32:
    """`torch.std(dim=1)` (unbiased) of one channel of several: about the float64 mean."""
    return np.float32(0) if _constant(values) else np.float32(np.std(values.astype(np.float64), ddof=1))


def numpy_moments(values: NDArray[np.floating]) -> tuple[float, float]:
    """NumPy's mean and population standard deviation of `[T]`, computed in the values' own dtype."""
    if _constant(values):
        return float(values[0]), 0.0
    return float(np.mean(values)), float(np.std(values))


def _constant(values: NDArray[np.floating]) -> bool:
    return bool((values == values[0]).all())


def _row_sum(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum over the first axis in torch's order: four interleaved partial sums, then those."""
    groups = len(rows) // 4
    partial = _cascade_sum(rows[: 4 * groups].reshape(groups, 4, *rows.shape[1:]))
    for row in rows[4 * groups :]:
        partial[0] += row
    for other in partial[1:]:
        partial[0] += other
    return partial[0]


def _cascade_sum(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum over the first axis, accumulated on four levels so that rounding errors stay small."""
    size, levels = len(rows), 4
    power = max(4, (max(size, 1) - 1).bit_length() // levels)
    step = 1 << power
    sums = np.zeros((levels, *rows.shape[1:]), dtype=np.float32)
    done = 0
    while done + step <= size:
        for row in rows[done : done + step]:
            sums[0] += row
        done += step
        for level in range(1, levels):
            sums[level] += sums[level - 1]
            sums[level - 1] = 0
            if done & ((step - 1) << (level * power)):
                break
    for row in rows[done:]:
        sums[0] += row
    for level in range(1, levels):
        sums[0] += sums[level]
    return sums[0]


def _unbiased_epsilon(raw: NDArray[np.float64]) -> Normalised:
    """TSQA: 1e-8 is added to the deviation."""
    values = raw.astype(np.float32)
    mean, std = torch_mean(values), torch_std(values)
    return (values - mean) / (std + np.float32(1e-8)), float(mean), float(std)


def _unbiased(raw: NDArray[np.float64]) -> Normalised:
    """M4: a constant series is only centred."""
    values = raw.astype(np.float32)
    mean, std = torch_mean(values), torch_std(values)
    return (values - mean) / std if std > 0 else values - mean, float(mean), float(std)


def _unbiased_floor(raw: NDArray[np.float64]) -> Normalised:
    """HAR: the deviation is about the float64 mean, and at least 1e-6."""
    values = raw.astype(np.float32)
    mean, std = torch_mean(values), np.maximum(torch_channel_std(values), np.float32(1e-6))
    return (values - mean) / std, float(mean), float(std)


def _population_floor(raw: NDArray[np.float64]) -> Normalised:
    """Sleep: of the float32 values, the deviation at least 1e-6."""
    values = raw.astype(np.float32)
    mean, std = numpy_moments(values)
    std = max(std, 1e-6)
    return (values - mean) / std, mean, std


def _population(raw: NDArray[np.float64]) -> Normalised:
    """ECG: a flat lead is only centred."""
    mean, std = numpy_moments(raw)
    return (raw - mean) / std if std > 1e-6 else raw - mean, mean, std


NORMALISERS: Mapping[str, Callable[[NDArray[np.float64]], Normalised]] = {
    "unbiased-epsilon": _unbiased_epsilon,
    "unbiased": _unbiased,
    "unbiased-floor": _unbiased_floor,
    "population-floor": _population_floor,
    "population": _population,
}
"""Raw values, float64 `[T]` → the normalised ones `[T]`, and the mean and deviation that the prompt states."""
