"""Getting the content of files: from this disk where it is, from packs where it is not.

Each pack is fetched once for all its chunks, and a few packs at a time are in memory. Long chunk
lists are read a few recipe segments at a time, so memory does not grow with the size of a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager

import msgspec

from holdfast.device.folder.build import (
    Build,
    Wanted,
    Written,
    chunks_present,
    copy_chunk,
    disk_problem,
    finish_long,
    prepare_long,
    write_pack,
)
from holdfast.device.folder.chunk import decode
from holdfast.device.folder.hands import Hand, Hands
from holdfast.device.folder.index import FolderIndex
from holdfast.device.folder.place import Placed, Placer
from holdfast.device.folder.ports import BlobSource
from holdfast.device.folder.recipe import Digest, read_segment
from holdfast.errors import PeerFault
from holdfast.logic.group.changeset import Piece, to_pieces

SEGMENTS_AT_ONCE = 8
"""Recipe segments in memory together: 65,536 chunks."""
_VERIFY_AT_ONCE = 64
_VERIFIED_MAX = 8_192
Payloads = AsyncIterator[tuple[bytes, bytes]]
MISSING = "its content is on no server we could ask"


class Unit(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One recipe segment of one file: the next `segment` chunks start at `offset`."""

    build: Build
    segment: Piece
    is_last: bool


