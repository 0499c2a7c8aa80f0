"""Wrong words met halfway: the known word that a person most likely meant."""

from collections.abc import Iterable
from difflib import get_close_matches

_ELSEWHERE = {  # what mlx-lm, Ollama and transformers call the same thing
    "--temp": "--temperature",
    "--prompt": "--question",
    "--max-new-tokens": "--max-tokens",
    "--num-samples": "--num-rollouts",
    "--file": "--series",
    "--input": "--series",
    "--quant": "--quantize",
    "ask": "generate",
    "evaluate": "eval",
    "list": "models",
    "ls": "models",
    "pull": "convert",
    "run": "chat",
}


def closest(word: str, known: Iterable[str]) -> list[str]:
    """The known words that `word` may stand for, the likeliest first; none where nothing is near.

    What other programs call the same comes first, then words that begin with it, then those spelled like it.
    """
    words = list(dict.fromkeys(known))
    if (usual := _ELSEWHERE.get(word.casefold())) in words:
        return [usual]
    folded = {one.casefold(): one for one in words}
    given = word.casefold()
    longer = [one for one in folded if len(given.lstrip("-")) > 1 and one.startswith(given)]
    near = longer or get_close_matches(given, folded, n=2, cutoff=0.6)
    return [folded[one] for one in near[:3]]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, to put into a message, or nothing where no known word is near."""
    found = closest(word, known)
    return f" (did you mean {' or '.join(found)}?)" if found else ""
