"""A search stops once no rollout that is left could change the answer, and says what that saved."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_answers import result
from test_search import LONGEST, PROMPT, small_model

from mlx_tslm import SearchResult, tree_search
from mlx_tslm.cli import main
from mlx_tslm.completion import Completion
from mlx_tslm.rewards import CombinedReward, FormatReward, GroundingReward, Reward, SpectralReward, default_reward
from mlx_tslm.search.stopping import settled
from mlx_tslm.stages.base import Question


class Bounded(Reward):
    """1 for every answer, and nothing is better."""

    highest = 1.0

    def __call__(self, completions: Sequence[Completion], question: Question) -> NDArray[np.float64]:
        return np.ones(len(completions))


def search(method: str = "best-of-n", **options: Any) -> SearchResult:
    """A search of a model that says one thing nearly always."""
    options = {"num_rollouts": 40, "width": 4, "temperature": 0.02, "max_tokens": LONGEST, **options}
    return tree_search(small_model(), PROMPT, method, Bounded(), **options)


@pytest.mark.parametrize("method", ["best-of-n", "dts", "mcts"])
def test_the_answer_is_that_of_the_whole_budget(method: str) -> None:
    early, whole = search(method), search(method, stop_early=False)
    assert early.answer == whole.answer is not None
    assert early.stats.rollouts < whole.stats.rollouts == 40
    assert early.stats.tokens_saved > whole.stats.tokens_saved == 0
    assert early.stats.tokens_saved == round(
        early.stats.tokens_decoded / early.stats.rollouts * (40 - early.stats.rollouts)
    )
    assert not early.tree.pending.any()


@pytest.mark.parametrize("method", ["beam", "greedy", "maxent-ts"])
def test_where_all_is_found_nothing_is_saved(method: str) -> None:
    assert search(method).stats.tokens_saved == 0


def test_a_settled_search_goes_on_when_it_is_told_to() -> None:
    first = search()
    same = search(resume=first)
    assert same.stats.tokens_decoded == 0 and same.stats.rollouts == first.stats.rollouts
    on = search(resume=first, stop_early=False)
    assert on.stats.rollouts == 40 and on.stats.tokens_saved == 0
    assert search(resume=first, num_rollouts=80).stats.rollouts > 40


def test_the_runner_up_gets_all_that_is_left() -> None:
    found = result(
        *((f"{n}. Answer: yes", 0.1, 1.0) for n in range(6)), *((f"{n}. Answer: no", 0.1, 1.0) for n in range(4))
    )
    at = (found.completions, found.tree)
    assert settled(*at, 1, 1.0, 1.0) and not settled(*at, 2, 1.0, 1.0)  # 0.6 against 0.4 + 0.1 for each
    assert not settled(*at, 1, 5.0, 1.2)  # for a better one may come, and counts exp(1)
    assert not settled(*at, 1, 1.0, math.inf)
    thin = result(
        *((f"{n}. Answer: yes", 0.05, 1.0) for n in range(7)),
        *((f"{n}. Answer: {n}", 0.05, 1.0) for n in range(13)),
    )
    assert not settled(thin.completions, thin.tree, 2, 1.0, 1.0)  # it would lose its third
    nothing = result(("Nothing", 1.0, 1.0))
    assert not settled(nothing.completions, nothing.tree, 1, 1.0, 1.0)


def test_bounds_of_rewards() -> None:
    assert default_reward().highest == 1.0
    assert CombinedReward({"a": (FormatReward(), 0.5), "b": (GroundingReward(), 1.5)}).highest == 2.0
    assert CombinedReward({"a": (FormatReward(), 0.5), "b": (len, 0.5)}).highest == math.inf
    assert CombinedReward({"a": (FormatReward(), 0.5), "b": (len, 0.0)}).highest == 0.5
    assert CombinedReward({"a": (FormatReward(), -1.0)}).highest == math.inf
    spectral = SpectralReward()
    assert spectral.highest == 0.0
    spectral.set_task_reward(FormatReward())
    assert spectral.highest == 1.0


def test_terminal_and_json_say_what_was_saved(
    demo_folder: Path, airline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["search", "--model", str(demo_folder), "--series", str(airline), "--method", "best-of-n"]
    asked += ["--stage", "stage1", "--question", "What is the trend? (a) no trend (b) an upward trend"]
    asked += ["--num-rollouts", "40", "--width", "4", "--max-tokens", "12"]
    file = tmp_path / "found.json"
    assert main([*asked, "--json", str(file)]) == 0
    stats = json.loads(file.read_text())["stats"]
    assert stats["rollouts"] < 40 and stats["tokens_saved"] > 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"about {stats['tokens_saved']} tokens: after {stats['rollouts']} of 40" in said
    assert main([*asked, "--json", str(file), "--no-stop-early"]) == 0
    assert json.loads(file.read_text())["stats"]["rollouts"] == 40
