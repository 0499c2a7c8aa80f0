"""The page, and what it asks for beside the endpoint."""

import asyncio
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from mlx_tslm.errors import TSLMError
from mlx_tslm.serve import page as pages
from mlx_tslm.serve import uploads
from mlx_tslm.serve.body import body_of
from mlx_tslm.serve.page import Results
from mlx_tslm.serve.service import Service
from mlx_tslm.serve.wire import Refused

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
}
_OWN = ("connect-src 'self'", "frame-src 'self'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'")
POLICY = "; ".join(["default-src 'none'", *_OWN])


class People:
    """Its routes over a service."""

    def __init__(self, service: Service, results: Results) -> None:
        self._service, self._results = service, results

    async def page(self, request: Request) -> Response:
        return HTMLResponse(pages.page(), headers={"Content-Security-Policy": POLICY} | SAFE)

    async def about(self, request: Request) -> Response:
        self._service.check_ready()
        return JSONResponse(await asyncio.to_thread(pages.about, self._service.source, self._service.model.stage))

    async def read(self, request: Request) -> Response:
        """A dropped file, as it is drawn."""
        name = unquote(request.headers.get("x-file-name", "recording.csv"))[:255]
        body = await body_of(request, self._service.limits.body)
        try:
            recording = await asyncio.to_thread(uploads.read_file, name, body)
        except TSLMError as error:
            raise Refused(422, str(error)) from None
        return JSONResponse(await asyncio.to_thread(pages.drawn, name, recording))

    async def sample(self, request: Request) -> Response:
        name = request.path_params["name"]
        recording = await asyncio.to_thread(pages.sample, name)
        if recording is None:
            raise Refused(404, "there is no such sample")
        series = {
            "values": recording.values.tolist(),
            "names": list(recording.names),
            "units": list(recording.units),
            "rate": recording.rate,
        }
        return JSONResponse(pages.drawn(name, recording) | {"time_series": series})

    async def result(self, request: Request) -> Response:
        name, _, kind = request.path_params["name"].rpartition(".")
        kept = self._results.get(name, kind)
        if kept is None:
            raise Refused(404, "there is no such result, or it has been forgotten: only the last are kept")
        return Response(kept, media_type={"html": "text/html", "json": "application/json"}[kind], headers=SAFE)
