"""Claims about what scatters: noise, and how the swings change."""

from operator import attrgetter
from typing import Any

from mlx_tslm.rewards.claims.claim import Claim, Entry, Saying
from mlx_tslm.rewards.claims.grades import direction, ramp
from mlx_tslm.rewards.claims.lexicon import (
    ADVERB,
    AMOUNT,
    DOWN,
    FLAT,
    HIGH,
    IS,
    LOW,
    MODERATE,
    NEXT_TO_NO,
    SPREAD,
    UP,
)

# --- noise ---
_NOISE = (
    r"(?:noise(?: levels?| floor| component| part| contribution)?|random(?: fluctuations?"
    r"| variations?| scatter|ness)|jitter|disturbances?|random (?:component|part))"
)


def _agrees_on_noise(claim: Claim, ratio: Any) -> float:
    low, high = 1.0 - ramp(ratio, 0.17, 0.28), ramp(ratio, 0.4, 0.52)
    return {"low": low, "high": high, "moderate": 1.0 - max(low, high)}[claim.value]


_low, _moderate, _high = (Claim("noise", value) for value in ("low", "moderate", "high"))

NOISE = Entry(
    kind="noise",
    sayings=(
        Saying(rf"\b{LOW}{AMOUNT}[- ](?:random )?{_NOISE}\b", "low"),
        Saying(
            r"\b(?:very |rather |quite |fairly )?smooth(?:ly|ness)?\b|\bnoise[- ]?(?:free|less)\b|\bclean\b", "low"
        ),
        Saying(rf"\b{_NOISE}\s*{IS}\s*{ADVERB}{LOW}\b", "low"),
        Saying(
            r"\b(?:just|only|at most) (?:an? )?(?:\w+ )?(?:bit|little|trace|touch|hint"
            rf"|small amount) (?:of )?{_NOISE}\b",
            "low",
        ),
        Saying(rf"\b{_NOISE}\b", "low", denies=True, only_denied=True),
        Saying(rf"\b(?:free of|free from|devoid of|{NEXT_TO_NO})\s+(?:\w+ )?{_NOISE}\b", "low", denies=True),
        Saying(
            r"\b(?:hardly|barely|scarcely|not (?:very|really|particularly|at all)|only slightly|slightly"
            r"|little)\s+noisy\b",
            "low",
            denies=True,
        ),
        Saying(r"\b(?:only |a little |a bit )?slightly noisy\b", "low"),
        Saying(
            rf"\b{HIGH}{AMOUNT}[- ](?:\w+ )?{_NOISE}\b|\bnoisy\b",
            "high",
            unless=r"\b(?:hardly|barely|slightly|moderately)\b",
        ),
        Saying(
            rf"\b{_NOISE}\s*{IS}\s*{ADVERB}(?:abundant|dominant|overwhelming|massive|visible and strong)\b", "high"
        ),
        Saying(rf"\b{_NOISE}\s*{IS}\s*{ADVERB}{HIGH}\b", "high"),
        Saying(
            r"\b(?:full of|mostly|mainly|nothing but|purely?|just|only|essentially|basically|riddled with"
            rf"|plagued by|all) (?:random |white )?{_NOISE}\b",
            "high",
        ),
        Saying(
            rf"\bsignal[- ]to[- ]noise ratio\s*{IS}\s*{ADVERB}{HIGH}\b|\b{HIGH} signal[- ]to[- ]noise ratio\b",
            "low",
        ),
        Saying(
            rf"\bsignal[- ]to[- ]noise ratio\s*{IS}\s*{ADVERB}(?:{LOW}|poor|bad)\b|\b(?:{LOW}|poor"
            r"|bad) signal[- ]to[- ]noise ratio\b",
            "high",
        ),
        Saying(
            rf"\b{_NOISE}\s+(?:dominates?|drowns|covers|hides|swamps|prevails)\b|\b(?:dominated|swamped"
            r"|masked|covered|drowned|buried|contaminated|corrupted|obscured) (?:by|in"
            rf"|out by) (?:the )?{_NOISE}\b",
            "high",
        ),
        Saying(rf"\b{MODERATE}{AMOUNT}[- ](?:\w+ )?{_NOISE}\b|\bmoderately noisy\b|\bsomewhat noisy\b", "moderate"),
        Saying(
            rf"\b{_NOISE}\s*{IS}\s*{ADVERB}{MODERATE}\b|\b(?:neither|not) (?:very )?(?:smooth"
            r"|clean) n?or (?:very )?noisy\b",
            "moderate",
        ),
    ),
    measure=attrgetter("noise"),
    agrees=_agrees_on_noise,
    examples={
        "Low noise.": _low,
        "A smooth curve.": _low,
        "The noise is low.": _low,
        "There is little noise.": _low,
        "There is hardly any noise.": _low,
        "It is free of noise.": _low,
        "There is no noise.": _low,
        "The series is not smooth.": Claim("noise", "low", negated=True),
        "The noise level is moderate.": _moderate,
        "There is some noise.": _moderate,
        "It is moderately noisy.": _moderate,
        "Not only increasing but noisy.": _high,
        "The noise is high.": _high,
        "There is much noise.": _high,
        "The noise is very strong.": _high,
        "It is not noisy.": Claim("noise", "high", negated=True),
        "A lot of noise is present.": _high,
        "The series is dominated by noise.": _high,
    },
    counterexamples=(
        "The noise increases.",
        "Is there much noise?",
        "How strong is the noise (volatility)?",
        "It rises.",
        "The volatility is steady.",
    ),
)


