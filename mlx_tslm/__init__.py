"""mlx-tslm: time-series language models (OpenTSLM) on Apple silicon: convert, run and search, in MLX."""

import sys

if sys.argv[:1] == ["-m"] or sys.argv[0].endswith("mlx-tslm"):  # the program itself, not one that imports us
    from mlx_tslm.system.interrupt import end_at_once

    end_at_once()

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlx_tslm.errors import TSLMError
from mlx_tslm.system import blas

if TYPE_CHECKING:
    from mlx_tslm.generation import generate as generate
    from mlx_tslm.generation import stream_generate as stream_generate
    from mlx_tslm.loading import load as load
    from mlx_tslm.loading import load_pretrained as load_pretrained
    from mlx_tslm.rewards import SpectralReward as SpectralReward
    from mlx_tslm.search import MaxEntTS as MaxEntTS
    from mlx_tslm.search import MaxEntTSConfig as MaxEntTSConfig
    from mlx_tslm.search import SearchConfig as SearchConfig
    from mlx_tslm.search import SearchResult as SearchResult
    from mlx_tslm.search import run_sadt as run_sadt
    from mlx_tslm.search import tree_search as tree_search
    from mlx_tslm.series import Series as Series
    from mlx_tslm.stages.base import Prompt as Prompt
    from mlx_tslm.stages.base import Question as Question

__version__ = "0.1.0"

blas.load()  # has to come before the first `import mlx.core`

# Where each lazily imported public name lives: MLX and the rest are paid for when first used.
_LAZY = {
    "load": "mlx_tslm.loading",
    "load_pretrained": "mlx_tslm.loading",
    "generate": "mlx_tslm.generation",
    "stream_generate": "mlx_tslm.generation",
    "tree_search": "mlx_tslm.search",
    "run_sadt": "mlx_tslm.search",
    "MaxEntTS": "mlx_tslm.search",
    "MaxEntTSConfig": "mlx_tslm.search",
    "SearchConfig": "mlx_tslm.search",
    "SearchResult": "mlx_tslm.search",
    "SpectralReward": "mlx_tslm.rewards",
    "Series": "mlx_tslm.series",
    "Prompt": "mlx_tslm.stages.base",
    "Question": "mlx_tslm.stages.base",
    "stages": "mlx_tslm.stages",
}

__all__ = ["TSLMError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mlx_tslm' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    value = module if _LAZY[name] == f"mlx_tslm.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
