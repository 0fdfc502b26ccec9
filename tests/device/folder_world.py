"""Devices with folders and a pool in memory: real sealing, real signatures, real disks."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from holdfast.crypto.blob import PAYLOAD_BYTES_MAX, blob_id, seal, unseal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.device.folder.apply import Applied
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.folder import Folder
from holdfast.device.folder.scan import Scan
from holdfast.device.folder.snapshot import Snapshot
from holdfast.errors import OperationFault
from holdfast.limits import OPERATION_BYTES_MAX
from holdfast.logic.group.members import Added, Genesis, MemberEntries
from holdfast.logic.group.operation import (
    Kind,
    Operation,
    check_operation,
    encode_entries,
    group_id,
    operation_id,
)
from holdfast.logic.group.paths import STAGING_NAME
from holdfast.logic.group.reducer import GroupState
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign, verify
from holdfast.wire.pool import BlobClass
from holdfast.wire.signed import Signed, Type

BULK = BlobClass.BULK
Shown = dict[bytes, tuple[str, int, bytes]]


class MemoryPool:
    """Sink and source: sealed blobs by id, and counts of what went through."""

    def __init__(self) -> None:
        self.era = Era(b"s" * 32, b"n" * 16)
        self.blobs: dict[bytes, bytes] = {}
        self.gets: list[bytes] = []
        self.puts = 0
        self.payload_bytes = 0
        self.lost: set[bytes] = set()
        self.fail_after: int | None = None

    async def put_bulk(self, payload: bytes) -> bytes:
        assert 0 < len(payload) <= PAYLOAD_BYTES_MAX
        if self.fail_after is not None and self.puts >= self.fail_after:
            raise OperationFault("the outbox is full")
        blob, name = await asyncio.to_thread(self._seal, payload)
        self.blobs[name] = blob
        self.puts += 1
        self.payload_bytes += len(payload)
        return name

    def _seal(self, payload: bytes) -> tuple[bytes, bytes]:
        blob = seal(self.era, BULK, payload, 20_000)
        return blob, blob_id(blob)

    async def get_bulk(self, blobs: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        for name in blobs:
            if name in self.lost or name not in self.blobs:
                continue
            self.gets.append(name)
            opened = await asyncio.to_thread(unseal, self.era, BULK, self.blobs[name])
            yield name, opened.payload


class Device:
    """One member of the group, with its folder, its own fold of the log and an index."""

    def __init__(self, base: Path, name: str, make_disk: Callable[[bytes], Disk] = Disk) -> None:
        self.name = name
        self.key = SigningKey(name.encode().ljust(32, b"."))
        self.top = base / name
        self.top.mkdir(parents=True, exist_ok=True)
        self._index = base / f"{name}.sqlite3"
        self.make_disk = make_disk
        self.folder = self._open()
        self.state = GroupState(GROUP)
        self.log: list[Signed] = []
        self.snapshot: Snapshot | None = None

    def _open(self) -> Folder:
        return Folder(self.top, self._index, self.key.public, self.make_disk)

    def restart(self, make_disk: Callable[[bytes], Disk] = Disk) -> None:
        """As after a kill: everything in memory is gone but the log, which is durable."""
        self.folder.close()
        self.make_disk = make_disk
        self.folder = self._open()
        log, self.log, self.state = self.log, [], GroupState(GROUP)
        self.receive(log)

    def write(self, kind: str, entries: bytes) -> bytes:
        """Sign, fold and log one operation."""
        body = Operation(GROUP, self.key.public, self.state.dag.parents(), kind, 1, entries)
        signed = sign(self.key, Type.OPERATION, body)
        assert len(pack(signed)) <= OPERATION_BYTES_MAX
        return self.receive([signed])

    def receive(self, log: Sequence[Signed]) -> bytes:
        """Verify and fold operations, own or others'."""
        name = b""
        for signed in log:
            name = operation_id(signed.body, signed.signer, signed.signature)
            if name in self.state.dag:
                continue
            body = verify(Type.OPERATION, Operation, signed)
            check_operation(body, GROUP, signed.signer)
            self.state.add(name, body)
            self.log.append(signed)
        return name

    async def scan(self) -> Scan:
        return await self.folder.scan(time.time_ns())

    async def commit(self, pool: MemoryPool) -> Snapshot:
        """Everything that changed here becomes operations."""
        snapshot = self.folder.snapshot(await self.scan(), self.state, pool)
        async for draft in snapshot.drafts():
            self.folder.confirm(draft, self.write(Kind.FOLDER, draft.entries))
        self.snapshot = snapshot
        return snapshot

    async def apply(self, pool: MemoryPool) -> Applied:
        """The folder shows the log."""
        return await self.folder.apply(self.state, pool, self.snapshot)

    async def sync(self, pool: MemoryPool) -> Applied:
        await self.commit(pool)
        return await self.apply(pool)

    def shown(self) -> Shown:
        return shown(self.top)

    def path(self, name: str | bytes) -> Path:
        return self.top / os.fsdecode(name)


