"""One request that is being answered, from its question to JSON or events."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.report.page import fill, page_data
from mlx_tslm.serve import wire
from mlx_tslm.serve.answers import Piece
from mlx_tslm.serve.page import Results
from mlx_tslm.serve.service import Service
from mlx_tslm.serve.wire import Envelope, Refused


class Work:
    """One request that is being answered: what other threads tell comes here in order."""

    def __init__(self, service: Service, request: wire.Request) -> None:
        self.request, self.envelope = request, Envelope(service.source)
        self._told: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + service.limits.seconds

    def tell(self, *what: Any) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.put_nowait, what)

    async def next(self) -> Any:
        """What was told next; an error is raised."""
        try:
            what = await asyncio.wait_for(self._told.get(), self._until - self._loop.time())
        except TimeoutError:
            raise Refused(504, "the answer took longer than this server allows") from None
        for part in what:
            if isinstance(part, TSLMError):
                raise Refused(422, str(part))
        return what

    def cancel(self) -> None:
        """Nobody waits any more."""
        raise NotImplementedError

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        raise NotImplementedError

    def pieces(self) -> AsyncIterator[dict[str, Any]]:
        """The answer piece by piece."""
        raise NotImplementedError

    async def events(self) -> AsyncIterator[bytes]:
        """The pieces as server-sent events."""
        try:
            async for piece in self.pieces():
                yield _event(piece)
            yield b"data: [DONE]\n\n"
        except Refused as error:
            yield _event(error.body())
        finally:
            self.cancel()

    @property
    def wants_usage(self) -> bool:
        options = self.request.stream_options
        return options is not None and options.include_usage


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


class Answering(Work):
    """`n` sampled answers."""

    def __init__(self, service: Service, request: wire.Request, put: Any) -> None:
        super().__init__(service, request)
        self._notes = put.notes
        self._token: Callable[[int], str] = service.model.tokenizer.convert_ids_to_tokens
        self._wanted = service.answer(request, put.question, self.tell)

    def cancel(self) -> None:
        for one in self._wanted:
            one.cancelled.set()

    async def whole(self) -> dict[str, Any]:
        n = self.request.n
        texts, reasons, entries = [""] * n, ["stop"] * n, [list[dict[str, Any]]() for _ in range(n)]
        prompt_tokens = completion_tokens = 0
        async for index, piece in self._answers():
            texts[index] += piece.text
            reasons[index] = piece.reason or "stop"
            entries[index] += self._entries(piece)
            prompt_tokens = piece.prompt_tokens
            completion_tokens += 1
        choices = [
            wire.choice(
                index, texts[index].strip(), reasons[index], entries[index] if self.request.logprobs else None
            )
            for index in range(n)
        ]
        return self.envelope.whole(choices, wire.usage(prompt_tokens, completion_tokens), notes=self._notes)

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        begun = [
            {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            for index in range(self.request.n)
        ]
        yield self.envelope.chunk(begun, notes=self._notes)
        prompt_tokens = completion_tokens = 0
        async for index, piece in self._answers():
            prompt_tokens = piece.prompt_tokens
            completion_tokens += 1
            entries = self._entries(piece) if self.request.logprobs else None
            if piece.text or entries:
                yield self.envelope.chunk([wire.delta(index, piece.text, None, entries)])
            if piece.reason:
                yield self.envelope.chunk([wire.delta(index, None, piece.reason)])
        if self.wants_usage:
            yield self.envelope.chunk([], usage=wire.usage(prompt_tokens, completion_tokens))

    async def _answers(self) -> AsyncIterator[tuple[int, Piece]]:
        left = self.request.n
        while left:
            index, piece = await self.next()
            yield index, piece
            left -= piece.reason is not None

    def _entries(self, piece: Piece) -> list[dict[str, Any]]:
        if piece.token is None:
            return []
        return [wire.token_entry(str(self._token(piece.token)), piece.logprob)]


class Searching(Work):
    """A search; its headline is the answer."""

    def __init__(self, service: Service, request: wire.Request, put: Any, results: Results) -> None:
        super().__init__(service, request)
        self._notes, self._put = put.notes, put
        self._model, self._source, self._results, self._name = (
            service.model,
            service.source,
            results,
            results.name(),
        )
        self._cancelled = threading.Event()
        service.search(request, put.question, self.tell, self._cancelled)

    def cancel(self) -> None:
        self._cancelled.set()

    async def whole(self) -> dict[str, Any]:
        while True:
            result, ended = await self.next()
            if ended:
                counts = wire.usage(result.stats.prompt_tokens, result.stats.tokens_decoded)
                return self.envelope.whole(
                    [wire.choice(0, result.headline, "stop")],
                    counts,
                    notes=[*self._notes, *result.notes],
                    search=result.to_dict(),
                )

    async def pieces(self) -> AsyncIterator[dict[str, Any]]:
        yield self.envelope.chunk(
            [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], notes=self._notes
        )
        ended = False
        while not ended:
            result, ended = await self.next()
            told = {"rollouts": result.stats.rollouts, "waves": result.stats.waves} | result.summary()
            kept = await self._keep(result)
            if not ended:
                yield self.envelope.chunk([], search=told | kept)
        yield self.envelope.chunk([wire.delta(0, result.headline)])
        yield self.envelope.chunk([wire.delta(0, None, "stop")], search=result.to_dict() | kept)
        if self.wants_usage:
            counts = wire.usage(result.stats.prompt_tokens, result.stats.tokens_decoded)
            yield self.envelope.chunk([], usage=counts)

    async def _keep(self, result: Any) -> dict[str, str]:
        """Keep the report of what is known so far, where the page asked for it; where it is."""
        assert self.request.search is not None
        if not self.request.search.page:
            return {}

        def write() -> None:
            told = page_data(result, self._put.question, self._model.tokenizer, self._source, self._notes)
            saved = result.to_dict() | {"recordings": [one.summary() for one in self._put.recordings]}
            self._results.keep(self._name, html=fill(told), json=json.dumps(saved, allow_nan=False))

        await asyncio.to_thread(write)
        return {"id": self._name}
