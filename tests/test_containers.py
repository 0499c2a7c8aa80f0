"""Recordings in binary files: what scipy, h5py, pyarrow, openpyxl, wfdb and edfio write is read back as it was."""

import io
import json
import struct
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlx_tslm import TSLMError
from mlx_tslm.signals import How, SeveralCases, cases, read

RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 60)).round(3)
quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
values = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(8, 30)), elements=st.floats(-1e9, 1e9))


def same(path: Path, names: tuple[str, ...], want: Any, rate: float | None = None, **how: Any) -> None:
    got = read(path, how=How(**how))
    assert (got.names, got.rate) == (names, rate), got.notes
    np.testing.assert_allclose(got.values, want, rtol=1e-12)


def test_matlab(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "x.mat", {"ecg": X[0], "fs": 250.0})
    same(tmp_path / "x.mat", ("ecg",), X[:1], 250)
    savemat(tmp_path / "val.mat", {"val": X})  # PhysioNet's challenges
    same(tmp_path / "val.mat", ("0", "1"), X)
    savemat(tmp_path / "s.mat", {"data": {"eeg": X[0], "srate": 128, "label": "x"}})
    same(tmp_path / "s.mat", ("eeg",), X[:1], 128)
    savemat(tmp_path / "t.mat", {"t": np.arange(60) / 50, "x": X.T})
    got = read(tmp_path / "t.mat", ["x"])
    np.testing.assert_allclose(got.values, X)
    assert got.rate == 50
    (tmp_path / "bad.mat").write_bytes(b"MATLAB 5.0 MAT-file, but cut")
    with pytest.raises(TSLMError, match="cannot be read as a MATLAB file"):
        read(tmp_path / "bad.mat")


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the formats extra")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["signals/ecg"] = X[0]
        file["signals/ppg"] = X[1]
        file["signals"].attrs["sampling_rate"] = 125.0
    same(tmp_path / "x.h5", ("ecg", "ppg"), X, 125)
    with h5py.File(tmp_path / "cases.h5", "w") as file:
        file["tracings"] = np.stack([X.T, -X.T])
    with pytest.raises(SeveralCases, match="--case: 0, 1"):
        read(tmp_path / "cases.h5")
    same(tmp_path / "cases.h5", ("0", "1"), -X, case="1")
    (tmp_path / "bad.h5").write_bytes(b"no such thing")
    with pytest.raises(TSLMError, match="cannot be read as an HDF5 file"):
        read(tmp_path / "bad.h5")
    with pytest.raises(TSLMError, match="--max-gb"):
        read(tmp_path / "x.h5", how=How(max_gb=1e-7))


def test_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="writes the files")
    pytest.importorskip("pyarrow", reason="needs the parquet extra")
    frame = pandas.DataFrame({"a [mV]": X[0], "who": "x"}, pandas.date_range("2024-03-01", periods=60, freq="20ms"))
    frame.to_parquet(tmp_path / "x.parquet")
    got = read(tmp_path / "x.parquet")
    assert (got.names, got.units, got.rate, got.start) == (("a",), ("mV",), 50, datetime(2024, 3, 1))
    np.testing.assert_array_equal(got.values, X[:1])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but cut")
    with pytest.raises(TSLMError, match="cannot be read as a Parquet file"):
        read(tmp_path / "bad.parquet")


