"""The weight files of a folder, a base LLM's or a converted model's, and what is in them."""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import cast

import mlx.core as mx
import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.schema import shown, validate

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_READABLE = {"F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def read_index(folder: Path) -> dict[str, str] | None:
    """Which file each tensor is in, as the index says; None where there is no index.

    Raises:
        TSLMError: the index is damaged, or names files elsewhere.
    """
    try:
        content = json.loads((folder / INDEX).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise TSLMError(f"{INDEX} in {folder} is damaged or truncated; fetch it again") from None
    names = content.get("weight_map") if isinstance(content, dict) else None
    if names is None:
        raise TSLMError(f"{INDEX} in {folder} has no weight_map; fetch it again")
    names = validate(dict[str, str], names, f"{INDEX}: weight_map")
    for file in names.values():
        if PurePath(file).name != file or not file.endswith(".safetensors"):
            raise TSLMError(f"{INDEX}: {shown(file)} is no name of a safetensors file in its folder")
    return cast(dict[str, str], names)


def weight_files(folder: Path) -> list[Path]:
    """Exactly the files that the index names, or `model.safetensors` alone; strays beside them are not weights.

    Raises:
        TSLMError: one is missing, damaged or truncated, or the index is.
    """
    index = read_index(folder)
    if index is None and not (folder / _SINGLE).is_file():
        if (folder / "model-00001-of-00001.safetensors").is_file():
            return [_checked(folder / "model-00001-of-00001.safetensors")]
        what = f"{INDEX}, so nobody knows which file counts" if any(folder.glob("*.safetensors")) else _SINGLE
        raise TSLMError(f"there is no {what} (there is no model*.safetensors that could be read) in {folder}")
    names = sorted(set(index.values())) if index is not None else [_SINGLE]
    if not names:
        raise TSLMError(f"{INDEX} in {folder} names no file")
    if missing := next((name for name in names if not (folder / name).is_file()), None):
        raise TSLMError(f"{missing} is missing in {folder}; fetch the rest of it")
    return [_checked(folder / name) for name in names]


def read_weights(folder: Path) -> dict[str, mx.array]:
    """All tensors, lazy: each is read from disk when it is first evaluated.

    Raises:
        TSLMError: as `weight_files`; or a file lacks a tensor that the index says is in it.
    """
    index = read_index(folder) or {}
    weights: dict[str, mx.array] = {}
    for path in weight_files(folder):
        try:
            loaded = cast(dict[str, mx.array], mx.load(str(path)))
        except (RuntimeError, ValueError) as error:
            raise TSLMError(f"{path.name} cannot be read ({str(error)[:100]}); fetch it again") from None
        for name, file in index.items():
            if file == path.name and name not in loaded:
                raise TSLMError(f"{INDEX} says that {name[:200]} is in {file}, but it is not; fetch both again")
        weights |= {name: array for name, array in loaded.items() if index.get(name, path.name) == path.name}
    return weights


def check_finite(name: str, array: mx.array) -> None:
    """Refuse NaN and infinite values.

    Raises:
        TSLMError: there are some; says how many.
    """
    if not mx.issubdtype(array.dtype, mx.floating):
        return
    bad = array.size - int(np.array(mx.isfinite(array).sum()))
    if bad:
        raise TSLMError(
            f"{name} holds {bad} NaN or infinite values of {array.size}; "
            "its training diverged, or the file is damaged"
        )


def save_arrays(path: Path, arrays: dict[str, mx.array], facts: dict[str, str]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written; MLX does not say why, so whether the disk is full is asked of the system.
    """
    try:
        mx.save_safetensors(str(path), arrays, facts)
    except RuntimeError as error:
        needed = sum(array.nbytes for array in arrays.values())
        full = shutil.disk_usage(path.parent).free < needed
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code) if full else str(error)[:200], str(path)) from None


def _checked(path: Path) -> Path:
    """A safetensors file whose header makes sense: names, dtypes, shapes, and places that lie in the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        why = " ".join(str(error).split())[:100]
        raise TSLMError(f"{path.name} is damaged or truncated ({why}); fetch it again") from None
    for name, dtype in dtypes.items():
        if dtype not in _READABLE:
            raise TSLMError(f"{path.name}: {name[:200]} is of {dtype}, which is not supported")
    return path


def same(weights: Mapping[str, mx.array], first: str, second: str) -> bool:
    """Whether two tensors hold the same values."""
    a, b = weights[first], weights[second]
    return a.shape == b.shape and bool(mx.array_equal(a, b).item())
