"""The one exception type for problems that a user can mend."""


class TSLMError(ValueError):
    """A problem with what the user gave: a file, an option, a model.

    The message is one line that says what is wrong, where, and what to do.
    The command line prints it and exits with code 2; from Python it is an ordinary `ValueError`.
    """


class TooLong(TSLMError):
    """A series or a prompt that a model cannot take.

    Args:
        problem: what is too long for what.
        advice: what to do with a recording of one's own. A data set's cannot be cut: there, only `problem` counts.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem
