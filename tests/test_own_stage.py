"""A sixth stage is one value in one file: evaluation, search and the page know it without having been told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_tslm import evaluation, load, stages, tree_search
from mlx_tslm.data import Dataset
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.report import write_html
from mlx_tslm.search import SearchConfig

MACHINE = stages.Stage(
    name="machine",
    key="vibration",
    title="faults of a machine, from its vibration",
    pre="You listen to a machine. Is it {labels}?",
    post="Your rationale:",
    series_text="Vibration on the {channel} axis, mean {mean}, std {std}:",
    default_question="What is wrong with the machine?",
    normalise="population",
    channels=2,
    channel_words=("x", "y"),
    rate=100.0,
    labels=("sound", "unbalanced", "loose"),
    marker="Verdict:",
    rewards={"format": 0.5, "grounding": 0.5},
    claims={"frequency": 1.0, "noise": 1.0},
    topics=(("frequency",),),
    implies={"loose": ("noise", "high")},
    metrics=("classification", "kappa"),
    medical=True,
    series_columns=("x", "y"),
    answer_column="said",
)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> SoftPromptModel:
    return load(tiny_folder)


@pytest.fixture
def machine() -> Iterator[stages.Stage]:
    yield stages.register(MACHINE)
    del stages._STAGES[MACHINE.name]


def row(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    fault = MACHINE.labels[number % 3] if MACHINE.labels else ""
    return {"x": rng.normal(size=64).tolist(), "y": str(rng.normal(size=64).tolist()), "said": f"Verdict: {fault}."}


def test_search_eval_and_page_know_a_stage_of_ones_own(
    machine: stages.Stage, model: SoftPromptModel, tmp_path: Path
) -> None:
    assert stages.get("Vibration") is machine and stages.names()[-1] == "machine"
    question, answer = machine.from_row(row(1))
    assert question.pre == "You listen to a machine. Is it sound, unbalanced, loose?"
    assert [one.name for one in question.series] == ["x", "y"]
    assert question.parse(answer) == "unbalanced" and question.parse("It hums.") is None
    assert question.labels == machine.labels and question.rate == 100

    result = tree_search(model, question, num_rollouts=3, width=2, max_tokens=4)
    assert list(result.best.columns) == ["format", "grounding"]
    write_html(result, tmp_path / "page.html", question=question, tokenizer=model.tokenizer, model="tiny")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert machine.title in page and '"medical":true' in page

    rows = Dataset(machine, "test", 6, row)
    evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], SearchConfig(max_tokens=2, width=3))
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["methods"]["greedy"]
    assert set(figures["metrics"]["answer"]) == {"accuracy", "macro_f1", "answered", "kappa"}
    assert list(figures["classes"]["answer"])[:3] == ["loose", "sound", "unbalanced"]


def test_a_questions_stage_is_what_counts(model: SoftPromptModel) -> None:
    """With a model of another stage, and with none set, gibberish is no activity."""
    question = stages.get("stage3").prompt(np.random.default_rng(0).normal(size=(3, 64)))
    model.stage = stages.get("stage2")  # of which any text is a caption
    try:
        result = tree_search(model, question, num_rollouts=2, width=2, max_tokens=4)
    finally:
        model.stage = None
    assert [one.columns["format"] for one in result.completions] == [0.0, 0.0]


def test_two_stages_of_one_name(machine: stages.Stage) -> None:
    with pytest.raises(TSLMError, match=r"there is a stage machine \(vibration\) already"):
        stages.register(MACHINE)
