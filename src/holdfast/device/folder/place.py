"""Putting one finished thing in its place, and taking one away, without losing anybody's work.

What is found at a name is compared with its row first. If it is anything else, somebody changed it
since the scan: it is moved aside under a conflict name, where the next scan finds it, and nothing
is ever written over it. New names are taken with a rename that refuses to overwrite; known ones are
exchanged, and what came out of the exchange is compared again before it is thrown away.
"""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.device.folder.chunk import cut
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.index import DIRECTORY, LINK, RACY, Row, Stat
from holdfast.device.folder.read import EMPTY
from holdfast.device.folder.recipe import Digest
from holdfast.device.folder.scan import stat_of
from holdfast.limits import CHUNK_BYTES_AVG
from holdfast.logic.group.paths import conflict_path

_TRIES = 64


class Placed(msgspec.Struct, frozen=True, gc=False):
    """What became of one name. `stat` is set when it is in place now; `aside` names what was found
    there and kept; `problem` says why nothing was done."""

    path: bytes
    stat: Stat | None = None
    aside: bytes = b""
    problem: str = ""


def file_identity(fd: int, size: int) -> bytes:
    """Identity of a file's content, by reading it."""
    if size <= CHUNK_BYTES_AVG:
        data = os.pread(fd, size + 1, 0)
        return b"f" + hash_bytes(data) if data else EMPTY
    offset = 0

    def read_into(view: memoryview) -> int:
        nonlocal offset
        count = os.preadv(fd, [view], offset)
        offset += count
        return count

    digest = Digest()
    for chunk in cut(read_into):
        digest.add(hash_bytes(chunk))
    return b"f" + digest.value()


def is_ours(
    disk: Disk, path: bytes, row: Row, *, moved: bool = False, linked: bool = False
) -> bool:
    """Whether what is at `path` is what `row` was written for.

    A rename has touched the change time (`moved`); a second name we gave the file, the times and
    mode as well (`linked`). A row too fresh to be trusted is settled by reading.
    """
    info = disk.lstat(path)
    found = None if info is None else stat_of(info)
    if found is None or found.kind != row.kind or found.inode != row.inode:
        return False
    if row.kind == LINK:
        return b"l" + disk.readlink(path) == row.identity
    if found.size != row.size:
        return False
    if linked:
        return True
    if found.mtime_ns != row.mtime_ns or found.mode != row.mode:
        return False
    if row.ctime_ns == RACY:
        fd = disk.open_read(path)
        try:
            return file_identity(fd, found.size) == row.identity
        finally:
            os.close(fd)
    return moved or found.ctime_ns == row.ctime_ns


