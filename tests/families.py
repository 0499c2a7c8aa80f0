"""Answers that no person would give, by families: what a reward must rank below the honest answer.

A family makes an answer out of a `Case`: a recording's question, the honest answer to it and those to other
recordings. It returns None where it has nothing to say of a case. Families of junk carry token probabilities, as
only a model can tell such words from others; all others are to be seen through without.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlx_tslm.completion import Completion
from mlx_tslm.stages.base import Question

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
REASONED = STAGES[2:]


@dataclass(frozen=True)
class Case:
    """One recording.

    Args:
        stage: its name.
        question: what is asked.
        honest: the generator's own answer.
        others: honest answers to other recordings of the same stage.
        elsewhere: stage → an honest answer of it.
        rng: for what is drawn.
    """

    stage: str
    question: Question
    honest: str
    others: Sequence[str]
    elsewhere: dict[str, str]
    rng: np.random.Generator

    @property
    def reasons(self) -> str:
        """The honest rationale, without the final answer."""
        return self.honest.partition("Answer:")[0].strip()

    @property
    def label(self) -> str:
        """The honest final answer."""
        return self.honest.rpartition("Answer:")[2].strip()

    @property
    def labels(self) -> list[str]:
        """Answers that may be given, as they are written."""
        labels = self.question.labels or ()
        return [*labels.values()] if isinstance(labels, dict) else list(labels)

    def wrong(self) -> str | None:
        """A label that may be given and is not the honest one."""
        wrong = [label for label in self.labels if label != self.label]
        return str(self.rng.choice(wrong)) if wrong else None

    def answered(self, label: str | None, reasons: str | None = None) -> str | None:
        """A rationale with a final answer, as the stage writes it."""
        reasons = self.reasons if reasons is None else reasons
        if label is None:
            return None
        return f"{reasons} Answer: {label}".strip() if self.stage in REASONED else f"{reasons} {label}".strip()


Family = Callable[[Case], str | None]
FAMILIES: dict[str, tuple[Family, tuple[str, ...], bool]] = {}
"""Name → how it is made, the stages it is of, and whether it carries token probabilities."""


def family(*stages: str, junk: bool = False) -> Callable[[Family], Family]:
    def add(make: Family) -> Family:
        FAMILIES[make.__name__] = make, stages or STAGES, junk
        return make

    return add


# --- too little ---
@family()
def nothing(case: Case) -> str:
    return ""


@family()
def dots(case: Case) -> str:
    return "..."


@family()
def punctuation(case: Case) -> str:
    return "?!, ;: -- (...) .,.,.,"


@family(*REASONED)
def bare_label(case: Case) -> str | None:
    return f"Answer: {case.label}"


@family(*REASONED)
def label_without_marker(case: Case) -> str:
    return case.label


@family(*REASONED)
def no_answer(case: Case) -> str:
    return case.reasons


@family(*REASONED)
def marker_and_no_answer(case: Case) -> str:
    return f"{case.reasons} Answer:"


@family(*REASONED)
def first_words_only(case: Case) -> str | None:
    return case.answered(case.label, " ".join(case.reasons.split()[:4]))


@family(*REASONED)
def conclusion_only(case: Case) -> str | None:
    return case.answered(case.label, f"This is {case.label.replace('_', ' ')}.")


@family("stage2")
def first_sentence_only(case: Case) -> str:
    return case.honest.split(". ")[0] + "."


@family("stage2")
def half(case: Case) -> str:
    return case.honest[: len(case.honest) // 2]


@family()
def one_letter(case: Case) -> str:
    return case.honest[0]


# --- said of anything ---
@family(*REASONED)
def boilerplate(case: Case) -> str | None:
    return case.answered(
        case.label, "The time series shows a pattern. Its features are in line with what would be expected here."
    )


@family("stage2")
def boilerplate_caption(case: Case) -> str:
    return "This is a time series. It shows a pattern over time with several features of interest."


@family()
def cannot_tell(case: Case) -> str:
    return "As a language model I am not able to tell. The data are not clear enough for an answer."


@family()
def question_echoed(case: Case) -> str:
    return case.question.asked


@family()
def prompt_echoed(case: Case) -> str | None:
    return f"{case.question.pre} {case.question.post}"


@family(*REASONED)
def prompt_as_rationale(case: Case) -> str | None:
    return case.answered(case.label, " ".join(case.question.pre.split()))


@family()
def other_language(case: Case) -> str:
    return "Die Zeitreihe zeigt ein Muster, und es ist nicht klar, was daraus folgt."


@family(*REASONED)
def other_language_as_rationale(case: Case) -> str | None:
    return case.answered(case.label, "Los datos muestran un patrón claro, como se puede ver en la señal.")


@family()
def other_script(case: Case) -> str:
    return "这个时间序列显示出一个模式。Ответ неизвестен."


@family()
def numbers(case: Case) -> str:
    return " ".join(str(number) for number in range(1, 40))


@family(*REASONED)
def numbers_as_rationale(case: Case) -> str | None:
    return case.answered(case.label, ", ".join(f"{value:.2f}" for value in case.question.series[0].values[:30]))


@family(*REASONED)
def every_number(case: Case) -> str | None:
    return case.answered(
        case.label, " ".join(f"{n} bpm, {n} Hz, every {n} samples, {n} µV." for n in range(10, 100, 9))
    )


@family()
def code(case: Case) -> str:
    return "import numpy as np\nprint(np.mean(x))\n# TODO"


@family()
def markup(case: Case) -> str:
    return '<html><body class="a"></body></html> {"answer": null}'


@family(*REASONED)
def lorem_ipsum(case: Case) -> str | None:
    return case.answered(case.label, "Lorem ipsum dolor sit amet, consectetur adipiscing elit.")


# --- of something else ---
def _of(stage: str) -> Family:
    def make(case: Case) -> str | None:
        said = case.elsewhere[stage].partition("Answer:")[0].strip()
        if case.stage == stage or said == case.honest:
            return None
        return case.answered(case.label, said) if case.stage in REASONED else said

    make.__name__ = f"rationale_of_{stage}"
    return make


for _stage in STAGES:
    family()(_of(_stage))


@family("stage2", *REASONED)
def rationale_of_another_recording(case: Case) -> str | None:
    # One that says the same is as good: the first that has other words for its label is taken.
    for other in case.others:
        reasons, _, label = (part.strip() for part in other.partition("Answer:"))
        if case.stage == "stage2" and other.split(". ")[0][-12:] != case.honest.split(". ")[0][-12:]:
            return other
        if case.stage != "stage2" and label != case.label and not {label, case.label} & {"yes", "no"}:
            return case.answered(case.label, reasons)
    return None


@family(*REASONED)
def whole_answer_to_another_recording(case: Case) -> str | None:
    for other in case.others:
        label = other.rpartition("Answer:")[2].strip()
        if label != case.label and not {label, case.label} & {"yes", "no"}:
            return other
    return None


# --- the wrong answer ---
@family(*REASONED)
def wrong_label(case: Case) -> str | None:
    return case.answered(case.wrong())


@family(*REASONED)
def wrong_label_alone(case: Case) -> str | None:
    wrong = case.wrong()
    return wrong and f"Answer: {wrong}"


@family(*REASONED)
def contradicted_conclusion(case: Case) -> str | None:
    wrong = case.wrong()
    if wrong is None or wrong in ("yes", "no", "not sure", "none"):
        return None
    return case.answered(case.label, f"{case.reasons} This is {wrong.replace('_', ' ')}.")


@family("stage3", "stage4")
def concludes_and_answers_otherwise(case: Case) -> str | None:
    return case.answered(case.wrong(), f"{case.reasons} This is {case.label.replace('_', ' ')}.")


@family("stage1", *REASONED)
def label_that_is_not_allowed(case: Case) -> str | None:
    return case.answered("a cup of tea") if case.labels else None


@family("stage1", *REASONED)
def label_of_another_stage(case: Case) -> str | None:
    other = {"stage1": "walking", "stage3": "REM sleep", "stage4": "running", "stage5": "an upward trend"}
    return case.answered(other[case.stage]) if case.labels else None


@family("stage1", *REASONED)
def four_labels(case: Case) -> str | None:
    return (
        case.answered(", ".join([case.label, *(x for x in case.labels if x != case.label)][:4]))
        if len(case.labels) > 1
        else None
    )


@family(*REASONED)
def this_or_that(case: Case) -> str | None:
    wrong = case.wrong()
    return case.answered(f"{case.label} or {wrong}") if wrong else None


@family(*REASONED)
def two_answers(case: Case) -> str | None:
    wrong = case.wrong()
    return wrong and f"{case.reasons} Answer: {wrong} Answer: {case.label}"


@family(*REASONED)
def two_answers_on_lines(case: Case) -> str | None:
    wrong = case.wrong()
    return wrong and f"{case.honest}\nAnswer: {wrong}\nAnswer: {case.label}"


@family(*REASONED)
def answer_before_and_after(case: Case) -> str | None:
    wrong = case.wrong()
    return wrong and f"Answer: {wrong}. {case.honest}"


@family(*REASONED)
def not_the_label(case: Case) -> str | None:
    return case.answered(f"not {case.label}") if case.labels else None


@family(*REASONED)
def label_and_a_rider(case: Case) -> str | None:
    return case.answered(f"{case.label}, or perhaps something else entirely") if case.labels else None


@family(*REASONED)
def goes_on_after_the_answer(case: Case) -> str:
    return f"{case.honest}\nThe next question is about another recording, and its answer is not known."


@family("stage1")
def option_and_its_opposite(case: Case) -> str | None:
    wrong = case.wrong()
    return wrong and f"{case.honest} and {wrong}"


# --- repeated ---
@family("stage2", *REASONED)
def three_times(case: Case) -> str:
    return " ".join([case.honest] * 3)


@family("stage1")
def option_three_times(case: Case) -> str:
    return " ".join([case.honest] * 3)


@family(*REASONED)
def rationale_twice(case: Case) -> str | None:
    return case.answered(case.label, f"{case.reasons} {case.reasons}")


@family("stage2", *REASONED)
def every_sentence_twice(case: Case) -> str | None:
    told = " ".join(f"{one} {one}" for one in re.split(r"(?<=\.) ", case.reasons))
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family(*REASONED)
def answer_three_times(case: Case) -> str:
    return f"{case.reasons} {' '.join([f'Answer: {case.label}'] * 3)}"


@family("stage2", *REASONED)
def every_word_twice(case: Case) -> str:
    told = " ".join(f"{word} {word}" for word in case.reasons.split())
    return told if case.stage == "stage2" else f"{told} Answer: {case.label}"


@family(*REASONED)
def caught_in_a_loop(case: Case) -> str | None:
    return case.answered(case.label, f"{case.reasons} {'and the signal ' * 20}")


@family(*REASONED)
def one_claim_many_times(case: Case) -> str | None:
    first = re.split(r"(?<=\.) ", case.reasons)[0]
    return case.answered(case.label, f"{case.reasons} {' '.join([first] * 4)}")


# --- claims that cannot be, say nothing, or deny each other ---
IMPOSSIBLE = {
    "stage2": "It has a season of 900000 samples.",
    "stage3": "The cadence is 90 steps per second.",
    "stage4": "A rhythm of 4000 Hz leads.",
    "stage5": "The heart rate is 1079 bpm.",
}
VACUOUS = {
    "stage2": "The period is not 913 samples.",
    "stage3": "The cadence is not 77 Hz.",
    "stage4": "The frequency is not 913 Hz.",
    "stage5": "The heart rate is not 300 bpm.",
}


def _with(case: Case, more: str) -> str | None:
    return (
        f"{case.honest} {more}" if case.stage == "stage2" else case.answered(case.label, f"{case.reasons} {more}")
    )


@family("stage2", *REASONED)
def impossible_size(case: Case) -> str | None:
    return _with(case, IMPOSSIBLE[case.stage])


@family("stage2", *REASONED)
def impossible_size_alone(case: Case) -> str | None:
    said = IMPOSSIBLE[case.stage]
    return said if case.stage == "stage2" else case.answered(case.label, said)


@family("stage2", *REASONED)
def vacuous_denial(case: Case) -> str | None:
    return _with(case, VACUOUS[case.stage])


@family("stage2", *REASONED)
def vacuous_denial_alone(case: Case) -> str | None:
    said = VACUOUS[case.stage]
    return said if case.stage == "stage2" else case.answered(case.label, said)


@family("stage2", *REASONED)
def many_vacuous_denials(case: Case) -> str | None:
    kind = VACUOUS[case.stage]
    return _with(case, " ".join(re.sub(r"\d+", str(number), kind) for number in range(300, 900, 61)))


@family("stage2", "stage5")
def everything_denied(case: Case) -> str | None:
    said = {
        "stage2": "It does not rise. It does not fall. It is not noisy. The noise is not low. It has no season.",
        "stage5": "The heart is not slow. The heart is not fast. The rhythm is not regular. "
        "The rhythm is not irregular.",
    }[case.stage]
    return said if case.stage == "stage2" else case.answered(case.label, said)


@family("stage2", "stage4", "stage5")
def everything_claimed(case: Case) -> str | None:
    said = {
        "stage2": "It rises. It falls. It stays flat. It has a season of 7 samples. It has a season of 12 samples. "
        "The noise is low. The noise is high.",
        "stage4": "Delta dominates. Theta dominates. Alpha dominates. Beta dominates. A rhythm of 2 Hz leads. "
        "A rhythm of 10 Hz leads.",
        "stage5": "The heart rate is 40 bpm. The heart rate is 80 bpm. The heart rate is 120 bpm. "
        "The rhythm is regular. The rhythm is irregular.",
    }[case.stage]
    return said if case.stage == "stage2" else case.answered(case.label, said)


@family("stage2", "stage5")
def contradicts_itself(case: Case) -> str | None:
    more = {
        "stage2": "It does rise. It does fall. There is no season. A pattern repeats every 11 samples.",
        "stage5": "The rhythm is regular. The rhythm is irregular.",
    }
    return _with(case, more[case.stage])


@family("stage2", "stage3", "stage4", "stage5")
def numbers_times_three(case: Case) -> str | None:
    told = re.sub(r"\d+(?:\.\d+)?", lambda found: f"{3 * float(found[0]):g}", case.reasons)
    if told == case.reasons:
        return None
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage3", "stage4", "stage5")
def vague(case: Case) -> str | None:
    said = {
        "stage3": "Gravity lies somewhere, and the device moves in some way.",
        "stage4": "Some rhythm leads, of some amplitude.",
        "stage5": "The heart rate is within some range, and the RR intervals have some length.",
    }
    return case.answered(case.label, said[case.stage])


@family("stage5")
def vague_rate_for_a_number(case: Case) -> str | None:
    if case.label.endswith("bpm"):
        return None
    told = re.sub(
        r"The ventricles beat (\d+) times a minute\.|The mean heart rate is (\d+) bpm\.",
        lambda found: (
            "The heart rate is "
            + (
                "slow."
                if int(found[1] or found[2]) < 60
                else "fast."
                if int(found[1] or found[2]) > 100
                else "normal."
            )
        ),
        case.reasons,
    )
    return case.answered(case.label, told)


@family("stage2")
def vague_period_for_a_number(case: Case) -> str | None:
    told = re.sub(
        r"It has a season of \d+ samples|A pattern repeats every \d+ samples", "A pattern repeats", case.honest
    )
    return told if told != case.honest else None


@family("stage5")
def wide_ranges_for_numbers(case: Case) -> str | None:
    told = re.sub(
        r"The ventricles beat \d+ times a minute\.|The mean heart rate is \d+ bpm\.",
        "The heart rate is 30 to 250 bpm.",
        case.reasons,
    )
    return case.answered(case.label, told)


@family("stage2", "stage5")
def supposed_only(case: Case) -> str | None:
    told = " ".join(f"If it were so, {one[0].lower()}{one[1:]}" for one in re.split(r"(?<=\.) ", case.reasons))
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED)
def asked_only(case: Case) -> str | None:
    told = case.reasons.replace(".", "?") if case.stage == "stage2" else re.sub(r"\.(?= |$)", "?", case.reasons)
    return told if case.stage == "stage2" else case.answered(case.label, told)


# --- broken text ---
@family()
def broken_character(case: Case) -> str:
    at = int(case.rng.integers(1, max(2, len(case.reasons or case.honest))))
    return f"{case.honest[:at]}\ufffd{case.honest[at:]}"


@family("stage2", *REASONED)
def many_broken_characters(case: Case) -> str:
    return re.sub(r"[aeiou]", "\ufffd", case.reasons) + case.honest[len(case.reasons) :]


@family("stage2", *REASONED)
def control_characters(case: Case) -> str:
    return case.honest.replace(" ", " \x00\x07", 3)


@family("stage2", *REASONED)
def cut_in_a_sentence(case: Case) -> str | None:
    words = case.reasons.split()
    told = " ".join([*words[: len(words) // 2], "of the"])
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED)
def words_left_out(case: Case) -> str | None:
    told = " ".join(case.reasons.split()[::2])
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED)
def reversed_words(case: Case) -> str | None:
    told = " ".join(reversed(case.reasons.split()))
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED)
def reversed_letters(case: Case) -> str | None:
    told = case.reasons[::-1]
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED)
def no_blanks(case: Case) -> str | None:
    told = case.reasons.replace(" ", "")
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED)
def no_vowels(case: Case) -> str | None:
    told = re.sub(r"[aeiou]", "", case.reasons)
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family()
def unfinished(case: Case) -> str:
    return case.honest[: -max(1, len(case.label) // 2)]


# --- junk: what only a model can tell from other words ---
JUNK = [
    "lamp",
    "vor",
    "turtle",
    "beneath,",
    "quickly",
    "orange",
    "seven",
    "of",
    "plinth",
    "gravel",
    "ut",
    "Tuesday",
]


def _junk(case: Case, count: int) -> str:
    return " ".join(str(word) for word in case.rng.choice(JUNK, count))


@family("stage2", *REASONED, junk=True)
def words_in_random_order(case: Case) -> str | None:
    words = case.reasons.split()
    told = " ".join(str(word) for word in case.rng.permutation(words))
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED, junk=True)
def eight_junk_words_in_the_middle(case: Case) -> str | None:
    words = case.reasons.split()
    told = " ".join([*words[: len(words) // 2], _junk(case, 8), *words[len(words) // 2 :]])
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED, junk=True)
def junk_first(case: Case) -> str | None:
    told = f"{_junk(case, 8)}. {case.reasons}"
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED, junk=True)
def junk_last(case: Case) -> str | None:
    told = f"{case.reasons} {_junk(case, 8)}."
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED, junk=True)
def junk_alone(case: Case) -> str | None:
    told = f"{_junk(case, 15)}."
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED, junk=True)
def broken_words(case: Case) -> str | None:
    words = case.reasons.split()
    for at in case.rng.choice(len(words), min(6, len(words)), replace=False):
        letters = list(words[at])
        case.rng.shuffle(letters)
        words[at] = "".join(letters) + "q"
    told = " ".join(words)
    return told if case.stage == "stage2" else case.answered(case.label, told)


@family("stage2", *REASONED, junk=True)
def sentences_interleaved(case: Case) -> str | None:
    words = case.reasons.split()
    half = (len(words) + 1) // 2
    told = " ".join(word for pair in zip(words[:half], [*words[half:], ""], strict=False) for word in pair).strip()
    return told if case.stage == "stage2" else case.answered(case.label, told)


def completion(case: Case, text: str, honest: bool = False, junk: bool = False, cut: bool = False) -> Completion:
    """The answer as a search would hand it over: with token probabilities where junk is among them."""
    words = text.split() or [""]
    known = set(case.honest.split())
    before = len(text.partition("Answer:")[0].split()) if "Answer:" in text else len(words)
    logprobs = entropies = None
    if honest or junk:
        entropies = case.rng.uniform(0.0, 1.5, len(words))
        # An honest word is drawn from a distribution of that entropy; junk is what nothing led up to.
        ordered = [
            word in known and (honest or words[at - 1 : at + 1] == _pair(case, words[at - 1], word))
            for at, word in enumerate(words)
        ]
        drawn = -entropies * case.rng.exponential(1.0, len(words))
        logprobs = np.where(ordered, drawn, -entropies - case.rng.uniform(3.0, 9.0, len(words)))
        logprobs[before:] = -case.rng.uniform(0.0, 6.0, len(words) - before)  # a label may be an unlikely one
    return Completion(
        text,
        tuple(range(len(words))),
        -float(len(words)) if logprobs is None else float(logprobs.sum()),
        case.question.parse(text),
        not cut,
        logprobs,
        entropies,
    )


def _pair(case: Case, first: str, second: str) -> list[str] | None:
    """These two words, where the honest answer has them one after the other."""
    words = case.honest.split()
    return [first, second] if (first, second) in pairwise(words) else None
