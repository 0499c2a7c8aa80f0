"""The synthetic curriculum: its words are true, what is held out stays out."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import stages
from mlx_tslm.data.synthetic import forecast as synthetic
from mlx_tslm.data.synthetic import text as synthetic_text
from mlx_tslm.data.synthetic.tokenizer import BOS, EOS, train_tokenizer
from mlx_tslm.evaluation.captions import read_caption

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
        traits, claims = row["traits"], read_caption(row["caption"])
        assert claims.direction == traits.direction
        assert claims.period == (traits.period or 0)
        assert claims.noise == traits.noise
        if "maximum lies" in row["caption"]:
            assert f"maximum lies in the {traits.maximum_third} third" in row["caption"]
            third = int(np.argmax(row["series"])) * 3 // len(row["series"])
            assert traits.maximum_third == synthetic.THIRDS[third]


def test_a_caption_that_claims_nothing_reads_as_nothing() -> None:
    claims = read_caption("The weather was fine.")
    assert claims == (None, None, None)
    assert read_caption("A pattern repeats every 7 samples").period == 7


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
