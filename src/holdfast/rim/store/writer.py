"""The one thread that writes: collect, append, fdatasync, index, sign, answer.

Whatever is queued when the thread looks becomes one commit. While it waits for the disk the next
commit gathers, so the batch grows with the load and the cost of a sync is shared. The order is
law:

1. sequences are given out inside the commit (a puller never sees 6 before 5 exists);
2. bytes are appended and fdatasync returns;
3. the rows enter the index in one transaction, and only now can anybody see the blobs;
4. one signature covers the commit; all waiters are answered in one call into the event loop.

When the disk is full the append is taken back and the pushes are refused; the next commit tries
again. When fdatasync fails, or anything else about the disk is not as promised, nothing is
written until a restart: what a failed sync leaves behind is unknown, and a second sync may say
yes without having written anything.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from asyncio import AbstractEventLoop, Future
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import apsw

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, PeerFault
from holdfast.limits import CANARY_BYTES_MAX, COMMIT_BLOBS_MAX, COMMIT_BYTES_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.store.index import Index, Row
from holdfast.rim.store.port import Incoming, Listener, StorePolicy, WriteRefused
from holdfast.rim.store.record import HEADER_BYTES, Record, pack_record
from holdfast.rim.store.segments import CANARY, Segments
from holdfast.rim.store.state import State, Stream, StreamKey
from holdfast.wire.pool import BlobClass, PushReply, Receipt
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.signed import Signed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Seal = Callable[[Sequence[bytes], float], tuple[Signed, Sequence[tuple[bytes, ...]]]]
"""`seal(leaves, committed_at)`: the signed batch and a path for each leaf."""


class Push(NamedTuple):
    """All blobs of one request."""

    key: StreamKey
    blob_class: BlobClass
    blobs: Sequence[Incoming]
    answer: Future[PushReply]


class Task(NamedTuple):
    """Anything else that must not run beside a commit."""

    work: Callable[[], Any]
    answer: Future[Any] | None


class _Placed(NamedTuple):
    """Where a blob of a push ended up."""

    blob: Incoming
    sequence: int
    duplicate: bool


class _Added(NamedTuple):
    """A blob that this commit adds; `stream` may be a draft that becomes real with it."""

    stream: Stream
    sequence: int
    blob_class: BlobClass
    blob: Incoming


class _Plan:
    """One commit on its way to the disk."""

    def __init__(self) -> None:
        self.pushes: list[tuple[Push, list[_Placed]]] = []
        self.refused: list[tuple[Push, HoldfastError]] = []
        self.added: list[_Added] = []
        self.canaries: list[_Added] = []
        self.placed: dict[tuple[StreamKey, bytes], int] = {}
        self.drafts: dict[StreamKey, Stream] = {}
        self.replaced: dict[tuple[int, bytes], Row] = {}
        self.bytes_added = 0


class Writer:
    """Owns the thread, the queue and all changes to segments, index and state."""

    def __init__(
        self,
        segments: Segments,
        index: Index,
        state: State,
        seal: Seal,
        clock: Clock,
        policy: StorePolicy,
    ) -> None:
        self._segments = segments
        self._index = index
        self._state = state
        self._seal = seal
        self._clock = clock
        self._policy = policy
        self._queue: queue.SimpleQueue[Push | Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="holdfast-writer", daemon=True)
        self._loop: AbstractEventLoop | None = None
        self._segment_ids = {name: number for number, name in state.segments.items()}
        self._canary_sequence = 0
        self.canaries: OrderedDict[tuple[bytes, bytes], tuple[int, int]] = OrderedDict()
        self.listeners: list[Listener] = []
        self.broken = ""
        self.full = ""
        self.commit_ms: deque[float] = deque(maxlen=1_024)

    def start(self, loop: AbstractEventLoop) -> None:
        """Answers go to `loop` from now on."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued and end the thread. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def submit(self, item: Push | Task) -> None:
        """Queue an item; its `answer` is set in the event loop."""
        self._queue.put(item)

    def forget(self, row: Row) -> None:
        """Take a blob out that the disk has damaged. From any thread."""
        self._queue.put(Task(lambda: self._forget(row), None))

    def forget_segment(self, name: str) -> None:
        """A segment is gone. On this thread only."""
        number = self._segment_ids.pop(name, None)
        if number is not None:
            self._state.segments.pop(number, None)

    # --- The thread ------------------------------------------------------------------------------
    def _run(self) -> None:
        while True:
            item = self._queue.get()
            pushes: list[Push] = []
            size = count = 0
            while isinstance(item, Push):
                pushes.append(item)
                size += sum(len(blob.body) for blob in item.blobs)
                count += len(item.blobs)
                if size >= COMMIT_BYTES_MAX or count >= COMMIT_BLOBS_MAX or self._queue.empty():
                    break
                item = self._queue.get()
            if pushes:
                self._commit_all(pushes)
            if isinstance(item, Task):
                self._perform(item)
            elif item is None:
                return

    def _perform(self, task: Task) -> None:
        try:
            result = task.work()
        except (OSError, apsw.Error) as error:
            result = self._break(f"disk: {error}")
        if task.answer is not None:
            self._deliver([(task.answer, result)], {})

    def _forget(self, row: Row) -> None:
        key = (row.stream, row.blob)
        if self._index.known([key]).get(key) != row:
            return  # forgotten already, or stored again meanwhile
        self._index.forget([key])
        self._state.remove(row)
        self._state.note_rot()

    def _commit_all(self, pushes: Sequence[Push]) -> None:
        started = time.perf_counter()
        plan = _Plan()
        try:
            self._plan(plan, pushes)
            self._store(plan)
            answers: list[tuple[Future[Any], object]] = self._answers(plan)
        except WriteRefused as refusal:
            answers = [(push.answer, refusal) for push in pushes]
            self._deliver(answers, {})
            return
        self.full = ""
        self.commit_ms.append((time.perf_counter() - started) * 1_000)
        answers += [(push.answer, error) for push, error in plan.refused]
        heads = {key: stream.head for key, stream in plan.drafts.items()}
        self._deliver(answers, heads)

    # --- Planning: sequences, duplicates, quotas -------------------------------------------------
    def _plan(self, plan: _Plan, pushes: Sequence[Push]) -> None:
        if self.broken:
            raise WriteRefused("read-only", self.broken)
        known = self._known(pushes)
        for push in pushes:
            if push.blob_class is BlobClass.CANARY:
                self._plan_canary(plan, push)
                continue
            try:
                self._plan_push(plan, push, known)
            except HoldfastError as error:
                plan.refused.append((push, error))

    def _known(self, pushes: Sequence[Push]) -> dict[tuple[int, bytes], Row]:
        """Which of the pushed blobs are in the index already."""
        wanted = {
            (stream.id, blob.blob)
            for push in pushes
            if (stream := self._state.streams.get(push.key)) and stream.count
            for blob in push.blobs
        }
        if not wanted:
            return {}
        try:
            return self._index.known(list(wanted))
        except apsw.Error as error:
            raise self._break(f"index: {error}") from error

    def _plan_push(self, plan: _Plan, push: Push, known: dict[tuple[int, bytes], Row]) -> None:
        stream = plan.drafts.get(push.key) or self._draft(push.key)
        fresh: dict[bytes, Incoming] = {}
        for blob in push.blobs:
            if (push.key, blob.blob) in plan.placed or blob.blob in fresh:
                continue
            row = known.get((stream.id, blob.blob))
            if row is not None and self._intact(row):
                plan.placed[push.key, blob.blob] = row.sequence
                continue
            if row is not None:
                plan.replaced[stream.id, blob.blob] = row
            fresh[blob.blob] = blob
        self._check_room(plan, stream, sum(len(blob.body) for blob in fresh.values()))
        plan.drafts[push.key] = stream
        placed = []
        for blob in push.blobs:
            first = fresh.pop(blob.blob, None) is not None
            if first:
                stream.head += 1
                stream.count += 1
                stream.size += len(blob.body)
                plan.bytes_added += len(blob.body)
                plan.placed[push.key, blob.blob] = stream.head
                plan.added.append(_Added(stream, stream.head, push.blob_class, blob))
            placed.append(_Placed(blob, plan.placed[push.key, blob.blob], not first))
        plan.pushes.append((push, placed))

    def _draft(self, key: StreamKey) -> Stream:
        """A copy of a stream to change within this commit."""
        stream = self._state.streams.get(key)
        if stream is None:
            return self._state.draft(key, int(self._clock.wall()))
        draft = Stream(stream.row())
        draft.count, draft.size = stream.count, stream.size
        return draft

    def _check_room(self, plan: _Plan, stream: Stream, size: int) -> None:
        policy, state = self._policy, self._state
        if not size:
            return
        if stream.size + size > policy.group_bytes_max:
            raise PeerFault(f"the group's {policy.group_bytes_max} bytes are used", code="quota")
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

    def _plan_canary(self, plan: _Plan, push: Push) -> None:
        placed = []
        for blob in push.blobs:
            self._canary_sequence += 1
            stream = self._state.draft(push.key, 0)
            plan.canaries.append(_Added(stream, self._canary_sequence, push.blob_class, blob))
            placed.append(_Placed(blob, self._canary_sequence, False))
        plan.pushes.append((push, placed))

    # --- Storing ---------------------------------------------------------------------------------
    def _store(self, plan: _Plan) -> None:
        batches: dict[str, list[_Added]] = {}
        for item in plan.added:
            batches.setdefault(self._segments.target(item.blob.born), []).append(item)
        if plan.canaries:
            batches[CANARY] = plan.canaries
        if not batches:
            return
        sizes = self._sizes(batches)
        rows = self._append(batches, sizes)
        self._sync(batches)
        self._enter(plan, rows, batches, sizes)

    def _sizes(self, batches: dict[str, list[_Added]]) -> dict[str, int]:
        """Size of each file before the commit; the canary file starts anew when it has grown."""
        try:
            if self._segments.free_bytes() < self._policy.reserve_bytes:
                raise self._out_of_room("the disk is down to its reserve")
            sizes = {name: self._segments.size(name) for name in batches}
            if sizes.get(CANARY, 0) > CANARY_BYTES_MAX:
                self.canaries.clear()
                self._segments.rollback(CANARY, 0)
                sizes[CANARY] = 0
        except OSError as error:
            raise self._refusal(error) from error
        return sizes

    def _append(
        self, batches: dict[str, list[_Added]], sizes: dict[str, int]
    ) -> list[tuple[_Added, str, int]]:
        """Write every record; (item, segment, offset of the body) of each."""
        stored_at = int(self._clock.wall())
        rows: list[tuple[_Added, str, int]] = []
        try:
            for name, items in batches.items():
                parts: list[bytes | memoryview] = []
                offset = sizes[name]
                for item in items:
                    parts += (_header(item, stored_at), item.blob.body)
                    rows.append((item, name, offset + HEADER_BYTES))
                    offset += HEADER_BYTES + len(item.blob.body)
                self._segments.append(name, parts)
        except OSError as error:
            self._rollback(sizes)
            raise self._refusal(error) from error
        return rows

    def _sync(self, batches: dict[str, list[_Added]]) -> None:
        try:
            for name in batches:
                self._segments.sync(name)
        except OSError as error:
            raise self._break(f"fdatasync failed: {error}") from error

    def _enter(
        self,
        plan: _Plan,
        rows: list[tuple[_Added, str, int]],
        batches: dict[str, list[_Added]],
        sizes: dict[str, int],
    ) -> None:
        """Index the commit, then show it to everybody."""
        table: list[Row] = []
        for item, name, offset in rows:
            if name == CANARY:
                body = len(item.blob.body)
                self.canaries[item.stream.tag, item.blob.blob] = (offset, body)
                continue
            table.append(_row(item, self._segment_id(name), offset))
        extents = [
            (self._segment_id(name), self._segments.size(name))
            for name in batches
            if name != CANARY
        ]
        drafts = plan.drafts.values()
        try:
            if table:
                self._index.commit(table, [d.row() for d in drafts], extents, plan.replaced)
        except apsw.FullError as error:
            self._rollback(sizes)
            raise self._out_of_room(f"no room for the index: {error}") from error
        except apsw.Error as error:
            raise self._break(f"index: {error}") from error
        self._publish(plan, table)

    def _publish(self, plan: _Plan, table: Sequence[Row]) -> None:
        for row in plan.replaced.values():
            self._state.remove(row)
            self._state.note_rot()
        for draft in plan.drafts.values():
            stream = self._state.streams.get((draft.slot, draft.tag))
            if stream is None:
                self._state.enter(Stream(draft.row()))
            else:
                stream.head = draft.head
        for row in table:
            self._state.add(self._state.by_id[row.stream], row)

    def _segment_id(self, name: str) -> int:
        number = self._segment_ids.get(name)
        if number is None:
            try:
                number, _ = self._index.segment(name)
            except apsw.Error as error:
                raise self._break(f"index: {error}") from error
            self._segment_ids[name] = number
            self._state.segments[number] = name
        return number

    # --- Answers and errors ----------------------------------------------------------------------
    def _answers(self, plan: _Plan) -> list[tuple[Future[Any], object]]:
        leaves = [
            receipt_leaf(p.blob.blob, push.key[1], p.sequence, len(p.blob.body), p.blob.born)
            for push, placed in plan.pushes
            for p in placed
        ]
        if not leaves:
            return []
        signed, paths = self._seal(leaves, self._clock.wall())
        answers: list[tuple[Future[Any], object]] = []
        index = 0
        for push, placed in plan.pushes:
            receipts = []
            for item in placed:
                receipts.append(
                    Receipt(item.blob.blob, item.sequence, item.duplicate, index, paths[index])
                )
                index += 1
            answers.append((push.answer, PushReply(signed, tuple(receipts))))
        return answers

    def _deliver(
        self, answers: Sequence[tuple[Future[Any], object]], heads: dict[StreamKey, int]
    ) -> None:
        assert self._loop is not None, "started before the first item"
        try:
            self._loop.call_soon_threadsafe(self._settle, answers, heads)
        except RuntimeError:  # the loop has closed: nobody waits any more
            return

    def _settle(
        self, answers: Sequence[tuple[Future[Any], object]], heads: dict[StreamKey, int]
    ) -> None:
        for future, result in answers:
            if future.done():
                continue
            if isinstance(result, HoldfastError):
                future.set_exception(result)
            else:
                future.set_result(result)
        for (slot, tag), head in heads.items():
            for listener in self.listeners:
                listener(slot, tag, head)

    def _rollback(self, sizes: dict[str, int]) -> None:
        try:
            for name, size in sizes.items():
                self._segments.rollback(name, size)
        except OSError as error:
            raise self._break(f"cannot take back a partial write: {error}") from error

    def _refusal(self, error: OSError) -> WriteRefused:
        if error.errno in _FULL:
            return self._out_of_room("the disk is full")
        return self._break(f"disk: {error}")

    def _out_of_room(self, reason: str) -> WriteRefused:
        self.full = reason
        return WriteRefused("full", reason)

    def _break(self, reason: str) -> WriteRefused:
        self.broken = self.broken or reason
        return WriteRefused("read-only", self.broken)


def _header(item: _Added, stored_at: int) -> bytes:
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


def _row(item: _Added, segment: int, offset: int) -> Row:
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
