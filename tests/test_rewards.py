"""Rewards: spectra, claims in text, measurements of signals with a known truth, and real recordings."""

import csv
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_tslm import Question, Series, TSLMError, stages
from mlx_tslm.completion import Completion
from mlx_tslm.data.synthetic import forecast as synthetic
from mlx_tslm.data.synthetic import text as synthetic_text
from mlx_tslm.rewards import (
    CombinedReward,
    ConsistencyReward,
    FormatReward,
    GroundingReward,
    LikelihoodReward,
    Reward,
    SpectralReward,
    as_reward,
    default_reward,
    facts_of,
)
from mlx_tslm.rewards.claims import Claim, cycles_per_sample, read
from mlx_tslm.rewards.facts.signal import SignalFacts, find_season, find_trend
from mlx_tslm.rewards.facts.spectrum import line_distance, spectral_distance
from mlx_tslm.rewards.spectral import find_series

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def data(path: str) -> Path:
    if not (DATA / path).exists():
        pytest.skip(f"needs ../shared/data/{path}")
    return DATA / path


def say(text: str, **fields) -> Completion:
    return Completion(text, tuple(range(4)), fields.pop("logprob", -2.0), **fields)


def context(*series, rate=None, stage=None, labels=None) -> Question:
    labels = labels or (stage.labels if stage else None)
    return Question(series=[Series("", one, one, rate=rate) for one in series], stage=stage, labels=labels)


def sine(period: float, n: int = 240, noise: float = 0.0, slope: float = 0.0, seed: int = 0) -> np.ndarray:
    t = np.arange(n)
    return np.sin(2 * np.pi * t / period) + slope * t + noise * np.random.default_rng(seed).normal(size=n)


def pulses(rr: np.ndarray, rate: float, seconds: float = 10.0) -> np.ndarray:
    """An ECG-like signal: a narrow R wave and a broad T wave after each interval, with a wandering baseline."""
    t = np.arange(round(seconds * rate)) / rate
    x = 0.2 * np.sin(2 * np.pi * 0.2 * t)
    for beat in np.cumsum(rr):
        x += np.exp(-0.5 * ((t - beat) / 0.012) ** 2) + 0.3 * np.exp(-0.5 * ((t - beat - 0.25) / 0.04) ** 2)
    return x + 0.01 * np.random.default_rng(0).normal(size=len(t))


# --- spectra ---
signals = st.integers(0, 10_000).map(
    lambda seed: sine(5 + seed % 20, n=64 + seed % 100, noise=0.1 + (seed % 7) / 3, seed=seed)
)


