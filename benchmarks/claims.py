"""How well claims are read and judged: true and false sentences, in many wordings, about signals of known make.

    python benchmarks/claims.py [--seed 0] [--each 3]

A sentence is read if a claim in it can be checked, and judged rightly if that gives more than a half to a true one
and less to a false one. Prints a row a kind, for wordings that were worked on and for those held out, and writes
benchmarks/results/claims.json with the worst ten sentences of each kind. Takes well under a minute.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claim_signals import Signal, signals
from benchmarks.claim_wordings import HELD_OUT, WORDINGS, Wordings
from mlx_tslm.rewards.claims import ENTRIES, check, read
from mlx_tslm.rewards.facts.signal import SignalFacts
from mlx_tslm.rewards.grounding import score

RESULTS = Path(__file__).parent / "results" / "claims.json"
WORST = 10  # sentences kept a kind
UNREAD = 0.6  # how bad an unread sentence is beside a judged one's error, 0 … 1
_NUMBERS = {"sample", "", "per minute", "second", "Hz", "ratio", "rise", "fall"}  # units: the wording has a "{n}"


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--each", type=int, default=4, help="signals for which a wording is true, and false, at most"
    )
    options = parser.parse_args()
    result = measure(options.seed, options.each)
    print(table(result["kinds"]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def measure(seed: int = 0, each: int = 4) -> dict[str, Any]:
    """Every sentence of every kind: how many, the share read, the share of those judged rightly, the worst."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    made = [(one, SignalFacts(one.series, one.rate)) for one in signals(seed)]
    kinds: dict[str, dict[str, Any]] = {}
    for name, wordings in (("worked on", WORDINGS), ("held out", HELD_OUT)):
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for kind, wording, text, true, signal, facts in _sentences(wordings, made, each, rng):
            agreement = _judge(text, facts)
            rows[kind].append(
                {"wording": wording, "text": text, "true": true, "signal": signal.name, "agreement": agreement}
            )
        for kind, sentences in rows.items():
            kinds.setdefault(kind, {})[name] = _summary(sentences)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "kinds": kinds,
    }


def _judge(text: str, facts: SignalFacts) -> float | None:
    judged = [(claim, check(claim, facts)) for claim in read(text)]
    agreement = score(judged, dict.fromkeys(ENTRIES, 1.0))
    return round(agreement, 3) if np.isfinite(agreement) else None


def _sentences(
    wordings: Wordings, made: list[tuple[Signal, SignalFacts]], each: int, rng: np.random.Generator
) -> Iterator[tuple[str, str, str, bool, Signal, SignalFacts]]:
    for kind, values in wordings.items():
        about = [(signal, facts) for signal, facts in made if kind in signal.truth]
        for value, texts in values.items():
            known = [
                one
                for one in about
                if value not in ("rise", "fall") or (one[0].truth[kind] > 1) == (value == "rise")
            ]
            for text in texts:
                taken = {True: 0, False: 0}
                for index in rng.permutation(len(known)):
                    signal, facts = known[index]
                    for true in (True, False) if value in _NUMBERS else (_holds(value, signal.truth[kind]),):
                        if true is not None and taken[true] < each:
                            taken[true] += 1
                            filled = _filled(text, signal.truth[kind], true, rng, kind, facts)
                            yield kind, text, filled, true, signal, facts


def _holds(value: str, truth: Any) -> bool | None:
    if truth == "turn" and value not in ("up", "down"):
        return None  # a hump rises, and does not: nothing to be right or wrong about
    return truth != value.removeprefix("not ") if value.startswith("not ") else truth == value


def _filled(text: str, truth: Any, true: bool, rng: np.random.Generator, kind: str, facts: SignalFacts) -> str:
    if "{" not in text:
        return text
    if "{p}" in text:
        return text.replace("{p}", f"{100 * abs(truth - 1) * (1 if true else 2.6 if truth > 1 else 1.7):.0f}")
    if kind in ("mean", "min", "max"):
        off = 0.0 if true else float(rng.choice([-1, 1])) * max(3 * float(facts.main.std()), abs(truth))
        return text.replace("{n}", f"{truth + off:.6g}")
    factor = 1.0 if true else float(rng.choice([0.6, 1.55]))
    number = truth * factor
    whole = kind in ("heart_rate", "period") and number >= 8
    return text.replace(
        "{n}", f"{round(number)}" if whole else f"{number:.2g}" if kind != "period" else f"{number:.3g}"
    )


def _summary(sentences: list[dict[str, Any]]) -> dict[str, Any]:
    told = [one for one in sentences if one["agreement"] is not None]
    wrong = {id(one): (1 - one["agreement"]) if one["true"] else one["agreement"] for one in told}
    right = sum(error < 0.5 for error in wrong.values())
    # An unread wording is bad, a wrong one worse; each wording once.
    errors = {
        one["wording"]: (wrong.get(id(one), UNREAD), one)
        for one in sorted(sentences, key=lambda one: wrong.get(id(one), UNREAD))
    }
    worst = sorted(errors.values(), key=lambda pair: -pair[0])[:WORST]
    return {
        "sentences": len(sentences),
        "read": round(len(told) / len(sentences), 4),
        "right": round(right / len(told), 4) if told else None,
        "worst": [one for error, one in worst if error > 0.2],
    }


def table(kinds: dict[str, dict[str, Any]]) -> str:
    """A Markdown table, a row a kind and one for all."""
    lines = ["| kind | sentences | read, % | right of those, % | held out: sentences | read, % | right, % |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for kind in [*kinds, None]:
        cells = []
        for name in ("worked on", "held out"):
            rows = [row[name] for label, row in kinds.items() if name in row and kind in (None, label)]
            count = sum(row["sentences"] for row in rows)
            read_ = sum(row["sentences"] * row["read"] for row in rows)
            right = sum(row["sentences"] * row["read"] * (row["right"] or 0) for row in rows)
            cells += (
                [f"{count:,}", f"{100 * read_ / count:.1f}", f"{100 * right / max(read_, 1e-9):.1f}"]
                if count
                else ["", "", ""]
            )
        lines.append(f"| {kind or '**all**'} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