def test_excel(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="writes the files")
    pytest.importorskip("python_calamine", reason="needs the formats extra")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Logger 7"])
    sheet.append([])
    sheet.append(["Time", "Temp (°C)", "ok"])
    for at, value in enumerate(X[0].tolist()):
        sheet.append([datetime(2024, 3, 1, 10, at), value, True])
    book.save(tmp_path / "x.xlsx")
    got = read(tmp_path / "x.xlsx")
    assert (got.names, got.units, got.rate) == (("Temp", "ok"), ("°C", ""), 1 / 60)
    np.testing.assert_array_equal(got.values[0], X[0])
    assert got.start == datetime(2024, 3, 1, 10)
    other = book.create_sheet("second")
    for value in X[1].tolist():
        other.append([value])
    book.save(tmp_path / "two.xlsx")
    with pytest.raises(SeveralCases, match="several sheets"):
        read(tmp_path / "two.xlsx")
    same(tmp_path / "two.xlsx", ("0",), X[1:], case="second")


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32"])
def test_wav(kind: str, tmp_path: Path) -> None:
    from scipy.io import wavfile

    held = (RNG.normal(size=(50, 2)) * 40 + (128 if kind == "uint8" else 0)).astype(kind)
    wavfile.write(tmp_path / "x.wav", 4000, held)
    same(tmp_path / "x.wav", ("left", "right"), held.T - (128.0 if kind == "uint8" else 0), 4000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    with pytest.raises(TSLMError, match="WAV"):
        read(tmp_path / "bad.wav")


def test_time_series_archives(tmp_path: Path) -> None:
    rows = [",".join(map(str, row)) for row in X]
    (tmp_path / "x.ts").write_text(
        "@problemName x\n@timeStamps false\n@univariate false\n@classLabel true a b\n@data\n"
        f"{rows[0]}:{rows[1]}:a\n{rows[1]}:{rows[0]}:b\n"
    )
    with pytest.raises(SeveralCases, match="2 cases"):
        read(tmp_path / "x.ts")
    same(tmp_path / "x.ts", ("0", "1"), X[::-1], case="1")
    assert "'b'" in read(tmp_path / "x.ts", how=How(case="1")).notes[0]
    attributes = "".join(f"@attribute att{at} numeric\n" for at in range(60))
    (tmp_path / "x.arff").write_text(
        f"@relation x\n{attributes}@attribute target {{1,2}}\n@data\n{rows[0]},1\n{rows[1]},2\n"
    )
    same(tmp_path / "x.arff", ("0",), X[1:], case="1")
    (tmp_path / "y.arff").write_text("@relation x\n@attribute a numeric\n")
    with pytest.raises(TSLMError, match="no @data"):
        read(tmp_path / "y.arff")


def test_an_array_that_unpacks_to_too_much(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(300_000))
        archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(TSLMError, match=r"more than 0\.001; --max-gb lifts the limit"):
        read(tmp_path / "x.npz", how=How(max_gb=1e-3))
    assert read(tmp_path / "x.npz").values.shape == (1, 300_000)


def test_large_values_on_small_scales(tmp_path: Path) -> None:
    wave = 1e9 + 0.001 * np.sin(np.arange(200) / 5)
    np.save(tmp_path / "double.npy", wave)
    got = read(tmp_path / "double.npy")
    np.testing.assert_array_equal(got.values[0], wave)
    assert not got.notes
    np.save(tmp_path / "single.npy", wave.astype(np.float32))
    assert "too coarse" in read(tmp_path / "single.npy").notes[0]
    np.save(tmp_path / "whole.npy", 2**60 + np.arange(50))
    assert "2^53" in " ".join(read(tmp_path / "whole.npy").notes)


def crc(data: bytes) -> int:
    """The checksum of a FIT file (its specification's table of nibbles)."""
    table = (0x0000, 0xCC01, 0xD801, 0x1400, 0xF001, 0x3C00, 0x2800, 0xE401,
             0xA001, 0x6C00, 0x7800, 0xB401, 0x5000, 0x9C01, 0x8801, 0x4400)  # fmt: skip
    value = 0
    for byte in data:
        for nibble in (byte & 15, byte >> 4):
            value = (value >> 4) & 0x0FFF ^ table[value & 15] ^ table[nibble]
    return value


def test_fit(tmp_path: Path) -> None:
    pytest.importorskip("fitdecode", reason="needs the formats extra")
    # Message 20 (record): field 253 is the time (uint32, seconds since 1989-12-31), 3 the heart rate (uint8).
    body = struct.pack("<BBBHB", 0x40, 0, 0, 20, 2) + bytes([253, 4, 0x86, 3, 1, 2])
    for at in range(30):
        body += struct.pack("<BIB", 0, 1_000_000_000 + at, 60 + at % 7)
    head = struct.pack("<BBHI4s", 14, 0x10, 2132, len(body), b".FIT")
    data = head + struct.pack("<H", crc(head)) + body
    path = tmp_path / "x.fit"
    path.write_bytes(data + struct.pack("<H", crc(data)))
    got = read(path)
    assert (got.names, got.units, got.rate) == (("heart_rate",), ("bpm",), 1.0)
    np.testing.assert_array_equal(got.values[0], [60 + at % 7 for at in range(30)])
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(TSLMError, match="FIT"):
        read(path)


def test_apple_health_export(tmp_path: Path) -> None:
    folder = tmp_path / "apple_health_export" / "electrocardiograms"
    folder.mkdir(parents=True)
    for name, values in (("ecg_2020-01-01", X[0]), ("ecg_2020-01-02", X[1])):
        rows = "\n".join(map(str, values))
        (folder / f"{name}.csv").write_text(f"Name,Jane\nSample Rate,512 hertz\n\nLead,Lead I\nUnit,µV\n\n{rows}\n")
    with pytest.raises(SeveralCases, match="several ECGs"):
        read(folder.parent)
    same(folder.parent, ("Lead I",), X[1:], 512, case="1")
    assert [case for _, case in cases(folder.parent)] == ["ecg_2020-01-01", "ecg_2020-01-02"]


# --- medical files -------------------------------------------------------------------------------------------


def test_wfdb_frames_segments_and_names(tmp_path: Path) -> None:
    pytest.importorskip("wfdb", reason="needs the formats extra")
    ecg, resp = np.arange(80, dtype="<i2"), np.arange(20, dtype="<i2") * 3
    frames = np.concatenate([np.concatenate([ecg[4 * at : 4 * at + 4], resp[at : at + 1]]) for at in range(20)])
    frames.astype("<i2").tofile(tmp_path / "m.dat")
    (tmp_path / "m.hea").write_text("m 2 125 20\nm.dat 16x4 100/mV 16 0 0 0 0\nm.dat 16 100/NU 16 0 0 0 0 RESP\n")
    got = read(tmp_path / "m", ["0"])
    assert (got.rate, got.names, got.units) == (500.0, ("0",), ("mV",))
    np.testing.assert_allclose(got.values[0], ecg / 100)
    with pytest.raises(TSLMError, match=r"different rates \(0 500 Hz, RESP 125 Hz\)"):
        read(tmp_path / "m")
    (tmp_path / "s_1.hea").write_text("s_1 1 250 80\ns_1.dat 16 200/mV 16 0 0 0 0 II\n")
    ecg.tofile(tmp_path / "s_1.dat")
    (tmp_path / "s.hea").write_text("s/2 1 250 160\ns_1 80\ns_1 80\n")
    twice = read(tmp_path / "s.hea", ["II"])
    np.testing.assert_allclose(twice.values[0], np.tile(ecg, 2) / 200)
    (tmp_path / "s_1.dat").write_bytes(b"\0" * 40)
    with pytest.raises(TSLMError, match="shorter than the header says"):
        read(tmp_path / "s_1.hea")


def edf(count_of_records: int, onsets: list[float] | None = None, **fields: str) -> bytes:
    """An EDF file of one channel of 10 samples a second, at 0, 1, 2, … (µV); with onsets, EDF+D."""
    count = 2 if onsets else 1
    cell = {"label": ["ECG", "EDF Annotations"], "unit": [fields.get("unit", "uV"), ""]}
    own = [
        (cell["label"], 16), (["", ""], 80), (cell["unit"], 8), (["-3276.8", "-1"], 8), (["3276.7", "1"], 8),
        (["-32768", "-32768"], 8), (["32767", "32767"], 8), (["", ""], 80), (["10", "16"], 8), (["", ""], 32),
    ]  # fmt: skip
    signals = "".join(text.ljust(width) for texts, width in own for text in texts[:count])
    head = "0".ljust(8) + "X X X X".ljust(80) + "Startdate X X X X".ljust(80) + "01.03.2410.00.00"
    head += str(256 * (count + 1)).ljust(8) + ("EDF+D" if onsets else "").ljust(44)
    head += fields.get("records", str(count_of_records)).ljust(8) + "1".ljust(8) + str(count).ljust(4)
    body = b""
    for record in range(count_of_records):
        body += struct.pack("<10h", *range(10 * record, 10 * record + 10))
        if onsets:
            body += f"+{onsets[record]:g}\x14\x14\0".encode().ljust(32, b"\0")
    return (head + signals).encode("latin-1") + body


def test_edf_oddities(tmp_path: Path) -> None:
    pytest.importorskip("edfio", reason="needs the formats extra")
    path = tmp_path / "x.edf"
    path.write_bytes(edf(4, unit="µV"))
    got = read(path)
    assert (got.units, got.rate, got.start) == (("µV",), 10.0, datetime(2024, 3, 1, 10))
    np.testing.assert_allclose(got.values[0], np.arange(40) / 10, atol=1e-9)
    path.write_bytes(edf(4)[:-5])
    cut = read(path)
    assert cut.values.shape == (1, 30) and "3 whole ones" in cut.notes[0]
    path.write_bytes(edf(4, records="-1"))
    assert read(path).values.shape == (1, 40)


def test_edf_with_gaps(tmp_path: Path) -> None:
    pytest.importorskip("edfio", reason="needs the formats extra")
    path = tmp_path / "x.edf"
    path.write_bytes(edf(4, [0, 1, 4, 5]))
    with pytest.raises(TSLMError, match=r"sample 20 of channel 'ECG' is missing, as 20 of 60"):
        read(path)
    got = read(path, start=4, seconds=2)
    np.testing.assert_allclose(got.values[0], np.arange(20, 40) / 10, atol=1e-9)
    assert "breaks off" in got.notes[0] and got.start == datetime(2024, 3, 1, 10, 0, 4)
    assert read(path, fill="hold=20").values.shape == (1, 60)
    path.write_bytes(edf(4, [0, 1, 2, 3]))
    assert read(path).values.shape == (1, 40)


# --- what programs write is read back ------------------------------------------------------------------------


@quick
@given(
    held=values,
    sep=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    index=st.sampled_from(["none", "count", "times"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_pandas_tables(
    held: np.ndarray, sep: str, decimal: str, index: str, encoding: str, ending: str, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas", reason="writes the files")
    held = held.round(3) + 0.0005  # so that every number has a decimal mark
    names = [f"ch{at}" for at in range(len(held))]
    frame = pandas.DataFrame(held.T, columns=names)
    if index == "times":
        frame.index = pandas.date_range("2024-03-01 10:00", periods=len(frame), freq="40ms", name="time")
    path = tmp_path / "x.csv"
    frame.to_csv(path, sep=sep, decimal=decimal, index=index != "none", encoding=encoding, lineterminator=ending)
    try:
        got = read(path)
    except TSLMError as error:
        assert "--" in str(error) or "missing" in str(error)  # refused is not misread
        assert sep == "," or index == "none" or "missing" in str(error)
        return
    assert got.names == tuple(names), got.notes
    np.testing.assert_allclose(got.values, held, rtol=1e-12)
    assert got.rate == (25.0 if index == "times" else None)


@quick
@given(held=values, orient=st.sampled_from(["columns", "records", "split", "list", "lines"]))
def test_pandas_json(held: np.ndarray, orient: str, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="writes the files")
    held = held.round(3)
    frame = pandas.DataFrame(held.T, columns=[f"ch{at}" for at in range(len(held))])
    path = tmp_path / "x.json"
    if orient == "list":
        path.write_text(json.dumps(frame.to_dict(orient="list")))
    elif orient == "lines":
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    else:
        frame.to_json(path, orient=orient, double_precision=15)
    got = read(path)
    assert got.names == tuple(frame.columns), got.notes
    np.testing.assert_allclose(got.values, held, rtol=1e-9, atol=1e-9)


@quick
@given(held=values, delimiter=st.sampled_from([" ", ",", "\t", ";"]), header=st.booleans())
def test_savetxt(held: np.ndarray, delimiter: str, header: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    names = delimiter.join(f"ch{at}" for at in range(len(held)))
    np.savetxt(path, held.T, delimiter=delimiter, header=names if header else "")
    got = read(path)
    np.testing.assert_allclose(got.values, held if not any("index" in note or "times" in note for note in got.notes)
                               else held[1:])  # fmt: skip
    assert not header or len(got.names) < len(held) or got.names == tuple(names.split(delimiter))


@quick
@given(
    held=arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(20, 40)), elements=st.floats(-9, 9)),
    fmt=st.sampled_from(["16", "24", "32", "80", "212"]),
    rate=st.sampled_from([1, 100, 128, 360.5, 1000]),
)
def test_wfdb_formats(held: np.ndarray, fmt: str, rate: float, tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb", reason="needs the formats extra")
    count = len(held)
    wfdb.wrsamp(
        "x", fs=rate, units=["mV"] * count, sig_name=[f"s{at}" for at in range(count)], p_signal=held.T.round(1),
        fmt=[fmt] * count, adc_gain=[10.0] * count, baseline=[7] * count, write_dir=str(tmp_path),
    )  # fmt: skip
    header = tmp_path / "x.hea"
    header.write_text(header.read_text().replace(" 10.0(7)/mV", " -10.0(7)/mV"))  # wfdb writes no negative gain
    got = read(tmp_path / "x")
    assert (got.names, got.rate) == (tuple(f"s{at}" for at in range(count)), float(rate))
    np.testing.assert_allclose(got.values, -held.round(1), atol=0.051)
