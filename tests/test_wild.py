"""Recordings of `data/wild`: what `expected.json` (see the README there) says of each holds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_tslm import TSLMError
from mlx_tslm.signals import Recording, read

WILD = Path(__file__).parent / "data" / "wild"
EXPECTED: dict[str, dict[str, Any]] = json.loads((WILD / "expected.json").read_text())
NEEDS = {".hea": "wfdb", ".HEA": "wfdb", ".edf": "edfio", ".bdf": "edfio"}
# Words of a library's or of Python's own, which tell a person nothing.
LEAKS = ("NoneType", "has no attribute", "Traceback", "zip()", "sampto", "Error:", "not supported between")


def near(values: np.ndarray, first: list[float]) -> bool:
    return len(values) >= len(first) and np.allclose(
        values[: len(first)], first, rtol=0, atol=2e-4 * max(map(abs, [*first, 1e-9]))
    )


def channel(got: Recording, one: dict[str, Any], used: set[int]) -> int:
    """The place of an expected channel: by its name, else by its first values."""
    names = [name.strip().casefold() for name in got.names]
    wanted = [name.casefold() for name in one["name"]]
    places = [at for at in range(len(names)) if at not in used]
    found = [at for at in places if names[at] in wanted] or [
        at for at in places if near(got.values[at], one["first"])
    ]
    assert found, f"no channel {one['name']}; there are {got.names}"
    return found[0]


@pytest.mark.parametrize("case", EXPECTED)
def test_a_reading(case: str) -> None:
    want = EXPECTED[case]
    path = WILD / want["file"]
    if path.suffix in NEEDS:
        pytest.importorskip(NEEDS[path.suffix], reason="needs the formats extra")
    try:
        got = read(path, want.get("args", {}).get("channels"))
    except TSLMError as error:
        assert want.get("refuse") or want.get("either"), error
        assert str(path) in str(error) and "\n" not in str(error)
        assert not any(leak in str(error) for leak in LEAKS)
        return
    assert not want.get("refuse"), f"read, though it cannot be: {got.names}"
    said = " ".join([*got.notes, *got.names]).casefold()
    used: set[int] = set()
    for one in want["channels"]:
        at = channel(got, one, used)
        used.add(at)
        if not any(word in said for word in want.get("note_ok", [])):
            assert near(got.values[at], one["first"]), (one, got.values[at][:3])
            assert want.get("samples") in (None, len(got.values[at]))
        assert one["name"][0] == "*" or any(name.casefold() in got.names[at].casefold() for name in one["name"])
        assert "" in (units := one.get("units", [""])) or got.units[at] in units
    rest = {got.names[at].casefold() for at in range(len(got.names)) if at not in used}
    assert not rest & {name.casefold() for name in want.get("forbidden", [])}
    assert not want.get("exact") or not rest or any(word in said for word in want.get("note_ok", []))
    assert not any(near(row, first) for first in want.get("forbid_values", []) for row in got.values)
    if want.get("rate"):
        assert got.rate is not None or want.get("rate_optional"), "the rate is lost"
    if got.rate is not None and want.get("rate"):
        assert got.rate == pytest.approx(want["rate"], rel=want.get("rate_tol", 0.02))
    for word in want.get("must_say", [])[:1]:
        assert word.casefold() in said
