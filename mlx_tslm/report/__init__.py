"""A search result as one self-contained HTML page."""

from mlx_tslm.report.page import write_html

__all__ = ["write_html"]
