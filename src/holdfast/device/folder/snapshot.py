"""From what a scan saw to drafts of operations, in rounds.

A round takes at most `SNAPSHOT_FILES_MAX` names of `SNAPSHOT_BYTES_MAX` bytes: threads read, hash
and compress, chunks are packed and sealed. Changes whose packs are all with the sink become drafts;
the rest waits for the next round, so that packs fill up and nobody waits for the disk between
rounds. The caller signs each draft, stores the operation and confirms it; what a kill can cost is
little more than one round. Deletions come last: a rename's addition travels before its deletion, so
the other side still has the content on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.device.folder.decide import Decider, Decision
from holdfast.device.folder.hands import Hand, Hands
from holdfast.device.folder.index import DIRECTORY, FILE, FolderIndex, Row
from holdfast.device.folder.ports import BlobSink, OnProgress, Progress, no_progress
from holdfast.device.folder.read import (
    STEP_BYTES,
    Claims,
    Job,
    LongRead,
    RawChunk,
    Read,
    raw_chunk,
    read_small,
)
from holdfast.device.folder.recipe import RecipeBuilder
from holdfast.device.folder.scan import Scan, Seen
from holdfast.device.folder.store import PackWriter
from holdfast.limits import CHUNK_BYTES_AVG, SNAPSHOT_BYTES_MAX, SNAPSHOT_FILES_MAX
from holdfast.logic.group.changeset import (
    Change,
    Changeset,
    DirectoryChange,
    FileChange,
    LinkChange,
)

_BATCH_FILES = 64


class Draft(msgspec.Struct, frozen=True):
    """Entries of one `folder` operation, and what its being recorded means for the index."""

    entries: bytes
    rows: tuple[tuple[int, Row], ...]
    """(index of the entry, row without its version)."""
    gone: tuple[bytes, ...]
    changes: int


class _Item(msgspec.Struct):
    """A change under construction: `row` for what is on disk, `gone` for what is not."""

    row: Row | None
    change: Change
    recipe: RecipeBuilder | None = None
    gone: bytes = b""

    def finished(self) -> Change:
        """The change with its content, once every pack is sealed."""
        change, recipe = self.change, self.recipe
        if not isinstance(change, FileChange) or recipe is None or self.row is None:
            return change
        if not recipe.is_long:
            return msgspec.structs.replace(change, pieces=recipe.pieces())
        digest = self.row.identity[1:]
        return msgspec.structs.replace(change, segments=recipe.segments(), digest=digest)

    @property
    def is_ready(self) -> bool:
        """Whether every pack it refers to is sealed."""
        return self.recipe is None or self.recipe.is_sealed


class Snapshot:
    """One pass from a scan to drafts."""

    def __init__(
        self,
        scan: Scan,
        decider: Decider,
        index: FolderIndex,
        hands: Hands,
        sink: BlobSink,
        on_progress: OnProgress = no_progress,
    ) -> None:
        self._scan = scan
        self._decider = decider
        self._index = index
        self._hands = hands
        self._claims = Claims(index)
        self._sink = sink
        self._writer = PackWriter(sink, index, self._claims)
        self._on_progress = on_progress
        self._placing = index.placing()
        self._items: list[_Item] = []
        self._settled: list[Row] = []
        self._gone: list[bytes] = []
        self._files = self._bytes = 0
        files = [seen for seen in scan.seen if seen.stat.kind == FILE]
        self._totals = len(files), sum(seen.stat.size for seen in files)
        self.busy: set[bytes] = set(scan.busy)
        """Names that could not be read: to be left alone by `apply` until a scan can."""
        self.skipped: list[tuple[bytes, str]] = []
        self.torn: list[bytes] = []

    @property
    def stored(self) -> tuple[int, int]:
        """(packs, payload bytes) handed to the sink."""
        return self._writer.packs, self._writer.payload_bytes

    async def drafts(self) -> AsyncIterator[Draft]:
        """Drafts to sign, store and confirm, in order. Raises what the sink raises."""
        self._hands.forget()
        for seen in _rounds(self._scan.seen):
            await self._guarded(self._round(seen))
            for draft in self._finish():
                yield draft
        await self._guarded(self._close())
        self._note_missing()
        for draft in self._finish():
            yield draft

    # --- one round -------------------------------------------------------------------------------
    async def _round(self, seen: list[Seen]) -> None:
        jobs = []
        for one in seen:
            if one.stat.kind == FILE:
                jobs.append(Job(one, self._decider.known(one), self._placing.get(one.path)))
            else:
                same = b"d" if one.stat.kind == DIRECTORY else b"l" + one.target
                self._note(one, self._decider.decide(one, one.stat, same))
        work = _work(jobs)
        tasks = [asyncio.create_task(self._worker(work)) for _ in range(self._hands.count)]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """`work`; when it fails, no more packs are handed over."""
        try:
            await work
        except BaseException:
            await self._writer.abort()
            raise

    async def _close(self) -> None:
        """Seal what is open: everything is ready then."""
        await self._writer.close()
        await self._close_recipes()

    async def _worker(self, work: Iterator[list[Job]]) -> None:
        for jobs in work:
            if jobs[0].seen.stat.size > CHUNK_BYTES_AVG:
                await self._long(jobs[0])
            else:
                for read in await self._hands.run(read_small, jobs, self._claims):
                    await self._small(read)
            self._files += len(jobs)
            self._report()

    async def _small(self, read: Read) -> None:
        recipe = RecipeBuilder()
        if read.chunk is not None:
            recipe.add(await self._writer.put(read.chunk))
        self._bytes += read.stat.size
        self._file(read, recipe)

    async def _long(self, job: Job) -> None:
        reader, recipe = LongRead(job, self._claims), RecipeBuilder()
        path, offset, hashing = job.seen.path, 0, not job.known
        try:
            while reader.outcome is None:
                chunks = await self._hands.run(reader.step)
                if hashing != reader.hashing:  # a pass begins
                    hashing, offset = reader.hashing, 0
                    self._index.clear_extents(path)
                self._index.add_extents(_extents(path, offset, chunks))
                offset += sum(raw.plain for raw in chunks)
                if not reader.hashing:
                    for raw in chunks:
                        recipe.add(await self._writer.put(raw))
                        self._bytes += raw.plain
                    if recipe.is_full:
                        await self._segment(recipe)
                    self._report()
        finally:
            reader.close()
        self._file(reader.outcome, recipe)

    async def _segment(self, recipe: RecipeBuilder) -> None:
        """Store the next part of a long chunk list as a chunk of its own."""
        await self._writer.settle(recipe.pending())
        raw = await self._hands.run(_segment_chunk, recipe.take(), self._claims)
        recipe.stored(await self._writer.put(raw))

    async def _close_recipes(self) -> None:
        long = [item.recipe for item in self._items if item.recipe and item.recipe.is_long]
        for recipe in long:
            while recipe.pending():
                await self._segment(recipe)
        if long:
            await self._writer.close()

    # --- what was found --------------------------------------------------------------------------
    def _file(self, read: Read, recipe: RecipeBuilder) -> None:
        seen = read.job.seen
        if read.problem:
            self._leave(seen.path, read.problem)
        elif read.is_torn:
            self.torn.append(seen.path)
            self._settled.append(self._decider.torn(seen, read.stat, read.identity).row)
        else:
            decision = self._decider.decide(seen, read.stat, read.identity)
            empty = not recipe.pending() and not recipe.is_long
            if decision.replaces is not None and empty and read.stat.size:
                self._leave(seen.path, "changed while it was read")
            else:
                self._note(seen, decision, recipe)

    def _leave(self, path: bytes, problem: str) -> None:
        self.busy.add(path)
        self.skipped.append((path, problem))

    def _note(self, seen: Seen, decision: Decision, recipe: RecipeBuilder | None = None) -> None:
        row, replaces = decision.row, decision.replaces
        if replaces is None:
            self._settled.append(row)
            return
        change: Change
        if recipe is not None:
            change = FileChange(row.path, replaces, row.mode, row.mtime_ns, row.size, ())
        elif row.kind == DIRECTORY:
            change = DirectoryChange(row.path, replaces, row.mode)
        else:
            change = LinkChange(row.path, replaces, seen.target)
        self._items += [_Item(None, deletion) for deletion in decision.before]
        self._items.append(_Item(row, change, recipe))

    def _note_missing(self) -> None:
        for row in self._scan.missing:
            deletion = self._decider.deletion(row)
            if deletion is None:
                self._gone.append(row.path)
            else:
                self._items.append(_Item(None, deletion, gone=row.path))

    # --- drafts ----------------------------------------------------------------------------------
    def _finish(self) -> Iterator[Draft]:
        """Rows that need no operation go to the index; what is ready of the rest becomes drafts."""
        self._index.update(self._settled, self._gone)
        self._settled, self._gone = [], []
        items = [item for item in self._items if item.is_ready]
        self._items = [item for item in self._items if not item.is_ready]
        items.sort(key=lambda item: item.change.path)
        yield from _drafts(items)

    def _report(self) -> None:
        files, size = self._totals
        self._on_progress(Progress("read", self._files, files, self._bytes, size))


def _rounds(seen: list[Seen]) -> Iterator[list[Seen]]:
    """What is done before changes are recorded."""
    names: list[Seen] = []
    size = 0
    for one in seen:
        names.append(one)
        size += one.stat.size if one.stat.kind == FILE else 0
        if len(names) >= SNAPSHOT_FILES_MAX or size >= SNAPSHOT_BYTES_MAX:
            yield names
            names, size = [], 0
    if names:
        yield names


def _work(jobs: list[Job]) -> Iterator[list[Job]]:
    """Tasks for threads: a long file alone, small ones together."""
    batch: list[Job] = []
    size = 0
    for job in jobs:
        if job.seen.stat.size > CHUNK_BYTES_AVG:
            yield [job]
            continue
        batch.append(job)
        size += job.seen.stat.size
        if len(batch) == _BATCH_FILES or size >= STEP_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _drafts(items: list[_Item]) -> Iterator[Draft]:
    """Cut finished items into operations."""
    changeset = Changeset()
    rows: list[tuple[int, Row]] = []
    gone: list[bytes] = []
    for item in items:
        change = item.finished()
        entry = changeset.add(change)
        if entry is None:
            yield Draft(changeset.finish(), tuple(rows), tuple(gone), len(changeset))
            changeset, rows, gone = Changeset(), [], []
            entry = changeset.add(change)
            assert entry is not None
        if item.row is not None:
            rows.append((entry, item.row))
        if item.gone:
            gone.append(item.gone)
    if len(changeset):
        yield Draft(changeset.finish(), tuple(rows), tuple(gone), len(changeset))


def _segment_chunk(hand: Hand, plain: bytes, claims: Claims) -> RawChunk:
    digest = hash_bytes(plain)
    stored = claims.look_up([digest]).get(digest)
    return raw_chunk(hand.compressor, claims, digest, plain, stored)


def _extents(
    path: bytes, offset: int, chunks: Iterable[RawChunk]
) -> Iterator[tuple[bytes, int, bytes, int]]:
    for raw in chunks:
        yield path, offset, raw.hash, raw.plain
        offset += raw.plain
