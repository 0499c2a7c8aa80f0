"""What a machine is, in the words that stand above a table."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlx_tslm import __version__
from mlx_tslm.system import blas, memory

_PACKAGES = ("mlx", "mlx-lm", "numpy", "torch", "transformers")


def describe() -> dict[str, Any]:
    """The machine as it is now: chip, cores, memory, system, versions, BLAS, power, load, commit.

    `id` is a folder name that is the same for the same kind of machine.
    """
    import mlx.core as mx

    gpu = mx.default_device() == mx.Device(mx.gpu)
    chip, cores, total = _chip(), os.cpu_count() or 1, memory.total()
    name = f"{chip} {cores} cores {total / 2**30:.0f} GB {platform.system()} {'GPU' if gpu else blas.load()}"
    return {
        "id": re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-"),
        "chip": chip,
        "cores": cores,
        "memory": total,
        "os": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "device": f"GPU ({mx.device_info().get('device_name', chip)})" if gpu else "CPU",
        "blas": blas.load(),
        "python": platform.python_version(),
        "mlx-tslm": __version__,
        **{package: _version(package) for package in _PACKAGES},
        "power": _power(),
        "load": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }


def _chip() -> str:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return model[1].strip() if model else platform.machine()


def _power() -> str | None:
    """On a Mac "AC Power" or "Battery Power", and whether low-power mode is on; None elsewhere."""
    if sys.platform != "darwin":
        return None
    source = re.search(r"'(.+?)'", _output("pmset", "-g", "batt"))
    low = re.search(r"lowpowermode\s+1", _output("pmset", "-g"))
    return (source[1] if source else "AC Power") + (", low-power mode" if low else "")


def _commit() -> str | None:
    """The commit of the checkout this package runs from, with + where files differ; None outside of one."""
    root = str(Path(__file__).parents[2])
    commit = _output("git", "-C", root, "rev-parse", "--short", "HEAD")
    changed = commit and _output("git", "-C", root, "status", "--porcelain", "--", "mlx_tslm")
    return commit + ("+" if changed else "") if commit else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    """What a command prints; empty where there is no such command or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
