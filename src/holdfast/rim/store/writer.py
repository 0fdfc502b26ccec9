"""The one thread that writes: collect, append, fdatasync, index, sign, answer.

Whatever is queued when the thread looks becomes one commit. While it waits for the disk the next
commit gathers, so the batch grows with the load and the cost of a sync is shared. The order is
law:

1. sequences are given out inside the commit (a puller never sees 6 before 5 exists);
2. bytes are appended and fdatasync returns;
3. the rows enter the index, all or none, and only now can anybody see the blobs;
4. one signature covers the commit; all waiters are answered in one call into the event loop.

When the disk is full the append is taken back and the pushes are refused; the next commit tries
again. When fdatasync fails, or anything else about the disk is not as promised, nothing is
written until a restart: what a failed sync leaves behind is unknown, and a second sync may say
yes without having written anything.
"""

from __future__ import annotations

import contextlib
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
from holdfast.errors import HoldfastError
from holdfast.limits import CANARY_BYTES_MAX, COMMIT_BLOBS_MAX, COMMIT_BYTES_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.store.buffered import BufferedIndex
from holdfast.rim.store.index import Row
from holdfast.rim.store.plan import Added, Plan, Planner, Push, index_row, record_header
from holdfast.rim.store.port import Listener, StorePolicy, WriteRefused
from holdfast.rim.store.record import HEADER_BYTES
from holdfast.rim.store.room import Room
from holdfast.rim.store.segments import CANARY, Segments
from holdfast.rim.store.state import State, Stream, StreamKey
from holdfast.wire.pool import PushReply, Receipt
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.signed import Signed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})

Seal = Callable[[Sequence[bytes], float], tuple[Signed, Sequence[tuple[bytes, ...]]]]
"""`seal(leaves, committed_at)`: the signed batch and a path for each leaf."""


class Task(NamedTuple):
    """Anything else that must not run beside a commit."""

    work: Callable[[], Any]
    answer: Future[Any] | None