@given(signals, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
@settings(max_examples=50, deadline=None)
def test_the_same_spectrum_has_no_distance_whatever_the_scale_and_offset(x, scale, offset):
    assert spectral_distance(scale * x + offset, x) == pytest.approx(0, abs=1e-4)


@given(signals, signals)
@settings(max_examples=50, deadline=None)
def test_spectral_distance_is_symmetric(x, c):
    assert spectral_distance(x, c) == pytest.approx(spectral_distance(c, x), abs=1e-9)
    assert spectral_distance(x, c) >= 0


@given(st.floats(6, 20), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
@settings(max_examples=50, deadline=None)
def test_a_true_line_costs_nothing_whatever_the_scale_and_offset(period, scale, offset):
    assert line_distance([scale * sine(period) + offset], 1 / period) < 0.05


@given(st.floats(6, 20), st.sampled_from([-1, 1]))
@settings(max_examples=30, deadline=None)
def test_line_distance_grows_with_the_error_of_the_frequency(period, sign):
    x = [sine(period, n=400)]
    errors = [0.0, 0.02, 0.05, 0.1, 0.2, 0.5]
    distances = [line_distance(x, (1 + sign * error) / period) for error in errors]
    assert all(later >= earlier - 1e-3 for earlier, later in pairwise(distances))
    assert distances[-1] > 1 > distances[1]


def test_a_noisy_copy_is_nearer_than_a_wrong_period():
    x = sine(12)
    noisy, other, white = sine(12, noise=0.3), sine(11), np.random.default_rng(1).normal(size=240)
    assert spectral_distance(noisy, x) < 0.5 < spectral_distance(white, x)
    assert spectral_distance(other, x) > 1.5


def test_lines_beyond_the_sampling_rate_and_under_two_cycles():
    assert line_distance([sine(12)], 0.7) > 1.5
    assert np.isnan(line_distance([sine(12)], 1 / 200))
    assert line_distance([np.ones(100)], 0.1) > 1.5  # a constant series has no line


def test_spectral_reward_present_absent_and_with_a_task():
    ctx = context(sine(12, noise=0.2))
    answers = [say("A period of 12 samples."), say("A period of 7 samples."), say("Nothing to see.")]
    reward = SpectralReward(gamma=2.0)
    scores = reward.score(answers, ctx)
    right, wrong, absent = scores.columns["spectral"]
    assert -0.4 < right <= 0 and wrong < -1.5 and np.isnan(absent) and scores.total[2] == 0
    assert scores.present("spectral") == pytest.approx(2 / 3)
    assert np.allclose(SpectralReward(gamma=1.0)(answers[:2], ctx) * 2, [right, wrong])

    reward.set_task_reward(lambda completions: [1.0 for _ in completions])
    with_task = reward.score(answers, ctx)
    assert np.allclose(with_task.total, scores.total + 1)
    assert list(with_task.columns) == ["task", "spectral"]
    assert np.allclose(reward(answers, ctx), with_task.total)


def test_spectral_reward_reads_a_series_in_the_answer():
    x = sine(12, n=120)
    same, other = (" ".join(f"{v:.3f}" for v in s) for s in (x[:60] * 5 + 3, sine(5, n=60)))
    right, wrong = SpectralReward()([say(f"It goes on: {same}"), say(f"It goes on: {other}")], context(x))
    assert right > -0.1 and wrong < -1


@pytest.mark.parametrize("arguments", [{"gamma": -1}, {"gamma": np.nan}, {"floor": 0}, {"floor": 1}])
def test_spectral_reward_refuses_nonsense(arguments):
    with pytest.raises(TSLMError):
        SpectralReward(**arguments)


# --- claims ---
@pytest.mark.parametrize(
    ("text", "kind", "value", "negated"),
    [
        ("The series shows a clear upward trend.", "trend", "up", False),
        ("Values are growing steadily.", "trend", "up", False),
        ("(b) increasing", "trend", "up", False),
        ("A steady decline is seen.", "trend", "down", False),
        ("Overall, it falls from the beginning to the end.", "trend", "down", False),
        ("The values are not increasing.", "trend", "up", True),
        ("It doesn't grow.", "trend", "up", True),
        ("No upward or downward trend is visible.", "trend", "down", True),
        ("An upward trend is not visible.", "trend", "up", True),
        ("There is no clear trend.", "trend", "flat", False),
        ("It stays flat.", "trend", "flat", False),
        ("Not only increasing but noisy.", "trend", "up", False),
        ("Not only increasing but noisy.", "noise", "high", False),
        ("There is no clear seasonality and the trend is upward.", "trend", "up", False),
        ("There is no clear seasonality and the trend is upward.", "season", "present", True),
        ("Seasonality is absent.", "season", "present", True),
        ("The series isn't periodic.", "season", "present", True),
        ("no trend, noise or seasonality", "season", "present", True),
        ("The cycles are evident.", "season", "present", False),
        ("Low noise.", "noise", "low", False),
        ("A smooth curve.", "noise", "low", False),
        ("It rises, then falls.", "turn", "peak", False),
        ("(a) a fall, then a rise", "turn", "valley", False),
        ("The trend turns from upward to downward.", "turn", "peak", False),
        ("A gradual decline followed by a sharp increase.", "turn", "valley", False),
        ("Volatility increases over time.", "volatility", "up", False),
        ("Nothing repeats.", "season", "present", True),
        ("Nearly all of gravity is on the x-axis.", "gravity", "x", False),
        ("Gravity lies almost wholly on the y-axis.", "gravity", "whole", False),
        ("Gravity is shared between the axes, with most of it on the z-axis.", "gravity", "shared", False),
        ("Gravity is shared between the axes, with most of it on the z-axis.", "gravity", "z", False),
        ("RR intervals of 0.58 to 0.58 s are regular.", "rhythm", "regular", False),
        ("The variance is decreasing.", "volatility", "down", False),
        ("There are no outliers.", "outlier", "present", True),
        ("The maximum is near the end.", "max_at", "end", False),
        ("Its minimum is at the beginning.", "min_at", "start", False),
        ("The rhythm is irregularly irregular.", "rhythm", "irregular", False),
        ("There is no evidence of atrial fibrillation.", "rhythm", "irregular", True),
        ("RR intervals are regular.", "rhythm", "regular", False),
        ("Normal sinus rhythm.", "rhythm", "regular", False),
        ("Sinus tachycardia.", "heart_rate", "fast", False),
        ("Tachycardia is ruled out.", "heart_rate", "fast", True),
        ("The EEG is dominated by theta activity.", "band", "theta", False),
        ("Prominent alpha rhythm.", "band", "alpha", False),
        ("Delta waves are dominant, in line with Non-REM stage 3.", "band", "delta", False),
        ("Minimal movement across all axes.", "intensity", "low", False),
        ("Vigorous motion.", "intensity", "high", False),
        ("A moderate level of activity.", "intensity", "moderate", False),
    ],
)
def test_categories_are_read(text, kind, value, negated):
    assert Claim(kind, value, None, negated) in read(text)


@pytest.mark.parametrize(
    ("text", "kind", "unit", "numbers"),
    [
        ("It repeats every 12 months.", "period", "month", (12.0,)),
        ("a peak every ~7 days", "period", "day", (7.0,)),
        ("repeating every twelve samples", "period", "sample", (12.0,)),
        ("The pattern repeats every 0.5 seconds", "period", "second", (0.5,)),
        ("a 12-month seasonal cycle", "period", "month", (12.0,)),
        ("with a season of 12.", "period", "sample", (12.0,)),
        ("The seasonal period is about 24 time steps.", "period", "sample", (24.0,)),
        ("Period: 24 samples.", "period", "sample", (24.0,)),
        ("a yearly cycle", "period", "year", (1.0,)),
        ("Heart rate: 72 bpm", "heart_rate", "per minute", (72.0,)),
        ("The heart rate is approximately 75 beats per minute.", "heart_rate", "per minute", (75.0,)),
        ("a rate between 60 and 100 bpm", "heart_rate", "per minute", (60.0, 100.0)),
        ("ventricular rate around 110", "heart_rate", "per minute", (110.0,)),
        ("The ventricles beat 70 times a minute.", "heart_rate", "per minute", (70.0,)),
        ("RR intervals of 0.75 to 1.01 s", "intervals", "second", (0.75, 1.01)),
        ("an RR interval of about 800 ms", "intervals", "second", (0.8,)),
        ("oscillations at 2.5 Hz", "frequency", "Hz", (2.5,)),
        ("activity of 0.5–2 Hz", "frequency", "Hz", (0.5, 2.0)),
        ("a cadence of 110 steps per minute", "cadence", "per minute", (110.0,)),
        ("a cadence of about 2 Hz", "cadence", "Hz", (2.0,)),
        ("It grew by 30% overall.", "change", "ratio", (1.3,)),
        ("The passengers tripled.", "change", "ratio", (3.0,)),
        ("The mean is 1,280.3.", "mean", "", (1280.3,)),
        ("a maximum value of 622", "max", "", (622.0,)),
    ],
)
def test_numbers_are_read(text, kind, unit, numbers):
    assert Claim(kind, unit, numbers) in read(text)


def test_swings_that_come_and_go_are_no_turn_of_the_series():
    assert [claim for claim in read("The amplitude rises, then falls.") if claim.kind == "turn"] == []


@pytest.mark.parametrize(
    "text",
    [
        "The series rises initially, then falls towards the end.",  # parts of the signal
        "The noise increases.",  # something else that increases
        "sampled at 100 Hz",  # the recording
        "A trend may be asked for.",
        "Fibrillatory waves at 350-600/min",
        "I cannot say.",
        "",
    ],
)
def test_what_is_no_claim_about_the_whole_signal(text):
    assert [c for c in read(text) if c.kind in ("trend", "frequency", "heart_rate", "period")] == []


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_read(text):
    read(text)
    find_series(text)


@pytest.mark.parametrize(
    "loop", ["1" * 5000, "increasing and " * 1500, "1-2 and 3 to " * 800, "low noise of " * 500]
)
def test_a_model_caught_in_a_loop_is_read_in_time(loop):
    start = time.perf_counter()
    read(loop)
    find_series(loop)
    assert time.perf_counter() - start < 1


def test_a_series_needs_eight_numbers():
    assert find_series("1, 2, 3, 4, 5, 6, 7") is None
    assert np.allclose(find_series("so: 1, 2, 3.5, 4,5,6, 7, 8e1, -3 end"), [1, 2, 3.5, 4, 5, 6, 7, 80, -3])
    assert np.allclose(find_series("100,200,300,400,500,600,700,800"), np.arange(1, 9) * 100)


def test_a_stated_time_becomes_a_frequency():
    beats = Claim("heart_rate", "per minute", (72.0,))
    assert cycles_per_sample(beats, 100.0) == pytest.approx((0.012,))
    assert cycles_per_sample(beats, None) == ()
    assert cycles_per_sample(Claim("period", "second", (0.5,)), 50.0) == pytest.approx((0.04,))
    assert cycles_per_sample(Claim("period", "sample", (12.0,)), 50.0) == pytest.approx((1 / 12,))
    readings = [round(1 / f) for f in cycles_per_sample(Claim("period", "month", (12.0,)), None)]
    assert {4, 12, 52, 365} <= set(readings)


# --- measurements with a known truth ---
@given(st.floats(4, 30), st.floats(0, 0.5), st.floats(-0.05, 0.05), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_period_is_found_under_trend_and_noise(period, noise, slope, seed):
    season = find_season(sine(period, noise=noise, slope=slope, seed=seed))
    assert season.period == pytest.approx(period, rel=0.1)


def test_trend_season_and_noise_of_known_signals():
    both = sine(12, noise=0.2, slope=0.03)
    trend = find_trend(both)
    assert trend.slope == pytest.approx(0.03, rel=0.1) and trend.strength > 0.9
    assert find_trend(sine(12)).strength < 0.1
    white = SignalFacts([np.random.default_rng(0).normal(size=240)])
    assert np.isnan(white.season.period) and white.trend.strength < 0.1 and white.noise > 0.8
    assert SignalFacts([sine(5)]).noise < 0.1  # fast, but no noise
    spike = sine(12, noise=0.1)
    spike[100] += 8
    assert SignalFacts([spike]).outlier > 6 > 4 > SignalFacts([sine(12, noise=0.1)]).outlier


@pytest.mark.parametrize("values", [np.zeros(100), np.full(3, 7.0), np.arange(50.0), np.array([1.0])])
def test_degenerate_signals_are_measured_without_a_word(values):
    facts = SignalFacts([values], rate=100.0)
    assert np.isnan(facts.season.period) and facts.beats is None and np.isfinite(facts.noise)
    ctx = context(values, rate=100.0)
    text = "Rising, seasonal every 4 samples, 72 bpm, regular rhythm, noisy, dominant delta, a maximum of 3."
    assert np.isfinite(default_reward().score([say(text)], ctx).total).all()


@pytest.mark.parametrize("rate", [100.0, 250.0])
@pytest.mark.parametrize("bpm", [48.0, 72.0, 130.0])
def test_heart_rate_of_a_synthetic_ecg(rate, bpm):
    beats = SignalFacts([pulses(np.full(25, 60 / bpm), rate)], rate).beats
    assert beats.rate == pytest.approx(bpm, rel=0.02) and beats.irregularity < 0.03


def test_an_irregular_rhythm_is_told_from_a_regular_one():
    rr = np.random.default_rng(3).uniform(0.45, 1.05, 20)
    irregular = context(pulses(rr, 100.0), rate=100.0, stage=stages.get("stage5"), labels=())
    regular = context(pulses(np.full(20, 0.83), 100.0), rate=100.0, stage=stages.get("stage5"), labels=())
    answers = [say("The rhythm is irregularly irregular."), say("Regular rhythm at 72 bpm.")]
    judge = GroundingReward(topics=())
    assert judge(answers, irregular)[0] > 0.9 > 0.3 > judge(answers, irregular)[1]
    assert judge(answers, regular)[0] < 0.1 < 0.9 < judge(answers, regular)[1]


@pytest.mark.parametrize(
    ("hertz", "band"), [(1.5, "delta"), (6, "theta"), (10, "alpha"), (13.5, "sigma"), (20, "beta")]
)
def test_the_dominant_band_stands_out_of_pink_noise(hertz, band):
    rate, n = 50.0, 1500
    rng = np.random.default_rng(0)
    frequencies = np.fft.rfftfreq(n, 1 / rate)
    pink = np.fft.irfft(
        (rng.normal(size=len(frequencies)) + 1j * rng.normal(size=len(frequencies)))
        / np.sqrt(np.maximum(frequencies, 0.3)),
        n,
    )
    x = pink / pink.std() + np.sin(2 * np.pi * hertz * np.arange(n) / rate)
    shares = SignalFacts([x], rate).bands
    assert max(shares, key=shares.get) == band


# --- the rewards ---
def test_grounding_prefers_the_truth_and_does_not_pay_for_silence():
    ctx = context(sine(12, noise=0.2, slope=0.05))
    true, false, silent, hedge = GroundingReward()(
        [
            say("An upward trend with a season of 12 samples and low noise."),
            say("A downward trend with a season of 7 samples; noisy."),
            say("It is a time series."),
            say("Increasing. Decreasing. Flat."),
        ],
        ctx,
    )
    assert true > 0.9 and false < 0.1 and np.isnan(silent) and hedge < 0.4
    total = default_reward().score([say("An upward trend."), say("It is a series.")], ctx).total
    assert total[0] > total[1]


def test_a_turn_is_told_from_a_trend_and_from_none():
    t = np.linspace(0, 1, 160)
    season = 0.3 * np.sin(2 * np.pi * np.arange(160) / 16)
    tent = np.minimum(t / 0.4, (1 - t) / 0.6)
    captions = [say("It rises, then falls."), say("It falls, then rises."), say("No trend."), say("Upward trend.")]
    for x, true in ((tent, 0), (-tent, 1), (0 * t, 2), (t, 3), (np.expm1(4 * t) / 50, 3)):
        scores = GroundingReward()(captions, context(x + season))
        assert scores[true] > 0.9 and np.delete(scores, true).max() < 0.3, (true, scores)


def test_a_caption_gains_nothing_by_what_it_leaves_out():
    x = sine(12, noise=0.2, slope=0.05)
    stage = stages.get("stage2")
    ctx = stage.prompt(x)
    whole, wrong, short, beyond = GroundingReward()(
        [
            say("An upward trend. It has a season of 12 samples. The noise is low."),
            say("An upward trend. It has a season of 7 samples. The noise is low."),
            say("An upward trend. The noise is low."),
            say("An upward trend. It has a season of 400 samples. The noise is low."),  # cannot be checked
        ],
        ctx,
    )
    assert whole > 0.9 and max(wrong, short, beyond) < 0.65
    assert GroundingReward({"trend": 1.0})([say("An upward trend.")], ctx)[0] > 0.9  # a user's own weights


def test_grounding_negations_repeats_and_vagueness():
    ctx = context(sine(12, noise=0.2, slope=0.05))
    reward = GroundingReward()
    assert reward([say("No clear seasonality.")], ctx)[0] < 0.1
    assert reward([say("Not decreasing.")], ctx)[0] > 0.9
    assert np.isnan(reward([say("Its period is not 7 samples.")], ctx)[0])
    once, often = reward([say("Upward. Noisy."), say("Upward. Rising. Growing. Noisy.")], ctx)
    assert once == often
    exact, near, far = reward([say(f"A period of {n} samples.") for n in (12, 13, 18)], ctx)
    assert exact > near > far
    narrow = context(pulses(np.full(20, 0.83), 100.0), rate=100.0)
    tight, vague = reward([say("70-75 bpm"), say("20 to 250 bpm")], narrow)
    assert tight > 0.9 and vague < 0.4


def test_a_level_is_checked_in_the_units_that_are_known():
    small = 1e-5 * (5 + sine(12))  # four decimals in a prompt would lose it
    claim = [say(f"The mean is {small.mean():.3g}.")]
    assert GroundingReward({"mean": 1.0})(claim, stages.get("stage2").prompt(small))[0] > 0.95
    unknown = Question(series=[Series("It has mean 50.0000 and std 4.0000:", sine(12))])
    assert np.isnan(GroundingReward()([say("The mean is 50.")], unknown)[0])


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("What is the trend? (a) no trend (b) an upward trend (c) a downward trend", "(b)", "(c)"),
        ("How long is the season? (a) 7 samples (b) 12 samples", "(b) 12 samples", "(a) 7 samples"),
        ("How strong is the noise? (a) high (b) low", "Answer: (b)", "Answer: (a)"),
    ],
)
def test_an_option_is_read_through_the_question(question, right, wrong):
    stage = stages.get("stage1")
    x = sine(12, noise=0.05, slope=0.05)
    ctx = stage.prompt(x, question)
    scores = default_reward(stage).score([say(right), say(wrong)], ctx)
    assert scores.total[0] > 0.95 and scores.total[1] < 0.55


def test_true_captions_of_synthetic_series_beat_those_of_other_series():
    rng = np.random.default_rng(11)
    drawn = [synthetic.render(synthetic.draw(rng, "train"), rng) for _ in range(60)]
    captions = [synthetic_text.caption(traits, rng) for _, traits in drawn]
    stage = stages.get("stage2")
    own, other = [], []
    for index, (x, _) in enumerate(drawn):
        pair = [say(captions[index]), say(captions[index - 1])]
        mine, theirs = GroundingReward()(pair, stage.prompt(x))
        own.append(mine)
        other.append(theirs)
    assert np.mean(own) > 0.85 > 0.5 > np.mean(other)
    assert np.mean(np.array(own) > np.array(other)) > 0.9


def test_a_final_answer_is_a_claim_of_its_own():
    rng = np.random.default_rng(0)
    still = context(*(0.1 * rng.normal(size=(3, 100))), rate=50.0, stage=stages.get("stage3"))
    lying, running = GroundingReward(topics=())([say("Answer: lying"), say("Answer: running")], still)
    assert lying == 1 and running == 0
    slow = np.sin(2 * np.pi * 1.2 * np.arange(1500) / 50) + 0.1 * rng.normal(size=1500)
    deep, awake = GroundingReward(topics=())(
        [say("Answer: Non-REM stage 3"), say("Answer: Wake")], context(slow, rate=50.0, stage=stages.get("stage4"))
    )
    assert deep == 1 and awake == 0


def test_all_axes_beats_and_movement_are_looked_at():
    axes = context(sine(9) / 9, sine(25), 9.8 + 0 * sine(9), rate=50.0)
    right, wrong = GroundingReward()([say("A cycle every 25 samples."), say("A cycle every 15 samples.")], axes)
    assert right > 0.9 and wrong < 0.1
    lying = [say("Nearly all of gravity is on the z-axis."), say("Gravity is shared, most of it on the x-axis.")]
    right, wrong = GroundingReward()(lying, axes)
    assert right > 0.9 and wrong < 0.1
    heart = context(pulses(np.array([0.75, 1.0] * 8), 100.0), rate=100.0)
    right, wrong = GroundingReward()([say(f"RR intervals of {low} to 1.0 s") for low in (0.75, 0.95)], heart)
    assert right > 0.9 and wrong < 0.5
    moved = context(300 * sine(70), rate=50.0, stage=stages.get("stage4"))
    movement, asleep = GroundingReward(topics=())([say("Answer: Movement"), say("Answer: Non-REM stage 3")], moved)
    assert movement > 0.9 and asleep < 0.1


def test_yes_and_no_are_claims_of_what_was_asked():
    stage = stages.get("stage5")
    slow, judge = pulses(np.full(9, 1.2), 100.0), GroundingReward(topics=())
    for asked, true, false in (("sinus bradycardia", "yes", "no"), ("sinus tachycardia", "no", "yes")):
        ctx = stage.prompt([slow] * 12, f"Does this ECG show symptoms of {asked}?")
        right, wrong = judge([say(f"Answer: {true}"), say(f"Answer: {false}")], ctx)
        assert right > 0.9 and wrong < 0.1
    # A regular rhythm of 50 a minute without a sawtooth is no flutter.
    flutter = stage.prompt([slow] * 12, "Does this ECG show symptoms of atrial flutter?")
    assert judge([say("Answer: yes"), say("Answer: no")], flutter) == pytest.approx([0, 1], abs=0.1)


def test_format_reward():
    ctx = context(sine(12), labels=("walking", "running"))
    answers = [
        say("…", answer="Walking."),
        say("…", answer="flying"),
        say("…", answer=""),
        say("…", answer="walking", finished=False),
    ]
    assert FormatReward()(answers, ctx).tolist() == [1, 0, 0, 0]
    assert FormatReward()([say("A caption."), say("  ")], context(sine(12))).tolist() == [1, 0]


def test_likelihood_and_consistency():
    ctx = context(sine(12))
    assert LikelihoodReward()([say("a", logprob=-2.0), Completion("", (), 0.0)], ctx).tolist() == [-0.5, 0]
    answers = [say("", answer=a) for a in ("yes", "Yes", "no")] + [say("", answer="")]
    assert ConsistencyReward()(answers, ctx).tolist() == [0.5, 0.5, 0.25, 0]


def test_a_combined_reward_sums_its_terms_and_counts_absent_ones_as_nothing():
    ctx = context(sine(12, slope=0.1))
    reward = CombinedReward(
        {"grounding": (GroundingReward(), 2.0), "length": (lambda cs: [len(c.text) for c in cs], 0.1)}
    )
    answers = [say("Upward trend."), say("Hm.")]
    scores = reward.score(answers, ctx)
    assert scores.columns["length"].tolist() == [13, 3] and np.isnan(scores.columns["grounding"][1])
    assert scores.total == pytest.approx([2 * scores.columns["grounding"][0] + 1.3, 0.3])
    assert scores.present("grounding") == 0.5
    assert np.array_equal(reward(answers, ctx), scores.total)
    assert reward.score([], ctx).total.shape == (0,)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda cs: [1.0 if c.text == "good" else float("nan") for c in cs], r"nan for completion 1: 'bad'"),
        (lambda cs: [1.0 if c.text == "good" else float("inf") for c in cs], r"inf for completion 1: 'bad'"),
        (lambda cs: [1.0], "shape"),
        (lambda cs: [{"good": 1.0}[c.text] for c in cs], r"KeyError: 'bad', at completion 1: 'bad'"),
        (lambda cs: None, "reward"),
    ],
)
@pytest.mark.parametrize("wrap", [as_reward, lambda f: CombinedReward({"mine": (f, 1.0)})])
def test_a_broken_reward_names_the_completion(function, message, wrap):
    with pytest.raises(TSLMError, match=message):
        wrap(function).score([say("good"), say("bad")], context(sine(12)))


