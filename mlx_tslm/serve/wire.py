"""What goes over the wire: requests and answers in the form of OpenAI's chat completions."""

import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, ValidationError

from mlx_tslm.errors import TSLMError
from mlx_tslm.serve import uploads
from mlx_tslm.signals import Recording

MOST_ANSWERS, MOST_TOKENS, MOST_ROLLOUTS = 16, 2048, 256

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Refused(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: of HTTP; `kind` and `param` as OpenAI's errors have them.
    """

    def __init__(self, status: int, message: str, param: str | None = None, kind: str = "") -> None:
        super().__init__(message)
        usual = "invalid_request_error" if status < 500 else "server_error"
        self.status, self.param, self.kind = status, param, kind or usual

    def body(self) -> dict[str, Any]:
        """The error as OpenAI words it."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": None}
        return {"error": error}


class File(BaseModel):
    file_data: str
    filename: str = "recording.csv"


class TimeSeries(BaseModel):
    values: list[Finite] | list[list[Finite]]
    names: list[str] = []
    units: list[str] = []
    rate: Finite | None = None


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class FilePart(BaseModel):
    type: Literal["file"]
    file: File


class SeriesPart(BaseModel):
    type: Literal["time_series"]
    time_series: TimeSeries


Part = Annotated[TextPart | FilePart | SeriesPart, Field(discriminator="type")]


class Message(BaseModel):
    role: str
    content: str | list[Part]


class StreamOptions(BaseModel):
    include_usage: bool = False


class Search(BaseModel, extra="forbid"):
    num_rollouts: Annotated[int, Field(ge=1, le=MOST_ROLLOUTS)] = 32
    width: Annotated[int, Field(ge=1, le=64)] = 16
    inverse_temperature: Annotated[Finite, Field(gt=0)] | None = None
    method: str = "maxent-ts"
    page: bool = False


class Reading(BaseModel, extra="forbid"):
    """How files are read, where they do not say it themselves; as the command line's options."""

    channels: list[str] | None = None
    rate: Annotated[Finite, Field(gt=0)] | None = None
    start: Finite = 0.0
    seconds: Annotated[Finite, Field(gt=0)] | None = None
    fill: str | None = None
    case: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    time: str | None = None


class Request(BaseModel):
    """What a client asks. Fields beyond OpenAI's are `stage`, `answers`, `template_id`, `reading` and `search`."""

    model: str = ""
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[Finite, Field(ge=0, le=100)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 1
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=0)] = 0
    stage: str | None = None
    answers: list[str] | None = None
    template_id: int | None = None
    clinical_context: str | None = None
    reading: Reading = Reading()
    search: Search | None = None

    @property
    def longest(self) -> int:
        """Tokens that an answer may take."""
        return self.max_completion_tokens or self.max_tokens or 256

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


@dataclass(frozen=True)
class Asked:
    """The question of a request, and the recordings that came with it."""

    question: str | None
    recordings: list[Recording]


def parse(body: bytes) -> Request:
    """A request from its JSON.

    Raises:
        Refused: it is no JSON, or a field is not as it should be (named).
    """
    try:
        return Request.model_validate_json(body)
    except ValidationError as error:
        # of the alternatives that a value was tried as, the one that fits furthest
        first = max(error.errors(include_url=False, include_input=False), key=lambda one: len(one["loc"]))
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            raise Refused(400, "the body is no JSON") from None
        raise Refused(400, f"{where}: {first['msg']}"[:500] if where else first["msg"][:500], where) from None


def read(request: Request, most_samples: int) -> Asked:
    """The last message's text and recordings, read in memory.

    Raises:
        Refused: an earlier turn, no recording, one that cannot be read, or too many samples.
    """
    *earlier, last = request.messages
    if earlier:
        raise Refused(
            422,
            "one message is answered at a time: no model here was trained on conversations; send the last message "
            "alone, with its recording",
            "messages",
        )
    if last.role != "user":
        raise Refused(422, f"the message is of the role {last.role[:40]!r}, not user", "messages")
    parts = [last.content] if isinstance(last.content, str) else last.content
    texts = [part if isinstance(part, str) else part.text for part in parts if isinstance(part, str | TextPart)]
    recordings = []
    for part in parts:
        if isinstance(part, FilePart | SeriesPart):
            recordings.append(_recording(part, request.reading))
            if sum(one.values.size for one in recordings) > most_samples:
                raise Refused(
                    413, f"the recordings have more than {most_samples} samples; cut a window", "messages"
                )
    if not recordings:
        raise Refused(422, "there is no recording: add a part of the type file or time_series", "messages")
    question = "\n".join(text.strip() for text in texts).strip()
    return Asked(question or None, recordings)


def _recording(part: FilePart | SeriesPart, reading: Reading) -> Recording:
    try:
        if isinstance(part, SeriesPart):
            one = part.time_series
            return uploads.from_values(one.values, one.names, one.units, one.rate)
        given = {key: value for key, value in reading.model_dump().items() if value is not None}
        return uploads.read_file(part.file.filename, uploads.decoded(part.file.file_data), **given)
    except TSLMError as error:
        raise Refused(422, str(error), "messages") from None


def description() -> dict[str, Any]:
    """The endpoint in OpenAPI's form."""
    where = "#/components/schemas/{model}"
    schema = Request.model_json_schema(ref_template=where)
    parts = schema.pop("$defs")
    error = {"type": "object", "properties": {"error": {"type": "object"}}, "required": ["error"]}

    def content(of: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": of}}

    refused = {str(status): {"description": text, "content": content(error)} for status, text in _REFUSALS.items()}
    post = {
        "summary": "Answer a question about a recording",
        "requestBody": {"required": True, "content": content({"$ref": where.format(model="Request")})},
        "responses": {"200": {"description": "a chat completion, or its events"}, **refused},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlx-tslm", "version": version("mlx-tslm")},
        "paths": {
            "/v1/chat/completions": {"post": post},
            "/v1/models": {
                "get": {"summary": "The model", "responses": {"200": {"description": "a list of one"}}},
            },
        },
        "components": {"schemas": {**parts, "Request": schema}},
    }


_REFUSALS = {
    400: "the body is not as it should be",
    401: "the API key is missing or wrong",
    404: "another model",
    413: "too large",
    422: "the recording or the question cannot be taken",
    503: "the model is being loaded, or too many requests wait; Retry-After says how long",
}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Counts of tokens as OpenAI has them; positions of the series are tokens of the prompt."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class Envelope:
    """What is the same in all parts of one answer."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, choices: list[dict[str, Any]], counts: dict[str, int], **more: Any) -> dict[str, Any]:
        """The answer at once."""
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": counts, **more}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A piece of it."""
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}


def choice(index: int, content: str, reason: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """One of the answers, whole."""
    message = {"role": "assistant", "content": content, "refusal": None}
    told = {"content": logprobs, "refusal": None} if logprobs is not None else None
    return {"index": index, "message": message, "logprobs": told, "finish_reason": reason}


def delta(
    index: int, content: str | None, reason: str | None = None, logprobs: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A piece of one of the answers; `content` is None in the last, and in the first it says who speaks."""
    told = {"content": logprobs, "refusal": None} if logprobs is not None else None
    change = {} if content is None else {"content": content}
    return {"index": index, "delta": change, "logprobs": told, "finish_reason": reason}


def token_entry(token: str, logprob: float) -> dict[str, Any]:
    """log p of one token, as OpenAI has it."""
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": []}
