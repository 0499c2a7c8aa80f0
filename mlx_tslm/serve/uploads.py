"""Recordings that came with a request: decoded and read in memory, never written to a disk."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from mlx_tslm import signals
from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import How, Recording
from mlx_tslm.signals.content import Held


def decoded(text: str) -> bytes:
    """What a `file` part holds: base64, or a data URL with it.

    Raises:
        TSLMError: it is neither.
    """
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise TSLMError("file_data is a data URL without base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TSLMError("file_data is no base64") from None


def read_file(name: str, data: bytes, channels: Sequence[str] | None = None, **options: Any) -> Recording:
    """A recording from a file's content, by the readers of files.

    Args:
        name: of the file, which tells its kind; folders in it are ignored.
        data: its content.
        channels, options: as `signals.read` takes them.
    """
    how = How(**{key: options.pop(key) for key in ("case", "delimiter", "decimal", "time") if key in options})
    last = PurePosixPath(name.replace("\\", "/")).name or "recording"
    return signals.read(Held(last, data), channels, how=how, **options)


def from_values(
    values: list[Any], names: Sequence[str] = (), units: Sequence[str] = (), rate: float | None = None
) -> Recording:
    """A recording from numbers: a list, or a list of channels."""
    return Recording(values, names, rate, units)
