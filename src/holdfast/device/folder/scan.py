"""Walking a folder and comparing it with the index: what may have changed since.

A file is taken as unchanged when kind, mode, size, modification and change time and inode are those
of its row. Everything else is *seen*, to be read by the snapshot. Timestamps tick in milliseconds,
so a file changed within `RACY_NS` of the scan proves nothing by its stat: its row is written so
that the next scan reads it again (`settled`).

What cannot be read is never taken for deleted: names below an unreadable directory are *busy*, and
busy names are left alone by everybody until a scan can see them again. So are names that are gone
from below a directory where a disk was mounted, or unmounted, or another one came.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from holdfast.device.folder.disk import Disk
from holdfast.device.folder.index import DIRECTORY, FILE, LINK, RACY, Row, Stat
from holdfast.logic.group.folder import MODE_MASK
from holdfast.logic.group.paths import STAGING_NAME, path_fault

RACY_NS = 2_000_000_000
"""Coarser than the clock of any filesystem in use (FAT ticks in two seconds)."""
_REPORT_EVERY = 1_000


class Ear(Protocol):
    """Who hears of changes in directories; see `rim.notify`. Called before a directory is listed,
    so that what comes after the listing is heard."""

    def cover(self, path: bytes, fd: int, inode: int) -> None:
        """Listen to the open directory `fd`."""
        ...

    def covers(self, path: bytes, inode: int) -> bool:
        """Whether it is listened to already."""
        ...


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A name that is new or looks different from its row. `target` is a link's."""

    path: bytes
    stat: Stat
    row: Row | None
    target: bytes = b""


class Scan(msgspec.Struct):
    """What one walk found."""

    now_ns: int
    rows: dict[bytes, Row]
    """The index as it was when the walk started."""
    seen: list[Seen] = []
    missing: list[Row] = []
    """In the index and not on disk; deepest first."""
    busy: set[bytes] = set()
    """Names, or tops of subtrees, that could not be looked at."""
    skipped: list[tuple[bytes, str]] = []
    """(path, reason) of what is not shared: sockets, pipes, devices, unreadable or overlong."""
    mounts: dict[bytes, int] = {}
    """Directories of another filesystem than their parents', and its number."""
    names: int = 0
    unchanged: int = 0

    def touched(self) -> set[bytes]:
        """Names that are not as the index has them."""
        return {seen.path for seen in self.seen} | {row.path for row in self.missing}


def stat_of(info: os.stat_result) -> Stat | None:
    """None for what is neither file, directory nor link."""
    mode = info.st_mode
    if stat.S_ISREG(mode):
        kind = FILE
    elif stat.S_ISDIR(mode):
        kind = DIRECTORY
    elif stat.S_ISLNK(mode):
        kind = LINK
    else:
        return None
    return Stat(
        kind,
        mode & MODE_MASK,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_ino & (2**63 - 1),
    )


def settled(found: Stat, now_ns: int) -> Stat:
    """`found`, fit for a row: marked when it is too fresh to prove anything later."""
    if max(found.mtime_ns, found.ctime_ns) + RACY_NS < now_ns or found.kind == DIRECTORY:
        return found
    return msgspec.structs.replace(found, ctime_ns=RACY)


def matches(row: Row, found: Stat) -> bool:
    """Whether what is on disk is what the row was written for."""
    if row.kind != found.kind or (row.mode != found.mode and row.kind != LINK):
        return False
    return row.kind == DIRECTORY or (
        row.mtime_ns == found.mtime_ns
        and row.ctime_ns == found.ctime_ns
        and row.size == found.size
        and row.inode == found.inode
    )


def scan(
    disk: Disk,
    rows: dict[bytes, Row],
    now_ns: int,
    on_names: Callable[[int], None] = lambda _names: None,
    mounts: dict[bytes, int] | None = None,
    ear: Ear | None = None,
) -> Scan:
    """Walk the folder. `now_ns` is Unix time in nanoseconds; `mounts` are those of the last scan,
    None when they are not known. Raises OSError when the top itself cannot be read."""
    result = Scan(now_ns, rows, seen=[], missing=[], busy=set(), skipped=[], mounts={})
    remaining = dict(rows)
    os.scandir(disk.directory(b"")).close()
    todo = [b""]
    reported = 0
    while todo:
        directory = todo.pop()
        try:
            todo += [path for path, _ in _scan_directory(disk, directory, remaining, result, ear)]
        except (FileNotFoundError, NotADirectoryError):
            result.busy.add(directory)  # moved since its parent was read: the next scan tells
        except OSError as error:
            result.busy.add(directory)
            result.skipped.append((directory, error.strerror or "unreadable"))
        if result.names - reported >= _REPORT_EVERY:
            reported = result.names
            on_names(reported)
    if mounts is not None:
        _hold_back(result, remaining, mounts)
    if result.busy:
        remaining = {p: row for p, row in remaining.items() if not is_busy(p, result.busy)}
    result.missing = [remaining[path] for path in sorted(remaining, reverse=True)]
    return result


