"""A reward that can't be gamed: of every recording, the honest answer is ahead of those that nobody would give.

With GAMING=N in the environment N recordings of each stage and source are tried instead of 3; an answer of each
family has to be strictly behind in 98 % of them, and of a few in all but one. It takes long and is no step of CI:
of twelve recordings each, seven of the 618 rows were below (78 to 92 %).
"""

import functools
import os

import numpy as np
import pytest
from families import FAMILIES, STAGES, Case, completion

from mlx_tslm import data
from mlx_tslm.rewards import default_reward

SOURCES = ("synthetic", "realistic")
RECORDINGS = int(os.environ.get("GAMING", "3"))


@functools.cache
def cases(source: str, stage: str) -> list[Case]:
    """Recordings of a stage with honest answers, the test split's."""
    rows = data.load(stage, "test", source=source, seed=23, size=RECORDINGS)
    samples = [rows.stage.from_row(row) for row in rows]
    elsewhere = {
        name: [one.stage.from_row(row).answer for row in one]
        for name in STAGES
        if (one := data.load(name, "test", source=source, seed=24, size=5))
    }
    return [
        Case(
            stage,
            question,
            answer,
            [other.answer for other in samples[number + 1 :] + samples[:number]],
            {name: texts[number % len(texts)] for name, texts in elsewhere.items()},
            np.random.default_rng(number),
        )
        for number, (question, answer) in enumerate(samples)
    ]


@functools.cache
def honest(source: str, stage: str, junk: bool) -> np.ndarray:
    """Rewards of the honest answers, without token probabilities or with them."""
    return np.array([reward(case, completion(case, case.honest, honest=junk)) for case in cases(source, stage)])


def reward(case, told) -> float:
    return float(default_reward(case.question.stage).score([told], case.question).total[0])


PAIRS = [(stage, name) for name, (_, of, _) in FAMILIES.items() for stage in of]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("stage", "name"), PAIRS)
def test_the_honest_answer_is_ahead(source, stage, name):
    make, _, junk = FAMILIES[name]
    behind = []
    for case, best in zip(cases(source, stage), honest(source, stage, junk), strict=True):
        text = make(case)
        if text is None or text == case.honest:
            continue
        worse = reward(case, completion(case, text, junk=junk, cut=name == "unfinished"))
        behind.append(worse < best)
    if behind:
        assert np.sum(np.logical_not(behind)) <= max(1, 0.02 * len(behind))
