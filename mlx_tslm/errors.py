"""The one exception type for problems that a user can mend."""


class TSLMError(ValueError):
    """A problem with what the user gave: a file, an option, a model.

    The message is one line that says what is wrong, where, and what to do.
    The command line prints it and exits with code 2; from Python it is an ordinary `ValueError`.
    """
