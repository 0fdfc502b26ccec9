"""A folder's directory, touched only through directory descriptors.

Every path is relative to the folder's top and is walked component by component with O_NOFOLLOW, so
a symbolic link on the way, however it got there, ends the walk instead of leading it elsewhere.
Descriptors of recent directories are kept, which also makes the walk cheap.

Two calls of Linux that Python lacks make placing safe against people who write at the same moment:
`renameat2(RENAME_NOREPLACE)` never overwrites, and `renameat2(RENAME_EXCHANGE)` hands back what was
there for a second look. Where the filesystem has neither, a check and a plain rename stand in, with
a window of microseconds.

A `Disk` belongs to one thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections import OrderedDict

_DESCRIPTORS_MAX = 64
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
_syncfs = getattr(_libc, "syncfs", None)


def _rename2(source: int, old: bytes, target: int, new: bytes, flags: int) -> bool:
    """renameat2; False where this kernel or filesystem does not know `flags`. Raises OSError."""
    if _renameat2 is None:
        return False
    if not _renameat2(source, old, target, new, flags):
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(new))


class Disk:
    """One folder's directory. All methods raise OSError."""

    def __init__(self, top: bytes) -> None:
        self.top = top
        self._fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def close(self) -> None:
        """Give back every descriptor."""
        self.forget()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Drop kept descriptors: directories may have moved."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def directory(self, path: bytes) -> int:
        """Descriptor of a directory; valid until the next call on this disk."""
        if not path:
            return self._fd
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        parent, _, name = path.rpartition(b"/")
        if parent in self._open or not parent:
            return self._keep(path, os.open(name, _DIRECTORY, dir_fd=self.directory(parent)))
        return self._walk(path)

    def _walk(self, path: bytes) -> int:
        fd, done = self._fd, b""
        for name in path.split(b"/"):
            done = done + b"/" + name if done else name
            known = self._open.get(done)
            fd = (
                known
                if known is not None
                else self._keep(done, os.open(name, _DIRECTORY, dir_fd=fd))
            )
        return fd

    def _keep(self, path: bytes, fd: int) -> int:
        self._open[path] = fd
        if len(self._open) > _DESCRIPTORS_MAX:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        return fd

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        parent, _, name = path.rpartition(b"/")
        return self.directory(parent), name

    # --- looking ---------------------------------------------------------------------------------
    def stat_top(self) -> os.stat_result:
        """The top directory itself."""
        return os.fstat(self._fd)

    def lstat(self, path: bytes) -> os.stat_result | None:
        """What is at `path`, links not followed; None when nothing is."""
        fd, name = self._parent(path)
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readlink(self, path: bytes) -> bytes:
        """Target of the symbolic link at `path`."""
        fd, name = self._parent(path)
        return os.readlink(name, dir_fd=fd)

    def open_read(self, path: bytes) -> int:
        """Descriptor of the regular file at `path`; never blocks on a pipe put in its place."""
        fd, name = self._parent(path)
        found = os.open(name, _READ, dir_fd=fd)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        return found

    # --- changing --------------------------------------------------------------------------------
    def step(self, _name: str) -> None:
        """Called before each change; the seam where tests pull the plug."""

    def create(self, path: bytes, mode: int = 0o600, *, fresh: bool = True) -> int:
        """Descriptor for writing a file of ours. A `fresh` one replaces what an earlier try left,
        by name: its content may be shared with a file of the person's."""
        self.step("create")
        fd, name = self._parent(path)
        if not fresh:
            return os.open(name, _CREATE, mode, dir_fd=fd)
        try:
            return os.open(name, _CREATE | os.O_EXCL, mode, dir_fd=fd)
        except FileExistsError:
            os.unlink(name, dir_fd=fd)
            return os.open(name, _CREATE | os.O_EXCL, mode, dir_fd=fd)

    def write(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
        """All of `data` at `offset`."""
        self.step("write")
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count

    def symlink(self, target: bytes, path: bytes) -> None:
        """A symbolic link, at a path where nothing is."""
        self.step("symlink")
        fd, name = self._parent(path)
        os.symlink(target, name, dir_fd=fd)

    def link(self, source: bytes, path: bytes) -> None:
        """A second name for the file at `source`, for as long as it takes to move it."""
        self.step("link")
        self.directory(path.rpartition(b"/")[0])
        source_fd, source_name = self._parent(source)
        kept = os.dup(source_fd)
        try:
            fd, name = self._parent(path)
            os.link(source_name, name, src_dir_fd=kept, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(kept)

    def mkdir(self, path: bytes, mode: int) -> None:
        """A directory, at a path where nothing is."""
        self.step("mkdir")
        fd, name = self._parent(path)
        os.mkdir(name, mode, dir_fd=fd)

    def chmod_directory(self, path: bytes, mode: int) -> None:
        """Permissions of a directory."""
        self.step("chmod")
        os.fchmod(self.directory(path), mode)

    def unlink(self, path: bytes) -> None:
        """Remove a file or link."""
        self.step("unlink")
        fd, name = self._parent(path)
        os.unlink(name, dir_fd=fd)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        self.step("rmdir")
        kept = self._open.pop(path, None)
        if kept is not None:
            os.close(kept)
        fd, name = self._parent(path)
        os.rmdir(name, dir_fd=fd)

    def rename_new(self, old: bytes, new: bytes) -> None:
        """Move `old` to `new`, where nothing may be: raises FileExistsError."""
        self.step("rename")
        source, source_name, target, target_name = self._two(old, new)
        try:
            if _rename2(source, source_name, target, target_name, _RENAME_NOREPLACE):
                return
            if self.lstat(new) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(new))
            target, target_name = self._parent(new)
            os.rename(source_name, target_name, src_dir_fd=source, dst_dir_fd=target)
        finally:
            os.close(source)

    def exchange(self, one: bytes, other: bytes) -> bool:
        """Swap two names in one step; False where that cannot be done (nothing happened)."""
        self.step("exchange")
        source, source_name, target, target_name = self._two(one, other)
        try:
            return _rename2(source, source_name, target, target_name, _RENAME_EXCHANGE)
        finally:
            os.close(source)

    def rename_over(self, old: bytes, new: bytes) -> None:
        """Move `old` to `new`, replacing what is there."""
        self.step("rename")
        source, source_name, target, target_name = self._two(old, new)
        try:
            os.rename(source_name, target_name, src_dir_fd=source, dst_dir_fd=target)
        finally:
            os.close(source)

    def _two(self, old: bytes, new: bytes) -> tuple[int, bytes, int, bytes]:
        """Both parents; the first is a duplicate to be closed, for the second walk may evict it."""
        source, source_name = self._parent(old)
        source = os.dup(source)
        try:
            target, target_name = self._parent(new)
        except OSError:
            os.close(source)
            raise
        return source, source_name, target, target_name

    def sync(self) -> None:
        """Everything written to this filesystem so far is on the disk when this returns."""
        self.step("sync")
        if _syncfs is None or _syncfs(self._fd):
            os.sync()
