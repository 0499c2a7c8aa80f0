"""Claims about heart beats: rate, rhythm, intervals, and what an ECG shows."""

from operator import attrgetter
from typing import NamedTuple

import numpy as np

from mlx_tslm.rewards.claims.claim import Claim, Entry, Match, Saying, Stated
from mlx_tslm.rewards.claims.grades import close, line_of_rate, ramp
from mlx_tslm.rewards.claims.lexicon import ABOUT, ADVERB, IS, PER_MINUTE, RANGE, SECONDS, numbers, unit
from mlx_tslm.rewards.facts.physiology import Beats
from mlx_tslm.rewards.facts.signal import FloatArray, SignalFacts

# --- rate ---
_RATE = (
    r"(?:heart ?(?:beat )?(?:rate|frequency)|heart ?beat|ventricular rate|pulse(?: rate)?|heart|beat frequency|hr)"
)
_NOT_BEATS = (
    r"\b(?:fibrillat\w+|flutter|f[- ]?waves?|waves?|breath\w*|respirat\w*|steps?|strides?"
    r"|atrial rate|spikes?|cycles?)\b"
)
_PM = "per minute"


def _agrees_on_rate(claim: Claim, beats: Beats) -> float:
    if claim.numbers is not None:
        return close(claim.numbers, beats.rate)
    fast, slow = ramp(beats.rate, 95, 105), 1.0 - ramp(beats.rate, 55, 63)
    return {"fast": fast, "slow": slow, "normal": 1.0 - max(fast, slow)}[claim.value]


def _bpm(*ends: float, negated: bool = False) -> Claim:
    return Claim("heart_rate", _PM, ends, negated)


_fast, _slow, _normal = (Claim("heart_rate", value) for value in ("fast", "slow", "normal"))

HEART_RATE = Entry(
    kind="heart_rate",
    sayings=(
        Saying(
            rf"\b(?:{_RATE}\s+{ABOUT})?{RANGE}\s*(?:bpm\b|(?:heart ?)?beats\s*{PER_MINUTE})",
            _PM,
            unless=r"\batrial rate\b",
        ),
        Saying(rf"\b{RANGE}\s*(?:/|per)\s*min(?:ute)?\b", _PM, unless=_NOT_BEATS),
        Saying(
            rf"\b{_RATE}(?:\s+|\s*[:=]\s*)(?:(?!above|below|over|under)[\w'’-]+\s+)?{ABOUT}{RANGE}\b(?!\s*(?:%|ms|s\b|hz"
            rf"|\.\d))(?:\s*{PER_MINUTE})?",
            _PM,
        ),
        Saying(rf"\bbeats?\s+{ABOUT}{RANGE}\s+times\s+{PER_MINUTE}", _PM),
        Saying(
            r"\bbradycardi[ac]\b|\bbradycardia\b|\b(?:slow|low)(?:ed)? (?:heart rate|pulse|heart ?beat"
            r"|ventricular rate)\b",
            "slow",
        ),
        Saying(
            r"\btachycardi[ac]\b|\b(?:fast|rapid|elevated|high|racing|accelerated) (?:heart rate|pulse"
            r"|heart ?beat|ventricular rate|heart)\b",
            "fast",
        ),
        Saying(
            rf"\b(?:{_RATE}|ventricles?)\s+(?:{IS}|beats?|is beating|races)\s*{ADVERB}(?:slow(?:ly|ed)?|low"
            r"|below 60)\b",
            "slow",
        ),
        Saying(
            rf"\b(?:{_RATE}|ventricles?)\s+(?:{IS}|beats?|is beating)\s*{ADVERB}(?:fast|rapid(?:ly)?|elevated"
            r"|high|quick(?:ly)?|accelerated|above 100)\b|\bheart (?:races|is racing)\b",
            "fast",
        ),
        Saying(
            rf"\b(?:{_RATE}|ventricles?)\s+(?:{IS}|beats?|is beating)\s*(?:normally fast|at (?:a"
            r"|the) normal (?:rate|speed|pace|frequency))\b",
            "normal",
        ),
        Saying(
            r"\bneither (?:too )?(?:slow|low|fast|high)(?:ly)? n?or (?:too )?(?:slow|low|fast|high)(?:ly)?\b",
            "normal",
            denies=True,
        ),
        Saying(rf"\bthe rate\s+{IS}\s*{ADVERB}(?:slow|low|below 60)\b", "slow"),
        Saying(rf"\b{_RATE} (?:lies|falls|stays)? ?(?:with)?in (?:the|a) normal\b", "normal"),
        Saying(rf"\bthe rate\s+{IS}\s*{ADVERB}(?:fast|high|rapid|elevated|above 100)\b", "fast"),
        Saying(r"\bthe (?:heart )?rate (?:is|lies|stays) between 60 and 100\b", "normal"),
        Saying(
            rf"\bnormal (?:{_RATE}|rate)\b|\bthe rate is (?:\w+ly |within (?:the )?)?normal\b"
            rf"|\b{_RATE} (?:{IS}\s*)?(?:with)?(?:in )?(?:the |a )?normal\b",
            "normal",
        ),
        Saying(rf"\batrial rate\s+(?:of\s+)?{ABOUT}{RANGE}(?:\s*(?:bpm\b|{PER_MINUTE}))?", None),
    ),
    measure=attrgetter("beats"),
    agrees=_agrees_on_rate,
    line=line_of_rate,
    possible={_PM: (10.0, 400.0)},
    number_of="heart_rate",
    examples={
        "Heart rate: 72 bpm": _bpm(72.0),
        "The heart rate is approximately 75 beats per minute.": _bpm(75.0),
        "a rate between 60 and 100 bpm": _bpm(60.0, 100.0),
        "ventricular rate around 110": _bpm(110.0),
        "The ventricles beat 70 times a minute.": _bpm(70.0),
        "The rate is 72/min.": _bpm(72.0),
        "The pulse is 64.": _bpm(64.0),
        "About 88 heartbeats a minute.": _bpm(88.0),
        "HR 95 bpm, regular.": _bpm(95.0),
        "The heart rate is not 90 bpm.": _bpm(90.0, negated=True),
        "Sinus tachycardia.": _fast,
        "Tachycardia is ruled out.": Claim("heart_rate", "fast", negated=True),
        "The heart beats fast.": _fast,
        "The heart rate is elevated.": _fast,
        "There is bradycardia.": _slow,
        "A slow heart rate.": _slow,
        "The heart beats slowly.": _slow,
        "The heart rate is normal.": _normal,
        "The heart rate is within the normal range.": _normal,
    },
    counterexamples=(
        "Fibrillatory waves at 350-600/min",
        "An atrial rate of 300 bpm.",
        "He breathes 15 times a minute, a respiratory rate of 15/min.",
        "A cadence of 110 steps per minute.",
        "The sampling rate is 100 Hz.",
        "The rate is 2 Hz.",
        "Is the heart rate 72 bpm?",
        "An increase in heart rate.",
    ),
)


