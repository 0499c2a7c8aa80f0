"""Claims: every entry's own examples, an entry of a user's own, and what may be said of any."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import claims as claims_benchmark
from mlx_tslm import TSLMError
from mlx_tslm.completion import Completion
from mlx_tslm.rewards import GroundingReward, claims, facts_of
from mlx_tslm.rewards.claims import ENTRIES, Claim, Entry, Saying, check, cycles_per_sample, is_line, read, register
from mlx_tslm.rewards.facts.signal import SignalFacts
from mlx_tslm.rewards.grounding import VAGUE, score
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Question

EXAMPLES = [(entry.kind, text, [claim]) for entry in ENTRIES.values() for text, claim in entry.examples.items()]
COUNTER = [(entry.kind, text, []) for entry in ENTRIES.values() for text in entry.counterexamples]


def say(text: str) -> Completion:
    return Completion(text, (1, 2), -1.0)


@pytest.fixture
def registry(monkeypatch):
    """The registry, put back afterwards."""
    before = dict(ENTRIES)
    yield ENTRIES
    ENTRIES.clear()
    ENTRIES.update(before)


@pytest.mark.parametrize(("kind", "text", "expected"), EXAMPLES + COUNTER)
def test_the_examples_of_every_entry(kind, text, expected):
    assert [claim for claim in read(text) if claim.kind == kind] == expected
    for claim in read(text):
        assert 0 <= claim.span[0] < claim.span[1] <= len(text)


@pytest.mark.parametrize("kind", ENTRIES)
def test_every_kind_has_examples_enough(kind):
    entry = ENTRIES[kind]
    assert len(entry.examples) + len(entry.counterexamples) >= 15 and len(entry.counterexamples) >= 3
    assert any(claim.negated for claim in entry.examples.values())


def test_a_claim_knows_where_it_stands():
    text = "It rises.  It repeats every 12 samples, but there is no noise."
    assert [(claim.kind, text[slice(*claim.span)]) for claim in read(text)] == [
        ("trend", "rises"),
        ("period", "repeats every 12 samples"),
        ("noise", "noise"),
    ]
    assert read("It rises. It is rising.") == [Claim("trend", "up")]  # the same claim, wherever it stands


# --- an entry of a user's own ---
def test_the_entry_of_the_readme(registry):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = next(part for part in readme.split("```python\n") if "claims.register(" in part).split("```")[0]
    assert len(code.strip().splitlines()) <= 12
    exec(code, {})
    x = np.sin(np.arange(100) / 3)
    x[[10, 30, 70]] = 5.0
    ctx = Question(series=[Series("", x, x)])
    (claim,) = read("There are 3 spikes.")
    assert claim.kind == "spikes" and claim.numbers == (3.0,)
    right, wrong = (check(read(f"There are {number} spikes.")[0], facts_of(ctx)) for number in (3, 7))
    assert right == pytest.approx(1) and wrong < 0.1


def test_a_measurement_is_made_once_a_recording(registry):
    calls = []

    def measure(facts):
        calls.append(facts)
        return 3.0

    register(Entry("bumps", (Saying(r"\b(?P<a>\d+) bumps\b", "bumps"),), measure, claims.within(0.1)))
    facts = SignalFacts([np.arange(10.0)])
    assert [check(Claim("bumps", "bumps", (n,)), facts) for n in (3.0, 6.0)] == pytest.approx([1, 0], abs=1e-6)
    assert len(calls) == 1
    check(Claim("bumps", "bumps", (3.0,)), SignalFacts([np.arange(9.0)]))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sayings": (Saying("("),)}, "pattern"),
        ({"examples": {"There are 3 dips.": Claim("bumps", "bumps", (3.0,))}}, "nothing"),
        ({"counterexamples": ("There are 3 bumps.",)}, "3 bumps"),
        ({"examples": {"There are 3 bumps.": Claim("bumps", "bumps", (4.0,))}}, "3 bumps"),
    ],
)
def test_an_entry_that_does_not_read_its_examples_is_refused(registry, entry, message):
    usual = {"sayings": (Saying(r"\b(?P<a>\d+) bumps\b", "bumps"),), "measure": len, "agrees": claims.within()}
    with pytest.raises(TSLMError, match=message):
        register(Entry("bumps", **{**usual, **entry}))
    assert "bumps" not in ENTRIES and read("There are 3 bumps.") == []


def test_what_no_entry_knows_is_not_checked():
    facts = SignalFacts([np.arange(50.0)], 100.0)
    unknown = Claim("beauty", "great", (1.0,))
    assert check(unknown, facts) is None and cycles_per_sample(unknown, 100.0) == () and not is_line(unknown)


# --- what claims are worth ---
def pulse_train(bpm: float, rate: float = 100.0) -> np.ndarray:
    t = np.arange(0, 12, 1 / rate)
    phase = (t * bpm / 60) % 1
    return np.exp(-0.5 * ((phase - 0.5) * 60 / bpm / 0.015) ** 2)


@pytest.mark.parametrize(
    "text",
    [
        "The heart rate is 1,079 bpm.",
        "A cadence of 40 Hz.",
        "The RR interval is 0.01 s.",
        "It repeats every 5000 samples.",
    ],
)
def test_a_size_that_nothing_can_have_is_wrong_even_where_nothing_can_be_measured(text):
    (claim,) = read(text)
    assert check(claim, SignalFacts([np.random.default_rng(0).normal(size=100)], 1.0)) == 0


def test_a_denied_number_and_a_repeated_claim_earn_nothing():
    facts = SignalFacts([pulse_train(72)], 100.0)
    assert check(read("The heart rate is not 300 bpm.")[0], facts) is None
    x = pulse_train(72)
    ctx = Question(series=[Series("", x, x, rate=100.0)])
    told = [say(text) for text in ("72 bpm.", "72 bpm. 72 bpm. 72 bpm.", "72 bpm. It is not 300 bpm.")]
    once, thrice, vacuous = GroundingReward()(told, ctx)
    assert once == thrice == vacuous


@pytest.mark.parametrize(
    ("x", "rate", "exact", "vague", "wrong"),
    [
        (
            np.sin(np.arange(240) * 2 * np.pi / 12),
            None,
            "It repeats every 12 samples.",
            "A pattern repeats.",
            "It repeats every 7 samples.",
        ),
        (
            pulse_train(48),
            100.0,
            "The heart rate is 48 bpm.",
            "The heart rate is slow.",
            "The heart rate is 100 bpm.",
        ),
    ],
)
def test_a_vague_claim_lies_between_a_right_number_and_a_wrong_one(x, rate, exact, vague, wrong):
    ctx = Question(series=[Series("", x, x, rate=rate)])
    told = [exact, vague, wrong, f"{exact} {vague}", f"{wrong} {vague}"]
    right, less, false, both, hidden = GroundingReward()([say(text) for text in told], ctx)
    assert right > less > false and less == pytest.approx(VAGUE, abs=0.05)
    assert both == pytest.approx(right) and hidden == pytest.approx(false)


def test_weights_and_topics_are_arguments():
    judged = [(Claim("trend", "up"), 1.0), (Claim("noise", "low"), 0.0), (Claim("min", "", (1.0,)), None)]
    assert score(judged, {"trend": 3.0, "noise": 1.0}) == pytest.approx(0.75)
    assert score(judged, {"trend": 1.0, "season": 1.0}, topics=(("season", "period"),)) == pytest.approx(0.5)
    assert np.isnan(score(judged, {"min": 1.0}))


def test_denials_of_one_kind_are_one_claim():
    denials = [(Claim("trend", "up", None, True), 0.0), (Claim("trend", "down", None, True), 1.0)]
    assert score(denials, {"trend": 1.0}) == 0
    assert score([*denials[1:], (Claim("trend", "up"), 0.0)], {"trend": 1.0}) == pytest.approx(0.5)


# --- the benchmark ---
def test_plain_english_about_foreign_signals_is_read_and_judged_rightly():
    kinds = claims_benchmark.measure(each=1)["kinds"]
    for name in ("worked on", "held out"):
        rows = [row[name] for row in kinds.values() if name in row]
        count = sum(row["sentences"] for row in rows)
        told = sum(row["sentences"] * row["read"] for row in rows)
        right = sum(row["sentences"] * row["read"] * row["right"] for row in rows)
        assert count > 100 and told / count > (0.98 if name == "worked on" else 0.9) and right / told > 0.97
