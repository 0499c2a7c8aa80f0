"""How much is measured: `quick` for a first look and for CI, `full` for the record."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from benchmarks.suite.shapes import SHAPES, Shape, prompt_of, random_model
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.branch import ON_CPU
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.stages.base import Prompt

ECG = 3300
"""Positions of a 12-lead ECG prompt."""


@dataclass(frozen=True)
class Suite:
    """Sizes and rounds of everything that is measured.

    Args:
        name: "quick" or "full".
        shape: of the LLM.
        rounds: for steps; `slow_rounds` for what takes a minute.
        conversions: outputs to convert to, of `conversion.OUTPUTS`.
        bandwidth: bytes read to measure memory, more than caches hold.
        prompts: prompt lengths to read and to decode behind.
        steps: (prompt, rows) of the decode steps that are compared.
        batch: (prompt, rows) against mlx-lm's BatchGenerator.
        search: (rollouts, width, prompt, tokens) of the whole search.
        bookkeeping: nodes of the tree whose upkeep is timed.
        torch_prompts, torch_rows: prompts to read and to decode so many rows behind, against PyTorch.
        torch_job: (answers, prompt, tokens), against PyTorch; its search in waves of `torch_width`.
        stage_budget: (rollouts, width, tokens) of an answer to each stage's prompt.
        rollouts, widths, depths: the sweeps; `sweep` is (rollouts, width, prompt, tokens) where they cross.
    """

    name: str
    shape: Shape
    rounds: int
    slow_rounds: int
    conversions: tuple[str, ...]
    bandwidth: int
    prompts: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    batch: tuple[int, int]
    search: tuple[int, int, int, int]
    bookkeeping: int
    torch_prompts: tuple[int, ...]
    torch_rows: int
    torch_job: tuple[int, int, int]
    torch_width: int
    stage_budget: tuple[int, int, int]
    rollouts: tuple[int, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    sweep: tuple[int, int, int, int]


_SMOL = SHAPES["SmolLM2-135M"]
SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="quick",
            shape=_SMOL,
            rounds=2,
            slow_rounds=1,
            conversions=("bfloat16", "4-bit"),
            bandwidth=1 << 28,
            prompts=(64, 256),
            steps=((256, 32),),
            batch=(256, 16),
            search=(8, 4, 128, 8),
            bookkeeping=2_000,
            torch_prompts=(256,),
            torch_rows=32,
            torch_job=(8, 128, 8),
            torch_width=4,
            stage_budget=(4, 4, 8),
            rollouts=(1, 8),
            widths=(1, 8),
            depths=(4, 8),
            sweep=(8, 8, 64, 8),
        ),
        Suite(
            name="full",
            shape=_SMOL,
            rounds=9,
            slow_rounds=3,
            conversions=(
                *("bfloat16", "bfloat16, verified"),
                *("float32", "float32, verified"),
                *("4-bit", "4-bit, verified"),
            ),
            bandwidth=1 << 30,
            prompts=(64, 512, 1024, ECG),
            steps=((512, 32), (1024, 32), (ECG, 32)),
            batch=(512, 16),
            search=(64, 16, 512, 32),
            bookkeeping=10_000,
            torch_prompts=(512, ECG),
            torch_rows=32,
            torch_job=(20, 512, 32),
            torch_width=5,
            stage_budget=(20, 5, 32),
            rollouts=(1, 4, 16, 64, 256),
            widths=(1, 4, 16, 64),
            depths=(8, 32, 128),
            sweep=(64, 16, 512, 16),
        ),
    )
}


def get(name: str, shape: str | None = None) -> Suite:
    """The suite of that name, for an LLM of that shape: by default one for CPUs, or on a GPU Llama-3.2-1B in bf16.

    Raises:
        TSLMError: there is none (lists them).
    """
    if name not in SUITES:
        raise TSLMError(f"unknown suite {name!r}; choose from {', '.join(SUITES)}")
    shape = shape or (_SMOL.name if ON_CPU else "Llama-3.2-1B-bf16")
    if shape not in SHAPES:
        raise TSLMError(f"unknown shape {shape!r}; choose from {', '.join(SHAPES)}")
    return replace(SUITES[name], shape=SHAPES[shape])


class Workbench:
    """A suite with its model and prompts, each made when it is first needed.

    Args:
        suite: how much is measured.
        backends: what, of `run.BACKENDS`.
        stages: names of the stages whose prompts are measured.
    """

    def __init__(self, suite: Suite, backends: Sequence[str] = ("mlx",), stages: Sequence[str] = ()) -> None:
        self.suite, self.backends, self.stages = suite, backends, stages
        self.read = cache(self._read)

    @cached_property
    def model(self) -> SoftPromptModel:
        """Random weights of the suite's shape."""
        return random_model(self.suite.shape)

    def prompt(self, positions: int) -> Prompt:
        """A prompt of that many positions."""
        return prompt_of(self.model, positions)

    def _read(self, positions: int) -> PromptCache:
        return self.model.prefill(self.prompt(positions))
