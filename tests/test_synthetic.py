"""The synthetic curriculum: its words are true, what is held out stays out, and training agrees with running."""

import contextlib
import itertools
import json
import math
from collections import Counter
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import stages
from mlx_tslm.data import synthetic, synthetic_text
from mlx_tslm.data.tokenizer import BOS, EOS, train_tokenizer
from mlx_tslm.models.config import EncoderConfig, ModelConfig
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.training import fast_math, forward
from mlx_tslm.training.batches import collate
from mlx_tslm.training.run import Run

seeds = st.integers(0, 2**32 - 1)


def many(stage: str, split: synthetic.Split, count: int, **options: object) -> list[dict]:
    return list(itertools.islice(synthetic.rows(stage, split, **options), count))


def combination(row: dict) -> tuple[str, int | None, str]:
    return row["traits"].trend, row["traits"].period, row["traits"].noise


def test_rows_repeat_with_their_seed() -> None:
    for stage in ("stage1", "stage2"):
        assert many(stage, "train", 5, seed=3) == many(stage, "train", 5, seed=3)
        assert many(stage, "train", 5, seed=3) != many(stage, "train", 5, seed=4)


def test_held_out_combinations_are_only_in_the_test_split() -> None:
    for stage in ("stage1", "stage2"):
        for split in ("train", "validation"):
            assert not {combination(row) for row in many(stage, split, 400)} & synthetic.HELD_OUT
        assert {combination(row) for row in many(stage, "test", 200)} <= synthetic.HELD_OUT


def test_every_single_value_of_the_held_out_combinations_occurs_in_training() -> None:
    kept = set(itertools.product(synthetic.TRENDS, (None, *synthetic.PERIODS), synthetic.NOISES))
    kept -= synthetic.HELD_OUT
    for position in range(3):
        assert {c[position] for c in synthetic.HELD_OUT} <= {c[position] for c in kept}


@given(seeds, st.sampled_from(synthetic.SWINGS), st.sampled_from(synthetic.PERIODS), st.sampled_from((0, 1)))
@settings(max_examples=40, deadline=None)
def test_the_period_and_the_trend_are_in_the_series(seed: int, swings: str, period: int, down: int) -> None:
    trend = ("upward steady", "downward steady")[down]
    traits = synthetic.Traits(240, trend, period, swings, "low", "none")
    values, _ = synthetic.render(traits, np.random.default_rng(seed))
    t = np.arange(240)
    slope, level = np.polyfit(t, values, 1)
    assert (slope < 0) == bool(down)
    rest = values - slope * t - level
    match = {p: np.corrcoef(rest[:-p], rest[p:])[0, 1] for p in synthetic.PERIODS}
    best = max(match, key=lambda p: match[p])
    assert best % period == 0  # a multiple of the period matches as well as the period itself
    assert match[period] > 0.6


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_growing_swings_grow(seed: int) -> None:
    values, _ = synthetic.render(
        synthetic.Traits(144, "none", 12, "growing", "low", "none"), np.random.default_rng(seed)
    )
    assert values[96:].std() > 1.2 * values[:48].std()


