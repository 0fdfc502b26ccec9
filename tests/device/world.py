"""Devices on a pool in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fabric.world import Dns, locator_of
from tests.relay.harness import Pool, until

from holdfast.crypto.phrase import Phrase
from holdfast.device.inviting import Inviter, join_group
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.setup import Setup, World, draw_phrase, set_up
from holdfast.device.state import DeviceState
from holdfast.errors import OperationFault
from holdfast.fabric.slot import Slot
from holdfast.logic.fleet.model import SlotRecord
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.locator import Locator
from holdfast.wire.records import Staple


class FakeHq:
    """HQ's three answers, from the pool's own records; silent when `gone`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.gone = False
        self.asked: list[str] = []
        self.accusations: list[bytes] = []

    async def roots(self, locator: Locator) -> Locator:
        self._ask("roots")
        return locator.with_roots(self.pool.roots)

    async def accuse(self, locator: Locator, evidence: bytes) -> bool:
        self.accusations.append(evidence)
        return True

    async def new_slot(self, locator: Locator, region: str) -> Staple:
        self._ask("new slot")
        return self.pool.staple(next(iter(self.pool.records.values())))

    async def record(self, locator: Locator, slot: bytes) -> Staple:
        self._ask("record")
        return self.pool.staple(self.pool.records[slot])

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.gone and what != "roots":
            raise OperationFault("HQ does not answer")


class Fleet:
    """Makes devices of one pool; closes them with itself."""

    def __init__(self, pool: Pool, record: SlotRecord, home: Path) -> None:
        self.pool = pool
        self.record = record
        self.home = home
        self.hq = FakeHq(pool)
        self.dns = Dns()
        self._open: list[DeviceRuntime] = []

    def world(self, clock: Clock | None = None) -> World:
        return World(clock or self.pool.clock, SystemEntropy(), self.dns, self.hq)

    async def device(
        self, name: str, phrase: Phrase | None = None, record: SlotRecord | None = None
    ) -> tuple[DeviceRuntime, Phrase]:
        locator = locator_of(self.pool, record or self.record)
        is_new = phrase is None
        phrase = phrase or draw_phrase(SystemEntropy())
        setup = Setup(self.home / name, name, locator, phrase, is_new, "eu")
        runtime = await set_up(setup, self.world())
        self._open.append(runtime)
        return runtime, phrase

    async def reopen(self, name: str) -> DeviceRuntime:
        """The device of that name, in a new process so to speak."""
        state = DeviceState.open(self.home / name, self.pool.clock)
        world = self.world()
        runtime = DeviceRuntime(
            state, world.clock, world.entropy, names=self.dns, headquarters=self.hq
        )
        await runtime.open()
        self._open.append(runtime)
        return runtime

    def adopt(self, runtime: DeviceRuntime) -> None:
        """Close this one too, at the end."""
        self._open.append(runtime)

    async def shut(self, runtime: DeviceRuntime) -> None:
        if runtime in self._open:
            self._open.remove(runtime)
            await runtime.close()
            runtime.state.close()

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *_: object) -> None:
        for runtime in list(self._open):
            await self.shut(runtime)


def tree(top: Path) -> dict[str, bytes | str | None]:
    """Everything below `top`: content of files, targets of links, None for directories."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if name.split("/")[0].startswith(".holdfast"):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


async def settled(*slots: Slot) -> None:
    """Nothing is under way."""
    for slot in slots:
        await until(lambda slot=slot: slot.store.outbox.bytes_held == 0, 60.0)


__all__ = ["Dns", "FakeHq", "Fleet", "Inviter", "join_group", "settled", "tree"]


@asynccontextmanager
async def running(tasks: Sequence[asyncio.Task[Any]]) -> AsyncIterator[None]:
    """They run beside the block; none of them ends before it, and all end with it."""
    try:
        yield
        for task in tasks:
            assert not task.done(), task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def same(*tops: Path) -> None:
    """Wait until the trees are equal."""
    first, *others = tops
    await until(lambda: all(tree(first) == tree(other) for other in others), 60.0)
