"""Answers that are made together are those that are made alone."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model

from mlx_tslm.errors import TSLMError
from mlx_tslm.generation import stream_generate
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

MAX_TOKENS = 14


def prompts(count: int) -> list[Prompt]:
    """Prompts of very different lengths, so that rows are long, short, and seated after longer ones."""
    rng = np.random.default_rng(3)
    return [
        Prompt(
            "Look. " * int(rng.integers(1, 9)),
            [Series(f"series {i}:", rng.standard_normal(int(rng.integers(5, 120)))) for i in range(1 + n % 2)],
            "Answer:",
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def make() -> Callable[..., SoftPromptModel]:
    made: dict[tuple[str, bool], SoftPromptModel] = {}

    def get(kind: str, pad: bool = False) -> SoftPromptModel:
        if (kind, pad) not in made:
            made[kind, pad] = tiny_model(kind, pad_text_left=pad)
        return made[kind, pad]

    return get


def alone(model: SoftPromptModel, prompt: Prompt, **options: float) -> list[int]:
    return [response.token for response in stream_generate(model, prompt, MAX_TOKENS, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "pad"), [("llama", False), ("gemma", False), ("gemma", True)])
def test_greedy_equals_one_at_a_time(make: Callable[..., SoftPromptModel], kind: str, pad: bool) -> None:
    model, asked = make(kind, pad), prompts(5)
    expected = {index: alone(model, prompt) for index, prompt in enumerate(asked)}
    for width in (1, 3):
        found = {r.index: list(r.completion.tokens) for r in generate_batch(model, asked, width, MAX_TOKENS)}
        assert found == expected


def test_rows_leave_at_their_own_end_token(make: Callable[..., SoftPromptModel]) -> None:
    """With end tokens that answers reach at different times, seats change hands."""
    model, asked = make("llama"), prompts(7)
    answers = [alone(model, prompt, temperature=1.0, seed=i) for i, prompt in enumerate(asked)]
    eos = frozenset(answer[2 * i + 1] for i, answer in enumerate(answers[:5]))
    ends = [next((at + 1 for at, token in enumerate(a) if token in eos), MAX_TOKENS) for a in answers]
    expected = [answer[:end] for answer, end in zip(answers, ends, strict=True)]
    assert len(set(ends)) >= 3  # or this shows nothing

    class Ending:
        eos_token_ids = eos

        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

    responses = list(generate_batch(Ending(), iter(asked), 3, MAX_TOKENS, 1.0, seeds=range(7)))  # type: ignore[arg-type]
    found = {r.index: list(r.completion.tokens) for r in responses}
    assert found == dict(enumerate(expected))
    assert {r.index: r.completion.finished for r in responses} == {
        index: answer[-1] in eos for index, answer in enumerate(expected)
    }


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_sampled_rows_are_scored_alike_by_teacher_forcing(make: Callable[..., SoftPromptModel], kind: str) -> None:
    """Sampled tokens may differ where rounding tips a draw, but their log-probabilities are the model's."""
    model, asked = make(kind), prompts(3)
    for response in generate_batch(model, asked, 2, MAX_TOKENS, temperature=0.7, seeds=range(3)):
        completion = response.completion
        forced = asked[response.index]
        read = model.prefill(forced)
        opening = [model.tokenizer.bos_token_id] if read.length > model.embed(forced).shape[1] else []
        logits = model.score(forced, [*opening, *completion.tokens])[len(opening) : -1] / 0.7
        logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        total = mx.take_along_axis(logp, mx.array(completion.tokens)[:, None], axis=-1).sum().item()
        assert completion.logprob == pytest.approx(total, abs=2e-2)


def test_sampling_follows_the_seed_and_not_the_batch(make: Callable[..., SoftPromptModel]) -> None:
    model, asked = make("llama"), prompts(4)
    options = {"temperature": 1.0, "top_p": 0.9}
    batched = {
        r.index: list(r.completion.tokens)
        for r in generate_batch(model, asked, 4, MAX_TOKENS, seeds=[7, 7, 8, 9], **options)
    }
    same = sum(
        batched[i] == alone(model, p, seed=s, **options)
        for i, (p, s) in enumerate(zip(asked, [7, 7, 8, 9], strict=True))
    )
    assert same >= 3  # a draw on a boundary may tip


def test_costs_add_up(make: Callable[..., SoftPromptModel]) -> None:
    model, asked = make("llama"), prompts(4)
    responses = list(generate_batch(model, asked, 4, MAX_TOKENS))
    for r in responses:
        assert r.forward_passes == pytest.approx(1 + (len(r.completion.tokens) - 1) / 4)
    rest = {r.index: r.forward_passes for r in generate_batch(model, asked[2:], 4, MAX_TOKENS)}
    assert rest == {r.index - 2: r.forward_passes for r in responses if r.index >= 2}  # whoever else is under way
    assert all(r.seconds > 0 and r.prompt_tokens == model.prefill(asked[r.index]).length for r in responses)


def test_no_prompts_and_bad_options(make: Callable[..., SoftPromptModel]) -> None:
    model = make("llama")
    assert list(generate_batch(model, [])) == []
    for options in ({"width": 0}, {"max_tokens": 0}, {"temperature": -1.0}):
        with pytest.raises(TSLMError):
            list(generate_batch(model, prompts(1), **options))  # type: ignore[arg-type]
