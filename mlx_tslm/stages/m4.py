"""Stage 2, M4 captions: a description of one series (the M4 competition's, with generated captions)."""

from mlx_tslm.stages.base import Stage
from mlx_tslm.stages.tsqa import GENERAL_CLAIMS

_REQUEST = "Please generate a detailed caption for this time-series, describing it as accurately as possible."

M4 = Stage(
    name="stage2",
    key="m4",
    title="captions of time series (M4)",
    pre="You are an expert in time series analysis.",
    post=_REQUEST,
    series_text="This is the time series, it has mean {mean} and std {std}:",
    default_question=_REQUEST,
    normalise="unbiased",
    options=(),
    rewards={"format": 0.2, "grounding": 0.8, "spectral": 0.1, "coherence": 0.05},
    claims=GENERAL_CLAIMS,
    topics=(("trend", "turn", "change"), ("season", "period"), ("noise", "volatility")),
    metrics=("captions",),
    answer_column="caption",
)
"""The prompt is fixed; a user's own question goes before the request for a caption."""
