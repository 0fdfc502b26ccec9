"""How many processors this process may use, and how precisely its sleeps end."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""Of this control group where that is the root of what is seen, as in a container (cgroup v2)."""
_PR_SET_TIMERSLACK: Final = 29


def cpus(quota: Path = _QUOTA) -> int:
    """Processors this process may run on, by affinity and by the control group's quota; at least
    one."""
    allowed = len(os.sched_getaffinity(0))
    try:
        spent, period = quota.read_text(encoding="ascii").split()
        return max(1, min(allowed, math.ceil(int(spent) / int(period))))
    except (OSError, ValueError):
        return allowed  # no such group, or "max": no quota


def coarse_sleeps(slack_s: float) -> None:
    """Let short sleeps of this thread, and of those it starts, end so much later than asked for:
    the kernel may then wake for several at once (prctl(2), PR_SET_TIMERSLACK)."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(int(slack_s * 1e9)), 0, 0, 0)
