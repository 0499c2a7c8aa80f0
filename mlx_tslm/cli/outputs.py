"""Files that a command writes. `-` is standard output, which then is the program's alone."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mlx_tslm.cli.terminal import results_to_stderr, status
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import replacing, write_atomically

JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the answer as JSON to this file; - is standard output."),
]


def check(**files: str | None) -> None:
    """See, before anything slow happens, that each file can be written; give standard output to the one that is -.

    Args:
        files: by their flags' names.

    Raises:
        TSLMError: a folder was named, one that is not there, or standard output twice.
    """
    to_stdout = [flag for flag, file in files.items() if file == "-"]
    if len(to_stdout) > 1:
        raise TSLMError(f"{' and '.join(f'--{flag} -' for flag in to_stdout)}: only one can be standard output")
    for flag, file in files.items():
        if file is None or file == "-":
            continue
        path = Path(file)
        if path.is_dir() or file.endswith(os.sep) or not file:
            raise TSLMError(f"--{flag} {file}: that is a folder; name a file, such as {path / f'found.{flag}'}")
        if not path.absolute().parent.is_dir():
            raise TSLMError(f"--{flag} {file}: there is no folder {path.absolute().parent}")
    if to_stdout:
        results_to_stderr()


def write_bytes(file: str, content: bytes, what: str) -> None:
    """As `write`, of what is no text."""
    if file == "-":
        sys.stdout.buffer.write(content)
        return
    with replacing(Path(file)) as scratch:
        scratch.write_bytes(content)
    status.print(f"{what} is in {file}", style="dim", soft_wrap=True)


def write(file: str, text: str, what: str) -> None:
    """Write `text` to a file, as a whole or not at all, or to standard output; `what` is said of it on stderr."""
    if file == "-":
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
        return
    write_atomically(Path(file), text)
    status.print(f"{what} is in {file}", style="dim", soft_wrap=True)
