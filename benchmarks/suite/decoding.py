"""Topic `decoding`: what the machine can do, and how near prompt encoding and decoding come to it."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mlx.core as mx
import numpy as np

from benchmarks.suite.measure import Case, Measured, Variant, timed
from benchmarks.suite.steppers import CachedRow, MatrixProducts, repeat
from benchmarks.suite.suites import Workbench

BANDWIDTH = ("matrix-vector product", "sum on all cores")
MATRIX_ROWS = (1, 16, 32, 64, 512)
_ROLLOUT = 32


def cases(bench: Workbench) -> Iterator[Case]:
    """Limits first, then prompts, then one row."""
    suite, shape = bench.suite, bench.suite.shape.name
    yield Case(
        "bandwidth",
        {"bytes": suite.bandwidth},
        BANDWIDTH,
        lambda names: _bandwidth(suite.bandwidth),
        suite.rounds,
        needs=dict.fromkeys(BANDWIDTH, 2 * suite.bandwidth),
    )
    yield Case(
        "matmul",
        {"shape": shape},
        [f"{rows} rows" for rows in MATRIX_ROWS],
        lambda names: {f"{rows} rows": _products(bench, rows) for rows in MATRIX_ROWS},
        suite.rounds,
    )
    for positions in suite.prompts:
        yield Case(
            "prefill",
            {"shape": shape, "prompt": positions},
            ["mlx-tslm"],
            partial(_prefill, bench, positions),
            suite.slow_rounds,
            warmup=positions < 1024,
        )
    for positions in suite.prompts:
        yield Case(
            "one-row",
            {"shape": shape, "prompt": positions, "tokens": _ROLLOUT},
            ["mlx-tslm", "matrix products alone"],
            partial(_one_row, bench, positions),
            suite.rounds,
        )


def _bandwidth(nbytes: int) -> Mapping[str, Variant]:
    matrix = mx.random.normal((nbytes // 4 // 8192, 8192))
    vector = mx.random.normal((8192, 1))
    mx.eval(matrix, vector)
    threads = ThreadPoolExecutor()
    blocks = np.array_split(np.asarray(matrix), threads._max_workers)
    product, total = BANDWIDTH
    return {
        product: lambda: timed(lambda: mx.eval(matrix @ vector)),
        total: lambda: timed(lambda: list(threads.map(np.sum, blocks))),
    }


def _products(bench: Workbench, rows: int) -> Variant:
    """The layers' linear maps, all weights read once."""
    products = MatrixProducts(bench.model, None, rows, 0, ["linears"])
    flops = 2 * rows * bench.suite.shape.layer_parameters

    def run() -> Measured:
        measured = timed(products.step)
        return Measured(measured.seconds, {"flops": flops})

    return run


def _prefill(bench: Workbench, positions: int, names: frozenset[str]) -> Mapping[str, Variant]:
    prompt = bench.prompt(positions)
    return {"mlx-tslm": lambda: timed(lambda: bench.model.prefill(prompt))}


def _one_row(bench: Workbench, positions: int, names: frozenset[str]) -> Mapping[str, Variant]:
    row = CachedRow(bench.model, bench.read(positions))
    floor = MatrixProducts(bench.model, bench.read(positions), 1, _ROLLOUT // 2)

    def rollout() -> Measured:
        row.restart()
        return timed(lambda: repeat(row, _ROLLOUT))

    return {"mlx-tslm": rollout, "matrix products alone": lambda: timed(lambda: repeat(floor, _ROLLOUT))}
