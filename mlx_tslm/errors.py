"""The one exception type for problems that a user can mend, and what its line may hold."""

import unicodedata

_HEAD, _TAIL = 700, 300  # characters


def brief(text: str) -> str:
    """A text that a person is to read, its middle left out where it is over 1,000 characters long."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} … {text[-_TAIL:]}"


def visible(text: str, lines: bool = True) -> str:
    r"""A stranger's text with everything written out that a terminal would obey or that would hide or turn others.

    These are control characters (C0, C1, DEL), marks of direction and others without a shape, line separators and
    halves of surrogate pairs: ESC becomes the four characters \x1b. Joiners, which scripts need, stay.

    Args:
        text: a name, a file's content, a model's answer.
        lines: whether line feeds and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(one) if _is_hidden(one) and not (lines and one in "\n\t") else one for one in text)


def _is_hidden(one: str) -> bool:
    kind = unicodedata.category(one)
    return kind in ("Cc", "Zl", "Zp", "Cs") or (kind == "Cf" and one not in "\u200c\u200d\u00ad")


def _shown(one: str) -> str:
    code = ord(one)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
