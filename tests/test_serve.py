"""The server through its front door: real HTTP, and OpenAI's own client."""

import base64
import http.client
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import uvicorn

import mlx_tslm
from mlx_tslm import TSLMError, cli, stages
from mlx_tslm.generation import generate
from mlx_tslm.sampling import Sampling
from mlx_tslm.serve.answers import Answers, Piece, Wanted
from mlx_tslm.serve.app import make_app
from mlx_tslm.serve.memory import Prompts
from mlx_tslm.serve.service import Limits, Service
from mlx_tslm.serve.turns import Turns

VALUES = [round(float(x), 3) for x in np.sin(np.arange(60) / 3) + 0.05 * np.arange(60)]
SERIES = {"type": "time_series", "time_series": {"values": VALUES, "names": ["load"], "rate": 1.0}}
CSV = base64.b64encode(("load\n" + "\n".join(map(str, VALUES)) + "\n").encode()).decode()


class Served:
    """A server in a thread, and where it is."""

    def __init__(self, source: str, limits: Limits | None = None, **options: Any) -> None:
        self.service = Service(source, limits)
        config = uvicorn.Config(make_app(self.service, **options), port=0, log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.source = source

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0)

    def post(self, body: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers of a raw request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), dict(answer.getheaders())

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.service.close()


@pytest.fixture(scope="module")
def served(demo_folder: Path) -> Iterator[Served]:
    one = Served(str(demo_folder))
    assert one.service.wait(120)
    yield one
    one.close()


def messages(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


ASK = messages(text("What is the trend?"), SERIES)


def test_models(served: Served) -> None:
    assert [one.id for one in served.client().models.list()] == [served.source]
    assert served.client().models.retrieve(served.source).owned_by == "mlx-tslm"


def test_an_answer_is_the_command_s_own(served: Served) -> None:
    """Greedy, it says what `generate` says; a file and the numbers themselves are read alike."""
    stage = stages.get("stage2")
    prompt = stage.prompt(mlx_tslm.signals.Recording(VALUES, ["load"], 1.0), "What is the trend?")
    expected = generate(mlx_tslm.load(served.source), prompt, max_tokens=24)
    ask: dict[str, Any] = {"model": served.source, "temperature": 0, "max_tokens": 24}
    ask["extra_body"] = {"stage": "stage2"}
    file = {"type": "file", "file": {"filename": "load.csv", "file_data": CSV}}
    url = {"type": "file", "file": {"filename": "load.csv", "file_data": f"data:text/csv;base64,{CSV}"}}
    for part in (SERIES, file, url):
        done = served.client().chat.completions.create(messages=messages(text("What is the trend?"), part), **ask)
        assert done.choices[0].message.content == expected.strip()
    assert done.choices[0].finish_reason in ("stop", "length")
    assert done.usage is not None and done.usage.total_tokens == (
        done.usage.prompt_tokens + done.usage.completion_tokens
    )


def test_streams_n_answers_with_their_probabilities(served: Served) -> None:
    ask: dict[str, Any] = {"model": served.source, "messages": ASK, "n": 3, "seed": 5, "max_tokens": 12}
    whole = served.client().chat.completions.create(logprobs=True, **ask)
    stream = served.client().chat.completions.create(
        stream=True, stream_options={"include_usage": True}, logprobs=True, **ask
    )
    texts, tokens, usage = ["", "", ""], [0, 0, 0], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += len((choice.logprobs and choice.logprobs.content) or [])
    assert [text.strip() for text in texts] == [one.message.content for one in whole.choices]
    assert usage == whole.usage
    for one, count in zip(whole.choices, tokens, strict=True):
        assert one.logprobs is not None and one.logprobs.content is not None
        assert len(one.logprobs.content) == count and all(entry.logprob <= 0 for entry in one.logprobs.content)


def test_stop_ends_an_answer_before_the_text(served: Served) -> None:
    ask: dict[str, Any] = {"model": served.source, "messages": ASK, "temperature": 0}
    full = served.client().chat.completions.create(**ask).choices[0].message.content or ""
    stop = full[2:5]
    cut = served.client().chat.completions.create(stop=[stop, "never there"], **ask).choices[0]
    assert (cut.message.content, cut.finish_reason) == (full[: full.index(stop)].strip(), "stop")


def test_a_search(served: Served) -> None:
    """The headline is the message, the result stands beside it; while it runs, waves are told."""
    body = {"stage": "stage1", "answers": None, "search": {"num_rollouts": 8, "width": 2}}
    ask: dict[str, Any] = {"model": served.source, "messages": ASK, "seed": 3, "max_tokens": 24}
    ask["extra_body"] = {"stage": "stage2", "search": body["search"]}
    done = served.client().chat.completions.create(**ask)
    result = done.model_extra["search"] if done.model_extra else {}
    assert done.choices[0].message.content == result["headline"]
    assert result["stats"]["rollouts"] == 8
    waves, said = [], ""
    for chunk in served.client().chat.completions.create(stream=True, **ask):
        told = (chunk.model_extra or {}).get("search")
        waves += [told["rollouts"]] if told and "rollouts" in told else []
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert said == result["headline"]
    assert waves == sorted(waves) and len(waves) >= 2


REFUSED: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "no JSON"),
    "no messages": ({"messages": []}, 400, "messages"),
    "part of unknown type": ({"messages": messages({"type": "image_url", "image_url": {}})}, 400, "time_series"),
    "no recording": ({"messages": messages(text("What?"))}, 422, "no recording"),
    "plain text": ({"messages": [{"role": "user", "content": "What?"}]}, 422, "no recording"),
    "earlier turns": ({"messages": [{"role": "system", "content": "Be kind."}, *ASK]}, 422, "one message"),
    "an assistant": ({"messages": [{"role": "assistant", "content": "What?"}]}, 422, "not user"),
    "no base64": (
        {"messages": messages({"type": "file", "file": {"filename": "a.csv", "file_data": "§"}})},
        422,
        "no base64",
    ),
    "a hostile file": (
        {"messages": messages({"type": "file", "file": {"filename": "../../a.npy", "file_data": CSV}})},
        422,
        "not a NumPy file",
    ),
    "unknown kind": (
        {"messages": messages({"type": "file", "file": {"filename": "/etc/passwd", "file_data": CSV}})},
        422,
        "unknown file type",
    ),
    "two recordings": ({"messages": messages(SERIES, SERIES), "stage": "stage2"}, 422, "takes one channel"),
    "not finite": ({"messages": messages({"type": "time_series", "time_series": {"values": [1, None]}})}, 400, ""),
    "another model": ({"model": "gpt-4", "messages": ASK}, 404, "no model"),
    "temperature": ({"messages": ASK, "temperature": -1}, 400, "temperature"),
    "too many tokens": ({"messages": ASK, "max_tokens": 10**6}, 400, "max_tokens"),
    "too many answers": ({"messages": ASK, "n": 1000}, 400, "n:"),
    "too large a search": ({"messages": ASK, "search": {"num_rollouts": 10**6}}, 400, "num_rollouts"),
    "a word in search": ({"messages": ASK, "search": {"rollouts": 3}}, 400, "search.rollouts"),
    "an unknown stage": ({"messages": ASK, "stage": "stage9"}, 422, "stage9"),
    "an unknown method": ({"messages": ASK, "search": {"method": "best"}}, 422, "best"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_as_openai_words_it(served: Served, case: str) -> None:
    body, status, words = REFUSED[case]
    found, told, _ = served.post(body)
    assert found == status
    assert told["error"].keys() == {"message", "type", "param", "code"}
    assert words in told["error"]["message"]


def test_one_failing_request_hurts_no_other(served: Served) -> None:
    long = served.service.model.config.encoder_config.max_samples + 1
    part = {"type": "time_series", "time_series": {"values": list(range(long))}}
    statuses: list[int] = []

    def ask(content: Any) -> None:
        statuses.append(served.post({"messages": messages(content), "max_tokens": 6})[0])

    threads = [threading.Thread(target=ask, args=(one,)) for one in (SERIES, part, SERIES, part, SERIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 200, 422, 422]


def test_sizes_are_bounded(demo_folder: Path) -> None:
    small = Served(str(demo_folder), Limits(body=4000, samples=30))
    assert small.service.wait(120)
    try:
        assert small.post({"messages": ASK})[0] == 413  # samples
        status, told, _ = small.post({"messages": messages(text("x" * 5000))})
        assert (status, told["error"]["type"]) == (413, "invalid_request_error")
    finally:
        small.close()


def test_a_key_and_a_host(demo_folder: Path) -> None:
    locked = Served(str(demo_folder), api_key="open sesame", origins=("https://a.example",))
    assert locked.service.wait(120)
    try:
        assert locked.post({"messages": ASK})[0] == 401
        with pytest.raises(openai.AuthenticationError):
            locked.client("wrong").models.list()
        assert locked.client("open sesame").models.list().data
        host = {"Authorization": "Bearer open sesame", "Host": "evil.example"}
        assert locked.post({"messages": ASK}, **host)[0] == 421
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            headers = locked.post({}, Origin=origin, Authorization="Bearer open sesame")[2]
            assert ("access-control-allow-origin" in headers) == allowed
    finally:
        locked.close()


def test_loading_and_a_model_that_is_not_there(tmp_path: Path) -> None:
    absent = Served(str(tmp_path / "absent"))
    absent.service.wait(60)
    try:
        status, told, _ = absent.post({"messages": ASK})
        assert status == 500 and "absent" in told["error"]["message"]
        absent.service._ready.clear()  # as if it were still being loaded
        status, told, headers = absent.post({"messages": ASK})
        assert status == 503 and "loaded" in told["error"]["message"] and headers["retry-after"]
        absent.service._ready.set()
    finally:
        absent.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--host", "0.0.0.0"], "--api-key"), (["--port", "1", "--host", "127.0.0.1"], "cannot be listened on")],
)
def test_the_command_refuses(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "1" in options and __import__("os").geteuid() == 0:
        import socket

        taken = socket.socket()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = ["--port", str(taken.getsockname()[1])]
    assert cli.main(["serve", "demo", *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


class Collected:
    """What an answer's thread tells."""

    def __init__(self) -> None:
        self.text, self.error, self.done = "", None, threading.Event()
        self.tokens = 0

    def __call__(self, piece: Piece | TSLMError) -> None:
        if isinstance(piece, TSLMError):
            self.error = piece
            self.done.set()
            return
        self.text += piece.text
        self.tokens += 1
        if piece.reason:
            self.done.set()


def test_rows_that_join_and_leave_say_what_they_say_alone(demo_folder: Path) -> None:
    model = mlx_tslm.load(demo_folder)
    model.know_tokens()
    import mlx.core as mx

    mx.eval(model.parameters())
    stage = stages.get("stage2")
    prompts = [stage.prompt(np.sin(np.arange(40 + 8 * k) / (2 + k))) for k in range(5)]
    settings = [(0.0, 30), (1.0, 7), (0.7, 21), (0.0, 12), (1.3, 16)]
    alone = [
        generate(model, prompt, longest, temperature, seed=k)
        for k, (prompt, (temperature, longest)) in enumerate(zip(prompts, settings, strict=True))
    ]
    answers = Answers(model, Prompts(model, 10**9), Turns(), width=3)
    try:
        told = [Collected() for _ in prompts]
        for k, (prompt, (temperature, longest)) in enumerate(zip(prompts, settings, strict=True)):
            assert answers.ask(Wanted(prompt, Sampling(temperature), longest, k, (), told[k]))
        gone = Wanted(prompts[0], Sampling(0.0), 200, 0, (), Collected())
        answers.ask(gone)
        gone.cancelled.set()
        for one in told:
            assert one.done.wait(120)
        assert [one.text for one in told] == alone
        while answers.under_way:
            time.sleep(0.01)
    finally:
        answers.close()


def test_prompts_are_read_once_and_forgotten_in_turn(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlx_tslm.load(demo_folder)
    stage = stages.get("stage2")
    first, second = (stage.prompt(np.sin(np.arange(40) / k)) for k in (2, 3))
    size = model.prefill(first).nbytes
    read: list[Any] = []
    whole = model.prefill
    monkeypatch.setattr(model, "prefill", lambda *args: (read.append(args[0]), whole(*args))[1])
    prompts = Prompts(model, int(1.5 * size))
    for prompt in (first, first, second, second, first):
        prompts.prefill(prompt, 10)
    assert read == [first, second, first]
    assert prompts.nbytes <= 1.5 * size


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, order = Turns(), []
    barrier = threading.Event()

    def work(name: int) -> None:
        with turns:
            order.append(name)

    threads = []
    with turns:
        for name in range(5):
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
            while len(turns._line) < name + 2:
                barrier.wait(0.001)
        turns.pass_on()
        order.append(99)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 99]


def blocks(language: str) -> str:
    """The example of a language in the documentation."""
    text = (Path(__file__).parents[1] / "docs/serving.md").read_text()
    return text.split(f"```{language}\n")[1].split("```")[0]


@pytest.mark.parametrize(
    ("language", "program", "said"),
    [
        ("sh", ["bash", "-e"], '"finish_reason"'),
        ("python", [sys.executable, "-"], "trend"),
        ("js", ["node", "-"], "[DONE]"),
    ],
)
def test_the_examples_run(
    served: Served, tmp_path: Path, airline: Path, language: str, program: list[str], said: str
) -> None:
    if shutil.which(program[0]) is None or (language == "sh" and shutil.which("curl") is None):
        pytest.skip(f"needs {program[0]}")
    shutil.copy(airline, tmp_path)
    example = blocks(language).replace("127.0.0.1:8080", f"127.0.0.1:{served.port}")
    example = example.replace('model="demo"', f'model="{served.source}"')
    if language == "js":
        example = f"(async () => {{ {example} }})();"
    run = subprocess.run(program, input=example, text=True, capture_output=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 0, run.stderr
    assert said in run.stdout


def test_the_description_has_every_field(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", "/openapi.json")
    told = json.loads(connection.getresponse().read())
    assert told["openapi"].startswith("3.1")
    schemas = told["components"]["schemas"]
    assert {"messages", "search", "reading", "stream", "n"} <= schemas["Request"]["properties"].keys()
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(told)))
    assert named <= schemas.keys()
