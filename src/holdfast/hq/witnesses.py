"""The witness set (ADR 0010): HQ names the nodes whose cosignatures clients count, and logs it.

The leading process looks every few seconds whether the set should change, and changes it one
careful step at a time, as `logic.trust.witnesses` says; every process follows the row.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from holdfast.errors import HoldfastError
from holdfast.hq.authority import Authority
from holdfast.hq.desired import WITNESS_SET, DesiredBook
from holdfast.hq.transparency import WITNESSES, Leaf, TransparencyLog
from holdfast.logic.fleet.model import Role, Version
from holdfast.logic.trust.witnesses import Candidate, WitnessKey, WitnessSet, next_set
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import Batch, ControlStore, KeyValue, Put, unchanged
from holdfast.wire.codec import pack, unpack
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body

ROUND_REAL_S: Final = 2.0
_ROLES: Final = frozenset({Role.RELAY, Role.REPLICA})
_log = logging.getLogger("holdfast.hq.witnesses")


class WitnessBook:
    """The newest set, as this process knows it."""

    def __init__(
        self,
        store: ControlStore,
        authority: Authority,
        log: TransparencyLog,
        desired: DesiredBook,
        clock: Clock,
    ) -> None:
        self._store = store
        self._authority = authority
        self._log = log
        self._desired = desired
        self._clock = clock
        self.tasks: list[asyncio.Task[None]] = []
        """Following the store; one that ends has failed."""
        self.staple: Staple | None = None
        self.current: WitnessSet | None = None

    async def start(self) -> None:
        """Load and follow. Raises OperationFault."""
        revision = await self._load()
        work = follow(self._store, WITNESS_SET, revision, self._see, self._load, self._clock)
        self.tasks = [asyncio.create_task(work)]

    async def stop(self) -> None:
        """Stop following."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def tend(self) -> None:
        """Look at the set now and then, for as long as this process leads."""
        while True:
            try:
                await self.round()
            except HoldfastError as error:
                _log.warning("the witness set waits: %s", error)
            await self._clock.sleep_real(ROUND_REAL_S)

    async def round(self) -> bool:
        """Publish the next set, if there should be one. Whether it did."""
        kv = await self._store.get(WITNESS_SET)
        current = self._read(kv) if kv else self._empty()
        age_s = (self._clock.wall() - current.issued_at) * self._clock.scale
        candidates = [
            Candidate(WitnessKey(row.identity, row.owner), row.joined_at)
            for row in self._desired.active()
            if row.role in _ROLES and row.owner
        ]
        witnesses = next_set(current, candidates, since_s=age_s)
        if witnesses is None:
            return False
        version = Version(current.version.epoch, current.version.n + 1)
        issued_at = int(self._clock.wall())
        news = WitnessSet(self._authority.network, version, issued_at, witnesses)
        staple = self._authority.sign(Type.WITNESSES, news)
        leaf = await self._log.prepare([Leaf(WITNESSES, pack(staple.signed))])
        reply = await self._store.txn(
            [unchanged(WITNESS_SET, kv), *leaf.compares],
            [Put(WITNESS_SET, pack(staple)), *leaf.puts],
        )
        if reply.succeeded:
            self._log.took(leaf)
        return reply.succeeded

    def _empty(self) -> WitnessSet:
        return WitnessSet(self._authority.network, Version(0, 0), 0, ())

    async def _load(self) -> int:
        reply = await self._store.range(WITNESS_SET)
        for kv in reply.items:
            self._take(kv)
        return reply.revision

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            self._take(event.kv)

    def _take(self, kv: KeyValue) -> None:
        self.staple = unpack(Staple, kv.value, bytes_max=2 * SIGNED_BYTES_MAX)
        self.current = self._read(kv)

    def _read(self, kv: KeyValue) -> WitnessSet:
        staple = unpack(Staple, kv.value, bytes_max=2 * SIGNED_BYTES_MAX)
        return decode_body(Type.WITNESSES, WitnessSet, staple.signed)


__all__ = ["WITNESS_SET", "WitnessBook"]
