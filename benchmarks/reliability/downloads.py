"""The Hub, played by a server on this machine that misbehaves in every way the tests know."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks.reliability.cases import Run, case
from mlx_tslm.errors import TSLMError

TESTS = Path(__file__).parents[2] / "tests"


@case("Downloads", "Whatever the Hub does, there is one line within a minute; what arrives is what it states.")
def the_hub(run: Run) -> None:
    """Each trouble on each kind of request, lasting, then passing; a file is right or it is not there."""
    sys.path.insert(0, str(TESTS))
    from fake_hub import TROUBLES, serving
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    from mlx_tslm.fetching import hub

    disable_progress_bars()
    constants.HF_HUB_CACHE = str(run.folder / "hub")
    constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = 1
    content, longest = os.urandom(300_000), 0.0
    tries = list(itertools.product(TROUBLES, ("HEAD", "GET", "API"), (1 << 30, 1)))
    for trouble, where, times in tries[:: 13 if run.short else 1]:
        shutil.rmtree(run.folder / "hub", ignore_errors=True)
        what, started = f"{trouble} at {where}, {times} times", time.perf_counter()
        with serving() as server:
            constants.ENDPOINT = server.url
            constants.HUGGINGFACE_CO_URL_TEMPLATE = server.url + "/{repo_id}/resolve/{revision}/{filename}"
            server.repos["me/x"] = {"a.safetensors": content}
            server.wrong(trouble, where, times=times)
            for _ in range(2):
                run.count("downloads tried")
                try:
                    path = hub.cached_folder("me/x", ["*.safetensors"]) / "a.safetensors"
                    run.check(path.read_bytes() == content, f"{what}: other bytes")
                    run.count("of them right")
                except TSLMError as error:
                    run.count("refused in one line")
                    run.check("\n" not in str(error), f"{what}: {error}")
                except Exception as error:
                    run.check(False, f"{what}: {type(error).__name__}: {error}")
                longest = max(longest, time.perf_counter() - started)
                started = time.perf_counter()
            server.hang.set()
    run.figures["longest, s (timeouts cut to 1 s)"] = round(longest, 1)
