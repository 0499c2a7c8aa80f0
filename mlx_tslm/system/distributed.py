"""Several processes, on one machine or many, that share the samples among them (`mlx.launch`)."""

import json
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np


@cache
def group() -> Any:
    """MLX's group of processes: of size 1 where nothing was launched together."""
    return mx.distributed.init()


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks; the value must survive JSON. All must call it."""
    if group().size() == 1:
        return [value]
    raw = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.array(mx.distributed.all_gather(mx.array([len(raw)], mx.int32))).tolist()
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(raw)] = raw
    rows = np.array(mx.distributed.all_gather(mx.array(padded))).reshape(len(lengths), -1)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]
