"""The Flamingo model in PyTorch is the one in MLX."""

from pathlib import Path

import numpy as np
import pytest
import tiny_flamingo
from test_flamingo import EXPECTED, TOLERANCE, arrays
from test_golden import prompt

pytest.importorskip("torch")
pytest.importorskip("transformers")

import mlx_tslm
from mlx_tslm import conversion, generate, tree_search
from mlx_tslm.conversion.pt import writer
from mlx_tslm.models.base import BaseModel


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind in ("llama", "gemma"):
        folder = tmp_path_factory.mktemp(kind)
        writer.write(folder / "x.pt", {"llm": tiny_flamingo.original_state(kind)})
        base = tiny_flamingo.write_base(kind, folder / "base")
        made[kind] = conversion.convert(folder / "x.pt", folder / "model", llm=str(base)).path
    return made


@pytest.fixture(scope="module", params=["torch", "torch-uncached"])
def models(request: pytest.FixtureRequest, folders: dict[str, Path]) -> dict[str, BaseModel]:
    return {kind: mlx_tslm.load(path, backend=request.param) for kind, path in folders.items()}


@pytest.mark.parametrize("key", [key for key, one in EXPECTED.items() if one["case"] in ("tsqa", "unequal", "ecg")])
def test_logits_equal_the_originals(models: dict[str, BaseModel], key: str) -> None:
    logits = np.array(models[EXPECTED[key]["kind"]].score(prompt(EXPECTED[key]["case"]), EXPECTED[key]["forced"]))
    assert np.abs(logits - arrays()[f"{key}/logits"]).max() < TOLERANCE


@pytest.mark.parametrize("case", ["empty_pre", "unequal", "no_series"])
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_answers_and_searches_are_those_of_mlx(
    models: dict[str, BaseModel], folders: dict[str, Path], kind: str, case: str
) -> None:
    here, there, asked = mlx_tslm.load(folders[kind]), models[kind], prompt(case)
    assert generate(there, asked, max_tokens=6) == generate(here, asked, max_tokens=6)
    found = [
        tree_search(
            one, asked, reward=lambda c: [float(len(a.text)) for a in c], num_rollouts=4, width=2, max_tokens=5
        )
        for one in (here, there)
    ]
    assert [one.tokens for one in found[0].completions] == [one.tokens for one in found[1].completions]
