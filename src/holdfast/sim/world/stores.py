"""A server's store on a simulated disk.

The bytes are the production format: `rim.store.record` packs them, and its `scan` reads them back
after a crash, torn tails and rot included. Order is the production order too: append, sync, only
then number in the index and acknowledge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from holdfast.crypto.pure import hash_bytes
from holdfast.rim.store.record import HEADER_BYTES, Record, pack_record, scan
from holdfast.sim.world.chance import Chance
from holdfast.sim.world.disks import Disk, DiskFault

StreamKey = tuple[bytes, bytes]
"""(slot, tag)."""


class Item(NamedTuple):
    """A blob as listings show it."""

    sequence: int
    blob: bytes
    tag: bytes
    born: int
    blob_class: int
    size: int
    offset: int


class Full(Exception):
    """No writes now."""


class Day:
    """One slot and born day: its items, and a sum that two servers can compare."""

    def __init__(self) -> None:
        self.items: dict[bytes, Item] = {}
        self.total = 0

    def add(self, item: Item) -> None:
        self.items[item.blob] = item
        self.total ^= int.from_bytes(item.blob[:16], "big")

    def remove(self, blob: bytes) -> None:
        del self.items[blob]
        self.total ^= int.from_bytes(blob[:16], "big")

    @property
    def summary(self) -> tuple[int, int]:
        return len(self.items), self.total


class Store:
    """Blobs by slot and tag, each with a sequence of its own (D14)."""

    def __init__(self, disk: Disk, chance: Chance) -> None:
        self.disk = disk
        self._chance = chance
        self.incarnation = chance.bytes(16)
        self.days: dict[bytes, dict[int, Day]] = {}
        self.streams: dict[StreamKey, dict[int, Item]] = {}
        self.heads: dict[StreamKey, int] = {}
        self.broken = False
        self.rotten = 0
        self.recovered = 0

    # --- Writing ---------------------------------------------------------------------------------
    def push(
        self,
        slot: bytes,
        tag: bytes,
        blob_class: int,
        blobs: Iterable[tuple[bytes, int, bytes]],
        now: float,
    ) -> None:
        """Store (id, born, body)s durably; those that are here already are no news. Raises Full."""
        if self.broken:
            raise Full
        key = (slot, tag)
        head = self.heads.get(key, 0)
        fresh: list[Item] = []
        days = self.days.setdefault(slot, {})
        try:
            for blob, born, body in blobs:
                day = days.get(born)
                if (day and blob in day.items) or any(item.blob == blob for item in fresh):
                    continue
                head += 1
                size = len(body)
                record = Record(blob_class, size, born, int(now), head, slot, tag, blob)
                start = self.disk.append(_name(born), pack_record(record) + body)
                fresh.append(Item(head, blob, tag, born, blob_class, size, start + HEADER_BYTES))
            for name in {_name(item.born): None for item in fresh}:
                self.disk.sync(name)
        except DiskFault as fault:
            self._roll_back(fresh, broken=self.disk.sync_fails)
            raise Full from fault
        for item in fresh:
            self._enter(slot, item)

    def _roll_back(self, fresh: list[Item], *, broken: bool) -> None:
        for item in reversed(fresh):
            self.disk.cut(_name(item.born), item.offset - HEADER_BYTES)
        self.broken = self.broken or broken

    def _enter(self, slot: bytes, item: Item) -> None:
        key = (slot, item.tag)
        self.days.setdefault(slot, {}).setdefault(item.born, Day()).add(item)
        self.streams.setdefault(key, {})[item.sequence] = item
        self.heads[key] = max(self.heads.get(key, 0), item.sequence)

    def drop_day(self, born: int) -> None:
        """Forget a born day."""
        for slot, days in self.days.items():
            day = days.pop(born, None)
            for item in day.items.values() if day else ():
                self.streams[slot, item.tag].pop(item.sequence, None)
        self.disk.remove(_name(born))

    # --- Reading ---------------------------------------------------------------------------------
    def after(self, slot: bytes, tag: bytes, sequence: int, count: int) -> tuple[list[Item], bool]:
        """A page behind `sequence`, and whether there is more."""
        head = self.heads.get((slot, tag), 0)
        if head <= sequence:
            return [], False
        stream = self.streams.get((slot, tag), {})
        page: list[Item] = []
        for number in range(sequence + 1, head + 1):
            item = stream.get(number)
            if item is not None:
                if len(page) == count:
                    return page, True
                page.append(item)
        return page, False

    def listing(self, slot: bytes, tag: bytes) -> list[Item]:
        """Everything of a tag."""
        return list(self.streams.get((slot, tag), {}).values())

    def read(self, slot: bytes, item: Item) -> bytes | None:
        """A body as it was stored; a damaged one is missing from now on."""
        body = self.disk.read(_name(item.born), item.offset, item.size)
        if hash_bytes(body) == item.blob:
            return body
        self.rotten += 1
        self.forget(slot, item)
        return None

    def forget(self, slot: bytes, item: Item) -> None:
        day = self.days[slot].get(item.born)
        if day is not None and item.blob in day.items:
            day.remove(item.blob)
            self.streams[slot, item.tag].pop(item.sequence, None)

    def find(self, slot: bytes, blob: bytes) -> Item | None:
        """The item of a blob, if it is here."""
        for day in self.days.get(slot, {}).values():
            item = day.items.get(blob)
            if item is not None:
                return item
        return None

    # --- After a crash ---------------------------------------------------------------------------
    def recover(self) -> None:
        """Read everything back from the disk. Doubt mints a new incarnation (D14)."""
        self.days, self.streams = {}, {}
        self.broken = False
        heads, self.heads = self.heads, {}
        doubt = False
        for name in self.disk.names():
            doubt |= self._recover(name)
        self.recovered += 1
        if doubt or any(head > self.heads.get(key, 0) for key, head in heads.items()):
            self.incarnation = self._chance.bytes(16)
        for key, head in heads.items():
            self.heads[key] = max(head, self.heads.get(key, 0))

    def _recover(self, name: str) -> bool:
        size = self.disk.size(name)
        end, doubt = 0, False
        for found in scan(lambda offset, count: self.disk.read(name, offset, count), 0, size):
            doubt |= found.offset - end != HEADER_BYTES
            end = found.end
            record = found.record
            item = Item(
                record.sequence,
                record.blob,
                record.tag,
                record.born,
                record.blob_class,
                record.size,
                found.offset,
            )
            if self.find(record.slot, record.blob) is None:
                self._enter(record.slot, item)
        self.disk.cut(name, end)
        return doubt


def _name(born: int) -> str:
    return f"{born:06d}.seg"
