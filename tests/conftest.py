"""What the tests share: a real BLAS before MLX, the demo model, and recordings from outside the repository."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads wait for each other longer than they compute
os.environ.pop("COLUMNS", None)  # set in pytest-xdist's workers; what is tested is a pipe's width

import mlx_tslm  # loads a BLAS; has to come before any `import mlx.core`

if TYPE_CHECKING:
    from fake_hub import FakeHub

signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's workers ignore it; tests send it

# CI tests the same examples every time, so that a change is judged by itself; elsewhere Hypothesis goes on looking.
# No deadline: how long an example takes says how busy the machine is.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu-branch", action="store_true", help="test what a GPU runs, on whatever there is")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--gpu-branch"):
        import mlx.core as mx

        from mlx_tslm.models import branch

        branch.ON_CPU = False
        mx.disable_compile()  # which on a CPU means running a C++ compiler for every function


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recordings that are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the recordings of {SHARED_DATA} are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def airline() -> Path:
    """Monthly airline passengers, the demo's recording."""
    return Path(mlx_tslm.__file__).parent / "demo" / "airline.csv"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with LoRA, converted by the front door once for all tests. Knows no stage."""
    from tiny import write_base, write_checkpoint

    from mlx_tslm import conversion

    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = write_checkpoint("llama", folder / "tiny.pt", lora=16)
    conversion.convert(checkpoint, folder / "model", llm=str(write_base("llama", folder / "base")))
    return folder / "model"


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded demo checkpoint, converted once for all tests."""
    from mlx_tslm import conversion

    folder = tmp_path_factory.mktemp("demo") / "model"
    conversion.convert("demo", folder)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[FakeHub]":
    """A Hub on this machine in place of the real one, with an empty cache; who waits for it does not wait long."""
    import time

    from fake_hub import serving
    from huggingface_hub import constants

    from mlx_tslm.fetching import http

    with serving() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"), "HF_HUB_ETAG_TIMEOUT": 0.5, "HF_HUB_DOWNLOAD_TIMEOUT": 0.5,
            "HF_HUB_OFFLINE": False,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        slept = time.sleep
        monkeypatch.setattr(http.time, "sleep", lambda seconds: slept(min(seconds, 0.01)))
        yield server
