"""A search that submits its next pass before it reads the last one's tokens finds what one finds that waits."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_search import Exact, enumerated, run, smooth

from mlx_tslm.models import causal
from mlx_tslm.models.base import FREE
from mlx_tslm.models.pipelined import PipelinedDecoder
from mlx_tslm.models.tree_decoder import TreeDecoder
from mlx_tslm.search.engine import Engine


def both(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """The result of a search that waits, and that of one that does not."""
    results = []
    for waits in (True, False):
        monkeypatch.setattr(causal, "ON_CPU", waits)
        results.append(run(**options))
    return results


@pytest.mark.parametrize("method", ["maxent-ts", "best-of-n", "dts"])
@pytest.mark.parametrize("width", [1, 5, 16])
def test_the_same_is_found(method: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, ahead = both(monkeypatch, method=method, width=width, num_rollouts=40, inverse_temperature=2.0, seed=4)
    assert [one.tokens for one in ahead.completions] == [one.tokens for one in waiting.completions]
    assert ahead.root_value == pytest.approx(waiting.root_value)
    assert ahead.stats.tokens_decoded >= waiting.stats.tokens_decoded
    for one in ahead.completions:
        assert one.logprob == pytest.approx(enumerated()[one.tokens], abs=1e-4)
    again = both(monkeypatch, method=method, width=width, num_rollouts=40, inverse_temperature=2.0, seed=4)[1]
    assert again.tree.to_dict() == ahead.tree.to_dict()  # bit for bit


def test_it_is_exact_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causal, "ON_CPU", False)
    half = run(num_rollouts=50, width=8)
    whole = run(width=8, resume=half)
    assert whole.exhausted
    assert len(whole.completions) == len(enumerated())
    assert max(Exact.of(enumerated(), smooth, 1.0).errors(whole)) < 1e-5


def test_the_host_waits_once_a_token_and_after_the_next_pass_is_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where walkers go apart; as long as some are together, a pass has to know which of them stay so."""
    happened: list[str] = []

    def note(owner: type, name: str) -> None:
        method = getattr(owner, name)

        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            happened.append(name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in ((PipelinedDecoder, "submit"), (TreeDecoder, "flush"), (Engine, "_move")):
        note(owner, name)
    monkeypatch.setattr(causal, "ON_CPU", False)
    run(num_rollouts=4, width=4, max_tokens=40, temperature=8.0, method="best-of-n", seed=1)
    steps = " ".join(happened).replace("submit _move", "ahead").replace("flush _move", "waited").split()
    assert set(steps) == {"ahead", "waited"}
    assert steps.count("waited") <= 3 < steps.count("ahead")


def test_a_row_that_ends_is_dropped_a_step_late_and_its_seat_taken() -> None:
    from test_decoding import PROMPT, Grower
    from tiny import tiny_model

    model = tiny_model("llama")
    grower = Grower(model, PROMPT, seed=7)
    decoder = PipelinedDecoder(model.language_model, model.prefill(PROMPT))
    grower.decoder = decoder
    nodes = grower.step(np.zeros(3, np.int32))

    def go_on(parents: NDArray[np.int32], kept: list[bool]) -> NDArray[np.int32]:
        import mlx.core as mx

        tokens = grower.rng.integers(3, 300, len(parents)).astype(np.int32)
        logits = decoder.ahead(parents.astype(np.int32), mx.array(tokens))
        assert logits.shape[0] == len(parents)
        made = np.full(len(parents), FREE, np.int32)
        for row, stays in enumerate(kept):
            if stays:
                made[row] = len(grower.paths)
                grower.paths.append((*grower.paths[parents[row]], int(tokens[row])))
        decoder.settle(made)
        return made[np.array(kept)]

    first = go_on(nodes, [True, False, True])
    second = go_on(first, [True, True])
    third = go_on(np.array([0, second[1], second[0]]), [True, True, True])  # one more, and in another order
    last = go_on(third[::-1], [True, False, True])
    fourth = grower.step(np.array([nodes[1], last[0], last[1]]))
    assert grower.worst(np.concatenate([nodes, first, second, third, last, fourth])) < 2e-4
