"""The published data sets: their files, their bad rows, their downloads."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.signal import butter, sosfiltfilt, welch

from mlx_tslm import data, stages
from mlx_tslm.cli import main
from mlx_tslm.data.published import sources
from mlx_tslm.data.published.csv_index import CsvIndex
from mlx_tslm.data.published.splits import random_splits, stratified_splits
from mlx_tslm.data.synthetic import ecg as synthetic_ecg
from mlx_tslm.data.synthetic import har as synthetic_har
from mlx_tslm.data.synthetic import sleep as synthetic_sleep
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import http as download
from mlx_tslm.rewards.facts import physiology

HAR = ("x_axis", "y_axis", "z_axis", "label", "rationale")
ECG = ("question", "answer", "template_id", "question_type", "clinical_context", "rationale", "ecg_id")


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def har_row(number: int, length: int = 8, label: str = "walking") -> tuple[Any, ...]:
    axes = [[round(number + axis / 10 + i / 1000, 4) for i in range(length)] for axis in range(3)]
    return (*map(str, axes), label, f'He said, "steps"\nof sample {number}. Answer: {label}')


def har(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    for split in ("train", "val", "test"):
        table(folder / f"har_cot_{split}_cot.csv", HAR, rows)
    return folder


# ---------------------------------------------------------------- the five sets


def test_tsqa(tmp_path: Path) -> None:
    rows = [
        ("Trend", 4, f"Q {i}\n(a) one\n(b) two", "(a)", "x", json.dumps([i, i + 1.5, -i, 3])) for i in range(31)
    ]
    table(tmp_path / "TSQA.csv", ("Task", "Size", "Question", "Answer", "Label", "Series"), rows)
    for split, order in random_splits(31, (42, 42)).items():
        loaded = data.load("tsqa", split, tmp_path)  # type: ignore[arg-type]
        assert [row["Question"].split("\n")[0] for row in loaded] == [f"Q {i}" for i in order]
    row = loaded[1]
    assert row["Series"].dtype == np.float32 and row["Series"].tolist() == json.loads(rows[order[1]][-1])
    prompt, answer = loaded.stage.from_row(row)
    assert prompt.pre == row["Question"] and prompt.post == "Predict the Trend Answer:" and answer == "(a)"
    assert [r["Question"] for r in data.load("tsqa", "test", tmp_path, limit=2)] == [
        loaded[i]["Question"] for i in range(2)
    ]


def test_m4_joins_by_id_and_leaves_out_what_is_not_json_before_it_divides(tmp_path: Path) -> None:
    names = []
    for frequency in sources.M4_FREQUENCIES:
        ids = [f"{frequency[0]}{i}" for i in range(25)]
        series = [(name, json.dumps([i, 2, 3.5, 4])) for i, name in enumerate(ids)]
        captions = [(name, f"caption of {name}") for name in reversed(ids)]
        captions.remove((ids[3], f"caption of {ids[3]}"))  # a series without a caption is no row
        if frequency == "Monthly":
            series[5] = (ids[5], "[1, 2, nope]")
        table(tmp_path / "x" / f"m4_series_{frequency}.csv", ("id", "series"), series)
        table(tmp_path / "x" / f"m4_captions_{frequency}.csv", ("id", "caption"), captions)
        names += [name for i, name in enumerate(ids) if i != 3 and not (frequency == "Monthly" and i == 5)]
    order = random_splits(len(names), (42, 43))["train"]
    loaded = data.load("stage2", "train", tmp_path)
    assert [row["id"] for row in loaded] == [names[i] for i in order]
    assert all(
        row["caption"] == f"caption of {row['id']}" and row["id"][0] == row["frequency"][0] for row in loaded
    )
    (bad,) = loaded.malformed
    assert "m4_series_Monthly.csv, line 7: column 'series' is not JSON" in str(bad)
    assert loaded.stage.from_row(loaded[0]).answer == loaded[0]["caption"]


def test_har_leaves_out_headers_among_the_rows(tmp_path: Path) -> None:
    har(tmp_path, [har_row(0), HAR, har_row(1, label="biking"), HAR, har_row(2)])
    loaded = data.load("stage3", "validation", tmp_path)
    assert [row["label"] for row in loaded] == ["walking", "biking", "walking"] and not loaded.malformed
    row = loaded[-1]
    assert row["y_axis"].tolist() == np.float32([2.1 + i / 1000 for i in range(8)]).tolist()
    assert row["rationale"] == 'He said, "steps"\nof sample 2. Answer: walking'
    prompt, answer = loaded.stage.from_row(row)
    assert len(prompt.series) == 3 and answer == row["rationale"]
    with pytest.raises(IndexError):
        loaded[3]
    assert len(data.load("stage3", "validation", tmp_path, limit=2)) == 2


def test_sleep(tmp_path: Path) -> None:
    labels = [("Wake", "W", "REM sleep")[i % 3] for i in range(45)]
    rng = np.random.default_rng(0)
    epochs = rng.standard_normal((45, 1500)).round(3)
    rows = [
        (str([epoch.tolist()]), label, f"r {i}")
        for i, (epoch, label) in enumerate(zip(epochs, labels, strict=True))
    ]
    table(tmp_path / "sleep_cot.csv", ("time_series", "label", "rationale"), rows)
    for split, order in stratified_splits(labels, (42, 43)).items():
        loaded = data.load("stage4", split, tmp_path)  # type: ignore[arg-type]
        assert [row["rationale"] for row in loaded] == [f"r {i}" for i in order]
        np.testing.assert_array_equal(loaded[0]["time_series"], np.float32(epochs[order[0]]))
    assert len(loaded.stage.from_row(loaded[0]).prompt.series[0].values) == 1500


def write_ecg(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    for split in ("train", "val", "test"):
        table(folder / "ecg_qa_cot" / f"ecg_qa_cot_{split}.csv", ECG, rows)
    (folder / "ptb-xl" / "records500" / "00000").mkdir(parents=True, exist_ok=True)
    return folder


def ecg_row(number: int, template: object = 1) -> tuple[Any, ...]:
    return (f"Q {number}?", "yes", template, "single-verify", "A patient.", "Because. Answer: yes", f"[{number}]")


def test_ecg_takes_every_fifth_sample_of_its_record(tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    write_ecg(tmp_path, [ecg_row(17), ecg_row(18)])
    signals = np.random.default_rng(0).standard_normal((5000, 12)).round(3)
    leads = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    folder = tmp_path / "ptb-xl" / "records500" / "00000"
    wfdb.wrsamp("00017_hr", 500, ["mV"] * 12, leads, signals, fmt=["16"] * 12, adc_gain=[1000] * 12,
                baseline=[0] * 12, write_dir=str(folder))  # fmt: skip
    loaded = data.load("stage5", "test", tmp_path)
    row = loaded[0]
    assert row["template_id"] == 1 and row["ecg_paths"] == [str(folder / "00017_hr.hea")]
    prompt, answer = loaded.stage.from_row(row)
    assert [len(series.values) for series in prompt.series] == [1000] * 12 and answer == "Because. Answer: yes"
    taken = signals[::5, 1]
    np.testing.assert_allclose(prompt.series[1].values, (taken - taken.mean()) / taken.std(), atol=1e-5)
    assert "no, not sure, yes" in prompt.post and "Clinical Context: A patient." in prompt.pre
    with pytest.raises(
        TSLMError, match=r"ecg_qa_cot_test.csv, line 3: its ECG \[18\] is missing: there is no .*00018_hr"
    ):
        loaded[1]
    with pytest.raises(TSLMError, match="is missing"):  # data that are not whole are no bad row: the run stops
        list(loaded)


# ---------------------------------------------------------------- bad rows


def test_a_malformed_row_is_reported_with_file_and_line_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [har_row(i) for i in range(300)]
    rows[7] = (*rows[7][:1], "[1, 2, x]", *rows[7][2:])
    rows[20] = har_row(20, label="swimming")
    loaded = data.load("stage3", "train", har(tmp_path, rows))
    assert len(list(loaded)) == 298 and len(list(loaded)) == 298
    assert len(loaded.malformed) == len(caplog.messages) == 2
    # each row takes two lines: its rationale has a line break
    assert re.search(r"har_cot_train_cot\.csv, line 16: column 'y_axis' is not a list", caplog.messages[0])
    assert "line 42: unknown label 'swimming'; the labels are biking, lying" in caplog.messages[1]
    with pytest.raises(data.MalformedRow, match="line 16"):
        loaded[7]
    assert loaded.get(7) is None and loaded.get(8) is not None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("[1, NaN, 3]", "has nan at sample 1"),
        ("[]", "is empty"),
        ("[[1, 2], [3, 4]]", "one dimension"),
        ("", "x_axis"),
    ],
)
def test_series_that_are_no_series(tmp_path: Path, value: str, says: str) -> None:
    rows = [(value, *har_row(0)[1:])]
    loaded = data.load("stage3", "train", har(tmp_path, rows))
    with pytest.raises(data.MalformedRow, match=re.escape(says)):
        loaded[0]


def test_more_than_one_percent_stops(tmp_path: Path) -> None:
    rows = [har_row(i) for i in range(200)]
    for bad in (5, 50, 150):
        rows[bad] = har_row(bad, label="swimming")
    loaded = data.load("stage3", "train", har(tmp_path, rows))
    seen: list[object] = []
    with pytest.raises(TSLMError, match=r"3 of 200 rows are malformed, more than 1 %.*line 302: unknown label"):
        for row in loaded:
            seen.append(row)
    assert len(seen) == 148


def test_broken_csv_costs_the_broken_rows_only(tmp_path: Path) -> None:
    path = table(tmp_path / "har.csv", HAR, [har_row(i) for i in range(400)])
    lines = path.read_text().split("\n")
    lines[1 + 2 * 10] = lines[1 + 2 * 10][: len(lines[21]) // 3]  # cut short inside a quoted list
    lines[1 + 2 * 30] += ",more"  # inside the rationale: still one field
    lines[1 + 2 * 30 + 1] += ",more,still"  # after its end: two fields too many
    path.write_text("\n".join(lines))
    index = CsvIndex(path, HAR)
    numbers = [round(json.loads(index[i]["x_axis"])[0]) for i in range(len(index))]
    assert numbers == [i for i in range(400) if i not in (10, 30)]
    assert [bad.line for bad in index.malformed] == [22, 62]
    assert "7 fields where the header has 5" in str(index.malformed[-1])


def test_an_open_quotation_mark_costs_one_row(tmp_path: Path) -> None:
    rows = [(*har_row(i)[:4], f"one line of {i}") for i in range(9)]
    path = table(tmp_path / "har.csv", HAR, rows)
    lines = path.read_text().split("\n")
    lines[4] = lines[4][:9]
    path.write_text("\n".join(lines))
    index = CsvIndex(path, HAR)
    assert [index[i]["rationale"][-1] for i in range(len(index))] == list("01245678")
    assert [str(bad) for bad in index.malformed] == [f"{path}, line 5: not CSV: ',' expected after '\"'"]


def test_a_file_that_was_cut_short_says_so(tmp_path: Path) -> None:
    path = table(tmp_path / "har.csv", HAR, [har_row(i) for i in range(50)])
    path.write_bytes(path.read_bytes()[:-40])
    index = CsvIndex(path, HAR)
    assert len(index) == 49 and index.malformed[0].line == 100
    assert "unexpected end of data" in str(index.malformed[0])


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfid,caption\r\n1,good\r\n\r\n2,\xff\xfe\r\n3,fine\r\n")
    index = CsvIndex(path, ("id", "caption"))
    assert [index[i]["caption"] for i in range(len(index))] == ["good", "fine"]
    assert [bad.line for bad in index.malformed] == [4]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@given(st.lists(st.tuples(texts, texts, texts), max_size=12), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=60, deadline=None)
def test_the_index_finds_every_record(rows: list[tuple[str, str, str]], end: str) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"index-{os.getpid()}.csv"
    path.write_bytes(buffer.getvalue().encode())
    index = CsvIndex(path, ("a", "c"), keep=("b",))
    path_rows = [tuple(index[i].values()) for i in range(len(index))]
    path.unlink()
    expected = [row for row in rows if row != ("a", "b", "c")]
    assert path_rows == expected and index.kept["b"] == [row[1] for row in expected] and not index.malformed


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda folder: data.load("stage9", "train", folder), "there is no stage 'stage9'"),
        (lambda folder: data.load("stage3", "dev", folder), "there is no split 'dev'"),
        (lambda folder: data.load("stage3", "train", folder / "no"), "there is no such folder"),
        (
            lambda folder: data.load("stage3", "train", folder),
            "has no har_cot_train_cot.csv; run `mlx-tslm data fetch stage3`",
        ),
        (lambda folder: data.load("stage3", "train"), "not on this machine: run `mlx-tslm data fetch stage3`"),
    ],
)
def test_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Path], object], says: str
) -> None:
    monkeypatch.setenv("MLX_TSLM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(TSLMError, match=re.escape(says)):
        call(tmp_path)


def test_a_file_with_other_columns(tmp_path: Path) -> None:
    table(tmp_path / "TSQA.csv", ("Task", "Question"), [("a", "b")])
    with pytest.raises(TSLMError, match=r"TSQA.csv has no column 'Answer'.* is it the right file"):
        data.load("stage1", "train", tmp_path)


def test_an_unknown_template(tmp_path: Path) -> None:
    loaded = data.load("stage5", "train", write_ecg(tmp_path, [ecg_row(17, template=99)]))
    with pytest.raises(data.MalformedRow, match="line 2: ECG-QA has no template '99'"):
        loaded[0]


# ---------------------------------------------------------------- downloads


class Files(BaseHTTPRequestHandler):
    """Serves `server.files`, with ranges; the first `server.cuts` answers end after nine tenths of their length."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server: Any = self.server
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        content = server.files.get(self.path.split("?")[0])
        if content is None:
            return self.send_error(404)
        first, tag = 0, f'"{server.tag}"'
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range", tag) == tag:
            first = int(re.findall(r"\d+", wanted)[0])
            if first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("ETag", tag)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "HEAD":
            return None
        body = content[first:]
        if server.cuts:
            server.cuts -= 1
            body = body[: len(body) * 9 // 10]
        self.wfile.write(body)
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A web server on this machine; the cache is a folder of the test's own."""
    monkeypatch.setenv("MLX_TSLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.files, server.requests, server.cuts, server.tag = {}, [], 0, "one"
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def har_zip(rows: int = 5) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for split in ("train", "val", "test"):
            text = io.StringIO()
            csv.writer(text).writerows([HAR, *(har_row(i) for i in range(rows))])
            zipped.writestr(f"har/har_cot_{split}_cot.csv", text.getvalue())
    return buffer.getvalue()


def serve_har(server: Any, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    source = sources.SOURCES["stage3"]
    archive = replace(source.archives[0], url=f"{server.url}/har")
    monkeypatch.setitem(sources.SOURCES, "stage3", replace(source, archives=(archive,)))
    if content is not None:
        server.files["/har"] = content


def test_fetch_then_load(server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    serve_har(server, monkeypatch, har_zip())
    assert main(["data", "fetch", "har"]) == 0
    folder = sources.cache("stage3")
    assert sorted(path.name for path in folder.iterdir()) == ["har_cot"]  # neither the zip nor parts of it
    assert len(data.load("stage3", "test")) == 5
    assert main(["data", "fetch", "stage3"]) == 0 and len(server.requests) == 1  # it is there already
    capsys.readouterr()
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert listed.count("no\n") <= 5 and "stage3 (har)" in listed and "har_cot" not in listed
    assert main(["data", "show", "stage3", "--index", "1", "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert "accelerometer data on the z-axis, it has mean 1.2035" in shown and "Answer: walking" in shown
    assert "row  1 of the test split (5 rows)" in shown and max(shown) > "\u2800"


def test_a_download_goes_on_after_a_cut(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = content = bytes(range(256)) * 4000
    server.cuts = 2
    seen = []
    download.download(f"{server.url}/file", tmp_path / "file", lambda what, done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == content
    first = len(content) * 9 // 10
    ranges = [wanted for _, _, wanted in server.requests]
    assert ranges == [None, f"bytes={first}-", f"bytes={first + (len(content) - first) * 9 // 10}-"]
    assert seen[-1] == (len(content), len(content)) and {total for _, total in seen} == {len(content)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_later_call_goes_on_where_a_broken_one_ended(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = content = os.urandom(300_000)
    server.cuts = 100
    with pytest.raises(
        TSLMError, match=r"connection ended after 299999 of 300000 bytes; 300.0 kB are here, and the same"
    ):
        download.download(f"{server.url}/file", tmp_path / "file", lambda *_: None)
    assert not (tmp_path / "file").exists() and (tmp_path / "file.part").read_bytes() == content[:-1]
    server.cuts = 0
    server.requests.clear()
    download.download(f"{server.url}/file", tmp_path / "file", lambda *_: None)
    assert [wanted for _, _, wanted in server.requests] == ["bytes=299999-"]
    assert (tmp_path / "file").read_bytes() == content


def test_a_download_that_was_whole_but_unnamed(server: Any, tmp_path: Path) -> None:
    server.files["/file"] = content = os.urandom(5000)
    (tmp_path / "file.part").write_bytes(content)
    (tmp_path / "file.part.tag").write_text('"one"')
    download.download(f"{server.url}/file", tmp_path / "file", lambda *_: None)
    assert len(server.requests) == 1 and (tmp_path / "file").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"old" * 1000)
    (tmp_path / "file.part.tag").write_text('"zero"')
    server.files["/file"] = content = b"new" * 2000
    download.download(f"{server.url}/file", tmp_path / "file", lambda *_: None)
    assert (tmp_path / "file").read_bytes() == content


def test_no_such_file_and_no_server(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_har(server, monkeypatch, None)
    with pytest.raises(TSLMError, match=r"/har answers 404 Not Found; if it has moved, .* --data-dir"):
        sources.fetch("stage3")
    assert not list(sources.cache("stage3").iterdir())
    with pytest.raises(TSLMError, match=r"cannot be fetched: .*refused"):
        download.download("http://127.0.0.1:9/x", sources.cache("stage3") / "x", lambda *_: None)


def test_a_damaged_zip(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(har_zip(50))
    content[200] ^= 255
    serve_har(server, monkeypatch, bytes(content))
    with pytest.raises(TSLMError, match=r"har_cot.zip from .* is damaged .*fetch it again"):
        sources.fetch("stage3")
    assert not list(sources.cache("stage3").iterdir())
    serve_har(server, monkeypatch, b"<html>an error page</html>")
    with pytest.raises(TSLMError, match="File is not a zip file"):
        sources.fetch("stage3")


def test_a_zip_with_other_files(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("har_cot_train_cot.csv", "x")
    serve_har(server, monkeypatch, buffer.getvalue())
    with pytest.raises(TSLMError, match=r"has no har_cot_val_cot.csv: what is published there has changed"):
        sources.fetch("stage3")


def test_tsqa_comes_from_the_hub(server: Any, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", ("Task", "Size", "Question", "Answer", "Label", "Series"),
                 [("Trend", 2, f"Q {i}", "(a)", "x", "[1, 2]") for i in range(30)])  # fmt: skip
    server.files["/datasets/ChengsenWang/TSQA/resolve/main/TSQA.csv"] = path.read_bytes()
    environment = os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }

    def fetch() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mlx_tslm", "data", "fetch", "stage1"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    server.files, kept = {}, server.files
    failed = fetch()
    assert failed.returncode == 2 and "error: TSQA.csv cannot be fetched from" in failed.stderr
    assert "Traceback" not in failed.stderr
    server.files = kept
    assert fetch().returncode == 0
    assert len(data.load("stage1", "train")) == 24


def test_show_refuses_a_row_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    har(tmp_path, [har_row(0)])
    assert main(["data", "show", "stage3", "--index", "5", "--data-dir", str(tmp_path)]) == 2
    assert "--index 5: the train split of stage3 has rows 0 to 0" in " ".join(capsys.readouterr().err.split())


# ---------------------------------------------------------------- the synthetic curriculum of stages 3 to 5

SYNTHETIC = {"stage3": synthetic_har, "stage4": synthetic_sleep, "stage5": synthetic_ecg}
SIZE = 120


def made(stage: str, split: data.Split = "train", size: int = SIZE, seed: int = 0) -> list[dict[str, Any]]:
    return list(data.load(stage, split, source="synthetic", size=size, seed=seed))


def combination(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(list(vars(row["traits"]).values())[:3])


@pytest.mark.parametrize("stage", stages.names())
def test_synthetic_rows_are_rows_of_their_stage(stage: str) -> None:
    dataset = data.load(stage, "train", source="synthetic", size=12, seed=3)
    samples = [dataset.stage.from_row(row) for row in dataset]
    assert len(samples) == len(dataset) == 12
    last = dataset.stage.from_row(data.load(stage, "train", source="synthetic", size=99, seed=3)[11])
    assert last.answer == samples[-1].answer  # a larger set begins with the same rows
    np.testing.assert_array_equal(last.prompt.series[0].values, samples[-1].prompt.series[0].values)
    others = [data.load(stage, "train", source="synthetic", size=12, seed=4)[0]]
    others.append(data.load(stage, "validation", source="synthetic", size=12, seed=3)[0])
    for row in others:
        series = dataset.stage.from_row(row).prompt.series[0].values
        assert not np.array_equal(series, samples[0].prompt.series[0].values)
    if dataset.stage.marker:
        for row, sample in zip(dataset, samples, strict=True):
            told = dataset.stage.parse(sample.answer)
            assert told == (row["answer"] if stage == "stage5" else row["label"])
            assert sample.answer.count("Answer:") == 1 and sample.answer.endswith(f"Answer: {told}")
            if stage != "stage5":
                assert told not in sample.answer.removesuffix(f"Answer: {told}")
            else:
                assert told in (sample.prompt.labels or ())


@pytest.mark.parametrize(("stage", "module"), SYNTHETIC.items())
def test_the_synthetic_test_split_is_held_out_by_parameters(stage: str, module: Any) -> None:
    held = module.HELD_OUT
    drawn = {
        split: {combination({"traits": module.draw(np.random.default_rng(i), split)}) for i in range(900)}
        for split in data.SPLITS
    }
    assert not (drawn["train"] | drawn["validation"]) & held
    assert drawn["test"] == held
    labels = {combination[0] for combination in drawn["train"]}
    for label in labels:  # each label is tested, and each value of a parameter was seen with it
        assert any(one[0] == label for one in held)
        for position in (1, 2):
            values = {one[position] for one in drawn["train"] if one[0] == label}
            assert values >= {one[position] for one in held if one[0] == label}


def stated(pattern: str, row: dict[str, Any]) -> float:
    found = re.search(pattern, row["rationale"])
    assert found, row["rationale"]
    return float(found[1])


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_said_of_movement_is_true(split: data.Split) -> None:
    for row in made("stage3", split):
        axes = [row[f"{axis}_axis"].astype(np.float64) for axis in "xyz"]
        text, means = row["rationale"], [axis.mean() for axis in axes]
        named = re.search(r"the (.)-axis, whose mean is (\S+)\.", text)
        assert named and "xyz".index(named[1]) == int(np.argmax(np.abs(means)))
        assert float(named[2]) == pytest.approx(means["xyz".index(named[1])], abs=0.051)
        share = np.abs(means).max() / np.linalg.norm(means)
        assert ("shared" in text) == (share <= 0.95)
        movement = physiology.movement_intensity(axes)
        assert stated(r"vary by about (\d+\.\d+)", row) == pytest.approx(movement, abs=0.051)
        if "cycle" in text:
            cadence = physiology.find_cadence(axes, synthetic_har.RATE)
            assert cadence and stated(r"cycle every (\d+) samples", row) == pytest.approx(50 / cadence, rel=0.12)
        else:
            assert movement < 0.3 and row["label"] in ("lying", "sitting", "standing")


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_said_of_sleep_is_true(split: data.Split) -> None:
    for row in made("stage4", split):
        values, label, traits = row["time_series"].astype(np.float64), row["label"], row["traits"]
        assert values.shape == (1500,)
        if "peak to peak" in row["rationale"]:
            assert stated(r"(\d+) µV from peak to peak", row) == pytest.approx(np.ptp(values), abs=0.6)
        frequencies, power = welch(values, 50, nperseg=500)
        if label in ("Wake", "Non-REM stage 1", "Non-REM stage 3"):
            strongest = frequencies[np.argmax(power)]
            assert stated(r"(\d+\.\d) Hz", row) == pytest.approx(strongest, abs=0.2)
        shares = physiology.band_shares(values, 50)
        leading = {"Wake": "alpha", "Non-REM stage 1": "theta", "Non-REM stage 3": "delta"}.get(label)
        assert leading is None or max(shares, key=lambda band: shares[band]) == leading
        slow = synthetic_sleep.slow_share(values)
        assert (slow > 0.5) == (label in ("Non-REM stage 3", "Movement"))
        if label in ("Wake", "Non-REM stage 1", "REM sleep"):
            assert slow == 0
        if label in ("Non-REM stage 1", "REM sleep"):
            assert np.ptp(values) < 110
        if label == "Non-REM stage 2":
            assert stated(r"(\d) sleep spindle", row) == len(traits.events) >= 2
            assert stated(r"(\d) K complex", row) == len(traits.complexes) >= 1
            sigma = sosfiltfilt(butter(4, [11.5, 15.5], "bandpass", fs=50, output="sos"), values)
            envelope = np.convolve(np.abs(sigma), np.full(25, 1 / 25), "same")
            inside = np.zeros(1500, dtype=bool)
            for at in traits.events:
                inside[int(50 * (at - 1)) : int(50 * (at + 1))] = True
                assert envelope[int(50 * at)] > 3 * np.median(envelope[~inside])
            for at in traits.complexes:
                around = slice(int(50 * (at - 0.5)), int(50 * (at + 1)))
                assert np.ptp(values[around]) > synthetic_sleep.SLOW_WAVE
                assert abs(around.start + np.argmin(values[around]) - 50 * at) < 8


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_said_of_the_heart_is_true(split: data.Split) -> None:
    for row in made("stage5", split, 40):
        leads, rhythm, traits = row["signals"].astype(np.float64), row["traits"].rhythm, row["traits"]
        assert leads.shape == (12, 1000)
        one, two, three, right, left, foot = leads[:6]
        derived = [two - one, -(one + two) / 2, one - two / 2, two - one / 2]
        np.testing.assert_allclose([three, right, left, foot], derived, atol=1e-5)
        found = physiology.find_beats([two, leads[6], leads[10]], 100)
        assert found and abs(len(found.times) - len(traits.beats)) <= 1  # one may lie on the edge
        beats = np.array(traits.beats)
        assert np.abs(found.times - beats[1:-1, None]).min(1).max() < 0.06  # each is found where it is said to be
        intervals = np.diff(beats)
        rate = stated(r"(?:beat|rate is) (\d+)", row)
        assert rate == pytest.approx(60 / intervals.mean(), abs=0.51)
        assert stated(r"RR intervals of (\S+) to", row) == pytest.approx(intervals.min(), abs=0.0051)
        assert stated(r"RR intervals of \S+ to (\S+) s", row) == pytest.approx(intervals.max(), abs=0.0051)
        assert (rate < 60) == (rhythm == "sinus bradycardia")
        if rhythm.startswith("sinus") and rhythm != "sinus arrhythmia":
            assert (rate > 100) == (rhythm == "sinus tachycardia") and np.ptp(intervals) < 0.17 * intervals.mean()
        if rhythm == "sinus arrhythmia":
            assert 0.12 < np.ptp(intervals) / intervals.mean() < 0.6
        # A P wave is a bump of lead II before the QRS complex: more than what the line from end to end holds.
        bumps = []
        for beat, before in zip(traits.beats[1:], traits.intervals, strict=False):
            faster = before**-0.5
            peak = beat - before * faster**0.5 / 6
            width = 0.6 * before * 0.25 * faster / (2 * np.pi) * 2
            at, first, last = (round(100 * second) for second in (peak, peak - 2 * width, peak + 1.6 * width))
            bumps.append(two[at] - (two[first] + two[last]) / 2)
        if rhythm.startswith("sinus"):
            assert "P wave precedes" in row["rationale"] and np.median(bumps) > 0.04
        elif rhythm == "atrial flutter":
            line = stated(r"of (\d) waves a beat", row) * rate / 60
            frequencies, power = welch(two - np.median(two), 100, nperseg=800)
            assert 4.2 < line < 5.5 and power[np.argmin(np.abs(frequencies - line))] > np.median(power)
        else:
            assert "No P waves" in row["rationale"] and found.irregularity > 0.03
            assert np.std(bumps) > 0.01  # what stands there differs from beat to beat


def test_heart_beats_are_the_published_dynamical_model() -> None:
    """Against the three equations of McSharry et al. (2003), integrated numerically at 60 beats a minute."""
    omega = 2 * np.pi

    def equations(_: float, state: np.ndarray) -> list[float]:
        x, y, z = state
        alpha = 1 - np.hypot(x, y)
        distance = (np.arctan2(y, x) - synthetic_ecg._ANGLES + np.pi) % (2 * np.pi) - np.pi
        pulls = synthetic_ecg._HEIGHTS * distance * np.exp(-(distance**2) / (2 * synthetic_ecg._WIDTHS**2))
        return [alpha * x - omega * y, alpha * y + omega * x, -pulls.sum() - z]

    t = np.arange(0, 4, 1 / 500)
    solved = solve_ivp(equations, (0, 4), [-1.0, 0.0, 0.0], t_eval=t, rtol=1e-7, atol=1e-9, max_step=0.01).y[2]
    phase = (omega * t - np.pi) % (2 * np.pi)
    forces = np.stack([synthetic_ecg._force(phase, np.ones_like(t), i) for i in range(5)])
    ours = synthetic_ecg._relax((synthetic_ecg._HEIGHTS @ forces)[None])[0]
    assert np.abs(ours - solved).max() < 0.003 * np.ptp(solved)


def test_show_draws_a_synthetic_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["data", "show", "ecg", "--source", "synthetic", "--split", "test", "--index", "3", "--seed", "1"])
        == 0
    )
    shown = capsys.readouterr().out
    assert all(f"This is ECG Lead {lead}, it has mean" in shown for lead in ("I", "aVR", "V6"))
    assert "before the series" in shown and "reference answer" in shown and "row  3 of the test split" in shown
