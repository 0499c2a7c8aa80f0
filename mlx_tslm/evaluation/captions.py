"""What a caption says of trend, season and noise, as the reader of claims has it."""

from typing import NamedTuple

from mlx_tslm.rewards.claims import read

_DIRECTIONS = {
    ("trend", "up"): "upward",
    ("trend", "down"): "downward",
    ("trend", "flat"): "none",
    ("turn", "peak"): "peak",
    ("turn", "valley"): "valley",
}


class Said(NamedTuple):
    """None where a caption says nothing.

    Attributes:
        direction: "none", "upward", "downward", "peak" or "valley".
        period: of the season, in samples; 0 for no season.
        noise: "low", "moderate" or "high".
    """

    direction: str | None
    period: int | None
    noise: str | None


def read_caption(text: str) -> Said:
    """What a text says, the first claim of each kind."""
    direction: str | None = None
    period: int | None = None
    noise: str | None = None
    for claim in read(text):
        if direction is None and not claim.negated:
            direction = _DIRECTIONS.get((claim.kind, claim.value))
        if (
            period is None
            and claim.kind == "period"
            and claim.value == "sample"
            and claim.numbers
            and not claim.negated
        ):
            period = round(claim.numbers[0])
        if period is None and claim.kind == "season" and claim.negated:
            period = 0
        if noise is None and claim.kind == "noise" and not claim.negated:
            noise = claim.value
    return Said(direction, period, noise)
