"""Recordings in JSON and JSON lines: lists, objects, records, and what pandas writes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlx_tslm.errors import TSLMError
from mlx_tslm.signals import arrays, content
from mlx_tslm.signals.cases import choose_case
from mlx_tslm.signals.content import AnyFile
from mlx_tslm.signals.dates import is_date
from mlx_tslm.signals.layout import Layout
from mlx_tslm.signals.preamble import Facts
from mlx_tslm.signals.source import How, Source


def read_json(path: AnyFile, how: How) -> Source:
    """See `signals.read`."""
    text, notes = content.text(content.unpacked(path.read_bytes(), how.max_gb))
    if not text.strip():
        raise TSLMError("it is empty")
    source = read_text(text, how, path.suffixes)
    return replace(source, notes=(*notes, *source.notes))


def read_text(text: str, how: How, suffixes: Sequence[str] = ()) -> Source:
    """The channels of JSON, or of lines of JSON.

    Raises:
        TSLMError: it is neither, or holds no series.
    """
    lined = any(suffix.lower() in (".jsonl", ".ndjson") for suffix in suffixes)
    if lined:
        return _lines(text, how)
    try:
        data = _parse(text)
    except TSLMError:
        lines = [line for line in content.lines(text) if line.strip()]
        if len(lines) > 1 and all(line.strip()[:1] in "{[" and line.strip()[-1:] in "}]" for line in lines[:5]):
            return _lines(text, how)
        raise
    return _from(data, how)


def _parse(text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {line}" if line is not None else f"line {getattr(error, 'lineno', 1)}"
        raise TSLMError(f"{where} is not JSON: {str(error)[:120]}") from None


def _lines(text: str, how: How) -> Source:
    lines = [(at, line) for at, line in enumerate(content.lines(text), 1) if line.strip()]
    rows = [_parse(line, at) for at, line in lines]
    if not rows:
        raise TSLMError("it is empty")
    if len(rows) > 1 and isinstance(rows[0], dict) and not isinstance(rows[1], dict):
        return _from({**rows[0], "values": rows[1:]}, how)  # a line that describes the samples below it
    if (
        len(rows) > 2
        and isinstance(rows[0], dict)
        and isinstance(rows[1], dict)
        and not set(rows[0]) & set(rows[1])
    ):
        source = _records(rows[1:], how, [at for at, _ in lines[1:]], _facts(rows[0]))
        return source
    if isinstance(rows[0], dict):
        return _records(rows, how, [at for at, _ in lines], Facts())
    return _from(rows, how)


def _from(data: Any, how: How) -> Source:
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return _records(data, how, None, Facts())
    if isinstance(data, list):
        if len(data) == 1 and isinstance(data[0], list) and data[0] and isinstance(data[0][0], (list, dict)):
            return _from(data[0], how)
        pairs = _timed_pairs(data)
        return arrays.named(pairs, how) if pairs else arrays.one(_array(data), how)
    if isinstance(data, dict):
        return _object(data, how)
    raise TSLMError("there is no list of numbers")


def _object(data: Mapping[str, Any], how: How) -> Source:
    if set(data) >= {"columns", "data"} and isinstance(data["columns"], list):  # pandas: orient="split" or "table"
        rows, names = data["data"], [str(name) for name in data["columns"]]
        if isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
            columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
            if isinstance(data.get("index"), list) and len(data["index"]) == len(rows):
                columns = {"index": data["index"], **columns}
            return _object(columns, how)
    if set(data) >= {"schema", "data"} and isinstance(data["data"], list):
        return _records(data["data"], how, None, Facts())
    dated = [rows for rows in data.values() if isinstance(rows, dict) and _by_date(rows)]
    if _by_date(data) or len(dated) == 1:  # an object of date → values, as Alpha Vantage writes it
        rows = dated[0] if dated else data
        return _records(
            [{"date": at, **(one if isinstance(one, dict) else {"value": one})} for at, one in rows.items()],
            how,
            None,
            Facts(),
        )
    pairs = dict(_all_pairs(data, ""))
    if len(pairs) == 1:
        name, series = next(iter(pairs.items()))
        return arrays.named({"time": series["time"], name: series["value"]}, how)
    if pairs:
        times = [series["time"] for series in pairs.values()]
        if all(len(time) == len(times[0]) and (time == times[0]).all() for time in times):
            return arrays.named({"time": times[0], **{name: one["value"] for name, one in pairs.items()}}, how)
        chosen = choose_case("it holds several series, each with its own times", list(pairs), how.case)
        return arrays.named(
            {"time": pairs[chosen]["time"], chosen: pairs[chosen]["value"]}, replace(how, case=None)
        )
    inner = [value for value in data.values() if isinstance(value, dict)]
    if inner and len(inner) == len(data):
        keys = list(inner[0])
        if (
            all(list(value) == keys for value in inner)
            and len(keys) > 1
            and all(not isinstance(value[keys[0]], (dict, list)) for value in inner)
        ):
            if _counted(list(data)) and not _counted(keys):  # orient="index": a row each
                return _records(inner, how, None, Facts())
            columns = {name: list(value.values()) for name, value in data.items()}
            if not _counted(keys):
                columns = {"index": keys, **columns}
            return _object(columns, how)
    lists = {name: value for name, value in data.items() if isinstance(value, list)}
    if len(lists) == 1 and not any(isinstance(value, dict) for value in data.values()):
        name, rows = next(iter(lists.items()))
        if rows and all(_is_signal(row) for row in rows):
            signals = {next(str(one) for one in row.values() if isinstance(one, str)): row for row in rows}
            held = {key: next(one for one in row.values() if isinstance(one, list)) for key, row in signals.items()}
            return _object({**{key: value for key, value in data.items() if key != name}, **held}, how)
        if rows and isinstance(rows[0], dict):
            return _records(rows, how, None, _facts(data))
    flat: dict[str, Any] = {}
    listed = [
        name
        for name, value in data.items()
        if isinstance(value, dict) and any(isinstance(one, list) for one in value.values())
    ]
    for name, value in data.items():
        if isinstance(value, dict) and listed == [name] and not set(value) & set(data):
            flat |= value
        elif isinstance(value, dict):
            flat |= {f"{name}.{inside}": part for inside, part in value.items() if not isinstance(part, dict)}
        else:
            flat[name] = value
    entries: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, value in flat.items():
        if isinstance(value, list):
            texts = [one for one in value if one is not None]
            if texts and all(isinstance(one, str) for one in texts):
                entries[name] = np.array([one or "" for one in value])
                continue
            try:
                entries[name] = _array(value, gaps=True)
            except TSLMError as error:
                faults[name] = str(error)
        elif isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        else:
            entries[name] = value
    if not any(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in entries.values()):
        if faults:
            name, fault = next(iter(faults.items()))
            raise TSLMError(f"channel {name!r}: {fault}")
        raise TSLMError(
            "there is no channel: the object is empty"
            if not data
            else f"there is no list of numbers among {', '.join(map(repr, list(data)[:8]))}"
        )
    source = arrays.named(entries, how)
    bad = {name: f"no numbers: {fault}" for name, fault in faults.items()}
    notes = tuple(f"left out {name!r}: {fault}" for name, fault in faults.items())
    return replace(source, left_out={**source.left_out, **bad}, notes=(*source.notes, *notes))


def _records(rows: Sequence[Any], how: How, lines: Sequence[int] | None, facts: Facts) -> Source:
    """A channel from each name that the rows, objects of name → number, have in common."""
    from mlx_tslm.signals.tables import table

    flat = [_flattened(row) if isinstance(row, dict) else None for row in rows]
    names = list(flat[0] or {})
    for at, row in enumerate(flat):
        if row is None or set(row) != set(names):
            where = f"line {lines[at]}" if lines else f"object {at}"
            raise TSLMError(f"{where} has not the names of the first: {', '.join(names)}")
    cells = [["" if (row or {})[name] is None else str((row or {})[name]) for row in flat] for name in names]
    layout = Layout(",", ".", len(names), 0, names, [""] * len(names), facts, [])
    return table(cells, lines or range(len(rows)), layout, [], how)


def _flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            out |= {f"{name}.{inside}": part for inside, part in _flattened(value).items()}
        else:
            out[name] = value
    return out


def _is_signal(row: Any) -> bool:
    """Whether an object is a channel: a name and a list of its samples."""
    if not isinstance(row, dict):
        return False
    lists = [one for one in row.values() if isinstance(one, list)]
    return len(lists) == 1 and any(isinstance(one, str) for one in row.values())


def _facts(data: Mapping[str, Any]) -> Facts:
    facts = Facts()
    for name, value in data.items():
        if isinstance(value, (int, float)) and "".join(arrays.words(name)) in arrays._RATES and value > 0:
            facts.rates.append(float(value))
    return facts


def _counted(keys: Sequence[str]) -> bool:
    return [str(key) for key in keys] == [str(at) for at in range(len(keys))]


def _timed_pairs(data: Sequence[Any]) -> dict[str, Any] | None:
    """[[time, value], …] with Unix times, as chart libraries and Prometheus write them."""
    if len(data) < 3 or not all(isinstance(row, list) and len(row) == 2 for row in data):
        return None
    if not all(_real(row[0]) and row[0] > 6e8 for row in data):
        return None
    return {
        "time": np.array([row[0] for row in data], float),
        "value": _array([float(row[1]) if isinstance(row[1], str) else row[1] for row in data]),
    }


def _by_date(data: Any) -> bool:
    """Whether an object's names are dates."""
    return isinstance(data, dict) and len(data) > 2 and all(is_date(str(name)) for name in data)


