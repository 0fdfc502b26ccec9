"""What a store keeps in memory: its streams, its totals, its summaries.

The writer thread changes it after a commit is durable and indexed; the event loop only reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from holdfast.rim.store.index import Index, Row, StreamRow
from holdfast.rim.store.seen import Seen
from holdfast.rim.store.summary import Item, Summaries

StreamKey = tuple[bytes, bytes]
"""(slot, tag)."""


class Stream:
    """One tag in one slot."""

    __slots__ = ("count", "first_at", "head", "id", "size", "slot", "tag")

    def __init__(self, row: StreamRow) -> None:
        self.id, self.slot, self.tag, self.head, self.first_at = row
        self.count = 0
        self.size = 0

    def row(self) -> StreamRow:
        """As the index stores it."""
        return StreamRow(self.id, self.slot, self.tag, self.head, self.first_at)


class State:
    """All streams and the sums over them."""

    def __init__(self) -> None:
        self.streams: dict[StreamKey, Stream] = {}
        self.by_id: dict[int, Stream] = {}
        self.summaries = Summaries()
        self.seen = Seen()
        """Every blob of every stream here, and some that are gone."""
        self.blobs = 0
        self.size = 0
        self.groups = 0
        self.rotten = 0
        self.segments: dict[int, str] = {}
        self._rotten_lock = threading.Lock()
        self._next_id = 1

    def load(self, index: Index) -> None:
        """Everything from the index, from scratch."""
        for row in index.streams():
            self.enter(Stream(row))
        self.segments = index.segments()
        for number, count, size, head in index.totals():
            stream = self.by_id[number]
            stream.count, stream.size, stream.head = count, size, max(stream.head, head)
            self.groups += 1
            self.blobs += count
            self.size += size
        self.summaries.load(self._every_blob(index))

    def _every_blob(self, index: Index) -> Iterator[Item]:
        streams, see = self.by_id, self.seen.add
        for number, born, blob, blob_class in index.every_blob():
            see(blob)
            stream = streams[number]
            yield stream.slot, born, stream.tag, blob, blob_class

    def draft(self, key: StreamKey, first_at: int) -> Stream:
        """A stream that is not entered yet, with an id nobody else has."""
        self._next_id += 1
        return Stream(StreamRow(self._next_id - 1, *key, 0, first_at))

    def enter(self, stream: Stream) -> None:
        """Make a stream known."""
        self.streams[stream.slot, stream.tag] = stream
        self.by_id[stream.id] = stream
        self._next_id = max(self._next_id, stream.id + 1)

    def add(self, rows: Sequence[Row]) -> None:
        """Count the stored blobs of one commit in."""
        items: list[Item] = []
        see = self.seen.add
        for row in rows:
            stream = self.by_id[row.stream]
            self.groups += stream.count == 0
            stream.count += 1
            stream.size += row.size
            self.size += row.size
            see(row.blob)
            items.append((stream.slot, row.born, stream.tag, row.blob, row.blob_class))
        self.blobs += len(rows)
        self.summaries.add(items)

    def remove(self, row: Row) -> None:
        """Count a blob out."""
        stream = self.by_id[row.stream]
        stream.count -= 1
        stream.size -= row.size
        self.groups -= stream.count == 0
        self.blobs -= 1
        self.size -= row.size
        self.summaries.remove((stream.slot, row.born, stream.tag, row.blob, row.blob_class))

    def note_rot(self) -> None:
        """Count a blob that the disk damaged."""
        with self._rotten_lock:
            self.rotten += 1