# --- volatility ---
_growing, _shrinking, _even = (Claim("volatility", value) for value in ("up", "down", "flat"))
_MORE = (
    rf"(?:{UP}|more (?:pronounced|marked|extreme|violent)|larger|bigger|wider|stronger|widen(?:s|ed"
    r"|ing)?|intensif(?:y|ies|ied)|strengthen(?:s|ed|ing)?|expand(?:s|ed|ing)?|swell(?:s|ing)?)"
)
_LESS = (
    rf"(?:{DOWN}|less (?:pronounced|marked|extreme|violent)|smaller|narrower|weaker|narrow(?:s|ed"
    r"|ing)?|weaken(?:s|ed|ing)?|(?:calms?|settles?|quiets?) down|abates?|ebbs? away|contract(?:s|ed"
    r"|ing)?|damp(?:s|ed|ing)?|fad(?:es?|ed|ing)|die(?:s|d)? (?:down|out|away)|dying (?:down|out"
    r"|away))"
)
_SAME = rf"(?:{FLAT}|even|the same|equal|uniform|similar|equally (?:large|strong|big|wide))"
_GAP = r"(?:\s+(?:(?!and\b|with\b|but\b|no\b)[a-z]+\s+){0,3}?|\s+)"
_BY = r"(?:\s+(?:in|of|of the|in the|in its)\s+(?:[\w'’-]+\s+){0,2}?)"
_TURN = r"(?:(?:\s+\w+)?,? (?:and )?then\b)"

VOLATILITY = Entry(
    kind="volatility",
    sayings=(
        Saying(
            rf"\b{SPREAD}{_GAP}{_MORE}\b(?!{_TURN})|\b{_MORE}\s+(?:[\w'’-]+\s+)?{SPREAD}\b"
            rf"|\b{_MORE}{_BY}{SPREAD}\b",
            "up",
            unless="heart",
        ),
        Saying(
            rf"\b{SPREAD}{_GAP}{_LESS}\b(?!{_TURN})|\b{_LESS}\s+(?:[\w'’-]+\s+)?{SPREAD}\b"
            rf"|\b{_LESS}{_BY}{SPREAD}\b",
            "down",
            unless="heart",
        ),
        Saying(rf"\b{SPREAD}{_GAP}{_SAME}\b|\b{_SAME}\s+(?:[\w'’-]+\s+)?{SPREAD}\b", "flat", unless="heart"),
        Saying(
            rf"\b{SPREAD}\s+(?:[\w'’-]+\s+)?(?:does|do|did)(?:n['’]t| not)\s+(?:\w+ly\s+|much\s+)?(?:change"
            r"|vary)\b",
            "flat",
            denies=True,
        ),
        Saying(
            r"\b(?:more and more|more|increasingly|ever more) (?:volatile|variable|spread out|erratic|restless)\b",
            "up",
        ),
        Saying(
            r"\b(?:less and less|less|ever less|decreasingly) (?:volatile|variable|spread out|erratic"
            r"|restless)\b|\b(?:calms|settles|quiets) down\b",
            "down",
        ),
        Saying(
            r"\b(?:swings?|oscillates?|fluctuates?|varies|vary|scatters?) (?:more and more|ever more"
            r"|increasingly|(?:ever )?more (?:strongly|widely))\b",
            "up",
        ),
        Saying(
            r"\b(?:swings?|oscillates?|fluctuates?|varies|vary|scatters?) (?:less and less|ever less"
            r"|decreasingly|less (?:strongly|widely))\b",
            "down",
        ),
        Saying(rf"\b{SPREAD}\b[^.;]{{0,30}}?\bthen\b", None),
    ),
    measure=attrgetter("volatility"),
    agrees=lambda claim, change: direction(claim.value, change, 0.12, 0.4),
    examples={
        "Volatility increases over time.": _growing,
        "The swings grow.": _growing,
        "a season with growing swings": _growing,
        "There is an increase in volatility.": _growing,
        "The fluctuations get larger.": _growing,
        "It becomes more volatile.": _growing,
        "The amplitude goes up.": _growing,
        "The oscillations do not grow.": Claim("volatility", "up", negated=True),
        "The variance is decreasing.": _shrinking,
        "with shrinking swings.": _shrinking,
        "The spread narrows.": _shrinking,
        "The oscillations die down.": _shrinking,
        "The swings become smaller and smaller.": _shrinking,
        "The amplitude is constant.": _even,
        "It has steady swings.": _even,
        "The variability stays the same.": _even,
        "The spread does not change.": _even,
    },
    counterexamples=(
        "The amplitude rises, then falls.",
        "It rises.",
        "The noise is low.",
        "Does the amplitude grow?",
        "The swings are large.",
    ),
)

ENTRIES = (NOISE, VOLATILITY)
