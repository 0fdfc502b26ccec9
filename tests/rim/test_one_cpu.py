"""Threads that share a lock are kept on one CPU while they are busy (ADR 0048)."""

from __future__ import annotations

import _thread
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.limits import TOGETHER_IDLE_SHARE
from holdfast.rim import one_cpu
from holdfast.rim.one_cpu import OneCpu, idle_s

ALLOWED = os.sched_getaffinity(0)
PAUSES = {"rest": 0.1, "work": 0.001, "spin": 0.0}
"""What a thread waits for between two looks at whether it shall end."""

needs_two = pytest.mark.skipif(len(ALLOWED) < 2, reason="one CPU is all there is")


class Idle:
    """In place of how idle the machine is, which other tests decide."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self.more_s = 1.0

    def __call__(self, cpus: object) -> float:
        self.total_s += self.more_s
        return self.total_s


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> Idle:
    idle = Idle()
    monkeypatch.setattr(one_cpu, "idle_s", idle)
    return idle


@contextmanager
def thread(how: str, *, foreign: bool = False) -> Iterator[int]:
    """A thread; its native id. A foreign one is unknown to `threading`, as a library's is."""
    started, ending, ended = threading.Event(), threading.Event(), threading.Event()
    ids: list[int] = []

    def run() -> None:
        ids.append(threading.get_native_id())
        started.set()
        while not ending.wait(PAUSES[how]):
            pass
        ended.set()

    if foreign:
        _thread.start_new_thread(run, ())
    else:
        threading.Thread(target=run).start()
    assert started.wait(10)
    try:
        yield ids[0]
    finally:
        ending.set()
        assert ended.wait(10)


def look(cpus: OneCpu) -> None:
    """Let the threads work for a while, and count it as less: this machine has others to serve."""
    time.sleep(0.5)
    cpus.look(0.1)


def places(*threads: int) -> set[frozenset[int]]:
    return {frozenset(os.sched_getaffinity(each)) for each in threads}


@needs_two
def test_busy_threads_are_kept_on_one_cpu_and_nobody_else_is() -> None:
    with thread("spin") as leading, thread("rest") as second, thread("rest") as other:
        cpus = OneCpu(leading, second)
        look(cpus)
        assert cpus.kept
        (kept,) = places(leading, second)
        assert len(kept) == 1
        assert os.sched_getaffinity(other) == ALLOWED
        os.sched_setaffinity(other, kept)  # as one has it that a kept thread began
        look(cpus)
        assert os.sched_getaffinity(other) == ALLOWED


@needs_two
def test_of_a_librarys_threads_the_busiest_is_free_and_the_others_follow() -> None:
    with (
        thread("spin") as leading,
        thread("spin", foreign=True) as tls,
        thread("work", foreign=True) as bringing,
    ):
        cpus = OneCpu(leading)
        look(cpus)
        assert cpus.kept
        assert len(*places(leading, bringing)) == 1
        assert os.sched_getaffinity(tls) == ALLOWED


def test_threads_at_rest_go_where_the_kernel_likes() -> None:
    with thread("rest") as leading, thread("rest") as second:
        cpus = OneCpu(leading, second)
        look(cpus)
        assert not cpus.kept
        assert places(leading, second) == {frozenset(ALLOWED)}


@needs_two
def test_they_are_let_go_when_they_rest_and_one_that_ended_is_no_matter(idle: Idle) -> None:
    with thread("spin") as leading, thread("rest") as second:
        with thread("rest") as gone:
            cpus = OneCpu(leading, second, gone)
        look(cpus)
        assert cpus.kept
        idle.more_s = 1e9 * len(ALLOWED)
        cpus.look(1e9)  # as if next to nothing had been done for a long time
        assert not cpus.kept
        assert places(leading, second) == {frozenset(ALLOWED)}


@needs_two
def test_nobody_is_kept_when_no_cpu_is_idle(idle: Idle) -> None:
    with thread("spin") as leading:
        cpus = OneCpu(leading)
        look(cpus)
        assert cpus.kept
        idle.more_s = 0.1 * len(ALLOWED) * TOGETHER_IDLE_SHARE / 2
        look(cpus)
        assert not cpus.kept
        assert os.sched_getaffinity(leading) == ALLOWED


def test_how_idle_the_machine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert idle_s(ALLOWED) > 0
    assert idle_s(()) == 0
    monkeypatch.setattr(one_cpu, "_CPUS", tmp_path / "hidden")
    assert idle_s(ALLOWED) == 0


def test_a_single_cpu_is_left_alone() -> None:
    with thread("spin") as leading:
        only = {min(ALLOWED)}
        os.sched_setaffinity(leading, only)
        cpus = OneCpu(leading)
        look(cpus)
        assert not cpus.kept
        assert os.sched_getaffinity(leading) == only


@needs_two
def test_what_an_operator_allows_meanwhile_stands() -> None:
    with thread("rest") as leading, thread("spin") as second:
        cpus = OneCpu(leading, second)
        for each in (leading, second):
            os.sched_setaffinity(each, {max(ALLOWED)})
        look(cpus)
        assert not cpus.kept
        assert places(leading, second) == {frozenset({max(ALLOWED)})}


@needs_two
def test_who_is_kept_stays_while_half_as_busy(monkeypatch: pytest.MonkeyPatch, idle: Idle) -> None:
    idle.more_s = float(len(ALLOWED))
    with thread("rest") as leading:
        ticks, per_s = [0], os.sysconf("SC_CLK_TCK")

        def threads() -> dict[int, one_cpu._Seen]:
            return {leading: one_cpu._Seen(ticks[0], min(ALLOWED))}

        monkeypatch.setattr(one_cpu, "_threads", threads)
        cpus = OneCpu(leading)
        for share, kept in ((0.4, False), (0.6, True), (0.4, True), (0.2, False)):
            ticks[0] += int(share * per_s)
            cpus.look(1.0)
            assert cpus.kept is kept, share
        assert os.sched_getaffinity(leading) == ALLOWED


@needs_two
def test_what_is_kept_can_be_let_go_at_once() -> None:
    with thread("spin") as leading, thread("rest") as second:
        cpus = OneCpu(leading, second)
        look(cpus)
        assert cpus.kept
        cpus.let_go()
        assert not cpus.kept
        assert places(leading, second) == {frozenset(ALLOWED)}
