"""Keeping one directory in step with its group: read the log, write what changed here, apply.

Local changes are recorded before anything from elsewhere is applied, so nothing of a person's own
is ever in the way. Without a server the first half still runs: changes wait in the outbox.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from holdfast.crypto.pure import base32
from holdfast.device.folder.apply import Applied
from holdfast.device.folder.folder import Folder
from holdfast.device.folder.ports import OnProgress, Progress, no_progress
from holdfast.device.folder.snapshot import Snapshot
from holdfast.device.group import Group
from holdfast.errors import OperationFault
from holdfast.fabric.outbox import count_stages
from holdfast.fabric.puller import Reading
from holdfast.logic.group.folder import File
from holdfast.logic.group.operation import Kind
from holdfast.rim.clock import Clock
from holdfast.rim.notify import TreeWatch


class Synced(msgspec.Struct):
    """What one cycle did. `offline` says why nothing could be read or fetched, if so."""

    operations: int = 0
    changes: int = 0
    """Names whose change was recorded."""
    packs: int = 0
    packed_bytes: int = 0
    taken: int = 0
    """Operations of others that came in."""
    files: int = 0
    content_bytes: int = 0
    directories: int = 0
    links: int = 0
    removed: int = 0
    kept: list[str] = []
    """Local work that was in the way of something and is kept under another name."""
    skipped: list[str] = []
    busy: int = 0
    """Names that could not be read now; they are looked at again."""
    problems: list[str] = []
    missing: int = 0
    """Packs that no server had."""
    offline: str = ""

    @property
    def quiet(self) -> bool:
        """Whether nothing moved in either direction."""
        moved = self.operations + self.taken + self.files + self.directories + self.links
        return moved + self.removed + len(self.problems) + self.missing == 0


class Figures(msgspec.Struct):
    """One folder in numbers, as `folder status` shows it."""

    name: str
    group: str
    path: str
    files: int = 0
    bytes: int = 0
    members: int = 0
    operations: int = 0
    queued: int = 0
    stored: int = 0
    replicated: int = 0
    queued_bytes: int = 0
    stored_bytes: int = 0
    replicated_bytes: int = 0
    caught_up: bool = False
    unwitnessed: bool = True
    record_refused: str = ""
    """Why the newest slot record is not followed (D4), if it is not."""
    gaps: int = 0
    unread: int = 0
    update_needed: bool = False
    shut_out: bool = False
    """This device was removed from the group, as far as it has heard."""
    failing: list[str] = []
    """Servers of its slot that do not answer."""
    liars: list[str] = []
    """What servers of its slot were caught at in the matter of this folder, a sentence each."""
    synced_at: float = 0.0
    last: Synced | None = None


class FolderSync:
    """One shared directory of this device."""

    def __init__(self, group: Group, path: Path, index: Path, device: bytes, clock: Clock) -> None:
        self.group = group
        self.path = path
        self.folder = Folder(path, index, device)
        self.synced_at = 0.0
        self.last: Synced | None = None
        self.offline = ""
        """Why the last reading of servers came to nothing, if it did."""
        self._clock = clock
        self._lock = asyncio.Lock()

    def close(self) -> None:
        """Wait for threads, close files."""
        self.folder.close()

    async def sync(
        self,
        on_progress: OnProgress = no_progress,
        *,
        read: bool = True,
        everywhere: bool = False,
        ear: TreeWatch | None = None,
    ) -> Synced:
        """One cycle; without `read`, on the log as it was read before. With an `ear`, only what it
        heard of is looked at on the disk, where that is enough.

        Raises OperationFault when the directory itself cannot be worked with.
        """
        async with self._lock:
            done = Synced()
            if read:
                done.taken = await self.read(everywhere=everywhere)
            done.offline = self.offline
            snapshot = await self._write(done, on_progress, ear)
            await self._apply(done, snapshot, on_progress)
            self.synced_at, self.last = self._clock.wall(), done
            return done

    async def read(self, *, everywhere: bool = False) -> int:
        """Read what is new, beside whatever cycle runs; how many operations came in."""
        try:
            reading: Reading = await self.group.read(everywhere=everywhere)
        except OperationFault as fault:
            self.offline = str(fault)
            return 0
        self.offline = ""
        return reading.taken

    async def _write(
        self, done: Synced, on_progress: OnProgress, ear: TreeWatch | None
    ) -> Snapshot:
        """Record what changed here."""
        found = await self.folder.scan(int(self._clock.wall() * 1e9), on_progress, ear)
        state = self.group.log.state
        snapshot = self.folder.snapshot(found, state, self.group.packs, on_progress)
        async for draft in snapshot.drafts():
            operation = await self.group.write(Kind.FOLDER, draft.entries)
            await asyncio.to_thread(self.folder.confirm, draft, operation)
            done.operations += 1
            done.changes += draft.changes
        done.busy = len(snapshot.busy)
        if ear is not None and snapshot.busy:
            ear.put_back(None)
        done.packs, done.packed_bytes = snapshot.stored
        skipped = [*found.skipped, *snapshot.skipped]
        done.skipped = [f"{os.fsdecode(path)}: {reason}" for path, reason in skipped]
        return snapshot

    async def _apply(self, done: Synced, snapshot: Snapshot, on_progress: OnProgress) -> None:
        """Put in place what changed elsewhere."""
        try:
            applied: Applied = await self.folder.apply(
                self.group.log.state, self.group.packs, snapshot, on_progress
            )
        except OperationFault as fault:
            if not fault.retryable or not self._servers_silent():
                raise
            done.offline = str(fault)
            return
        done.files, done.content_bytes = applied.files, applied.content_bytes
        done.directories, done.links = applied.directories, applied.links
        done.removed, done.missing = applied.removed, len(applied.missing)
        done.kept = [os.fsdecode(kept) for _, kept in applied.kept]
        done.problems = [f"{os.fsdecode(path)}: {why}" for path, why in applied.problems]
        on_progress(Progress("done"))

    def _servers_silent(self) -> bool:
        return not self.group.slot.roster.ready()

    def figures(self) -> Figures:
        """Where this folder stands now."""
        group, roster = self.group, self.group.slot.roster
        store, state = group.slot.store, group.log.state
        counts = count_stages(store.database, [era.tag for era in group.eras])
        versions = [node.version for node in state.tree().values() if node.version is not None]
        files = [v.entry for v in versions if isinstance(v.entry, File)]
        return Figures(
            name=group.name,
            group=base32(group.id),
            path=str(self.path),
            files=len(files),
            bytes=sum(entry.size for entry in files),
            members=len(state.members),
            operations=len(group.log),
            queued=counts.queued,
            stored=counts.stored,
            replicated=counts.replicated,
            queued_bytes=counts.queued_bytes,
            stored_bytes=counts.stored_bytes,
            replicated_bytes=counts.replicated_bytes,
            caught_up=group.caught_up,
            unwitnessed=roster.unwitnessed,
            record_refused=str(roster.refused or ""),
            gaps=len(state.dag.gaps()),
            unread=sum(len(store.readings.unread(era.tag)) for era in group.eras),
            update_needed=bool(state.update_needed()),
            shut_out=group.shut_out,
            failing=sorted(roster.health.failing()),
            liars=[f.text for era in group.eras for f in store.findings.all(era.tag)],
            synced_at=self.synced_at,
            last=self.last,
        )
