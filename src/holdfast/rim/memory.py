"""Asking the C library to give memory back.

A device moves buffers of a megabyte through a dozen threads. glibc gives every thread an arena of
its own and, once a large buffer was freed, serves large buffers from arenas as well; a few hundred
megabytes of holes are the result. Two arenas, and mappings of their own for large buffers, cost
some page faults and keep a device at what it really holds.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_LARGE_BYTES: Final = 256 * 1024
_KEPT_BYTES: Final = 8 * 1024 * 1024


def be_frugal() -> bool:
    """Do so from now on; call it before threads start. False where the C library has no `mallopt`
    (musl, macOS), which then has its own ways."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_M_ARENA_MAX, _ARENAS), (_M_MMAP_THRESHOLD, _LARGE_BYTES))
    return all(mallopt(*option) for option in (*options, (_M_TRIM_THRESHOLD, _KEPT_BYTES)))
