"""Doubting a server that refuses writes: does its own page say that it is well? (seed 004 §9.1)

A relay that lies about its health keeps its seat while it serves nobody. Its page is a second old
and a refusal passes, so both are asked for again a little later; only a server that refuses twice
and twice says "ok" is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError
from holdfast.fabric.findings import Accused, FindingBook
from holdfast.fabric.roster import Roster
from holdfast.fabric.session import Session
from holdfast.limits.evidence import AUDIT_PERIOD_S, HEALTH_LIE_S
from holdfast.logic.pool.lies import Lie
from holdfast.wire.faults import Refusal
from holdfast.wire.pool import BlobClass

DOUBTED: Final = frozenset({"full", "read-only"})
"""Refusals that a server's page must agree with."""
_PAGE_BYTES_MAX: Final = 4_096


class Doubter:
    """The doubts of one slot; each server at most once in `AUDIT_PERIOD_S`."""

    def __init__(self, roster: Roster, findings: FindingBook) -> None:
        self._roster = roster
        self._findings = findings
        self._clock = roster.network.clock
        self._asked_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def doubt(
        self, name: str, key: SigningKey, blob_class: BlobClass, bodies: Sequence[bytes]
    ) -> None:
        """`name` refused to store `bodies`; see about it in the background."""
        now = self._clock.elapsed()
        session = self._roster.link(name).session(hash_bytes(key.public))
        if session is None or now - self._asked_at.get(name, float("-inf")) < AUDIT_PERIOD_S:
            return
        self._asked_at[name] = now
        task = asyncio.create_task(self._see(name, session, blob_class, bodies))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leave it at that."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Return when nothing is in doubt any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _see(
        self, name: str, session: Session, blob_class: BlobClass, bodies: Sequence[bytes]
    ) -> None:
        try:
            if not await _says_ok(session):
                return
            await self._clock.sleep_real(HEALTH_LIE_S)
            try:
                await session.push(blob_class, bodies)
                return
            except Refusal as refusal:
                if refusal.code not in DOUBTED:
                    return
                text = str(refusal)
            if not await _says_ok(session):
                return
        except HoldfastError:
            return
        accused = Accused(name, session.node, self._roster.slot, session.tag)
        self._findings.note(accused, Lie.FALSE_HEALTH, text, self._clock.wall())


async def _says_ok(session: Session) -> bool:
    status, body = await session.client.page("/health")
    if status != 200 or len(body) > _PAGE_BYTES_MAX:
        return False
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("status") == "ok"
