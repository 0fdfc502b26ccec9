"""Carrying out a plan: the directory on disk becomes what the log shows.

1. what is about to be put in place is noted, durably (`placing`);
2. content that other names of this folder hold is staged: linked where its name goes away, copied
   otherwise; nothing has been touched yet, so nothing can be missing;
3. what is in the way goes, directories are made, staged files are placed;
4. everything else is fetched, pack by pack, and placed as it comes;
5. permissions, times, removals, directories' own permissions;
6. one sync, and only then the index says that the names are in step.

A kill between any two steps leaves a directory that the next scan understands: placed files are
found to be what the log shows, staged ones are used or thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from holdfast.device.folder import names
from holdfast.device.folder.build import (
    FATAL,
    Build,
    copy_whole,
    disk_problem,
    link_whole,
    write_whole,
)
from holdfast.device.folder.hands import Hand, Hands
from holdfast.device.folder.index import FILE, RACY, FolderIndex, Placing, Row, row_of
from holdfast.device.folder.place import Placed, Placer
from holdfast.device.folder.plan import FileTask, Plan, doomed
from holdfast.device.folder.ports import BlobSource, OnProgress, Progress, no_progress
from holdfast.device.folder.restore import Restorer
from holdfast.errors import OperationFault
from holdfast.logic.group.folder import Node, identity

T = TypeVar("T")
_FLUSH_FILES = 65_536
_FLUSH_BYTES = 4 * 1024**3
_BATCH = 512


class Applied(msgspec.Struct):
    """What came of a plan. A name is in `problems` when it is not as the log shows it."""

    files: int = 0
    content_bytes: int = 0
    directories: int = 0
    links: int = 0
    removed: int = 0
    packs: int = 0
    kept: list[tuple[bytes, bytes]] = []
    """(path, conflict name) of local work that was in the way and is kept."""
    problems: list[tuple[bytes, str]] = []
    missing: set[bytes] = set()
    """Packs that no server had."""


class Apply:
    """One plan, carried out once. `label` names this device in conflict names."""

    def __init__(
        self,
        plan: Plan,
        rows: dict[bytes, Row],
        index: FolderIndex,
        hands: Hands,
        source: BlobSource,
        label: str,
        on_progress: OnProgress = no_progress,
    ) -> None:
        self._plan = plan
        self._rows = rows
        self._index = index
        self._hands = hands
        self._label = label
        self._on_progress = on_progress
        self._linked: set[bytes] = set()
        self._opened: dict[bytes, int] = {}
        self._begun: set[bytes] = set()
        self._staged: list[FileTask] = []
        self._moved: set[bytes] = set()
        self._leftovers: set[bytes] = set()
        self._done: list[Row] = []
        self._gone: list[bytes] = []
        self._bytes = self._synced_bytes = 0
        self._total_bytes = plan.bytes()
        self.result = Applied(kept=[], problems=[], missing=set())
        self._restorer = Restorer(
            index,
            hands,
            source,
            self._placer,
            self._on_build,
            self._on_bytes,
            self._checkpoint,
        )

    def _placer(self, hand: Hand) -> Placer:
        return Placer(hand.disk, self._label, self._linked, self._opened)

    async def run(self) -> Applied:
        """Carry the plan out. Raises OperationFault when the disk or the network gives up; what is
        in place by then stays, and the next plan is shorter."""
        try:
            try:
                await self._run()
            except OperationFault:
                await self._flush()
                raise
        except OSError as error:
            raise OperationFault(
                f"the folder's disk gave up: {error.strerror or error}",
                retryable=error.errno not in FATAL,
            ) from error
        finally:
            self.result.packs = self._restorer.packs
            self.result.missing = self._restorer.missing
        return self.result

    async def _run(self) -> None:
        plan = self._plan
        self._hands.forget()
        if plan.files or plan.links:
            await self._prepare()
        if self._rows:
            await self._stage_local()
        await self._each(self._remove, ((row.path, row) for row in plan.in_the_way))
        self._hands.forget()
        await self._each(self._make_directory, ((node.path, node) for node in plan.directories))
        await self._each(self._place_staged, ((task.path, task) for task in self._staged))
        await self._each(
            self._place_link,
            ((node.path, (n, node, row)) for n, (node, row) in enumerate(plan.links)),
        )
        await self._fetch()
        await self._each(self._settle, ((node.path, (node, row)) for node, row in plan.modes))
        await self._each(self._remove, ((row.path, row) for row in plan.removals))
        await self._finish_directories()
        await self._flush()
        self._report("done")

    # --- 1, 2: staging ---------------------------------------------------------------------------
    async def _prepare(self) -> None:
        self._index.set_placing(
            Placing(t.path, t.identity, t.entry.mtime_ns) for t in self._plan.files
        )
        self._index.forget_staged()
        wanted = {task.staged for task in self._plan.files if task.is_long}
        self._leftovers = await self._hands.run(names.open_staging, self._placer, wanted)

    async def _stage_local(self) -> None:
        """Stage what this disk holds under other names, and long files whose chunks it may hold:
        once something is placed, a source may be gone."""
        if not self._plan.files:
            return
        sources = {row.identity: row for row in self._rows.values() if row.kind == FILE}
        movable = {row.identity: row for row in doomed(self._plan)}
        long: list[FileTask] = []
        for task in self._plan.files:
            source = sources.get(task.identity)
            if task.staged in self._leftovers:
                long.append(task)
            elif task.entry.size and source and await self._take(task, source, movable):
                self._staged.append(task)
                self._begun.add(task.path)
                self._on_bytes(task.entry.size)
            elif task.is_long and self._may_hold_chunks(task):
                long.append(task)
        await self._fill([self._build(task, held=True) for task in long])

    def _may_hold_chunks(self, task: FileTask) -> bool:
        """Whether other files here have chunks of this one; those of a recipe are not known yet."""
        hashes = [chunk.hash for chunk in task.entry.chunks]
        return task.entry.recipe is not None or bool(self._index.extents(hashes))

    async def _take(self, task: FileTask, source: Row, movable: dict[bytes, Row]) -> bool:
        mover = movable.pop(task.identity, None)
        if mover is not None and await self._hands.run(link_whole, task, mover):
            self._linked.add(mover.path)
            self._moved.add(task.staged)
        elif not await self._hands.run(copy_whole, task, source):
            return False
        if task.is_long:
            self._index.copy_extents(source.path, task.staged)
        return True

    # --- 3: room, directories, what is staged ----------------------------------------------------
    def _make_directory(self, hand: Hand, node: Node) -> None:
        made = self._placer(hand).make_directory(node.path, names.directory_mode(node))
        self._note(made)
        self.result.directories += made.stat is not None

    def _place_staged(self, hand: Hand, task: FileTask) -> None:
        self._placed_file(task, self._placer(hand).place(task.staged, task.path, task.row))

    def _place_link(self, hand: Hand, item: tuple[int, Node, Row | None]) -> None:
        number, node, row = item
        placed = names.place_link(hand.disk, self._placer(hand), node, row, number)
        self._note(placed)
        if placed.stat is not None:
            assert node.version is not None
            same = identity(node.version.entry)
            self._done.append(row_of(node.path, placed.stat, same, node.version.id, node.logical))
            self.result.links += 1

    # --- 4: content ------------------------------------------------------------------------------
    async def _fetch(self) -> None:
        tasks = [task for task in self._plan.files if task.path not in self._begun]
        empty = [self._build(task) for task in tasks if not task.entry.size]
        await self._each(self._write_empty, ((build.task.path, build) for build in empty))
        await self._fill([self._build(task) for task in tasks if task.entry.size])

    async def _fill(self, builds: list[Build]) -> None:
        self._begun.update(build.task.path for build in builds)
        await self._restorer.files(b for b in builds if b.task.entry.recipe is None)
        await self._restorer.recipes(b for b in builds if b.task.entry.recipe is not None)

    def _build(self, task: FileTask, *, held: bool = False) -> Build:
        return Build(task, 0, held=held, fresh=task.staged not in self._leftovers)

    def _write_empty(self, hand: Hand, build: Build) -> None:
        self._on_build(build, write_whole(hand, self._placer(hand), build, b""))

    def _on_build(self, build: Build, placed: Placed | None) -> None:
        if placed is None:
            self._staged.append(build.task)
        else:
            self._placed_file(build.task, placed)

    def _on_bytes(self, count: int) -> None:
        self._bytes += count
        self._report("fetch")

    # --- 5: the rest -----------------------------------------------------------------------------
    def _settle(self, hand: Hand, pair: tuple[Node, Row]) -> None:
        node, row = pair
        new = names.settle(hand.disk, node, row)
        if new is None:
            self._problem(row.path, "changed here since the last scan")
        else:
            self._done.append(new)

    def _remove(self, hand: Hand, row: Row) -> None:
        removed = self._placer(hand).remove(row)
        if removed.problem:
            self._problem(row.path, removed.problem)
        else:
            self._gone.append(row.path)
            self.result.removed += 1

    async def _finish_directories(self) -> None:
        """Directories were writable while they were filled; now they get their own permissions."""
        wanted: dict[bytes, tuple[int, Node | None]] = {
            path: (mode, None) for path, mode in self._opened.items()
        }
        for node in self._plan.directories:
            wanted[node.path] = names.directory_mode(node), node
        deepest_first = ((path, (path, *wanted[path])) for path in sorted(wanted, reverse=True))
        await self._each(self._finish_directory, deepest_first)
        keep = bool(self._plan.files or self._plan.links)
        await self._hands.run(names.close_staging, keep_files=keep)

    def _finish_directory(self, hand: Hand, item: tuple[bytes, int, Node | None]) -> None:
        path, mode, node = item
        found = names.finish_directory(hand.disk, path, mode)
        if found is not None and node is not None:
            version = node.version.id if node.version else None
            self._done.append(row_of(path, found, b"d", version, node.logical))

    # --- 6: bookkeeping --------------------------------------------------------------------------
    async def _checkpoint(self) -> None:
        """A very long apply is synced in parts, so that a kill costs less reading."""
        if len(self._done) > _FLUSH_FILES or self._bytes - self._synced_bytes > _FLUSH_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        """Sync once, then say so."""
        self._restorer.flush()
        self._report("sync")
        done, gone = self._done, self._gone
        self._done, self._gone, self._synced_bytes = [], [], self._bytes
        if done or gone:
            await self._hands.run(names.sync)
            self._index.update(done, gone)

    def _placed_file(self, task: FileTask, placed: Placed) -> None:
        self._note(placed)
        stat = placed.stat
        if stat is None:
            return
        version = task.node.version
        assert version is not None
        if task.is_long:
            self._index.move_extents(task.staged, task.path)
        if task.staged in self._moved:
            stat = msgspec.structs.replace(stat, ctime_ns=RACY)
        self.result.files += 1
        self.result.content_bytes += task.entry.size
        self._done.append(row_of(task.path, stat, task.identity, version.id, task.node.logical))

    def _note(self, placed: Placed) -> None:
        if placed.aside:
            self.result.kept.append((placed.path, placed.aside))
        if placed.problem:
            self._problem(placed.path, placed.problem)

    def _problem(self, path: bytes, problem: str) -> None:
        self.result.problems.append((path, problem))

    async def _each(
        self, work: Callable[[Hand, T], None], items: Iterable[tuple[bytes, T]]
    ) -> None:
        """`work` for each (path, item), some at a time; an error is that path's problem, unless it
        is the whole disk's."""
        rest: Iterator[tuple[bytes, T]] = iter(items)
        while batch := list(islice(rest, _BATCH)):
            await self._hands.run(self._some, work, batch)
            self._report("place")

    def _some(
        self, hand: Hand, work: Callable[[Hand, T], None], batch: list[tuple[bytes, T]]
    ) -> None:
        for path, item in batch:
            try:
                work(hand, item)
            except OSError as error:
                self._problem(path, disk_problem(error))

    def _report(self, phase: str) -> None:
        files = len(self._plan.files)
        self._on_progress(Progress(phase, self.result.files, files, self._bytes, self._total_bytes))
