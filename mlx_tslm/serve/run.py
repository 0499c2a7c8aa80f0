"""The server's process: listens, and finishes what runs before it ends."""

import asyncio
import socket
from collections.abc import Callable, Sequence

import uvicorn

from mlx_tslm.errors import TSLMError
from mlx_tslm.serve.app import LOOPBACK, make_app
from mlx_tslm.serve.service import Limits, Service

GRACE = 30  # seconds that what runs has when the server is told to end


def run(
    source: str,
    host: str,
    port: int,
    api_key: str | None,
    origins: Sequence[str],
    width: int,
    memory: int,
    ready: Callable[[str], None],
) -> None:
    """Serve until a signal comes.

    Args:
        source: the model, as `mlx_tslm.load` takes it.
        host, port: where to listen; port 0 takes a free one.
        api_key, origins: see `app.make_app`.
        width: answers under way at once.
        memory: bytes of prompts that are remembered.
        ready: called with the address when the model has been loaded.

    Raises:
        TSLMError: the address cannot be listened on, or the model cannot be loaded.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise TSLMError(
            f"{host}:{port} cannot be listened on: {error.strerror or error}; choose another --port"
        ) from None
    port = listener.getsockname()[1]
    service = Service(source, Limits(width=width, memory=memory))
    named = f"[{host}]" if ":" in host else host
    app = make_app(service, (*LOOPBACK, named.lower()), api_key, origins)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE)
    server = uvicorn.Server(config)

    async def watch() -> None:
        serving = asyncio.ensure_future(server.serve([listener]))
        await asyncio.to_thread(service.wait)
        if service.failure is None:
            ready(f"http://{named}:{port}")
        else:
            server.should_exit = True
        await serving

    try:
        asyncio.run(watch())
    finally:
        service.close()
        listener.close()
    if service.failure is not None:
        raise service.failure
