"""Getting blobs by id: from all relays at once, from replicas what relays no longer have.

Every body's hash is checked before anybody sees it. A server that fails, lacks an id or sends
other bytes is passed over for that id, and the others are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from holdfast.crypto.keys import SigningKey
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.roster import Roster
from holdfast.fabric.session import Session
from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.fetch import Fetch

Taker = Callable[[bytes, bytes], Awaitable[None]]
"""Receives (id, body); its work is awaited, so a slow disk slows the download, not the memory."""
IDS_PER_GET: Final = 4
"""Four full blobs fill one reply."""
GETS_PER_SERVER: Final = 2


async def fetch(
    roster: Roster, key: SigningKey, blobs: Iterable[bytes], take: Taker
) -> tuple[bytes, ...]:
    """Fetch `blobs`, in no particular order; the ids that no server which answers has.

    Raises OperationFault when no server can be asked at all, and whatever `take` raises.
    """
    wanted = tuple(dict.fromkeys(blobs))
    if not wanted:
        return ()
    relays, replicas = roster.ready(Role.RELAY), roster.ready(Role.REPLICA)
    if not relays and not replicas:
        raise OperationFault("no server of the slot can be asked now; it is tried again later")
    missing = await _round(roster, key, wanted, relays, take) if relays else wanted
    if missing and replicas:
        missing = await _round(roster, key, missing, replicas, take)
    return missing


async def get(roster: Roster, key: SigningKey, blob: bytes) -> bytes:
    """One blob. Raises OperationFault when nobody has it now."""
    bodies: list[bytes] = []

    async def take(_: bytes, body: bytes) -> None:
        bodies.append(body)

    if await fetch(roster, key, [blob], take):
        raise OperationFault(f"no server that answers has blob {blob.hex()[:16]}")
    return bodies[0]


async def _round(
    roster: Roster, key: SigningKey, blobs: Sequence[bytes], names: Sequence[str], take: Taker
) -> tuple[bytes, ...]:
    """Fetch from `names` alone; what they do not have."""
    plan, changed = Fetch(blobs, names), _Signal()
    workers = min(GETS_PER_SERVER * len(names), max(len(names), len(blobs)))
    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            name = names[number % len(names)]
            group.create_task(_Worker(roster, key, plan, changed, name, take).run())
    return plan.missing


class _Signal:
    """Wakes everyone who waits, each time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()

    def fire(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class _Worker:
    """Asks one server for what is still open, until nothing more can be got."""

    def __init__(
        self,
        roster: Roster,
        key: SigningKey,
        plan: Fetch,
        changed: _Signal,
        name: str,
        take: Taker,
    ) -> None:
        self._roster, self._key, self._plan = roster, key, plan
        self._changed, self._name, self._take = changed, name, take

    async def run(self) -> None:
        while not self._plan.over:
            ids = self._plan.take(self._name, IDS_PER_GET)
            if not ids:
                await self._changed.wait()
                continue
            try:
                await self._get(ids)
            except OperationFault:
                self._plan.failed(self._name)
                return
            finally:
                self._changed.fire()

    async def _get(self, ids: tuple[bytes, ...]) -> None:
        """One request; ids the server lacks are handed on. Raises OperationFault."""

        async def work(session: Session) -> dict[bytes, bytes]:
            return await session.get(ids)

        try:
            bodies = await self._roster.call(self._name, self._key, work)
        except PeerFault as error:
            raise OperationFault(f"{self._name} refuses to serve: {error}") from error
        for blob in ids:
            body = bodies.pop(blob, None)
            if body is None:
                self._plan.lacks(self._name, blob)
            elif self._plan.got(self._name, blob):
                await self._take(blob, body)
