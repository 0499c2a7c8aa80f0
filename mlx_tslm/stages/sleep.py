"""Stage 4, Sleep CoT: the sleep stage of 30 s of one EEG channel at 50 Hz (Sleep-EDF), with a rationale."""

from mlx_tslm.stages.base import Stage

# The original's indentation is part of what the models were trained on.
_INSTRUCTION = """
        You are given a 30-second EEG time series segment. Your task is to classify the sleep stage based on analysis of the data.

        Instructions:
        - Analyze the data objectively without presuming a particular label.
        - Reason carefully and methodically about what the signal patterns suggest regarding sleep stage.
        - Write your reasoning as a single, coherent paragraph. Do not use bullet points, lists, or section headers.
        - Only reveal the correct class at the very end.
        - Never state that you are uncertain or unable to classify the data. You must always provide a rationale and a final answer.
"""  # noqa: E501
_LAST_WORDS = """Possible sleep stages are:
        {labels}

        - Please now write your rationale. Make sure that your last word is the answer. You MUST end your response with "Answer:"""  # noqa: E501

# As the published evaluation does it, "Non-REM stage 4" counts as stage 3.
_SYNONYMS = {
    f"{said}{number}": f"Non-REM stage {min(number, 3)}"
    for said in ("n", "non-rem stage ", "nrem stage ", "sleep stage ")
    for number in (1, 2, 3, 4)
} | {
    **dict.fromkeys(("w", "awake", "sleep stage w"), "Wake"),
    **dict.fromkeys(("r", "rem", "sleep stage r"), "REM sleep"),
    **dict.fromkeys(("mt", "mov", "movement time"), "Movement"),
}
_LABELS = ("Wake", "Non-REM stage 1", "Non-REM stage 2", "Non-REM stage 3", "REM sleep", "Movement")

SLEEP = Stage(
    name="stage4",
    key="sleep",
    title="sleep stage of 30 seconds of EEG (Sleep-EDF)",
    pre=_INSTRUCTION,
    post=_LAST_WORDS,
    series_text="The following is the EEG time series, it has mean {mean} and std {std}:",
    default_question="Your task is to classify the sleep stage based on analysis of the data.",
    normalise="population-floor",
    rate=50.0,
    trained_on={"samples": (1500, 1500), "channels": (1, 1), "rate": 50.0},
    labels=_LABELS,
    synonyms=_SYNONYMS,
    marker="Answer:",
    claims={
        **{"band": 1.0, "frequency": 1.0, "amplitude": 1.0, "spindles": 1.0, "complexes": 0.5},
        **{"slow waves": 0.5, "artefacts": 0.5, "sleep": 2.0},
    },
    topics=(("frequency", "band", "artefacts"), ("amplitude", "spindles", "complexes")),
    concludes={
        "wake": r"\bsleep has not begun\b|\bawake\b|\bwakeful\w*",
        "non-rem stage 1": r"\bhow sleep begins\b|\bdrows\w+|\bfalling asleep\b|\blight(?:est)? sleep\b",
        "non-rem stage 2": r"\bsleep is not yet deep\b",
        "non-rem stage 3": r"\bdeep(?:est)? sleep\b|\bslow[- ]wave sleep\b",
        "rem sleep": r"\bsawtooth waves\b|\brapid eye movements?\b",
        "movement": r"\bcannot be seen beneath\b|\bmoved in (?:bed|sleep)\b",
    },
    metrics=("classification", "kappa"),
    published="sleep",
    medical=True,
    series_columns=("time_series",),
    answer_column="rationale",
)
"""The instruction is fixed; a user's own question goes before the list of sleep stages."""
