"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""Of this control group where that is the root of what is seen, as in a container (cgroup v2)."""


def cpus(quota: Path = _QUOTA) -> int:
    """Processors this process may run on, by affinity and by the control group's quota; at least
    one."""
    allowed = len(os.sched_getaffinity(0))
    try:
        spent, period = quota.read_text(encoding="ascii").split()
        return max(1, min(allowed, math.ceil(int(spent) / int(period))))
    except (OSError, ValueError):
        return allowed  # no such group, or "max": no quota
