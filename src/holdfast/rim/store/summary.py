"""What a server holds of each slot and born day, in a form two servers can compare (D11, D12).

An item is one blob of one tag. Its hash is `H(tag | blob id | class u8)`, read as a little-endian
integer; a day's `total` is the sum of its items' hashes modulo 2^256. Sums do not depend on order
and can be added to and taken from, so keeping them costs one hash for each stored blob. A day is
split into 256 buckets by the first byte of the id: two servers that differ compare days, then
buckets, then the items of the buckets that differ.

An adversary who stores blobs of its choice could search for a set that sums to zero; what that
would hide is only its own garbage, from servers that lack it.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Sequence

from blake3 import blake3

from holdfast.wire.pool import BucketSummary, DaySummary

_MODULUS = 1 << 256
BUCKETS = 256

Item = tuple[bytes, int, bytes, bytes, int]
"""(slot, born day, tag, blob id, class)."""


def item_hash(tag: bytes, blob: bytes, blob_class: int) -> int:
    """The number an item adds to its day's total."""
    return int.from_bytes(blake3(tag + blob + bytes((blob_class,))).digest(), "little")


class _Day:
    """One slot and born day: 9 KiB however many items."""

    __slots__ = ("count", "counts", "total", "totals")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.counts = array("I", bytes(4 * BUCKETS))
        self.totals = bytearray(32 * BUCKETS)

    def change(self, bucket: int, number: int, by: int) -> None:
        self.count += by
        self.total = (self.total + by * number) % _MODULUS
        self.counts[bucket] += by
        place = slice(32 * bucket, 32 * bucket + 32)
        total = (int.from_bytes(self.totals[place], "little") + by * number) % _MODULUS
        self.totals[place] = total.to_bytes(32, "little")

    def load(self, counts: Sequence[int], totals: Sequence[int]) -> None:
        for bucket, count in enumerate(counts):
            if count:
                self.change(bucket, totals[bucket], 1)
                self.counts[bucket] += count - 1
                self.count += count - 1


class Summaries:
    """All days of all slots. The writer changes them, the event loop reads them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._days: dict[bytes, dict[int, _Day]] = {}

    def add(self, items: Iterable[Item]) -> None:
        """Count the blobs of one commit in."""
        with self._lock:
            for slot, born, tag, blob, blob_class in items:
                days = self._days.setdefault(slot, {})
                day = days.get(born)
                if day is None:
                    day = days[born] = _Day()
                day.change(blob[0], item_hash(tag, blob, blob_class), 1)

    def load(self, items: Iterable[Item]) -> None:
        """Count many stored blobs in, at the start: half the price of one by one."""
        sums: dict[tuple[bytes, int], tuple[list[int], list[int]]] = {}
        for slot, born, tag, blob, blob_class in items:
            day = sums.get((slot, born))
            if day is None:
                day = sums[slot, born] = ([0] * BUCKETS, [0] * BUCKETS)
            bucket = blob[0]
            day[0][bucket] += 1
            day[1][bucket] += item_hash(tag, blob, blob_class)
        with self._lock:
            for (slot, born), (counts, totals) in sums.items():
                days = self._days.setdefault(slot, {})
                days.setdefault(born, _Day()).load(counts, totals)

    def remove(self, item: Item) -> None:
        """Count one blob out that was counted in."""
        slot, born, tag, blob, blob_class = item
        with self._lock:
            days = self._days[slot]
            day = days[born]
            day.change(blob[0], item_hash(tag, blob, blob_class), -1)
            if not day.count:
                assert day.total == 0, "an empty day sums to nothing"
                del days[born]

    def days(self, slot: bytes) -> tuple[DaySummary, ...]:
        """Every day that holds anything of `slot`, oldest first."""
        with self._lock:
            days = self._days.get(slot, {})
            return tuple(
                DaySummary(born, day.count, day.total.to_bytes(32, "little"))
                for born, day in sorted(days.items())
            )

    def buckets(self, slot: bytes, born: int) -> tuple[BucketSummary, ...]:
        """The buckets of a day that hold anything."""
        with self._lock:
            day = self._days.get(slot, {}).get(born)
            if day is None:
                return ()
            return tuple(
                BucketSummary(bucket, count, bytes(day.totals[32 * bucket : 32 * bucket + 32]))
                for bucket, count in enumerate(day.counts)
                if count
            )

    def slots_of(self, born: int) -> tuple[bytes, ...]:
        """The slots that have anything of a born day."""
        with self._lock:
            return tuple(slot for slot, days in self._days.items() if born in days)
