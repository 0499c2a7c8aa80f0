"""p, λ and T of a stage, fitted on its validation samples; see `calibration` for what they are.

Each sample is searched once under each p that is tried. The tree that was found is weighed again for each λ, so
that λ and T take no further search.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_tslm import __version__
from mlx_tslm.calibration import Calibration, fit, padded, tempered
from mlx_tslm.completion import Completion
from mlx_tslm.data.fingerprint import Rows, fingerprint
from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation.folder import Folder, Record, write
from mlx_tslm.evaluation.metrics.estimate import Estimate
from mlx_tslm.evaluation.metrics.reliability import Bin, bins, expected_error, perfect_error
from mlx_tslm.evaluation.samples import Item, items
from mlx_tslm.models.base import BaseModel
from mlx_tslm.sampling import DEFAULT, Sampling
from mlx_tslm.search import MaxEntTS, SearchConfig, SearchResult
from mlx_tslm.search.answers import said
from mlx_tslm.search.result import weighed
from mlx_tslm.stages.answers import folded

STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Every λ that is tried; trees are grown at the one in the middle, 10, unless told otherwise."""

LEAST = 8
"""Samples that a fit takes at least."""

_FOLDS = 5
_TOLERANCE = 5.0  # beats a minute

Progress = Callable[[int, int], None]
"""(searches finished, searches in all)."""


@dataclass(frozen=True)
class Fitted:
    """What came out of a fit.

    Attributes:
        calibration: to be kept with the model.
        right: the share of samples whose heaviest answer is right.
        raw: expected calibration error of the shares themselves, at the p and λ that were chosen.
        error: of the confidences, each sample's under what was fitted on the other folds.
        perfect: what a perfect forecaster would show with these confidences.
        bins: of the reliability plot.
    """

    calibration: Calibration
    right: float
    raw: Estimate
    error: Estimate
    perfect: Estimate
    bins: list[Bin]


class Candidate(NamedTuple):
    """Shares under one p and one λ.

    Attributes:
        sampling: p.
        inverse_temperature: λ.
        shares: float64 `[N, K]`, of each sample's answers; 0 where it has fewer.
        right: int64 `[N]`, which of them is right; −1 where none is.
    """

    sampling: Sampling
    inverse_temperature: float
    shares: NDArray[np.float64]
    right: NDArray[np.int64]

    def of(self, rows: NDArray[np.bool_]) -> "Candidate":
        """The same for some of the samples."""
        return self._replace(shares=self.shares[rows], right=self.right[rows])


def ways_to_sample(model: BaseModel, config: SearchConfig) -> list[Sampling]:
    """Each p to try: the one that is asked for; else the model's own, and a few that are usual."""
    if config.temperature is not None or config.top_p is not None:
        return [config.resolved(model.sampling).sampling]
    found = [model.sampling, DEFAULT, Sampling(1.0, top_p=0.9), Sampling(0.7, top_p=0.95)]
    return [replace(one, top_k=config.top_k) for one in dict.fromkeys(found)]


def calibrate(
    model: BaseModel,
    rows: Rows,
    folder: Folder,
    config: SearchConfig | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
    about: str = "",
) -> Fitted:
    """Fit p, λ and T on the samples of a data set.

    What is finished is in the folder at once: after an interruption the same call goes on from there.

    Args:
        model: a loaded model.
        rows: validation samples, never those of a test.
        folder: for what each search found.
        config: of the searches. A temperature or top-p in it is the only p that is tried.
        seconds: after which no further sample is begun.
        about: what the samples are, for people.

    Raises:
        TSLMError: fewer than `LEAST` samples were finished, or one cannot be put to the model.
    """
    config = config or SearchConfig(inverse_temperature=STRENGTHS[3])
    ways = ways_to_sample(model, config)
    settings = config.to_dict() | {"temperature": None, "top_p": None}
    folder.agree(
        {
            "stage": rows.stage.name,
            "split": str(rows.split),
            "model": model.fingerprint(),
            "data": fingerprint(rows),
            "search": settings,
        },
        {_name(p): {"temperature": p.temperature, "top_p": p.top_p} for p in ways},
    )
    found = {p: folder.read(_name(p)) for p in ways}
    ended = None if seconds is None else time.monotonic() + seconds
    total, done = len(ways) * len(rows), sum(len(each) for each in found.values())
    for item in items(rows, range(len(rows))):
        if ended is not None and time.monotonic() > ended:
            break
        for p in ways:
            if item.index not in found[p]:
                record = found[p][item.index] = _search(model, item, config, p)
                with folder.open(_name(p)) as file:
                    write(file, record)
                done += 1
            if progress:
                progress(done, total)
    both = sorted(set.intersection(*(set(each) for each in found.values())))
    both = [index for index in both if index < len(rows)]
    if len(both) < LEAST:
        raise TSLMError(f"{len(both)} samples of {rows.stage.name} are too few to fit on; take {LEAST} or more")
    candidates = [
        _candidate(p, strength, [found[p][index] for index in both]) for p in ways for strength in STRENGTHS
    ]
    origin = {
        "samples": len(both),
        "of": about or str(rows.split),
        "data": fingerprint(rows),
        "num_rollouts": config.num_rollouts,
        "made_with": f"mlx-tslm {__version__}",
    }
    return choose(candidates, config.method, origin)


