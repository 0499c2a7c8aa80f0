"""Is a text one that a person would write? What can be seen of that without a language model.

Nothing here asks what a text says, or whether its words are known: a grammatical sentence of any content is well
worded. What counts against it no careful writer leaves in: broken characters, what is said twice in the same
words, phrases that break off, several final answers, the prompt read back.
"""

import re
import unicodedata
from functools import lru_cache

from mlx_tslm.rewards.claims import read, remembered

_LOOP = 6  # words: a text that comes to so many for a second time repeats itself
_ECHO = 8  # words in a row out of the prompt
_BROKEN = {"Cc", "Cn", "Co", "Cs"}  # Unicode's categories: control, unassigned, private use, surrogate
_TAGS = re.compile(r"</?[a-z][^<>]*>|[{}\[\]\\|]{2,}|\bimport \w+|\bdef \w+\(", re.IGNORECASE)
_DANGLING = re.compile(
    r"\b(?:the|an|of|every|whose)\s*(?:[.;:!?,]|$)|\b(?:the|an) (?:the|an|of|is|are|and|or|to|by)\b"
    r"|\b(\w+) \1 (\w+) \2\b"
)
_WORD = re.compile(r"[^\W_]+(?:[.,'’][^\W_]+)*")


@remembered
def wording(text: str, prompt: str = "") -> float:
    """How well a text is worded, 0 … 1: each kind of fault takes a share away.

    Args:
        text: without its final answer.
        prompt: what was asked, of which a text must not be made.
    """
    words = [word.casefold() for word in _WORD.findall(text)]
    score = 1.0 - 0.5 * (_broken(text) > 0) - 0.5 * _broken(text)
    score *= 1.0 - 0.8 * _repeated(text, words)
    score *= 1.0 - 0.8 * _echoed(words, prompt)
    score *= 0.9 ** len(_DANGLING.findall(text)) * 0.8 ** len(_TAGS.findall(text))
    denied = [claim for claim in read(text) if claim.negated and claim.numbers is not None]
    return max(score * 0.9 ** len(denied), 0.0)


def _broken(text: str) -> float:
    """Share of the characters that no text has: U+FFFD, and what is no character at all."""
    bad = sum(one == "\ufffd" or (unicodedata.category(one) in _BROKEN and one not in "\n\r\t") for one in text)
    return bad / max(len(text), 1)


def _repeated(text: str, words: list[str]) -> float:
    """Share of the words that stand in a sentence, or in six words, that came before."""
    seen: set[tuple[str, ...]] = set()
    again = 0
    for sentence in re.split(r"[.!?;]\s+|\n+", text):
        said = tuple(word.casefold() for word in _WORD.findall(sentence))
        again += len(said) if said in seen and len(said) > 1 else 0
        seen.add(said)
    starts: set[tuple[str, ...]] = set()
    looped: set[int] = set()
    for at in range(len(words) - _LOOP + 1):
        part = tuple(words[at : at + _LOOP])
        if part in starts:
            looped.update(range(at, at + _LOOP))
        starts.add(part)
    return max(again, len(looped)) / max(len(words), 1)


def _echoed(words: list[str], prompt: str) -> float:
    """Share of the words that stand in eight of the prompt's in a row."""
    if len(words) < _ECHO or not prompt:
        return 0.0
    known = _runs(prompt)
    echoed: set[int] = set()
    for at in range(len(words) - _ECHO + 1):
        if tuple(words[at : at + _ECHO]) in known:
            echoed.update(range(at, at + _ECHO))
    return len(echoed) / len(words)


@lru_cache(maxsize=64)
def _runs(prompt: str) -> frozenset[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(prompt)]
    return frozenset(tuple(words[at : at + _ECHO]) for at in range(len(words) - _ECHO + 1))
