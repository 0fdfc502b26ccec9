"""Blobs from device to device: the same blobs under the same ids as in a pool, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.crypto.pure import hash_bytes
from holdfast.device.peering.standing import Standing
from holdfast.errors import PeerFault
from holdfast.limits.peers import LINK_FRAME_BYTES_MAX
from holdfast.limits.people import VAULT_ANSWER_BYTES_MAX, VAULT_ASK_MAX
from holdfast.wire.codec import pack, unpack
from holdfast.wire.peers import GET, HAVE, Tagged


class Shelf(Protocol):
    """Where blobs lie, by tag. Ids are H(blob)."""

    def items(self, tag: bytes) -> Sequence[tuple[int, bytes]]:
        """(class, id) of everything."""
        ...

    def read(self, tag: bytes, blob: bytes) -> bytes | None:
        """A body."""
        ...

    def put(self, tag: bytes, blob_class: int, body: bytes) -> None:
        """Keep a body, durably."""
        ...


class Exchange:
    """Answers `have` and `get`, and fetches. `may`: whether a device may read a tag."""

    def __init__(
        self, standing: Standing, shelf: Shelf, may: Callable[[bytes, bytes], bool]
    ) -> None:
        self._standing = standing
        self._shelf = shelf
        self._may = may
        standing.register(HAVE, self._have)
        standing.register(GET, self._get)

    async def pull(self, device: bytes, tag: bytes) -> int:
        """Fetch what `device` has of a tag and we have not; how many. Raises OperationFault,
        PeerFault for a body that is not what its id says."""
        here = {blob for _, blob in self._shelf.items(tag)}
        theirs = await self.have(device, tag)
        wanted = {blob: kind for blob, kind in theirs.items() if blob not in here}
        fetched = 0
        while wanted:
            got = await self.get(device, tag, tuple(wanted)[:VAULT_ASK_MAX])
            if not got:
                raise PeerFault("a device has not what it says it has", code="missing")
            for blob, body in got.items():
                self._shelf.put(tag, wanted.pop(blob), body)
                fetched += 1
        return fetched

    async def have(self, device: bytes, tag: bytes, ids: Sequence[bytes] = ()) -> dict[bytes, int]:
        """Classes by id of what `device` has of a tag, or of `ids` alone. Raises OperationFault."""
        theirs = await self._ask(device, HAVE, Tagged(tag, (), tuple(ids)))
        return dict(zip(theirs.ids, theirs.classes, strict=False))

    async def get(self, device: bytes, tag: bytes, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """As many of `ids`, from the first on, as one answer holds. Raises OperationFault,
        PeerFault for a body that is not what its id says."""
        got = await self._ask(device, GET, Tagged(tag, (), tuple(ids)))
        if got.ids != tuple(ids)[: len(got.bodies)]:
            raise PeerFault("a device gives what it was not asked for", code="nonsense")
        for blob, body in zip(got.ids, got.bodies, strict=True):
            if hash_bytes(body) != blob:
                raise PeerFault("a blob that is not what its id says", code="hash")
        return dict(zip(got.ids, got.bodies, strict=True))

    async def _ask(self, device: bytes, verb: str, body: Tagged) -> Tagged:
        data = await self._standing.call(device, verb, pack(body))
        return unpack(Tagged, data, bytes_max=LINK_FRAME_BYTES_MAX)

    async def _have(self, device: bytes, body: bytes) -> bytes:
        asked = self._asked(device, body)
        tag, only = asked.tag, frozenset(asked.ids)
        items = await asyncio.to_thread(self._shelf.items, tag)
        items = [item for item in items if not only or item[1] in only]
        return pack(Tagged(tag, tuple(c for c, _ in items), tuple(b for _, b in items)))

    async def _get(self, device: bytes, body: bytes) -> bytes:
        asked = self._asked(device, body)
        bodies: list[bytes] = []
        room = VAULT_ANSWER_BYTES_MAX
        for blob in asked.ids[:VAULT_ASK_MAX]:
            found = await asyncio.to_thread(self._shelf.read, asked.tag, blob)
            if found is None or (room < len(found) and bodies):
                break
            bodies.append(found)
            room -= len(found)
        return pack(Tagged(asked.tag, (), asked.ids[: len(bodies)], tuple(bodies)))

    def _asked(self, device: bytes, body: bytes) -> Tagged:
        asked = unpack(Tagged, body, bytes_max=LINK_FRAME_BYTES_MAX)
        if len(asked.ids) > VAULT_ASK_MAX:
            raise PeerFault(f"at most {VAULT_ASK_MAX} ids in one question", code="too-large")
        if not self._may(device, asked.tag):
            raise PeerFault("no blobs of that tag for this device", code="forbidden")
        return asked
