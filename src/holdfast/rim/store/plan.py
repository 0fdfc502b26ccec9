"""Planning a commit: who gets which sequences, what is there already, who must be refused.

Nothing is written here. A plan works on copies (*drafts*) of the streams it touches, so a commit
that fails leaves no trace. Pushes are taken in the order in which they were queued; each is stored
whole or refused whole, and a refusal does not touch its neighbours.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import NamedTuple

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, PeerFault
from holdfast.rim.clock import Clock
from holdfast.rim.store.buffered import BufferedIndex
from holdfast.rim.store.index import Row
from holdfast.rim.store.port import Incoming, StorePolicy, WriteRefused
from holdfast.rim.store.record import Record, pack_record
from holdfast.rim.store.segments import Segments
from holdfast.rim.store.state import State, Stream, StreamKey
from holdfast.wire.pool import BlobClass, PushReply


class Push(NamedTuple):
    """All blobs of one request."""

    key: StreamKey
    blob_class: BlobClass
    blobs: Sequence[Incoming]
    size: int
    """Bytes of all bodies."""
    answer: Future[PushReply]


class Placed(NamedTuple):
    """Where a blob of a push ended up."""

    blob: Incoming
    sequence: int
    duplicate: bool


class Added(NamedTuple):
    """A blob that this commit adds; `stream` may be a draft that becomes real with it."""

    stream: Stream
    sequence: int
    blob_class: BlobClass
    blob: Incoming


class Plan:
    """One commit on its way to the disk."""

    def __init__(self, at: int) -> None:
        """`at`: Unix seconds of the commit, in its records and for the streams it begins: a
        rebuilt index must say the same as the first one."""
        self.at = at
        self.pushes: list[tuple[Push, list[Placed]]] = []
        self.refused: list[tuple[Push, HoldfastError]] = []
        self.added: list[Added] = []
        self.canaries: list[Added] = []
        self.sequences: dict[StreamKey, dict[bytes, int]] = {}
        """By stream and blob, of all that its pushes named."""
        self.drafts: dict[StreamKey, Stream] = {}
        self.replaced: dict[tuple[int, bytes], Row] = {}
        self.bytes_added = 0


class Planner:
    """Plans commits for one store. On the writer thread only."""

    def __init__(
        self,
        segments: Segments,
        index: BufferedIndex,
        state: State,
        clock: Clock,
        policy: StorePolicy,
    ) -> None:
        self._segments = segments
        self._index = index
        self._state = state
        self._clock = clock
        self._policy = policy
        self.group_bytes_max = policy.group_bytes_max
        self._canary_sequence = 0

    def plan(self, pushes: Sequence[Push]) -> Plan:
        """Give every push its sequences, or its refusal. Raises apsw.Error."""
        plan = Plan(int(self._clock.wall()))
        known = self._known(pushes)
        for push in pushes:
            if push.blob_class is BlobClass.CANARY:
                self._plan_canary(plan, push)
                continue
            try:
                self._plan_push(plan, push, known)
            except HoldfastError as error:
                plan.refused.append((push, error))
        return plan

    def _known(self, pushes: Sequence[Push]) -> dict[tuple[int, bytes], Row]:
        """Which of the pushed blobs are in the index already."""
        seen = self._state.seen
        wanted = {
            (stream.id, blob.blob)
            for push in pushes
            if (stream := self._state.streams.get(push.key)) and stream.count
            for blob in push.blobs
            if blob.blob in seen
        }
        if not wanted:
            return {}
        return self._index.known(list(wanted))

    def _plan_push(self, plan: Plan, push: Push, known: dict[tuple[int, bytes], Row]) -> None:
        key = push.key
        stream = plan.drafts.get(key) or self._draft(key, plan.at)
        sequences = plan.sequences.setdefault(key, {})
        fresh: dict[bytes, Incoming] = {}
        replaced: dict[tuple[int, bytes], Row] = {}
        size = 0
        for blob in push.blobs:
            name = blob.blob
            if name in sequences or name in fresh:
                continue
            row = known.get((stream.id, name))
            if row is not None and self._intact(row):
                sequences[name] = row.sequence
                continue
            if row is not None:
                replaced[stream.id, name] = row
            fresh[name] = blob
            size += len(blob.body)
        self._check_room(plan, stream, size)
        plan.drafts[key] = stream
        plan.replaced.update(replaced)
        placed = []
        for blob in push.blobs:
            first = fresh.pop(blob.blob, None) is not None
            if first:
                stream.head += 1
                stream.count += 1
                sequences[blob.blob] = stream.head
                plan.added.append(Added(stream, stream.head, push.blob_class, blob))
            placed.append(Placed(blob, sequences[blob.blob], not first))
        stream.size += size
        plan.bytes_added += size
        plan.pushes.append((push, placed))

    def _draft(self, key: StreamKey, at: int) -> Stream:
        """A copy of a stream to change within this commit."""
        stream = self._state.streams.get(key)
        if stream is None:
            return self._state.draft(key, at)
        draft = Stream(stream.row())
        draft.count, draft.size = stream.count, stream.size
        return draft

    def _check_room(self, plan: Plan, stream: Stream, size: int) -> None:
        policy, state = self._policy, self._state
        if not size:
            return
        if stream.size + size > self.group_bytes_max:
            raise PeerFault(f"the group's {self.group_bytes_max} bytes are used", code="quota")
        if state.size + plan.bytes_added + size > policy.store_bytes_max:
            raise WriteRefused("full", f"the store's {policy.store_bytes_max} bytes are used")
        if stream.count == 0:
            opened = sum(1 for key in plan.drafts if not self._has_blobs(key))
            if state.groups + opened >= policy.groups_max:
                raise WriteRefused("full", f"{policy.groups_max} groups are stored here")

    def _has_blobs(self, key: StreamKey) -> bool:
        stream = self._state.streams.get(key)
        return stream is not None and stream.count > 0

    def _intact(self, row: Row) -> bool:
        """Whether a blob pushed again is still good on disk: a receipt vouches for it anew."""
        try:
            body = self._segments.read(self._state.segments[row.segment], row.offset, row.size)
        except OSError:
            return False
        return hash_bytes(body) == row.blob

    def _plan_canary(self, plan: Plan, push: Push) -> None:
        placed = []
        for blob in push.blobs:
            self._canary_sequence += 1
            stream = self._state.draft(push.key, 0)
            plan.canaries.append(Added(stream, self._canary_sequence, push.blob_class, blob))
            placed.append(Placed(blob, self._canary_sequence, False))
        plan.pushes.append((push, placed))


def record_header(item: Added, stored_at: int) -> bytes:
    """What stands before the blob's body in its segment."""
    blob = item.blob
    return pack_record(
        Record(
            item.blob_class,
            len(blob.body),
            blob.born,
            stored_at,
            item.sequence,
            item.stream.slot,
            item.stream.tag,
            blob.blob,
        )
    )


def index_row(item: Added, segment: int, offset: int) -> Row:
    """The blob's row in the index."""
    blob = item.blob
    size = len(blob.body)
    return Row(
        item.stream.id,
        item.sequence,
        blob.blob,
        blob.born,
        item.blob_class,
        size,
        segment,
        offset,
    )
