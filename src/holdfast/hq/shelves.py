"""The shelves of one headquarters, opened when its first snapshot is due."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from holdfast.crypto.era import Era
from holdfast.crypto.pure import sha256
from holdfast.errors import OperationFault
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.hq.brain import Brain
from holdfast.hq.parts import Parts
from holdfast.hq.shelf import DirectoryShelf, PoolShelf, Shelf
from holdfast.hq.snapshot import KEY_FILE
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.fleet.rows import SLOTS, SlotRow
from holdfast.rim.control.store import ControlStore, Put, absent
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file, write_file
from holdfast.rim.resolver import Resolver
from holdfast.wire.codec import unpack
from holdfast.wire.locator import Locator
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body

PINNED: Final = "/continuity/slot"
"""The slot of the snapshots' group, for ever (D5)."""
OUTBOX: Final = "snapshots"


def snapshot_key(directory: Path, entropy: Entropy) -> bytes:
    """The era secret of the snapshots' group, drawn once."""
    path = directory / KEY_FILE
    secret = read_file(path)
    if secret is None:
        secret = entropy.bytes(32)
        write_file(path, secret)
    if len(secret) != 32:
        raise OperationFault(f"{path} is damaged", retryable=False)
    return secret


class Shelves:
    """`all` of them, for the keeper; the pool's slot is opened when first needed, until `close`."""

    def __init__(
        self, parts: Parts, brain: Brain, store: ControlStore, directory: Path, entropy: Entropy
    ) -> None:
        self._parts = parts
        self._brain = brain
        self._control = store
        self._directory = directory
        self._entropy = entropy
        self._books: Store | None = None
        self._slot: Slot | None = None

    def all(self) -> Sequence[Shelf]:
        """Every shelf of the configuration. Raises OperationFault for a damaged key."""
        config = self._parts.config.continuity
        assert config is not None
        shelves: list[Shelf] = [
            DirectoryShelf(self._directory / path) for path in config.directories
        ]
        if config.pool_region:
            era = Era(snapshot_key(self._directory, self._entropy), self._parts.authority.network)
            opened = partial(self._opened, era, config.pool_region)
            shelves.append(PoolShelf(opened, era, self._parts.clock))
        return shelves

    async def close(self) -> None:
        """Let the pool go; what is in the outbox stays there."""
        if self._slot is not None:
            await self._slot.close()
        if self._books is not None:
            self._books.close()
        self._slot = self._books = None

    async def _opened(self, era: Era, region: str) -> Slot:
        """Raises OperationFault while there is no slot or none of its servers answers."""
        if self._slot is not None:
            return self._slot
        locator = await self.locator(region)
        parts = self._parts
        network = Network(
            id=parts.authority.network,
            domain=parts.authority.domain,
            roots=tuple(parts.authority.roots),
            clock=parts.clock,
            entropy=self._entropy,
            resolver=Resolver(parts.dns_addresses),
            region=region,
        )
        books = Store(self._directory / OUTBOX, parts.clock)
        slot = Slot(network, locator, books)
        try:
            await slot.open([era])
        except BaseException:
            books.close()
            raise
        self._slot, self._books = slot, books
        return slot

    async def locator(self, region: str) -> Locator:
        """Where the snapshots lie, by the newest record of their slot. Raises OperationFault."""
        parts = self._parts
        kv = await self._control.get(PINNED)
        if kv is None:
            staple = await self._brain.allocate(region)
            slot = decode_body(Type.SLOT_RECORD, SlotRecord, staple.signed).slot
            await self._control.txn([absent(PINNED)], [Put(PINNED, slot.hex().encode())])
            kv = await self._control.get(PINNED)
            assert kv is not None
        row_kv = await self._control.get(SLOTS + kv.value.decode())
        if row_kv is None:
            raise OperationFault("the slot of the snapshots is gone", retryable=False)
        row = unpack(SlotRow, row_kv.value, bytes_max=4 * SIGNED_BYTES_MAX)
        staple = unpack(Staple, row.staple, bytes_max=2 * SIGNED_BYTES_MAX)
        record = decode_body(Type.SLOT_RECORD, SlotRecord, staple.signed)
        empty = Locator(
            network=parts.authority.network,
            domain=parts.authority.domain,
            pins=tuple(sha256(root) for root in parts.authority.roots),
            roots=tuple(parts.authority.roots),
            slot=b"",
            relays=(),
            replicas=(),
            resolvers=parts.dns_addresses,
            hq=parts.api_addresses,
        )
        return empty.with_record(record)
