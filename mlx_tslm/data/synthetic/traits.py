"""What is true of a synthetic series, for those who draw it and those who write about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What is true of a series.

    Args:
        length: samples.
        trend: one of `forecast.TRENDS`.
        period: of the season, in samples, or None.
        swings: how the season's amplitude develops, one of `forecast.SWINGS` ("steady" without a season).
        noise: one of `forecast.NOISES`. A series without trend and season is noise alone, which counts as "high".
        outlier: one of `forecast.OUTLIERS`.
        outlier_third, maximum_third, minimum_third: where they lie, one of `forecast.THIRDS`, or None where
            there is none or it is too close to call.
    """

    length: int
    trend: str
    period: int | None
    swings: str
    noise: str
    outlier: str
    outlier_third: str | None = None
    maximum_third: str | None = None
    minimum_third: str | None = None

    @property
    def direction(self) -> str:
        """The trend without its shape: "none", "upward", "downward", "peak" or "valley"."""
        return self.trend.split()[0]

    @property
    def shape(self) -> str | None:
        """ "steady", "accelerating" or "slowing" for an upward or downward trend, else None."""
        return self.trend.split()[1] if " " in self.trend else None
