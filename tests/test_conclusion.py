"""What final answers claim: beside the other answers that were allowed, and beside their own rationale."""

import numpy as np
import pytest

from mlx_tslm import stages
from mlx_tslm.completion import Completion
from mlx_tslm.rewards import CoherenceReward, FormatReward, GroundingReward, default_reward
from mlx_tslm.rewards.conclusion import concluded, judged_answer

RHYTHMS = ("sinus rhythm", "sinus bradycardia", "sinus tachycardia", "atrial fibrillation", "sinus arrhythmia")


def say(text, **fields):
    return Completion(text, tuple(range(len(text.split()))), -1.0, **fields)


def beats(intervals) -> list[np.ndarray]:
    """12 leads at 100 Hz: a P, an R and a T wave a beat."""
    t = np.arange(1000) / 100
    x = 0.01 * np.random.default_rng(0).normal(size=len(t))
    for at in np.cumsum(intervals):
        for shift, height, width in ((-0.16, 0.15, 0.02), (0.0, 1.0, 0.012), (0.25, 0.3, 0.04)):
            x += height * np.exp(-0.5 * ((t - at - shift) / width) ** 2)
    return [x] * 12


@pytest.mark.parametrize(
    ("bpm", "true"), [(48, "sinus bradycardia"), (72, "sinus rhythm"), (125, "sinus tachycardia")]
)
def test_a_label_means_what_sets_it_apart_from_the_others(bpm, true):
    leads = beats(np.full(30, 60 / bpm))
    asked = stages.get("stage5").prompt(leads, "What rhythm is this?", answers=RHYTHMS)
    scores = default_reward(asked.stage).score([say(f"Answer: {label}") for label in RHYTHMS], asked).total
    assert RHYTHMS[int(scores.argmax())] == true and np.sum(scores > scores.max() - 0.05) == 1
    # With no other sinus rhythm on the list, it is the one that fits.
    fewer = stages.get("stage5").prompt(
        leads, "What rhythm is this?", answers=("sinus rhythm", "atrial fibrillation")
    )
    (claim,) = judged_answer("atrial fibrillation", fewer)
    assert claim[1] < 0.2


def test_an_arrhythmia_that_follows_the_breath_is_told_from_one_without_order():
    at, smooth = 0.0, []
    while at < 12:
        smooth.append(0.85 * (1 + 0.17 * np.sin(2 * np.pi * 0.22 * at)))
        at += smooth[-1]
    asked = stages.get("stage5").prompt(beats(smooth), "What rhythm is this?", answers=RHYTHMS)
    agreement = {label: judged_answer(label, asked)[0][1] for label in RHYTHMS}
    assert max(agreement, key=agreement.get) == "sinus arrhythmia" and agreement["atrial fibrillation"] < 0.3


@pytest.mark.parametrize(
    ("rationale", "answer", "agrees"),
    [
        ("This is sinus tachycardia.", "sinus rhythm", False),
        ("This is sinus tachycardia.", "sinus tachycardia", True),
        ("This is not sinus rhythm. It is sinus arrhythmia.", "sinus arrhythmia", True),
        ("This is not sinus rhythm.", "sinus rhythm", False),
        ("At first it looks like sinus rhythm, but this is atrial fibrillation.", "atrial fibrillation", True),
        ("The rate is 72 bpm.", "sinus rhythm", None),
    ],
)
def test_an_answer_has_to_agree_with_its_rationale(rationale, answer, agrees):
    asked = stages.get("stage5").prompt(beats(np.full(20, 0.5)), "What rhythm is this?", answers=RHYTHMS)
    assert concluded(rationale, answer, asked) is agrees
    judged = dict(GroundingReward().check(say(f"{rationale} Answer: {answer}"), asked))
    assert any(claim.kind == "conclusion" for claim in judged) == (agrees is False)


@pytest.mark.parametrize(
    ("question", "said", "yes"),
    [
        ("Does this ECG show symptoms of sinus tachycardia?", "This is sinus tachycardia.", True),
        ("Does this ECG show symptoms of sinus tachycardia?", "This is not sinus tachycardia.", False),
        ("Is the rhythm regular?", "The rhythm is regular.", True),
        ("Is the rhythm regular?", "The rhythm is not regular.", False),
        ("Is the heart rate above 100?", "The rate is not above 100.", False),
    ],
)
def test_yes_and_no_have_to_agree_with_the_rationale_too(question, said, yes):
    asked = stages.get("stage5").prompt(beats(np.full(20, 0.5)), question, answers=("yes", "no"))
    assert concluded(said, "yes" if yes else "no", asked) is True
    assert concluded(said, "no" if yes else "yes", asked) is False


# --- token probabilities ---
def told(text, surprise, answer_at=None):
    count = len(surprise)
    entropies = np.full(count, 1.0)
    return Completion(
        text, tuple(range(count)), -1.0, None, True, np.array(surprise) - entropies, entropies, answer_at
    )


def test_coherence_is_the_lowest_mean_over_a_window_up_to_the_answer():
    asked = stages.get("stage5").prompt(beats(np.full(20, 0.8)))
    fine, broken = [0.5, -0.5] * 10, [0.5, -0.5] * 5 + [-6.0] * 6 + [0.5, -0.5] * 2
    reward = CoherenceReward(window=6)
    values = reward([told("a", fine), told("a", broken), say("a")], asked)
    assert values[:2] == pytest.approx([0, -6]) and np.isnan(values[2])
    # What stands behind the marker may be as surprising as it likes, whether or not it is known where that is.
    late = [0.0] * 12 + [-9.0] * 4
    assert reward([told("a b c", late, answer_at=12)], asked) == 0
    assert reward([told("It is so and so, as it was. Answer: flutter", late, answer_at=None)], asked)[0] > -2
    given = told("a", [np.nan] * 3 + fine)
    assert reward([given], asked) == pytest.approx(0)


@pytest.mark.parametrize(
    ("text", "less"),
    [
        ("The rhythm is regular. Answer: yes", False),
        ("The rhythm is regul\ufffdar. Answer: yes", True),
        ("The rhythm is regular. The rhythm is regular. Answer: yes", True),
        ("The rhythm is regular. Answer: yes Answer: yes", True),
        ("The rhythm is regular. Answer: no Answer: yes", True),
        ("The heart rate is not 300 bpm. Answer: yes", True),
        ("The rhythm of the. Answer: yes", True),
        ("Each beat is preceded by a wave, which a cardiologist might call normal. Answer: yes", False),
    ],
)
def test_the_form_of_a_text(text, less):
    asked = stages.get("stage5").prompt(beats(np.full(20, 0.8)), "Is the rhythm regular?", answers=("yes", "no"))
    (value,) = FormatReward()([say(text, answer=asked.parse(text))], asked)
    assert value < 1 if less else value == 1
