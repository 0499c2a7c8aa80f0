"""The synthetic curriculum as data sets: rows by their number, each made when it is asked for."""

from collections.abc import Callable

import numpy as np

from mlx_tslm.data.dataset import SPLITS, Dataset, Row, Split
from mlx_tslm.data.synthetic import ecg as synthetic_ecg
from mlx_tslm.data.synthetic import forecast as synthetic
from mlx_tslm.data.synthetic import har as synthetic_har
from mlx_tslm.data.synthetic import sleep as synthetic_sleep
from mlx_tslm.stages import Stage

_ROWS: dict[str, Callable[[Split, np.random.Generator, int], Row]] = {
    "tsqa": lambda split, rng, number: synthetic.row("stage1", split, rng, number=number),
    "m4": lambda split, rng, number: synthetic.row("stage2", split, rng, number=number),
    "har": lambda split, rng, number: synthetic_har.row(split, rng),
    "sleep": lambda split, rng, number: synthetic_sleep.row(split, rng),
    "ecg": lambda split, rng, number: synthetic_ecg.row(split, rng, number),
}


def load(stage: Stage, split: Split, seed: int, size: int) -> Dataset:
    """See `mlx_tslm.data.load`. A row depends on stage, split, seed and its number alone."""
    make = _ROWS[stage.key]
    key = (seed, list(_ROWS).index(stage.key), SPLITS.index(split))
    return Dataset(stage, split, size, lambda number: make(split, np.random.default_rng((*key, number)), number))