class Writer:
    """Owns the thread, the queue and all changes to segments, index and state."""

    def __init__(
        self,
        segments: Segments,
        index: BufferedIndex,
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
        self._room = Room(segments, policy.reserve_bytes)
        self._queue: queue.SimpleQueue[Push | Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="holdfast-writer", daemon=True)
        self._loop: AbstractEventLoop | None = None
        self._segment_ids = {name: number for number, name in state.segments.items()}
        self.planner = Planner(segments, index, state, clock, policy)
        self.canaries: OrderedDict[tuple[bytes, bytes], tuple[int, int]] = OrderedDict()
        self.listeners: list[Listener] = []
        self.broken = ""
        self.full = ""
        self.leave_queue: Callable[[int], None] = lambda size: None
        """Told in the event loop how many bytes of pushes have been answered."""
        self.take_ballast: Callable[[], bool] = lambda: True
        """Asked after commits until it holds: an opening on a full disk has used it up."""
        self._ballasted = False
        self.commit_ms: deque[float] = deque(maxlen=1_024)

    def start(self, loop: AbstractEventLoop) -> None:
        """Answers go to `loop` from now on."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued and end the thread. Blocks."""
        self._queue.put(None)
        self._thread.join()

    @property
    def thread(self) -> int:
        """Its native id."""
        assert self._thread.native_id is not None, "start first"
        return self._thread.native_id

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
                size += item.size
                count += len(item.blobs)
                if size >= COMMIT_BYTES_MAX or count >= COMMIT_BLOBS_MAX or self._queue.empty():
                    break
                item = self._queue.get()
            if pushes:
                self._commit_all(pushes, size)
            if isinstance(item, Task):
                self._perform(item)
            elif item is None:
                return

    def _perform(self, task: Task) -> None:
        try:
            result = task.work()
        except apsw.FullError as error:
            result = self._out_of_room(f"no room for the index: {error}")
        except OSError as error:
            result = self._refusal(error)
        except apsw.Error as error:
            result = self._break(f"index: {error}")
        if task.answer is not None:
            self._deliver([(task.answer, result)], {}, 0)

    def _forget(self, row: Row) -> None:
        key = (row.stream, row.blob)
        if self._index.known([key]).get(key) != row:
            return  # forgotten already, or stored again meanwhile
        if not self._is_rotten(row):
            return
        self._index.forget(self._state.by_id[row.stream].row(), row.blob)
        self._state.remove(row)
        self._state.note_rot()

    def _is_rotten(self, row: Row) -> bool:
        """Whether a second look finds other bytes too. Bytes that cannot be read prove nothing."""
        try:
            body = self._segments.read(self._state.segments[row.segment], row.offset, row.size)
        except OSError:
            return False
        return len(body) == row.size and hash_bytes(body) != row.blob

    def _commit_all(self, pushes: Sequence[Push], size: int) -> None:
        started = time.perf_counter()
        try:
            plan = self._plan(pushes)
            self._store(plan)
            answers: list[tuple[Future[Any], object]] = self._answers(plan)
        except WriteRefused as refusal:
            answers = [(push.answer, refusal) for push in pushes]
            self._deliver(answers, {}, size)
            return
        self.full = ""
        if not self._ballasted:
            with contextlib.suppress(OSError):
                self._ballasted = self.take_ballast()
        self.commit_ms.append((time.perf_counter() - started) * 1_000)
        answers += [(push.answer, error) for push, error in plan.refused]
        heads = {key: stream.head for key, stream in plan.drafts.items()}
        self._deliver(answers, heads, size)

    def _plan(self, pushes: Sequence[Push]) -> Plan:
        if self.broken:
            raise WriteRefused("read-only", self.broken)
        try:
            return self.planner.plan(pushes)
        except apsw.Error as error:
            raise self._break(f"index: {error}") from error

    # --- Storing ---------------------------------------------------------------------------------
    def _store(self, plan: Plan) -> None:
        by_day: dict[int, list[Added]] = {}
        for item in plan.added:
            by_day.setdefault(item.blob.born, []).append(item)
        try:
            batches = {self._segments.target(born): items for born, items in by_day.items()}
        except OSError as error:
            raise self._refusal(error) from error
        if plan.canaries:
            batches[CANARY] = plan.canaries
        if not batches:
            return
        sizes = self._sizes(plan, batches)
        rows = self._append(batches, sizes, plan.at)
        self._sync(batches)
        self._enter(plan, rows, batches, sizes)

    def _sizes(self, plan: Plan, batches: dict[str, list[Added]]) -> dict[str, int]:
        """Size of each file before the commit; the canary file starts anew when it has grown."""
        try:
            if not self._room.take(plan.bytes_added):
                raise self._out_of_room("the disk is down to its reserve")
            sizes = {name: self._segments.size(name) for name in batches}
            self._segments.enlist(batches)
            if sizes.get(CANARY, 0) > CANARY_BYTES_MAX:
                self.canaries.clear()
                self._segments.rollback(CANARY, 0)
                sizes[CANARY] = 0
        except OSError as error:
            raise self._refusal(error) from error
        return sizes

    def _append(
        self, batches: dict[str, list[Added]], sizes: dict[str, int], stored_at: int
    ) -> list[tuple[Added, str, int]]:
        """Write every record; (item, segment, offset of the body) of each."""
        rows: list[tuple[Added, str, int]] = []
        try:
            for name, items in batches.items():
                parts: list[bytes | memoryview] = []
                offset = sizes[name]
                for item in items:
                    parts += (record_header(item, stored_at), item.blob.body)
                    rows.append((item, name, offset + HEADER_BYTES))
                    offset += HEADER_BYTES + len(item.blob.body)
                self._segments.append(name, parts)
        except OSError as error:
            self._rollback(sizes)
            raise self._refusal(error) from error
        return rows

    def _sync(self, batches: dict[str, list[Added]]) -> None:
        try:
            for name in batches:
                self._segments.sync(name)
        except OSError as error:
            raise self._break(f"fdatasync failed: {error}") from error

    def _enter(
        self,
        plan: Plan,
        rows: list[tuple[Added, str, int]],
        batches: dict[str, list[Added]],
        sizes: dict[str, int],
    ) -> None:
        """Index the commit, then show it to everybody."""
        table: list[Row] = []
        for item, name, offset in rows:
            if name == CANARY:
                body = len(item.blob.body)
                self.canaries[item.stream.tag, item.blob.blob] = (offset, body)
                continue
            table.append(index_row(item, self._segment_id(name), offset))
        extents = [
            (self._segment_id(name), self._segments.size(name))
            for name in batches
            if name != CANARY
        ]
        rewritten = {stream for stream, _ in plan.replaced}
        streams = [
            draft.row()
            for key, draft in plan.drafts.items()
            if key not in self._state.streams or draft.id in rewritten
        ]
        try:
            if table:
                self._index.commit(table, streams, extents, plan.replaced)
        except apsw.FullError as error:
            self._rollback(sizes)
            raise self._out_of_room(f"no room for the index: {error}") from error
        except apsw.Error as error:
            raise self._break(f"index: {error}") from error
        self._publish(plan, table)

    def _publish(self, plan: Plan, table: Sequence[Row]) -> None:
        for row in plan.replaced.values():
            self._state.remove(row)
            self._state.note_rot()
        for draft in plan.drafts.values():
            stream = self._state.streams.get((draft.slot, draft.tag))
            if stream is None:
                self._state.enter(Stream(draft.row()))
            else:
                stream.head = draft.head
        self._state.add(table)

    def _segment_id(self, name: str) -> int:
        number = self._segment_ids.get(name)
        if number is None:
            try:
                number = self._index.segment(name)
            except apsw.Error as error:
                raise self._break(f"index: {error}") from error
            self._segment_ids[name] = number
            self._state.segments[number] = name
        return number

    # --- Answers and errors ----------------------------------------------------------------------
    def _answers(self, plan: Plan) -> list[tuple[Future[Any], object]]:
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
        self,
        answers: Sequence[tuple[Future[Any], object]],
        heads: dict[StreamKey, int],
        size: int,
    ) -> None:
        assert self._loop is not None, "started before the first item"
        try:
            self._loop.call_soon_threadsafe(self._settle, answers, heads, size)
        except RuntimeError:  # the loop has closed: nobody waits any more
            return

    def _settle(
        self,
        answers: Sequence[tuple[Future[Any], object]],
        heads: dict[StreamKey, int],
        size: int,
    ) -> None:
        self.leave_queue(size)
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
        if error.errno in _TOO_MANY:
            return WriteRefused("busy", "too many files are open")
        return self._break(f"disk: {error}")

    def _out_of_room(self, reason: str) -> WriteRefused:
        self.full = reason
        return WriteRefused("full", reason)

    def _break(self, reason: str) -> WriteRefused:
        self.broken = self.broken or reason
        return WriteRefused("read-only", self.broken)
