"""Where files are kept, and writing them so that a reader sees the old one or the whole new one."""

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Where converted models and fetched data are kept: `$MLX_TSLM_CACHE`, or `~/.cache/mlx-tslm`."""
    return Path(os.environ.get("MLX_TSLM_CACHE") or Path.home() / ".cache" / "mlx-tslm")


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place; nothing is left behind on failure."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)  # mkstemp's files are for their owner alone
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
