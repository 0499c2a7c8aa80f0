"""The MLX stack computes what OpenTSLM's own code computes.

`data/golden/make.py` made the numbers with the original code; every weight follows from its name (`tiny.py`).
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny

from mlx_tslm import Prompt, Series, stages
from mlx_tslm.conversion import keymap
from mlx_tslm.models import encoder, language_model, projector
from mlx_tslm.models.soft_prompt import SoftPromptModel

TOLERANCE = 1e-4  # on every logit; their standard deviation is 4, and 3e-5 is the largest difference found
EXPECTED = {entry["key"]: entry for entry in json.loads((tiny.GOLDEN / "expected.json").read_text())["expected"]}
STORED = json.loads((tiny.GOLDEN / "prompts.json").read_text())
PROMPTS = STORED["prompts"]


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(tiny.GOLDEN / name) as file:
        return dict(file)


def prompt(case: str) -> Prompt:
    stored = PROMPTS[case]
    texts = enumerate(stored["texts"])
    series = [Series(text, arrays("prompts.npz")[f"{case}/{index}"]) for index, text in texts]
    return Prompt(stored["pre"], series, stored["post"])


@cache
def model(kind: str, lora: int | None, padding: str) -> SoftPromptModel:
    """Adapters of rank 4 stay beside the base weights, those of rank 16 are fused."""
    return tiny.tiny_model(kind, lora, fuse=lora != 4, pad_text_left=padding == "left")


def model_of(entry: dict[str, Any]) -> SoftPromptModel:
    return model(entry["kind"], entry["lora"], entry["padding"])


def difference(model: SoftPromptModel, entry: dict[str, Any]) -> float:
    """The largest difference on any logit: after the prompt, and after each of the forced tokens."""
    logits = np.array(model.score(prompt(entry["case"]), entry["ids"]))
    expected = arrays("expected.npz")[f"{entry['key']}/logits"]
    assert logits.shape == expected.shape
    return float(np.abs(logits - expected).max())


@pytest.mark.parametrize("key", EXPECTED)
def test_logits_equal_the_originals(key: str) -> None:
    assert difference(model_of(EXPECTED[key]), EXPECTED[key]) < TOLERANCE


@pytest.mark.parametrize("key", [key for key in EXPECTED if f"{key}/means" in arrays("expected.npz")])
def test_embeddings_equal_the_originals(key: str) -> None:
    """Sixteen rows whole, and the mean of every row."""
    expected = arrays("expected.npz")
    embeddings = np.array(model_of(EXPECTED[key]).embed(prompt(EXPECTED[key]["case"])))
    assert embeddings.shape[:2] == (1, EXPECTED[key]["length"])
    kept = np.linspace(0, EXPECTED[key]["length"] - 1, 16).astype(int)
    np.testing.assert_allclose(embeddings[0, kept], expected[f"{key}/rows"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(embeddings[0].mean(1), expected[f"{key}/means"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("stage", STORED["rows"])
def test_a_row_makes_the_originals_prompt(stage: str) -> None:
    row = STORED["rows"][stage]
    if stage == "ecg":
        row = row | {"signals": arrays("prompts.npz")["ecg/microvolts"] / 1000}
    made, answer = stages.get(stage).from_row(row)
    expected = prompt(stage)
    assert (made.pre, made.post, answer) == (expected.pre, expected.post, PROMPTS[stage]["answer"])
    assert [one.text for one in made.series] == [one.text for one in expected.series]
    for one, other in zip(made.series, expected.series, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "lora"), [("llama", None), ("llama", 16), ("gemma", 4)])
def test_names_and_layouts_of_a_checkpoint_are_the_originals(kind: str, lora: int | None) -> None:
    """`tiny.checkpoint` was loaded, strictly, by the original code; the key map must make the same of our names."""
    weights = dict(tiny.encoder_weights(tiny.TEXT_CONFIGS[kind]["hidden_size"]))
    if lora:
        weights |= {f"language_model.{name}": value for name, value in tiny.lora_weights(kind, lora).items()}
    expected = tiny.checkpoint(kind, lora)
    for state, part in zip(
        keymap.to_torch(weights), ("encoder_state", "projector_state", "lora_state"), strict=True
    ):
        assert set(state) == set(expected.get(part, {}))
        for name, value in state.items():
            np.testing.assert_array_equal(value, expected[part][name])


@pytest.mark.parametrize("key", [key for key in EXPECTED if "loss" in EXPECTED[key]])
def test_the_loss_of_an_answer_equals_the_originals(key: str) -> None:
    """Mean negative log-likelihood of the answer's tokens, its BOS and EOS among them."""
    entry = EXPECTED[key]
    tuned = model_of(entry)
    ids = tuned.tokenizer.encode(entry["answer"])
    logits = tuned.score(prompt(entry["case"]), ids[:-1])
    assert float(nn.losses.cross_entropy(logits, mx.array(ids), reduction="mean")) == pytest.approx(
        entry["loss"], abs=1e-5
    )


# Each mistake that a port can make must show. The comments in MISTAKES are the largest change on any logit.

Patch = Callable[[pytest.MonkeyPatch], None]


def bos_once(patch: pytest.MonkeyPatch) -> None:
    tokenize = SoftPromptModel.tokenize
    patch.setattr(
        SoftPromptModel,
        "tokenize",
        lambda self, prompt: [ids[bool(n) :] for n, ids in enumerate(tokenize(self, prompt))],
    )


