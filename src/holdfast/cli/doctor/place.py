"""The machine under a directory: disk, permissions, descriptors, clock."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.cli.doctor.finding import Finding, bad, note, ok
from holdfast.limits import MIB
from holdfast.limits.doctor import (
    DESCRIPTORS_MIN,
    DISK_FREE_BYTES_MIN,
    DISK_FREE_FRACTION_MIN,
    SYNC_US_MAX,
    SYNC_US_MIN,
)
from holdfast.rim.probe import DiskTruth, clock_is_kept, descriptors_of, try_disk

NOT_DURABLE = frozenset({"tmpfs", "ramfs"})
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})


async def place(directory: Path, secrets: Iterable[Path]) -> list[Finding]:
    """What can be said without anybody else."""
    truth = await asyncio.to_thread(try_disk, directory)
    return [
        *disk(directory, truth),
        *permissions(directory, secrets),
        *kernel_clock(),
    ]


def disk(directory: Path, truth: DiskTruth) -> Iterator[Finding]:
    """Room, and whether a sync syncs."""
    fraction = truth.free_bytes / truth.total_bytes if truth.total_bytes else 0.0
    free = f"{truth.free_bytes // MIB:,} MiB free ({fraction:.0%})"
    if truth.fault:
        text = f"cannot write and sync a file in {directory}: {truth.fault}"
        yield bad("disk", text, "make room, or look at the disk and its mount options")
    elif truth.free_bytes < DISK_FREE_BYTES_MIN:
        yield bad("disk", free, "make room: past the reserve every write is refused")
    elif fraction < DISK_FREE_FRACTION_MIN:
        yield note("disk", free, "make room soon: with less than a tenth no new slot comes here")
    else:
        yield ok("disk", free)
    if truth.fault:
        return
    times = f"a synced write takes {truth.sync_p50_us:,.0f} us, at most {truth.sync_max_us:,.0f}"
    if truth.kind in NOT_DURABLE:
        text = f"{directory} lies in memory ({truth.kind}) and is gone after a power cut"
        yield bad("fsync", text, "move the directory to a real disk")
    elif truth.sync_p50_us < SYNC_US_MIN:
        text = f"{times} on {truth.kind}: faster than any disk writes"
        yield bad("fsync", text, "look for nobarrier, libeatmydata or a disk that lies about sync")
    elif truth.sync_p50_us > SYNC_US_MAX:
        yield bad(
            "fsync", f"{times} on {truth.kind}", "find what keeps the disk busy, or replace it"
        )
    elif truth.kind in SHARED:
        text = f"{times} on {truth.kind}, a network filesystem"
        yield note("fsync", text, "prefer a local disk: locks and syncs are only as good as theirs")
    else:
        yield ok("fsync", f"{times} on {truth.kind}")


def permissions(directory: Path, secrets: Iterable[Path]) -> Iterator[Finding]:
    """Whether secrets are readable by their owner alone, and the owner is who looks."""
    opened = [directory, *secrets]
    loose = [path for path in opened if path.exists() and _is_loose(path)]
    foreign = [
        path for path in opened if path.exists() and path.stat().st_uid != directory.stat().st_uid
    ]
    for path in loose:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = f"{path} is open to others (mode {mode:o})"
        yield bad("permissions", text, f"chmod go= {path}; then ask who may have read it")
    for path in foreign:
        text = f"{path} belongs to another user than {directory}"
        yield bad("permissions", text, f"chown --reference={directory} {path}")
    if not loose and not foreign:
        yield ok("permissions", "secrets are readable by their owner alone")


def _is_loose(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def kernel_clock() -> Iterator[Finding]:
    """Whether somebody keeps this machine's clock."""
    if clock_is_kept():
        yield ok("ntp", "the kernel says that its clock is kept")
    else:
        text = "the kernel says that nobody keeps its clock"
        yield note("ntp", text, "install chrony or enable systemd-timesyncd")


def descriptors(pid: int) -> Iterator[Finding]:
    """Whether a serving process may open enough files; `pid` 0 is this one."""
    try:
        used, limit = descriptors_of(pid)
    except OSError as error:
        yield note("descriptors", f"cannot be seen: {error}", "look as root or as its owner")
        return
    whose = f"process {pid}" if pid else "a process started here"
    text = f"{whose} has {used} of {limit} open files"
    if limit < DESCRIPTORS_MIN:
        step = "raise it: LimitNOFILE=65536 in the unit, ulimit -Hn 65536 in a shell"
        yield bad("descriptors", f"{text}; a full house needs {DESCRIPTORS_MIN}", step)
    elif used > limit * 0.9:
        yield bad("descriptors", text, "restart it and report this: something is not closed")
    else:
        yield ok("descriptors", text)
