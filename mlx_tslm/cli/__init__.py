"""The command line. No logic: commands read their options, call the package and print.

Only typer and rich are imported here; each command imports what it needs when it runs, so that `--help` answers
at once.
"""

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mlx_tslm.cli import (
    bench,
    calibrate,
    chat,
    check,
    convert,
    data,
    evaluate,
    generate,
    inventory,
    search,
    serve,
    terminal,
    train,
)
from mlx_tslm.cli.terminal import Notes, results_to_stderr, speak, status
from mlx_tslm.cli.words import Command, Group, examples
from mlx_tslm.errors import TSLMError, visible
from mlx_tslm.system.allocator import keep_freed_memory

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer has it from click, or from its own copy

app = typer.Typer(
    name="mlx-tslm",
    cls=Group,
    help="Time-series language models on Apple silicon: convert OpenTSLM checkpoints, ask them about recordings, "
    "and search over whole answers.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command, _epilog in (
    ("convert", convert.convert, convert.EXAMPLES),
    ("generate", generate.generate, generate.EXAMPLES),
    ("search", search.search, search.EXAMPLES),
    ("chat", chat.chat, chat.EXAMPLES),
    ("serve", serve.serve, serve.EXAMPLES),
    ("eval", evaluate.evaluate, evaluate.EXAMPLES),
    ("check", check.check, check.EXAMPLES),
    ("calibrate", calibrate.calibrate, calibrate.EXAMPLES),
    ("train", train.train, train.EXAMPLES),
    ("models", inventory.models, examples("mlx-tslm models")),
    ("info", inventory.info, examples("mlx-tslm info")),
):
    app.command(_name, cls=Command, epilog=_epilog)(_command)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        from mlx_tslm import __version__

        print(f"mlx-tslm {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Answers are a model's, not a physician's: this is not a medical device.\n\n"
    + examples(
        "mlx-tslm convert demo",
        "mlx-tslm search --model demo --series recording.csv --html found.html",
        "mlx-tslm COMMAND --help  # each command's help ends with examples of its own",
    )
)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing but results and errors; behind a command too.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say what is done and where errors come from; behind a command too.")
    ] = False,
) -> None:
    if quiet or verbose:
        speak(quiet, verbose)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text: shown, not stumbled over
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("mlx_tslm")
    if not log.handlers:
        log.addHandler(Notes())
    keep_freed_memory()  # this process is ours; where the package is imported, it is not
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it does not know our config.json, and says so
    speak()
    results_to_stderr(False)
    try:
        code = app(args=arguments, prog_name="mlx-tslm", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        return _fail(f"{message}; see `{context.command_path if context else 'mlx-tslm'} --help`")
    except TSLMError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader has left, as in `mlx-tslm models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        hint = "; free some space and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        where = f": {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}{hint}")
    if code == 130:
        status.print("interrupted")
    return int(code or 0)


def _fail(message: str) -> int:
    status.quiet = False
    if terminal.verbose:
        status.print_exception(max_frames=20)
    status.print("error: ", style="bold red", end="")
    status.print(visible(" ".join(message.split())), soft_wrap=True)
    return 2
