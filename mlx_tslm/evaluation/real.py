"""Questions about real recordings, asked as a person would ask them, and whether the answers are right."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_tslm import depth, signals, stages
from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation.captions import read_caption
from mlx_tslm.generation import stream_generate
from mlx_tslm.models.base import BaseModel

VERDICTS = RIGHT, WRONG, UNCLEAR = "right", "wrong", "no clear answer"
_TOLERANCE = 5  # beats a minute


@dataclass(frozen=True)
class Item:
    """One question about one recording.

    Args:
        name: of the recording and the part of it.
        recording: what is asked about.
        stage: whose wording is used.
        asked: the question and the answers to choose from, where there are any.
        expects: `right` and `known` answers, or the heart's `rate`, or a caption's `direction` or `period`.
    """

    name: str
    recording: signals.Recording
    stage: str
    asked: dict[str, Any]
    expects: dict[str, Any]


def items(file: Path, folders: Sequence[Path]) -> Iterator[Item]:
    """The questions of a TOML file about recordings in these folders; those about a missing one are left out."""
    for entry in tomllib.loads(file.read_text("utf-8"))["ask"]:
        path = next((folder / entry["file"] for folder in folders if (folder / entry["file"]).exists()), None)
        if path is None:
            continue
        for case in entry.get("cases", [""]):
            whole = _case(path, case, entry["rate"]) if case else signals.read(path, entry.get("channels"))
            part = signals.window(whole, entry.get("start", 0.0), entry.get("seconds"))
            name = " ".join([path.stem, case, *entry.get("channels", [])]).replace("  ", " ").strip()
            for one in entry["questions"]:
                asked = {key: one[key] for key in ("question", "answers") if key in one}
                yield Item(name, part, entry["stage"], asked, {k: v for k, v in one.items() if k not in asked})


def _case(path: Path, case: str, rate: float) -> signals.Recording:
    """The accelerometer of a case of a label, "Walking 3", of a file in sktime's format."""
    label, _, number = case.partition(" ")
    found = [line for line in path.read_text("utf-8").split("\n") if line.strip().endswith(f":{label}")]
    if len(found) <= int(number):
        raise TSLMError(f"{path} has no case {case!r}")
    axes = found[int(number)].split(":")[:3]
    return signals.Recording([np.array(axis.split(","), float) for axis in axes], ("x", "y", "z"), rate)


def ask(model: BaseModel, item: Item, max_tokens: int = 192) -> str:
    """The model's greedy answer, the recording brought to its own rate first."""
    stage = stages.get(item.stage, model.config.leads)
    trained = depth.of(model.config.trained_on, stage.name)
    brought, _ = depth.at_own_rate([item.recording], depth.own_rate(trained, stage))
    prompt = stage.prompt(brought, **item.asked)
    return "".join(response.text for response in stream_generate(model, prompt, max_tokens))


def judge(item: Item, text: str) -> str:
    """`RIGHT`, `WRONG` or `UNCLEAR`."""
    if "direction" in item.expects or "period" in item.expects:
        claims = read_caption(text)
        for key, said in (("direction", claims.direction), ("period", claims.period)):
            if key in item.expects:
                wanted = item.expects[key]
                right = said == wanted if key == "direction" else said in wanted
                return UNCLEAR if said is None else RIGHT if right else WRONG
    stage = stages.get(item.stage)
    if "rate" in item.expects:
        answer = stage.parse(text, ()) or ""
        number = re.fullmatch(r"(\d{2,3})(?:\s*(?:bpm|beats (?:a|per) minute))?", answer)
        if number is None:
            return UNCLEAR
        return RIGHT if abs(int(number[1]) - item.expects["rate"]) <= _TOLERANCE else WRONG
    *_, labels = stage.texts(**{"question": None} | item.asked)
    said = stage.parse(text, labels)
    if said in item.expects["right"]:
        return RIGHT
    return WRONG if said in item.expects["known"] else UNCLEAR
