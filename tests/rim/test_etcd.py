"""The conformance suite over a real etcd, TLS and client certificates on, and what is etcd's own.

One member per case keeps revisions countable; three members are for the drill.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.rim.control_conformance import (
    CASES,
    TIMED,
    ByWaiting,
    Opener,
    Turned,
    run_case,
    take,
)

from holdfast.errors import OperationFault, UsageError
from holdfast.limits import VALUE_BYTES_MAX
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.control import etcd_members
from holdfast.rim.control.etcd import EtcdStore
from holdfast.rim.control.etcd_access import EtcdAccess
from holdfast.rim.control.store import ControlStore, Put
from holdfast.rim.entropy import SystemEntropy

pytestmark = pytest.mark.system


class Running:
    """One etcd member of a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.members = etcd_members.prepare(directory, "127.0.0.1", 1, SystemEntropy(), time.time())
        self.access = self.members.access(".")
        self.start()

    def start(self) -> None:
        line = etcd_members.command(self.directory, self.members, self.members.members[0])
        log = (self.directory / "etcd.log").open("ab")
        self.process = subprocess.Popen(line, stdout=log, stderr=log)
        log.close()
        asyncio.run(self._serves())

    async def _serves(self) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    store = await self.open(SystemClock())
                except OperationFault:
                    await asyncio.sleep(0.05)
                else:
                    await store.close()
                    return

    async def open(self, clock: Clock) -> ControlStore:
        return await EtcdStore.open(self.access, self.directory, clock)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "etcd")
    yield running
    running.kill()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.removeprefix("case_"))
def test_conformance(case: Callable[[Opener], Awaitable[None]], etcd: Running) -> None:
    run_case(case, etcd.open)


@pytest.mark.parametrize("case", TIMED, ids=lambda case: case.__name__.removeprefix("timed_"))
def test_conformance_in_time(
    case: Callable[[Opener, Turned], Awaitable[None]], etcd: Running
) -> None:
    run_case(lambda opener: case(opener, ByWaiting()), etcd.open)


def test_a_watch_survives_the_death_of_its_member(etcd: Running) -> None:
    """Killed and started again: the watch ends with a fault that may be tried again, and a new
    one from where it stood misses nothing."""

    async def main() -> None:
        store = await etcd.open(SystemClock())
        await store.txn([], [Put("/a", b"1")])
        watch = store.watch("/a", 1)
        assert (await take(watch, 1))[0].revision == 1
        etcd.kill()
        with pytest.raises(OperationFault) as caught:
            await take(watch, 1)
        assert caught.value.retryable
        with pytest.raises(OperationFault):
            await store.txn([], [Put("/a", b"2")])
        await asyncio.to_thread(etcd.start)
        await store.txn([], [Put("/a", b"3")])
        assert (await take(store.watch("/a", 2), 1))[0].events[0].kv.value == b"3"
        await store.close()

    asyncio.run(main())


def test_a_stranger_gets_nothing(etcd: Running, tmp_path: Path) -> None:
    """No certificate, or one of another authority: no answer; a wrong file is the operator's."""
    other = tmp_path / "other"
    etcd_members.prepare(other, "127.0.0.1", 1, SystemEntropy(), time.time())
    (other / "ca.pem").write_bytes((etcd.directory / "ca.pem").read_bytes())
    endpoints = etcd.access.endpoints

    async def main() -> None:
        without = EtcdAccess(endpoints, "ca.pem")
        for access, base in ((without, other), (etcd.access, other)):
            with pytest.raises(OperationFault):
                await EtcdStore.open(access, base, SystemClock())
        with pytest.raises(UsageError, match="certificates"):
            await EtcdStore.open(etcd.access, tmp_path, SystemClock())
        with pytest.raises(UsageError, match="at least one"):
            await EtcdStore.open(EtcdAccess(()), tmp_path, SystemClock())

    asyncio.run(main())


def test_a_transaction_too_large_for_etcd_is_refused_before_it_is_sent(etcd: Running) -> None:
    async def main() -> None:
        store = await etcd.open(SystemClock())
        with pytest.raises(UsageError, match="cut it up"):
            await store.txn([], [Put(f"/{i}", bytes(VALUE_BYTES_MAX)) for i in range(2)])
        assert await store.revision() == 0
        await store.close()

    asyncio.run(main())
