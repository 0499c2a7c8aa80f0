"""Where files are kept, and writing them so that a reader sees the old one or the whole new one."""

import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlx_tslm.errors import TSLMError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_dir() -> Path:
    """Where converted models and fetched data are kept: `$MLX_TSLM_CACHE`, or `~/.cache/mlx-tslm`."""
    return Path(os.environ.get("MLX_TSLM_CACHE") or Path.home() / ".cache" / "mlx-tslm")


def scratch_of(path: Path) -> Path:
    """The file that is written in the place of `path` until it is whole: `.NAME.new.SUFFIX` beside it."""
    return path.with_name(f".{path.stem}.new{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to that becomes `path` at the end of the block, or vanishes.

    Its name is always the same (`scratch_of`), so what a kill has left is taken over by the next writer and never
    piles up; writers of one path wait for each other.

    Raises:
        TSLMError: the disk is full; `path` is as it was.
    """
    scratch = scratch_of(path)
    handle = _locked(scratch)
    try:
        yield scratch
        os.fsync(handle)
        scratch.replace(path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise TSLMError(f"the disk is full: {path} was not written; free some space and try again") from None
        raise
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all; nothing is left behind on failure.

    What is there and is no file (`/dev/stdout`, a pipe) is written to as it is.

    Raises:
        TSLMError: the disk is full.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8")
        return
    with replacing(path) as scratch:
        scratch.write_text(text, "utf-8")


def whole_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file that only grows, without the part of one that a kill may have left at its end.

    A line ends at \n alone: other characters that Unicode calls line ends stand inside of texts.

    Raises:
        TSLMError: it is no UTF-8.
    """
    data = path.read_bytes()
    try:
        return data[: data.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise TSLMError(f"{path} is no UTF-8 text (byte {error.start}); mend or remove it") from None


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders take each other's names in one step, so that neither name is ever without one.

    Returns:
        False where the file system or the machine cannot, and nothing was done.
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return library.renamex_np(*names, ctypes.c_uint(2)) == 0  # RENAME_SWAP
        here = ctypes.c_int(-100)  # AT_FDCWD
        return library.renameat2(here, names[0], here, names[1], ctypes.c_uint(2)) == 0  # RENAME_EXCHANGE
    except (OSError, AttributeError):
        return False


def _locked(scratch: Path) -> int:
    """Open a scratch file that no other process writes to, having waited for that."""
    while True:
        handle = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if scratch.exists() and os.path.samestat(os.fstat(handle), scratch.stat()):
                os.ftruncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it has given it its own name since
