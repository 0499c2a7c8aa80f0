"""Measure a signal: trend, season, noise, level, extremes. SciPy does the work; every number is graded, not cut."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from mlx_tslm.rewards.facts import atria, eeg, physiology
from mlx_tslm.rewards.facts.spectrum import is_constant, line_distance

FloatArray = NDArray[np.float64]
# Share of what is no trend that a season never explains: of a clean one nothing is left to compare a trend with but
# rounding errors.
_UNEXPLAINED = 0.05


class Trend(NamedTuple):
    slope: float  # units a sample, of the line through the deseasonalised series
    strength: float  # the line's share of the variance of the deseasonalised series, 0 … 1


class Season(NamedTuple):
    period: float  # samples; NaN where there is none
    strength: float  # autocorrelation of the detrended series at one period, 0 … 1


@dataclass(frozen=True, eq=False)
class SignalFacts:
    """Measurements of a recording, each made once, when first asked for.

    Args:
        series: float64 `[T]` each; the general measurements are of the first, the physiological ones of all.
        rate: Hz, or None where unknown.
        in_units: whether the values are in their own units (else normalised: levels mean nothing).
    """

    series: Sequence[FloatArray]
    rate: float | None = None
    in_units: bool = True
    _measured: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def measured(self, measure: Callable[["SignalFacts"], Any]) -> Any:
        """What a function of these facts returns, called once."""
        if measure not in self._measured:
            self._measured[measure] = measure(self)
        return self._measured[measure]

    def judged(self, claim: Hashable, entry: Hashable, judge: Callable[[Any, Any, "SignalFacts"], Any]) -> Any:
        """What is judged of a claim of a kind, once for all answers that make it."""
        if (claim, entry) not in self._measured:
            self._measured[claim, entry] = judge(claim, entry, self)
        return self._measured[claim, entry]

    @cached_property
    def main(self) -> FloatArray:
        return self.series[0] if self.series else np.zeros(0)

    @cached_property
    def season(self) -> Season:
        return find_season(self.main)

    @cached_property
    def seasons(self) -> list[Season]:
        """Of each of the first three series, as an accelerometer has axes."""
        return [self.season, *map(find_season, self.series[1:3])]

    @cached_property
    def trend(self) -> Trend:
        return find_trend(self.main, self.season)

    @cached_property
    def turn(self) -> float:
        """How far it turns from rising to falling (positive) or the other way: see `find_turn`."""
        return find_turn(self.main, self.season)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the noise over that of the series, 0 … 1."""
        return noise_ratio(self.main, self.season)

    @cached_property
    def volatility(self) -> float:
        """How the spread changes: see `volatility_change`."""
        return volatility_change(self.main)

    @cached_property
    def outlier(self) -> float:
        """Size of the largest isolated spike, see `spike_size`."""
        return spike_size(self.main)

    @cached_property
    def beats(self) -> physiology.Beats | None:
        """Heart beats; None without a rate or where none are found."""
        return physiology.find_beats(self.series, self.rate) if self.rate and self.series else None

    @cached_property
    def atria(self) -> atria.Atria | None:
        """P waves, flutter waves and how RR intervals vary; None where too few beats are found."""
        return atria.find_atria(self.series, self.rate, self.beats) if self.rate and self.beats else None

    @cached_property
    def bands(self) -> dict[str, float] | None:
        """Share of each EEG band in the first series' power an octave; None without a rate."""
        return physiology.band_shares(self.main, self.rate) if self.rate and len(self.main) >= 16 else None

    @cached_property
    def epoch(self) -> eeg.Epoch | None:
        """What sleep is scored by; None without a rate, or of a recording that is too short."""
        if self.rate is None or self.bands is None:
            return None
        return eeg.find_epoch(self.main, self.rate, self.bands, self.in_units)

    @cached_property
    def burst(self) -> Callable[[float], float]:
        """`eeg.burst` of the first series by frequency in Hz, each computed once; 0 without a rate."""
        return lru_cache(maxsize=1024)(partial(eeg.burst, self.main, self.rate or 0.0))

    @cached_property
    def intensity(self) -> float | None:
        """Root mean square of the acceleration without its mean, all axes, m/s²; None without units."""
        return physiology.movement_intensity(self.series) if self.in_units and self.series else None

    @cached_property
    def cadence(self) -> float | None:
        """Steps a second, Hz; None without a rate or a rhythm."""
        return physiology.find_cadence(self.series, self.rate) if self.rate and self.series else None

    @cached_property
    def gait(self) -> physiology.Gait:
        """Cadence, impacts and posture of three axes."""
        return physiology.find_gait(self.series, self.rate)

    @cached_property
    def line_distance(self) -> Callable[[float, float], float]:
        """`spectrum.line_distance` of these series: (cycles a sample, floor) → decades, each computed once."""
        return lru_cache(maxsize=1024)(partial(line_distance, self.series))


