"""The synthetic curriculum as it is met outside: its words are true of what was made, and what it adds is there."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import data, stages
from mlx_tslm.cli import main
from mlx_tslm.data.synthetic import ecg, forecast, har, realistic, sleep
from mlx_tslm.data.synthetic.realistic import disturb
from mlx_tslm.data.synthetic.realistic import ecg as real_ecg
from mlx_tslm.data.synthetic.realistic import forecast as real_forecast
from mlx_tslm.data.synthetic.realistic import har as real_har
from mlx_tslm.data.synthetic.realistic import sleep as real_sleep
from mlx_tslm.evaluation.captions import read_caption
from mlx_tslm.rewards.facts import physiology

seeds = st.integers(0, 2**32 - 1)
LEADS = ("II", "V1")


def rows(stage: str, count: int, split: data.Split = "test", seed: int = 3) -> list[dict]:
    return list(data.load(stage, split, source="realistic", seed=seed, size=count))


@pytest.mark.parametrize("stage", stages.names())
def test_rows_repeat_pass_through_their_stage_and_end_with_an_answer_it_parses(stage: str) -> None:
    chosen = stages.get(stage, LEADS)
    for row, again in zip(rows(stage, 12), rows(stage, 12), strict=True):
        prompt, answer = chosen.from_row(row)
        other, same = chosen.from_row(again)
        assert (prompt.pre, prompt.post, answer) == (other.pre, other.post, same)
        assert all(np.array_equal(a.values, b.values) for a, b in zip(prompt.series, other.series, strict=True))
        assert all(np.isfinite(series.values).all() for series in prompt.series)
        gold = prompt.parse(answer)
        if stage == "stage5":
            assert gold == row["answer"]
        elif chosen.labels and stage != "stage1":
            assert gold in chosen.labels


def test_one_training_row_in_four_is_the_clean_generators_and_no_test_row() -> None:
    clean = [len(row["signals"]) == 12 for row in rows("stage5", 80, "train")]
    assert 0.1 < np.mean(clean) < 0.45
    assert realistic.CLEAN_SHARE == 0.25
    assert not any(len(row["signals"]) == 12 for row in rows("stage5", 30))


def test_the_clean_curriculum_is_what_it_was() -> None:
    """The embedded model's first figures are of these rows: as `data.load` made them at that commit."""
    found = {}
    for stage in stages.names():
        row = data.load(stage, "test", source="synthetic", seed=6, size=3)[2]
        found[stage] = stages.get(stage, LEADS).from_row(row).answer
    assert found == json.loads((Path(__file__).parent / "data" / "clean_answers.json").read_text("utf-8"))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_series_have_lengths_and_scales_of_all_sorts(stage: str) -> None:
    column = "Series" if stage == "stage1" else "series"
    series = [np.array(json.loads(r[column]) if stage == "stage1" else r[column]) for r in rows(stage, 300)]
    lengths = [len(one) for one in series]
    assert min(lengths) < 25 and max(lengths) > 300
    counted = [one for one in series if (one == np.round(one)).all()]
    assert 0.1 < len(counted) / len(series) < 0.5 and all((one >= 0).all() for one in counted)
    deviations = [one.std() for one in series]
    assert min(deviations) < 0.5 and max(deviations) > 1e4


def test_captions_are_true_and_can_be_read_back() -> None:
    for row in rows("stage2", 200):
        traits, claims = row["traits"], read_caption(row["caption"])
        assert claims == (traits.direction, traits.period or 0, traits.noise)
        if "maximum lies" in row["caption"]:
            third = int(np.argmax(row["series"])) * 3 // len(row["series"])
            assert f"maximum lies in the {forecast.THIRDS[third]} third" in row["caption"]


@given(seeds, st.sampled_from(("upward", "downward")), st.sampled_from(("steady", "accelerating", "slowing")))
@settings(max_examples=40, deadline=None)
def test_growth_goes_and_bends_the_way_it_is_said_to(seed: int, way: str, shape: str) -> None:
    u = np.linspace(0, 1, 201)
    line = real_forecast._trend(f"{way} {shape}", u, np.random.default_rng(seed))
    rise = np.diff(line) * (1 if way == "upward" else -1)
    assert (rise > -1e-9).all()
    early, late = rise[:67].sum(), rise[-67:].sum()
    if shape == "steady":
        assert late == pytest.approx(early, rel=0.01)
    else:
        assert (late > 1.5 * early) if shape == "accelerating" else (early > 1.5 * late)