class Restorer:
    """Fills builds with content. `make_placer` gives a thread its placer; `on_done` hears of every
    build that is finished, with what became of it (None while it is held); `checkpoint` is awaited
    between packs."""

    def __init__(
        self,
        index: FolderIndex,
        hands: Hands,
        source: BlobSource,
        make_placer: Callable[[Hand], Placer],
        on_done: Callable[[Build, Placed | None], None],
        on_bytes: Callable[[int], None],
        checkpoint: Callable[[], Awaitable[None]],
    ) -> None:
        self._index = index
        self._hands = hands
        self._source = source
        self._make_placer = make_placer
        self._on_done = on_done
        self._on_bytes = on_bytes
        self._checkpoint = checkpoint
        self._verified: dict[bytes, Piece] = {}
        self._extents: list[tuple[bytes, int, bytes, int]] = []
        self.packs = 0
        self.missing: set[bytes] = set()

    def flush(self) -> None:
        """Write to the index which chunks were found in their packs, and where they are now."""
        self._index.add_chunks(self._verified.values())
        self._verified = {}
        self._index.add_extents(self._extents)
        self._extents = []

    # --- files listed in the log -----------------------------------------------------------------
    async def files(self, builds: Iterable[Build]) -> None:
        """Fill files whose chunks the log lists itself."""
        wanted: list[Wanted] = []
        for build in builds:
            version = build.task.node.version
            assert version is not None
            offset = 0
            for piece in to_pieces(build.task.entry.chunks, version.packs):
                wanted.append(Wanted(build, offset, piece))
                offset += piece.plain
            build.remaining = len(build.task.entry.chunks)
            if build.is_long:
                await self._prepare(build)
        await self.fill(wanted)

    async def _prepare(self, build: Build) -> None:
        try:
            await self._hands.run(prepare_long, build)
        except OSError as error:
            self._fail(build, disk_problem(error))

    # --- files listed by recipes -----------------------------------------------------------------
    async def recipes(self, builds: Iterable[Build]) -> None:
        """Fill files whose chunks a recipe lists, a few segments at a time."""
        units: list[Unit] = []
        for build in builds:
            recipe, version = build.task.entry.recipe, build.task.node.version
            assert recipe is not None
            assert version is not None
            build.remaining = 1  # until the last segment is read
            await self._prepare(build)
            segments = to_pieces(recipe.segments, version.packs)
            units += [Unit(build, s, s is segments[-1]) for s in segments]
        digests: dict[Build, Digest] = {}
        offsets: dict[Build, int] = {}
        for start in range(0, len(units), SEGMENTS_AT_ONCE):
            await self._units(units[start : start + SEGMENTS_AT_ONCE], offsets, digests)

    async def _units(
        self, units: Sequence[Unit], offsets: dict[Build, int], digests: dict[Build, Digest]
    ) -> None:
        lists = await self._segments([u for u in units if not u.build.problem])
        wanted: list[Wanted] = []
        for unit in units:
            build = unit.build
            if build.problem:
                continue
            pieces = lists.get(unit.segment.hash)
            if pieces is None:
                self._fail(build, MISSING)
                continue
            offset, digest = offsets.get(build, 0), digests.setdefault(build, Digest())
            for piece in pieces:
                wanted.append(Wanted(build, offset, piece))
                digest.add(piece.hash)
                offset += piece.plain
            offsets[build] = offset
            build.remaining += len(pieces) - unit.is_last
            end = (offset, b"f" + digest.value())
            if unit.is_last and end != (build.task.entry.size, build.task.identity):
                self._fail(build, "recipe that does not add up")
        await self.fill([one for one in wanted if not one.build.problem])

    async def _segments(self, units: Sequence[Unit]) -> dict[bytes, tuple[Piece, ...]]:
        """Chunk lists by the hash of their segment; what cannot be had is left out."""
        by_pack: dict[bytes, dict[bytes, Piece]] = {}
        for unit in units:
            by_pack.setdefault(unit.segment.pack, {})[unit.segment.hash] = unit.segment
        lists: dict[bytes, tuple[Piece, ...]] = {}
        async with _closing(self._source.get_bulk(list(by_pack))) as payloads:
            async for blob, payload in payloads:
                for segment in by_pack.get(blob, {}).values():
                    try:
                        lists[segment.hash] = read_segment(decode(segment, payload))
                    except PeerFault:
                        continue
        return lists

    # --- chunks ----------------------------------------------------------------------------------
    async def fill(self, wanted: list[Wanted]) -> None:
        """Bring every wanted chunk to where it belongs, wherever it is found."""
        wanted = await self._present(wanted)
        if self._index.has_extents():
            wanted = await self._local(wanted)
        packs: dict[bytes, list[Wanted]] = {}
        for one in wanted:
            packs.setdefault(one.piece.pack, []).append(one)
        for chunks in packs.values():
            chunks.sort(key=lambda one: (one.piece.offset, one.piece.hash))
        await self._fetch(packs)

    async def _present(self, wanted: list[Wanted]) -> list[Wanted]:
        """Count what an earlier try wrote; the rest."""
        old: dict[Build, list[Wanted]] = {}
        for one in wanted:
            if not one.build.fresh:
                old.setdefault(one.build, []).append(one)
        if not old:
            return wanted
        here: set[int] = set()
        for build, chunks in old.items():
            for start in range(0, len(chunks), _VERIFY_AT_ONCE):
                group = chunks[start : start + _VERIFY_AT_ONCE]
                for one in await self._hands.run(chunks_present, build, group):
                    here.add(id(one))
                    await self._count(Written(one))
        return [one for one in wanted if id(one) not in here]

    async def _local(self, wanted: list[Wanted]) -> list[Wanted]:
        """Copy chunks that other files of this disk hold; the rest."""
        known = self._index.extents([one.piece.hash for one in wanted if one.build.is_long])
        rest: list[Wanted] = []
        for one in wanted:
            found = known.get(one.piece.hash) if one.build.is_long else None
            if found is not None and await self._hands.run(copy_chunk, one, *found):
                await self._count(Written(one))
            else:
                rest.append(one)
        return rest

    async def _fetch(self, packs: dict[bytes, list[Wanted]]) -> None:
        slots = asyncio.Semaphore(self._hands.count + 1)
        tasks: set[asyncio.Task[None]] = set()
        asked = list(packs)
        try:
            async with _closing(self._source.get_bulk(asked)) as payloads:
                async for blob, payload in payloads:
                    chunks = packs.pop(blob, None)
                    if chunks is None:
                        continue
                    self.packs += 1
                    await slots.acquire()
                    task = asyncio.create_task(self._pack(payload, chunks))
                    tasks.add(task)
                    task.add_done_callback(lambda _task: slots.release())
                    _reap(tasks)
                    await self._checkpoint()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for blob, chunks in packs.items():
            self.missing.add(blob)
            for one in chunks:
                self._fail(one.build, MISSING)

    async def _pack(self, payload: bytes, chunks: list[Wanted]) -> None:
        written = await self._hands.run(_write_pack, self._make_placer, payload, chunks)
        for one in written:
            if not one.problem:
                self._verified[one.wanted.piece.hash] = one.wanted.piece
            await self._count(one)
        if len(self._verified) > _VERIFIED_MAX:
            self.flush()

    async def _count(self, written: Written) -> None:
        """One chunk is there, or will never be."""
        wanted = written.wanted
        build = wanted.build
        if written.problem:
            self._fail(build, written.problem)
            return
        self._on_bytes(wanted.piece.plain)
        build.remaining -= 1
        if not build.is_long:
            self._on_done(build, written.placed)
            return
        task, piece = build.task, wanted.piece
        self._extents.append((task.staged, wanted.offset, piece.hash, piece.plain))
        if build.remaining == 0 and not build.problem:
            self.flush()
            try:
                placed = await self._hands.run(_finish, self._make_placer, build)
            except OSError as error:
                self._fail(build, disk_problem(error))
                return
            self._on_done(build, placed)

    def _fail(self, build: Build, problem: str) -> None:
        if not build.problem:
            build.problem = problem
            self._on_done(build, Placed(build.task.path, problem=problem))


@asynccontextmanager
async def _closing(payloads: Payloads) -> AsyncIterator[Payloads]:
    """A source that is a generator stops fetching ahead when we stop, not when it is collected."""
    try:
        yield payloads
    finally:
        if isinstance(payloads, AsyncGenerator):
            await payloads.aclose()


def _write_pack(
    hand: Hand, make_placer: Callable[[Hand], Placer], payload: bytes, chunks: list[Wanted]
) -> list[Written]:
    return write_pack(hand, make_placer(hand), payload, chunks)


def _finish(hand: Hand, make_placer: Callable[[Hand], Placer], build: Build) -> Placed | None:
    return finish_long(hand, make_placer(hand), build)


def _reap(tasks: set[asyncio.Task[None]]) -> None:
    """Forget tasks that are done; raise what one of them raised."""
    for task in [task for task in tasks if task.done()]:
        tasks.discard(task)
        task.result()
