"""How much memory the machine has, how much of it can be had, and how much this process has taken."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path


def total() -> int:
    """Bytes in the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free() -> int:
    """Bytes that a program could still get; all, where the system does not say."""
    if sys.platform == "darwin":
        try:
            said = subprocess.run(["vm_stat"], capture_output=True, text=True, check=False, timeout=10).stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ""
        counts = re.findall(r"Pages (?:free|inactive|speculative):\s+(\d+)", said)
        return os.sysconf("SC_PAGE_SIZE") * sum(map(int, counts)) or total()
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else total()


def available() -> int:
    """Bytes that MLX's arrays can still take: what Metal recommends to this process, elsewhere what is free."""
    import mlx.core as mx

    limit = mx.device_info().get("max_recommended_working_set_size")  # Metal
    return int(limit) - mx.get_active_memory() if limit is not None else free() + mx.get_cache_memory()


def peak_resident() -> int:
    """The most memory this process has had, in bytes.

    Linux hands a parent's `ru_maxrss` down to the process it starts, so there the peak of this program alone is
    read from /proc.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * (int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
