"""Numbers at their ends: options, damaged weights, dtypes that overflow or hardly learn, texts that are none."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import STAGE, curriculum

import mlx_tslm
from mlx_tslm import conversion, data, signals
from mlx_tslm.cli import main
from mlx_tslm.errors import TSLMError, brief
from mlx_tslm.generation import generate
from mlx_tslm.models.row_decoder import generate_batch
from mlx_tslm.models.weights import read_weights
from mlx_tslm.sampling import Sampling
from mlx_tslm.search import SearchConfig, tree_search
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt
from mlx_tslm.training import run as runs
from mlx_tslm.training.start import flat, prepare, start

PROMPT = Prompt("a", (Series("b", np.arange(30, dtype=np.float32)),), "c")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_base("llama", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("model")
    tiny.write_checkpoint("llama", home / "a.pt", max_patches=64)
    return conversion.convert(home / "a.pt", home / "model", llm=str(base), dtype="float32").path


# ---- sampling ----

ENDS = st.sampled_from([0.0, 5e-324, 1e-46, 1e-45, 1e-38, 1.2e-38, 1e-30, 1.0, 1e30, 3.4e38, 1e39, 1e308])


@settings(max_examples=200, deadline=None)
@given(
    ENDS, st.sampled_from([None, 1, 3]), st.sampled_from([None, 5e-324, 1e-46, 1e-38, 0.5, 1.0]), st.integers(0, 9)
)
def test_every_temperature_and_cut_gives_a_distribution(
    temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, (2, 9)).astype(np.float32)
    logits[:, 4] = -np.inf  # an id that is no token
    sampling = Sampling(temperature, top_k, top_p)
    p = np.exp(np.array(sampling.log_probs(mx.array(logits)), np.float64))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (p[:, 4] == 0).all()
    tokens, logp, entropy = (
        np.array(each) for each in sampling.draw_with_entropy(mx.array(logits), np.array([0.0, 0.999]))
    )
    assert (p[[0, 1], tokens] > 0).all() and np.isfinite(logp).all() and np.isfinite(entropy).all()
    if temperature < 1e-20 or (top_p is not None and top_p < 1e-20 and temperature <= 1):
        assert tokens.tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("temperature", (0.0, 1e-46, 1.0))
@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_logits_that_are_no_numbers_are_no_distribution(temperature: float, value: float) -> None:
    """Greedy once gave token 0 and log p = 0."""
    logits = mx.array([[0.0, value, 1.0]])
    assert np.isnan(np.array(Sampling(temperature).draw(logits, np.array([0.5]))[1])).all()


@pytest.mark.parametrize("seed", (-1, 2**64, 10**40, 0.5))
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    model = tiny.tiny_model("llama", max_patches=64)
    for refuses in (
        lambda: SearchConfig(seed=seed),
        lambda: generate(model, PROMPT, 2, seed=seed),
        lambda: data.load("stage1", source="synthetic", seed=seed),
    ):
        with pytest.raises(TSLMError, match=r"seed is .*whole number"):
            refuses()
    assert generate(model, PROMPT, 2, temperature=1.0, seed=2**64 - 1)


# ---- weights and logits ----


def with_weight(folder: Path, target: Path, name: str, value: float) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        if not file.name.startswith("model"):
            (target / file.name).write_bytes(file.read_bytes())
    weights = read_weights(folder)
    weights[name] = mx.full(weights[name].shape, value, weights[name].dtype)
    mx.save_safetensors(str(target / "model.safetensors"), weights, {"format": "mlx"})
    return target


@pytest.mark.parametrize("value", (np.nan, np.inf))
@pytest.mark.parametrize(
    "name",
    (
        "encoder.pos_embed",
        "projector.linear.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.1.mlp.up_proj.weight",
        "language_model.model.norm.weight",
    ),
)
def test_a_weight_that_is_no_number_is_named(
    folder: Path, tmp_path: Path, name: str, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = with_weight(folder, tmp_path / "broken", name, value)
    series = tmp_path / "a.npy"
    np.save(series, np.arange(40.0))
    for command in ("generate", "search"):
        arguments = [
            command,
            "--model",
            str(broken),
            "--series",
            str(series),
            "--stage",
            "stage2",
            "--max-tokens",
            "2",
        ]
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert f"{name} holds" in said and "NaN or infinite" in said and "Traceback" not in said


def test_the_layer_where_states_overflow_is_named(folder: Path) -> None:
    model = mlx_tslm.load(folder)
    layer = model.language_model.layers[1]
    layer.mlp.down_proj.weight = mx.full(layer.mlp.down_proj.weight.shape, 3e38)
    with pytest.raises(TSLMError, match="infinite from layer 1 on, though its weights are finite: they overflow"):
        generate(model, PROMPT, 2)


def test_logits_that_go_astray_in_an_answer_are_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding of the token that is drawn is damaged; the prompt does not have it."""
    model = mlx_tslm.load(folder)
    table, prompt = (
        model.language_model.model.embed_tokens,
        {one for piece in model.tokenize(PROMPT) for one in piece},
    )
    token = next(number for number in range(20, 384) if number not in prompt)
    favoured = mx.array(np.eye(384, dtype=np.float32)[token] * 9)
    monkeypatch.setattr(type(table), "as_linear", lambda self, h: favoured + h.sum(axis=-1, keepdims=True) * 0)
    damaged = np.array(table.weight)
    damaged[token, 0] = np.nan
    table.weight = mx.array(damaged)
    for answers in (lambda: generate(model, PROMPT, 4), lambda: list(generate_batch(model, [PROMPT], 1, 4))):
        with pytest.raises(TSLMError, match=r"after 1 tokens of (the|an) answer.*embed_tokens.weight holds 1 NaN"):
            answers()
    with pytest.raises(TSLMError, match="NaN after answer tokens"):
        tree_search(model, PROMPT, num_rollouts=1, width=1, max_tokens=4, method="greedy")


