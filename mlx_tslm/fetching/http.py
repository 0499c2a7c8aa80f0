"""Download a file over HTTP: what broke off goes on where it ended, and a file under its name is whole."""

import errno
import fcntl
import http.client
import logging
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from rich.filesize import decimal

from mlx_tslm.errors import TSLMError

Progress = Callable[[str, int, int | None], None]
"""What is being done, bytes done and bytes in all (None where not known)."""

PASSING = (408, 429, 500, 502, 503, 504)
"""What a server answers that may answer otherwise in a moment."""
ATTEMPTS = 4
"""How often is asked without a byte of progress."""

_CHUNK = 1 << 18
_TIMEOUT = 15.0  # seconds without a byte
_BY_HAND = "if it has moved, download it by hand and give its folder with --data-dir"
_PORTAL = (
    "a page of HTML was answered in its place: sign in to the network you are in, or check the proxy (HTTPS_PROXY)"
)

_log = logging.getLogger(__name__)


def download(
    url: str,
    path: Path,
    progress: Progress,
    *,
    headers: Mapping[str, str] | None = None,
    size: int | None = None,
    timeout: float = _TIMEOUT,
    advice: str = _BY_HAND,
    name: str = "",
) -> None:
    """Download `url` to `path`.

    Bytes go to `<path>.part`. A later call, or another attempt after the connection broke, asks for the rest
    only (HTTP Range), and the server sends it if the file has not changed since (If-Range: its entity tag or
    date, kept in `<path>.part.tag`). The file gets its name when it has as many bytes as the server said. A second
    process that fetches the same file waits for the first. What is waited for is logged.

    Args:
        url: what to get; `headers` go to its host alone, and not where that redirects to.
        path: where to.
        progress: called as bytes arrive.
        size: in bytes, where it is known beforehand.
        timeout: seconds without a byte after which an attempt has failed; there are `ATTEMPTS` of them.
        advice: ends the error of a server that refuses.
        name: what to call the file, where that of `path` says nothing.

    Raises:
        TSLMError: the server refuses, cannot be reached, answers with a page of HTML, or keeps breaking off.
        OSError: of the disk.
    """
    name = name or path.name
    shown = url.partition("?")[0]  # signed addresses run on
    with _claimed(path, name) as part:
        failures, most = 0, _length(part) if part is not None else 0
        while part is not None:
            enough = 1
            try:
                _transfer(
                    url, path, part, headers or {}, size, timeout, lambda *done: progress(f"fetching {name}", *done)
                )
                break
            except urllib.error.HTTPError as error:
                if error.code == 416 and _length(part):  # there is nothing after what is here
                    if error.headers.get("Content-Range", "").endswith(f"/{_length(part)}"):
                        break
                    part.truncate(0)
                    continue
                said = " ".join(str(error.reason).split())[:200]
                if error.code not in PASSING:
                    hint = f"{meaning(error.code)}; " if meaning(error.code) else ""
                    raise TSLMError(f"{shown} answers {error.code} {said}; {hint}{advice}") from None
                reason = f"{error.code} {said}"
                advised = meaning(error.code)
                pause = wished(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
                    raise  # the disk, not the connection
                reason, advised, pause = why(error), remedy(error), None
                enough = _CHUNK if isinstance(error, TimeoutError) else 1  # a trickle does not buy more waiting
            failures = 0 if _length(part) >= most + enough else failures + 1
            most = max(most, _length(part))
            wait = 0.5 * 2**failures if pause is None else pause
            if failures >= ATTEMPTS or wait > 30:
                raise TSLMError(
                    f"{shown} cannot be fetched: {reason}{_kept(_length(part))}; {_later(pause, advised)}"
                ) from None
            _log.warning(f"{urlsplit(url).hostname}: {reason}; trying again in {wait:g} s")
            time.sleep(wait)
        if part is not None:
            _tag(path).unlink(missing_ok=True)  # first: a kill between the two costs a download, and leaves nothing
            path.with_name(f"{path.name}.part").replace(path)


def discard(path: Path) -> None:
    """Remove a file that turned out wrong, and what is left of its download."""
    for file in (path, path.with_name(f"{path.name}.part"), _tag(path)):
        file.unlink(missing_ok=True)


def why(error: BaseException) -> str:
    """What failed, of a connection that did: the cause at the bottom, in a person's words."""
    for one in reversed(list(causes(error))):
        if isinstance(one, ssl.SSLError):
            return f"its certificate is not accepted ({one.reason or one})"
        if isinstance(one, socket.gaierror):
            return "its address cannot be found"
        if isinstance(one, TimeoutError) or "Timeout" in type(one).__name__:
            return "it does not answer in time"
        if isinstance(one, ConnectionRefusedError):
            return "the connection is refused"
        if isinstance(one, http.client.IncompleteRead):
            return "the connection ended early"
    said = " ".join(str(getattr(error, "reason", "") or error).split()) or type(error).__name__
    return said[:200]


def remedy(error: BaseException) -> str:
    """What a person can do about a connection that failed."""
    if any(isinstance(one, ssl.SSLError) for one in causes(error)):
        return "check the clock, the proxy, and SSL_CERT_FILE where your network has certificates of its own"
    return "go online, check the proxy (HTTPS_PROXY), or try again later"


def meaning(code: int) -> str:
    """What an HTTP status says a person can do; "" where it says nothing."""
    if code == 407:
        return "a proxy wants a login: put it into HTTPS_PROXY"
    if code in (401, 403):
        return "it wants a login, or a proxy or firewall stands between"
    if code == 429:
        return "it was asked too often: wait some minutes and try again"
    return "the trouble is at the server: wait and try again" if code >= 500 or code == 408 else ""


def is_page(content_type: str | None) -> bool:
    """Whether what is answered is a page for people to read, and no file."""
    return (content_type or "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it wraps, and what led to it."""
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        one = pending.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            pending += [getattr(one, "reason", None), one.__cause__, one.__context__]


def _kept(length: int) -> str:
    return f"; {decimal(length)} are here, and the same command goes on from there" if length else ""


def _later(pause: float | None, advised: str) -> str:
    return f"wait {pause:.0f} s and try again" if pause else advised


def wished(said: str | None) -> float | None:
    """The seconds that a server wants to be left alone, as its Retry-After says."""
    said = said or ""
    return float(said) if said.isdecimal() and len(said) < 8 else None


@contextmanager
def _claimed(path: Path, name: str) -> Iterator[BinaryIO | None]:
    """The file that collects the bytes, for this process alone; None where another one made `path` meanwhile."""
    part = path.with_name(f"{path.name}.part")
    waited = False
    while True:
        with part.open("ab") as file:
            with suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waited = True
                    _log.warning(f"another process is fetching {name}; waiting for it")
                    fcntl.flock(file, fcntl.LOCK_EX)
            if waited and path.exists():
                if _length(file) == 0 and part.exists():
                    part.unlink()
                yield None
                return
            if not part.exists() or part.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # it was renamed or removed while this process waited
            try:
                yield file
            finally:
                if part.exists() and _length(file) == 0:
                    part.unlink()  # nothing came
            return


def _transfer(
    url: str,
    path: Path,
    part: BinaryIO,
    headers: Mapping[str, str],
    size: int | None,
    timeout: float,
    report: Callable[[int, int | None], None],
) -> None:
    """One attempt: append to `part` what is missing of it.

    Raises:
        OSError, HTTPException: the connection failed, or ended early.
    """
    have, tag = _length(part), _tag(path)
    request = urllib.request.Request(url, headers={"User-Agent": "mlx-tslm", "Accept-Encoding": "identity"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)  # a token stays with its host
    if have and tag.exists():
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag.read_text())
    with urllib.request.urlopen(request, timeout=timeout, context=_certificates()) as response:
        if is_page(response.headers.get("Content-Type")):
            raise TSLMError(f"{url.partition('?')[0]} cannot be fetched: {_PORTAL}")
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            if response.status == 206:
                tag.unlink(missing_ok=True)
                part.truncate(0)
                raise ConnectionError("the server sends another part than it was asked for")
            have = 0
            part.truncate(0)
            tag.unlink(missing_ok=True)
            known = response.headers.get("ETag", "W/")
            if known.startswith("W/"):  # a weak tag may stand for other bytes
                known = response.headers.get("Last-Modified", "")
            if known:
                tag.write_text(known)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else size
        report(have, total)
        while chunk := response.read1(_CHUNK):  # whatever is there: a read that times out keeps it
            part.write(chunk)
            have += len(chunk)
            report(have, total)
    part.flush()
    expected = size if size is not None else total
    if expected is not None and have != expected:
        if have > expected or total == have:  # whole, and something else
            tag.unlink(missing_ok=True)
            part.truncate(0)
            raise ConnectionError(f"the server sends {have} bytes in place of {expected}")
        raise ConnectionError(f"the connection ended after {have} of {expected} bytes")


@cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates, and certifi's: some Python installations on macOS see none of the system's."""
    context = ssl.create_default_context()
    with suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _tag(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.tag")


def _length(file: BinaryIO) -> int:
    file.flush()
    return os.fstat(file.fileno()).st_size
