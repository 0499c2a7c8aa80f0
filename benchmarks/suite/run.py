"""`bench run`: the topics of a suite, one after the other, into their files."""

import gc
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx

from benchmarks.suite import conversion, decoding, machine, scaling, search, stages
from benchmarks.suite import torch as pytorch
from benchmarks.suite.measure import Case, run_case
from benchmarks.suite.results import Results
from benchmarks.suite.suites import Suite, Workbench
from mlx_tslm.errors import TSLMError

TOPICS: dict[str, Callable[[Workbench], Iterator[Case]]] = {
    "conversion": conversion.cases,
    "decoding": decoding.cases,
    "search": search.cases,
    "scaling": scaling.cases,
    "stages": stages.cases,
    "torch": pytorch.cases,
}
BACKENDS = ("mlx", "torch")


def run(
    suite: Suite,
    results: Path,
    topics: Sequence[str] = (),
    backends: Sequence[str] = ("mlx",),
    of_stages: str = "1-5",
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Measure what is not measured yet.

    Args:
        suite: how much.
        results: the folder of all machines' results.
        topics: which, of `TOPICS`; all that the backends allow where there are none.
        backends: what to measure, of `BACKENDS`. MLX is what PyTorch is compared with.
        of_stages: whose prompts, such as "1-5".
        report: told what is being measured.

    Returns:
        This machine's folder, with one file a topic. A quick suite's files are in its subfolder `quick`.

    Raises:
        TSLMError: an unknown topic or backend, one that is not installed, or files of another schema version.
    """
    if unknown := [backend for backend in backends if backend not in BACKENDS]:
        raise TSLMError(f"unknown backend {unknown[0]!r}; choose from {', '.join(BACKENDS)}")
    if "mlx" not in backends:
        raise TSLMError("PyTorch is measured against MLX: write --backends mlx,torch")
    if "torch" in backends:
        from mlx_tslm import torch_backend  # noqa: F401 (says what to install where it cannot be imported)
    elif "torch" in topics:
        raise TSLMError("the benchmark torch needs both backends: add --backends mlx,torch")
    wanted = stages.chosen(of_stages)
    topics = topics or [topic for topic in TOPICS if topic != "torch" or "torch" in backends]
    if unknown := [topic for topic in topics if topic not in TOPICS]:
        raise TSLMError(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(TOPICS)}")
    folder = results / machine.describe()["id"] / ("" if suite.name == "full" else suite.name)
    files = {topic: Results(folder / f"{topic}.jsonl") for topic in topics}  # all, before anything takes time
    bench = Workbench(suite, backends, wanted)
    gc.freeze()  # collecting before each call looks at what came since, not at every module
    try:
        for topic, found in files.items():
            bench.read.cache_clear()
            session = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
            found.start(session, machine.describe())
            for case in TOPICS[topic](bench):
                run_case(case, found, session, report)
                gc.collect()
                mx.clear_cache()
    finally:
        gc.unfreeze()
    return folder