def test_what_is_no_reward_is_refused():
    for thing in (3, "spectral", SpectralReward):
        with pytest.raises(TSLMError, match="reward"):
            as_reward(thing)
    with pytest.raises(TSLMError, match="at least one"):
        CombinedReward({})
    with pytest.raises(TSLMError, match="weight"):
        CombinedReward({"format": (FormatReward(), float("nan"))})
    assert isinstance(as_reward(SpectralReward()), Reward)


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage3", "stage4", "stage5"])
def test_every_stage_has_a_default_reward_which_rubbish_does_not_earn(name):
    stage = stages.get(name)
    rng = np.random.default_rng(0)
    ctx = context(*rng.normal(size=(3, 500)), rate=stage.rate, stage=stage)
    scores = default_reward(stage).score([say("", finished=False), say("qwx zzz", finished=False)], ctx)
    assert (scores.total <= 0.05).all() and set(scores.columns) == {"format", "grounding", "spectral", "coherence"}


# --- real recordings ---
def column(path: str) -> np.ndarray:
    with data(path).open() as lines:
        return np.array([float(row[1]) for row in list(csv.reader(lines))[1:]])


def test_airline_passengers_grow_and_have_a_yearly_season():
    x = column("forecast/Airline.csv")
    stage = stages.get("stage2")
    ctx = stage.prompt(x)
    true = "A strong upward trend with a yearly season, repeating every 12 months; the peaks grow and low noise."
    false = "A declining series with a weekly cycle that repeats every 7 samples, and it is noisy."
    scores = default_reward(stage).score([say(true), say(false), say("asdf", finished=False)], ctx)
    assert scores.total[0] > 0.9 and scores.total[1] < 0.3 and scores.total[2] < 0.05
    assert scores.columns["spectral"][0] > -0.3 > -1 > scores.columns["spectral"][1]
    assert facts_of(ctx).season.period == pytest.approx(12, abs=0.2)


