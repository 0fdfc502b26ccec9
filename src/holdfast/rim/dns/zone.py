"""The zone: entries in the control store, answers in memory.

Every HQ serves what the store says, the acting one changes it. `replace` carries what the name
must say now, as an RFC 2136 prerequisite would (D25): a deposed HQ that wakes up late changes
nothing. Changes by others arrive by watch; a restarted HQ serves at once from the store.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.limits import DNS_TTL_S, TXN_OPERATIONS_MAX
from holdfast.logic.fleet.model import NodeId
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import (
    Batch,
    ControlStore,
    Delete,
    KeyValue,
    Operation,
    Put,
    unchanged,
)
from holdfast.rim.dns.records import Entry, View, build_view

DNS: Final = "/dns/"
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


class Change(msgspec.Struct, frozen=True):
    """One `replace`. `previous` is the node the name must point at now: empty for a name that
    must not exist yet, None for no prerequisite."""

    entry: Entry
    previous: NodeId | None = None


class Zone:
    """Authoritative data of one domain. `servers` are the IP literals of its name servers."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        domain: str,
        servers: Sequence[str] = (),
        *,
        ttl_s: int = DNS_TTL_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._domain = domain
        self._servers = tuple(servers)
        self._ttl_s = ttl_s
        self._rows: dict[str, KeyValue] = {}
        self._entries: dict[str, Entry] = {}
        self._serial = 0
        self._view: View | None = None
        self._moved = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        """Following the store; one that ends has failed."""

    async def start(self) -> None:
        """Load the zone and follow it. Raises OperationFault."""
        revision = await self._load()
        work = follow(self._store, DNS, revision, self._see, self._load, self._clock)
        self.tasks = [asyncio.create_task(work)]

    async def stop(self) -> None:
        """Stop following; what is loaded can still be asked."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def view(self) -> View:
        """The zone now; the same object until something changes."""
        if self._view is None:
            self._view = build_view(
                self._domain,
                self._servers,
                self._entries.values(),
                serial=self._serial,
                ttl_s=self._ttl_s,
            )
        return self._view

    async def changed(self, seen: View) -> None:
        """Return once the zone is another than `seen`."""
        while self._view is seen:
            await self._moved.wait()

    def find(self, name: str) -> Entry | None:
        """What the zone says of a logical name."""
        return self._entries.get(name)

    async def replace(
        self,
        name: str,
        addresses: Sequence[str],
        port: int,
        node: NodeId,
        previous: NodeId | None = None,
    ) -> None:
        """Make `name` resolve to `addresses`, `port` and `node`; nothing to do is no error.

        Raises OperationFault when the name does not point at `previous` (unless None), UsageError
        for a name, address or port that DNS cannot carry.
        """
        await self.replace_all([Change(Entry(name, tuple(addresses), port, node), previous)])

    async def replace_all(self, changes: Sequence[Change]) -> None:
        """Several changes, all or none up to D26's size of a transaction, in order beyond it."""
        for change in changes:
            _check(change.entry)
        for start in range(0, len(changes), TXN_OPERATIONS_MAX):
            await self._apply(changes[start : start + TXN_OPERATIONS_MAX])

    async def remove(self, name: str) -> None:
        """Forget a name for good."""
        reply = await self._store.txn([], [Delete(DNS + name)])
        if name in self._entries:
            self._forget(name, reply.revision)

    async def _apply(self, changes: Sequence[Change]) -> None:
        """Write what differs. Another writer may come between: read again, then judge again."""
        while True:
            compares, puts = [], list[Operation]()
            for change in changes:
                kv = await self._store.get(DNS + change.entry.name)
                row = _entry(kv) if kv else None
                if row == change.entry:
                    continue
                pointed = row.node if row else b""
                if change.previous is not None and pointed != change.previous:
                    raise OperationFault(
                        f"DNS name {change.entry.name} does not point where it should; "
                        "another headquarters moved it",
                        retryable=False,
                    )
                compares.append(unchanged(DNS + change.entry.name, kv))
                value = msgspec.msgpack.encode(change.entry)
                puts.append(Put(DNS + change.entry.name, value))
            if not puts:
                return
            reply = await self._store.txn(compares, puts)
            if reply.succeeded:
                for put in puts:
                    assert isinstance(put, Put)
                    self._know(KeyValue(put.key, put.value, 0, reply.revision, 1))
                return

    async def _load(self) -> int:
        reply = await self._store.range(DNS)
        self._rows.clear()
        self._entries.clear()
        for kv in reply.items:
            self._know(kv)
        self._move(reply.revision)
        return reply.revision

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            if event.deleted:
                self._forget(event.kv.key.removeprefix(DNS), batch.revision)
            else:
                self._know(event.kv)

    def _know(self, kv: KeyValue) -> None:
        """Take a row in, unless a newer one is known already."""
        name = kv.key.removeprefix(DNS)
        known = self._rows.get(name)
        if known is None or known.mod_revision <= kv.mod_revision:
            self._rows[name] = kv
            self._entries[name] = _entry(kv)
            self._move(kv.mod_revision)

    def _forget(self, name: str, revision: int) -> None:
        known = self._rows.get(name)
        if known is not None and known.mod_revision <= revision:
            del self._rows[name], self._entries[name]
            self._move(revision)

    def _move(self, revision: int) -> None:
        self._serial, self._view = max(self._serial, revision), None
        self._moved.set()
        self._moved = asyncio.Event()


def _entry(kv: KeyValue) -> Entry:
    return msgspec.msgpack.decode(kv.value, type=Entry)


def _check(entry: Entry) -> None:
    if not _LABEL.fullmatch(entry.name):
        raise UsageError(f"{entry.name[:80]!r} cannot be a DNS name of a server")
    try:
        for address in entry.addresses:
            ip_address(address)
    except ValueError as error:
        raise UsageError(f"DNS address of {entry.name}: {error}") from error
    if not entry.addresses or not 0 < entry.port < 65_536:
        raise UsageError(f"DNS name {entry.name} needs an address and a port")