def _all_pairs(data: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every list of [time, value] within an object, by its name."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _all_pairs(value, str(key))
    elif isinstance(data, list) and data:
        if pairs := _timed_pairs(data):
            yield name, pairs
        elif isinstance(data[0], dict) and len(data) < 1000:
            for at, one in enumerate(data):
                for inside, pairs in _all_pairs(one, name):
                    yield inside if len(data) == 1 else f"{inside} {at}", pairs


def _array(data: Any, gaps: bool = False) -> Any:
    if not isinstance(data, list) or not data:
        raise TSLMError("there is no list of numbers" if data != [] else "the list is empty")
    rows = data if isinstance(data[0], list) else [data]
    if isinstance(data[0], list) and not all(isinstance(row, list) for row in data):
        raise TSLMError("the lists have different lengths")
    deep = bool(rows[0]) and isinstance(rows[0][0], list)
    if not deep:
        for row in rows:
            for at, value in enumerate(row):
                if not (_real(value) or (gaps and value is None)):
                    raise TSLMError(f"value {at} is {value!r}, not a number")
    try:
        return np.array(
            [[np.nan if value is None else value for value in row] for row in data]
            if rows is data and not deep
            else [np.nan if value is None else value for value in data]
        )
    except ValueError:
        raise TSLMError("the lists have different lengths") from None


def _number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _real(value: Any) -> bool:
    return (
        isinstance(value, (float, int))
        and not isinstance(value, bool)
        and (isinstance(value, float) or abs(value) < 2**63)
    )
