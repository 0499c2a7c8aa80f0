"""Training a Flamingo model: the original's loss, what is trained, and the checkpoint that comes of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
import tiny_flamingo
from test_flamingo import EXPECTED, model
from test_golden import prompt

import mlx_tslm
from mlx_tslm import Prompt, Series, TSLMError, conversion
from mlx_tslm.conversion import flamingo
from mlx_tslm.conversion.pt import reader
from mlx_tslm.models.cpu.elementwise import differentiable
from mlx_tslm.training import loss as losses
from mlx_tslm.training.batches import Example, collate, example
from mlx_tslm.training.config import Curriculum, StageConfig, load
from mlx_tslm.training.run import train
from mlx_tslm.training.start import flat, prepare, start

STAGE = StageConfig("stage1", {"stage1": 4}, epochs=1, batch_size=2, validation_samples=2)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Steps are few here: compiling takes longer than it saves."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def mean_losses(examples: list[Example], kind: str, checkpoint: bool = False) -> np.ndarray:
    batch = collate(examples)
    sums = losses.token_losses(model(kind), batch, checkpoint).sum(axis=1)
    return np.array(sums / batch.weights.sum(axis=1))


@pytest.mark.parametrize("checkpoint", (False, True))
@pytest.mark.parametrize("key", [key for key, entry in EXPECTED.items() if "loss" in entry])
def test_the_loss_of_one_sample_is_the_originals(key: str, checkpoint: bool) -> None:
    """Mean over the answer with its EOS, and over the prompt's last token."""
    entry = EXPECTED[key]
    one = example(model(entry["kind"]), prompt(entry["case"]), entry["answer"])
    assert one.pieces[0] == entry["ids"][:-1] and one.length == len(entry["ids"]) + len(one.answer) - 1
    assert mean_losses([one], entry["kind"], checkpoint)[0] == pytest.approx(entry["loss"], abs=2e-5)


@pytest.mark.parametrize("checkpoint", (False, True))
@pytest.mark.parametrize("kind", ("llama", "gemma"))
def test_a_samples_loss_does_not_depend_on_its_batch_mates(kind: str, checkpoint: bool) -> None:
    """Samples with one, three and no series, of different lengths."""
    rng = np.random.default_rng(0)

    def series(count: int, length: int) -> tuple[Series, ...]:
        return tuple(Series(f"s{i}:", rng.standard_normal(length).astype(np.float32)) for i in range(count))

    prompts = [Prompt("a", series(1, 61), "bc"), Prompt("", series(3, 17), ""), Prompt("p", (), "no series")]
    answers = ("yes", "a longer answer", "x")
    examples = [example(model(kind), one, answer) for one, answer in zip(prompts, answers, strict=True)]
    together = mean_losses(examples, kind, checkpoint)
    alone = [mean_losses([one], kind)[0] for one in examples]
    np.testing.assert_allclose(together, alone, atol=2e-5)


@pytest.mark.parametrize("checkpoint", (False, True))
@pytest.mark.parametrize(
    "name",
    (
        "encoder.patch_embed.weight",
        "perceiver.latents",
        "perceiver.layers.2.attention.to_kv.weight",
        "gated_blocks.1.attention_gate",
        "gated_blocks.0.feed_forward.linear1.weight",
        "language_model.model.embed_tokens.weight",
    ),
)
def test_gradients_are_slopes(name: str, checkpoint: bool) -> None:
    """Along a random direction, against a difference of losses."""
    tuned = tiny_flamingo.tiny_model("llama", max_patches=64)
    asked = Prompt("a", (Series("s:", np.sin(np.arange(61))),), "bc")
    batch = collate([example(tuned, asked, "a longer answer")])
    weights = flat(tuned.parameters())
    direction = mx.random.normal(weights[name].shape, key=mx.random.key(3)) * 1e-3

    def value(array: mx.array) -> mx.array:
        tuned.load_weights([(name, array)], strict=False)
        return losses.token_losses(tuned, batch, checkpoint).sum()

    with differentiable():  # what is checkpointed is computed again here
        slope = float((mx.grad(value)(weights[name]) * direction).sum())
    found = float(value(weights[name] + direction) - value(weights[name] - direction)) / 2
    assert slope == pytest.approx(found, rel=0.03, abs=2e-3)