def stripped_texts(patch: pytest.MonkeyPatch) -> None:
    tokenize = SoftPromptModel.tokenize

    def strip(self: SoftPromptModel, prompt: Prompt) -> list[list[int]]:
        series = [Series(one.text.strip(), one.values) for one in prompt.series]
        return tokenize(self, Prompt(prompt.pre, series, prompt.post))

    patch.setattr(SoftPromptModel, "tokenize", strip)


def padded_alone(patch: pytest.MonkeyPatch) -> None:
    embed_series = SoftPromptModel.embed_series
    patch.setattr(
        SoftPromptModel,
        "embed_series",
        lambda self, series: [embed_series(self, [one])[0] for one in series],
    )


def series_scaled(patch: pytest.MonkeyPatch) -> None:
    embed_series = SoftPromptModel.embed_series
    patch.setattr(SoftPromptModel, "embed_series", lambda self, series: embed_series(self, series) * 8.5)


def rounded_embeddings(patch: pytest.MonkeyPatch) -> None:
    feed = SoftPromptModel.feed

    def rounded(self: SoftPromptModel, prompt: Prompt) -> Any:
        fed = feed(self, prompt)
        return replace(fed, embeddings=fed.embeddings.astype(mx.bfloat16).astype(mx.float32))

    patch.setattr(SoftPromptModel, "feed", rounded)


def pre_norm(patch: pytest.MonkeyPatch) -> None:
    def call(self: encoder.EncoderLayer, x: mx.array, mask: None = None) -> mx.array:
        x = x + self.self_attn(self.norm1(x))
        return x + self.linear2(nn.gelu(self.linear1(self.norm2(x))))

    patch.setattr(encoder.EncoderLayer, "__call__", call)


def no_positions(patch: pytest.MonkeyPatch) -> None:
    call = encoder.TimeSeriesEncoder.__call__

    def without(self: encoder.TimeSeriesEncoder, series: mx.array) -> mx.array:
        positions, self.pos_embed = self.pos_embed, mx.zeros_like(self.pos_embed)
        found = call(self, series)
        self.pos_embed = positions
        return found

    patch.setattr(encoder.TimeSeriesEncoder, "__call__", without)


def tanh_gelu_in_encoder(patch: pytest.MonkeyPatch) -> None:
    def call(self: encoder.EncoderLayer, x: mx.array, mask: None = None) -> mx.array:
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.linear2(nn.gelu_approx(self.linear1(x))))

    patch.setattr(encoder.EncoderLayer, "__call__", call)


def tanh_gelu_in_projector(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(projector.MLPProjector, "__call__", lambda self, x: nn.gelu_approx(self.linear(self.norm(x))))


def scale_unrounded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(language_model, "embedding_scale", lambda model: model.args.hidden_size**0.5)


def no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(language_model, "windows", lambda model: [None] * len(model.layers))


def wider_window(patch: pytest.MonkeyPatch) -> None:
    windows = language_model.windows
    patch.setattr(language_model, "windows", lambda model: [span and span + 1 for span in windows(model)])


def config(kind: str, **changes: Any) -> Patch:
    return lambda patch: patch.setitem(tiny.TEXT_CONFIGS, kind, tiny.TEXT_CONFIGS[kind] | changes)


def no_lora_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(tiny.LORA_ALPHA, 16, 16.0)


MISTAKES: dict[str, tuple[Patch, str]] = {
    "one BOS only": (bos_once, "llama-base-right/unequal"),  # 4.9
    "texts of series stripped": (stripped_texts, "llama-base-right/unequal"),  # 2.9
    "series padded each on its own": (padded_alone, "llama-base-right/unequal"),  # 5.1
    "pre-norm encoder": (pre_norm, "llama-base-right/tsqa"),  # 10
    "no positions in the encoder": (no_positions, "llama-base-right/tsqa"),  # 2.2
    "tanh GELU in the encoder": (tanh_gelu_in_encoder, "llama-base-right/tsqa"),  # 0.0027
    "tanh GELU in the projector": (tanh_gelu_in_projector, "llama-base-right/tsqa"),  # 0.0020
    "embeddings rounded": (rounded_embeddings, "llama-base-right/tsqa"),  # 0.0069
    "no rope scaling": (config("llama", rope_scaling=None), "llama-base-right/tsqa"),  # 14
    "LoRA not scaled": (no_lora_scale, "llama-16-right/tsqa"),  # 11
    "Gemma: scale not rounded": (scale_unrounded, "gemma-base-right/tsqa"),  # 0.026
    "Gemma: series scaled too": (series_scaled, "gemma-base-right/tsqa"),  # 4.7
    "Gemma: all layers global": (no_window, "gemma-base-right/tsqa"),  # 8.7
    "Gemma: window off by one": (wider_window, "gemma-base-right/tsqa"),  # 1.0
    "Gemma: attention scaled by head size": (
        config("gemma", query_pre_attn_scalar=16),
        "gemma-base-right/tsqa",
    ),  # 1.3
    "Gemma: one rope base": (config("gemma", rope_local_base_freq=1000000.0), "gemma-base-right/tsqa"),  # 3.1
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_show(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, key = MISTAKES[mistake]
    apply(monkeypatch)
    entry = EXPECTED[key]
    size = difference(tiny.tiny_model(entry["kind"], entry["lora"]), entry)
    print(f"{mistake}: {size:.2g}")
    assert size > 10 * TOLERANCE
