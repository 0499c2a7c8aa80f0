"""What csv, edfio, scipy.io and NumPy write in their usual dialects is read back; the quick way is the other.

Those of pandas, wfdb and `savetxt` are in test_containers.py.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlx_tslm import TSLMError
from mlx_tslm.signals import dates, layout, read, tables
from mlx_tslm.signals.cut import Cut, places
from mlx_tslm.signals.source import How

quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
held = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(8, 30)), elements=st.floats(-1e6, 1e6))
RATES = st.sampled_from([1.0, 50.0, 128.0, 250.0, 1000.0])


def check(path: Path, names: tuple[str, ...], want: Any, rate: float | None, atol: float = 0.0) -> None:
    got = read(path)
    assert (got.names, got.rate) == (names, rate), got.notes
    np.testing.assert_allclose(got.values, want, rtol=1e-9, atol=atol)


@quick
@given(
    values=held,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    ending=st.sampled_from(["\r\n", "\n"]),
    name=st.sampled_from(["ecg", 'the "raw" one', "a,b;c", "line one\nline two", "µV left"]),
    mark=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_csv_dialects(
    values: np.ndarray, delimiter: str, quoting: int, ending: str, name: str, mark: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    values = values.round(3) + 0.0005
    names = tuple(f"{name} {at}" for at in range(len(values)))
    with path.open("w", newline="", encoding=mark) as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=ending)  # type: ignore[call-overload]
        writer.writerow(names)
        writer.writerows(values.T.tolist())
    try:
        got = read(path)
    except TSLMError as error:
        assert "--" in str(error)  # refused with what decides is not misread
        return
    assert tuple(" ".join(one.split()) for one in got.names) == tuple(" ".join(one.split()) for one in names)
    np.testing.assert_allclose(got.values, values, rtol=1e-9)


@quick
@given(
    values=held,
    kind=st.sampled_from(["<f8", ">f8", "<f4", ">f4", "<i2", ">i4", "|u1"]),
    order=st.sampled_from("CF"),
    turned=st.booleans(),
)
def test_numpy_arrays(values: np.ndarray, kind: str, order: str, turned: bool, tmp_path: Path) -> None:
    stored = np.array(np.clip(values, 0, 200) if "f" not in kind else values, dtype=kind, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "x.npy", stored.T if turned else stored)
    want = stored.astype(np.float64)
    check(tmp_path / "x.npy", tuple(str(at) for at in range(len(want))), want, None)


@quick
@given(values=held, rate=RATES, compressed=st.booleans(), called=st.sampled_from(["fs", "sampling_rate", "sfreq"]))
def test_numpy_archives(values: np.ndarray, rate: float, compressed: bool, called: str, tmp_path: Path) -> None:
    entries: dict[str, Any] = {f"s{at}": row for at, row in enumerate(values)} | {called: rate}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **entries)
    check(tmp_path / "x.npz", tuple(f"s{at}" for at in range(len(values))), values, rate)


@quick
@given(
    values=held,
    rate=RATES,
    side=st.sampled_from(["row", "column"]),
    compressed=st.booleans(),
    form=st.sampled_from(["4", "5"]),
)
def test_scipy_writes_matlab(
    values: np.ndarray, rate: float, side: str, compressed: bool, form: str, tmp_path: Path
) -> None:
    from scipy.io import savemat

    entries: dict[str, Any] = {f"s{at}": row for at, row in enumerate(values)} | {"fs": rate}
    savemat(tmp_path / "x.mat", entries, format=form, oned_as=side, do_compression=compressed and form == "5")  # type: ignore[arg-type]
    check(tmp_path / "x.mat", tuple(f"s{at}" for at in range(len(values))), values, rate)


@quick
@given(
    values=arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.floats(-400, 400)),
    rate=st.sampled_from([1, 50, 128, 250]),
    suffix=st.sampled_from(["edf", "bdf"]),
    unit=st.sampled_from(["uV", "mV", ""]),
)
def test_edfio_writes_edf(values: np.ndarray, rate: int, suffix: str, unit: str, tmp_path: Path) -> None:
    edfio = pytest.importorskip("edfio", reason="needs the formats extra")
    file, signal = (edfio.Edf, edfio.EdfSignal) if suffix == "edf" else (edfio.Bdf, edfio.BdfSignal)
    rows = np.repeat(values, rate, axis=1)  # whole seconds
    names = [f"s{at}" for at in range(len(rows))]
    signals = [
        signal(row, sampling_frequency=rate, label=name, physical_dimension=unit, physical_range=(-500, 500))
        for row, name in zip(rows, names, strict=True)
    ]
    file(signals).write(tmp_path / f"x.{suffix}")
    check(tmp_path / f"x.{suffix}", tuple(names), rows, float(rate), atol=1000 / 65535)
    assert read(tmp_path / f"x.{suffix}").units == (unit,) * len(rows)


CELLS = st.sampled_from(["2024-03-01 10:00:0", "2024-03-01T10:00:0", "10:00:0", "01.03.2024 10:00:0"])


@quick
@given(
    values=arrays(np.float64, st.tuples(st.just(2), st.integers(10, 40)), elements=st.floats(-1e3, 1e3)),
    stamp=CELLS,
    pad=st.sampled_from(["", " "]),
    ending=st.sampled_from(["\n", "\r\n"]),
    label=st.sampled_from(["ok", "größer", ""]),
    ragged=st.booleans(),
)
def test_the_quick_way_is_the_other_way(
    values: np.ndarray, stamp: str, pad: str, ending: str, label: str, ragged: bool
) -> None:
    """Long tables are cut in their bytes; the cells and the times are those that `csv` and the forms give."""
    lines = ["when,a,b,label"]
    for at, (a, b) in enumerate(values.T.tolist()):
        lines.append(
            f"{stamp}{at % 10}.{at // 10},{pad}{a!r},{pad}{b!r},{pad}{label}{'x' * (at % 3) if ragged else ''}"
        )
    text = ending.join(lines) + ending
    found = layout.find(text, How())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_LONG", 0)
        cut = tables._quick(text, found)
    assert cut is not None
    slow, rows = tables._columns(text, found, [])
    assert list(cut[1]) == list(rows)
    for one, other in zip(cut[0], slow, strict=True):
        if isinstance(one, np.ndarray):
            assert one.tolist() == [float(cell) for cell in other]
        else:
            assert isinstance(one, Cut) and list(one) == [str(cell).strip() for cell in other] == one[:]
    form = dates.form_of(str(slow[0][0]))
    quickly, slowly = dates.moments(cut[0][0], form), dates.moments(list(map(str, slow[0])), form)  # type: ignore[arg-type]
    assert quickly is not None and slowly is not None
    np.testing.assert_array_equal(quickly.seconds, slowly.seconds)


@given(st.lists(st.lists(st.text("ab ", max_size=3), min_size=1, max_size=4), min_size=1, max_size=6))
def test_rows_of_other_cells_are_not_cut(rows: list[list[str]]) -> None:
    width = len(rows[0])
    around = places("\n".join(map(",".join, rows)).encode(), ",", width)
    assert (around is not None) == all(len(row) == width for row in rows)
    if around is not None:
        raw = "\n".join(map(",".join, rows)).encode()
        for at in range(width):
            assert list(Cut(raw, around[:, at] + 1, around[:, at + 1])) == [row[at].strip() for row in rows]