def test_what_the_original_unfreezes_is_what_trains() -> None:
    tuned = tiny_flamingo.tiny_model("llama", max_patches=64)
    prepare(tuned, StageConfig("stage1"))
    trained = {name.partition(".")[0] for name in flat(tuned.trainable_parameters())}
    assert trained == {"encoder", "perceiver", "gated_blocks", "language_model"}
    llm = [name for name in flat(tuned.trainable_parameters()) if name.startswith("language_model.")]
    assert llm == ["language_model.model.embed_tokens.weight"]
    with pytest.raises(TSLMError, match="no adapters"):
        prepare(tuned, StageConfig("stage1", lora=True))


def test_a_state_has_the_originals_names_and_layouts() -> None:
    """`tiny_flamingo.original_state` was loaded, strictly, by the original code."""
    state = flamingo.to_torch(tiny_flamingo.weights("gemma"))
    expected = tiny_flamingo.original_state("gemma")
    assert set(state) == {f"{prefix}.{name}" for prefix in ("model", "llm") for name in expected}
    for name, value in expected.items():
        np.testing.assert_array_equal(state[f"model.{name}"], value)
    with pytest.raises(TSLMError, match="no place"):
        flamingo.to_torch({"projector.norm.weight": np.ones(3), **tiny_flamingo.weights("gemma")})


@pytest.mark.parametrize("fresh", (True, False))
def test_a_trained_stage_is_a_folder_and_a_checkpoint(tmp_path: Path, fresh: bool) -> None:
    """From a base LLM and from a converted model; the `.pt` that is written converts back to the same model."""
    base = tiny.write_base("llama", tmp_path / "base")
    source = base
    if not fresh:
        curriculum = Curriculum(str(base), (STAGE,), "synthetic", max_patches=64, variant="flamingo")
        train(curriculum, tmp_path / "first")
        source = tmp_path / "first/stage1/model"
    curriculum = Curriculum(
        str(source), (STAGE,), "synthetic", max_patches=64, variant="flamingo", dtype="float32", seed=1
    )
    before = flat(start(curriculum).parameters())
    (done,) = train(curriculum, tmp_path / "run")
    assert np.isfinite(done.progress.best)
    folder = done.folder
    trained = mlx_tslm.load(folder / "model")
    after = flat(trained.parameters())
    moved = {name for name in after if not np.array_equal(after[name].astype(mx.float32), before[name])}
    assert "perceiver.latents" in moved and "language_model.model.embed_tokens.weight" in moved
    assert not any("self_attn" in name or ".mlp." in name for name in moved)

    stored = reader.read(folder / "model_checkpoint.pt")
    assert stored["epoch"] == 1 and len({id(t.storage) for t in stored["model_state"].values()}) < 140
    out = tmp_path / "again"
    conversion.convert(folder / "model_checkpoint.pt", out, llm=str(base if fresh else folder / "base"))
    again = mlx_tslm.load(out)
    asked = Prompt("a", (Series("s:", np.sin(np.arange(61))),), "bc")
    assert again.tokenize(asked) == trained.tokenize(asked)
    np.testing.assert_allclose(again.score(asked, [5]), trained.score(asked, [5]), atol=1e-5 if fresh else 0.2)
    assert json.loads((folder / "model/config.json").read_text())["stage"] == "stage1"


def test_the_curriculum_that_comes_with_the_package() -> None:
    curriculum = load("flamingo")
    assert curriculum.variant == "flamingo" and [one.name for one in curriculum.stages] == [
        f"stage{n}" for n in range(1, 6)
    ]
    assert all((one.lr_encoder, one.lr_cross, one.weight_decay) == (2e-4, 2e-4, 0.1) for one in curriculum.stages)
    with pytest.raises(TSLMError, match="variant = 'other'"):
        load("flamingo", variant="other")