NONCE = b"n" * 32
_FOUNDER = SigningKey(b"a".ljust(32, b"."))
GROUP = group_id(_FOUNDER.public, NONCE)


def found_group(*devices: Device) -> None:
    """The first device founds the group and adds the others."""
    first = devices[0]
    assert first.key.public == _FOUNDER.public, "the founder is called `a`"
    body = Operation(
        GROUP, first.key.public, (), Kind.GENESIS, 1, encode_entries(Genesis(NONCE, "a"))
    )
    first.receive([sign(first.key, Type.OPERATION, body)])
    for device in devices[1:]:
        added = MemberEntries((Added(device.key.public, device.name),))
        first.write(Kind.MEMBER, encode_entries(added))
    exchange(*devices)


def exchange(*devices: Device) -> None:
    """Everybody gets everybody's operations, in the worst order."""
    for one in devices:
        for other in devices:
            one.receive(list(reversed(other.log)))


def pair(base: Path) -> tuple[Device, Device]:
    a, b = Device(base, "a"), Device(base, "b")
    found_group(a, b)
    return a, b


def shown(top: Path | bytes) -> Shown:
    """Everything under `top`: kind, permissions, content or target."""
    found: Shown = {}
    root = os.fsencode(top)

    def walk(fd: int, prefix: bytes) -> None:
        for entry in list(os.scandir(fd)):
            name = os.fsencode(entry.name)
            path = prefix + name
            if path == STAGING_NAME:
                continue
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = stat.S_IMODE(info.st_mode)
            if stat.S_ISLNK(info.st_mode):
                found[path] = ("link", 0, os.readlink(name, dir_fd=fd))
            elif stat.S_ISDIR(info.st_mode):
                found[path] = ("directory", mode, b"")
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                walk(below, path + b"/")
                os.close(below)
            elif stat.S_ISREG(info.st_mode):
                handle = os.open(name, os.O_RDONLY, dir_fd=fd)
                with os.fdopen(handle, "rb") as file:
                    found[path] = ("file", mode, file.read())

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        walk(fd, b"")
    finally:
        os.close(fd)
    return found


class Killed(BaseException):
    """The process ends here."""


class KillingDisk(Disk):
    """A disk on which the process is killed just before the n-th change, and stays dead."""

    def __init__(self, top: bytes, countdown: list[int]) -> None:
        super().__init__(top)
        self._countdown = countdown

    def step(self, _name: str) -> None:
        self._countdown[0] -= 1
        if self._countdown[0] < 0:
            raise Killed


def dump(base: Path, pool: MemoryPool, device: Device) -> None:
    """Blobs and log as files, for another process."""
    (base / "blobs").mkdir()
    for name, blob in pool.blobs.items():
        (base / "blobs" / name.hex()).write_bytes(blob)
    (base / "log").write_bytes(pack(device.log))


def load(base: Path) -> tuple[MemoryPool, list[Signed]]:
    """What `dump` wrote."""
    pool = MemoryPool()
    for path in (base / "blobs").iterdir():
        pool.blobs[bytes.fromhex(path.name)] = path.read_bytes()
    return pool, list(unpack(tuple[Signed, ...], (base / "log").read_bytes(), bytes_max=2**30))
