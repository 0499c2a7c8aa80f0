"""The server's routes, and who is let in."""

import hmac
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_tslm.serve.endpoint import Endpoint
from mlx_tslm.serve.page import Results
from mlx_tslm.serve.people import People
from mlx_tslm.serve.service import RETRY_SECONDS, Service
from mlx_tslm.serve.wire import Refused

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def make_app(
    service: Service, hosts: Sequence[str] = LOOPBACK, api_key: str | None = None, origins: Sequence[str] = ()
) -> Starlette:
    """The application.

    Args:
        service: answers.
        hosts: names under which it may be called; another `Host` is refused (DNS rebinding).
        api_key: demanded as a bearer token, where there is one.
        origins: other sites that may call it (CORS); none by default.
    """
    guards = [Middleware(Guard, hosts=tuple(hosts), api_key=api_key)]
    if origins:
        guards.insert(0, Middleware(CORSMiddleware, allow_origins=list(origins), allow_headers=["*"]))
    results = Results()
    endpoint, people = Endpoint(service, results), People(service, results)
    return Starlette(
        routes=[
            Route("/v1/models", endpoint.models),
            Route("/v1/models/{name:path}", endpoint.model),
            Route("/v1/chat/completions", endpoint.complete, methods=["POST"]),
            Route("/health", endpoint.health),
            Route("/openapi.json", endpoint.describe),
            Route("/", people.page),
            Route("/about", people.about),
            Route("/read", people.read, methods=["POST"]),
            Route("/samples/{name}", people.sample),
            Route("/results/{name}", people.result),
        ],
        middleware=guards,
        exception_handlers={Refused: refusal, HTTPException: unknown, Exception: broken},
    )


class Guard:
    """Lets through only requests for this host, with the key where one is demanded."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], api_key: str | None) -> None:
        self._app, self._hosts, self._key = app, hosts, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if (refused := self._refused(headers, scope["path"])) is not None:
                await _told(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refused(self, headers: dict[bytes, bytes], path: str) -> Refused | None:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._hosts:
            return Refused(421, "this server is not called by that name; give it with --host")
        # the page itself, and results, whose names nobody guesses, need no key
        if self._key is not None and path != "/" and not path.startswith("/results/"):
            given = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                return Refused(401, "the API key is missing or wrong", kind="authentication_error")
        return None


def _told(refused: Refused) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_SECONDS)} if refused.status == 503 else {}
    return JSONResponse(refused.body(), refused.status, headers)


async def refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _told(error)


async def unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _told(Refused(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}"))


async def broken(request: Request, error: Exception) -> Response:
    return _told(Refused(500, f"the server failed: {type(error).__name__}"))
