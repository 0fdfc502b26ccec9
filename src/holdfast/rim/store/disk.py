"""The store of a relay or replica: segments, an index beside them, one writer thread.

<root>/incarnation       16 random bytes
<root>/heads             heads of streams whose days have expired
<root>/manifest          which segments there are, so that a lost one is missed
<root>/index.sqlite      rebuildable
<root>/segments/*.seg    the truth
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault
from holdfast.limits import BALLAST_BYTES, WRITE_QUEUE_BYTES_MAX
from holdfast.logic.trust import merkle
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.store.buffered import BufferedIndex
from holdfast.rim.store.files import Files, OsFiles
from holdfast.rim.store.index import Index, Row
from holdfast.rim.store.plan import Push
from holdfast.rim.store.port import (
    DayItem,
    Entry,
    Incoming,
    Listener,
    StoreFigures,
    StorePolicy,
    WriteRefused,
)
from holdfast.rim.store.recovery import recover, save_heads
from holdfast.rim.store.segments import CANARY, Segments, born_of
from holdfast.rim.store.state import State, Stream
from holdfast.rim.store.writer import Task, Writer
from holdfast.wire.envelope import sign
from holdfast.wire.pool import BlobClass, BucketSummary, DaySummary, PushReply, ReceiptBatch
from holdfast.wire.signed import Signed, Type

T = TypeVar("T")


class DiskStore:
    """A `BlobStore` on a directory. Make it with `open`, end it with `close`."""

    def __init__(
        self,
        root: Path,
        identity: SigningKey,
        clock: Clock,
        entropy: Entropy,
        policy: StorePolicy,
        files: Files,
    ) -> None:
        """Opens and recovers; blocks. Raises OperationFault."""
        self._root = root
        self._identity = identity
        self._files = files
        self._policy = policy
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._segments = Segments(root / "segments", root / "manifest", files)
            self._segments.rollback(CANARY, 0)
            index, self._state, doubt = self._recover()
            self._index = BufferedIndex(index)
            self.incarnation = self._incarnation(entropy, doubt)
            self._segments.relist()
            self._take_ballast()
        except OSError as error:
            text = f"the blob store at {root} does not open: {error}"
            raise OperationFault(text, retryable=False) from error
        self._writer = Writer(self._segments, self._index, self._state, self._seal, clock, policy)
        self._writer.take_ballast = self._take_ballast
        self._writer.leave_queue = self._leave_queue
        self._queued_bytes = 0
        self._unread = ""

    @classmethod
    async def open(
        cls,
        root: Path,
        *,
        identity: SigningKey,
        clock: Clock,
        entropy: Entropy,
        policy: StorePolicy | None = None,
        files: Files | None = None,
    ) -> DiskStore:
        """Open the store under `root`, recovering what a crash left. Raises OperationFault."""

        def make() -> DiskStore:
            return cls(root, identity, clock, entropy, policy or StorePolicy(), files or OsFiles())

        store = await asyncio.to_thread(make)
        store._writer.start(asyncio.get_running_loop())
        return store

    async def close(self) -> None:
        """Commit what is queued and let go of everything."""
        await asyncio.to_thread(self._writer.stop)
        with contextlib.suppress(apsw.Error):  # a full disk; the boot id will do
            self._index.close(clean=not self._writer.broken)
        self._segments.close()

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(slot, tag, head)` in the event loop after each commit."""
        self._writer.listeners.append(listener)

    # --- Writing ---------------------------------------------------------------------------------
    @property
    def writing_thread(self) -> int:
        """The native id of the thread that writes."""
        return self._writer.thread

    def allow(self, group_bytes_max: int) -> None:
        """As `BlobStore.allow`."""
        self._writer.planner.group_bytes_max = group_bytes_max

    async def push(
        self, slot: bytes, tag: bytes, blob_class: BlobClass, blobs: Sequence[Incoming]
    ) -> PushReply:
        """As `BlobStore.push`."""
        size = sum(len(blob.body) for blob in blobs)
        if self._queued_bytes + size > WRITE_QUEUE_BYTES_MAX:
            raise WriteRefused("busy", "too much is waiting for the disk")
        answer: asyncio.Future[PushReply] = asyncio.get_running_loop().create_future()
        # Who gives up waiting leaves the bytes in the queue: the writer takes them off.
        self._queued_bytes += size
        self._writer.submit(Push((slot, tag), blob_class, blobs, size, answer))
        return await answer

    def _leave_queue(self, size: int) -> None:
        self._queued_bytes -= size

    async def drop_day(self, born: int) -> int:
        """As `BlobStore.drop_day`. Raises WriteRefused when the disk fails."""
        return await self._perform(lambda: self._drop_day(born))

    def _drop_day(self, born: int) -> int:
        names = [name for name in self._segments.names() if born_of(name) == born]
        rows = self._index.day_rows(born)
        save_heads(self._root / "heads", self._files, self._state)
        for number, name in self._index.segments().items():
            if name in names:
                self._index.forget_segment(number, born)
                self._writer.forget_segment(name)
        for row in rows:
            self._state.remove(row)
        self._segments.drop(names)
        return len(rows)

    async def _perform(self, work: Callable[[], T]) -> T:
        """Run `work` on the writer thread, between commits."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writer.submit(Task(work, answer))
        result: T = await answer
        return result

    def _seal(
        self, leaves: Sequence[bytes], committed_at: float
    ) -> tuple[Signed, Sequence[merkle.Path]]:
        """One signature for a commit (D15)."""
        root, paths = merkle.paths(leaves)
        batch = ReceiptBatch(self._identity.node, self.incarnation, root, len(leaves), committed_at)
        return sign(self._identity, Type.RECEIPT_BATCH, batch), paths

    # --- Reading ---------------------------------------------------------------------------------
    def head(self, slot: bytes, tag: bytes) -> int:
        """As `BlobStore.head`."""
        stream = self._state.streams.get((slot, tag))
        return stream.head if stream else 0

    def used_bytes(self, slot: bytes, tag: bytes) -> int:
        """As `BlobStore.used_bytes`."""
        stream = self._state.streams.get((slot, tag))
        return stream.size if stream else 0

    def first_at(self, slot: bytes, tag: bytes) -> int | None:
        """As `BlobStore.first_at`."""
        stream = self._state.streams.get((slot, tag))
        return stream.first_at if stream and stream.count else None

    def after(
        self, slot: bytes, tag: bytes, sequence: int, count: int, blob_class: BlobClass | None
    ) -> list[Entry]:
        """As `BlobStore.after`."""
        stream = self._state.streams.get((slot, tag))
        if stream is None or stream.head <= sequence:
            return []
        # The index may be a commit ahead of what has been published; it is durable all the same.
        return [_entry(row) for row in self._index.after(stream.id, sequence, count, blob_class)]

    def listing(self, slot: bytes, tag: bytes, born: int, blob: bytes, count: int) -> list[Entry]:
        """As `BlobStore.listing`."""
        stream = self._state.streams.get((slot, tag))
        if stream is None:
            return []
        return [_entry(row) for row in self._index.listing(stream.id, born, blob, count)]

    def sizes(self, slot: bytes, tag: bytes, blobs: Sequence[bytes]) -> dict[bytes, int]:
        """As `BlobStore.sizes`."""
        stream = self._state.streams.get((slot, tag))
        found = {} if stream is None else self._index.find(stream.id, blobs)
        sizes = {blob: row.size for blob, row in found.items()}
        for blob in blobs:
            canary = self._writer.canaries.get((tag, blob))
            if canary is not None:
                sizes[blob] = canary[1]
        return sizes

    def read(self, slot: bytes, tag: bytes, blobs: Sequence[bytes]) -> dict[bytes, bytes]:
        """As `BlobStore.read`."""
        stream = self._state.streams.get((slot, tag))
        bodies: dict[bytes, bytes] = {}
        if stream is not None:
            for blob, row in self._index.find(stream.id, blobs).items():
                body = self._body(stream, row)
                if body is not None:
                    bodies[blob] = body
        for blob in blobs:
            canary = self._writer.canaries.get((tag, blob))
            if canary is not None:
                self._add_canary(bodies, blob, canary)
        return bodies

    def _add_canary(self, bodies: dict[bytes, bytes], blob: bytes, place: tuple[int, int]) -> None:
        try:
            body = self._segments.read(CANARY, *place)
        except OSError:
            return
        if hash_bytes(body) == blob:
            bodies[blob] = body

    def _body(self, stream: Stream, row: Row) -> bytes | None:
        """A blob's body when the disk still has what was stored. One that the disk has changed is
        forgotten, and the servers of the slot will see that it is missing here; one that cannot be
        read now may be whole, and stays."""
        name = self._state.segments.get(row.segment)
        if name is None:
            return None  # its day was dropped a moment ago
        try:
            body = self._segments.read(name, row.offset, row.size)
        except FileNotFoundError:
            return None  # as above
        except OSError as error:
            self._unread = f"disk: {error}"
            return None
        self._unread = ""
        if hash_bytes(body) == row.blob:
            return body
        if len(body) == row.size:
            self._writer.forget(row)
        return None

    # --- Comparing with the servers of a slot ----------------------------------------------------
    def days(self, slot: bytes) -> tuple[DaySummary, ...]:
        """As `BlobStore.days`."""
        return self._state.summaries.days(slot)

    def buckets(self, slot: bytes, born: int) -> tuple[BucketSummary, ...]:
        """As `BlobStore.buckets`."""
        return self._state.summaries.buckets(slot, born)

    def day_items(self, slot: bytes, born: int, bucket: int) -> list[DayItem]:
        """As `BlobStore.day_items`."""
        items = []
        for row in self._index.bucket(born, bucket):
            stream = self._state.by_id.get(row.stream)
            if stream is not None and stream.slot == slot:
                blob_class = BlobClass(row.blob_class)
                items.append(DayItem(stream.tag, row.blob, row.size, blob_class))
        return items

    def slots_of(self, born: int) -> tuple[bytes, ...]:
        """As `BlobStore.slots_of`."""
        return self._state.summaries.slots_of(born)

    def born_days(self) -> list[int]:
        """As `BlobStore.born_days`."""
        days = {born for name in self._segments.names() if (born := born_of(name)) is not None}
        return sorted(days)

    def figures(self) -> StoreFigures:
        """As `BlobStore.figures`."""
        state, writer = self._state, self._writer
        times = sorted(writer.commit_ms)
        try:
            free_bytes = self._segments.free_bytes()
        except OSError:
            free_bytes = 0
        room = min(free_bytes, self._policy.store_bytes_max - state.size)
        return StoreFigures(
            groups=state.groups,
            blobs=state.blobs,
            stored_bytes=state.size,
            free_bytes=max(0, room),
            commit_p99_ms=times[len(times) * 99 // 100] if times else 0.0,
            trouble=writer.broken or writer.full or self._unread,
            rotten=state.rotten,
        )

    def _recover(self) -> tuple[Index, State, bool]:
        """Recover; when not a byte is free, give up the ballast for it."""
        try:
            return recover(self._root, self._segments)
        except OperationFault:
            ballast = self._root / "ballast"
            if not ballast.exists():
                raise
            self._files.remove(ballast)
            return recover(self._root, self._segments)

    def _take_ballast(self) -> bool:
        """Hold some room for a later opening, while there is plenty; whether it is held. Raises
        OSError."""
        ballast = self._root / "ballast"
        plenty = self._policy.reserve_bytes + 4 * BALLAST_BYTES
        if not ballast.exists() and self._segments.free_bytes() > plenty:
            self._files.reserve(ballast, BALLAST_BYTES)
        return ballast.exists()

    def _incarnation(self, entropy: Entropy, doubt: bool) -> bytes:
        """Read it, or mint it for a new store and for one that may have lost something (D14).
        Raises OSError."""
        path = self._root / "incarnation"
        try:
            minted = path.read_bytes()
        except FileNotFoundError:
            minted = b""
        if len(minted) != 16 or doubt:
            minted = entropy.bytes(16)
            self._files.replace(path, minted)
        return minted


def _entry(row: Row) -> Entry:
    return Entry(row.sequence, row.blob, row.size, BlobClass(row.blob_class), row.born)
