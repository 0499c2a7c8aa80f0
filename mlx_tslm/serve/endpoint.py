"""OpenAI's endpoint, `/v1`."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from mlx_tslm.serve import wire
from mlx_tslm.serve.body import body_of
from mlx_tslm.serve.page import Results
from mlx_tslm.serve.service import Service
from mlx_tslm.serve.wire import Refused
from mlx_tslm.serve.work import Answering, Searching


class Endpoint:
    """`/v1` over a service."""

    def __init__(self, service: Service, results: Results) -> None:
        self._service, self._results = service, results

    async def health(self, request: Request) -> Response:
        self._service.check_ready()
        return JSONResponse({"status": "ok"})

    async def describe(self, request: Request) -> Response:
        return JSONResponse(wire.description())

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        if request.path_params["name"] != self._service.source:
            raise Refused(404, "there is no such model; GET /v1/models lists it", "model")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        return {"id": self._service.source, "object": "model", "created": 0, "owned_by": "mlx-tslm"}

    async def complete(self, request: Request) -> Response:
        service = self._service
        service.check_ready()
        asked = wire.parse(await body_of(request, service.limits.body))
        if asked.model not in ("", service.source):
            raise Refused(404, f"there is no model {asked.model[:100]!r}; GET /v1/models lists it", "model")
        put = await asyncio.to_thread(
            lambda: service.question(asked, wire.read(asked, service.limits.samples)),
        )
        work = Searching(service, asked, put, self._results) if asked.search else Answering(service, asked, put)
        if asked.stream:
            return StreamingResponse(work.events(), media_type="text/event-stream")
        done = asyncio.ensure_future(work.whole())
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise Refused(499, "the client has gone")
            return JSONResponse(done.result())
        finally:
            gone.cancel()
            done.cancel()
            work.cancel()


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.2)
