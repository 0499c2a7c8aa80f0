"""How far the shares of final answers are from the exact ones, on toy models of 390,625 answers.

A search finds far fewer answers than there are, and what each of them stands for is a matter of weights. Each rule
searches by itself, with the same seeds; the error is the total variation between its shares of the final answers
and π*'s. The raw result holds every seed's error, so that rules can be compared in pairs.

    python -m benchmarks.shares           # an hour on two busy cores, into results/shares.json
    python -m benchmarks.shares --write   # the table in README.md, from what is kept there
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_tslm.search import METHODS, SearchConfig, backup
from mlx_tslm.search.engine import Engine
from mlx_tslm.search.presets import Method
from mlx_tslm.search.tree import Children, Tree

TOKENS, DEPTH = 5, 8
RESULTS = Path(__file__).parent / "results" / "shares.json"
README = Path(__file__).parent / "README.md"
MARKS = ("<!-- shares-table:start -->", "<!-- shares-table:end -->")
TOYS = {"even": (1.0, 3.0), "even, greedy": (1.0, 10.0), "peaked": (2.0, 3.0), "peaked, greedy": (2.0, 10.0)}
"""Spread of the logits, and λ."""


class Toy:
    """A model whose answers are all paths of `DEPTH` tokens; the last token is the final answer.

    Args:
        spread: standard deviation of the logits: 1 is even, 2 peaked.
        seed: of logits and rewards.
    """

    def __init__(self, spread: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._exact: dict[float, NDArray[np.float64]] = {}
        self.logits = [rng.normal(scale=spread, size=(TOKENS**depth, TOKENS)) for depth in range(DEPTH)]
        # What an answer earns depends on the rationale's opening, on the final answer, and on chance.
        ends = np.indices((TOKENS**2, TOKENS ** (DEPTH - 3), TOKENS)).reshape(3, -1)
        opening, final = rng.random((TOKENS**2, TOKENS)), rng.random(TOKENS)
        self.rewards = 0.4 * opening[ends[0], ends[2]] + 0.4 * final[ends[2]] + 0.2 * rng.random(TOKENS**DEPTH)

    def exact(self, inverse_temperature: float) -> NDArray[np.float64]:
        """π*'s share of each final answer."""
        log_p = np.zeros(1)
        for logits in self.logits:
            log_p = (log_p[:, None] + logits - np.log(np.exp(logits).sum(1, keepdims=True))).ravel()
        log_pi = log_p + inverse_temperature * self.rewards
        return np.bincount(np.arange(log_pi.size) % TOKENS, np.exp(log_pi - np.logaddexp.reduce(log_pi)))  # type: ignore[return-value]

    def error(self, method: Method, num_rollouts: int, inverse_temperature: float, seed: int) -> float:
        """Total variation between the shares that a search finds and the exact ones."""
        config = SearchConfig(
            num_rollouts=num_rollouts, width=max(1, num_rollouts // 4), inverse_temperature=inverse_temperature,
            temperature=1.0, top_p=1.0, max_tokens=DEPTH, seed=seed,
        )  # fmt: skip
        decoder, tree = _Decoder(self), Tree()

        def score(nodes: NDArray[np.int32]) -> NDArray[np.float64]:
            return np.array([self.rewards[decoder.code(int(node))] for node in nodes])

        decoder.tree = tree
        engine = Engine(decoder, tree, method, config, DEPTH, frozenset(), score)
        engine.run(num_rollouts)
        leaves = np.unique(engine.leaves)
        weights = backup.leaf_weights(tree, inverse_temperature, method.weigh)[leaves]
        found = np.bincount(tree.token[leaves], weights, TOKENS)
        if inverse_temperature not in self._exact:
            self._exact[inverse_temperature] = self.exact(inverse_temperature)
        return float(np.abs(found - self._exact[inverse_temperature]).sum() / 2)


class _Decoder:
    """The toy as the engine sees it."""

    tree: Tree

    def __init__(self, toy: Toy) -> None:
        self.toy, self.forward_passes, self.tokens = toy, 0, 0
        self._decoded = np.zeros(1, bool)
        self._decoded[0] = True

    def code(self, node: int) -> int:
        """The path read as a number."""
        code = 0
        for token in self.tree.path(node):
            code = code * TOKENS + token
        return code

    def step(self, nodes: NDArray[np.int32], parents: NDArray[np.int32], tokens: NDArray[np.int32]) -> None:
        self._decoded = np.concatenate(
            [self._decoded, np.zeros(max(0, nodes.max() + 1 - len(self._decoded)), bool)]
        )
        self._decoded[nodes] = True

    def is_decoded(self, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
        return (nodes < len(self._decoded)) & self._decoded[np.minimum(nodes, len(self._decoded) - 1)]

    def logits(self, nodes: NDArray[np.int32]) -> mx.array:
        rows = [self.toy.logits[self.tree.depth[node]][self.code(int(node))] for node in nodes]
        return mx.array(np.array(rows, np.float32))

    def flush(self, *outputs: mx.array) -> None:
        mx.eval(*outputs)


# --- the rules


def by_probability(tree: Tree, children: Children) -> NDArray[np.float64]:
    """w = p, the first version's: probability counts twice, once in the finding and once in the weight."""
    return np.where(np.isnan(tree.value[children.nodes]), -np.inf, tree.log_prior[children.nodes])


def _each_parent(
    rule: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> backup.Weigh:
    """A rule for the p of one node's scored children, in the order they were drawn, for all of them."""

    def weigh(tree: Tree, children: Children) -> NDArray[np.float64]:
        log_w = np.full(len(children.nodes), -np.inf)
        for start, count in zip(children.starts, children.counts, strict=True):
            nodes = children.nodes[start : start + count]
            scored = np.flatnonzero(~np.isnan(tree.value[nodes]))
            if scored.size:
                scored = scored[np.argsort(nodes[scored])]
                log_w[start + scored] = np.log(rule(np.exp(tree.log_prior[nodes[scored]])))
        return log_w

    return weigh


def _murthy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Murthy (1957): Σ w f is the mean of Des Raj's estimate over all orders of the same draws.

    w = p P(s | first i) / P(s), by the arrival times of exponential clocks with rates p: the sum of those not drawn
    rings at T, and all that were drawn before. Then w is the mean of p / (1 − exp(−p T)) given what was drawn.
    """
    rest = 1 - p.sum()
    if rest < 1e-6 or len(p) == 1:
        return p / p.sum()
    t = np.geomspace(1e-4, 60 / rest, 400)
    log_density = np.log(t) - rest * t + np.log(-np.expm1(-p[:, None] * t)).sum(0)
    density = np.exp(log_density - log_density.max())
    w = (p[:, None] / -np.expm1(-p[:, None] * t) * density).sum(1) / density.sum()
    return np.asarray(w / w.sum())


def _des_raj(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Des Raj (1956): the mean over draws of what went before and the rest as the draw shows it."""
    number = len(p)
    before = np.cumsum(p) - p
    return np.asarray((1 - before + (number - 1 - np.arange(number)) * p) / number)


def _rule(weigh: backup.Weigh) -> Method:
    def back_up(tree: Tree, leaves: NDArray[np.int32], inverse_temperature: float) -> None:
        backup.back_up(tree, leaves, partial(backup.soft_value, inverse_temperature=inverse_temperature), weigh)

    return replace(METHODS["maxent-ts"], backup=back_up, weigh=weigh)


RULES: dict[str, Method] = {
    "w = p": _rule(by_probability),
    "Horvitz-Thompson": METHODS["maxent-ts"],
    "Murthy": _rule(_each_parent(_murthy)),
    "Des Raj": _rule(_each_parent(_des_raj)),
    "independent samples": METHODS["best-of-n"],
}


def study(
    toys: Iterable[str], rules: Iterable[str], rollouts: Iterable[int], seeds: int
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Errors by toy, budget and rule, a seed each."""
    found: dict[str, Any] = {}
    for name in toys:
        spread, inverse_temperature = TOYS[name]
        toy = Toy(spread)
        for budget in rollouts:
            for rule in rules:
                errors = [toy.error(RULES[rule], budget, inverse_temperature, seed) for seed in range(seeds)]
                found.setdefault(name, {}).setdefault(str(budget), {})[rule] = errors
    return found


def paired(errors: dict[str, list[float]], rule: str, other: str) -> tuple[float, float]:
    """Mean difference of two rules' errors over the same seeds, and half of its 95 % interval."""
    difference = np.array(errors[rule]) - np.array(errors[other])
    return float(difference.mean()), float(1.96 * difference.std(ddof=1) / len(difference) ** 0.5)


def table(found: dict[str, Any]) -> str:
    lines = [
        f"| toy | answers | {' | '.join(RULES)} | Horvitz-Thompson less w = p | less Murthy |",
        f"|---|---:|{'---:|' * (len(RULES) + 2)}",
    ]
    for name, budgets in found.items():
        for budget, errors in budgets.items():
            cells = [f"{np.mean(errors[rule]):.3f}" for rule in RULES]
            for other in ("w = p", "Murthy"):
                mean, half = paired(errors, "Horvitz-Thompson", other)
                cells.append(f"{mean:+.4f} ± {half:.4f}")
            lines.append(f"| {name} | {budget} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(readme: Path, text: str) -> None:
    """Put `text` between the marks."""
    before, _, rest = readme.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="only rewrite the table in benchmarks/README.md")
    args = parser.parse_args()
    if args.write:
        write(README, table(json.loads(RESULTS.read_text())["errors"]))
        return
    began = time.monotonic()
    found = study(TOYS, RULES, (16, 32), args.seeds)
    rounded = {
        toy: {budget: {rule: [round(e, 5) for e in errors] for rule, errors in rules.items()}
              for budget, rules in budgets.items()}
        for toy, budgets in found.items()
    }  # fmt: skip
    args.output.write_text(json.dumps({"toys": TOYS, "errors": rounded}) + "\n")
    print(table(found), f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
