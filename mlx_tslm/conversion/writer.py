"""Writing the output folder: whole or not at all, one tensor in memory at a time."""

import errno
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx

from mlx_tslm import files
from mlx_tslm.conversion.plan import Stored, Target
from mlx_tslm.conversion.store import read_config
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching.http import Progress

MAX_SHARD = 5 << 30  # bytes, as in mlx-lm
_DTYPES = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.int64: "I64",
    mx.uint8: "U8",
    mx.bool_: "BOOL",
}


@contextmanager
def staged(output: Path, nbytes: int, force: bool, own: bool = False) -> Iterator[Path]:
    """A temporary folder beside `output` that becomes it at the end of the block, or vanishes.

    A kill leaves at most a hidden folder, which the next conversion to the same place removes.

    Args:
        nbytes: what will be written, to be sure of the space.
        force: replace a converted model that is there already.
        own: the folder is nobody's but the caller's: replace whatever is in it.

    Raises:
        TSLMError: the output exists, cannot be written, or there is no space for it.
    """
    output = check_output(output, force, own)
    try:
        home = output if _stays(output) else output.parent
        home.mkdir(parents=True, exist_ok=True)
        _tidy(output)
        free = shutil.disk_usage(home).free
        if free < nbytes * 1.01 + 2**20:
            raise TSLMError(
                f"no space: the model needs {nbytes / 1e9:.2f} GB, and {home} has {free / 1e9:.2f} GB free"
            )
        scratch = home / _scratch(output, "tmp").name
        scratch.mkdir()
    except OSError as error:
        raise TSLMError(f"cannot write to {output.parent}: {error.strerror}") from None
    handle = os.open(scratch, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # tells a live conversion's folder from one that a kill has left
    try:
        yield scratch
        if not own:
            refuse_existing(output, force)  # another process may have been faster
        _publish(scratch, output)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TSLMError(f"the disk is full: {output} was not written; free some space and try again") from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def check_output(output: Path, force: bool, own: bool = False) -> Path:
    """Make sure, before any work, that a folder can be written, and return where it really is: links are followed.

    Raises:
        TSLMError: there is something at `output`, or nothing can be written there.
    """
    try:
        output = Path(os.path.realpath(output.expanduser()))  # a loop of links stays one
        if not own:
            refuse_existing(output, force)
    except OSError as error:
        raise TSLMError(f"cannot write to {output}: {error.strerror}") from None
    if output.is_symlink():
        raise TSLMError(f"cannot write to {output}: it is a link to itself")
    home = output if _stays(output) else output.parent
    while not home.exists() and home != home.parent:
        home = home.parent
    if not home.is_dir() or home.is_symlink():
        raise TSLMError(f"cannot write to {output}: {home} is no folder")
    if not os.access(home, os.W_OK | os.X_OK):
        raise TSLMError(f"cannot write to {output}: {home} is not yours to write in; choose another folder with -o")
    return output


def _stays(output: Path) -> bool:
    """Whether a folder cannot be replaced by a rename: a mount point, or one in a folder that is not ours."""
    return output.is_dir() and (output.is_mount() or not os.access(output.parent, os.W_OK | os.X_OK))


def refuse_existing(output: Path, force: bool) -> None:
    """Make sure that nothing is overwritten unasked, and nothing ever that is no converted model.

    Raises:
        TSLMError: there is something at `output`.
    """
    if not output.exists() or (output.is_dir() and all(_is_scratch(path, output) for path in output.iterdir())):
        return
    if read_config(output) is None:
        raise TSLMError(f"{output} exists and is no converted model; choose another folder with -o")
    if not force:
        raise TSLMError(f"{output} exists; replace it with --force, or choose another folder with -o")


def _scratch(output: Path, kind: str) -> Path:
    return output.with_name(f".{output.name}.{kind}-{os.getpid()}")


def _is_scratch(path: Path, output: Path) -> bool:
    return path.name.startswith(f".{output.name}.tmp-") or path.name == "lost+found"


def _tidy(output: Path) -> None:
    """Remove what killed conversions to this place have left, and put back a model that one was replacing."""
    name = glob.escape(output.name)
    for old in output.parent.glob(f".{name}.old-*"):
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(output)
    for stale in [*output.parent.glob(f".{name}.tmp-*"), *output.glob(f".{name}.tmp-*")]:
        handle = os.open(stale, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stale, ignore_errors=True)
        except BlockingIOError:  # another conversion is at work
            pass
        finally:
            os.close(handle)


def _publish(scratch: Path, output: Path) -> None:
    if _stays(output):
        _move_into(scratch, output)
        return
    if not output.exists():
        scratch.rename(output)
        return
    if files.exchange(scratch, output):  # in one step; what was there goes with the scratch folder
        return
    old = _scratch(output, "old")
    output.rename(old)
    scratch.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def _move_into(scratch: Path, output: Path) -> None:
    """Fill a folder that stays: `config.json`, which makes it a model, goes first and comes last."""
    for old in [output / "config.json", *output.iterdir()]:
        if old.is_file() and not old.is_symlink():
            old.unlink()
    for path in sorted(scratch.iterdir(), key=lambda path: path.name == "config.json"):
        path.rename(output / path.name)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an indented JSON file."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_weights(
    folder: Path, targets: Iterable[Target], base: dict[str, mx.array], progress: Progress | None = None
) -> None:
    """Write the model's tensors as `model*.safetensors` with an index.

    Each block of a tensor is made, written and freed before the next one.

    Args:
        base: the base LLM's lazy weights; they are taken out as they are used.
    """
    shards = _shards(targets)
    stored = [part for shard in shards for target in shard for part in target.stored()]
    total, done = sum(part.nbytes for part in stored), 0
    index: dict[str, str] = {}
    limit = mx.set_cache_limit(0)  # freed tensors go back to the system, not into MLX's cache
    try:
        for number, shard in enumerate(shards, start=1):
            name = (
                f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
            )
            with (folder / name).open("wb") as file:
                _write_header(file, [part for target in shard for part in target.stored()])
                for target in shard:
                    parts, start = target.stored(), file.tell()
                    for row, arrays in target.blocks(base):
                        place = start
                        for part, array in zip(parts, arrays, strict=True):
                            assert array.shape[1:] == part.shape[1:] and array.dtype == part.dtype, part.name
                            file.seek(place + (row * part.nbytes // part.shape[0] if row else 0))
                            file.write(memoryview(array.reshape(-1).view(mx.uint8)))  # type: ignore[arg-type]
                            place += part.nbytes
                            done += array.nbytes
                        if progress is not None:
                            progress("converting", done, total)
                    file.seek(start + sum(part.nbytes for part in parts))
                    index |= {part.name: name for part in parts}
                file.flush()
                os.fsync(file.fileno())
    finally:
        mx.set_cache_limit(limit)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))},
    )


def _shards(targets: Iterable[Target]) -> list[list[Target]]:
    shards: list[list[Target]] = []
    size = 0
    for target in targets:
        nbytes = sum(part.nbytes for part in target.stored())
        if not shards or size + nbytes > MAX_SHARD:
            shards.append([])
            size = 0
        shards[-1].append(target)
        size += nbytes
    return shards


def _write_header(file: BinaryIO, stored: list[Stored]) -> None:
    """The head of a safetensors file: a length, and each tensor's dtype, shape and place in what follows."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    start = 0
    for part in stored:
        end = start + part.nbytes
        header[part.name] = {"dtype": _DTYPES[part.dtype], "shape": part.shape, "data_offsets": [start, end]}
        start = end
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    file.write(len(data).to_bytes(8, "little") + data)
