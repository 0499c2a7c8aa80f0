"""The Hub on bad days: one line with the true cause and what to do; no byte is lost, or taken on trust."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_hub import COMMIT, FakeHub, as_git, tag
from tiny import write_base, write_checkpoint

import mlx_tslm
from mlx_tslm import data
from mlx_tslm.cli import main
from mlx_tslm.data.published import sources
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import http
from mlx_tslm.fetching import hub as fetching

CHECKPOINT, BASE, TSQA = "OpenTSLM/llama-3.2-1b-har-sp", "meta-llama/Llama-3.2-1B", "datasets/ChengsenWang/TSQA"
LONGEST = 20.0  # seconds, of a slow machine; waits between attempts are cut to 0.01 s, timeouts to 0.5 s


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_base("llama", folder / "base")
    (folder / "checkpoint").mkdir()
    write_checkpoint("llama", folder / "checkpoint" / "model_checkpoint.pt", lora=4)
    (folder / "tsqa").mkdir()
    rows = "\n".join(f'Trend,2,Q {i},(a),x,"[1, 2]"' for i in range(200))
    (folder / "tsqa" / "TSQA.csv").write_text(f"Task,Size,Question,Answer,Label,Series\n{rows}\n")
    return folder


@pytest.fixture
def full(hub: FakeHub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub with a checkpoint, its base LLM and a data set; what is made of them goes to an empty cache."""
    monkeypatch.setenv("MLX_TSLM_CACHE", str(tmp_path / "cache"))
    hub.add(CHECKPOINT, published / "checkpoint")
    hub.add(BASE, published / "base")
    hub.add(TSQA, published / "tsqa")
    return hub


# What is asked for, and how to see that it came.
ERRANDS = {
    "convert": ["convert", "stage3", "--base", "llama-3.2-1b"],
    "data fetch": ["data", "fetch", "stage1"],
}
# (what goes wrong, where: what the line says)
LASTING = {
    ("cut", "GET"): "connection ended after",
    ("no_ranges", "GET"): "connection ended after",
    ("wrong_part", "GET"): "connection ended after",
    ("dropped", "GET"): "reset by peer.*go online",
    ("dropped", "HEAD"): "reset by peer.*go online",
    ("stalled", "GET"): "does not answer in time",
    ("mute", "GET"): "does not answer in time",
    ("mute", "HEAD"): "does not answer in time",
    ("garbage", "GET"): "cannot be fetched: SSH-2.0",
    ("garbage", "HEAD"): "cannot be reached",
    ("forbidden", "HEAD"): "answers 403 .Your organisation's policy forbids it.; log in",
    ("forbidden", "GET"): "answers 403 Forbidden; it wants a login, or a proxy",
    ("gated", "HEAD"): "is gated: ask for access at http://127.0.0.1:[0-9]+/.* `hf auth login`",
    ("disabled", "HEAD"): "is disabled: .* has closed access",
    ("unauthorized", "HEAD"): "or it is private: look at http://127.0.0.1",
    ("proxy_login", "HEAD"): "a proxy wants a login",
    ("too_many", "HEAD"): "answers 429; it was asked too often: wait some minutes",
    ("too_many", "GET"): "429 Too Many Requests; it was asked too often: wait some minutes",
    ("too_many_for_an_hour", "HEAD"): "answers 429; wait 3600 s",
    ("broken", "HEAD"): "answers 500; the trouble is at the server: wait",
    ("broken", "GET"): "500 Internal Server Error; the trouble is at the server: wait",
    ("overloaded", "HEAD"): "answers 503; the trouble is at the server: wait",
    ("overloaded", "GET"): "503 Service Unavailable; the trouble is at the server: wait",
    ("portal", "HEAD"): "is not the Hub; sign in to the network you are in, check the proxy",
    ("portal", "GET"): "a page of HTML was answered in its place: sign in to the network",
    ("portal_elsewhere", "HEAD"): "is not the Hub; sign in",
    ("going_round", "HEAD"): "redirects",
    ("wrong_bytes", "GET"): "not those that .* states .*, twice; they were deleted",
}


