"""What the server does, without HTTP: a model in memory, answers in a shared batch, searches beside them."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.sampling import Sampling
from mlx_tslm.serve.answers import Answers, Piece, Wanted
from mlx_tslm.serve.memory import Prompts, Remembering
from mlx_tslm.serve.turns import Turns
from mlx_tslm.serve.wire import Asked, Refused, Request

RETRY_SECONDS = 5


@dataclass(frozen=True)
class Limits:
    """What a client may ask for, and how much is done at once.

    Attributes:
        body: bytes of a request.
        samples: of a request's recordings, all channels together.
        width: answers under way at once; `waiting` how many wait for them, or for a search.
        searches: under way at once.
        memory: bytes of prompts that are remembered.
        seconds: that one request may take.
    """

    body: int = 64 << 20
    samples: int = 10_000_000
    width: int = 16
    waiting: int = 64
    searches: int = 2
    memory: int = 2 << 30
    seconds: float = 600.0


class Service:
    """A model that is being loaded, or is ready.

    Args:
        source: what `mlx_tslm.load` takes.
        limits: see there.
    """

    def __init__(self, source: str, limits: Limits | None = None) -> None:
        self.source, self.limits = source, limits or Limits()
        self.failure: TSLMError | None = None
        self._ready = threading.Event()
        self._turns = Turns()
        self._slots = threading.Semaphore(self.limits.searches)
        self._searches = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._load, name="loading", daemon=True).start()

    def _load(self) -> None:
        from mlx_tslm.loading import load

        try:
            model: Any = load(self.source)
            if hasattr(model, "parameters"):  # what is lazy belongs to this thread alone
                import mlx.core as mx

                mx.eval(model.parameters())
            model.know_tokens()
            self.model = model
            self.prompts = Prompts(model, self.limits.memory)
            self.answers = Answers(model, self.prompts, self._turns, self.limits.width, self.limits.waiting)
        except TSLMError as error:
            self.failure = error
        except Exception as error:
            self.failure = TSLMError(f"{self.source} cannot be loaded: {type(error).__name__}: {error}")
        self._ready.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the model is there, or cannot be."""
        return self._ready.wait(seconds)

    def check_ready(self) -> None:
        """Raise a `Refused` while there is no model."""
        if not self._ready.is_set():
            raise Refused(503, f"{self.source} is still being loaded")
        if self.failure is not None:
            raise Refused(500, str(self.failure))

    def close(self) -> None:
        """End what is under way."""
        if self._ready.is_set() and self.failure is None:
            self.answers.close()

    def question(self, request: Request, asked: Asked) -> Any:
        """The question of a request: `cli.options.Asked`.

        Raises:
            Refused: the model does not take it.
        """
        from mlx_tslm.cli.options import Asking

        asking = Asking(
            model=self.source,
            question=asked.question,
            stage=request.stage,
            answers=",".join(request.answers) if request.answers else None,
            template_id=request.template_id,
            clinical_context=request.clinical_context,
        )
        try:
            put = asking.put(self.model, asked.recordings, None)
            length = self.model.count_positions(put.question)
        except TSLMError as error:
            raise Refused(422, str(error), "messages") from None
        longest = self.model.config.text_config.get("max_position_embeddings")
        if longest and length + request.longest > longest:
            problem = f"the prompt takes {length} positions and the answer up to {request.longest}"
            raise Refused(422, f"{problem}, but the model's context has {longest}; shorten either", "messages")
        return put

    def sampling(self, request: Request) -> Sampling:
        """The request's distribution; what it does not say is the model's default."""
        usual = self.model.sampling
        temperature = usual.temperature if request.temperature is None else request.temperature
        return Sampling(temperature, usual.top_k, usual.top_p if request.top_p is None else request.top_p)

    def answer(
        self, request: Request, question: Any, tell: Callable[[int, Piece | TSLMError], None]
    ) -> list[Wanted]:
        """Begin the `n` answers of a request; `tell` is called from another thread.

        Raises:
            Refused: too many are waiting.
        """
        if self.answers.under_way >= self.limits.width + self.limits.waiting:
            raise Refused(503, "too many requests are waiting; try again later")
        seed = secrets.randbits(32) if request.seed is None else request.seed

        def telling(index: int) -> Callable[[Piece | TSLMError], None]:
            return lambda piece: tell(index, piece)

        wanted = [
            Wanted(question, self.sampling(request), request.longest, seed + index, request.stops, telling(index))
            for index in range(request.n)
        ]
        for one in wanted:
            if not self.answers.ask(one):
                for other in wanted:
                    other.cancelled.set()
                raise Refused(503, "too many requests are waiting; try again later")
        return wanted

    def search(
        self, request: Request, question: Any, tell: Callable[[Any, bool], None], cancelled: threading.Event
    ) -> None:
        """Begin the search of a request in a thread of its own.

        Args:
            tell: called from that thread with a result so far as each wave ends, with True at the end, and with
                the error that ended it.
            cancelled: set where nobody waits any more.

        Raises:
            Refused: too many are waiting.
        """
        with self._counting:
            if self._searches >= self.limits.searches + self.limits.waiting:
                raise Refused(503, "too many searches are waiting; try again later")
            self._searches += 1
        threading.Thread(
            target=self._search, args=(request, question, tell, cancelled), name="search", daemon=True
        ).start()

    def _search(
        self, request: Request, question: Any, tell: Callable[[Any, bool], None], cancelled: threading.Event
    ) -> None:
        from mlx_tslm.search import tree_search

        assert request.search is not None
        settings = request.search.model_dump(exclude_none=True, exclude={"page"})
        p = self.sampling(request)
        waves = 0

        def progress(so_far: Any) -> bool:
            nonlocal waves
            if request.stream and so_far.waves != waves and so_far.rollouts:
                waves = so_far.waves
                tell(so_far.snapshot(), False)
            self._turns.pass_on()
            return not cancelled.is_set()

        try:
            with self._slots, self._turns:
                if cancelled.is_set():
                    return
                result = tree_search(
                    Remembering(self.model, self.prompts),  # type: ignore[arg-type]
                    question,
                    temperature=p.temperature,
                    top_p=p.top_p,
                    top_k=p.top_k,
                    max_tokens=request.longest,
                    seed=secrets.randbits(31) if request.seed is None else request.seed,
                    progress=progress,
                    **settings,
                )
            tell(result, True)
        except TSLMError as error:
            tell(error, True)
        except Exception as error:  # one client's search must not end the others'
            tell(TSLMError(f"{type(error).__name__} while searching"), True)
        finally:
            with self._counting:
                self._searches -= 1
