"""Download a file over HTTP: what broke off goes on where it ended, and a file under its name is whole."""

import errno
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from rich.filesize import decimal

from mlx_tslm.errors import TSLMError

Progress = Callable[[str, int, int | None], None]
"""What is being done, bytes done, bytes in all (None where not known)."""

_CHUNK = 1 << 18
_ATTEMPTS = 4  # without a byte of progress
_TIMEOUT = 60  # seconds without an answer


def download(url: str, path: Path, progress: Progress) -> None:
    """Download `url` to `path`, unless it is there.

    Bytes go to `<path>.part`. A later call, or another attempt after the connection broke, asks for the rest
    only (HTTP Range), and the server sends it if the file has not changed since (If-Range: its entity tag or
    date, kept in `<path>.part.tag`). The file gets its name when it has as many bytes as the server said.

    Raises:
        TSLMError: the server refuses, cannot be reached, or keeps breaking off.
    """
    part = path.with_name(path.name + ".part")
    if path.exists():
        _tag(part).unlink(missing_ok=True)  # which a kill may have left
        return
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, part, lambda done, total: progress(f"fetching {path.name}", done, total))
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # there is nothing after what is here
                if error.headers.get("Content-Range", "").endswith(f"/{before}"):
                    break
                part.unlink()
                continue
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise TSLMError(
                    f"{url} answers {error.code} {error.reason}; if it has moved, download it by hand and give its "
                    "folder with --data-dir"
                ) from None
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
                raise  # the disk, not the connection
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
        if failures >= _ATTEMPTS:
            have = (
                f"; {decimal(_size(part))} are here, and the same command goes on from there" if _size(part) else ""
            )
            raise TSLMError(f"{url} cannot be fetched: {reason}{have}") from None
        time.sleep(0.5 * 2**failures)
    part.replace(path)
    _tag(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, report: Callable[[int, int | None], None]) -> None:
    """One attempt: append to `part` what is missing of it.

    Raises:
        OSError, HTTPException: the connection failed, or ended early.
    """
    headers = {"User-Agent": "mlx-tslm", "Accept-Encoding": "identity"}
    have, tag = _size(part), _tag(part)
    if have and tag.exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT, context=_certificates()) as response:
        if response.status != 206:
            have = 0
            tag.unlink(missing_ok=True)
            known = response.headers.get("ETag", "W/")
            if known.startswith("W/"):  # a weak tag may stand for other bytes
                known = response.headers.get("Last-Modified", "")
            if known:
                tag.write_text(known)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            report(have, total)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                report(have, total)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


@cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates, and certifi's: some Python installations on macOS see none of the system's."""
    context = ssl.create_default_context()
    with suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