@given(seeds, st.sampled_from(("spike", "dip")))
@settings(max_examples=40, deadline=None)
def test_an_outlier_stands_out_where_it_is_said_to_be(seed: int, outlier: str) -> None:
    traits = synthetic.Traits(120, "none", 8, "steady", "low", outlier)
    values, told = synthetic.render(traits, np.random.default_rng(seed))
    where = int(np.argmax(values) if outlier == "spike" else np.argmin(values))
    assert told.outlier_third == synthetic.THIRDS[where * 3 // 120]
    assert (told.maximum_third if outlier == "spike" else told.minimum_third) == told.outlier_third


def test_noise_levels_order_the_roughness() -> None:
    rough = []
    for noise in synthetic.NOISES:
        traits = synthetic.Traits(200, "upward steady", None, "steady", noise, "none")
        series = [synthetic.render(traits, np.random.default_rng(seed))[0] for seed in range(20)]
        rough.append(np.mean([np.diff(v / v.std()).std() for v in series]))
    assert rough[0] < rough[1] < rough[2]


def test_captions_say_what_is_true_and_can_be_read_back() -> None:
    for row in many("stage2", "train", 300):
        traits, claims = row["traits"], synthetic_text.read_caption(row["caption"])
        assert claims.direction == traits.direction
        assert claims.shape == traits.shape
        assert claims.period == (traits.period or 0)
        assert claims.swings == (traits.swings if traits.period else None)
        assert claims.noise == traits.noise
        assert claims.outlier == traits.outlier
        if "maximum lies" in row["caption"]:
            assert f"maximum lies in the {traits.maximum_third} third" in row["caption"]
            third = int(np.argmax(row["series"])) * 3 // len(row["series"])
            assert traits.maximum_third == synthetic.THIRDS[third]


def test_a_caption_that_claims_nothing_reads_as_nothing() -> None:
    claims = synthetic_text.read_caption("The weather was fine.")
    assert claims == (None, None, None, None, None, "none")
    assert synthetic_text.read_caption("A pattern repeats every 7 samples").period == 7


def test_the_place_of_an_option_tells_nothing() -> None:
    rows = many("stage1", "train", 1500)
    places: Counter[str] = Counter()
    for row in rows:
        assert row["Answer"] == synthetic_text.QUESTIONS[row["kind"]].truth(row["traits"])
        (place,) = [letter for letter in "abc" if f"({letter}) {row['Answer']} (" in row["Question"] + " ("]
        places[place] += 1
    assert max(places.values()) < 0.4 * len(rows)


def test_the_stated_mean_and_deviation_tell_nothing_of_the_trend() -> None:
    """By construction: the same draw of a series with another trend states the same mean and deviation."""
    for trend in synthetic.TRENDS[1:4]:
        traits = synthetic.Traits(100, trend, 8, "steady", "low", "none")
        falling = synthetic.Traits(100, trend.replace("upward", "downward"), 8, "steady", "low", "none")
        up, _ = synthetic.render(traits, np.random.default_rng(1))
        down, _ = synthetic.render(falling, np.random.default_rng(1))
        assert math.isclose(up.mean(), down.mean(), abs_tol=1e-3)
        assert math.isclose(up.std(), down.std(), rel_tol=1e-3)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_pass_through_the_stages(split: synthetic.Split) -> None:
    (row,) = many("stage1", split, 1)
    prompt, answer = stages.get("stage1").from_row(row)
    assert (prompt.pre, answer) == (row["Question"], row["Answer"])
    assert stages.get("stage1").parse(answer) == answer
    assert len(prompt.series[0].values) == len(json.loads(row["Series"]))
    # a user who types the question, without the Task column, gets the same prompt
    typed = stages.get("stage1").prompt(json.loads(row["Series"]), question=row["Question"])
    assert typed.post == prompt.post
    (row,) = many("stage2", split, 1)
    assert stages.get("stage2").from_row(row).answer == row["caption"]


def test_each_question_names_the_task_its_words_imply() -> None:
    for kind, asked in synthetic_text.QUESTIONS.items():
        row = synthetic.row("stage1", "train", np.random.default_rng(0), kind=kind)
        prompt = stages.get("stage1").prompt(json.loads(row["Series"]), question=row["Question"])
        assert prompt.post == f"Predict the {asked.task} Answer:"


def test_the_data_sets_own_questions_are_asked_word_for_word() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        row = synthetic.tsqa_row("train", rng)
        assert row["Question"] == stages.tsqa.QUESTIONS[row["Task"]]
        if row["Task"] == "Trend":
            assert row["Answer"] == {"none": "(a)", "upward": "(b)", "downward": "(c)"}[row["traits"].direction]


@pytest.fixture(scope="module")
def tokenizer():
    rng = np.random.default_rng(0)
    rows = [synthetic.row("stage2", "train", rng, 60)["caption"] for _ in range(200)]
    return train_tokenizer([*rows, "This is the time series, it has mean 1.0000 and std 2.0000:"], 600)


def test_the_tokenizer_puts_bos_first_and_splits_digits(tokenizer) -> None:
    ids = tokenizer.encode("every 12 samples, mean 3.4567.")
    assert ids[0] == tokenizer.convert_tokens_to_ids(BOS)
    assert tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(EOS)
    pieces = [tokenizer.decode([token]).strip() for token in ids[1:]]
    assert [piece for piece in pieces if piece.isdigit()] == list("1234567")
    assert tokenizer.encode("") == ids[:1]


@given(text=st.text())
@settings(max_examples=50, deadline=None)
def test_the_tokenizer_gives_any_text_back(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text.replace(BOS, "").replace(
        EOS, ""
    )


def exact_softmax(x: mx.array) -> mx.array:
    return mx.softmax(x, axis=-1)


@pytest.mark.parametrize(
    ("quick", "exact"),
    [(fast_math.gelu, nn.gelu), (fast_math.silu, nn.silu), (fast_math.softmax, exact_softmax)],
)
def test_quick_functions_and_their_gradients_are_the_exact_ones(quick, exact) -> None:
    x = mx.concatenate([mx.linspace(-30, 30, 3001), mx.array([0.0, -1e-6, 50.0, -50.0])]).reshape(5, -1)
    assert mx.abs(quick(x) - exact(x)).max().item() < 2e-4
    weigh = mx.random.normal(x.shape, key=mx.random.key(0))
    gradients = [mx.grad(lambda x, f=f: (f(x) * weigh).sum())(x) for f in (quick, exact)]
    assert mx.abs(gradients[0] - gradients[1]).max().item() < 2e-3


def test_a_training_batch_gives_the_logits_that_the_model_gives_one_by_one(tokenizer) -> None:
    text_config = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "vocab_size": len(tokenizer), "tie_word_embeddings": True,
    }  # fmt: skip
    mx.random.seed(0)
    model = SoftPromptModel(ModelConfig(text_config, EncoderConfig(num_hidden_layers=2, max_patches=32)), tokenizer)
    model.encoder.pos_embed = mx.random.normal(model.encoder.pos_embed.shape)
    rng = np.random.default_rng(0)
    samples = [
        stages.get(stage).from_row(synthetic.row(stage, "train", rng, length))
        for stage, length in (("stage1", 57), ("stage2", 60), ("stage2", 58))
    ]
    batch = collate(samples, tokenizer.encode, tokenizer.eos_token_id)
    logits = forward.answer_logits(model, batch)
    for row, (prompt, answer) in enumerate(samples):
        ids = [*tokenizer.encode(answer), tokenizer.eos_token_id]
        assert batch.targets[row, : len(ids)].tolist() == ids
        assert batch.weights[row].tolist() == [1.0] * len(ids) + [0.0] * (batch.weights.shape[1] - len(ids))
        wanted = model.score(prompt, ids[:-1])
        assert mx.abs(logits[row, : len(ids)] - wanted).max().item() < 5e-3


def test_a_batch_wants_series_of_one_number_of_patches(tokenizer) -> None:
    rng = np.random.default_rng(0)
    samples = [stages.get("stage2").from_row(synthetic.row("stage2", "train", rng, n)) for n in (56, 57)]
    with pytest.raises(ValueError, match="different numbers of patches"):
        collate(samples, tokenizer.encode, tokenizer.eos_token_id)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    def train(folder: Path, stop: int) -> tuple[list[dict], mx.array]:
        mx.random.seed(0)
        model = nn.Linear(3, 1)
        run = Run(folder, seed=1)
        made = []

        def batch(rng: np.random.Generator) -> tuple[mx.array, ...]:
            if len(made) == stop:
                raise KeyboardInterrupt
            made.append(1)
            return (mx.array(rng.normal(size=(8, 3)).astype(np.float32)),)

        with contextlib.suppress(KeyboardInterrupt):
            run.train("p", model, lambda x: (model(x) - x.sum()).square().mean(), batch, 60, 1e-2, every=25)
        return run.entries("loss"), model.weight

    whole, weight = train(tmp_path / "whole", 100)
    train(tmp_path / "parts", 40)  # the checkpoint is of step 25
    parts, again = train(tmp_path / "parts", 100)
    assert [(line["step"], line["loss"]) for line in whole] == [(line["step"], line["loss"]) for line in parts]
    assert [line["step"] for line in whole] == [25, 50, 60]
    assert mx.array_equal(weight, again)
    assert Run(tmp_path / "parts", seed=1).picture().startswith("<svg")
