"""Claims about a signal: read out of an answer's text, and checked against the recording.

A kind of claim is one `Entry`, in a file a domain: how it is said, what measures it, how close is close, which
spectral line it states, and its own examples. `reader` knows negation, scope and used-up words, for all of them;
`lexicon` the words that they share. `register` adds an entry of one's own.
"""

from mlx_tslm.rewards.claims.claim import Claim, Entry, Saying
from mlx_tslm.rewards.claims.grades import above, close, ramp, within
from mlx_tslm.rewards.claims.reader import named
from mlx_tslm.rewards.claims.registry import (
    ENTRIES,
    NARROW,
    check,
    cycles_per_sample,
    implied,
    is_line,
    read,
    register,
    remembered,
)

__all__ = [
    "ENTRIES",
    "NARROW",
    "Claim",
    "Entry",
    "Saying",
    "above",
    "check",
    "close",
    "cycles_per_sample",
    "implied",
    "is_line",
    "named",
    "ramp",
    "read",
    "register",
    "remembered",
    "within",
]
