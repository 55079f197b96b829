"""The C library's memory manager, told to keep what a step frees for the next step, or to give it
back.

glibc gives large blocks back to the system at once, and the next step has each of their pages
handed out and zeroed anew: a tenth of a training step on a CPU.
"""

import ctypes
import platform

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keeps freed memory in the process; True where that is possible (Linux with glibc).

    It holds until the process ends and concerns all its memory; the peak stays as it was.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> bool:
    """Gives the system what lies free between blocks that are in use; True where that is possible
    and there was any."""
    return _is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def _is_glibc() -> bool:
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