def test_lynx_has_its_ten_year_cycle_and_no_trend():
    facts = SignalFacts([column("forecast/Lynx.csv")])
    assert facts.season.period == pytest.approx(9.6, abs=0.5) and facts.trend.strength < 0.1


def test_heart_rate_of_a_real_ecg():
    # PTB s0010_re, 38.4 s: 52 R waves, 0.71 to 0.76 s apart, counted on lead V3 by eye.
    record = np.fromfile(data("ecg/s0010_re.dat"), dtype="<i2").reshape(-1, 12).T / 2000.0
    beats = SignalFacts(list(record), 1000.0).beats
    assert len(beats.times) == 52 and beats.rate == pytest.approx(81.8, abs=1)
    leads = [lead[:10_000:10] for lead in record]
    ctx = context(*leads, rate=100.0, stage=stages.get("stage5"), labels=("yes", "no"))
    answers = [
        say("Regular rhythm at about 82 bpm. Answer: yes"),
        say("Irregularly irregular, 130 bpm. Answer: yes"),
        say("Bradycardia. Answer: maybe"),
    ]
    scores = default_reward(ctx.stage).score(answers, ctx)
    assert scores.total[0] > 0.75 and scores.total[1] < 0.5 and scores.total[2] < 0.3


def test_running_is_more_intense_than_standing():
    cases = []
    body = data("har/BasicMotions_TRAIN.ts").read_text().split("@data")[1]
    for line in body.split():
        *dimensions, label = line.split(":")
        cases.append((label, [np.array(d.split(","), dtype=float) for d in dimensions[:3]]))
    stage = stages.get("stage3")
    scores = {"Standing": [], "Walking": [], "Running": []}
    intensity = {name: [] for name in scores}
    for label, axes in cases:
        if label not in scores:
            continue
        ctx = context(*axes, rate=10.0, stage=stage)
        intensity[label].append(facts_of(ctx).intensity)
        scores[label].append(
            default_reward(stage)
            .score([say(f"Answer: {a}") for a in ("standing", "walking", "running")], ctx)
            .total
        )
    assert max(intensity["Standing"]) < min(intensity["Walking"]) < min(intensity["Running"])
    for index, label in enumerate(scores):
        assert np.argmax(np.mean(scores[label], axis=0)) == index
