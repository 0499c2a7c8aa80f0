"""The synthetic curriculum as data sets: rows by their number, each made when it is asked for."""

from collections.abc import Callable

import numpy as np

from mlx_tslm.data.dataset import SPLITS, Dataset, Row, Split
from mlx_tslm.data.synthetic import ecg, forecast, har, realistic, sleep
from mlx_tslm.data.synthetic.realistic import ecg as real_ecg
from mlx_tslm.data.synthetic.realistic import forecast as real_forecast
from mlx_tslm.data.synthetic.realistic import har as real_har
from mlx_tslm.data.synthetic.realistic import sleep as real_sleep
from mlx_tslm.stages import Stage

_Make = Callable[[Split, np.random.Generator, int], Row]

_CLEAN: dict[str, _Make] = {
    "tsqa": lambda split, rng, number: forecast.row("stage1", split, rng, number=number),
    "m4": lambda split, rng, number: forecast.row("stage2", split, rng, number=number),
    "har": lambda split, rng, number: har.row(split, rng),
    "sleep": lambda split, rng, number: sleep.row(split, rng),
    "ecg": ecg.row,
}
_REALISTIC: dict[str, _Make] = {
    "tsqa": lambda split, rng, number: real_forecast.row("stage1", split, rng, number),
    "m4": lambda split, rng, number: real_forecast.row("stage2", split, rng, number),
    "har": lambda split, rng, number: real_har.row(split, rng),
    "sleep": lambda split, rng, number: real_sleep.row(split, rng),
    "ecg": real_ecg.row,
}


def load(stage: Stage, split: Split, seed: int, size: int, real: bool = False) -> Dataset:
    """See `mlx_tslm.data.load`. A row depends on stage, split, seed and its number alone."""
    key = (seed, list(_CLEAN).index(stage.key), SPLITS.index(split))

    def make(number: int) -> Row:
        rng = np.random.default_rng((*key, number) if not real else (*key, number, 1))
        clean = not real or (split != "test" and rng.random() < realistic.CLEAN_SHARE)
        return (_CLEAN if clean else _REALISTIC)[stage.key](split, rng, number)

    return Dataset(stage, split, size, make)