def said(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of an error."""
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in printed.err, printed.err
    return lines[0]


@pytest.mark.parametrize("errand", ERRANDS)
@pytest.mark.parametrize(("wrong", "where"), LASTING)
def test_lasting_trouble(
    errand: str, wrong: str, where: str, full: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named in one line within the time; then, all being well again, the same command does its work."""
    full.wrong(wrong, where)
    started = time.perf_counter()
    line = said(capsys, main(ERRANDS[errand]))
    assert time.perf_counter() - started < LONGEST
    assert re.search(LASTING[wrong, where], line), line
    assert "huggingface.co" not in line  # the endpoint is another
    assert not list(tmp_path.glob("cache/models/*"))
    full.wrong("", "GET")
    if errand == "data fetch":
        assert main(ERRANDS[errand]) == 0
        assert len(data.load("stage1", "train")) == 160
        assert sorted(path.name for path in sources.cache("stage1").iterdir()) == ["TSQA.csv"]


@pytest.mark.parametrize("wrong", ["mute", "portal", "gated", "broken", "forbidden", "cut"])
def test_lasting_trouble_of_a_base(wrong: str, full: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    """The base LLM's list of files is asked for another way."""
    full.wrong(wrong, "API")
    assert BASE in said(capsys, main(ERRANDS["convert"]))


@pytest.mark.parametrize("wrong", ["cut", "dropped", "stalled", "overloaded", "too_many", "wrong_bytes", "garbage"])
def test_passing_trouble(wrong: str, full: FakeHub, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Twice, or once where bytes are wrong: then it is waited for, with a line, and the model is converted."""
    full.wrong(wrong, "GET", times=1 if wrong == "wrong_bytes" else 2)
    assert main([*ERRANDS["convert"], "-o", str(tmp_path / "model")]) == 0
    assert ("once more" if wrong == "wrong_bytes" else "trying again in") in caplog.text
    assert mlx_tslm.load(tmp_path / "model").stage.name == "stage3"  # type: ignore[union-attr]


def test_load_by_name(full: FakeHub) -> None:
    full.wrong("overloaded", "HEAD", "API", times=2)
    assert mlx_tslm.load("OpenTSLM/llama-3.2-1b-har-sp").config.stage == "stage3"
    full.requests.clear()
    mlx_tslm.load("OpenTSLM/llama-3.2-1b-har-sp")
    assert not full.requests


def test_a_rerun_goes_on_where_the_last_stopped(full: FakeHub, tmp_path: Path) -> None:
    content = os.urandom(400_000)
    full.repos["me/x"] = {"big.pt": content}
    full.wrong("stalled", "GET")
    with pytest.raises(TSLMError, match="kB are here, and the same command goes on from there"):
        fetching.cached_file("me/x", "big.pt")
    kept = next(tmp_path.rglob("*.part")).stat().st_size
    full.wrong("", "GET")
    full.requests.clear()
    assert fetching.cached_file("me/x", "big.pt").read_bytes() == content
    assert [wanted for method, _, wanted, _ in full.requests if method == "GET"] == [f"bytes={kept}-"]
    assert not list(tmp_path.rglob("*.part*"))


def test_wrong_bytes_that_are_in_the_cache_are_fetched_again(full: FakeHub) -> None:
    """Of large files and of small ones: both have hashes."""
    full.repos["me/x"] = {"big.pt": os.urandom(8000), "config.json": b'{"a": 1}'}
    for name, content in full.repos["me/x"].items():
        path = fetching.cached_file("me/x", name)
        assert path.read_bytes() == content and path.resolve().name == tag(content)
        path.resolve().write_bytes(bytes(len(content)))
        assert fetching.cached_file("me/x", name).read_bytes() == content


def test_what_is_there_does_without_the_hub(
    full: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Offline, or where the Hub has trouble, without waiting; a commit is not even asked about."""
    from huggingface_hub import constants

    full.repos["me/x"] = {"a.pt": b"1", "config.json": b"{}"}
    path, folder = fetching.cached_file("me/x", "a.pt"), fetching.cached_folder("me/x", ["*.json"])
    assert folder == path.parent and folder.name == COMMIT
    for name in ("mute", "overloaded", "portal", "gated", "dropped"):
        full.wrong(name, "HEAD", "API")
        full.requests.clear()
        assert fetching.cached_file("me/x", "a.pt") == path
        assert fetching.cached_folder("me/x", ["*.json"]) == folder
        assert len(full.requests) == 2
    full.requests.clear()
    assert fetching.cached_file("me/x", "a.pt", COMMIT) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetching.cached_file("me/x", "a.pt") == path
    assert fetching.cached_folder("me/x", ["*.json"]) == folder
    with pytest.raises(
        TSLMError, match=r"me/y is not on this machine, and HF_HUB_OFFLINE says .* cannot be reached"
    ):
        fetching.cached_file("me/y", "a.pt")
    assert not full.requests


@pytest.mark.parametrize(
    ("repo", "file", "revision", "says"),
    [
        ("me/none", "a.pt", None, "me/none is not at 127.0.0.1.*or it is private"),
        ("me/x", "b.pt", None, "no such file; look at http://127.0.0.1.*/me/x/tree/main"),
        ("me/x", "a.pt", "v9", "no such revision"),
        ("me x", "a.pt", None, "no name of a Hub repository"),
    ],
)
def test_what_does_not_exist(full: FakeHub, repo: str, file: str, revision: str | None, says: str) -> None:
    full.repos["me/x"] = {"a.pt": b"1"}
    with pytest.raises(TSLMError, match=says):
        fetching.cached_file(repo, file, revision)


def test_names_and_hashes_do_not_lead_out_of_the_cache(full: FakeHub, tmp_path: Path) -> None:
    full.repos["me/x"] = {"a.pt": b"1", "model/../../../../evil.safetensors": b"1"}
    with pytest.raises(TSLMError, match="leads out of its folder"):
        fetching.cached_folder("me/x", ["model*.safetensors"])
    full.wrong("evil_tag", "HEAD")
    assert fetching.cached_file("me/x", "a.pt").resolve().is_relative_to(tmp_path / "hub")
    assert not list(tmp_path.parent.rglob("*evil*"))


def test_the_token_stays_with_its_host(full: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the endpoint, and not where that sends one for the bytes."""
    from fake_hub import TROUBLES, serving

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    full.repos["me/x"] = {"a.pt": b"12345"}
    with serving() as elsewhere:
        elsewhere.repos["me/x"] = full.repos["me/x"]
        away = f"{elsewhere.url.replace('127.0.0.1', 'localhost')}/me/x/resolve/main/a.pt"
        monkeypatch.setitem(TROUBLES, "away", lambda handler, *_: handler.refuse(
            302, Location=away, ETag=f'"{as_git(b"12345")}"', X_Repo_Commit=COMMIT
        ))  # fmt: skip
        full.wrong("away", "HEAD")
        assert fetching.cached_file("me/x", "a.pt").read_bytes() == b"12345"
        full.wrong("away", "GET")  # where the bytes' own address sends one on
        full.repos["me/x"]["b.pt"] = b"67890"
        monkeypatch.setitem(TROUBLES, "away", lambda handler, *_: handler.refuse(
            302, Location=away.replace("a.pt", "b.pt")
        ))  # fmt: skip
        assert fetching.cached_file("me/x", "b.pt").read_bytes() == b"67890"
    assert {sent for *_, sent in full.requests} == {"Bearer hf_secret"}
    assert len(elsewhere.requests) == 2 and {sent for *_, sent in elsewhere.requests} == {None}


def test_two_at_once_fetch_once(full: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(300_000)
    full.repos["me/x"] = {"a.pt": content}
    got: list[bytes] = []
    work = lambda: got.append(fetching.cached_file("me/x", "a.pt").read_bytes())  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [content] * 4


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "denied", "/x")])
def test_the_disk(full: FakeHub, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(http, "download", fail)
    full.repos["me/x"] = {"a.pt": b"1"}
    with pytest.raises(TSLMError, match="the disk is full" if error.errno == 28 else r"denied \(/x\); HF_HOME"):
        fetching.cached_file("me/x", "a.pt")


def test_the_environment_of_the_hubs_users(full: FakeHub, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN, --revision, then HF_HUB_OFFLINE, in processes of their own."""
    program = (
        "import json, sys; from mlx_tslm.cli import main;"
        f"print(main(['convert', '{CHECKPOINT}', '--revision', '{COMMIT}', '-o', sys.argv[1]]))"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": full.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_mine",
        "MLX_TSLM_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip

    def convert(output: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(tmp_path / output)]
        return subprocess.run(
            command, env=environment | more, capture_output=True, text=True, check=False, timeout=120
        )

    full.wrong("overloaded", "HEAD", times=1)
    done = convert("first")
    assert done.stdout.endswith("0\n"), done.stderr
    assert "answers 503; trying again in 1 s" in done.stderr
    asked = [one for one in full.requests if "Llama" in one[1] or "OpenTSLM" in one[1]]
    assert len(asked) > 5 and {sent for *_, sent in asked} == {"Bearer hf_mine"}
    assert (tmp_path / "home" / "hub" / f"models--{CHECKPOINT.replace('/', '--')}").is_dir()
    full.requests.clear()
    assert convert("second", HF_HUB_OFFLINE="1").stdout.endswith("0\n")
    assert not full.requests
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["source"]["revision"] == COMMIT
    weights = [mlx_tslm.load(tmp_path / name).projector.linear.weight for name in ("first", "second")]  # type: ignore[attr-defined]
    assert np.array_equal(*weights)
