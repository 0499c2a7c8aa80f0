"""Recordings: every file type reads back what was written, transforms keep time, faults are located."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mlx_tslm import TSLMError
from mlx_tslm.signals import FILE_TYPES, Recording, read, resample, sparkline, window

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real recordings of ../shared/data are absent")
finite = st.floats(-1e30, 1e30, allow_nan=False)
# [channels, T] with time the longer axis, which is how a file without names is read.
channels = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite).map(
    lambda values: values if values.shape[0] <= values.shape[1] else values.T.copy()
)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- round trips ---------------------------------------------------------------------------------------------


@quick
@given(values=channels, delimiter=st.sampled_from([",", "\t", ";", "|", " "]), header=st.booleans())
def test_delimited_text(tmp_path: Path, values: np.ndarray, delimiter: str, header: bool) -> None:
    names = [f"lead{number}" for number in range(len(values))]
    lines = [delimiter.join(map(repr, row)) for row in values.T.tolist()]
    path = write(tmp_path, "x.csv", "\n".join([delimiter.join(names), *lines] if header else lines))
    recording = read(path, channels=names if header else None)
    if header:
        np.testing.assert_array_equal(recording.values, values)
        assert recording.names == tuple(names)
    elif not recording.notes:  # a first column that rises evenly is an index, and a note says so
        np.testing.assert_array_equal(recording.values, values if values.shape[1] > 1 else values.T)


@quick
@given(values=channels)
def test_numpy_files(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "t.npy", values.T)
    np.savez(tmp_path / "x.npz", **{f"c{number}": row for number, row in enumerate(values)})
    np.testing.assert_array_equal(read(tmp_path / "x.npy").values, values)
    if values.shape[0] != values.shape[1]:
        np.testing.assert_array_equal(read(tmp_path / "t.npy").values, values)
    named = read(tmp_path / "x.npz")
    np.testing.assert_array_equal(named.values, values)


@quick
@given(values=channels)
def test_json_files(tmp_path: Path, values: np.ndarray) -> None:
    rows = values.tolist()
    names = [f"c{number}" for number in range(len(rows))]
    lists = read(write(tmp_path, "x.json", json.dumps(rows)))
    named = read(write(tmp_path, "y.json", json.dumps(dict(zip(names, rows, strict=True)))))
    steps = [dict(zip(names, step, strict=True)) for step in values.T.tolist()]
    lines = read(write(tmp_path, "x.jsonl", "\n".join(map(json.dumps, steps))), channels=names)
    plain = read(write(tmp_path, "y.jsonl", "\n".join(map(json.dumps, rows[0]))))
    for recording in (lists, named, lines):
        np.testing.assert_array_equal(recording.values, values)
    np.testing.assert_array_equal(plain.values[0], rows[0])
    assert named.names == lines.names == tuple(names)


def test_wfdb(tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb", reason="needs the formats extra")
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(500, 2))
    wfdb.wrsamp(
        "rec",
        fs=250,
        units=["mV", "uV"],
        sig_name=["I", "II"],
        p_signal=signal,
        fmt=["16", "16"],
        write_dir=str(tmp_path),
    )
    for path in (tmp_path / "rec", tmp_path / "rec.hea", tmp_path / "rec.dat"):
        recording = read(path)
        assert (recording.names, recording.rate, recording.units) == (("I", "II"), 250.0, ("mV", "uV"))
        np.testing.assert_allclose(recording.values, signal.T, atol=2e-4)
    np.testing.assert_allclose(read(tmp_path / "rec", channels=["ii"]).values[0], signal[:, 1], atol=2e-4)
    with pytest.raises(TSLMError, match=r"no channel 'V1'; the channels are 0: I, 1: II"):
        read(tmp_path / "rec", channels=["V1"])
    (tmp_path / "rec.dat").unlink()
    with pytest.raises(TSLMError, match=r"rec\.dat is missing"):
        read(tmp_path / "rec.hea")
    write(tmp_path, "lone.dat", b"\x01\x02\x03\x04")
    with pytest.raises(TSLMError, match=r"no header lone\.hea"):
        read(tmp_path / "lone.dat")


@pytest.mark.parametrize("suffix", ["edf", "bdf"])
def test_edf(tmp_path: Path, suffix: str) -> None:
    edfio = pytest.importorskip("edfio", reason="needs the formats extra")
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2, 1000))
    kind, signal = (edfio.Edf, edfio.EdfSignal) if suffix == "edf" else (edfio.Bdf, edfio.BdfSignal)
    kind(
        [
            signal(data[0], sampling_frequency=100, label="EEG Fpz", physical_dimension="uV"),
            signal(data[1], sampling_frequency=100, label="EOG"),
            signal(data[1, :500], sampling_frequency=50, label="EMG"),
        ]
    ).write(tmp_path / f"x.{suffix}")
    path = tmp_path / f"x.{suffix}"
    recording = read(path, channels=["EOG", 0])
    assert (recording.names, recording.rate, recording.units) == (("EOG", "EEG Fpz"), 100.0, ("", "uV"))
    np.testing.assert_allclose(recording.values, data[::-1], atol=2e-4)
    with pytest.raises(TSLMError, match=r"different rates \(EEG Fpz 100 Hz, EOG 100 Hz, EMG 50 Hz\)"):
        read(path)
    with pytest.raises(TSLMError, match=f"cannot be read as {suffix.upper()}"):
        read(write(tmp_path, f"bad.{suffix}", b"no such thing"))


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wfdb", None)
    monkeypatch.setitem(sys.modules, "edfio", None)
    for name in ("x.hea", "x.edf"):
        with pytest.raises(TSLMError, match=r'pip install "mlx-tslm\[formats\]"'):
            read(write(tmp_path, name, "x"))


# --- tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "note"),
    [
        ("Date,Passengers\n1949-01,112\n1949-02,118\n", ("Passengers",), "'Date': it holds dates"),
        (",0\n1821,269\n1822,321\n1823,585\n", ("0",), "column 1: it holds an index"),
        ("when,who,v\n12:30:01,Ann,1\n12:30:02,Bob,2\n", ("v",), "'who': it holds text"),
        ("0,5\n1,3\n2,9\n", ("0",), "column 1: it holds an index"),
        ("time [s],a,b\n0.0,5,1\n0.7,3,2\n0.9,9,3\n", ("a", "b"), "'time [s]': it holds times"),
        ("a,b\n0,5\n1,3\n2,9\n", ("a", "b"), None),
        ("x\n1\n2\n3\n", ("x",), None),
        ("1\n2\n3\n", ("0",), None),
        ("# a remark\na;b\n1,5;2,5\n3,5;4,5\n", ("a", "b"), None),
        ("a,b,\n1,2,\n3,4,\n", ("a", "b"), None),
    ],
)
def test_columns(tmp_path: Path, text: str, names: tuple[str, ...], note: str | None) -> None:
    recording = read(write(tmp_path, "x.csv", text))
    assert recording.names == names
    assert any(note in said for said in recording.notes) if note else not recording.notes


def test_one_line_is_one_series(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(write(tmp_path, "x.csv", "1,2,3,5")).values, [[1, 2, 3, 5]])


def test_decimal_commas(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", "a;b\n1,5;2\n-3,25;4\n")
    np.testing.assert_array_equal(read(path).values, [[1.5, -3.25], [2, 4]])


def test_only_the_chosen_columns_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", "a,b\n1,2\n,4\n5,6\n")
    np.testing.assert_array_equal(read(path, channels=["b"]).values, [[2, 4, 6]])
    np.testing.assert_array_equal(read(path, channels=[1]).values, [[2, 4, 6]])
    np.testing.assert_array_equal(read(path, channels=["1"]).values, [[2, 4, 6]])
    with pytest.raises(TSLMError, match=r"row 3, column 'a' is missing"):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "x.csv is empty"),
        ("x.csv", "\n \n", "is empty"),
        ("x.csv", "a,b\n", "a header but no rows"),
        ("x.csv", "a,b\n1,2\n3,x\n", r"row 3, column 'b' is 'x', not a number"),
        ("x.csv", "a,b\n1,2\n\n3,nan\n", r"row 4, column 'b' is missing"),
        ("x.csv", "a,b\n1,inf\n", r"row 2, column 'b' is 'inf'"),
        ("x.csv", "a,b\n1,2\n3,4,5\n", r"row 3 has 3 cells where the others have 2"),
        ("x.csv", "name,day\nAnn,2021-01-01\nBob,2021-01-02\n", "no column of numbers"),
        ("x.csv", b"\x01\xff\x02\x03,2\n", "is not text"),
        ("x.json", "[1, 2", "not JSON"),
        ("x.json", "[]", "the list is empty"),
        ("x.json", '[1, "a", 3]', "value 1 is 'a', not a number"),
        ("x.json", "[1, null]", "value 1 is None, not a number"),
        ("x.json", "[[1, 2], [3]]", "different lengths"),
        ("x.json", "[1, NaN]", "sample 1 of channel '0' is missing"),
        ("x.json", '"text"', "no list of numbers"),
        ("x.json", '{"a": [1, 2], "b": [1]}', r"different lengths \(a: 2, b: 1\)"),
        ("x.json", '{"a": [1, "x"]}', "channel 'a': value 1 is 'x', not a number"),
        ("x.json", f"[{10**30}]", "value 0 is 1000000000000000000000000000000, not a number"),
        ("x.json", '{"a": 1}', "there is no list of numbers among 'a'"),
        ("x.json", "{}", "there is no channel"),
        ("x.jsonl", '{"a": 1}\n{"b": 2}\n', "line 2 has not the names of the first: a"),
        ("x.jsonl", '{"a": 1}\n\n{"a": null}\n', r"row 3, column 'a' is missing"),
        ("x.jsonl", "1\n2,\n", "line 2 is not JSON"),
        ("x.npy", b"not numpy", "not a NumPy file"),
        ("x.npy", pickle.dumps([1, 2]), "not a NumPy file"),
        ("x.npz", b"PK\x03\x04 truncated", "not a NumPy file"),
        ("x.acq", "x", r"unknown file type '.acq'; known are .csv, .tsv"),
        ("x", "1", "unknown file type"),
    ],
)
def test_faults_are_located(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(TSLMError, match=message) as caught:
        read(write(tmp_path, name, text))
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["x.csv", "x.json", "x.jsonl", "x.npy", "x.npz"]),
    data=st.binary(max_size=60)
    | st.text("0123456789.,;-e|# \n\t\"'nax:[]{}", max_size=80).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab1", max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_a_file_holds_is_read_or_named(tmp_path: Path, name: str, data: bytes) -> None:
    try:
        recording = read(write(tmp_path, name, data))
    except TSLMError as error:
        assert str(tmp_path / name) in str(error)
    else:
        assert np.isfinite(recording.values).all() and recording.values.ndim == 2


def test_json_too_deep(tmp_path: Path) -> None:
    with pytest.raises(TSLMError, match="not JSON"):
        read(write(tmp_path, "x.json", "[" * 100_000))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TSLMError, match="there is no file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(TSLMError, match="is a folder"):
        read(tmp_path)


def test_faulty_arrays(tmp_path: Path) -> None:
    faulty = {
        "empty": (np.zeros(0), "empty"),
        "three": (np.zeros((2, 2, 2)), r"its shape is 2 x 2 x 2, .* with --case: 0, 1"),
        "complex": (np.zeros(3, complex), "complex"),
        "text": (np.array(["a", "b"]), "not numeric"),
        "nan": (np.array([[1, 2, 3], [4, 5, np.nan]]), r"sample 2 of channel '1' is missing"),
    }
    for name, (array, message) in faulty.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(TSLMError, match=message):
            read(tmp_path / f"{name}.npy")
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    with pytest.raises(TSLMError, match="Python objects"):
        read(tmp_path / "object.npy")
    np.savez(tmp_path / "object.npz", a=np.array([{}], dtype=object))
    with pytest.raises(TSLMError, match=r"object\.npz"):
        read(tmp_path / "object.npz")


def test_npz_of_several_lengths(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(5), b=np.arange(7), rate=250)
    with pytest.raises(TSLMError, match=r"different lengths \(a: 5, b: 7\); choose some"):
        read(tmp_path / "x.npz")
    np.testing.assert_array_equal(read(tmp_path / "x.npz", channels=["b"], rate=250).values, [np.arange(7)])


def test_declared_rate(tmp_path: Path) -> None:
    assert read(write(tmp_path, "x.json", "[1, 2]"), rate=50).rate == 50.0
    with pytest.raises(TSLMError, match="positive number of Hz"):
        read(tmp_path / "x.json", rate=0)


def test_every_known_type_is_documented() -> None:
    for suffix in FILE_TYPES:
        assert suffix in {".ndjson", ".hea", ".dat"} or suffix[1:].upper() in (read.__doc__ or "")


# --- choosing, cutting, resampling ---------------------------------------------------------------------------


def test_select() -> None:
    recording = Recording(np.arange(12.0).reshape(3, 4), ("I", "II", "2"), units=("mV", "uV", ""))
    chosen = recording.select(["ii", 0, "2"])
    assert (chosen.names, chosen.units) == (("II", "I", "2"), ("uV", "mV", ""))
    np.testing.assert_array_equal(chosen.values, recording.values[[1, 0, 2]])
    with pytest.raises(TSLMError, match=r"no channel 'V1'; the channels are 0: I, 1: II, 2"):
        recording.select(["V1"])
    with pytest.raises(TSLMError, match="no channel 3"):
        recording.select([3])
    with pytest.raises(TSLMError, match="no channel -1"):
        recording.select([-1])


@quick
@given(
    total=st.integers(1, 400),
    rate=st.sampled_from([None, 1.0, 50.0, 128.0]),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_window_arithmetic(total: int, rate: float | None, part: tuple[float, float]) -> None:
    recording = Recording(np.arange(float(total)), rate=rate)
    scale = rate or 1.0
    first = min(int(part[0] * total), total - 1)
    count = max(1, int(part[1] * (total - first)))
    cut = window(recording, first / scale, count / scale)
    np.testing.assert_array_equal(cut.values[0], np.arange(first, first + count))
    assert cut.rate == rate
    assert window(recording, first / scale).values.shape[1] == total - first


@pytest.mark.parametrize(
    ("start", "seconds", "message"),
    [
        (10.0, None, r"starts at 10 s, but the recording has 10 s"),
        (5.0, 6.0, r"ends at 11 s, but the recording has 10 s"),
        (-1.0, None, "0 or more"),
        (0.0, 0.0, "at least one sample"),
        (float("nan"), 1.0, "0 or more"),
    ],
)
def test_window_outside(start: float, seconds: float | None, message: str) -> None:
    with pytest.raises(TSLMError, match=message):
        window(Recording(np.arange(1000.0), rate=100.0), start, seconds)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([50.0, 99.5, 100.0, 360.0, 1000.0]),
    target=st.sampled_from([40.0, 50.0, 100.0, 125.0, 500.0]),
)
def test_resampling_keeps_duration_frequency_and_offset(rate: float, target: float) -> None:
    tone, offset = 3.0, 1000.0
    time = np.arange(int(20 * rate)) / rate
    after = resample(Recording(np.sin(2 * np.pi * tone * time) + offset, rate=rate), target)
    assert after.rate == target
    assert after.seconds is not None and abs(after.seconds - 20) <= 1 / target + 1e-9
    middle = after.values[0, after.values.shape[1] // 10 : -after.values.shape[1] // 10]
    at = np.arange(after.values.shape[1]) / target
    expected = (np.sin(2 * np.pi * tone * at) + offset)[after.values.shape[1] // 10 : -after.values.shape[1] // 10]
    np.testing.assert_allclose(middle, expected, atol=0.02)
    assert abs(after.values[0] - offset).max() < 1.3  # no step at the ends


def test_resampling_does_not_alias() -> None:
    time = np.arange(5000) / 500
    after = resample(Recording(np.sin(2 * np.pi * 90 * time), rate=500.0), 100.0)  # 90 Hz would fold to 10 Hz
    assert abs(after.values[0, 50:-50]).max() < 0.02


def test_resampling_needs_rates() -> None:
    with pytest.raises(TSLMError, match="own sampling rate is not known"):
        resample(Recording([1.0, 2.0]), 10.0)
    with pytest.raises(TSLMError, match="positive number of Hz"):
        resample(Recording([1.0, 2.0], rate=1.0), -1.0)


# --- drawing -------------------------------------------------------------------------------------------------


@quick
@given(
    values=arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e300, 1e300)).map(
        lambda x: np.clip(x, -1e38, 1e38)
    ),
    width=st.integers(1, 100),
    height=st.integers(1, 4),
)
def test_a_drawing_has_its_size(values: np.ndarray, width: int, height: int) -> None:
    lines = sparkline(values, width, height).split("\n")
    assert [len(line) for line in lines] == [width] * height
    assert all(0x2800 <= ord(cell) <= 0x28FF for line in lines for cell in line)
    for column in range(width):
        stack = 0
        for line in lines:
            stack |= ord(line[column]) - 0x2800
        assert stack & 0x47 and stack & 0xB8  # each of the two columns of dots has one


def test_a_narrow_peak_is_drawn() -> None:
    series = np.zeros(10_000)
    series[5000] = 1.0
    top, bottom = sparkline(series, 40, 2).split("\n")
    assert 1 <= sum(cell != "\u2800" for cell in top) <= 2
    assert all(cell != "\u2800" for cell in bottom)


def test_a_rising_line_rises() -> None:
    rows = sparkline(np.arange(100.0), 10, 4).split("\n")
    assert rows[0][-1] != "\u2800" and rows[0][0] == "\u2800"
    assert rows[-1][0] != "\u2800" and rows[-1][-1] == "\u2800"


def test_drawings_out_of_range() -> None:
    for width, height in ((0, 1), (10, 0), (10, 5)):
        with pytest.raises(TSLMError, match="width"):
            sparkline([1.0, 2.0], width, height)
    with pytest.raises(TSLMError, match="nan"):
        sparkline([1.0, float("nan")])


# --- real recordings -----------------------------------------------------------------------------------------


@needs_shared
def test_a_real_ecg() -> None:
    pytest.importorskip("wfdb", reason="needs the formats extra")
    recording = read(SHARED / "ecg" / "s0010_re")
    assert recording.values.shape == (15, 38400) and recording.rate == 1000.0
    raw = np.fromfile(SHARED / "ecg" / "s0010_re.dat", dtype="<i2").reshape(-1, 12)
    np.testing.assert_allclose(read(SHARED / "ecg" / "s0010_re.dat", ["ii"]).values[0], raw[:, 1] / 2000)
    ten = resample(window(recording, 5, 10), 100)
    assert ten.values.shape == (15, 1000) and ten.seconds == 10


@needs_shared
@pytest.mark.parametrize(
    ("name", "column", "size"),
    [
        ("Airline", "Passengers", 144),
        ("Lynx", "0", 114),
        ("ShampooSales", "Sales", 36),
        ("solar", "solar_gen", 289),
    ],
)
def test_real_tables(name: str, column: str, size: int) -> None:
    recording = read(SHARED / "forecast" / f"{name}.csv")
    assert recording.names == (column,) and recording.values.shape == (1, size)
    assert sum("left out" in note for note in recording.notes) == 1