# ---- training ----


@pytest.mark.parametrize("dtype", (None, "bfloat16", "float16"))
def test_what_is_trained_is_float32_whatever_the_base_is_stored_in(base: Path, dtype: str | None) -> None:
    stage = replace(STAGE, name="words", lora=False, lr_llm=1e-5, lr_encoder=0.0, lr_projector=0.0)
    model = start(curriculum(base, stage, dtype=dtype))
    prepare(model, stage)
    trained = flat(model.trainable_parameters())
    assert trained and {array.dtype for array in trained.values()} == {mx.float32}
    frozen = start(curriculum(base, replace(STAGE, lora=False), dtype=dtype))
    assert frozen.dtype == getattr(mx, dtype or "bfloat16")


def test_a_bfloat16_base_learns_as_a_float32_one(base: Path, tmp_path: Path) -> None:
    """With weights kept in bfloat16 its loss hardly fell: a step below half their grain was lost."""
    stage = replace(
        STAGE,
        name="words",
        epochs=3,
        lora=False,
        lr_llm=3e-4,
        lr_encoder=0.0,
        lr_projector=0.0,
        samples={"stage1": 16},
    )
    best = {}
    for dtype in ("float32", None):  # None: as the base is stored, in bfloat16
        (trained,) = runs.train(curriculum(base, stage, dtype=dtype), tmp_path / str(dtype))
        best[dtype] = trained.progress.best
        saved = mx.load(str(trained.folder / "model" / "model.safetensors"))
        assert saved["language_model.model.norm.weight"].dtype == mx.bfloat16
    assert best[None] == pytest.approx(best["float32"], rel=1e-3)


# ---- texts and messages ----


@pytest.mark.parametrize("field", ("pre", "post", "series"))
def test_a_prompt_that_is_no_text_is_refused(field: str) -> None:
    model = tiny.tiny_model("llama", max_patches=64)
    bad = os.fsdecode(b"caf\xe9")
    changed = (
        replace(PROMPT, series=(Series(bad, PROMPT.series[0].values),))
        if field == "series"
        else replace(PROMPT, **{field: bad})
    )
    with pytest.raises(TSLMError, match="no UTF-8 text"):
        generate(model, changed, 2)


def test_a_file_whose_name_is_no_text_is_read_and_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.npy")
    np.save(file, np.arange(40.0))
    asked = ["--model", str(folder), "--series", str(file), "--stage", "stage2", "--max-tokens", "2"]
    assert main(["generate", *asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recordings"]
    asked[2:4] = ["--batch", str(tmp_path)]
    assert main(["search", *asked, "--num-rollouts", "2", "--json", str(tmp_path / "found.jsonl")]) == 0
    assert "caf" in json.loads((tmp_path / "found.jsonl").read_text())["series"]


@pytest.mark.parametrize("rate", (1e9, 1e300))
@pytest.mark.parametrize("own", (1.0, 1e-300))
def test_a_rate_at_which_samples_are_made_up_is_refused(rate: float, own: float) -> None:
    recording = signals.Recording(np.arange(50.0)[None], ("a",), own)
    with pytest.raises(TSLMError, match="choose a lower --rate"):
        signals.resample(recording, rate)


def test_a_table_of_twenty_thousand_channels_is_read_and_its_errors_are_short(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = [f"channel{number}" for number in range(20_000)]
    path.write_text("\n".join([",".join(names), *[",".join(["1"] * 20_000)] * 3]) + "\n")
    assert len(signals.read(path).names) == 20_000
    with pytest.raises(TSLMError, match="no channel 'nope'") as caught:
        signals.read(path, ["nope"])
    assert len(str(caught.value)) < 1100


@given(st.text(max_size=3000))
def test_a_long_message_keeps_its_beginning_and_its_end(text: str) -> None:
    short = brief(text)
    assert len(short) < 1010 and (short == text if len(text) <= 1000 else short[:700] == text[:700])
    assert short[-300:] == text[-300:]
