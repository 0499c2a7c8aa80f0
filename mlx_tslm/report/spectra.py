"""The input's spectrum, and what the answers claim of it."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.rewards import facts_of
from mlx_tslm.rewards.claims import cycles_per_sample, is_line, read
from mlx_tslm.rewards.facts.spectrum import FLOOR, is_constant
from mlx_tslm.rewards.spectral import find_series

if TYPE_CHECKING:
    from mlx_tslm.rewards.claims import Claim
    from mlx_tslm.search import SearchResult
    from mlx_tslm.stages.base import Question

FloatArray = NDArray[np.float64]
WINDOW = 1024  # samples, at most
LINES = 12  # claimed frequencies that are drawn, those of the largest weight
LOWEST = -40.0  # dB
A_DECADE = 80  # points of a drawn spectrum, at most: the page's axis is logarithmic


def compare_spectra(result: "SearchResult", question: "Question") -> dict[str, Any] | None:
    """Power spectral densities in dB of white noise's of the same power, and the stated lines with their weights.

    Returns:
        unit: "Hz", or "cycles a sample" where the rate is unknown.
        input: (frequencies, dB): Welch, Hann window, linearly detrended; the mean over the series, each scaled to
            unit power.
        claim: the same of the series that the best answer holds, or None.
        lines: frequencies that answers state: label, frequency, `weight` of the answers that state it, its
            `distance` to the input in decades, and whether the best answer states it.
        share: weight of the answers with a series or a line.

        None where the input is too short or constant.
    """
    rate = question.rate or 1.0
    series = [values for values in facts_of(question).series if len(values) >= 8 and not is_constant(values)]
    if not series:
        return None
    lines: dict[str, dict[str, Any]] = {}
    share = 0.0
    for one in result.completions:
        stated = find_series(one.text) is not None
        for label, frequency, distance in _lines(one.text, question):
            stated = True
            line = lines.setdefault(
                label, {"label": label, "at": frequency * rate, "distance": distance, "weight": 0.0, "best": False}
            )
            line["weight"] += one.weight
            line["best"] |= one.text == result.best.text
        share += one.weight * stated
    kept = sorted(lines.values(), key=lambda line: (not line["best"], -line["weight"]))[:LINES]
    claimed = find_series(result.best.text)
    claim = _density([claimed], rate) if claimed is not None and not is_constant(claimed) else None
    return {
        "unit": "Hz" if question.rate else "cycles a sample",
        "series": len(series),
        "input": _density(series, rate),
        "claim": claim,
        "lines": kept,
        "share": share,
    }


def _lines(text: str, question: "Question") -> list[tuple[str, float, float]]:
    """Each stated line once: label, cycles a sample, decades to the input (of several readings the kindest)."""
    found: dict[str, tuple[str, float, float]] = {}
    for claim in read(text):
        reading = _reading(claim, question)
        if reading is not None:
            found[str(claim)] = (str(claim), *reading)
    return list(found.values())


def _reading(claim: "Claim", question: "Question") -> tuple[float, float] | None:
    if not is_line(claim):
        return None
    facts = facts_of(question)
    readings = [(facts.line_distance(at, FLOOR), at) for at in cycles_per_sample(claim, facts.rate)]
    told = [(distance, at) for distance, at in readings if np.isfinite(distance) and at <= 0.5]
    return min(told)[::-1] if told else None


def _density(series: list[FloatArray], rate: float) -> tuple[list[float], list[float]]:
    from scipy import signal

    length = min(len(values) for values in series)
    window = min(length, WINDOW)
    stacked = np.stack([values[:length] for values in series])
    deviation = stacked.std(axis=1, keepdims=True)
    scaled = (stacked - stacked.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)
    size = max(512, 2 ** int(np.ceil(np.log2(2 * window))))
    grid, power = signal.welch(scaled, rate, window="hann", nperseg=window, nfft=size, detrend="linear")
    mean = power.mean(axis=0)
    level = np.maximum(mean / max(float(mean.mean()), 1e-12), 10 ** (LOWEST / 10))
    kept = (grid >= rate / length) & (grid > 0)  # slower than one cycle nothing is known
    grid, level = grid[kept], level[kept]
    _, stretch = np.unique(np.floor(A_DECADE * np.log10(grid)), return_inverse=True)
    count = np.bincount(stretch)
    means = [np.bincount(stretch, weights=values) / count for values in (grid, level)]
    return means[0].tolist(), (10 * np.log10(means[1])).tolist()
