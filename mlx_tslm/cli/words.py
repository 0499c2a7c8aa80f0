"""How a command takes its words: several values behind one flag, old spellings, and help where a word is wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from mlx_tslm.cli import spelling
from mlx_tslm.cli.terminal import speak
from mlx_tslm.suggest import did_you_mean

VOICES = ("--quiet", "--verbose")
"""Flags that every command takes, before its name or after it."""


def examples(*lines: str) -> str:
    """The end of a command's help: a line each, with a remark behind # where one helps."""
    return "\n\n".join(["Examples:", *lines])


class Command(TyperCommand):
    """A command whose mistaken options are answered with the right ones."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = [one for one in self.params if one.param_type_name == "option"]
        valued = {flag for one in options if not getattr(one, "is_flag", False) for flag in one.opts}
        lists = {flag for one in options if getattr(one, "multiple", False) for flag in one.opts}
        words = list(_without_voices(args, valued))
        words = spelling.modern(ctx.command_path.partition(" ")[2], words, valued)
        takes_words = any(one.param_type_name == "argument" for one in self.params)
        try:
            return super().parse_args(ctx, list(repeat_flags(words, lists, takes_words)))
        except Exception as error:
            _explain(error, [flag for one in self.params for flag in (*one.opts, *one.secondary_opts)])
            raise


class Group(TyperGroup):
    """A group of commands, which knows the one that was meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", "")
            behind = any(option in one.opts for command in self.commands.values() for one in command.params)
            _explain(error, [flag for one in self.params for flag in one.opts], behind)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def _explain(error: Exception, flags: list[str], behind: bool = False) -> None:
    """Say in an error about an unknown option what may have been meant."""
    option = getattr(error, "option_name", None)
    if option is None or not hasattr(error, "possibilities"):
        return
    error.possibilities = None
    near = did_you_mean(option, [flag for flag in flags if flag.startswith("--")])
    told = "; it stands behind the command's name" if behind else near
    error.message = f"No such option: {option}{told}"  # type: ignore[attr-defined]


def _without_voices(arguments: Sequence[str], valued: set[str]) -> Iterator[str]:
    """The arguments without `--quiet` and `--verbose`, which take effect at once."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[index:]
            return
        if argument in VOICES and not (index and arguments[index - 1] in valued):
            speak(quiet=argument == "--quiet", verbose=argument == "--verbose")
        else:
            yield argument


def repeat_flags(arguments: Sequence[str], lists: set[str], takes_words: bool = False) -> Iterator[str]:
    """`--series a b` as `--series a --series b`: a shell's wildcard gives several files after one flag.

    Args:
        arguments: of a command.
        lists: the flags that can be repeated.
        takes_words: whether the command takes words without a flag; until it has had one, no flag is repeated.
    """
    flag, first, free = "", False, not takes_words
    for index, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[index:]
            return
        if argument.startswith("-") and argument != "-":
            flag, first = (argument, True) if argument in lists else ("", False)
        elif flag and not first and free:
            yield flag
        else:
            free = free or index == 0
            first = False
        yield argument