def choose(candidates: Sequence[Candidate], method: str = "maxent-ts", origin: Any = None) -> Fitted:
    """The best of the candidates with its T, and how well it holds: each fifth of the samples under what the others
    say, p and λ included.
    """
    best, temperature, score = _best(candidates)
    number = len(best.right)
    fold = np.arange(number) % _FOLDS
    stated, hits = np.empty(number), np.empty(number, bool)
    for at in range(_FOLDS):
        here = fold == at
        if not here.any():
            continue
        chosen = [one.of(~here) for one in candidates]
        which, own, _ = _best(chosen)
        candidate = candidates[next(i for i, one in enumerate(chosen) if one is which)].of(here)
        stated[here], hits[here] = _headlines(candidate, own)
    raw, right = _headlines(best, 1.0)
    error, perfect = expected_error(stated, hits), perfect_error(stated)
    kept = dict(origin or {}) | {
        "right": float(right.mean()),
        "brier": score,
        "expected_calibration_error": {
            "bins": 15,
            **error._asdict(),
            "uncalibrated": expected_error(raw, right).value,
        },
    }
    calibration = Calibration(
        best.sampling.temperature,
        best.sampling.top_p or 1.0,
        best.inverse_temperature,
        temperature,
        method,
        kept,
    )
    return Fitted(calibration, float(right.mean()), expected_error(raw, right), error, perfect, bins(stated, hits))


def _best(candidates: Sequence[Candidate]) -> tuple[Candidate, float, float]:
    """The candidate with the best score at its own T; of equals the first."""
    fits = [fit(one.shares, one.right) for one in candidates]
    at = min(range(len(fits)), key=lambda number: fits[number][1])
    return candidates[at], *fits[at]


def _headlines(one: Candidate, temperature: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence of each sample's heaviest answer, and whether it is right; column 0 is no allowed answer."""
    shares = one.shares[:, 1:]
    top = shares.argmax(axis=1)
    rows = np.arange(len(shares))
    return tempered(one.shares, temperature)[rows, top + 1], one.right == top + 1


def _search(model: BaseModel, item: Item, config: SearchConfig, p: Sampling) -> Record:
    """What one search found: of each λ the weight of no allowed answer, and of each answer."""
    settings = replace(config, temperature=p.temperature, top_p=p.top_p or 1.0, seed=config.seed + item.index)
    try:
        result = MaxEntTS(model, config=settings).search(item.question)
    except TSLMError as error:
        raise TSLMError(f"sample {item.index}: {error}") from None
    text = item.reference
    gold = said(Completion(text, (), 0.0, item.question.parse(text)), item.question)
    return {
        "index": item.index,
        "gold": None if gold is None else ", ".join(gold),
        "weights": {f"{strength:g}": list(_weights(weighed(result, strength))) for strength in STRENGTHS},
    }


def _weights(result: SearchResult) -> Iterator[tuple[str | None, float]]:
    yield None, result.unanswered
    yield from result.answers.items()


def _candidate(p: Sampling, strength: float, records: Sequence[Record]) -> Candidate:
    shares, right = [], []
    for record in records:
        weights = record["weights"][f"{strength:g}"]
        shares.append([weight for _, weight in weights])
        hits = [
            at for at, (answer, _) in enumerate(weights) if answer is not None and agrees(answer, record["gold"])
        ]
        right.append(max(hits, key=lambda at: weights[at][1], default=-1))
    return Candidate(p, strength, padded(shares), np.array(right, np.int64))


def agrees(answer: str, gold: str | None) -> bool:
    """Whether an answer is the reference's but for case and punctuation, or its heart rate within 5 a minute."""
    if gold is None:
        return False
    rates = [one.removesuffix(" bpm") for one in (folded(answer), folded(gold)) if one.endswith(" bpm")]
    if len(rates) == 2 and all(one.isdecimal() for one in rates):
        return abs(float(rates[0]) - float(rates[1])) <= _TOLERANCE
    return folded(answer) == folded(gold)


def _name(p: Sampling) -> str:
    return f"p-{p.temperature:g}-{p.top_p or 1:g}"
