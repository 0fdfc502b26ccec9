"""Hearing of changes below a directory: Linux's inotify, one watch for each directory.

A watch knows an inode, not a path. Whoever lists a directory calls `cover` with its open descriptor
*before* listing it: what changes after that is heard, so nothing falls between. Events are hints:
they name directories to be looked at again, and the look decides. Writes to a file that stays open
are not heard (they would flood a busy log file); its closing is, and a regular full look finds the
rest. Without inotify, or without watches left, `cover` says so and the full looks remain.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
import threading
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)
_EVENT: Final = struct.Struct("iIII")
_READ_BYTES: Final = 256 * 1024
_CLOSE_WRITE, _ATTRIB, _MOVED, _CREATE, _DELETE = 0x8, 0x4, 0xC0, 0x100, 0x200
_ONLYDIR: Final = 0x01000000
_MASK: Final = _CLOSE_WRITE | _ATTRIB | _MOVED | _CREATE | _DELETE | _ONLYDIR
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)
_init = getattr(_libc, "inotify_init1", None)
_add = getattr(_libc, "inotify_add_watch", None)


class TreeWatch:
    """Which directories of one tree may have changed. `on_change` is called in the event loop.

    Paths are relative to the tree's top, as bytes; the top is empty. `cover` and `covers` may be
    called from any thread.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._paths: dict[int, bytes] = {}
        self._inodes: dict[bytes, tuple[int, int]] = {}
        self._changed: set[int] = set()
        self._all = True
        self._fd = -1
        self.broken = ""
        """Why not everything is heard; empty while all is well."""

    def start(self) -> None:
        """Begin to listen, in the running event loop. Never raises: `broken` tells."""
        self._fd = -1 if _init is None else _init(_FLAGS)
        if self._fd < 0:
            self._break("no inotify here")
            return
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def cover(self, path: bytes, fd: int, inode: int) -> None:
        """Hear of changes in the open directory `fd`, which is at `path`."""
        with self._lock:
            if self._fd < 0 or self.broken:
                return
            watch = _add(self._fd, b"/proc/self/fd/%d" % fd, _MASK) if _add else -1
            if watch < 0:
                code = ctypes.get_errno()
                why = "no watches left" if code == errno.ENOSPC else os.strerror(code)
                self._break(f"{why} (fs.inotify.max_user_watches)")
                return
            before = self._paths.get(watch, path)
            if before != path and self._inodes.get(before, (0, 0))[0] == watch:
                del self._inodes[before]  # the directory was renamed
            self._paths[watch] = path
            self._inodes[path] = watch, inode

    def covers(self, path: bytes, inode: int) -> bool:
        """Whether changes in the directory `inode`, at `path`, are heard."""
        return self._inodes.get(path, (0, 0))[1] == inode

    def take(self) -> set[bytes] | None:
        """Directories in which something happened since the last call; None: look at all."""
        with self._lock:
            changed, everything = self._changed, self._all or bool(self.broken)
            self._changed, self._all = set(), False
            if everything:
                return None
            return {self._paths[watch] for watch in changed if watch in self._paths}

    def put_back(self, changed: set[bytes] | None) -> None:
        """The look at what `take` gave came to nothing: give it again next time."""
        with self._lock:
            if changed is None:
                self._all = True
                return
            for path in changed:
                if path in self._inodes:
                    self._changed.add(self._inodes[path][0])

    def _break(self, why: str) -> None:
        self.broken = why
        _log.warning("changes are found by looking at everything, now and then: %s", why)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except OSError:
            return
        offset, end = 0, len(data)
        unpack = _EVENT.unpack_from
        with self._lock:
            changed = self._changed
            while offset < end:
                watch, mask, _, length = unpack(data, offset)
                offset += _EVENT.size + length
                if mask & _OVERFLOW:
                    self._all = True
                elif mask & _IGNORED:
                    path = self._paths.pop(watch, None)
                    if path is not None and self._inodes.get(path, (0, 0))[0] == watch:
                        del self._inodes[path]
                    changed.discard(watch)
                else:
                    changed.add(watch)
        self._on_change()
