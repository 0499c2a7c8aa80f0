"""What a result stands beside: the commonest answer of all, and the model's own with the series zeroed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mlx_tslm.data.fingerprint import Rows
from mlx_tslm.evaluation.figures import figures
from mlx_tslm.evaluation.folder import Record
from mlx_tslm.evaluation.run import Progress, evaluate
from mlx_tslm.evaluation.samples import Item, items
from mlx_tslm.files import write_atomically
from mlx_tslm.models.base import BaseModel
from mlx_tslm.search import SearchConfig

MAJORITY, ZEROED = "majority", "zeroed series"


def baselines(
    model: BaseModel,
    rows: Rows,
    out: Path,
    config: SearchConfig,
    training: Rows | None = None,
    progress: Progress | None = None,
) -> dict[str, Any] | None:
    """The figures of both, also written into the `metrics.json` of an evaluation that has been made.

    Args:
        rows, out, config: of that evaluation.
        training: rows whose commonest answer it is; of `rows` themselves where None.
        progress: called after every sample without its series, which is answered greedily.

    Returns:
        `MAJORITY` and `ZEROED`, each as `figures` has them. None in all processes but the first.

    Raises:
        TSLMError: see `evaluate`.
    """
    zeroed = evaluate(model, rows, out / "zeroed", ["greedy"], config, ablate="zero", progress=progress)
    if zeroed is None:
        return None
    learnt = rows if training is None else training
    common = Counter(item.gold for item in items(learnt, range(len(learnt)))).most_common(1)[0][0]
    records = [_record(item, common) for item in items(rows, range(len(rows)))]
    result = {MAJORITY: figures(rows.stage, records)[0] | {"answer": common}, ZEROED: zeroed["methods"]["greedy"]}
    file = out / "metrics.json"
    whole = json.loads(file.read_text("utf-8")) | {"baselines": result}
    write_atomically(file, json.dumps(whole, indent=2, allow_nan=False) + "\n")
    return result


def _record(item: Item, answer: str) -> Record:
    labels = item.question.labels
    return {
        "index": item.index,
        "gold": item.gold,
        "group": None,
        "options": None,
        "labels": None if labels is None else list(labels),
        "answers": {"answer": {"text": answer, "answer": answer}},
        "reference": item.reference,
        **dict.fromkeys(("tokens", "forward_passes", "seconds", "prompt_tokens", "finished"), 0.0),
    }