@given(seeds, st.sampled_from(forecast.PERIODS), st.sampled_from(forecast.SWINGS))
@settings(max_examples=60, deadline=None)
def test_every_season_repeats_after_its_period(seed: int, period: int, swings: str) -> None:
    traits = forecast.Traits(5 * period, "none", period, swings, "low", "none")
    wave = real_forecast._season(traits, np.arange(5 * period), np.random.default_rng(seed))
    assert np.corrcoef(wave[:-period], wave[period:])[0, 1] > 0.8
    thirds = [part.std() for part in np.array_split(wave, 5)]
    if swings != "steady":
        assert (thirds[-1] > 1.2 * thirds[0]) == (swings == "growing")


@given(seeds, st.sampled_from(real_forecast.SHIFTS))
@settings(max_examples=30, deadline=None)
def test_a_shift_lasts(seed: int, shift: str) -> None:
    traits = forecast.Traits(120, "none", None, "steady", "high", shift)
    values, told = real_forecast.render(traits, np.random.default_rng(seed))
    third = forecast.THIRDS.index(told.outlier_third or "")
    before, after = values[: 40 * third + 10], values[40 * third + 30 :]
    assert (after.mean() > before.mean()) == (shift == "jump")
    assert abs(after.mean() - before.mean()) > before.std()