# --- rhythm ---
_regular, _irregular = Claim("rhythm", "regular"), Claim("rhythm", "irregular")
_BEATING = (
    r"(?:rhythm|(?:rr|r-r)?[- ]?intervals?|(?:heart ?)?beats?|pulse|heart|qrs complexes"
    r"|r[- ]?(?:peaks|waves)|ventricular response)"
)


def _beating(facts: SignalFacts) -> Beats | None:
    return facts.beats if facts.beats is not None and len(facts.beats.times) >= 5 else None


def _agrees_on_rhythm(claim: Claim, beats: Beats) -> float:
    irregular = ramp(beats.irregularity, 0.05, 0.12)
    return irregular if claim.value == "irregular" else 1.0 - irregular


RHYTHM = Entry(
    kind="rhythm",
    sayings=(
        Saying(
            r"\birregular\w*(?:\s+irregular)?\b|\batrial fibrillation\b|\bsinus arrhythmia\b|\barrhythmi[ac]\b",
            "irregular",
            unless=r"\b(?:season|noise|cycle|pattern)",
        ),
        Saying(
            rf"\b{_BEATING}\s+(?:[\w'’-]+\s+){{0,4}}?(?:vary|varies|differs?|different|of different lengths?"
            r"|unlike|fluctuates?|scatters?|jumps?|uneven(?:ly)?|erratic|chaotic|all over the place"
            rf"|unequal)\b|\b(?:uneven|erratic|chaotic|unequal|varying)(?:ly)? (?:spaced )?{_BEATING}\b",
            "irregular",
        ),
        Saying(
            rf"\b(?P<said>regular(?:ly|ity)?)\b(?=[^.]{{0,30}}\b(?:rhythm|rr|r-r|interval|beat|heart|spac"
            rf"|pulse))|\b{_BEATING}\s+(?:[\w.'’-]+\s+){{0,6}}?(?P<said2>regular(?:ly)?)\b|\bsinus rhythm\b",
            "regular",
        ),
        Saying(
            rf"\b(?:even(?:ly)?|equal(?:ly)?|uniform(?:ly)?|steady|constant) (?:spaced )?{_BEATING}\b"
            rf"|\b{_BEATING}\s+(?:[\w'’-]+\s+){{0,4}}?(?:evenly|equally|uniformly|the same|alike|identical"
            r"|similar|steady|constant|uniform|even|like clockwork|equal)\b",
            "regular",
            unless="rate",
        ),
    ),
    measure=_beating,
    agrees=_agrees_on_rhythm,
    examples={
        "RR intervals are regular.": _regular,
        "Normal sinus rhythm.": _regular,
        "RR intervals of 0.58 to 0.58 s are regular.": _regular,
        "A regular rhythm.": _regular,
        "The beats are evenly spaced.": _regular,
        "The heart beats regularly.": _regular,
        "The rhythm is steady.": _regular,
        "The rhythm is irregularly irregular.": _irregular,
        "There is no evidence of atrial fibrillation.": Claim("rhythm", "irregular", negated=True),
        "The RR intervals vary.": _irregular,
        "The heart beats irregularly.": _irregular,
        "Sinus arrhythmia.": _irregular,
        "The rhythm is not regular.": Claim("rhythm", "regular", negated=True),
        "The beats come at uneven intervals.": _irregular,
        "An irregular pulse.": _irregular,
        "Without any doubt the rhythm is irregular.": _irregular,
    },
    counterexamples=(
        "It comes back at regular times.",
        "The heart rate is 72 bpm.",
        "Is the rhythm regular?",
        "The season is regular.",
        "The heart rate is constant.",
    ),
)


