"""What a decode step asks of a GPU, counted on any machine: kernels, and how often the host waits."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from test_decoding import PROMPT, Grower
from tiny import tiny_model

from mlx_tslm.models import branch
from mlx_tslm.sampling import Sampling

pytestmark = pytest.mark.skipif(branch.ON_CPU, reason="counts what a GPU runs: pytest --gpu-branch")

VIEWS = {"Reshape", "Transpose", "Broadcast", "Slice", "ExpandDims", "Squeeze", "Flatten", "Unflatten", "Split"}


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One kernel where Metal has one: MLX takes its fused norms and RoPE apart where it computes on a CPU."""
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, weight, eps: x * weight)
    monkeypatch.setattr(mx.fast, "rope", lambda x, *_, **__: mx.negative(x))
    mx.enable_compile()
    yield
    mx.disable_compile()


def kernels(*outputs: mx.array) -> Counter[str]:
    """The primitives that outputs are made by, views left out; nothing is evaluated."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *outputs)
    names = re.findall(r'label ="([^"]+)", shape=rectangle', graph.getvalue())
    return Counter(name for name in names if name not in VIEWS)


def a_step(kind: str, layers: int, sampling: Sampling) -> Counter[str]:
    """Of a decode step of four rows that go on, drawing included."""
    mx.disable_compile()
    model = tiny_model(kind)
    model.language_model.model.layers = model.language_model.model.layers[:layers]
    grower = Grower(model, PROMPT, seed=0)
    nodes = grower.step(np.zeros(4, np.int32))
    for _ in range(2):
        nodes = grower.step(nodes)
        grower.decoder.flush(grower.decoder.logits(nodes))
    mx.enable_compile()
    nodes = grower.step(nodes)
    return kernels(*sampling.draw_with_entropy(grower.decoder.logits(nodes), np.zeros(4)))


@pytest.mark.parametrize(("kind", "most"), [("llama", 23), ("gemma", 35)])
def test_kernels_of_a_layer_and_of_the_rest(kind: str, most: int) -> None:
    """A Llama of 16 layers took 744, and mlx-lm takes 292 without a tree. Not seen: the copy that folds queries."""
    one, two = (a_step(kind, layers, Sampling()) for layers in (1, 2))
    layer = two - one
    assert layer.total() <= most, layer
    assert (one - layer).total() <= (17 if kind == "llama" else 19), one - layer
    assert one.total() + 15 * layer.total() <= (385 if kind == "llama" else 579)
    attention = ("AddMM", "Concatenate", "Softmax")
    assert [layer[name] for name in attention] == [2, 1, 1]


def test_a_batch_waits_for_nothing_but_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for the prompts: however many tokens follow, MLX is told to evaluate equally often."""
    from mlx_tslm.models.row_decoder import Batch, generate_batch

    mx.disable_compile()
    monkeypatch.undo()
    model, waits, evaluate, step = tiny_model("llama"), 0, mx.eval, Batch.step

    def spy(*arrays: Any) -> None:
        nonlocal waits
        waits += 1
        evaluate(*arrays)

    monkeypatch.setattr(mx, "eval", spy)
    counts, steps = [], []
    for tokens in (3, 9):
        waits, passes = 0, 0

        def counted(batch: Batch, tokens: mx.array) -> None:
            nonlocal passes
            passes += 1
            step(batch, tokens)

        monkeypatch.setattr(Batch, "step", counted)
        assert len(list(generate_batch(model, [PROMPT] * 2, 2, tokens, temperature=5.0, seeds=[1, 2]))) == 2
        counts.append(waits)
        steps.append(passes)
    assert steps == [2, 8]
    assert counts[0] == counts[1]


def test_drawing_is_fused() -> None:
    logits: Any = mx.zeros((4, 100))
    mx.eval(logits)
    for sampling, most in ((Sampling(), 14), (Sampling(0.7, top_p=0.95), 23)):
        found = kernels(*sampling.draw_with_entropy(logits, np.zeros(4)))
        assert found.total() <= most, found