def find_trend(x: FloatArray, season: Season | None = None) -> Trend:
    """Least-squares line through the series, one period averaged out where there is a season.

    Its strength is its variance over that of the series without the season: R² where there is none.
    """
    if is_constant(x):
        return Trend(0.0, 0.0)
    smooth, seasonal = _without_season(x, season or find_season(x))
    steps = np.arange(len(smooth)) - (len(smooth) - 1) / 2
    slope = float(steps @ smooth / (steps @ steps))
    line = slope * (np.arange(len(x)) - (len(x) - 1) / 2)
    explained, rest = float(line.var()), max(1 - seasonal, _UNEXPLAINED) * float((x - line).var())
    return Trend(slope, explained / (explained + rest) if explained > 0 else 0.0)


def find_turn(x: FloatArray, season: Season | None = None) -> float:
    """Curvature of the parabola through the series, one period averaged out, where its vertex lies in the middle.

    Returns:
        The curvature's share of the variance of the deseasonalised series, 0 … 1: positive where the series rises
        and then falls, negative where it falls and then rises. 0 where the vertex is in the first or last 30 %.
    """
    if is_constant(x) or len(x) < 8:
        return 0.0
    smooth, seasonal = _without_season(x, season or find_season(x))
    t = np.linspace(-1, 1, len(smooth))
    fitted = np.polynomial.Polynomial.fit(t, smooth, 2)
    _, slope, curvature = map(float, fitted.coef)
    if curvature == 0:
        return 0.0
    middle = float(np.clip((0.4 - abs(slope / (2 * curvature))) / 0.15, 0, 1))
    bent = float(np.var(curvature * t**2))
    rest = max((1 - seasonal) * float((smooth - fitted(t)).var()), _UNEXPLAINED * (float(x.var()) - bent))
    return -float(np.sign(curvature)) * middle * bent / (bent + rest) if bent > 0 else 0.0


def _without_season(x: FloatArray, season: Season) -> tuple[FloatArray, float]:
    """The series with one period averaged out where there is a season, and the season's strength, 0 … 1."""
    seasonal = season.strength if np.isfinite(season.period) and season.period <= len(x) / 2 else 0.0
    width = round(season.period) if seasonal >= 0.3 else 1
    return np.convolve(x, np.full(width, 1 / width), mode="valid"), seasonal