# --- intervals ---
def _seconds(match: Match) -> Stated | None:
    ends = numbers(match) or ()
    return "second", tuple(SECONDS[unit(match["unit"])] * end for end in ends)


def _intervals(facts: SignalFacts) -> FloatArray | None:
    return facts.atria.intervals if facts.atria is not None else None


def _agrees_on_intervals(claim: Claim, measured: FloatArray) -> float | None:
    if claim.numbers is None:
        return None
    if len(claim.numbers) == 1:
        return close(claim.numbers, float(np.median(measured)))
    shortest, longest = claim.numbers
    return close([shortest], float(measured.min())) * close([longest], float(measured.max()))


def _rr(*ends: float, negated: bool = False) -> Claim:
    return Claim("intervals", "second", ends, negated)


_S = r"(?P<unit>ms|milliseconds?|s(?:ec(?:onds?)?)?)\b"
_RR = (
    r"(?:(?:rr|r-r)[- ]?(?:intervals?|distances?)?|beat[- ]to[- ]beat (?:intervals?|times?)"
    r"|(?:intervals?|time|distance|gaps?) between (?:\w+ ){0,2}?(?:beats|r[- ](?:waves|peaks)"
    r"|heartbeats)|(?:time|distance|interval) from (?:one "
    r"|each )?(?:heart ?)?beat to (?:the )?(?:next|beat|other)(?: one)?|cycle length|between (?:the "
    r"|two |any two )?(?:heart ?)?beats (?:there (?:are|is)|lie|pass(?:es)?))"
)

INTERVALS = Entry(
    kind="intervals",
    sayings=(
        Saying(rf"\b{_RR}\s*(?:(?:[\w'’-]+\s+){{0,3}}?){ABOUT}{RANGE}\s*{_S}", _seconds),
        Saying(
            r"\b(?:the )?(?:beats|r[- ](?:waves|peaks)"
            rf"|heartbeats)\s+(?:[\w'’-]+\s+)?{ABOUT}{RANGE}\s*{_S}\s+apart",
            _seconds,
        ),
        Saying(rf"\b(?:heart ?)?beats?\s+(?:[\w'’-]+\s+){{0,5}}?(?:after|every)\s+{ABOUT}{RANGE}\s*{_S}", _seconds),
        Saying(
            rf"\b(?:a|one|each|heart)\s+(?:heart ?)?beats?\s+(?:[\w'’-]+\s+)?every\s+{ABOUT}{RANGE}\s*{_S}",
            _seconds,
        ),
    ),
    measure=_intervals,
    agrees=_agrees_on_intervals,
    possible={"second": (0.15, 6.0)},
    examples={
        "RR intervals of 0.75 to 1.01 s": _rr(0.75, 1.01),
        "an RR interval of about 800 ms": _rr(0.8),
        "The R-R interval is 0.9 seconds.": _rr(0.9),
        "RR intervals are between 600 and 800 ms.": _rr(0.6, 0.8),
        "The interval between beats is 0.7 s.": _rr(0.7),
        "The beats are 0.85 s apart.": _rr(0.85),
        "A beat every 0.8 s.": _rr(0.8),
        "RR: 0.82 s": _rr(0.82),
        "The time between two heartbeats is roughly 1 second.": _rr(1.0),
        "R-R intervals range from 0.6 to 1.1 s.": _rr(0.6, 1.1),
        "The RR interval is not 0.5 s.": _rr(0.5, negated=True),
        "The R peaks are about 900 ms apart.": _rr(0.9),
    },
    counterexamples=(
        "RR intervals are regular.",
        "The QRS lasts 0.1 s.",
        "Is the RR interval 0.8 s?",
        "The recording takes 10 s.",
        "The heart rate is 72 bpm.",
    ),
)


