"""Questions about one's own recordings, in a table: what is trained on and evaluated as the published data are."""

from mlx_tslm.data.own.questions import Questions, open_table
from mlx_tslm.data.own.table import is_table

__all__ = ["Questions", "is_table", "open_table"]
