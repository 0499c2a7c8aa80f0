"""A request's body, with a limit."""

from starlette.requests import Request

from mlx_tslm.serve.wire import Refused


async def body_of(request: Request, most: int) -> bytes:
    """A request's body; one that is too large is refused before it is all there.

    Raises:
        Refused: it has more than `most` bytes.
    """
    stated = request.headers.get("content-length", "")
    size = int(stated) if stated.isdecimal() else 0
    parts: list[bytes] = []
    if size <= most:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                break
            parts.append(part)
    if size > most:
        raise Refused(413, f"the request is larger than {most / (1 << 20):g} MB")
    return b"".join(parts)
