"""HQ's ticket office (D17): grants for members, blind signatures for whoever holds a grant.

HQ knows which grant was used and when, and sees blinded messages; it never sees a ticket, and a
ticket tells no server whose grant it was drawn against. Keys lie in HQ's directory, one for each
class of `hq.json`, replaced before they end; their public halves and terms are a signed, logged
statement that all HQ processes share. Without classes in `hq.json` there are no tickets and servers
ask for none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.blindrsa import BlindSigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.audit import AuditLog
from holdfast.hq.authority import Authority
from holdfast.hq.desired import TICKET_KEYS
from holdfast.hq.transparency import Leaf, TransparencyLog
from holdfast.limits.trust import (
    TICKET_GRANT_S_MAX,
    TICKET_GRANT_TICKETS_MAX,
    TICKET_KEY_DAYS,
    TICKET_KEY_RENEW_DAYS,
)
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust import directory
from holdfast.rim.blindkeys import new_blind_key
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, KeyValue, Put, absent, unchanged
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, write_file
from holdfast.wire.codec import pack, unpack
from holdfast.wire.hq import TicketTerms
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body
from holdfast.wire.tickets import Grant, TicketClass, TicketKeys, TicketReply, TicketRequest

GRANTS: Final = "/ticket-grants/"
_DAY_S: Final = 86_400


class GrantRow(msgspec.Struct, frozen=True):
    """A grant as HQ keeps it, under the hash of its secret. `paid` are hashes of requests that
    were answered: a lost reply is not charged twice."""

    kind: str
    left: int
    expires_at: int
    member: str
    paid: tuple[bytes, ...] = ()


class _Own(msgspec.Struct, frozen=True):
    """One key of ours, in `tickets/<name>.msgpack`."""

    pem: bytes
    made_at: int


class TicketOffice:
    """See the module."""

    def __init__(
        self,
        home: Path,
        store: ControlStore,
        authority: Authority,
        log: TransparencyLog,
        audit: AuditLog,
        clock: Clock,
        entropy: Entropy,
        classes: Sequence[TicketTerms],
    ) -> None:
        self._home = home / "tickets"
        self._store = store
        self._authority = authority
        self._log = log
        self._audit = audit
        self._clock = clock
        self._entropy = entropy
        self._classes = tuple(classes)
        self._keys: dict[bytes, BlindSigningKey] = {}
        self._kinds: dict[bytes, str] = {}

    async def start(self) -> None:
        """Load or make the keys, and publish what is not published. Raises OperationFault."""
        if self._classes:
            make_private_directory(self._home)
        await self.refresh()

    async def refresh(self) -> None:
        """Keys that are about to end get successors; the statement says what is in use."""
        now = int(self._clock.wall())
        ours = [item for terms in self._classes for item in self._own(terms, now)]
        while True:
            kv = await self._store.get(TICKET_KEYS)
            held = self._read(kv) if kv else None
            mine = {item.spki for item in ours}
            names = {terms.name for terms in self._classes}
            theirs = () if held is None else held.classes
            kept = [t for t in theirs if t.spki not in mine and t.name in names]
            live = [item for item in (*kept, *ours) if item.expires_at > now]
            classes = tuple(sorted(live, key=lambda item: (item.name, item.spki)))
            if (held is None and not classes) or (held is not None and held.classes == classes):
                return
            if await self._publish(kv, held, classes, now):
                return

    def _own(self, terms: TicketTerms, now: int) -> list[TicketClass]:
        """Our keys of one class, a new one made when the newest is old."""
        paths = sorted(self._home.glob(f"{terms.name}-*.msgpack"))
        found = []
        for path in paths:
            own = msgspec.msgpack.decode(read_file(path) or b"", type=_Own)
            found.append((own.made_at, BlindSigningKey.from_pem(own.pem)))
        newest = max((made_at for made_at, _ in found), default=0)
        if now - newest >= TICKET_KEY_RENEW_DAYS * _DAY_S:
            key = new_blind_key()
            data = msgspec.msgpack.encode(_Own(key.pem(), now))
            write_file(self._home / f"{terms.name}-{now}.msgpack", data)
            found.append((now, key))
        for _, key in found:
            self._keys[key.public.id], self._kinds[key.public.id] = key, terms.name
        return [
            TicketClass(
                terms.name,
                key.public.spki,
                terms.group_bytes_max,
                terms.requests_per_s,
                terms.requests_burst,
                made_at + TICKET_KEY_DAYS * _DAY_S,
            )
            for made_at, key in found
        ]

    async def _publish(
        self,
        kv: KeyValue | None,
        held: TicketKeys | None,
        classes: tuple[TicketClass, ...],
        now: int,
    ) -> bool:
        n = held.version.n + 1 if held is not None else 1
        news = TicketKeys(self._authority.network, Version(0, n), now, classes)
        news.check()
        staple = self._authority.sign(Type.TICKET_KEYS, news)
        leaf = await self._log.prepare([Leaf(directory.TICKET_KEYS, pack(staple.signed))])
        reply = await self._store.txn(
            [unchanged(TICKET_KEYS, kv), *leaf.compares],
            [Put(TICKET_KEYS, pack(staple)), *leaf.puts],
        )
        if reply.succeeded:
            self._log.took(leaf)
        return reply.succeeded

    def _read(self, kv: KeyValue) -> TicketKeys:
        staple = unpack(Staple, kv.value, bytes_max=2 * SIGNED_BYTES_MAX)
        return decode_body(Type.TICKET_KEYS, TicketKeys, staple.signed)

    # --- Grants ----------------------------------------------------------------------------------
    async def grant(self, kind: str, tickets: int, member: str, life_s: float) -> Grant:
        """So many tickets for a member; the secret is shown once. Raises UsageError."""
        names = [terms.name for terms in self._classes]
        if kind not in names:
            known = ", ".join(names) or "none: add some to hq.json"
            raise UsageError(f"no ticket class {kind!r}; there is {known}")
        if not 1 <= tickets <= TICKET_GRANT_TICKETS_MAX or not 0 < life_s <= TICKET_GRANT_S_MAX:
            raise UsageError(
                f"1 to {TICKET_GRANT_TICKETS_MAX} tickets, for at most"
                f" {TICKET_GRANT_S_MAX // _DAY_S:.0f} days"
            )
        secret, expires_at = self._entropy.bytes(32), int(self._clock.wall() + life_s)
        row = GrantRow(kind, tickets, expires_at, member)
        key = GRANTS + hash_bytes(secret).hex()
        if not (
            await self._store.txn([absent(key)], [Put(key, msgspec.msgpack.encode(row))])
        ).succeeded:
            raise OperationFault("the grant was not stored; try again")
        await self._audit.line("tickets.granted", member or "a member", kind=kind, tickets=tickets)
        return Grant(self._authority.network, kind, tickets, expires_at, secret)

    async def sign(self, request: TicketRequest) -> TicketReply:
        """Sign blinded messages against a grant. Raises PeerFault, OperationFault."""
        request.check()
        key = self._keys.get(request.key)
        if key is None:
            raise OperationFault("that ticket key is another headquarters'; ask it")
        place = GRANTS + hash_bytes(request.grant).hex()
        asked = hash_bytes(request.key + b"".join(request.blinded))
        signatures: tuple[bytes, ...] = ()
        while True:
            kv = await self._store.get(place)
            row = self._good(kv, self._kinds[request.key])
            again = asked in row.paid
            left = row.left if again else row.left - len(request.blinded)
            if left < 0:
                raise PeerFault(f"the grant has {row.left} tickets left", code="forbidden")
            # In a thread, so that a full request holds nobody up for a quarter of a second.
            signatures = signatures or await asyncio.to_thread(self._sign, key, request.blinded)
            paid = msgspec.structs.replace(row, left=left, paid=(*row.paid, asked))
            put = Put(place, msgspec.msgpack.encode(paid))
            if again or (await self._store.txn([unchanged(place, kv)], [put])).succeeded:
                return TicketReply(signatures, left)

    def _sign(self, key: BlindSigningKey, blinded: Sequence[bytes]) -> tuple[bytes, ...]:
        size = key.public.factor_bytes
        return tuple(key.sign_blinded(item, self._entropy.bytes(size)) for item in blinded)

    def _good(self, kv: KeyValue | None, kind: str) -> GrantRow:
        """A grant that may be drawn on for tickets of this class. Raises PeerFault."""
        row = msgspec.msgpack.decode(kv.value, type=GrantRow) if kv else None
        if row is None or row.expires_at <= self._clock.wall():
            raise PeerFault("no such grant, or it has expired", code="forbidden")
        if row.kind != kind:
            raise PeerFault("this grant is for tickets of another class", code="forbidden")
        return row