class Placer:
    """Places and removes names on one thread's disk.

    `label` names this device in conflict names; `linked` are paths that share their inode with a
    staged file; `opened` collects directories (and their modes) that had to be made writable.
    """

    def __init__(
        self, disk: Disk, label: str, linked: set[bytes], opened: dict[bytes, int]
    ) -> None:
        self._disk = disk
        self._label = label
        self._linked = linked
        self._opened = opened

    def place(self, staged: bytes, path: bytes, row: Row | None) -> Placed:
        """Move the finished `staged` to `path`, which held `row`, or nothing. Raises OSError."""
        ready = self.look(staged)
        if ready is None:
            return Placed(path, problem="its staged content is gone")
        aside = b""
        for _ in range(_TRIES):
            try:
                if row is not None and self._is_ours(path, row):
                    aside = self._swap(staged, path, row) or aside
                else:
                    self._disk.rename_new(staged, path)
            except FileExistsError:
                aside = self.move_aside(path)
            except FileNotFoundError:
                self._disk.directory(path.rpartition(b"/")[0])
                row = None  # what was there has gone in the meantime
            except PermissionError:
                self._open_parent(path)
            else:
                return Placed(path, self._stat_after(ready, path), aside)
        return Placed(path, problem="somebody keeps changing it", aside=aside)

    def _stat_after(self, ready: Stat, path: bytes) -> Stat:
        """Stat of what was just placed; not to be trusted if somebody has touched it already."""
        now = self.look(path)
        if now is not None and msgspec.structs.replace(now, ctime_ns=ready.ctime_ns) == ready:
            return now
        return msgspec.structs.replace(ready, ctime_ns=RACY)

    def _is_ours(self, path: bytes, row: Row) -> bool:
        return is_ours(self._disk, path, row, linked=path in self._linked)

    def _swap(self, staged: bytes, path: bytes, row: Row) -> bytes:
        """Replace what `row` describes; the conflict name of what it turned out to be instead."""
        disk = self._disk
        if not disk.exchange(staged, path):
            disk.rename_over(staged, path)
            return b""
        if is_ours(disk, staged, row, moved=True, linked=path in self._linked):
            disk.unlink(staged)
            return b""
        return self._rename_aside(staged, path)

    def remove(self, row: Row) -> Placed:
        """Take away what `row` describes; anything else, or a directory in use, stays. Raises
        OSError."""
        path = row.path
        try:
            try:
                return self._remove(row)
            except PermissionError:
                self._open_parent(path)
                return self._remove(row)
        except (FileNotFoundError, NotADirectoryError):
            return Placed(path)

    def _remove(self, row: Row) -> Placed:
        path = row.path
        if row.kind == DIRECTORY:
            try:
                self._disk.rmdir(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return Placed(path, problem="holds what only this device has")
        elif self._is_ours(path, row):
            self._disk.unlink(path)
        elif self.look(path) is not None:
            return Placed(path, problem="changed here since the last scan")
        return Placed(path)

    def _open_parent(self, path: bytes) -> None:
        """Make the directory of `path` writable for now. Raises PermissionError when it was."""
        parent = path.rpartition(b"/")[0]
        mode = stat.S_IMODE(os.fstat(self._disk.directory(parent)).st_mode)
        if not parent or mode & 0o700 == 0o700:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        self._disk.chmod_directory(parent, mode | 0o700)
        self._opened.setdefault(parent, mode)

    def move_aside(self, path: bytes) -> bytes:
        """Rename what is at `path` to a conflict name; that name, or empty when it is gone."""
        try:
            return self._rename_aside(path, path)
        except FileNotFoundError:
            return b""

    def _rename_aside(self, found: bytes, path: bytes) -> bytes:
        info = self._disk.lstat(found)
        inode = info.st_ino if info else 0
        for attempt in range(_TRIES):
            short = hash_bytes(b"%d %d %s" % (inode, attempt, path)).hex()[:6]
            copy = conflict_path(path, self._label, short)
            try:
                self._disk.rename_new(found, copy)
            except FileExistsError:
                continue
            return copy
        raise FileExistsError(errno.EEXIST, "no free conflict name", os.fsdecode(path))

    def look(self, path: bytes) -> Stat | None:
        """The stat of what is at `path` now; None for nothing and for what is never shared."""
        info = self._disk.lstat(path)
        return None if info is None else stat_of(info)

    def make_directory(self, path: bytes, mode: int) -> Placed:
        """A directory at `path`, writable by us until the end; another one there already is it."""
        aside = b""
        for _ in range(_TRIES):
            try:
                self._disk.mkdir(path, mode | 0o700)
            except FileExistsError:
                found = self.look(path)
                if found is not None and found.kind == DIRECTORY:
                    return Placed(path, found, aside)
                aside = self.move_aside(path)
            except PermissionError:
                self._open_parent(path)
            else:
                return Placed(path, self.look(path), aside)
        return Placed(path, problem="somebody keeps changing it", aside=aside)


def set_times(fd: int, mode: int, mtime_ns: int) -> None:
    """Permissions and modification time of an open file, written only where they differ."""
    info = os.fstat(fd)
    if info.st_mode & 0o7777 != mode:
        os.fchmod(fd, mode)
    if info.st_mtime_ns != mtime_ns:
        os.utime(fd, ns=(mtime_ns, mtime_ns))
