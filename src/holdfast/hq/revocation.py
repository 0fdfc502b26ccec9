"""Exclusion (D6): HQ's revocation list, signed anew with every entry, followed by every HQ process.

`revoke` writes the new list, the node's row and the leaf of the transparency log in one
transaction. Every process that serves watches the list; what is new is handed to `on_fresh`, which
cuts live connections, whichever process the operator spoke to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.audit import AuditLog
from holdfast.hq.authority import Authority
from holdfast.hq.join import CERTIFICATES, node_row
from holdfast.hq.restored import REVOKED_SINCE, last_restore
from holdfast.hq.transparency import REVOCATIONS, Leaf, TransparencyLog
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.fleet.rows import CertificateRow, NodeState, node_key
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked, is_stale
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import (
    Batch,
    Compare,
    ControlStore,
    Delete,
    KeyValue,
    Put,
    unchanged,
)
from holdfast.wire.codec import pack, unpack
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type
from holdfast.wire.staple import verify_staple

REVOCATION_LIST: Final = "/trust/revocations"
REASON_LETTERS_MAX: Final = 200
REFRESH_S: Final = 86_400.0
OnFresh = Callable[[Sequence[Revoked]], Awaitable[None]]


class RevocationBook:
    """The list as this process knows it: `entries` for TLS, `staple` for whoever asks."""

    def __init__(
        self,
        store: ControlStore,
        authority: Authority,
        log: TransparencyLog,
        audit: AuditLog,
        clock: Clock,
        on_fresh: OnFresh,
    ) -> None:
        self._store = store
        self._authority = authority
        self._log = log
        self._audit = audit
        self._clock = clock
        self._on_fresh = on_fresh
        self.tasks: list[asyncio.Task[None]] = []
        """Following the store; one that ends has failed."""
        self.entries = RevocationList(authority.network)
        self.staple: Staple | None = None

    async def start(self) -> None:
        """Load the list, make an empty one for a new network, and follow it."""
        kv = await self._store.get(REVOCATION_LIST)
        if kv is None:
            await self._publish(None, (), None)
            kv = await self._store.get(REVOCATION_LIST)
        assert kv is not None, "the list is never deleted"
        self._fold(kv)
        await self._take_back()
        work = follow(
            self._store, REVOCATION_LIST, kv.mod_revision, self._see, self._reload, self._clock
        )
        self.tasks = [asyncio.create_task(work)]

    async def _take_back(self) -> None:
        """What others heard before a restore and we did not: nobody comes back by it (D3)."""
        since = await self._store.get(REVOKED_SINCE)
        if since is None:
            return
        found: tuple[Revoked, ...] = unpack(
            tuple[Revoked, ...], since.value, bytes_max=SIGNED_BYTES_MAX
        )
        assert self.staple is not None, "just loaded"
        known = set(self.entries.snapshot_entries())
        for entry in found:
            if entry not in known:
                there = entry.node and await self._store.get(node_key(entry.node)) is not None
                kv = await self._store.get(REVOCATION_LIST)
                if not await self._publish(kv, (entry,), entry.node if there else None):
                    return  # another headquarters does it
        kv = await self._store.get(REVOCATION_LIST)
        assert kv is not None, "the list is never deleted"
        self._fold(kv)
        await self._store.txn([unchanged(REVOKED_SINCE, since)], [Delete(REVOKED_SINCE)])

    async def stop(self) -> None:
        """Stop following."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def revoke(
        self, *, node: NodeId = b"", serial: str = "", key_hash: bytes = b"", reason: str
    ) -> Revoked:
        """Exclude a node for ever, or one certificate, or one key; durable when it returns.

        Raises UsageError when nothing or something unknown is named.
        """
        if not (node or serial or key_hash):
            raise UsageError("name a node, a serial or a key to revoke")
        if not reason or len(reason) > REASON_LETTERS_MAX:
            raise UsageError(f"give a reason of at most {REASON_LETTERS_MAX} letters")
        await self._check_known(node, serial)
        entry = Revoked(node, serial, key_hash, reason, int(self._clock.wall()))
        while True:
            kv = await self._store.get(REVOCATION_LIST)
            if await self._publish(kv, (entry,), node or None):
                break
        detail = {"serial": serial, "key": key_hash.hex(), "reason": reason}
        subject = base32(node) if node else serial or key_hash.hex()
        await self._audit([Audit("certificate.revoked", subject, detail)])
        return entry

    async def refresh(self) -> None:
        """Sign the list anew when it is a day old: a stale one raises alarms (D6)."""
        if is_stale(self.entries.issued_at, self._clock.wall(), REFRESH_S):
            await self._publish(await self._store.get(REVOCATION_LIST), (), None)

    async def _check_known(self, node: NodeId, serial: str) -> None:
        if node and await self._store.get(node_key(node)) is None:
            raise UsageError(f"no node {base32(node)}; see holdfast hq status")
        if serial and await self._store.get(CERTIFICATES + serial) is None:
            reply = await self._store.range(CERTIFICATES)
            rows = [msgspec.msgpack.decode(kv.value, type=CertificateRow) for kv in reply.items]
            issuers = {row.issuer for row in rows} | {self._authority.intermediate}
            if serial not in {cert_info(issuer).serial for issuer in issuers if issuer}:
                raise UsageError(f"no certificate or intermediate {serial} of ours")

    async def _publish(
        self, kv: KeyValue | None, entries: Sequence[Revoked], node: NodeId | None
    ) -> bool:
        """Sign and write the list with `entries` added; False when another one came first."""
        known = RevocationList(self._authority.network)
        if kv is not None:
            known.fold(self._read(kv)[1])
        epoch = max(known.version.epoch, (await last_restore(self._store)).epoch)
        news = known.issue(entries, epoch=epoch, now=self._clock.wall())
        staple = self._authority.sign(Type.REVOCATIONS, news)
        compares: list[Compare] = [unchanged(REVOCATION_LIST, kv)]
        puts: list[Put] = [Put(REVOCATION_LIST, pack(staple))]
        if node is not None:
            row_kv = await self._store.get(node_key(node))
            assert row_kv is not None, "nodes are never forgotten"
            row = msgspec.structs.replace(node_row(row_kv), state=NodeState.REVOKED)
            compares.append(unchanged(row_kv.key, row_kv))
            puts.append(Put(row_kv.key, pack(row)))
        leaf = await self._log.prepare([Leaf(REVOCATIONS, pack(staple.signed))])
        reply = await self._store.txn([*compares, *leaf.compares], [*puts, *leaf.puts])
        if reply.succeeded:
            self._log.took(leaf)
        return reply.succeeded

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            await self._take(event.kv)

    async def _reload(self) -> int:
        kv = await self._store.get(REVOCATION_LIST)
        assert kv is not None, "the list is never deleted"
        await self._take(kv)
        return kv.mod_revision

    async def _take(self, kv: KeyValue) -> None:
        fresh = self._fold(kv)
        if fresh:
            await self._on_fresh(fresh)

    def _fold(self, kv: KeyValue) -> tuple[Revoked, ...]:
        staple, news = self._read(kv)
        fresh = self.entries.fold(news)
        self.staple = staple
        return fresh

    def _read(self, kv: KeyValue) -> tuple[Staple, Revocations]:
        """The stored list, which some HQ of this network must have signed."""
        try:
            stored = unpack(Staple, kv.value, bytes_max=2 * SIGNED_BYTES_MAX)
            staple = self._authority.current(stored)
            now = self._clock.wall()
            roots = self._authority.roots
            return staple, verify_staple(roots, staple, Type.REVOCATIONS, Revocations, now)
        except PeerFault as fault:
            raise OperationFault(
                f"the stored revocation list is not to be believed: {fault}", retryable=False
            ) from fault
