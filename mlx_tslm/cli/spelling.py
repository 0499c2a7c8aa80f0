"""Spellings of the release before this one: they work once more, with a note that names the new ones."""

from collections.abc import Collection, Sequence

from mlx_tslm.cli.terminal import note
from mlx_tslm.errors import TSLMError

_RENAMED = {  # command → old flag → new flag; each takes a value
    "convert": {"--group-size": "--q-group-size"},
    "generate": {"-q": "--question"},
    "search": {"-q": "--question"},
    "calibrate": {"--out": "--output"},
    "eval": {"--out": "--output"},
    "bench run": {"--results": "--output"},
}
_SHORT = {"--output": "-o"}


def modern(command: str, arguments: Sequence[str], valued: Collection[str]) -> list[str]:
    """A command's arguments in today's words.

    Args:
        command: its name, such as "bench run".
        arguments: what follows it.
        valued: its flags that take a value.

    Raises:
        TSLMError: the old and the new spelling are both there.
    """
    renamed = _RENAMED.get(command, {})
    words: list[str] = []
    changes: list[tuple[str, str, str]] = []  # old, new, and the flag that is not to be there twice
    index = 0
    while index < len(arguments):
        word = arguments[index]
        following = arguments[index + 1] if index + 1 < len(arguments) else None
        flag, equals, value = word.partition("=")
        if not word.startswith("--") and word[:2] in renamed and len(word) > 2:
            flag, equals, value = word[:2], "=", word[2:].removeprefix("=")
        if word == "--":
            words += arguments[index:]
            break
        if flag in renamed:
            words.append(renamed[flag] + equals + value)
            changes.append((flag, renamed[flag], renamed[flag]))
        elif command == "convert" and (bits := _bits(word, following)):
            words += ["-q", "--q-bits", bits]
            changes.append((f"-q {bits}", f"-q --q-bits {bits}", "--q-bits"))
            index += following == bits and word in ("-q", "--quantize")
            flag = word = ""
        elif (
            command == "generate" and word == "--json" and (following is None or following[:1] == "-" != following)
        ):
            words += ["--json", "-"]
            changes.append(("--json without a file", "--json -", ""))
            flag = word = ""
        else:
            words.append(word)
        index += 1
        if word == flag and (flag in valued or flag in renamed) and index < len(arguments):
            words.append(arguments[index])  # a value, whatever it looks like
            index += 1
    given = [word.partition("=")[0] for word in words]
    for old, new, flag in changes:
        if given.count(flag) + given.count(_SHORT.get(flag, "")) > 1:
            raise TSLMError(f"{old} is now {new}, and {flag} is there too; give {flag} alone")
        note(f"{old} is now {new}; the old spelling works in this release only")
    return words


def _bits(word: str, following: str | None) -> str | None:
    """The bits of `-q 4`, `-q4`, `--quantize 4` and `--quantize=4`, as `convert` had them; else None."""
    if word in ("-q", "--quantize"):
        return following if following is not None and following.isdigit() else None
    for start in ("--quantize=", "-q"):
        if word.startswith(start) and word.removeprefix(start).isdigit():
            return word.removeprefix(start)
    return None
