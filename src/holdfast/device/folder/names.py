"""The smaller jobs of an apply: the staging directory, links, permissions, directories."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from holdfast.device.folder.decide import mode_of
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.hands import Hand
from holdfast.device.folder.index import DIRECTORY, FILE, RACY, Row, Stat, row_of
from holdfast.device.folder.marker import MARKER_NAME
from holdfast.device.folder.place import Placed, Placer, is_ours, set_times
from holdfast.device.folder.plan import IMPLIED_MODE, link_target
from holdfast.device.folder.scan import stat_of
from holdfast.errors import OperationFault
from holdfast.logic.group.folder import File, Node
from holdfast.logic.group.paths import STAGING_NAME

_LINK = b"link"


def directory_mode(node: Node) -> int:
    """Permissions of a directory of the tree."""
    mode = mode_of(node.version.entry) if node.version else None
    return IMPLIED_MODE if mode is None else mode


def open_staging(
    hand: Hand, make_placer: Callable[[Hand], Placer], wanted: set[bytes]
) -> set[bytes]:
    """Make the staging directory, or clear it but for those of `wanted` that an earlier try began;
    these. A file with two names is somebody's, and never one of these."""
    placed = make_placer(hand).make_directory(STAGING_NAME, 0o700)
    if placed.stat is None:
        raise OperationFault(f"cannot make a staging directory: {placed.problem}")
    disk = hand.disk
    kept: set[bytes] = set()
    for name in os.listdir(disk.directory(STAGING_NAME)):
        if os.fsencode(name) == MARKER_NAME:
            continue
        path = STAGING_NAME + b"/" + os.fsencode(name)
        info = disk.lstat(path)
        found = stat_of(info) if info else None
        if info and found and found.kind == FILE and info.st_nlink == 1 and path in wanted:
            kept.add(path)
        elif found and found.kind == DIRECTORY:
            disk.rmdir(path)
        else:
            disk.unlink(path)
    return kept


def close_staging(hand: Hand, *, keep_files: bool) -> None:
    """Clear the staging directory of all but the marker; remove it when there is none. With
    `keep_files`, files that could not be finished stay there for the next try."""
    disk = hand.disk
    info = disk.lstat(STAGING_NAME)
    found = stat_of(info) if info else None
    if found is None or found.kind != DIRECTORY:
        return
    left = [os.fsencode(name) for name in os.listdir(disk.directory(STAGING_NAME))]
    kept = [
        name for name in left if name == MARKER_NAME or (keep_files and not name.startswith(_LINK))
    ]
    for name in left:
        if name not in kept:
            disk.unlink(STAGING_NAME + b"/" + name)
    if not kept:
        disk.rmdir(STAGING_NAME)


def place_link(disk: Disk, placer: Placer, node: Node, row: Row | None, number: int) -> Placed:
    """Make a symbolic link and put it in its place."""
    staged = STAGING_NAME + b"/" + _LINK + b"%d" % number
    disk.symlink(link_target(node), staged)
    return placer.place(staged, node.path, row)


def settle(disk: Disk, node: Node, row: Row) -> Row | None:
    """Same content, other permissions, time or version: the new row, or None when somebody has
    changed the file since the scan."""
    version = node.version
    entry = version.entry if version else None
    mode = mode_of(entry)
    stat = Stat(row.kind, row.mode, row.size, row.mtime_ns, row.ctime_ns, row.inode)
    if isinstance(entry, File) and (mode != row.mode or entry.mtime_ns != row.mtime_ns):
        if not is_ours(disk, row.path, row):
            return None
        fd = disk.open_read(row.path)
        try:
            disk.step("chmod")
            set_times(fd, entry.mode, entry.mtime_ns)
            stat = stat_of(os.fstat(fd)) or stat
        finally:
            os.close(fd)
        # Whoever wrote in this very moment lost their time to ours: the next scan reads the file.
        stat = msgspec.structs.replace(stat, ctime_ns=RACY)
    elif row.kind == DIRECTORY and directory_mode(node) != row.mode:
        disk.chmod_directory(row.path, directory_mode(node))
        stat = msgspec.structs.replace(stat, mode=directory_mode(node))
    return row_of(row.path, stat, row.identity, version.id if version else None, node.logical)


def finish_directory(disk: Disk, path: bytes, mode: int) -> Stat | None:
    """Give a directory its permissions; its stat, or None when it is none any more."""
    info = disk.lstat(path)
    found = stat_of(info) if info else None
    if found is None or found.kind != DIRECTORY:
        return None
    if found.mode != mode:
        disk.chmod_directory(path, mode)
    return msgspec.structs.replace(found, mode=mode)


def sync(hand: Hand) -> None:
    """Everything placed so far survives a power cut from here on."""
    hand.disk.sync()
