"""Vault verbs between devices: who keeps what, and making two vaults level with each other.

| verb       | asks                       | answer                          | who may              |
|------------|----------------------------|---------------------------------|----------------------|
| `sum`      | `{tag}`                    | `[count, total, bytes]`         | who opens the tag    |
| `buckets`  | `{tag}`                    | `{bucket: sum}`                 | who opens the tag    |
| `items`    | `{tag, bucket}`            | `[[id, class, size, born]]`     | who opens the tag    |
| `get`      | `{tag, blobs}`             | `[[id, body]]`, as far as fits  | who opens the tag    |
| `put`      | `{tag, class, bodies}`     | `{stored}` after the disk has it| who opens the tag    |
| `carry`    | `{seed}` of an access key  | `{stored: 1}`                   | whom it carries for  |

"Who opens the tag" proves it with the access key, as to a relay. A holder takes tags only of people
it carries for: its own person, and friends. With the access key, which opens sessions and no blob,
it levels what it carries with other carriers, also when its owner has no device left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.device.peering.letters import Caller, Handler, Peer, Writer, body_of
from holdfast.device.vault.store import Kept, Sum, VaultStore
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits.people import VAULT_ANSWER_BYTES_MAX, VAULT_ASK_MAX


class OfTag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question about one tag."""

    tag: bytes
    bucket: int | None = None
    blobs: tuple[bytes, ...] = ()


class ToKeep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Blobs to keep."""

    tag: bytes
    blob_class: int
    bodies: tuple[bytes, ...]


class ToCarry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An access key to level a tag with."""

    seed: bytes


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of them are on the disk now."""

    stored: int


Buckets = dict[int, Sum]
Bodies = tuple[tuple[bytes, bytes], ...]


class Holding:
    """Answers the verbs from one vault. `carries_for` says whose tags are taken."""

    def __init__(
        self,
        store: VaultStore,
        carries_for: Callable[[bytes], bool],
        keep: Callable[[bytes, SigningKey], None],
    ) -> None:
        """`keep` keeps (person, access key) for good."""
        self._store = store
        self._carries_for = carries_for
        self._keep = keep

    def verbs(self) -> dict[str, Handler]:
        """What a `Desk` registers."""
        return {
            "sum": self._sum,
            "buckets": self._buckets,
            "items": self._items,
            "get": self._get,
            "put": self._put,
            "carry": self._carry,
        }

    async def _sum(self, caller: Caller, body: bytes) -> Sum:
        return await asyncio.to_thread(self._store.sum, self._asked(caller, body).tag)

    async def _buckets(self, caller: Caller, body: bytes) -> Buckets:
        return await asyncio.to_thread(self._store.buckets, self._asked(caller, body).tag)

    async def _items(self, caller: Caller, body: bytes) -> list[Kept]:
        asked = self._asked(caller, body)
        return await asyncio.to_thread(self._store.items, asked.tag, asked.bucket)

    async def _get(self, caller: Caller, body: bytes) -> Bodies:
        asked = self._asked(caller, body)
        if len(asked.blobs) > VAULT_ASK_MAX:
            raise PeerFault("too many blobs in one question", code="too-large")
        return await asyncio.to_thread(self._bodies, asked)

    async def _put(self, caller: Caller, body: bytes) -> Stored:
        asked = body_of(ToKeep, body)
        self._check(caller, asked.tag)
        if not self._carries_for(caller.statement.person):
            raise PeerFault("this device carries nothing for you", code="forbidden")
        put = self._store.put
        await asyncio.to_thread(put, asked.tag, asked.blob_class, asked.bodies)
        return Stored(len(asked.bodies))

    async def _carry(self, caller: Caller, body: bytes) -> Stored:
        seed = body_of(ToCarry, body).seed
        if len(seed) != 32 or not self._carries_for(caller.statement.person):
            raise PeerFault("this device carries nothing for you", code="forbidden")
        key = SigningKey(seed)
        self._check(caller, hash_bytes(key.public))
        await asyncio.to_thread(self._keep, caller.statement.person, key)
        return Stored(1)

    def _bodies(self, asked: OfTag) -> Bodies:
        found, size = [], 0
        present = self._store.has(asked.tag, asked.blobs)
        for blob, here in zip(asked.blobs, present, strict=True):
            body = self._store.get(blob) if here else None
            if body is None:
                continue
            size += len(body)
            if size > VAULT_ANSWER_BYTES_MAX:
                break
            found.append((blob, body))
        return tuple(found)

    def _asked(self, caller: Caller, body: bytes) -> OfTag:
        asked = body_of(OfTag, body)
        self._check(caller, asked.tag)
        return asked

    def _check(self, caller: Caller, tag: bytes) -> None:
        if tag not in caller.tags:
            raise PeerFault("letter without proof of access to the tag", code="forbidden")


class Holder:
    """Another device's vault, for one tag whose access key we have."""

    def __init__(self, writer: Writer, peer: Peer, access: SigningKey) -> None:
        self.peer = peer
        self._writer = writer
        self._access = access
        self._tag = hash_bytes(access.public)

    async def sum(self) -> Sum:
        """What it keeps. Raises OperationFault, PeerFault, UsageError."""
        return await self._writer.ask(self.peer, "sum", OfTag(self._tag), Sum, [self._access])

    async def buckets(self) -> Buckets:
        """The same by first byte of the id."""
        asked = OfTag(self._tag)
        return await self._writer.ask(self.peer, "buckets", asked, Buckets, [self._access])

    async def items(self, bucket: int | None = None) -> list[Kept]:
        """Blobs of a bucket, or all."""
        asked = OfTag(self._tag, bucket)
        return await self._writer.ask(self.peer, "items", asked, list[Kept], [self._access])

    async def get(self, blobs: tuple[bytes, ...]) -> dict[bytes, bytes]:
        """Bodies, checked against their ids; as many as fit one answer."""
        asked = OfTag(self._tag, None, blobs[:VAULT_ASK_MAX])
        found = await self._writer.ask(self.peer, "get", asked, Bodies, [self._access])
        if any(hash_bytes(body) != blob for blob, body in found):
            raise PeerFault(f"{self.peer.name} sent something else", code="tampered")
        return dict(found)

    async def carry(self) -> None:
        """Have it level this tag with others by itself."""
        asked = ToCarry(self._access.seed)
        await self._writer.ask(self.peer, "carry", asked, Stored, [self._access])

    async def put(self, blob_class: int, bodies: tuple[bytes, ...]) -> None:
        """Have it keep blobs; returns when they are on its disk."""
        asked = ToKeep(self._tag, blob_class, bodies)
        stored = await self._writer.ask(self.peer, "put", asked, Stored, [self._access])
        if stored.stored != len(bodies):
            raise OperationFault(f"{self.peer.name} kept {stored.stored} of {len(bodies)} blobs")
