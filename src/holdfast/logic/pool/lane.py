"""A blob under way, and what one server is still to get of it: the parts of the fan-out."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from enum import IntEnum

import msgspec

from holdfast.logic.fleet.model import Role


class Stage(IntEnum):
    """How far a blob got. The names are the words people see."""

    QUEUED = 0
    STORED = 1
    REPLICATED = 2


class Entry(msgspec.Struct):
    """A blob under way. `copies` and `refusals` are by server name."""

    blob: bytes
    tag: bytes
    size: int
    blob_class: int
    queued_at: float
    copies: set[str]
    refusals: dict[str, str]
    stored_at: float | None = None
    stage: Stage = Stage.QUEUED


class Lane:
    """What one server is still to get: `pending` by tag, `flying`, and `waiting` to be filled."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.down = False
        self.pending: OrderedDict[bytes, dict[bytes, None]] = OrderedDict()
        self.flying: set[bytes] = set()
        self.alone: set[bytes] = set()
        self.waiting: dict[bytes, float] = {}
        self._due: list[tuple[float, bytes]] = []

    def queue(self, entry: Entry) -> None:
        self.waiting.pop(entry.blob, None)
        self.flying.discard(entry.blob)
        self.pending.setdefault(entry.tag, {})[entry.blob] = None

    def wait(self, entry: Entry, due: float) -> None:
        self.waiting[entry.blob] = due
        heapq.heappush(self._due, (due, entry.blob))

    def forget(self, entry: Entry) -> None:
        self.flying.discard(entry.blob)
        self.alone.discard(entry.blob)
        self.waiting.pop(entry.blob, None)
        queue = self.pending.get(entry.tag)
        if queue is not None:
            queue.pop(entry.blob, None)
            if not queue:
                del self.pending[entry.tag]

    def due(self, now: float) -> list[bytes]:
        """Take what is waited for no longer than `now`."""
        blobs = []
        while self._due and self._due[0][0] <= now:
            due, blob = heapq.heappop(self._due)
            if self.waiting.get(blob) == due:
                del self.waiting[blob]
                blobs.append(blob)
        return blobs

    def next_due(self) -> float | None:
        while self._due and self.waiting.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def holds_back(self, entry: Entry) -> bool:
        """Whether this server answers and its own copy is still to be pushed."""
        blob = entry.blob
        return not self.down and (blob in self.flying or blob in self.pending.get(entry.tag, ()))