# --- atria ---
class Rhythms(NamedTuple):
    """What tells rhythms apart, each 0 … 1; 0.5 where it was not seen.

    Attributes:
        regular, normal, fast, slow: of the beats.
        breath: RR intervals that lengthen and shorten smoothly, as they do with the breath.
        p_waves, flutter: what stands before the QRS complexes.
    """

    regular: float
    normal: float
    fast: float
    slow: float
    breath: float
    p_waves: float
    flutter: float

    @classmethod
    def of(cls, facts: SignalFacts) -> "Rhythms | None":
        """Those of a recording; None where no beats are found."""
        beats, enough, atria = facts.beats, _beating(facts), facts.atria
        if beats is None:
            return None
        regular = _agrees_on_rhythm(_regular, enough) if enough is not None else 0.5
        normal, fast, slow = (_agrees_on_rate(one, beats) for one in (_normal, _fast, _slow))
        if atria is None:
            return cls(regular, normal, fast, slow, 0.5, 0.5, 0.5)
        flutter = regular * ramp(atria.sawtooth, 8.5, 12.5)
        p_waves = ramp(atria.p_wave, 9.0, 17.0) * (1.0 - flutter)
        return cls(regular, normal, fast, slow, ramp(atria.breath, 0.6, 0.9), p_waves, flutter)

    def fit(self, finding: str) -> float:
        """How well they are those of a finding."""
        sinus = self.regular * (1.0 - (self.flutter if self.flutter != 0.5 else 0.0))
        in_turn = float(np.sqrt(self.breath * self.p_waves))
        return {
            "sinus rhythm": sinus * self.normal,
            "sinus tachycardia": sinus * self.fast,
            "sinus bradycardia": sinus * self.slow,
            "sinus arrhythmia": (1.0 - self.regular) * in_turn,
            "atrial fibrillation": (1.0 - self.regular) * (1.0 - in_turn),
            "atrial flutter": self.regular * self.flutter,
        }[finding]


def _rhythms(facts: SignalFacts) -> Rhythms | None:
    return Rhythms.of(facts)


def _seen(facts: SignalFacts) -> Rhythms | None:
    return Rhythms.of(facts) if facts.atria is not None else None


def _agrees_on_atria(claim: Claim, seen: Rhythms) -> float:
    return {
        "P waves": seen.p_waves,
        "flutter waves": seen.flutter,
        "fibrillatory waves": seen.fit("atrial fibrillation"),
    }[claim.value]


_p_waves, _flutter_waves, _fibrillation = (
    Claim("atria", value) for value in ("P waves", "flutter waves", "fibrillatory waves")
)

ATRIA = Entry(
    kind="atria",
    sayings=(
        Saying(r"\b(?:normal |regular |sinus |distinct |clear |upright |discernible )*p[- ]?waves?\b", "P waves"),
        Saying(r"\bin (?:place|lieu) of (?:the )?p[- ]?waves?\b", "P waves", denies=True),
        Saying(
            r"\b(?:saw[- ]?tooth\w*|flutter[- ]waves?|f[- ]waves)(?: (?:waves?|pattern|baseline))?\b",
            "flutter waves",
        ),
        Saying(
            r"\bbaseline (?:quivers?|trembles?|fibrillates?|undulates?)\b|\bfibrillat(?:ory|ion) waves?\b",
            "fibrillatory waves",
        ),
    ),
    measure=_seen,
    agrees=_agrees_on_atria,
    examples={
        "A P wave precedes every QRS complex.": _p_waves,
        "P waves are present.": _p_waves,
        "Each QRS is preceded by a P wave.": _p_waves,
        "Upright P waves in lead II.": _p_waves,
        "No P waves are seen.": Claim("atria", "P waves", None, True),
        "P waves are absent.": Claim("atria", "P waves", None, True),
        "There are no discernible P waves.": Claim("atria", "P waves", None, True),
        "Without P waves.": Claim("atria", "P waves", None, True),
        "The baseline is a sawtooth.": _flutter_waves,
        "Flutter waves are visible.": _flutter_waves,
        "A sawtooth pattern is seen.": _flutter_waves,
        "The baseline quivers.": _fibrillation,
        "Fibrillatory waves are seen.": _fibrillation,
    },
    counterexamples=(
        "Are there P waves?",
        "The R waves are tall.",
        "The rhythm is regular.",
        "T waves are inverted.",
    ),
)


