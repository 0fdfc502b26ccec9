"""Processes that are run for their output: started together, waited for together."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from holdfast.errors import OperationFault


class Work(NamedTuple):
    """A command line, and what to add to its environment."""

    words: Sequence[str]
    environment: Mapping[str, str] = {}


def outputs(work: Sequence[Work], *, at_once: int, timeout_s: float) -> list[str | None]:
    """What each printed, in order; None for one that failed or took longer than `timeout_s`.

    At most `at_once` run at any time. Raises OperationFault when one cannot be started.
    """
    found: list[str | None] = []
    for start in range(0, len(work), at_once):
        running = [_start(item) for item in work[start : start + at_once]]
        found += [_finish(process, timeout_s) for process in running]
    return found


def _start(item: Work) -> subprocess.Popen[str]:
    environment = {**os.environ, **item.environment}
    try:
        return subprocess.Popen(
            list(item.words), env=environment, stdout=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise OperationFault(f"{item.words[0]} does not start: {error}", retryable=False) from error


def _finish(process: subprocess.Popen[str], timeout_s: float) -> str | None:
    try:
        printed, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return printed if process.returncode == 0 else None
