"""What a search found: its answer, the alternatives and their weights, the tree, the cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlx_tslm.calibration import Calibration
from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import write_atomically
from mlx_tslm.search.answers import CLEAR, UNCLEAR, Answer, Said, effective_number, rank
from mlx_tslm.search.backup import leaf_weights
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.presets import METHODS
from mlx_tslm.search.tree import NO_TOKEN, ROOT, Tree

if TYPE_CHECKING:
    from mlx_tslm.stages.base import Question

FORMAT = 3
"""Version of the JSON layout."""
_OF_THE_TREE = ("logprobs", "entropies", "answer_at")  # what a completion has from `token_arrays`


@dataclass(frozen=True, repr=False)
class ScoredCompletion(Completion):
    """A finished rollout.

    Attributes:
        reward: what the reward said.
        weight: its share of π*, estimated; over a result's completions the weights sum to 1.
        columns: the reward's terms, None where a term had nothing to say.
        node: where it ends in the tree.
        rationale: where its rollout ended: the node behind which all labels were completed, else `node`.
        said: what it answers, as it is counted, see `answers.said`; None for no allowed answer.
    """

    reward: float = 0.0
    weight: float = 0.0
    columns: dict[str, float | None] = field(default_factory=dict)
    node: int = 0
    rationale: int = 0
    said: Said | None = None


@dataclass(frozen=True)
class SearchStats:
    """What a search cost.

    Attributes:
        rollouts: answers finished.
        started: rollouts begun; those that met others or were stopped are among them.
        waves: how often they were scored.
        nodes: of the tree, the root included.
        depth: tokens of the longest path.
        branching: mean number of children of the nodes that have any.
        prompt_tokens: positions of the prompt, series included.
        forward_passes: passes through the language model, the prompt's included.
        tokens_decoded: tokens that went through the model after the prompt.
        seconds: by phase: prefill, select, decode, reward, backup; and total.
        peak_memory: bytes.
        tokens_saved: what the rollouts that were not started, as the answer was settled, would have cost at the
            mean of the others; 0 where none were spared.
    """

    rollouts: int
    started: int
    waves: int
    nodes: int
    depth: int
    branching: float
    prompt_tokens: int
    forward_passes: int
    tokens_decoded: int
    seconds: dict[str, float]
    peak_memory: int
    tokens_saved: int = 0


class Shown(NamedTuple):
    """What a page shows beside the result: what was asked, whose tokens they are, and the model's name."""

    question: Question
    tokenizer: Any
    model: str


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The outcome of a search.

    Attributes:
        completions: every finished rollout; where answers were completed, each rationale with every allowed answer,
            and once without any (`answer` None), which stands for all others.
        root_value: V̂ at the prompt, in units of the reward.
        tree: the arrays of the tree.
        stats: the cost.
        config: the settings, seed included.
        exhausted: every answer of non-negligible probability has been seen, so the values are exact.
        notes: what a person should know of it, one sentence each.
        interrupted: whether it was stopped before its budget was spent.
        shown: the question and what else `to_html` and its like need; None where the result was loaded.
        prefix: tokens that all answers open with, where the root was moved (see `descend`). Completions hold them
            in their text and tokens; log-probabilities are those of what follows.
        calibration: how sure shares of π* make one, where the model was calibrated for searches like this one.
    """

    completions: Sequence[ScoredCompletion]
    root_value: float
    tree: Tree
    stats: SearchStats
    config: SearchConfig
    exhausted: bool = False
    prefix: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    calibration: Calibration | None = None
    interrupted: bool = False
    shown: Shown | None = None

    def __repr__(self) -> str:
        stopped = ", interrupted" if self.interrupted else ""
        sure = f"confidence {self.confidence:.0%}, " if self.ranked else ""
        spent = f"{self.stats.rollouts} answers by {self.config.method}"
        return f"<SearchResult {self.headline[:80]!r}: {sure}{spent}{stopped}>"

    def to_html(self) -> str:
        """The result as one page that needs no network, as `search --html` writes it.

        Raises:
            TSLMError: the result was loaded from a file, which does not hold the question.
        """
        from mlx_tslm.report.objects import page

        return page(self)

    def _repr_html_(self) -> str:
        from mlx_tslm.report.objects import fragment

        return fragment(self)

    def plot(self) -> Any:
        """The series and the answers' weights as a Matplotlib figure.

        Raises:
            TSLMError: Matplotlib is not installed.
        """
        from mlx_tslm.report.objects import figure

        return figure(self)

    def to_pandas(self) -> Any:
        """The completions as a pandas frame, the heaviest first, a column for each term of the reward.

        Raises:
            TSLMError: pandas is not installed.
        """
        from mlx_tslm.report.objects import frame

        return frame(self)

    @property
    def best(self) -> ScoredCompletion:
        """The completion that is shown for the answer: of those that answer so, the one with the highest reward,
        then the most probable. Without any allowed answer, of all.
        """
        if self.ranked:
            return self.ranked[0].best
        return max(self.completions, key=lambda one: (one.reward, one.logprob))

    @property
    def answer(self) -> str | None:
        """The allowed final answer with the most weight; None where none holds a third of it: no clear answer."""
        return self.ranked[0].answer if self.ranked and self.ranked[0].weight >= CLEAR else None

    @property
    def headline(self) -> str:
        """The answer for people, who may also be told that there is no clear one."""
        return UNCLEAR if self.answer is None else self.answer

    @property
    def weight(self) -> float:
        """The share of π* of the answer with the most of it, clear or not; 0 without any allowed answer."""
        return self.ranked[0].weight if self.ranked else 0.0

    @property
    def confidence(self) -> float:
        """How sure that answer is, 0 … 1; see `answers.confidences`."""
        return self.ranked[0].confidence if self.ranked else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """What the confidence may be, at 95 % (Wilson's interval, on the effective number of rationales)."""
        return self.ranked[0].interval if self.ranked else (0.0, 0.0)

    @cached_property
    def ranked(self) -> tuple[Answer, ...]:
        """The allowed final answers, the one with the most weight first."""
        effective = None if self.exhausted else self.effective_rationales
        return tuple(rank(self.completions, effective, self.calibration))

    @property
    def answers(self) -> dict[str, float]:
        """The allowed final answers with their weights, largest first. What is missing from 1 is `unanswered`."""
        return {one.answer: one.weight for one in self.ranked}

    @property
    def unanswered(self) -> float:
        """The weight of what is no allowed answer."""
        return sum(one.weight for one in self.completions if one.said is None)

    @property
    def effective_rationales(self) -> float:
        """Of how many rationales that weigh alike the weights speak."""
        return effective_number(self.completions, self.tree)

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.config.seed

    def descend(self, tokens: Sequence[int]) -> SearchResult:
        """What is known of the answers that open with `tokens` (after `prefix`): the root moves down to there.

        Pass it to `tree_search(..., resume=…)` to go on below with what has been found there.

        Raises:
            TSLMError: no finished rollout went that way, or nothing can follow the tokens.
        """
        node = self.tree.find(list(tokens))
        if node is None or self.tree.visits[node] == 0:
            raise TSLMError(f"no finished answer opens with tokens {list(tokens)}")
        if self.tree.terminal[node]:
            raise TSLMError(f"the answer ends with tokens {list(tokens)}; descend to an earlier one")
        tree, number = self.tree.subtree(node)
        below = [one for one in self.completions if number[one.node] >= 0]
        share = sum(one.weight for one in below)
        return replace(
            self,
            completions=[
                replace(
                    one,
                    node=int(number[one.node]),
                    rationale=tree.rationale(int(number[one.node])),
                    logprob=one.logprob - float(self.tree.logprob[node]),
                    weight=one.weight / share,
                )
                for one in below
            ],
            root_value=float(tree.value[ROOT]),
            tree=tree,
            stats=replace(self.stats, rollouts=int(tree.visits[ROOT]), **tree.shape()),
            exhausted=METHODS[self.config.method].fresh and tree.explored,
            prefix=(*self.prefix, *(int(token) for token in tokens)),
        )

    def summary(self) -> dict[str, Any]:
        """The answer and what stands beside it, ready for JSON."""
        return {
            "answer": self.answer,
            "headline": self.headline,
            "weight": self.weight,
            "confidence": self.confidence,
            "interval": self.interval,
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "effective_rationales": self.effective_rationales,
            "best": {name: getattr(self.best, name) for name in ("text", "answer", "reward", "logprob")},
            "answers": [
                {
                    "answer": one.answer,
                    "weight": one.weight,
                    "confidence": one.confidence,
                    "interval": one.interval,
                    "completions": one.completions,
                    "text": one.best.text,
                    "reward": one.best.reward,
                    "claims": one.claims,
                }
                for one in self.ranked
            ],
            "no_allowed_answer": self.unanswered,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "format": FORMAT,
            **self.summary(),
            "root_value": self.root_value,
            "exhausted": self.exhausted,
            "interrupted": self.interrupted,
            "prefix": self.prefix,
            "notes": self.notes,
            "seed": self.seed,
            "config": self.config.to_dict(),
            "stats": asdict(self.stats),
            "completions": [_plain(one) for one in self.completions],
            "tree": self.tree.to_dict(),
        }

    def save(self, path: str | Path) -> None:
        """Write the result as JSON; `load` reads it back, and a search can go on from it."""
        write_atomically(Path(path), json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":")))

    @classmethod
    def load(cls, path: str | Path) -> SearchResult:
        """Read a saved result.

        Raises:
            TSLMError: there is no such file, or it is not a result of this version.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except OSError as error:
            raise TSLMError(f"cannot read {path}: {error.strerror}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise TSLMError(f"{path} is not a saved search result of this version ({error})") from None

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SearchResult:
        """The inverse of `to_dict`. What earlier versions saved is weighed anew, which a note says."""
        if saved["format"] not in range(1, FORMAT + 1):
            raise TSLMError(f"the result has format {saved['format']}, this version reads up to {FORMAT}")
        tree, prefix = Tree.from_dict(saved["tree"]), tuple(saved["prefix"])
        result = cls(
            completions=[
                _completion(one, **token_arrays(tree, one["node"], len(prefix))) for one in saved["completions"]
            ],
            root_value=saved["root_value"],
            tree=tree,
            stats=SearchStats(**saved["stats"]),
            config=SearchConfig.from_dict(saved["config"]),
            exhausted=saved["exhausted"],
            interrupted=saved.get("interrupted", False),
            prefix=prefix,
            notes=tuple(saved.get("notes", ())),
            calibration=Calibration(**known) if (known := saved.get("calibration")) else None,
        )
        return result if saved["format"] == FORMAT else _weighed_anew(result, saved["format"])


def weighed(result: SearchResult, inverse_temperature: float) -> SearchResult:
    """What a search found, weighed for another λ; the tree is as it was grown, and not calibrated for that."""
    config = replace(result.config, inverse_temperature=inverse_temperature)
    tree, method = result.tree.copy(), METHODS[config.method]
    nodes = np.array(sorted({one.node for one in result.completions}), np.int32)
    method.backup(tree, nodes, inverse_temperature)
    weights = leaf_weights(tree, inverse_temperature, method.weigh)
    times = Counter(one.node for one in result.completions)
    return replace(
        result,
        completions=[replace(one, weight=float(weights[one.node]) / times[one.node]) for one in result.completions],
        root_value=float(tree.value[ROOT]),
        tree=tree,
        config=config,
        calibration=None,
    )


def token_arrays(tree: Tree, node: int, given: int = 0) -> dict[str, Any]:
    """What the tree knows of the tokens of the completion that ends at `node`, behind as many that were given:
    `logprobs`, `entropies`, and `answer_at` where its final answer was completed.
    """
    line = tree.line(node)
    line = line[tree.token[line] != NO_TOKEN]
    before, rationale = np.full(given, np.nan), tree.rationale(node)
    return {
        "logprobs": np.concatenate([before, tree.log_prior[line]]),
        "entropies": np.concatenate([before, tree.entropy[line]]),
        "answer_at": None if rationale == node else given + len(tree.path(rationale)),
    }


def _plain(one: ScoredCompletion) -> dict[str, Any]:
    """For JSON; the arrays are the tree's, and not written twice."""
    return {name: value for name, value in vars(one).items() if name not in _OF_THE_TREE}


def _completion(saved: dict[str, Any], **arrays: Any) -> ScoredCompletion:
    """The inverse of `_plain`. In earlier versions any answer counted, and was the only thing that did."""
    answer = saved["answer"]
    said = saved.get("said", None if answer is None else [answer])
    known = {"rationale": saved["node"]} | saved | {"tokens": tuple(saved["tokens"]), "said": said and tuple(said)}
    return ScoredCompletion(**known, **arrays)


def _weighed_anew(result: SearchResult, version: int) -> SearchResult:
    """A result of an earlier format, as this version weighs it; the first one weighed by p what was drawn."""
    config, tree, method = result.config, result.tree, METHODS[result.config.method]
    if version == 1:
        tree.enumerated[1:] = method.extend != "sample"
        config = replace(config, top_p=1.0 if config.top_p is None else config.top_p, complete_answers=False)
    return replace(
        weighed(replace(result, config=config), config.inverse_temperature),
        notes=(
            *result.notes,
            "saved by an earlier version, and weighed anew by this one's rule; it did not say which answers were "
            "allowed, so all count",
        ),
    )
