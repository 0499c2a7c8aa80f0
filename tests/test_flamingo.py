"""The Flamingo variant computes what OpenTSLM's and open-flamingo's own code computes, in every way of decoding.

`data/golden/make_flamingo.py` made the numbers with the original code; every weight follows from its name
(`tiny_flamingo.py`).
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
import tiny_flamingo
from test_golden import prompt

from mlx_tslm import Prompt, Series, generate, tree_search
from mlx_tslm.models import gated_block, language_model, perceiver
from mlx_tslm.models.flamingo import FlamingoModel
from mlx_tslm.models.row_decoder import generate_batch

TOLERANCE = 1e-4  # on every logit; their standard deviation is 4
EXPECTED = {one["key"]: one for one in json.loads((tiny.GOLDEN / "flamingo.json").read_text())["expected"]}


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(tiny.GOLDEN / "flamingo.npz") as file:
        return dict(file)


@cache
def model(kind: str) -> FlamingoModel:
    return tiny_flamingo.tiny_model(kind)


def difference(model: FlamingoModel, key: str) -> float:
    entry = EXPECTED[key]
    logits = np.array(model.score(prompt(entry["case"]), entry["forced"]))
    expected = arrays()[f"{key}/logits"]
    assert logits.shape == expected.shape
    return float(np.abs(logits - expected).max())


@pytest.mark.parametrize("key", EXPECTED)
def test_logits_equal_the_originals(key: str) -> None:
    entry = EXPECTED[key]
    tuned = model(entry["kind"])
    assert tuned.tokenize(prompt(entry["case"])) == [entry["ids"]]
    assert tuned.count_positions(prompt(entry["case"])) == len(entry["ids"])
    latents = np.array(tuned.embed_series(prompt(entry["case"]).series))[0, ::16]
    np.testing.assert_allclose(latents, arrays()[f"{key}/latents"], rtol=0, atol=2e-5)
    assert difference(tuned, key) < TOLERANCE


# Each mistake that a port can make must show. The comments in MISTAKES are the largest change on any logit.

Patch = Callable[[pytest.MonkeyPatch], None]


def always_attends(patch: pytest.MonkeyPatch) -> None:
    call = gated_block.CrossAttention.__call__
    patch.setattr(
        gated_block.CrossAttention,
        "__call__",
        lambda self, x, view, times: call(self, x, view, np.minimum(times, 1)),
    )


def sees_before_the_first(patch: pytest.MonkeyPatch) -> None:
    call = gated_block.CrossAttention.__call__
    patch.setattr(
        gated_block.CrossAttention,
        "__call__",
        lambda self, x, view, times: call(self, x, view, np.maximum(times, 1)),
    )


def ungated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gated_block.mx, "tanh", lambda gate: gate)


def each_series_alone(patch: pytest.MonkeyPatch) -> None:
    embed = FlamingoModel.embed_series
    patch.setattr(FlamingoModel, "embed_series", lambda self, series: embed(self, series[:1]))


def tanh_gelu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(perceiver, "gelu", nn.gelu_approx)


def rounded_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(language_model, "embedding_scale", lambda model: 8.5)


MISTAKES: dict[str, tuple[Patch, str]] = {
    "the second series' text attends": (always_attends, "llama/unequal"),  # 2.4
    "text before the first series attends": (sees_before_the_first, "llama/tsqa"),  # 4.4
    "gates without tanh": (ungated, "llama/tsqa"),  # 1.9
    "only the first series": (each_series_alone, "llama/unequal"),  # 4.4
    "tanh GELU": (tanh_gelu, "llama/tsqa"),  # 0.0022
    "Gemma: scale rounded": (rounded_scale, "gemma/tsqa"),  # 0.033
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_show(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, key = MISTAKES[mistake]
    apply(monkeypatch)
    size = difference(model(EXPECTED[key]["kind"]), key)
    print(f"{mistake}: {size:.2g}")
    assert size > 10 * TOLERANCE


# Decoding: every way of it sees the latents as one long forward pass does.


@pytest.mark.parametrize("key", [key for key, one in EXPECTED.items() if one["case"] in ("tsqa", "unequal", "ecg")])
def test_greedy_tokens_are_those_of_the_originals_cached_decoding(key: str) -> None:
    entry = EXPECTED[key]
    tuned = model(entry["kind"])
    logits, advance = tuned.follow(tuned.prefill(prompt(entry["case"])))
    tokens = []
    for _ in entry["greedy"]:
        tokens.append(int(mx.argmax(logits)))
        logits = advance(mx.array(tokens[-1:]))
    assert tokens == entry["greedy"]


@pytest.mark.parametrize("case", ["empty_pre", "unequal", "no_series"])
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_tree_sees_what_a_forward_pass_sees(kind: str, case: str) -> None:
    """Two branches behind one prompt: at each node the logits are those of its whole path."""
    tuned, asked = model(kind), prompt(case)
    decoder = tuned.decoder(tuned.prefill(asked))
    paths = {0: []}
    for nodes, parents in (([1, 2], [0, 0]), ([3, 4], [2, 1]), ([5], [1])):
        tokens = [7 + 3 * node for node in nodes]
        decoder.step(*(np.array(part, np.int32) for part in (nodes, parents, tokens)))
        for node, parent, token in zip(nodes, parents, tokens, strict=True):
            paths[node] = [*paths[parent], token]
    found = np.array(decoder.logits(np.arange(6)))
    for node, path in paths.items():
        np.testing.assert_allclose(found[node], np.array(tuned.score(asked, path))[-1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_rows_of_different_prompts_are_answered_as_alone(kind: str) -> None:
    """No series, one, and several in one batch: each row sees its own latents, in its own way."""
    tuned = model(kind)
    asked = [prompt(case) for case in ("no_series", "tsqa", "unequal", "empty_pre", "har")]
    alone = [generate(tuned, question, max_tokens=6) for question in asked]
    together = {one.index: one.completion.text for one in generate_batch(tuned, asked, width=3, max_tokens=6)}
    assert [together[index].strip() for index in range(len(asked))] == [text.strip() for text in alone]


def test_a_search_reads_the_series_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One perceiver pass, and each block's keys and values once, however many rollouts."""
    calls: list[str] = []
    run, view = perceiver.PerceiverResampler.__call__, gated_block.CrossAttention.view

    def counted_run(self: Any, *args: Any, **kwargs: Any) -> mx.array:
        calls.append("perceiver")
        return run(self, *args, **kwargs)

    def counted_view(self: Any, latents: mx.array) -> gated_block.View:
        calls.append("view")
        return view(self, latents)

    monkeypatch.setattr(perceiver.PerceiverResampler, "__call__", counted_run)
    monkeypatch.setattr(gated_block.CrossAttention, "view", counted_view)
    tuned = model("llama")
    asked = prompt("ecg")
    result = tree_search(
        tuned, asked, reward=lambda found: [0.0] * len(found), num_rollouts=8, width=4, max_tokens=8, top_p=1.0
    )
    assert calls.count("perceiver") == 1 and calls.count("view") == len(tuned.gated_blocks)
    assert result.stats.prompt_tokens == tuned.count_positions(asked)
    best = result.completions[0]
    ids, logits = best.tokens, np.array(tuned.score(asked, best.tokens[:-1]))
    logp = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert sum(logp[i, token] for i, token in enumerate(ids)) == pytest.approx(best.logprob, abs=1e-3)


def test_positions_do_not_grow_with_the_recording() -> None:
    tuned = model("llama")
    short, long = (Prompt("A", [Series("text", np.zeros(n))], "B") for n in (8, 4000))
    assert tuned.count_positions(short) == tuned.count_positions(long) == tuned.prefill(long).length
