"""A server on this machine that speaks as much of the Hub's API as is used, and misbehaves when it is told to."""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE = 4096  # bytes, from which a file's hash is its SHA-256
TROUBLES: dict[str, Callable[["Handler", bytes, int], None]] = {}


def trouble(function: Callable[["Handler", bytes, int], None]) -> Callable[["Handler", bytes, int], None]:
    """Register a way of answering: it gets the file and the first byte that is wanted of it."""
    TROUBLES[function.__name__] = function
    return function


class FakeHub(ThreadingHTTPServer):
    """Repositories, by kind and name, as `{name: bytes}`; what goes wrong, and what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str, str | None, str | None]] = []  # method, path, range, authorization
        self.trouble: dict[str, str] = {}  # by "HEAD", "GET" (a file) or "API": the name of a trouble
        self.times = 1 << 30  # how often, then all is well
        self.hang = threading.Event()

    def wrong(self, name: str, *where: str, times: int = 1 << 30) -> None:
        """From now on, requests of these kinds go wrong so."""
        self.trouble, self.times = dict.fromkeys(where, name), times

    def add(self, repo: str, folder: Path) -> None:
        """A folder's files as a repository."""
        self.repos[repo] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hung up


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: every answer ends its connection."""

    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+?))?/?", path)
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        content = hub.repos.get((file[1] or "") + file[2], {}).get(file[4], b"") if file else b""
        first = int(re.findall(r"\d+", self.headers["Range"])[0]) if self.headers["Range"] else 0
        name = hub.trouble.get("API" if api else self.command)
        if name and hub.times > 0:
            hub.times -= 1
            return TROUBLES[name](self, content, first)
        if api:
            return self.answer_api(api[1], api[2])
        repo = (file[1] or "") + file[2] if file else ""
        if not file or repo not in hub.repos:
            return self.refuse(404, "RepoNotFound")
        if file[3] not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if file[4] not in hub.repos[repo]:
            return self.refuse(404, "EntryNotFound")
        return self.send(content, first)

    def answer_api(self, repo: str, what: str | None) -> None:
        files = self.server.repos.get(repo)
        if files is None:
            return self.refuse(404, "RepoNotFound")
        if what != "tree":
            siblings = [{"rfilename": name} for name in files]
            return self.send_json({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings})
        return self.send_json(
            [
                {"type": "file", "path": name, "size": len(data), "oid": as_git(data)}
                | ({"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}}
                   if len(data) >= LARGE else {})
                for name, data in files.items()
            ]
        )  # fmt: skip

    def send_json(self, content: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def refuse(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Error-Code": code, "X-Error-Message": message, **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def head(self, content: bytes, first: int = 0, like: bytes | None = None) -> None:
        """The headers of a file; its hash and size are those of `like` where they are to be wrong."""
        stated = content if like is None else like
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{tag(stated)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()

    def send(self, content: bytes, first: int = 0, like: bytes | None = None) -> None:
        self.head(content, first, like)
        if self.command == "GET":
            self.wfile.write(content[first:])


def as_git(content: bytes) -> str:
    """The hash by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tag(content: bytes) -> str:
    """The hash that the Hub states for a file."""
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else as_git(content)


@trouble
def cut(handler: Handler, content: bytes, first: int) -> None:
    """Half of what is left of the body, then the connection ends."""
    handler.head(content, first)
    handler.wfile.write(content[first : first + (len(content) - first) // 2])


@trouble
def dropped(handler: Handler, content: bytes, first: int) -> None:
    """The connection is reset before an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


@trouble
def stalled(handler: Handler, content: bytes, first: int) -> None:
    """Half of the body, then nothing."""
    handler.head(content, first)
    handler.wfile.write(content[first : first + (len(content) - first) // 2])
    handler.wfile.flush()
    handler.server.hang.wait(60)


@trouble
def mute(handler: Handler, content: bytes, first: int) -> None:
    """No answer at all."""
    handler.server.hang.wait(60)


@trouble
def garbage(handler: Handler, content: bytes, first: int) -> None:
    """An answer that is not HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


@trouble
def forbidden(handler: Handler, content: bytes, first: int) -> None:
    """A refusal that is no gate."""
    handler.refuse(403, message="Your organisation's policy forbids it")


@trouble
def gated(handler: Handler, content: bytes, first: int) -> None:
    """A repository one has to ask for."""
    handler.refuse(403, "GatedRepo", "Access to model is restricted")


@trouble
def disabled(handler: Handler, content: bytes, first: int) -> None:
    """A repository that the Hub has closed."""
    handler.refuse(403, message="Access to this resource is disabled.")


@trouble
def unauthorized(handler: Handler, content: bytes, first: int) -> None:
    """A token that does not count, or none."""
    handler.refuse(401, message="Invalid credentials in Authorization header")


@trouble
def proxy_login(handler: Handler, content: bytes, first: int) -> None:
    """A proxy that wants to know who asks."""
    handler.refuse(407)


@trouble
def too_many(handler: Handler, content: bytes, first: int) -> None:
    """Too many requests, without a word on how long."""
    handler.refuse(429)


@trouble
def too_many_for_an_hour(handler: Handler, content: bytes, first: int) -> None:
    """Too many requests, and none for an hour."""
    handler.refuse(429, Retry_After="3600")


@trouble
def broken(handler: Handler, content: bytes, first: int) -> None:
    """The server's own trouble."""
    handler.refuse(500)


@trouble
def overloaded(handler: Handler, content: bytes, first: int) -> None:
    """The server's own trouble, which passes."""
    handler.refuse(503)


@trouble
def portal(handler: Handler, content: bytes, first: int) -> None:
    """A network's sign-in page in place of everything."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html; charset=utf-8")
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(b"<html><body>Welcome to our hotel</body></html>")


@trouble
def portal_elsewhere(handler: Handler, content: bytes, first: int) -> None:
    """A redirection to a network's sign-in page."""
    handler.refuse(302, Location="http://127.0.0.1:9/login")


@trouble
def going_round(handler: Handler, content: bytes, first: int) -> None:
    """A redirection to itself."""
    handler.refuse(302, Location=handler.path)


@trouble
def wrong_bytes(handler: Handler, content: bytes, first: int) -> None:
    """As many bytes as there should be, others."""
    handler.send(content.translate(bytes(byte ^ 1 for byte in range(256))), first, like=content)


@trouble
def wrong_part(handler: Handler, content: bytes, first: int) -> None:
    """The wrong range: the first half is sent again where the rest was asked for."""
    if not first:
        return cut(handler, content, first)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@trouble
def no_ranges(handler: Handler, content: bytes, first: int) -> None:
    """Ranges are not heard of, and the body is cut."""
    handler.head(content)
    handler.wfile.write(content[: len(content) * 2 // 3])


@trouble
def evil_tag(handler: Handler, content: bytes, first: int) -> None:
    """A hash that is a path out of the cache."""
    handler.send_response(200)
    handler.send_header("ETag", '"../../../../evil"')
    handler.send_header("X-Repo-Commit", "../../../evil")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(content)


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub without repositories, until the end of the block."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.hang.set()
        hub.shutdown()
        thread.join()
        hub.server_close()
