"""On Linux, have the C library keep the memory that MLX frees.

MLX's CPU backend takes every array from malloc, and glibc takes a large one from the kernel and gives it back when
it is freed: each of its pages is then zeroed anew at its first use, which takes longer than most of what is done
with it. On macOS, MLX has a cache of its own, and nothing is done here.
"""

import ctypes
import sys

# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Take large arrays from one heap, which shrinks only once 2 GB at its end are free."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return
    for option, value in ((_MMAP_MAX, 0), (_ARENA_MAX, 1), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 1 << 26)):
        mallopt(option, value)
