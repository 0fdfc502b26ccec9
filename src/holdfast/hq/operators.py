"""Operators are named persons, each with a key and a role; and what waits for a second of them.

A key is shown once and kept as its hash. An action that needs a second person lies in the store
until another who may do it approves, for a day at most; both names are in the audit log.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.verbs import LOCAL, OperatorRole
from holdfast.limits.control import OPERATORS_MAX, PENDING_MAX, PENDING_S
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Delete, Put, absent, unchanged
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import Message, pack, unpack

OPERATORS: Final = "/operators/"
PENDING: Final = "/pending/"
KEY_PREFIX: Final = "hfop1"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,31}")
_ROW_BYTES_MAX: Final = 256 * 1024
_BODY_BYTES_MAX: Final = 64 * 1024


class OperatorRow(msgspec.Struct, frozen=True):
    """One person. `key_hash` is BLAKE3 of the key, which has 256 random bits."""

    name: str
    role: OperatorRole
    key_hash: bytes
    added_at: float
    added_by: str


class PendingRow(msgspec.Struct, frozen=True):
    """An action that waits for a second person; `body` as it was sent."""

    id: str
    verb: str
    author: str
    path_params: dict[str, str]
    body: bytes
    asked_at: float
    expires_at: float


class OperatorItem(Message):
    name: str
    role: OperatorRole
    added_at: float
    added_by: str


class OperatorItems(Message):
    items: tuple[OperatorItem, ...]


class OperatorOrder(Message):
    """`replace`: they have a key, which ends; otherwise that is refused."""

    name: str
    role: OperatorRole
    replace: bool = False


class OperatorMade(Message):
    """`key` is told once."""

    name: str
    role: OperatorRole
    key: str


class PendingItem(Message):
    id: str
    verb: str
    subject: str
    body: str
    """What was asked, as it was sent."""
    author: str
    asked_at: float
    expires_at: float


class PendingItems(Message):
    items: tuple[PendingItem, ...]


class Waiting(Message):
    """The reply to an action that needs a second person."""

    pending: str
    needs: str


class Operators:
    """The persons of one network, as the store has them."""

    def __init__(self, store: ControlStore, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy

    async def rows(self) -> list[OperatorRow]:
        """Everybody, by name."""
        reply = await self._store.range(OPERATORS)
        return [unpack(OperatorRow, kv.value, bytes_max=_ROW_BYTES_MAX) for kv in reply.items]

    async def find(self, key: str) -> OperatorRow | None:
        """Whose key this is."""
        if not key.startswith(KEY_PREFIX) or len(key) > 128:
            return None
        wanted = hash_bytes(key.encode())
        return next((row for row in await self.rows() if row.key_hash == wanted), None)

    async def add(self, order: OperatorOrder, by: str) -> OperatorMade:
        """A new person, or another key and role for one that is known. Raises UsageError."""
        if not _NAME.fullmatch(order.name) or order.name == LOCAL:
            raise UsageError("an operator's name is 2 to 32 of a-z, 0-9 and -, and not `operator`")
        names = {row.name for row in await self.rows()}
        if order.name in names and not order.replace:
            raise UsageError(f"{order.name} has a key; --replace ends it and makes another")
        if len(names | {order.name}) > OPERATORS_MAX:
            raise UsageError(f"there are {OPERATORS_MAX} operators; remove one first")
        key = KEY_PREFIX + self._entropy.bytes(32).hex()
        row = OperatorRow(order.name, order.role, hash_bytes(key.encode()), self._clock.wall(), by)
        await self._store.txn([], [Put(OPERATORS + order.name, pack(row))])
        return OperatorMade(order.name, order.role, key)

    async def remove(self, name: str) -> None:
        """Their key opens nothing from now on. Raises PeerFault when there is none."""
        kv = await self._store.get(OPERATORS + name) if _NAME.fullmatch(name) else None
        if kv is None:
            raise PeerFault(f"no operator {name!r}", code="not-found")
        await self._store.txn([], [Delete(OPERATORS + name)])

    # --- What waits ------------------------------------------------------------------------------
    async def defer(
        self, verb: str, author: str, path_params: dict[str, str], body: bytes
    ) -> PendingRow:
        """Keep an action until a second person has seen it. Raises UsageError."""
        if len(body) > _BODY_BYTES_MAX:
            raise UsageError("that is too much to wait for a second person")
        if len(await self.pending()) >= PENDING_MAX:
            raise UsageError("too many actions wait already; approve or let them expire")
        now = self._clock.wall()
        id = self._entropy.bytes(6).hex()
        row = PendingRow(id, verb, author, path_params, body, now, now + PENDING_S)
        reply = await self._store.txn([absent(PENDING + id)], [Put(PENDING + id, pack(row))])
        assert reply.succeeded, "48 random bits do not repeat among a hundred"
        return row

    async def pending(self) -> list[PendingRow]:
        """What waits, oldest first; what has expired is forgotten."""
        reply = await self._store.range(PENDING)
        rows = [unpack(PendingRow, kv.value, bytes_max=_ROW_BYTES_MAX) for kv in reply.items]
        now = self._clock.wall()
        for row in rows:
            if row.expires_at <= now:
                await self._store.txn([], [Delete(PENDING + row.id)])
        return sorted((r for r in rows if r.expires_at > now), key=lambda row: row.asked_at)

    async def take(self, id: str) -> PendingRow:
        """Take one out, so that it is done at most once. Raises PeerFault."""
        kv = await self._store.get(PENDING + id) if id.isalnum() and len(id) < 32 else None
        if kv is not None:
            row = unpack(PendingRow, kv.value, bytes_max=_ROW_BYTES_MAX)
            reply = await self._store.txn([unchanged(kv.key, kv)], [Delete(kv.key)])
            if reply.succeeded and row.expires_at > self._clock.wall():
                return row
        raise PeerFault(f"nothing called {id[:40]!r} waits", code="not-found")
