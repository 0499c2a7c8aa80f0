"""The spectral reward: an answer's spectrum against the input's.

r(x) = r_task(x) − γ ∫ |log₁₀ S_x(ω) − log₁₀ S_c(ω)| dμ(ω)

S_c is the power spectral density of the input and S_x that of what the answer claims, both of unit total power
and floored 20 dB below white. The integral is a mean over the frequencies where they have their power (μ sums to
1), so its unit is the decade: 1 where the two differ tenfold. With a task reward between 0 and 1, γ = 1 makes
such an answer cost what the whole task is worth.

- The answer holds a series (eight numbers or more in a row): x is that series (`spectrum.spectral_distance`).
- The answer states frequencies (Hz, bpm, a period): S_x is a line for each, seen through a Hann window of
  twelve of its cycles (the whole input where that is shorter), and compared where that window puts it, in its
  main lobe. S_c comes from the same window, in units of its power in the octave around the line, less the
  background there: a claim about a line says nothing of the noise (`spectrum.line_distance`).
- Otherwise the term is absent: NaN in its column, 0 in the sum.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.rewards.base import Reward, Scores, as_reward, evaluate, facts_of
from mlx_tslm.rewards.claims import Claim, cycles_per_sample, is_line, read, remembered
from mlx_tslm.rewards.facts.spectrum import FLOOR, spectral_distance
from mlx_tslm.rewards.format import split
from mlx_tslm.stages.base import Question

FloatArray = NDArray[np.float64]


class SpectralReward(Reward):
    """r(x) = r_task(x) − γ · distance (see the module). Without a task reward it is the penalty alone.

    Args:
        gamma: γ, reward a decade of spectral distance; at least 0.
        floor: densities below this share of the white level are taken for it, in both spectra.

    Raises:
        TSLMError: γ is negative, or the floor is not between 0 and 1.
    """

    name = "spectral"

    def __init__(self, gamma: float = 1.0, floor: float = FLOOR) -> None:
        if not (np.isfinite(gamma) and gamma >= 0):
            raise TSLMError(f"gamma is {gamma}; it must be 0 or more")
        if not 0 < floor < 1:
            raise TSLMError(f"the spectral floor is {floor}; it must lie between 0 and 1")
        self.gamma = gamma
        self.floor = floor
        self.task: Reward | None = None

    @property
    def optional(self) -> bool:  # type: ignore[override]
        return self.task is None

    @property
    def highest(self) -> float:  # type: ignore[override]
        return self.task.highest if self.task is not None else 0.0

    def set_task_reward(self, function: "Reward | Callable[..., Any]") -> None:
        """Set r_task: a `Reward`, or a function from a list of completions to one float each."""
        self.task = as_reward(function)

    def distances(self, completions: Sequence[Completion], question: Question) -> FloatArray:
        """Spectral distance of each answer to the input, in decades: float64 `[n]`, NaN where none is stated."""
        return np.array([self._distance(completion.text, question) for completion in completions])

    def __call__(self, completions: Sequence[Completion], question: Question) -> FloatArray:
        if self.task is not None:
            return self.score(completions, question).total
        return -self.gamma * self.distances(completions, question)

    def score(self, completions: Sequence[Completion], question: Question) -> Scores:
        penalty = -self.gamma * self.distances(completions, question)
        total = np.nan_to_num(penalty)
        columns = {self.name: penalty}
        if self.task is not None:
            task = evaluate(self.task, completions, question, "task")
            total = total + np.nan_to_num(task)
            columns = {"task": task, **columns}
        return Scores(total=total, columns=columns)

    def _distance(self, text: str, question: Question) -> float:
        inputs = [values for values in facts_of(question).series if len(values) >= 8]
        if not inputs:
            return float("nan")
        rationale, answers = split(text, question)
        for part in (rationale, *answers):
            stated = find_series(part)
            if stated is not None:
                return min(spectral_distance(stated, values, self.floor) for values in inputs)
        claims = dict.fromkeys(claim for part in (rationale, *answers) for claim in _lines(part))
        distances = [self._claim_distance(claim, question) for claim in claims]
        found = [distance for distance in distances if np.isfinite(distance)]
        return float(np.mean(found)) if found else float("nan")

    def _claim_distance(self, claim: Claim, question: Question) -> float:
        # Where the sampling interval is unknown "yearly" has several readings: the kindest one counts.
        lines = cycles_per_sample(claim, facts_of(question).rate)
        distances = [facts_of(question).line_distance(line, self.floor) for line in lines]
        found = [distance for distance in distances if np.isfinite(distance)]
        return min(found) if found else float("nan")


@remembered
def _lines(text: str) -> tuple[Claim, ...]:
    """The claims in a text that state a frequency."""
    return tuple(claim for claim in read(text) if is_line(claim))


@lru_cache(maxsize=4096)
def find_series(text: str) -> FloatArray | None:
    """The longest run of eight or more numbers in a text, float64 `[n]`; None where there is none."""
    number = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
    runs = re.findall(rf"(?<![\d.]){number}(?:(?:\s*[,;|]\s*|\s+){number}){{7,}}", text, re.IGNORECASE)
    series = [np.array([float(v) for v in re.split(r"[\s,;|]+", run)]) for run in runs]
    series = [values for values in series if np.isfinite(values).all()]
    return max(series, key=len, default=None)
