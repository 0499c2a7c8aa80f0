"""From records to the figures of an evaluation."""

from collections.abc import Sequence
from typing import Any

from mlx_tslm.evaluation import metrics
from mlx_tslm.evaluation.folder import Record
from mlx_tslm.evaluation.metrics import Judged
from mlx_tslm.stages import Stage


def judged(records: Sequence[Record], readout: str) -> list[Judged]:
    """What the metrics look at; `readout` is which of the records' answers."""
    return [_judged(record, **record["answers"][readout]) for record in records]


def figures(stage: Stage, records: Sequence[Record]) -> tuple[dict[str, Any], dict[str, str]]:
    """One method's figures, ready for JSON, and the SVG of each readout's confusion matrix.

    Samples whose reference ends in none of the labels cannot be judged: they are counted as `unlabelled`, and left
    out of the metrics.

    Args:
        records: at least one, as `answering.answers` yields them.

    Raises:
        TSLMError: a library is missing.
    """
    labelled = [one for one in records if not (labels := _labels(one)) or one["gold"] in labels]
    result: dict[str, Any] = {
        "samples": len(records),
        "unlabelled": len(records) - len(labelled),
        "metrics": {},
        "spent": spent(records),
    }
    pictures: dict[str, str] = {}
    for readout in records[0]["answers"] if labelled else ():
        samples = judged(labelled, readout)
        scores = metrics.scores(stage, samples)
        if "classification" in stage.metrics:
            names, counts = metrics.confusion(samples)
            result.setdefault("confusion", {})[readout] = {"classes": names, "counts": counts.tolist()}
            pictures[readout] = metrics.confusion_svg(names, counts, f"{stage.name}: {stage.title}")
            if stage.group:
                groups = sorted(metrics.per_group(stage.published, samples).items())
                result.setdefault("templates", {})[readout] = {str(at): one for at, one in groups}
            else:
                result.setdefault("classes", {})[readout] = metrics.per_class(samples)
        result["metrics"][readout] = {name: one._asdict() for name, one in scores.items()}
    return result, pictures


def spent(records: Sequence[Record]) -> dict[str, float]:
    """Means a sample: tokens, forward passes, seconds, and the share of completions that came to their end."""
    names = ("tokens", "forward_passes", "seconds", "prompt_tokens", "finished")
    return {name: sum(record[name] for record in records) / len(records) for name in names}


def _judged(record: Record, text: str, answer: str | None) -> Judged:
    reference, gold, labels = record["reference"], record["gold"], _labels(record)
    if record["options"] and not reference.startswith("("):
        # The truth is an option's words; the published rules, which look at texts, compare letters.
        reference, text = gold, answer if answer and answer in record["options"] else text
    return Judged(
        text=text,
        answer=answer,
        reference=reference,
        gold=gold,
        labels=labels,
        group=record["group"],
        nll=record.get("nll", 0.0),
        nll_tokens=record.get("nll_tokens", 0),
    )


def _labels(record: Record) -> tuple[str, ...] | None:
    return tuple(record["labels"]) if record["labels"] is not None else None
