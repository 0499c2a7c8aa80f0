"""The evaluation itself: what is left to do, doing it, and the figures at the end."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlx_tslm.data.fingerprint import Rows, fingerprint
from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation import answering
from mlx_tslm.evaluation.figures import figures
from mlx_tslm.evaluation.folder import Folder, Record, slug, write
from mlx_tslm.evaluation.metrics import require
from mlx_tslm.evaluation.samples import items
from mlx_tslm.files import write_atomically
from mlx_tslm.models.base import BaseModel
from mlx_tslm.rewards import Reward
from mlx_tslm.search import SearchConfig
from mlx_tslm.stages.ablation import ABLATIONS
from mlx_tslm.suggest import did_you_mean
from mlx_tslm.system.distributed import gather, group

Progress = Callable[[str, int, int], None]
"""(method, samples finished, samples in all), of this process."""

FORMAT = 3  # of the records
_MOST_MALFORMED = 0.01  # of the rows


def evaluate(
    model: BaseModel,
    rows: Rows,
    out: str | Path,
    methods: Sequence[str] = ("greedy",),
    config: SearchConfig | None = None,
    reward: Reward | None = None,
    reward_name: str = "default",
    ablate: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """Answer every sample by every method, and compute the stage's metrics.

    Finished samples are on disk at once: after an interruption, the same call goes on from there. In a group of
    processes (`mlx.launch`) each takes its share of the samples, and the first one puts them together.

    Args:
        model: a loaded model.
        rows: a data set, see `mlx_tslm.data.load`.
        out: the folder for records and figures.
        methods: of `METHODS`.
        config: the settings of sampling and search; its method is not used. `num_rollouts` × `max_tokens` is what
            every method may spend on a sample, and `width` how many answers are under way at once.
        reward: of the searches; the stage's default where None.
        reward_name: what to note it as.
        ablate: a key of `ABLATIONS`, or None.
        progress: called after every sample.

    Returns:
        What is in `metrics.json` now: `stage`, `split`, `ablate`, `malformed`, `budget`, and under `methods` the
        figures of all methods that have answered these samples. None in all processes but the first.

    Raises:
        TSLMError: an option is wrong, the folder holds another evaluation, a library is missing, or a sample cannot
            be put to the model. What has been finished stays.
    """
    stage, config = rows.stage, (config or SearchConfig()).resolved(model.sampling)
    check(methods, ablate)
    settings = {name: answering.settings(name, config, reward_name) for name in methods}
    common = {
        "format": FORMAT,
        "stage": stage.name,
        "split": str(rows.split),
        "ablate": ablate,
        "model": model.fingerprint(),
        "data": fingerprint(rows),
        **answering.budget(config),
    }
    if ablate == "swap":  # whose series a sample gets depends on it
        common["samples"] = len(rows)
    folder = Folder(Path(out), group().rank())
    folder.agree(common, settings)

    finished: dict[str, list[Record]] = {}
    for method in methods:
        records = _answer(model, rows, folder, method, config, reward, ablate, progress)
        if group().rank() == 0:
            folder.merge(method, records)
            finished[method] = [one for one in records if one["index"] < len(rows)]
    malformed = sorted(set().union(*gather([str(row) for row in rows.malformed])))
    if len(malformed) > _MOST_MALFORMED * len(rows):
        raise TSLMError(
            f"{len(malformed)} of {len(rows)} rows are malformed, more than 1 %; the first: {malformed[0]}"
        )
    if group().rank() != 0:
        return None
    indices = {record["index"] for records in finished.values() for record in records}
    for method in folder.methods():
        records = [one for at, one in folder.read(method).items() if at in indices]
        if method not in finished and len(records) == len(indices):
            finished[method] = records
    result: dict[str, Any] = {
        **{name: common[name] for name in ("stage", "split", "ablate")},
        "malformed": malformed,
        "budget": answering.budget(config) | {"tokens": config.num_rollouts * config.max_tokens},
        "methods": {},
    }
    for method in filter(finished.__contains__, folder.methods()):
        result["methods"][method], pictures = figures(stage, finished[method])
        for readout, svg in pictures.items():
            suffix = "" if readout == "answer" else f"-{readout}"
            write_atomically(folder.path / f"confusion-{slug(method)}{suffix}.svg", svg)
    write_atomically(folder.path / "metrics.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def check(methods: Sequence[str], ablate: str | None = None) -> None:
    """See that an evaluation can be made, before anything slow happens.

    Raises:
        TSLMError: there is no such method or ablation, or a library is not installed.
    """
    for method in methods:
        if method not in (known := answering.METHODS):
            raise TSLMError(
                f"unknown method {method!r}; choose from {', '.join(known)}{did_you_mean(method, known)}"
            )
    if ablate is not None and ablate not in ABLATIONS:
        listed = ", ".join(ABLATIONS) + did_you_mean(ablate, ABLATIONS)
        raise TSLMError(f"there is no ablation {ablate!r}; choose from {listed}")
    require()


def _answer(
    model: BaseModel,
    rows: Rows,
    folder: Folder,
    method: str,
    config: SearchConfig,
    reward: Reward | None,
    ablate: str | None,
    progress: Progress | None,
) -> list[Record]:
    """Answer this process's share of what is left, and return the records of all processes."""
    rank, size = group().rank(), group().size()
    done = set().union(*gather(list(folder.read(method))))
    left = [index for index in range(len(rows)) if index not in done]
    before, share = (len(rows) - len(left)) // size, left[rank::size]
    with folder.open(method) as file:
        if progress:
            progress(method, before, before + len(share))
        asked = items(rows, share, ablate)
        for count, record in enumerate(answering.answers(model, rows.stage, asked, method, config, reward), 1):
            write(file, record)
            if progress:
                progress(method, before + count, before + len(share))
    records = {one["index"]: one for each in gather(list(folder.read(method).values())) for one in each}
    return [records[index] for index in sorted(records)]  # figures must not depend on who finished first
