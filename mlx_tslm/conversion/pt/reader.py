"""A reader of torch's `.pt` files that needs no torch and executes nothing.

The format (torch 1.6 and later) is a zip of stored entries in one folder: `data.pkl`, a pickle that describes
everything (see `unpickler`), and `data/N`, the raw bytes of each storage.
"""

import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from mlx_tslm.conversion.pt.tensors import Record
from mlx_tslm.conversion.pt.unpickler import SAVE_AGAIN, Unpickler
from mlx_tslm.errors import TSLMError

_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # how torch's own format before 1.6 begins


def read(path: str | Path) -> dict[str, Any]:
    """Read a `.pt` file into dictionaries, lists, numbers, `Tensor` and `Record`.

    Tensors are views of the mapped file: their bytes are read when used.

    Raises:
        TSLMError: the file is missing, no checkpoint, truncated, damaged, in a form torch no longer writes,
            or wants to run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise TSLMError(f"{path.name} is empty")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise TSLMError(f"cannot read {path}: {error.strerror}") from None
    archive = _Archive(path, data)
    try:
        content = Unpickler(archive.bytes("data.pkl"), archive.name, archive.entry).load()
    except TSLMError as error:
        message = str(error)
        raise TSLMError(message if message.startswith(path.name) else f"{path.name}: {message}") from None
    except Exception:  # whatever garbage provokes in the interpreter, it is the file's fault
        raise TSLMError(
            f"{path.name}: its description (data.pkl) cannot be understood: it is damaged, or has a form that "
            f"torch does not write; fetch it again, or {SAVE_AGAIN}"
        ) from None
    if not isinstance(content, dict):
        kind = content.name if isinstance(content, Record) else type(content).__name__
        raise TSLMError(f"{path.name} holds a {kind[:80]}, not a checkpoint's dictionary; {SAVE_AGAIN}")
    return content


class _Archive:
    """The entries of the zip, as slices of the mapped file."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.name = path.name
        self._data = data
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
            raise TSLMError(_what_it_is(self.name, bytes(data[:512]))) from None
        self._entries = {info.filename: info for info in infos}
        if len(self._entries) != len(infos):
            raise TSLMError(f"{self.name}: two entries have the same name; this is no file that torch wrote")
        roots = [name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise TSLMError(f"{self.name} is a zip file, but not a torch checkpoint: it has no single data.pkl")
        self._root = roots[0]
        if f"{self._root}constants.pkl" in self._entries:
            raise TSLMError(f"{self.name} is a TorchScript program, not a checkpoint; save the weights instead")
        if f"{self._root}byteorder" in self._entries and bytes(self.bytes("byteorder")) != b"little":
            raise TSLMError(f"{self.name} was written on a big-endian machine; save it again on a usual one")

    def entry(self, name: str) -> tuple[memoryview, int]:
        """An entry's bytes and the checksum that the zip states for them (0: torch left it out)."""
        info = self._entries.get(self._root + name)
        if info is None:
            raise TSLMError(f"{self.name} is truncated or damaged: {name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise TSLMError(f"{self.name}: {name} is compressed or encrypted, which torch never does; not read")
        header = bytes(self._data[info.header_offset : info.header_offset + 30])
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise TSLMError(f"{self.name} is truncated or damaged at {name}")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > len(self._data):
            raise TSLMError(f"{self.name} is truncated: {name} reaches beyond the end of the file")
        return self._data[start : start + info.file_size], info.CRC

    def bytes(self, name: str) -> memoryview:
        """An entry's bytes, checked."""
        data, crc = self.entry(name)
        if crc and zlib.crc32(data) != crc:
            raise TSLMError(f"{self.name} is damaged: the checksum of {name} does not match; fetch it again")
        return data


def _what_it_is(name: str, head: bytes) -> str:
    if head.startswith(b"PK"):
        return f"{name} is truncated or damaged: the directory at its end is missing; fetch it again"
    if head.startswith(_MAGIC) or head[257:262] == b"ustar":
        return f"{name} has torch's format before version 1.6; load and save it once with a newer torch"
    if head.startswith(b"version https://git-lfs"):
        return f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`"
    if head[8:9] == b"{":
        return f"{name} is a safetensors file; a checkpoint of OpenTSLM is torch's .pt"
    return f"{name} is not a torch checkpoint"
