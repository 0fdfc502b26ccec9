"""The front door of the folder engine: one directory in step with one group's log.

A cycle, run whenever something may have changed here or elsewhere:

    scan = await folder.scan(now_ns)
    snapshot = folder.snapshot(scan, state, sink)
    async for draft in snapshot.drafts():
        ...sign an operation with draft.entries, store it, fold it into state...
        folder.confirm(draft, operation_id)
    applied = await folder.apply(state, source, snapshot)

Everything may be killed between any two lines, or within them, and begun again with a scan.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.device.folder.apply import Applied, Apply
from holdfast.device.folder.decide import Decider
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.hands import Hands
from holdfast.device.folder.index import FolderIndex
from holdfast.device.folder.marker import MARKER_BYTES, read_marker, write_marker
from holdfast.device.folder.plan import Plan, make_plan
from holdfast.device.folder.ports import BlobSink, BlobSource, OnProgress, Progress, no_progress
from holdfast.device.folder.scan import Scan, scan, scan_some
from holdfast.device.folder.snapshot import Draft, Snapshot
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.group.folder import Tree
from holdfast.logic.group.paths import STAGING_NAME
from holdfast.logic.group.reducer import GroupState
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.notify import TreeWatch

_TOP = "top inode"
_MARKER = "marker"


class Folder:
    """A shared directory on this device.

    `index` is the path of its SQLite file in the device's state directory; `device` is this
    device's public key. Raises UsageError when `top` is no directory, or holds the state directory.
    """

    def __init__(
        self,
        top: Path | str,
        index: Path,
        device: bytes,
        make_disk: Callable[[bytes], Disk] = Disk,
        entropy: Entropy | None = None,
    ) -> None:
        self.top = os.path.realpath(os.fsencode(top))
        if not os.path.isdir(self.top):
            raise UsageError(f"{os.fsdecode(self.top)} is not a directory: make it, then try again")
        state = os.path.realpath(os.fsencode(index.parent))
        if os.path.commonpath([self.top, state]) == self.top:
            raise UsageError(
                f"{os.fsdecode(self.top)} holds this device's own state, keys and all: share a "
                "directory inside it, or move the state elsewhere"
            )
        self._device = device
        self._index = FolderIndex(index)
        self._make_disk = make_disk
        self._entropy = entropy or SystemEntropy()
        self._hands = Hands(lambda: make_disk(self.top))
        self._shown: Tree | None = None
        """The tree that the directory was last made to show in full."""
        self._in_doubt: set[bytes] = set()
        """Names that changed here since."""

    def close(self) -> None:
        """Wait for threads, close files."""
        self._hands.close()
        self._index.close()

    # --- from the disk to the log ----------------------------------------------------------------
    async def scan(
        self, now_ns: int, on_progress: OnProgress = no_progress, ear: TreeWatch | None = None
    ) -> Scan:
        """What may have changed here. `now_ns` is Unix time in nanoseconds. With an `ear`, only
        directories in which it heard something are looked at, where that is enough.

        Raises OperationFault when the directory is not there, or is not the one that was shared:
        an unmounted disk must not read as everything deleted.
        """
        loop = asyncio.get_running_loop()

        def on_names(count: int) -> None:
            loop.call_soon_threadsafe(on_progress, Progress("scan", count))

        changed = ear.take() if ear is not None else None
        try:
            return await asyncio.to_thread(self._scan, now_ns, on_names, ear, changed)
        except BaseException:
            if ear is not None:
                ear.put_back(None)
            raise

    def _scan(
        self,
        now_ns: int,
        on_names: Callable[[int], None],
        ear: TreeWatch | None,
        changed: set[bytes] | None,
    ) -> Scan:
        try:
            disk = self._make_disk(self.top)
            try:
                self._check_top(disk)
                if ear is not None and changed is not None:
                    some = scan_some(disk, self._index.below, now_ns, changed, ear)
                    if some is not None:
                        self._check_marker(disk, some)
                        return some
                mounts = self._index.mounts()
                found = scan(disk, self._index.rows(), now_ns, on_names, mounts, ear)
                self._check_marker(disk, found)
                if found.mounts != mounts:
                    self._index.set_mounts(found.mounts)
                return found
            finally:
                disk.close()
        except OSError as error:
            where = os.fsdecode(self.top)
            raise OperationFault(f"cannot read {where}: {error.strerror}") from error

    def _check_top(self, disk: Disk) -> None:
        inode = disk.stat_top().st_ino & (2**63 - 1)
        known = self._index.meta(_TOP)
        if known is None:
            self._index.set_meta(_TOP, inode)
        elif known != inode:
            raise self._is_another()

    def _is_another(self) -> OperationFault:
        return OperationFault(
            f"{os.fsdecode(self.top)} is not the directory that was shared (is its disk "
            "mounted?); if it was moved or restored on purpose: holdfast folder moved NAME DIR",
            retryable=False,
        )

    def _check_marker(self, disk: Disk, found: Scan) -> None:
        """Nothing is taken for deleted where the marker is not ours. One that is gone while all
        else is there is made again; where none can be made, deletions wait."""
        known: bytes = self._index.meta(_MARKER) or b""
        there = read_marker(disk)
        if there is not None and there == known:
            return
        if known and (there is not None or found.missing or found.busy):
            raise self._is_another()
        marker = there or known or self._entropy.bytes(MARKER_BYTES)
        try:
            if there is None:
                write_marker(disk, marker)
        except OSError as error:
            found.busy.update(row.path for row in found.missing)
            found.missing = []
            reason = f"no deletion is seen without a marker: {error.strerror}"
            found.skipped.append((STAGING_NAME, reason))
            return
        self._index.set_meta(_MARKER, marker)

    def accept_top(self) -> None:
        """The directory was replaced on purpose (a restored backup): take the one that is there."""
        disk = self._make_disk(self.top)
        try:
            self._index.set_meta(_TOP, disk.stat_top().st_ino & (2**63 - 1))
            self._index.set_meta(_MARKER, b"")
            self._index.set_mounts(None)
        finally:
            disk.close()

    def snapshot(
        self,
        found: Scan,
        state: GroupState,
        sink: BlobSink,
        on_progress: OnProgress = no_progress,
    ) -> Snapshot:
        """A pass that turns what a scan found into drafts of operations."""
        self._in_doubt |= found.touched()
        decider = Decider(state.folder, state.tree(), self._device, found.now_ns)
        return Snapshot(found, decider, self._index, self._hands, sink, on_progress)

    def confirm(self, draft: Draft, operation: bytes) -> None:
        """The draft is recorded as `operation`, durably: its names are in step now."""
        rows = [
            msgspec.structs.replace(row, operation=operation, entry=entry)
            for entry, row in draft.rows
        ]
        self._index.update(rows, draft.gone)

    # --- from the log to the disk ----------------------------------------------------------------
    def plan(self, state: GroupState, snapshot: Snapshot | None = None) -> Plan:
        """What `apply` would do."""
        busy = snapshot.busy if snapshot is not None else ()
        return make_plan(self._index.rows(), state.tree(), busy)

    async def apply(
        self,
        state: GroupState,
        source: BlobSource,
        snapshot: Snapshot | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Applied:
        """Make the directory show what the log says. `snapshot` is the one just finished: what it
        could not read is left alone. Raises OperationFault."""
        rows, tree = self._index.rows(), state.tree()
        busy = snapshot.busy if snapshot is not None else ()
        plan = make_plan(rows, tree, busy, self._differing(tree))
        self._shown = None
        label = state.members.label(self._device)
        work = Apply(plan, rows, self._index, self._hands, source, label, on_progress)
        applied = await work.run()
        if not (busy or applied.problems or applied.missing):
            self._shown, self._in_doubt = tree, set()
        return applied

    def _differing(self, tree: Tree) -> set[bytes] | None:
        """Names that may differ between disk and `tree`: those that changed here, and those whose
        node is another than when all was in step. None when it is not known that all was."""
        shown = self._shown
        if shown is None:
            return None
        differing = {path for path, node in tree.items() if shown.get(path) is not node}
        if len(tree) - len(differing) < len(shown):
            differing.update(shown.keys() - tree.keys())
        return differing | self._in_doubt
