"""The one exception type for problems that a user can mend."""

_HEAD, _TAIL = 700, 300  # characters


def brief(text: str) -> str:
    """A text that a person is to read, its middle left out where it is over 1,000 characters long."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"


class TSLMError(ValueError):
    """A problem with what the user gave: a file, an option, a model.

    The message is one line that says what is wrong, where, and what to do; of a very long one the middle is left
    out. The command line prints it and exits with code 2; from Python it is an ordinary `ValueError`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(brief(message))


class TooLong(TSLMError):
    """A series or a prompt that a model cannot take.

    Args:
        problem: what is too long for what.
        advice: what to do with a recording of one's own. A data set's cannot be cut: there, only `problem` counts.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem
