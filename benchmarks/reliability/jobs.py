"""The commands that are interrupted: what they start from, what counts of their results, what must not be seen."""

from __future__ import annotations

import io
import json
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import call, command

Contents = dict[str, Any]
"""A folder's files by their names within it, with what counts of each."""

AIRLINE = Path(__file__).parents[2] / "mlx_tslm" / "demo" / "airline.csv"
_TIMES = ("seconds", "peak_memory", "generation_tps", "prompt_tps")


@dataclass(frozen=True)
class Job:
    """A command to interrupt.

    Attributes:
        arguments: of `mlx-tslm`, the same each time; paths are relative to its folder.
        read: what counts of a finished run.
        faults: what is wrong with what an interrupted run has left, a line each.
        given: a folder to begin with, of which it gets a copy; an empty one where None.
        setup: called in the child before the command.
    """

    arguments: tuple[str, ...]
    read: Callable[[Path], Contents]
    faults: Callable[[Path], list[str]] = lambda folder: []
    given: Path | None = None
    setup: Callable[[], None] = lambda: None


def contents(folder: Path, read: Callable[[Path], Any] = Path.read_bytes) -> Contents:
    """All files below a folder, hidden ones too, each as `read` sees it."""
    return {str(path.relative_to(folder)): read(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def without_times(value: Any) -> Any:
    """JSON without what differs from run to run of the same work."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in _TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def _json(path: Path) -> Any:
    return without_times(json.loads(path.read_text("utf-8")))


def _lines(path: Path) -> Any:
    """The whole lines of a file that grows."""
    return [without_times(json.loads(line)) for line in path.read_text("utf-8").split("\n")[:-1]]


def _ours(path: Path) -> Any:
    """What counts of a file, by its name."""
    if path.name in ("state.safetensors", "page.html"):  # they say how long it took
        return None
    return _lines(path) if path.suffix == ".jsonl" else _json(path) if path.suffix == ".json" else path.read_bytes()


def _model_faults(folder: Path) -> list[str]:
    """A model that is there is a whole one."""
    model = folder / "model"
    needed = {"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "README.md"}
    if not model.exists():
        return []
    missing = needed - {path.name for path in model.iterdir()}
    return [f"model/ lacks {', '.join(sorted(missing))}"] if missing else []


_CONVERT = ("convert", "demo", "--dtype", "float32", "-o", "model")


@contextmanager
def convert(home: Path) -> Iterator[Job]:
    """Into a new folder."""
    yield Job(_CONVERT, contents, _model_faults)


@contextmanager
def replacement(home: Path) -> Iterator[Job]:
    """Over a model that is there; a name without a model is a fault, and so is a mixture."""
    given = home / "given"
    given.mkdir()
    command(("convert", "demo", "-o", "model"), given)
    old = contents(given / "model")
    new = home / "new"
    new.mkdir()
    command((*_CONVERT, "--force"), new)
    expected = contents(new / "model")

    def faults(folder: Path) -> list[str]:
        found = contents(folder / "model")
        return [] if found in (old, expected) else [f"model/ is neither the old nor the new one: {sorted(found)}"]

    yield Job((*_CONVERT, "--force"), contents, faults, given)


def _demo(home: Path) -> Path:
    folder = home / "demo"
    folder.mkdir()
    command(_CONVERT, folder)
    return folder / "model"


_BUDGET = ("--num-rollouts", "4", "--width", "2", "--max-tokens", "8")


@contextmanager
def search(home: Path) -> Iterator[Job]:
    """Over an older result, and with a page."""
    given = home / "given"
    given.mkdir()
    (given / "found.json").write_text('{"old": true}')
    asked = ("--model", str(_demo(home)), "--series", str(AIRLINE), "--column", "Passengers")
    arguments = ("search", *asked, *_BUDGET, "--json", "found.json", "--html", "page.html")

    def faults(folder: Path) -> list[str]:
        try:
            found = json.loads((folder / "found.json").read_text("utf-8"))
        except ValueError:
            return ["found.json is half a file"]
        page = folder / "page.html"
        half = page.exists() and not page.read_text("utf-8").rstrip().endswith("</html>")
        return [
            *(["page.html is half a file"] * half),
            *(["found.json is neither"] * (not found.keys() & {"old", "best", "completions"})),
        ]

    yield Job(arguments, lambda folder: contents(folder, _ours), faults, given)


@contextmanager
def evaluate(home: Path) -> Iterator[Job]:
    """Captions, greedily and by search."""
    asked = ("--model", str(_demo(home)), "--stage", "stage2", "--source", "synthetic", "--limit", "5")
    methods = ("--method", "greedy", "--method", "maxent-ts")
    yield Job(("eval", *asked, *methods, *_BUDGET, "--out", "out"), lambda folder: contents(folder, _ours))


_CURRICULUM = """
model = "base"
source = "synthetic"
max_patches = 64

[defaults]
epochs = 2
validation_samples = 4

[[stages]]
name = "words"
samples = { stage1 = 4 }
lr_llm = 1e-3

[[stages]]
name = "stage1"
samples = { stage1 = 4 }
lora = true
"""


@contextmanager
def train(home: Path) -> Iterator[Job]:
    """Two stages, of which the first trains the LLM itself; every step is saved."""
    given = home / "given"
    shutil.copytree(AIRLINE.parent / "base", given / "base")
    call(lambda: _keep_one_layer(given / "base"), home)
    (given / "mine.toml").write_text(_CURRICULUM)

    def setup() -> None:
        import mlx.core as mx

        from mlx_tslm.training import trainer

        mx.disable_compile()  # it takes longer than the steps
        trainer._LOG_EVERY, trainer._SAVE_SECONDS = 1, 0.0

    yield Job(("train", "mine.toml", "-o", "run"), lambda folder: contents(folder, _ours), given=given, setup=setup)


def _keep_one_layer(base: Path) -> None:
    """Make an LLM small enough to be trained hundreds of times."""
    import mlx.core as mx

    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    weights = mx.load(str(base / "model.safetensors"))
    assert isinstance(weights, dict)
    kept = {name: array for name, array in weights.items() if ".layers." not in name or ".layers.0." in name}
    mx.eval(kept)
    mx.save_safetensors(str(base / "model.safetensors"), kept, {"format": "pt"})


@contextmanager
def bench(home: Path) -> Iterator[Job]:
    """The suite's search on a tiny model; what was measured counts by its names, not by its figures."""

    def setup() -> None:
        from benchmarks.suite import suites
        from benchmarks.suite.shapes import SHAPES

        quick = suites.SUITES["quick"]
        tiny = replace(
            quick, shape=SHAPES["tiny"], sweep=(4, 2, 64, 4), rollouts=(1, 4), widths=(1, 4), depths=(2, 4)
        )
        suites.SUITES["quick"] = replace(tiny, prompts=(64, 96))

    def read(path: Path) -> Any:
        lines = [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
        keys = ("case", "parameters", "variant", "round", "warmup")
        return sorted(json.dumps([line.get(key) for key in keys]) for line in lines if line["kind"] == "sample")

    yield Job(
        ("bench", "run", "--only", "scaling", "--results", "results"),
        lambda folder: contents(folder, read),
        setup=setup,
    )


@contextmanager
def fetch(home: Path) -> Iterator[Job]:
    """A zip of four megabytes from a server on this machine that takes half a second for it."""
    noise = random.Random(0)
    names = [f"har_cot_{split}_cot.csv" for split in ("train", "val", "test")]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, noise.randbytes(4 << 18))
    context = get_context("fork")
    port = context.Queue()
    server = context.Process(target=_serve, args=(packed.getvalue(), port), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get(timeout=60)}/har.zip"

    def setup() -> None:
        from mlx_tslm.data.published import sources

        stage = sources.SOURCES["stage3"]
        sources.SOURCES["stage3"] = replace(stage, archives=(replace(stage.archives[0], url=url),))

    try:
        yield Job(("data", "fetch", "stage3"), contents, setup=setup)
    finally:
        server.terminate()
        server.join()


def _serve(content: bytes, port: Any) -> None:
    """Serve one file with ranges, slowly."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            for start in range(first, len(content), 1 << 16):
                self.wfile.write(content[start : start + (1 << 16)])
                time.sleep(0.01)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # clients are killed here
    port.put(server.server_address[1])
    server.serve_forever()


JOBS: dict[str, Callable[[Path], AbstractContextManager[Job]]] = {
    "convert": convert,
    "replacement": replacement,
    "fetch": fetch,
    "search": search,
    "eval": evaluate,
    "train": train,
    "bench": bench,
}
"""What is interrupted, by name: from a folder to keep things in to the job."""
