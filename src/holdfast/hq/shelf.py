"""Where sealed snapshots are kept: a directory, and the pool's replicas (seed 004 §12.2, D5).

A shelf takes whole files and never opens them. In a directory a file is named by its time and
digest; the newest `SNAPSHOTS_KEPT` stay. In the pool a file is cut into bulk blobs of one group
that headquarters shares with nobody but whoever holds its key line; a pointer in the group's log
names them, so the newest is found by reading that log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from holdfast.crypto.blob import PAYLOAD_BYTES_MAX, unseal
from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.fabric.slot import Slot
from holdfast.limits import MIB
from holdfast.limits.continuity import SNAPSHOT_REACH_REAL_S, SNAPSHOTS_KEPT
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock
from holdfast.rim.files import make_private_directory, read_file, remove_file, write_file
from holdfast.wire.codec import pack, unpack
from holdfast.wire.pool import BlobClass
from holdfast.wire.snapshot import SNAPSHOT_VERSION, SnapshotPointer

SUFFIX: Final = ".age"


class Shelf(Protocol):
    """`name` is for people."""

    @property
    def name(self) -> str: ...

    async def put(self, sealed: bytes, made_at: int, revision: int) -> None:
        """Keep it; durable when this returns. Raises OperationFault."""
        ...


class DirectoryShelf:
    """Files in one directory: a mounted disk, a stick, a synchronised folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.name = str(directory)

    async def put(self, sealed: bytes, made_at: int, revision: int) -> None:
        make_private_directory(self._directory)
        digest = hash_bytes(sealed).hex()[:16]
        write_file(self._directory / f"hq-{made_at:012}-{revision:010}-{digest}{SUFFIX}", sealed)
        for old in self.files()[:-SNAPSHOTS_KEPT]:
            remove_file(old)

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._directory.glob(f"hq-*{SUFFIX}"))


def newest_file(where: Path) -> bytes:
    """A snapshot's file, or the newest in a directory. Raises UsageError when there is none."""
    path = where
    if where.is_dir():
        files = DirectoryShelf(where).files()
        if not files:
            raise UsageError(f"no snapshot in {where}")
        path = files[-1]
    data = read_file(path)
    if data is None:
        raise UsageError(f"no file {path}")
    return data


class PoolShelf:
    """One group of the pool. `opened` gives its slot, opened, as soon as there is one."""

    def __init__(self, opened: Callable[[], Awaitable[Slot]], era: Era, clock: Clock) -> None:
        self._opened = opened
        self._era = era
        self._clock = clock
        self.name = "pool"

    async def put(self, sealed: bytes, made_at: int, revision: int) -> None:
        slot = await self._opened()
        pieces = [
            sealed[start : start + PAYLOAD_BYTES_MAX]
            for start in range(0, len(sealed), PAYLOAD_BYTES_MAX)
        ]
        blobs = await slot.put_many(self._era, BlobClass.BULK, pieces)
        pointer = SnapshotPointer(
            version=SNAPSHOT_VERSION,
            made_at=made_at,
            revision=revision,
            file_bytes=len(sealed),
            digest=hash_bytes(sealed),
            blobs=tuple(blobs),
        )
        await slot.put(self._era, BlobClass.LOG, pack(pointer))
        try:
            async with self._clock.real_timeout(SNAPSHOT_REACH_REAL_S):
                await slot.uploader.reach(Stage.STORED, [self._era.tag])
        except TimeoutError:
            raise OperationFault("the pool has not stored the snapshot yet") from None


class _Pointers:
    """A log sink that remembers pointers."""

    def __init__(self) -> None:
        self.found: list[SnapshotPointer] = []

    def take(self, blob: bytes, payload: bytes) -> None:
        self.found.append(unpack(SnapshotPointer, payload, bytes_max=MIB))

    def missing(self) -> tuple[bytes, ...]:
        return ()

    def name_gap(self, operation: bytes) -> None:
        raise AssertionError("a pointer names no parents")


async def newest_in_pool(slot: Slot, era: Era) -> bytes:
    """The newest whole snapshot of an opened slot.

    Raises UsageError when there is none, OperationFault when no server can be asked.
    """
    sink = _Pointers()
    await slot.puller(era, sink, remember=False).read(everywhere=True)
    for pointer in sorted(sink.found, key=lambda item: (item.made_at, item.revision))[::-1]:
        sealed = await _fetch(slot, era, pointer)
        if sealed is not None:
            return sealed
    raise UsageError("no whole snapshot lies under this locator and key")


async def _fetch(slot: Slot, era: Era, pointer: SnapshotPointer) -> bytes | None:
    bodies: dict[bytes, bytes] = {}

    async def take(blob: bytes, body: bytes) -> None:
        try:
            bodies[blob] = unseal(era, BlobClass.BULK, body).payload
        except PeerFault:
            return  # it will be missing, which is what it is

    if await slot.fetch(era, pointer.blobs, take) or set(bodies) < set(pointer.blobs):
        return None
    sealed = b"".join(bodies[blob] for blob in pointer.blobs)
    return sealed if hash_bytes(sealed) == pointer.digest else None
