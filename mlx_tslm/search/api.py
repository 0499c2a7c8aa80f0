"""The public face of the search: a model, a prompt and a reward in; a `SearchResult` out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import BaseModel
from mlx_tslm.rewards import Reward, as_reward, default_reward
from mlx_tslm.search import memory, notebook, presets
from mlx_tslm.search.answers import said
from mlx_tslm.search.backup import leaf_weights
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.engine import Engine
from mlx_tslm.search.interrupts import Interrupts
from mlx_tslm.search.labels import Completer
from mlx_tslm.search.result import ScoredCompletion, SearchResult, SearchStats, Shown, token_arrays
from mlx_tslm.search.stopping import settled
from mlx_tslm.search.tree import ROOT, Tree
from mlx_tslm.stages.base import Question

RewardLike = Reward | Callable[[list[Completion]], Sequence[float]]


class SearchError(TSLMError):
    """A search that had to stop. `result` holds what was found before, or None where nothing was."""

    result: SearchResult | None = None


@dataclass(frozen=True)
class Progress:
    """A search under way.

    Attributes:
        rollouts, budget: finished answers, of how many.
        waves: how often answers were scored.
        walkers: rollouts under way.
        tokens: tokens decoded so far.
        seconds: since the search began.
        snapshot: makes a `SearchResult` of what is known; None where nothing has been scored yet.
    """

    rollouts: int
    budget: int
    waves: int
    walkers: int
    tokens: int
    seconds: float
    snapshot: Callable[[], SearchResult | None]


def tree_search(
    model: BaseModel,
    prompt: Question | str,
    method: str = "maxent-ts",
    reward: RewardLike | None = None,
    num_rollouts: int = 64,
    width: int = 16,
    inverse_temperature: float = 1.0,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    max_tokens: int = 256,
    seed: int = 0,
    progress: Callable[[Progress], bool | None] | None = None,
    resume: SearchResult | None = None,
    **settings: Any,
) -> SearchResult:
    """Search over whole answers to a prompt.

    A Ctrl-C (a notebook's interrupt) keeps what has been found: it ends the search with the wave under way, a
    second one with the token under way, and the result says that it was `interrupted`. Before anything was found
    it is a KeyboardInterrupt as ever.

    Args:
        model: a loaded model.
        prompt: the question, whose stage says how answers are read and judged; a string is a free one without
            series.
        method: a preset, see `mlx_tslm.search.METHODS`.
        reward: a `Reward`, or any callable that takes a list of completions and returns one float each. Left
            out, what the question's stage asks for, which needs no gold label.
        num_rollouts, width, inverse_temperature, temperature, top_k, top_p, max_tokens, seed: see
            `SearchConfig`, whose other settings may be given too.
        progress: called after every forward pass; when it returns False the search ends with the wave under way.
            Left out, a notebook shows how a search of more than a second goes on.
        resume: a result for the same model, prompt and reward, whose tree the search goes on from; it is left as
            it is. Its rollouts count towards `num_rollouts`. The method, the sampling distribution and
            `max_tokens` have to be the same; the other settings may change. Where the result's root was moved
            (`SearchResult.descend`), answers open with its tokens, which count towards `max_tokens`.

    Raises:
        TSLMError: a setting is out of range, the prompt does not fit the model or the budget does not fit memory,
            or `resume` is of another search.
        SearchError: the reward failed; `error.result` holds what was found before.
    """
    config = SearchConfig(
        method, num_rollouts, width, inverse_temperature, temperature, top_k, top_p, max_tokens, seed, **settings
    )
    return MaxEntTS(model, reward, config).search(prompt, progress, resume)


def run_sadt(model: BaseModel, prompt: Question | str, **settings: Any) -> SearchResult:
    """S-ADT with its defaults: MaxEnt-TS under the stage's reward; arguments as in `tree_search`."""
    return tree_search(model, prompt, **settings)


class MaxEntTS:
    """A search that is set up once and run on many prompts.

    Args:
        model: a loaded model.
        reward: as in `tree_search`.
        config: the settings.
    """

    def __init__(
        self, model: BaseModel, reward: RewardLike | None = None, config: SearchConfig | None = None
    ) -> None:
        self.model = model
        self.reward = as_reward(reward) if reward is not None else None
        self.config = config or SearchConfig()

    def search(
        self,
        prompt: Question | str,
        progress: Callable[[Progress], bool | None] | None = None,
        resume: SearchResult | None = None,
    ) -> SearchResult:
        """Search; arguments, result and errors as in `tree_search`."""
        question = Question(pre=prompt) if isinstance(prompt, str) else prompt
        reward = self.reward or default_reward(question.stage)
        run = _Run(self.model, reward, self.config, question, resume)
        if self.reward is not None:  # a calibration is of the stage's own reward
            run.calibration = None
        return run.go(progress)


class _Run:
    """One search on one prompt: the engine, and the completions behind its leaves."""

    def __init__(
        self,
        model: BaseModel,
        reward: Reward,
        config: SearchConfig,
        question: Question,
        resume: SearchResult | None,
    ) -> None:
        self.started = time.perf_counter()
        self.model, self.reward = model, reward
        self.method = presets.get(config.method)
        config = config.resolved(resume.config.sampling if resume is not None else model.sampling)
        if resume is not None and config.complete_answers is None:
            config = replace(config, complete_answers=resume.config.complete_answers)
        self.question = question
        self.prefix = resume.prefix if resume is not None else ()
        self.notes: list[str] = []
        self.asked_to_stop = False
        self.stopped = False  # because the answer was settled
        self.look_at = 0  # as soon as so many rollouts have ended
        labels = self.completer(config)
        config = replace(config, complete_answers=labels is not None)
        self.config = config if self.method.extend != "argmax" else replace(config, num_rollouts=1)
        if resume is not None:
            self.check_settings(resume)
        known = model.calibrations.get(question.stage.name) if question.stage else None
        self.calibration = known if known and known.holds_for(self.config) else None
        eos = model.eos_token_ids
        if footprint := model.footprint():
            length, size = model.count_positions(question), labels.size if labels else 0
            rows = memory.check(footprint, length, self.config, self.method.extend == "beam", size)
            labels = labels and replace(labels, rows=rows)
            if size * self.config.width > rows and rows < memory.LABEL_ROWS:
                self.notes.append(f"memory is short: the allowed answers are scored {rows} tokens at a time")
        cache = model.prefill(question, config.max_tokens, self.prefix)
        self.prompt_tokens = cache.length - len(self.prefix)
        self.prefill_seconds = time.perf_counter() - self.started
        self.scored: dict[int, ScoredCompletion] = {}
        tree, leaves, started = Tree(), [], 0
        if resume is not None:
            if resume.stats.prompt_tokens != self.prompt_tokens:
                raise TSLMError(
                    f"the search to resume read a prompt of {resume.stats.prompt_tokens} positions, this one has "
                    f"{self.prompt_tokens}; give the same model and prompt"
                )
            tree, started = resume.tree.copy(), resume.stats.started
            leaves = _ends(resume)
            self.scored = {one.node: replace(one, said=said(one, question)) for one in resume.completions}
        self.before = len(leaves)  # rollouts that are taken over
        self.engine = Engine(
            model.decoder(cache),
            tree,
            self.method,
            self.config,
            config.max_tokens - len(self.prefix),
            eos,
            self.score,
            labels,
            leaves,
            started,
        )

    def completer(self, config: SearchConfig) -> Completer | None:
        """What completes answers, or None where they are drawn.

        Raises:
            TSLMError: completion was asked for, and `max_tokens` is below what the longest answer takes.
        """
        stage, labels = self.question.stage, self.question.labels
        wanted = self.method.branches and config.temperature != 0
        if not (wanted if config.complete_answers is None else config.complete_answers):
            return None
        if stage is None or not labels:
            if config.complete_answers:
                self.notes.append("no answers were completed: they are no closed set behind a marker")
            return None
        assert config.temperature is not None
        completer = Completer(
            self.model.tokenizer,
            stage.marker,
            labels,
            self.prefix,
            config.temperature,
            self.model.eos_token_ids,
        )
        room = config.max_tokens - len(self.prefix)
        if completer.longest <= room or self.prefix:
            return completer
        problem = f"the longest allowed answer takes {completer.longest} tokens, and max_tokens is {room}"
        if config.complete_answers:
            raise TSLMError(f"{problem}; raise it, or do not complete answers")
        self.notes.append(f"no answers were completed: {problem}")
        return None

    def check_settings(self, resume: SearchResult) -> None:
        """Raise a TSLMError where `resume` is of a search with another p, or cannot go on."""
        for name in ("method", "temperature", "top_k", "top_p", "max_tokens", "complete_answers"):
            old, new = getattr(resume.config, name), getattr(self.config, name)
            if old != new:
                raise TSLMError(f"the search to resume had {name} = {old}, not {new}; give it the same {name}")
        if self.method.extend == "beam" and self.config.num_rollouts > resume.config.num_rollouts:
            raise TSLMError("a beam search cannot be widened; run it again with more rollouts")

    def go(self, progress: Callable[[Progress], bool | None] | None) -> SearchResult:
        with notebook.shown(progress) as show, Interrupts() as interrupts:

            def on_step() -> bool:
                if interrupts.count > 1:
                    raise KeyboardInterrupt
                told = show is not None and show(self.progress()) is False
                self.asked_to_stop |= told or interrupts.count > 0
                return not self.asked_to_stop

            try:
                self.engine.run(self.config.num_rollouts, on_step, self.settled)
            except TSLMError as error:
                stopped = SearchError(str(error))
                stopped.result = self.snapshot()
                raise stopped from error
            except KeyboardInterrupt:
                if not interrupts.count or not self.engine.leaves:
                    raise
        result = self.snapshot()
        assert result is not None, "a budget of at least one rollout finishes at least one"
        found = result.stats.rollouts
        if not self.asked_to_stop or found >= self.config.num_rollouts:
            return result
        note = f"interrupted after {found} of {self.config.num_rollouts} answers"
        return replace(result, interrupted=True, notes=(*result.notes, note))

    def settled(self) -> bool:
        """Whether the rollouts that are left can't change the answer any more, so that they need not be made."""
        config, finished = self.config, len(self.engine.leaves)
        left = config.num_rollouts - finished
        # While no more have been found than are left, those could all be for another answer.
        can_be = config.stop_early and self.method.extend == "sample" and 0 < left < finished
        if can_be and finished >= self.look_at:
            self.look_at = finished + max(1, left // 8)  # in a long search each look takes all that was found in
            self.stopped = settled(
                self.completions(), self.engine.tree, left, config.inverse_temperature, self.reward.highest
            )
        return self.stopped

    def score(self, nodes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Rewards of the answers that end at `nodes`, kept with their texts and columns."""
        completions = [self.completion(int(node)) for node in nodes]
        scores = self.reward.score(completions, self.question)
        for i, (node, one) in enumerate(zip(nodes.tolist(), completions, strict=True)):
            columns = {name: _finite(values[i]) for name, values in scores.columns.items()}
            self.scored[node] = ScoredCompletion(
                **vars(one),
                reward=float(scores.total[i]),
                columns=columns,
                node=node,
                rationale=self.engine.tree.rationale(node),
                said=said(one, self.question),
            )
        return scores.total

    def completion(self, node: int) -> Completion:
        tree, tokenizer = self.engine.tree, self.model.tokenizer
        tokens = [*self.prefix, *tree.path(node)]
        text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        known = token_arrays(tree, node, len(self.prefix))
        finished = bool(tree.finished[node])
        answer = self.question.parse(text)
        return Completion(text, tuple(tokens), float(tree.logprob[node]), answer, finished, **known)

    def progress(self) -> Progress:
        engine = self.engine
        return Progress(
            rollouts=len(engine.leaves),
            budget=self.config.num_rollouts,
            waves=engine.waves,
            walkers=engine.walkers,
            tokens=engine.decoder.tokens,
            seconds=time.perf_counter() - self.started,
            snapshot=self.snapshot,
        )

    def completions(self) -> list[ScoredCompletion]:
        """What has been found, weighed."""
        engine, tree = self.engine, self.engine.tree
        weights = leaf_weights(tree, self.config.inverse_temperature, self.method.weigh)
        times = Counter(leaf for leaf in engine.leaves if not tree.closed[leaf])
        return [
            replace(self.scored[leaf], weight=float(weights[leaf]) / times.get(leaf, 1))
            for leaf in engine.answers()
        ]

    def snapshot(self) -> SearchResult | None:
        """What is known now, or None where nothing has been scored."""
        engine, tree = self.engine, self.engine.tree
        if not engine.leaves:
            return None
        completions = self.completions()
        finished = len(engine.leaves)
        saved = (self.config.num_rollouts - finished) * engine.decoder.tokens / (finished - self.before or 1)
        total = time.perf_counter() - self.started
        return SearchResult(
            completions=completions,
            root_value=float(tree.value[ROOT]),
            tree=tree.copy(),
            stats=SearchStats(
                rollouts=len(engine.leaves),
                started=engine.started,
                waves=engine.waves,
                **tree.shape(),
                prompt_tokens=self.prompt_tokens,
                forward_passes=engine.decoder.forward_passes + 1,
                tokens_decoded=engine.decoder.tokens,
                tokens_saved=round(saved) if self.stopped else 0,
                seconds={"prefill": self.prefill_seconds, **engine.seconds, "total": total},
                peak_memory=self.model.peak_memory(),
            ),
            config=self.config,
            exhausted=self.method.fresh and tree.explored,
            prefix=self.prefix,
            notes=tuple(self.notes),
            shown=Shown(self.question, self.model.tokenizer, type(self.model).__name__),
            calibration=self.calibration,
        )


def _ends(result: SearchResult) -> list[int]:
    """Where each rollout of a result ended; a closed node as often as rollouts came to it."""
    tree, ends = result.tree, []
    for one in result.completions:
        if not tree.closed[one.rationale]:
            ends.append(one.node)
        elif one.rationale not in ends:
            ends += [one.rationale] * int(tree.visits[one.rationale])
    return ends


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
