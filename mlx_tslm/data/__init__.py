"""What is trained on and evaluated, by one interface: the five stages' published data sets, a synthetic curriculum
of the same shapes, and tables of questions about one's own recordings."""

from pathlib import Path
from typing import Literal

from mlx_tslm import stages
from mlx_tslm.data.dataset import SPLITS, Dataset, Row, Split
from mlx_tslm.data.published.csv_index import MalformedRow
from mlx_tslm.errors import TSLMError
from mlx_tslm.schema import checked_seed
from mlx_tslm.stages import Stage

__all__ = ["SOURCES", "SPLITS", "Dataset", "MalformedRow", "Row", "Split", "load"]


SOURCES = ("published", "synthetic", "realistic")
"""The sources with a name; any other one is a table of questions."""


def load(
    stage: str | Stage | None,
    split: Split | Literal["all"] = "train",
    data_dir: str | Path | None = None,
    limit: int | None = None,
    *,
    source: str | Path = "published",
    seed: int = 0,
    size: int = 1000,
) -> Dataset:
    """One split of a stage's data set.

    Args:
        stage: "stage1" … "stage5", or its key ("tsqa", …). Of a table also a task's TOML file, a `Stage`, or None
            for a task that is made of the table.
        data_dir: the folder with the published files, in it or up to two folders below; by default where
            `mlx-tslm data fetch` puts them. For stage 5 it holds ECG-QA CoT's files and PTB-XL.
        limit: the first rows only.
        source: "published", "synthetic" for rows of the same columns made from a seed, or "realistic" for such
            rows with what disturbs real recordings, one in four of its training and validation rows a clean one. Or
            a table of questions about recordings (CSV), or a folder with a `questions.csv`; see `own.Questions`.
        seed, size: of the synthetic rows. A split of the same seed is the same for every size, only longer.

    Raises:
        TSLMError: there is no such stage, split or folder, a file is missing or not what it should be, or more
            than 1 % of the rows are malformed.
    """
    if limit is not None and limit < 0:
        raise TSLMError(f"limit is {limit}; give how many rows to take")
    checked_seed(seed)
    if str(source) not in SOURCES:
        from mlx_tslm.data import own

        return own.open_table(str(source), stage).of(split, limit)
    chosen = stages.get(stage) if isinstance(stage, str) else stage
    if chosen is None:
        raise TSLMError("say of which stage the data are")
    if split not in SPLITS:
        raise TSLMError(f"there is no split {split!r}; choose {', '.join(SPLITS)}")
    if source != "published":
        from mlx_tslm.data.synthetic import curriculum

        return curriculum.load(
            chosen, split, seed, size if limit is None else min(limit, size), source == "realistic"
        )
    from mlx_tslm.data.published import stages as published

    return published.load(chosen, split, data_dir, limit)
