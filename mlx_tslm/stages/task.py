"""A task of one's own as a small TOML file: a stage in the terms of `Stage`, as the published five are.

    name = "faults"
    labels = ["sound", "unbalanced", "loose", "bearing"]
    rate = 1000.0             # Hz
    length = 512              # samples that a question reads

All else has a default: the wording below, no rationale, normalised as the ECG stage does it. `like = "stage5"`
takes everything from a published stage, its handling of leads included, and changes what the file names.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.stages.answers import folded
from mlx_tslm.stages.base import Stage
from mlx_tslm.stages.normalising import NORMALISERS

FILE = "task.toml"
"""The task that a converted folder was trained for, where it is no published stage."""

METRICS = ("classification", "kappa", "captions")
_ASKED = "What does the recording show?"
_CHOOSE = "Choose one of the following answers: {labels}\n\n"
_REASON = (
    'Write down your reasoning in one paragraph, and end it with "{marker} " and the final answer.\n\nReasoning:'
)
_OF_DATA_SETS = ("published", "group")  # a published data set's own: columns and rules that a table does not have


def read(path: str | Path, known: Callable[[str], Stage]) -> Stage:
    """The task of a TOML file.

    Args:
        known: the published stage of a name, for `like`.

    Raises:
        TSLMError: there is no such file, it is no TOML, or says something unknown, too little or impossible.
    """
    try:
        raw = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise TSLMError(f"the task {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TSLMError(f"{path} is no TOML: {error}") from None
    return from_dict(raw, known, str(path))


def from_dict(raw: Mapping[str, Any], known: Callable[[str], Stage], where: str = "the task") -> Stage:
    """The task that a table of TOML says; see `read`."""
    from mlx_tslm.schema import validate  # pydantic, which a published stage does without

    given = dict(raw)
    like = given.pop("like", None)
    if not isinstance(like, str | None):
        raise TSLMError(f"{where}: like names a published stage, such as stage5")
    if not isinstance(given.get("name"), str):
        raise TSLMError(f"{where}: name is missing, or no text")
    if isinstance(given.get("synonyms"), dict):
        given["synonyms"] = {said.casefold(): label for said, label in given["synonyms"].items()}
    if like is None:
        kind, values = Stage, _defaults(given) | given
    else:
        pattern = known(like)
        kind = type(pattern)
        own = {one.name: getattr(pattern, one.name) for one in fields(pattern) if one.name not in _OF_DATA_SETS}
        values = own | {"key": given["name"], "title": f"{given['name']}, like {pattern.title}"} | given
    stage: Stage = validate(kind, values, where, forbid=True)
    try:
        _check(stage)
    except TSLMError as error:
        raise TSLMError(f"{where}: {error}") from None
    for name in {stage.name, stage.key}:
        try:
            known(name)
        except TSLMError:
            continue
        raise TSLMError(f"{where}: there is a stage called {name!r} already; choose another name")
    return stage


def dumps(stage: Stage) -> str:
    """A stage as TOML that `read` makes the same stage of: what differs from the defaults, tables last.

    One whose behaviour is a published stage's own (ECG leads, options in the question) is written as `like` it.
    """
    from mlx_tslm import stages

    pattern = next((one for one in map(stages.get, stages.names()) if type(one) is type(stage)), None)
    like = pattern if type(stage) is not Stage else None
    lines, tables = ([f"like = {_text(like.name)}"] if like else []), []
    written = () if like else _defaults({"name": stage.name})  # where `read` has another default than `Stage`
    for field in fields(stage):
        value = getattr(stage, field.name)
        usual = getattr(like, field.name) if like else _default(field)
        if (
            value is None
            or (value == usual and field.name not in written)
            or (like and field.name in _OF_DATA_SETS)
        ):
            continue
        if isinstance(value, Mapping):
            tables.append(
                "\n".join([f"\n[{field.name}]", *(f"{_line(k)} = {_value(v)}" for k, v in value.items())])
            )
        else:
            lines.append(f"{field.name} = {_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """An ordinary wording around what a task says."""
    choose = _CHOOSE if given.get("labels") else ""
    marker = given.get("marker")
    count = given.get("channels", 1)
    named = given.get("channel_words") or (isinstance(count, int) and 1 < count <= 64)
    return {
        "channel_words": [f"channel {number}" for number in range(1, count + 1)] if named else [],
        "key": given["name"],
        "title": given["name"],
        "pre": "{question}",
        "post": choose + (_REASON.replace("{marker}", str(marker)) if marker else "Answer:"),
        "series_text": "This is the time series{of}{recording}, it has mean {{mean}} and std {{std}}:".format(
            of=" of {channel}" if named else "", recording="{recording}"
        ),
        "default_question": _ASKED,
        "normalise": "population",
        "metrics": ["classification"] if given.get("labels") else ["captions"],
    }


def _check(stage: Stage) -> None:
    """See that a task's parts fit together."""
    if not re.fullmatch(r"[\w][\w .+-]*", stage.name):
        raise TSLMError(f"name = {stage.name!r}: use letters, digits, blanks and - only")
    if stage.normalise not in NORMALISERS:
        raise TSLMError(f"normalise = {stage.normalise!r}; choose {', '.join(NORMALISERS)}")
    for name in _FILLED:
        _check_template(name, getattr(stage, name), type(stage))
    if stage.labels is not None:
        if len(stage.labels) < 2:
            raise TSLMError("labels: give at least two, or leave them out where answers are free")
        spelt = [folded(label) for label in stage.labels]
        if "" in spelt:
            raise TSLMError("labels: one of them is empty")
        if twice := next((one for at, one in enumerate(spelt) if one in spelt[:at]), None):
            raise TSLMError(f"labels: {twice!r} stands there twice, letter case and punctuation aside")
    if odd := next((one for one in stage.synonyms.values() if one not in (stage.labels or ())), None):
        raise TSLMError(f"synonyms: {odd!r} is none of the labels")
    if stage.channels < 1 or (stage.channel_words and len(stage.channel_words) != stage.channels):
        raise TSLMError(f"channels = {stage.channels}, but {len(stage.channel_words)} channel_words")
    if stage.rate is not None and not 0 < stage.rate < float("inf"):
        raise TSLMError(f"rate must be a positive number of Hz, not {stage.rate:g}")
    if stage.length is not None and stage.length < 1:
        raise TSLMError(f"length must be at least one sample, not {stage.length}")
    if stage.resample and stage.rate is None:
        raise TSLMError("resample needs the rate to bring recordings to")
    if odd := next((one for one in stage.metrics if one not in METRICS), None):
        raise TSLMError(f"metrics: there is no {odd!r}; choose {', '.join(METRICS)}")
    if stage.marker is not None and not stage.marker.strip():
        raise TSLMError("marker: it is empty; leave it out where the whole text is the answer")


_FILLED: dict[str, tuple[str, ...]] = {
    "pre": ("question", "labels"),
    "post": ("question", "labels"),
    "series_text": ("channel", "recording", "mean", "std"),
}
_OF_KIND: dict[str, dict[str, tuple[str, ...]]] = {"_TSQA": {"post": ("task",)}, "ECGStage": {"pre": ("context",)}}


def _check_template(name: str, text: str, kind: type[Stage]) -> None:
    allowed = (*_FILLED[name], *_OF_KIND.get(kind.__name__, {}).get(name, ()))
    try:
        text.format(**dict.fromkeys(allowed, ""))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        listed = ", ".join(f"{{{one}}}" for one in allowed)
        raise TSLMError(f"{name}: {error} in braces is not known; there is {listed}; {{{{ is a brace") from None


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_line(key)} = {_value(one)}' for key, one in value.items())} }}"
    return json.dumps(value)


def _text(text: str) -> str:
    """Text as TOML; several lines stay several lines."""
    lines = [_line(line)[1:-1] for line in text.split("\n")]
    return f'"{lines[0]}"' if len(lines) == 1 else '"""\n' + "\n".join(lines) + '"""'


def _line(text: str) -> str:
    """Text as TOML on one line: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