def scan_some(
    disk: Disk,
    below: Callable[[bytes], dict[bytes, Row]],
    now_ns: int,
    directories: Iterable[bytes],
    ear: Ear,
) -> Scan | None:
    """Look at `directories` alone, and at what stands in them that `ear` does not cover yet.
    `below` gives the rows of one directory. None where only a look at everything can tell: a
    directory is gone, another filesystem is met, something cannot be read."""
    result = Scan(now_ns, {}, seen=[], missing=[], busy=set(), skipped=[], mounts={})
    missing: list[Row] = []
    todo = list(directories)
    known = set(todo)
    while todo:
        directory = todo.pop()
        remaining = below(directory)
        try:
            found = _scan_directory(disk, directory, remaining, result, ear)
        except OSError:
            return None
        if result.mounts or result.busy or any(r.kind == DIRECTORY for r in remaining.values()):
            return None
        missing += remaining.values()
        for path, inode in found:
            if path not in known and not ear.covers(path, inode):
                known.add(path)
                todo.append(path)
    result.missing = sorted(missing, key=lambda row: row.path, reverse=True)
    return result


def _hold_back(result: Scan, remaining: dict[bytes, Row], known: dict[bytes, int]) -> None:
    """Names that went together with a mount are busy. Numbers of filesystems also change with a
    restart, so one under which everything is there is believed; and one under which something is
    there is looked at, but nothing below it is taken for deleted."""
    now = dict(result.mounts)
    lost: set[bytes] = set()
    for mount in known.keys() | now.keys():
        if known.get(mount) == now.get(mount):
            continue
        below = mount + b"/"
        gone = {path for path in remaining if path.startswith(below)}
        if not gone:
            continue
        some_left = any(p.startswith(below) and p not in gone for p in result.rows)
        if mount in known and mount in now and some_left:
            result.busy |= gone
        else:
            lost.add(mount)
        result.skipped.append((mount, "its disk was mounted, unmounted or changed"))
        result.mounts.pop(mount, None)
        if mount in known:
            result.mounts[mount] = known[mount]
    if lost:
        result.busy |= lost
        result.seen = [seen for seen in result.seen if not is_busy(seen.path, lost)]


def is_busy(path: bytes, busy: set[bytes]) -> bool:
    """Whether `path` or a directory above it is busy."""
    if not busy:
        return False
    while path not in busy:
        if not path:
            return False
        path = path.rpartition(b"/")[0]
    return True


def _scan_directory(
    disk: Disk, directory: bytes, remaining: dict[bytes, Row], result: Scan, ear: Ear | None
) -> list[tuple[bytes, int]]:
    """Compare the names of one directory; the directories among them and their inodes."""
    below: list[tuple[bytes, int]] = []
    prefix = directory + b"/" if directory else b""
    fd = disk.directory(directory)
    about = os.fstat(fd)
    filesystem = about.st_dev
    if ear is not None:
        ear.cover(directory, fd, about.st_ino)
    with os.scandir(fd) as entries:
        found = [(os.fsencode(entry.name), entry) for entry in entries]
        found.sort(key=lambda item: item[0], reverse=True)
        for name, entry in found:
            path = prefix + name
            if path == STAGING_NAME:
                continue
            result.names += 1
            row = remaining.pop(path, None)
            try:
                stat_ = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                if row is not None:
                    remaining[path] = row
                continue
            info = stat_of(stat_)
            fault = "not a file, directory or link" if info is None else path_fault(path)
            if info is None or fault:
                result.skipped.append((path, fault))
                if row is not None:
                    remaining[path] = row
                continue
            if info.kind == DIRECTORY:
                below.append((path, stat_.st_ino))
                if stat_.st_dev != filesystem:
                    result.mounts[path] = stat_.st_dev
            if row is not None and matches(row, info):
                result.unchanged += 1
            else:
                _see(disk, path, info, row, result)
    return below


def _see(disk: Disk, path: bytes, info: Stat, row: Row | None, result: Scan) -> None:
    target = b""
    if info.kind == LINK:
        try:
            target = disk.readlink(path)
        except OSError:
            result.busy.add(path)
            return
    result.seen.append(Seen(path, info, row, target))
