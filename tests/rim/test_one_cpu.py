"""Threads that share a lock are kept on one CPU while they are busy (ADR 0048)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from holdfast.limits import TOGETHER_BUSY_SHARE
from holdfast.rim.one_cpu import OneCpu

ALLOWED = os.sched_getaffinity(0)


@contextmanager
def thread(work: str) -> Iterator[int]:
    """A thread that is at rest or spins; its native id."""
    ending = threading.Event()

    def run() -> None:
        while not ending.wait(0.05 if work == "rest" else 0.0):
            pass

    running = threading.Thread(target=run)
    running.start()
    assert running.native_id is not None
    try:
        yield running.native_id
    finally:
        ending.set()
        running.join()


def spin(real_s: float) -> float:
    """Let the others work for a while; how long it was."""
    started = time.monotonic()
    time.sleep(real_s)
    return time.monotonic() - started


@pytest.mark.skipif(len(ALLOWED) < 2, reason="one CPU is all there is")
def test_busy_threads_are_kept_on_one_cpu_and_nobody_else_is() -> None:
    with thread("spin") as leading, thread("rest") as second, thread("rest") as other:
        cpus = OneCpu((leading, second))
        cpus.look(spin(0.4))
        assert cpus.kept
        (kept,) = {frozenset(os.sched_getaffinity(each)) for each in (leading, second)}
        assert len(kept) == 1
        assert os.sched_getaffinity(other) == ALLOWED
        os.sched_setaffinity(other, kept)  # as one has it that a kept thread began
        cpus.look(spin(0.4))
        assert os.sched_getaffinity(other) == ALLOWED


def test_threads_at_rest_go_where_the_kernel_likes() -> None:
    with thread("rest") as leading, thread("rest") as second:
        cpus = OneCpu((leading, second))
        cpus.look(spin(0.2))
        assert not cpus.kept
        assert {frozenset(os.sched_getaffinity(each)) for each in (leading, second)} == {
            frozenset(ALLOWED)
        }


@pytest.mark.skipif(len(ALLOWED) < 2, reason="one CPU is all there is")
def test_they_are_let_go_when_they_rest_and_one_that_ended_is_no_matter() -> None:
    with thread("spin") as leading, thread("rest") as second:
        with thread("rest") as gone:
            cpus = OneCpu((leading, second, gone))
        cpus.look(spin(0.4))
        assert cpus.kept
        cpus.look(1e9)  # as if next to nothing had been done for a long time
        assert not cpus.kept
        assert os.sched_getaffinity(second) == ALLOWED


def test_a_single_cpu_is_left_alone() -> None:
    """In a process of its own: affinity is inherited by whatever begins later."""
    script = (
        "import os, threading, time\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from holdfast.rim.one_cpu import OneCpu\n"
        "cpus = OneCpu((threading.get_native_id(),))\n"
        "end = time.monotonic() + 0.3\n"
        "while time.monotonic() < end: pass\n"
        f"cpus.look(0.1 / {TOGETHER_BUSY_SHARE})\n"
        "assert not cpus.kept\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
