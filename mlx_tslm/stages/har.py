"""Stage 3, HAR CoT: which activity three accelerometer axes show, with a rationale.

Neither OpenTSLM's code nor the prompt states the sampling rate of the published rows, so none is assumed here.
"""

from mlx_tslm.stages.base import Stage

# The original's indentation is part of what the models were trained on: eight blanks on every line.
_INSTRUCTION = """
        You are given accelerometer data in all three dimensions. Your task is to classify the activity based on analysis of the data.

        Instructions:
        - Begin by analyzing the time series without assuming a specific label.
        - Think step-by-step about what the observed patterns suggest regarding movement intensity and behavior.
        - Write your rationale as a single, natural paragraph — do not use bullet points, numbered steps, or section headings.
        - Do **not** mention any class label until the final sentence.

        Possible activity labels are:
        {labels}.
       \x20
        - Make sure that your last word is the answer. You MUST end your response with "Answer: "
        """  # noqa: E501

HAR = Stage(
    name="stage3",
    key="har",
    title="human activity from three accelerometer axes (HAR)",
    pre=_INSTRUCTION,
    post="Rationale:",
    series_text="The following is the accelerometer data on the {channel}-axis, it has mean {mean} and std {std}:",
    default_question="Your task is to classify the activity based on analysis of the data.",
    normalise="unbiased-floor",
    channels=3,
    trained_on={"channels": (3, 3)},
    channel_words=("x", "y", "z"),
    labels=("biking", "lying", "running", "sitting", "standing", "walking", "walking_down", "walking_up"),
    marker="Answer:",
    claims={
        **{"intensity": 1.0, "cadence": 1.0, "frequency": 0.5, "season": 0.5, "period": 1.0, "mean": 0.25},
        **{"gravity": 1.0, "deviation": 1.0, "activity": 2.0},
    },
    topics=(("gravity",), ("deviation", "intensity"), ("period", "cadence", "frequency", "season")),
    concludes={
        "biking": r"\b(?:pedals?|pedall?ing|bicycle|bike)\b",
        "lying": r"\bbody is level\b|\b(?:supine|prone|reclin\w+)\b",
        "running": r"\bboth feet leave\b|\b(?:jogging|sprinting)\b",
        "sitting": r"\bbent hip\b|\bseated\b",
        "standing": r"\b(?:body is upright and|upright and) stays? in place\b",
        "walking": r"\blevel ground\b",
        "walking_down": r"\bonto a lower one\b|\b(?:down(?:stairs| the stairs)|descend\w*)\b",
        "walking_up": r"\blifts the body\b|\b(?:up(?:stairs| the stairs)|climb\w*|ascend\w*)\b",
    },
    published="har",
    series_columns=("x_axis", "y_axis", "z_axis"),
    answer_column="rationale",
)
"""The instruction is fixed; a user's own question goes before the last word, "Rationale:"."""