def find_season(x: FloatArray, cycles: float = 3.0) -> Season:
    """The shortest lag whose autocorrelation is as high a peak as any, after a quadratic is taken out.

    Lags from 2 samples to T / `cycles`: fewer cycles than that are not a season. Peaks below 2.8 standard
    errors of white noise (1/√T) count as none.
    """
    none = Season(float("nan"), 0.0)
    n = len(x)
    if is_constant(x) or n < 8:
        return none
    t = np.linspace(-1, 1, n)
    y = x - np.polynomial.Polynomial.fit(t, x, 2)(t)
    if float(y.std()) <= 1e-9 * float(x.std()):
        return none
    longest = int(n / cycles)
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    acf = np.fft.irfft(np.abs(np.fft.rfft(y, size)) ** 2, size)[: longest + 2]
    acf = acf / acf[0]
    peaks, _ = signal.find_peaks(acf)
    # A peak only counts after the autocorrelation has been down: ripple on a slow decay is no season.
    lows = np.minimum.accumulate(acf)
    peaks = peaks[(peaks >= 2) & (peaks <= longest) & (acf[peaks] - lows[peaks] > 0.2)]
    if not len(peaks) or acf[peaks].max() < 2.8 / np.sqrt(n):
        return none
    # Between samples the autocorrelation is higher than at them: at 4.5 samples a lot, and no less than at 9.
    left, mid, right = acf[peaks - 1], acf[peaks], acf[peaks + 1]
    curve = left - 2 * mid + right
    shift = np.divide(0.5 * (left - right), curve, out=np.zeros_like(curve), where=curve < 0)
    tops = mid - 0.25 * (left - right) * shift
    first = int(np.argmax(tops >= 0.75 * tops.max()))
    lag = int(peaks[first])
    # The estimate is biased by (T − lag)/T, which prefers short lags; the strength is not.
    return Season(lag + float(shift[first]), float(np.clip(mid[first] * n / (n - lag), 0, 1)))


def _robust_deviation(x: FloatArray) -> float:
    """Standard deviation as a normal distribution's median absolute deviation gives it; outliers don't count."""
    return 1.4826 * float(np.median(np.abs(x - np.median(x))))


def noise_ratio(x: FloatArray, season: Season | None = None) -> float:
    """Spread of what neither smoothness nor a season explains, over the spread of the series.

    The smaller of two estimates: from second differences (a smooth signal has none), and from the differences
    between one cycle and the next (a fast but regular signal has none).
    """
    if is_constant(x):
        return 0.0
    spread = float(x.std())
    estimates = [_robust_deviation(np.diff(x, 2)) / np.sqrt(6)]
    season = season or find_season(x)
    if np.isfinite(season.period) and season.strength >= 0.2:
        lag = round(season.period)
        y = signal.detrend(x)
        estimates.append(_robust_deviation(y[lag:] - y[:-lag]) / np.sqrt(2))
    return min(1.0, min(estimates) / spread)


def volatility_change(x: FloatArray) -> float:
    """Log of the spread (5 to 95 %, so that an outlier is none) of the last third over that of the first."""
    if is_constant(x) or len(x) < 12:
        return 0.0
    third = len(x) // 3
    tiny = 1e-6 * float(x.std())
    first, last = (
        float(np.subtract(*np.quantile(signal.detrend(part), [0.95, 0.05]))) + tiny
        for part in (x[:third], x[-third:])
    )
    return float(np.log(last / first))


def spike_size(x: FloatArray) -> float:
    """Largest deviation from the mean of both neighbours, in robust standard deviations (1.4826 MAD).

    A tenth of the series' own deviation is added to the scale, lest a smooth curve's bends count as spikes; where
    three others are as large, as in a saw or a triangle wave, it is none that stands out.
    """
    if is_constant(x) or len(x) < 8:
        return 0.0
    residual = np.abs(x[1:-1] - (x[:-2] + x[2:]) / 2)
    top = int(residual.argmax())
    others = np.sort(np.delete(residual, np.arange(max(top - 2, 0), min(top + 3, len(residual)))))
    typical = max(1.4826 * float(np.median(residual)), 0.4 * float(others[-4:][0]) if len(others) else 0.0)
    return float(residual[top] / (typical + 0.1 * float(x.std())))


def change_ratio(x: FloatArray, season: Season) -> float:
    """Mean of the last stretch over that of the first: one period, or a tenth of the series; NaN through zero."""
    if len(x) < 4:
        return float("nan")
    period = season.period if np.isfinite(season.period) and season.period <= len(x) / 3 else len(x) / 10
    width = max(1, round(period))
    first, last = float(x[:width].mean()), float(x[-width:].mean())
    return last / first if first * last > 0 else float("nan")
