"""Several series in one table, below each other or interleaved, and choosing one of them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals.column import Column, among
from mlx_tslm.signals.source import How, SeveralCases
from mlx_tslm.signals.timing import Timing, words

Array = NDArray[np.float64]

_KEYS = {
    "subject", "subjectid", "patient", "patientid", "participant", "person", "user", "userid", "animal", "series",
    "sensor", "sensorid", "device", "deviceid", "channel", "symbol", "ticker", "station", "stationid", "metric",
    "measurement", "field", "item", "itemid", "parameter", "variable", "name", "group", "case", "caseid", "run",
    "trial", "session", "unit", "machine", "engine", "batch", "record", "recordid", "recording", "store",
    "region", "country", "state", "city", "site", "location", "tag", "entity", "host", "instance", "type", "kind",
    "category", "id", "stayid", "hadmid",
}  # fmt: skip


def is_called_key(name: str) -> bool:
    """Whether a name is one of a column that says whose the row is: subject, sensor, station_id."""
    own = words(name)
    return bool(own) and (
        "".join(own) in _KEYS or (own[-1] in ("id", "ids")) or (own[0] in _KEYS and own[-1] in ("no", "nr", "code"))
    )


def find_key(columns: Sequence[Column], time: Timing | None, spent: Sequence[Column]) -> Column | None:
    """The column that tells several series apart, or None where there is one series.

    Args:
        time: of the rows, or None.
        spent: columns that say when.
    """
    count = len(columns[0])
    seconds = time.seconds if time is not None else None
    stands = seconds is not None and bool((np.diff(seconds) == 0).any())
    disordered = time is not None and (time.order == 0 or stands)
    for column in columns:
        if among(column, spent):
            continue
        named = is_called_key(column.name)
        whole = column.values is not None and bool((column.values == np.rint(column.values)).all())
        if column.values is not None and not (whole and named):
            continue
        labels = column.labels()
        kinds = list(dict.fromkeys(labels))
        if not 2 <= len(kinds) <= count / 2:
            continue
        if disordered and seconds is not None:
            if _orders(labels, kinds, seconds):
                return column
        elif (disordered or time is None) and named and _blocks(labels, kinds):
            return column
    return None


def one_case(
    columns: Sequence[Column], key: Column, rows: Sequence[int] | None, how: How
) -> tuple[list[Column], Sequence[int] | None]:
    """The rows of the case that was chosen, without the column that tells the cases apart.

    Raises:
        SeveralCases: none was chosen.
    """
    labels = key.labels()
    kinds = list(dict.fromkeys(labels))
    case = choose_case(f"column {key.name or '1'!r} tells that it holds several series", kinds, how.case)
    kept = np.flatnonzero(np.array(labels) == case)
    taken = [column.take(kept) for column in columns if column is not key]
    return taken, None if rows is None else [rows[int(at)] for at in kept]


def choose_case(problem: str, cases: Sequence[str], case: str | int | None) -> str:
    """The case that a person chose, by its name or its number from 0.

    Raises:
        SeveralCases: none was chosen.
        TSLMError: there is no such case.
    """
    if case is None:
        raise SeveralCases(problem, cases)
    if str(case) in cases:
        return str(case)
    if str(case).isdigit() and int(case) < len(cases):
        return cases[int(case)]
    raise TSLMError(
        f"there is no case {str(case)!r}; there are {len(cases)}: {', '.join(cases[:8])}"
        f"{', …' if len(cases) > 8 else ''}"
    )


def _orders(labels: Sequence[str], kinds: Sequence[str], seconds: Array) -> bool:
    """Whether time goes one way, without standing still, within each series."""
    array = np.array(labels)
    for kind in kinds:
        steps = np.diff(seconds[array == kind])
        if not ((steps > 0).all() or (steps < 0).all()):
            return False
    return True


def _blocks(labels: Sequence[str], kinds: Sequence[str]) -> bool:
    changes = sum(a != b for a, b in pairwise(labels))
    return changes == len(kinds) - 1 or changes > len(labels) / 2