# --- how RR intervals vary ---
def _agrees_on_variability(claim: Claim, seen: Rhythms) -> float:
    in_turn = float(np.sqrt(seen.breath * seen.p_waves))
    return (1.0 - seen.regular) * (in_turn if claim.value == "in turn" else 1.0 - in_turn)


_in_turn, _no_order = Claim("variability", "in turn"), Claim("variability", "random")

VARIABILITY = Entry(
    kind="variability",
    sayings=(
        Saying(
            r"\b(?:lengthens?|shortens?) and (?:shortens?|lengthens?)(?: in turn)?"
            r"(?:,? with (?:the|each) breath\w*)?"
            r"|\b(?:var(?:y|ies|ying)|changes?) (?:\w+ )?with (?:the |each )?(?:breath\w*|respiration)"
            r"|\brespiratory (?:variation|sinus arrhythmia)\b",
            "in turn",
        ),
        Saying(
            r"\b(?:follows?|following|in|with|without) no (?:\w+ )?(?:order|pattern)\b|\birregularly irregular\b"
            r"|\bwithout (?:any )?(?:order|pattern)\b",
            "random",
            denies=True,
            unless=r"series|trend|season",
        ),
        Saying(r"\b(?:beats?|intervals?|ventricles?) [^.;]{0,25}?\b(?:at random|randomly|chaotically)\b", "random"),
    ),
    measure=_seen,
    agrees=_agrees_on_variability,
    examples={
        "RR intervals lengthen and shorten in turn, with the breath.": _in_turn,
        "The intervals vary with respiration.": _in_turn,
        "The rate changes with the breath.": _in_turn,
        "There is respiratory variation.": _in_turn,
        "There is no respiratory variation.": Claim("variability", "in turn", None, True),
        "RR intervals of 0.4 to 1.1 s follow no order.": _no_order,
        "The RR intervals follow no pattern.": _no_order,
        "The beats come at random.": _no_order,
        "The intervals change randomly.": _no_order,
        "The beats do not come at random.": Claim("variability", "random", None, True),
        "The beats come without order.": _no_order,
    },
    counterexamples=(
        "Do the intervals vary with the breath?",
        "The rhythm is irregular.",
        "The RR intervals vary.",
        "No pattern repeats.",
        "The series follows no pattern.",
    ),
)


# --- findings: the rhythms that an ECG shows ---
_FINDINGS = (
    *("sinus rhythm", "sinus tachycardia", "sinus bradycardia", "sinus arrhythmia"),
    *("atrial fibrillation", "atrial flutter"),
)


def _found(value: str, negated: bool = False) -> Claim:
    return Claim("finding", value, None, negated)


FINDING = Entry(
    kind="finding",
    sayings=(Saying(r"\b(?:atrial |auricular )?flutter\b(?! waves)", lambda match: ("atrial flutter", None)),),
    measure=_rhythms,
    agrees=lambda claim, seen: seen.fit(claim.value),
    answers={name: name for name in _FINDINGS},
    examples={
        "There is atrial flutter.": _found("atrial flutter"),
        "The ECG shows atrial flutter.": _found("atrial flutter"),
        "This looks like flutter.": _found("atrial flutter"),
        "Signs of atrial flutter are seen.": _found("atrial flutter"),
        "There is no doubt that this is atrial flutter.": _found("atrial flutter"),
        "No atrial flutter.": _found("atrial flutter", negated=True),
        "Atrial flutter is ruled out.": _found("atrial flutter", negated=True),
        "There is no evidence of atrial flutter.": _found("atrial flutter", negated=True),
        "Flutter is not present.": _found("atrial flutter", negated=True),
    },
    counterexamples=(
        "Is there atrial flutter?",
        "Flutter waves at 300 a minute.",
        "It is unclear whether this is atrial flutter.",
        "Normal sinus rhythm.",
        "There is atrial fibrillation.",
        "Sinus tachycardia.",
    ),
)

ENTRIES = (HEART_RATE, RHYTHM, INTERVALS, ATRIA, VARIABILITY, FINDING)
