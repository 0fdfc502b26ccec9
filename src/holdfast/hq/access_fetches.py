"""Who got a subscription when, written down many at a time.

The rule of epochs (`logic.access.epochs`) is safe towards too long: a fetch that is not recorded
keeps an epoch served. Only a device that never fetched before is unknown to it, so its first fetch
is in the store before it is answered; so is the binding of a device to its client. All others are
written behind, and not more often than once a minute for one device: a client that asks in a loop
writes nothing.

While one transaction is under way the next one fills: the busier, the fewer writes for each fetch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits.access import FETCH_NOTE_S, FETCHES_PER_TXN_MAX
from holdfast.logic.access.model import Cell, Device, DeviceId
from holdfast.logic.access.rows import DEVICES
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Get, Put, unchanged

_TRIES_MAX: Final = 8
"""Of one batch; another writer in between is rare, eight in a row are not chance."""


class Fetch(msgspec.Struct, frozen=True):
    """At this wall time a device got a view made no earlier. `client`: hash of the client's own
    id, empty when it gave none."""

    device: DeviceId
    at: float
    client: bytes = b""


class FetchLog:
    """`note` for each answer; await what it returns before answering, if it is something."""

    def __init__(self, store: ControlStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[DeviceId, Fetch] = {}
        self._written: asyncio.Future[None] | None = None
        """Of what waits now."""
        self._writer: asyncio.Task[None] | None = None

    def note(
        self, device: Device, cell: Cell, at: float, client: bytes = b""
    ) -> asyncio.Future[None] | None:
        """Take down that `device` has the view of `at`. The future is there when the answer has to
        wait for the store; it raises OperationFault."""
        binds = bool(client) and not device.client
        fresh = (at - device.fetched_at) * self._clock.scale < FETCH_NOTE_S
        if fresh and not binds and device.fetched_at >= cell.newest().opened_at:
            return None
        self._waiting[device.id] = Fetch(device.id, at, client)
        loop = asyncio.get_running_loop()
        if self._written is None:
            self._written = loop.create_future()
            self._written.add_done_callback(_consumed)
        written = self._written
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write_all())
        return written if binds or not device.fetched_at else None

    async def settle(self) -> None:
        """Wait until everything noted so far is written or failed."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer})

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            written, self._written = self._written, None
            assert written is not None, "made with the first that waits"
            try:
                fetches = list(batch.values())
                for start in range(0, len(fetches), FETCHES_PER_TXN_MAX):
                    await self._write(fetches[start : start + FETCHES_PER_TXN_MAX])
                written.set_result(None)
            except OperationFault as fault:
                written.set_exception(fault)

    async def _write(self, fetches: Sequence[Fetch]) -> None:
        """One transaction, again when somebody came between. Raises OperationFault."""
        for _ in range(_TRIES_MAX):
            gets = [Get(DEVICES + fetch.device) for fetch in fetches]
            rows = (await self._store.txn([], gets)).reads
            compares, puts = [], []
            for fetch, kv in zip(fetches, rows, strict=True):
                if kv is None:
                    continue
                row = msgspec.msgpack.decode(kv.value, type=Device)
                changed = msgspec.structs.replace(
                    row,
                    fetched_at=max(row.fetched_at, fetch.at),
                    client=row.client or fetch.client,
                )
                compares.append(unchanged(kv.key, kv))
                puts.append(Put(kv.key, msgspec.msgpack.encode(changed)))
            if not puts or (await self._store.txn(compares, puts)).succeeded:
                return
        raise OperationFault("the registry is being rewritten; try again")


def _consumed(written: asyncio.Future[None]) -> None:
    """A failure that nobody waits for is no surprise: the epoch is merely kept."""
    if not written.cancelled():
        written.exception()
