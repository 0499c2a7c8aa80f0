"""A real BLAS for MLX on Linux, loaded before MLX is imported.

MLX's Linux wheels carry the reference BLAS, which is tens of times slower than the machine. Symbols of a
library that was loaded globally earlier win, so loading MKL or OpenBLAS first replaces it. On macOS, MLX uses
Accelerate and Metal, and nothing is done here.
"""

import ctypes
import json
import os
import sys
from functools import cache
from pathlib import Path

_NAMES = {"libmkl_rt": "MKL", "libopenblas": "OpenBLAS"}


def _candidates() -> list[str]:
    roots = [Path(sys.prefix) / "lib", Path(sys.base_prefix) / "lib"]
    mkl = [str(path) for root in roots for path in sorted(root.glob("libmkl_rt.so.*"), reverse=True)]
    return [*mkl, "libmkl_rt.so.3", "libmkl_rt.so.2", "libopenblas.so.0", "libopenblas.so"]


def _launched_here() -> int:
    """How many processes `mlx.launch --backend ring` has started together on this process's host."""
    try:
        addresses = json.loads(Path(os.environ["MLX_HOSTFILE"]).read_text())
        hosts = [address[0].rpartition(":")[0] for address in addresses]
        return hosts.count(hosts[int(os.environ["MLX_RANK"])])
    except (KeyError, OSError, ValueError, TypeError, IndexError, AttributeError):
        return 1


@cache
def load() -> str | None:
    """Load the fastest BLAS that is installed, once, and return its name.

    Returns:
        "Accelerate" on macOS; "MKL" or "OpenBLAS" on Linux; None where Linux has neither.
        `MLX_TSLM_BLAS` (a library's path, or "none") overrides the choice. Processes launched together share the
        cores, unless `OMP_NUM_THREADS` says otherwise.
    """
    if sys.platform == "darwin":
        return "Accelerate"
    chosen = os.environ.get("MLX_TSLM_BLAS")
    if chosen == "none" or "mlx.core" in sys.modules:  # MLX has bound its own symbols already
        return None
    if (neighbours := _launched_here()) > 1:  # else each takes every core, and their threads wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // neighbours)))
    for candidate in [chosen] if chosen else _candidates():
        try:
            ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return next((name for stem, name in _NAMES.items() if stem in candidate), candidate)
    return None
