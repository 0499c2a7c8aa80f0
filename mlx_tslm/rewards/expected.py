"""What answers are held to: how much each kind of claim counts among those made, and what has to be spoken of.

Restating the mean, which the prompt gives away, counts little.
"""

from collections.abc import Mapping

GENERAL_WEIGHTS: Mapping[str, float] = {
    **{"trend": 1.0, "turn": 1.0, "season": 1.0, "period": 1.0, "noise": 0.5, "volatility": 1.0, "outlier": 0.5},
    **{"change": 0.5, "mean": 0.1, "min": 0.25, "max": 0.25, "min_at": 0.25, "max_at": 0.25},
}
MOVEMENT_WEIGHTS: Mapping[str, float] = {
    **{"intensity": 1.0, "cadence": 1.0, "frequency": 0.5, "season": 0.5, "period": 0.5, "mean": 0.25},
    **{"gravity": 1.0, "activity": 1.0},
}
SLEEP_WEIGHTS: Mapping[str, float] = {"band": 1.0, "frequency": 0.5, "sleep": 1.0}
HEART_WEIGHTS: Mapping[str, float] = {
    **{"heart_rate": 1.0, "rhythm": 1.0, "intervals": 0.5, "frequency": 0.25, "finding": 1.0}
}

Topics = tuple[tuple[str, ...], ...]
CAPTION_TOPICS: Topics = (("trend", "turn", "change"), ("season", "period"), ("noise", "volatility"))
"""What a caption is about: of each topic one kind of claim at least; where there is none, the first is missed."""

STAGES: Mapping[str, tuple[Mapping[str, float], Topics]] = {
    "stage1": (GENERAL_WEIGHTS, ()),
    "stage2": (GENERAL_WEIGHTS, CAPTION_TOPICS),
    "stage3": (MOVEMENT_WEIGHTS, ()),
    "stage4": (SLEEP_WEIGHTS, ()),
    "stage5": (HEART_WEIGHTS, ()),
}