@pytest.mark.parametrize("kind", real_forecast.QUESTIONS)
def test_a_question_offers_the_right_answer_once_or_nothing_at_all(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        traits = real_forecast.draw(rng, "train", kind if kind != "shift" else None)
        question, answer = real_forecast.ask(kind, traits, rng)
        stage = stages.get("stage1")
        options = list((stage.prompt([1.0, 2.0], question).labels or {}).values()) if "(a)" in question else []
        assert answer == real_forecast.QUESTIONS[kind].truth(traits)
        assert not options or options.count(answer) == 1


def test_yes_and_no_are_true() -> None:
    asked = [row for row in rows("stage1", 400) if row["kind"] == "yes_no"]
    assert len(asked) > 20
    for row in asked:
        traits, text, yes = row["traits"], row["Question"], row["Answer"] == "yes"
        if "season" in text:
            assert yes == (traits.period is not None)
        elif "upward" in text:
            assert yes == (traits.direction == "upward")
        elif "outlier" in text:
            assert yes == (traits.outlier in ("spike", "dip"))


@pytest.mark.parametrize("rhythm", ecg.RHYTHMS)
def test_ecgs_have_the_beats_that_are_told(rhythm: str) -> None:
    rng = np.random.default_rng(5)
    near, told = [], []
    for _ in range(8):
        values, traits = real_ecg.render(ecg.Traits(rhythm, "middle", "middle"), rng, 10.0)
        assert values.shape == (12, 1000) and np.isfinite(values).all()
        found = physiology.find_beats([values[1], values[6], values[10]], 100)
        assert found is not None
        beats = np.array(traits.beats)
        near += list(np.abs(found.times - beats[:, None]).min(1) < 0.08)
        told.append(len(found.times) - len(beats))
        low, high = ecg.RHYTHMS[rhythm].rate
        assert low - 8 <= traits.rate <= high + 8
    assert np.mean(near) > 0.9 and np.abs(np.median(told)) <= 1  # the finder is no oracle either under this noise


def test_leads_follow_from_one_another_whatever_disturbs_them() -> None:
    values, _ = real_ecg.render(ecg.draw(np.random.default_rng(1), "train"), np.random.default_rng(2))
    one, two, three, right, left, foot = values[:6]
    assert np.allclose(three, two - one)
    assert np.allclose(right + left + foot, 0, atol=1e-9)


def test_an_early_beat_is_early_and_not_among_the_intervals_that_are_told() -> None:
    rng = np.random.default_rng(8)
    seen = 0
    for _ in range(60):
        _, traits = real_ecg.render(ecg.Traits("sinus rhythm", "middle", "middle"), rng, 10.0)
        if traits.early:
            seen += 1
            every = np.diff(traits.beats)
            for number in traits.early:
                if number > 0:
                    assert every[number - 1] < 0.8 * np.median(every)
            assert traits.intervals.min() > 0.8 * np.median(traits.intervals)
    assert seen > 3


def test_ecg_rows_have_one_to_three_leads_and_answers_that_their_beats_bear_out() -> None:
    for row in rows("stage5", 150):
        traits = row["traits"]
        assert 1 <= len(row["signals"]) == len(row["leads"]) <= 3
        if row["template_id"] == real_ecg.KINDS["rate"]:
            assert row["answer"] == f"{traits.rate:.0f} bpm"
        elif row["template_id"] == real_ecg.KINDS["regular"]:
            regular = traits.rhythm not in ("sinus arrhythmia", "atrial fibrillation")
            assert row["answer"] == ("yes" if regular != ("irregular" in row["question"]) else "no")
        elif row["template_id"] == real_ecg.KINDS["pace"]:
            fast = "above" in row["question"] or "fast" in row["question"]
            assert row["answer"] == ("yes" if (traits.rate > 100 if fast else traits.rate < 60) else "no")
        if row["answers"] is not None:
            assert row["answer"] in row["answers"]


@pytest.mark.parametrize("activity", har.ACTIVITIES)
def test_accelerometers_move_and_lie_as_told(activity: str) -> None:
    rng = np.random.default_rng(11)
    units = set()
    for _ in range(25):
        values, traits = real_har.render(har.Traits(activity, "+x", "middle"), rng)
        units.add(traits.unit)
        assert 64 <= values.shape[1] <= 512
        assert traits.movement == pytest.approx(np.sqrt(values.var(1).sum()))
        size = np.linalg.norm(values.mean(1)) * (1 if traits.unit == "m/s²" else har.GRAVITY)
        movement = traits.movement * (1 if traits.unit == "m/s²" else har.GRAVITY)
        assert size == pytest.approx(har.GRAVITY if traits.gravity else 0, abs=0.25 + 0.35 * movement)
        assert (movement > 0.4) == (traits.cadence is not None)
        text = real_har.rationale(traits, rng)
        assert text.endswith(f"Answer: {activity}")
        assert ("Gravity is not in" in text or "gravity was taken out" in text) != traits.gravity
    assert units == {"g", "m/s²"}


def test_an_orientation_keeps_lengths_and_hands() -> None:
    for seed in range(20):
        turned = real_har._rotation(np.random.default_rng(seed))
        assert np.allclose(turned @ turned.T, np.eye(3)) and np.linalg.det(turned) == pytest.approx(1)


@pytest.mark.parametrize("label", sleep.LABELS)
def test_epochs_hold_what_is_told_of_them(label: str) -> None:
    rng = np.random.default_rng(12)
    lengths = set()
    for _ in range(12):
        values, traits = real_sleep.render(sleep.Traits(label, "middle", "middle"), rng)
        lengths.add(len(values))
        assert traits.peak_to_peak == pytest.approx(np.ptp(values))
        seconds = len(values) / sleep.RATE
        assert all(0 < at < seconds for at in chain(traits.events, traits.complexes))
        if label == "Non-REM stage 2":
            assert traits.events and traits.complexes
        if label == "Non-REM stage 3":
            assert traits.slow_share >= 0.2
    assert min(lengths) < sleep.LENGTH == max(lengths)


@given(seeds, st.integers(200, 3000), st.sampled_from((50.0, 100.0, 500.0)))
@settings(max_examples=40, deadline=None)
def test_disturbances_lie_where_they_belong(seed: int, samples: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    frequencies = np.fft.rfftfreq(samples, 1 / rate)

    def above(values: np.ndarray, cut: float) -> float:
        power = np.abs(np.fft.rfft(values)) ** 2
        return float(power[frequencies > cut].sum() / power.sum())

    slow = disturb.wander(rng, samples, rate, 2.0)
    assert slow.std() == pytest.approx(2.0) and above(slow, max(0.5, 2.5 * rate / samples)) < 1e-9
    assert above(disturb.low_pass(rng.standard_normal(samples), rate, rate / 8), rate / 8) < 1e-9
    assert above(disturb.muscle(rng, samples, rate, 1.0), 0.1 * rate) > 0.5
    steps = disturb.quantised(rng.standard_normal(samples), 50)
    assert len(np.unique(np.round(steps, 9))) <= 52


@pytest.mark.parametrize("stage", stages.names())
def test_a_realistic_row_is_shown_by_the_command_line(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", stage, "--source", "realistic", "--split", "test", "--index", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    answer = stages.get(stage).from_row(data.load(stage, "test", source="realistic")[2]).answer
    assert answer.split()[-1] in shown
    assert main(["data", "show", stage, "--source", "imagined"]) == 2
    assert "--source imagined: choose published, synthetic, realistic" in capsys.readouterr().err
