"""Search over whole answers: one engine, and the methods that are presets of it."""

from mlx_tslm.search.api import MaxEntTS, Progress, SearchError, run_sadt, tree_search
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.search.presets import METHODS
from mlx_tslm.search.result import ScoredCompletion, SearchResult, SearchStats

MaxEntTSConfig = SearchConfig

__all__ = [
    "METHODS",
    "MaxEntTS",
    "MaxEntTSConfig",
    "Progress",
    "ScoredCompletion",
    "SearchConfig",
    "SearchError",
    "SearchResult",
    "SearchStats",
    "run_sadt",
    "tree_search",
]
