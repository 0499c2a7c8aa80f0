"""What people have in Python becomes a recording, and what they get shows itself in a line."""

from datetime import datetime, timedelta
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny import tiny_model

import mlx_tslm
from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import Recording
from mlx_tslm.signals.objects import recordings
from mlx_tslm.stages.base import Question

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

WAVE = np.sin(np.arange(200) / 7)
AT = pd.date_range("2024-03-01 10:00", periods=200, freq="20ms")


def torch_tensor(dtype: str, grad: bool = False) -> Any:
    torch = pytest.importorskip("torch")
    return torch.tensor(WAVE, dtype=getattr(torch, dtype), requires_grad=grad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WAVE.tolist(),
        lambda: tuple(WAVE),
        lambda: WAVE,
        lambda: WAVE[None],
        lambda: [WAVE],
        lambda: [WAVE[None]],
        lambda: Recording(WAVE),
        lambda: [Recording(WAVE)],
        lambda: mx.array(WAVE),
        lambda: mx.array(WAVE)[None],
        lambda: mx.array(WAVE).astype(mx.bfloat16),
        lambda: torch_tensor("float64"),
        lambda: torch_tensor("bfloat16"),
        lambda: torch_tensor("float32", grad=True),
        lambda: pd.Series(WAVE),
        lambda: pd.DataFrame({"wave": WAVE}),
        lambda: pd.DataFrame({"wave": WAVE, "who": "me"}),
        lambda: pd.DataFrame({"when": AT, "wave": WAVE}),
        lambda: [pd.DataFrame({"wave": WAVE})],
        lambda: pl.Series(WAVE),
        lambda: pl.DataFrame({"wave": WAVE}),
        lambda: pl.DataFrame({"when": AT.to_numpy(), "wave": WAVE, "who": ["me"] * 200}),
        lambda: {"wave": WAVE},
    ],
)
def test_one_channel_however_it_comes(make: Any) -> None:
    given = make()
    asked = mlx_tslm.stages.get("stage1").prompt(given, "Why?")
    (series,) = asked.series
    np.testing.assert_allclose(series.raw, WAVE, atol=5e-3)  # bfloat16 has three digits
    (free,) = Question("Look:", given, "Well?").series
    np.testing.assert_allclose(free.raw, WAVE, atol=5e-3)
    assert abs(float(free.values.mean())) < 1e-3 and "std" in free.text


@pytest.mark.parametrize(
    "make",
    [
        lambda three: pd.DataFrame(three.T, columns=["x", "y", "z"], index=AT),
        lambda three: pl.DataFrame({"when": AT.to_numpy(), "x": three[0], "y": three[1], "z": three[2]}),
        lambda three: [pd.Series(row, name=name, index=AT) for name, row in zip("xyz", three, strict=True)],
    ],
)
def test_columns_are_channels_and_dates_give_the_rate(make: Any) -> None:
    three = np.random.default_rng(0).normal(size=(3, 200))
    (one,) = recordings(make(three))
    assert one.names == ("x", "y", "z") and one.start == datetime(2024, 3, 1, 10)
    assert one.rate == pytest.approx(50)
    np.testing.assert_array_equal(one.values, three)
    assert len(mlx_tslm.stages.get("har").prompt(make(three)).series) == 3


@given(arrays(float, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=st.floats(-1e6, 1e6)))
def test_all_libraries_agree(values: Any) -> None:
    names = [f"c{at}" for at in range(len(values))]
    for given_ in (
        pd.DataFrame(values.T, columns=names),
        pl.DataFrame(dict(zip(names, values, strict=True))),
        dict(zip(names, values, strict=True)),
    ):
        (one,) = recordings(given_)
        assert one.names == tuple(names)
        np.testing.assert_array_equal(one.values, values)


def test_times_that_are_uneven_backwards_monthly_or_in_zones() -> None:
    rows = np.arange(50.0)
    (zoned,) = recordings(
        pd.Series(rows, index=pd.date_range("2024-01-01", periods=50, freq="s", tz="Europe/Zurich"))
    )
    assert zoned.rate == pytest.approx(1) and zoned.start == datetime(2024, 1, 1)
    (back,) = recordings(pd.Series(rows[::-1], index=pd.date_range("2024-01-01", periods=50, freq="s")[::-1]))
    assert back.rate == pytest.approx(1) and back.values[0].tolist() == rows.tolist()
    odd = pd.to_datetime("2024-01-01") + pd.to_timedelta(np.cumsum([1, 7, 2, 40, 3] * 10), unit="s")
    (uneven,) = recordings(pd.Series(rows, index=odd))
    assert uneven.rate is None and uneven.times is not None and uneven.times[:3].tolist() == [0, 7, 9]
    (monthly,) = recordings(pd.Series(rows, index=pd.date_range("2020-01", periods=50, freq="MS")))
    assert monthly.rate is None and "month" in " ".join(monthly.notes)
    (since,) = recordings(pd.Series(rows, index=pd.to_timedelta(np.arange(50) / 10, unit="s")))
    assert since.rate == pytest.approx(10) and since.start is None
    polars = pl.DataFrame({"t": [timedelta(milliseconds=4 * at) for at in range(50)], "v": rows})
    assert recordings(polars)[0].rate == pytest.approx(250)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (pd.DataFrame({"who": ["me", "you"]}), "no column of numbers; the columns are who"),
        (pd.Series([1.0, None, 3.0], name="pulse"), "'pulse' has nan at sample 1"),
        (pl.Series("pulse", [1.0, None, 3.0]), "'pulse' has nan at sample 1"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]}), "takes one channel, but there are 2; choose among a, b"),
        (WAVE[:, None], "transpose"),
        ("a wave", "not a series of numbers"),
        (pd.DataFrame(), "no column of numbers"),
    ],
)
def test_what_cannot_be_read_is_said(wrong: Any, says: str) -> None:
    with pytest.raises(TSLMError, match=says):
        mlx_tslm.stages.get("stage1").prompt(wrong)


def test_everything_shows_itself_in_a_line() -> None:
    model, asked = tiny_model("llama"), mlx_tslm.stages.get("stage1").prompt(WAVE, "Why?")
    result = mlx_tslm.tree_search(model, asked, num_rollouts=4, width=2, max_tokens=6)
    for shown, has in {
        repr(model): "SoftPromptModel",
        repr(mlx_tslm.stages.get("ecg")): "stage5 (ecg)",
        repr(asked): "'Why?'",
        repr(asked.series[0]): "200 samples",
        repr(Recording(WAVE, ["wave"], 50.0)): "wave: 200 samples at 50 Hz",
        repr(result.completions[0]): "tokens",
    }.items():
        assert has in shown and "\n" not in shown and len(shown) < 260
