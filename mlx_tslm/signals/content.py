"""What a file holds, whatever its name says: unpacked bytes, text in its own encoding, or what is no data."""

import gzip
import io
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mlx_tslm.errors import TSLMError

_MAGIC = {
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Office file (.xls)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"SQLite format 3": "an SQLite database",
    b"MATLAB 5.0 MAT-file": "a MATLAB file (.mat)",
    b"\x89HDF": "an HDF5 file (.h5)",
    b"PAR1": "a Parquet file (.parquet)",
    b"RIFF": "a sound file (.wav)",
    b"\x93NUMPY": "a NumPy file (.npy)",
}


def unpacked(data: bytes, max_gb: float) -> bytes:
    """The bytes themselves, or what they were compressed from (gzip).

    Raises:
        TSLMError: they unpack to more than `max_gb`, or are damaged.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            out = stream.read(int(max_gb * 1e9) + 1)
    except (OSError, EOFError, ValueError) as error:
        raise TSLMError(f"the compressed file is damaged or cut off: {error}") from None
    except Exception as error:  # zlib.error
        raise TSLMError(f"the compressed file is damaged: {error}") from None
    if len(out) > max_gb * 1e9:
        raise TSLMError(f"it unpacks to more than {max_gb:g} GB; --max-gb lifts the limit")
    return out


def text(data: bytes) -> tuple[str, list[str]]:
    """Text in UTF-8, UTF-16 or UTF-32 (by its byte order mark, or its zeros), else in Windows-1252; and notes.

    Raises:
        TSLMError: the bytes are no text, or are a web page, a Git LFS pointer, ... in a table's place.
    """
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise TSLMError(f"it is {what}, whatever its name says")
    if data.startswith(b"PK\x03\x04"):
        inside = (
            "a spreadsheet (.xlsx)"
            if b"xl/" in data[:4000] or b"[Content_Types]" in data[:200]
            else "a zip archive"
        )
        raise TSLMError(f"it is {inside}, whatever its name says; rename or unpack it")
    decoded, notes = _decoded(data)
    head = decoded[:3000].lstrip("\ufeff \t\r\n")
    if re.match(r"<(?:!doctype html|html|head|body)", head, re.I):
        title = re.search(r"<title>(.*?)</title>", head, re.I | re.S)
        raise TSLMError(
            f"it is a web page (HTML{f', {title[1].strip()[:40]!r}' if title else ''}), no data; download the file "
            "again"
        )
    if head.startswith("<?xml") or re.match(r"<[A-Za-z][\w:-]*(?:\s[^>]*)?>(?![,;\t])", head):
        raise TSLMError("it is XML, which is not read; export it as CSV")
    if head.startswith("version https://git-lfs"):
        raise TSLMError("it is a Git LFS pointer in the data's place; fetch the data with: git lfs pull")
    return decoded, notes


class Held:
    """A file in memory, as far as readers use a path: it was sent, and is never written to a disk."""

    def __init__(self, name: str, data: bytes) -> None:
        self._path, self._data = PurePosixPath(name), data

    def __str__(self) -> str:
        return str(self._path)

    @property
    def suffix(self) -> str:
        return self._path.suffix

    @property
    def suffixes(self) -> list[str]:
        return self._path.suffixes

    def read_bytes(self) -> bytes:
        return self._data

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self._data)


AnyFile = Path | Held


def source_of(file: AnyFile) -> Any:
    """What a library is given to read: the path, or a stream of what is in memory."""
    return file if isinstance(file, Path) else file.open()


def lines(text: str) -> list[str]:
    r"""The lines of a text. They end at \n, \r\n or \r: what else Unicode calls a line's end stands in names."""
    return re.split(r"\r\n|\r|\n", text)


def is_text(path: AnyFile) -> bool:
    """Whether a file's first bytes are printable ASCII, as a table's are."""
    with path.open("rb") as stream:
        head = stream.read(2000)
    return bool(head) and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head)


def _decoded(data: bytes) -> tuple[str, list[str]]:
    marks = (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    )
    encoding = next((name for mark, name in marks if data.startswith(mark)), "")
    if not encoding and len(data) > 3:
        odd, even = data[1:2000:2], data[0:2000:2]
        if odd.count(0) > 0.7 * len(odd) and not even.count(0):
            encoding = "utf-16-le"
        elif even.count(0) > 0.7 * len(even) and not odd.count(0):
            encoding = "utf-16-be"
    try:
        decoded = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding or b"\0" in data or _binary(data):
            raise TSLMError(f"it is not text: byte {error.start} is no {encoding or 'UTF-8'}") from None
        return data.decode("cp1252", errors="replace"), ["it is no UTF-8, so it was read as Windows-1252 (Latin-1)"]
    if "\0" in decoded:
        raise TSLMError(f"it is not text: byte {data.index(0)} is zero")
    return decoded, []


def _binary(data: bytes) -> bool:
    head = data[:4000]
    control = sum(byte < 32 and byte not in b"\t\r\n\f" for byte in head)
    return control > 0.02 * len(head)
