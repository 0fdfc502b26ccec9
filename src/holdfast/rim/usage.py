"""What this process has used of the machine."""

from __future__ import annotations

import resource
import time


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    return time.process_time()


def thread_cpu_s() -> float:
    """CPU seconds of this thread so far."""
    return time.thread_time()


def rss_mb() -> float:
    """The most memory it has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
