"""The disk, as a store sees it: ten calls, with a real form and a faulty one.

Everything raises OSError and nothing else; the store decides what an error means.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from holdfast.crypto.pure import hash_bytes

T = TypeVar("T")
Buffer = bytes | memoryview
_PARTS_MAX = 1_024
"""IOV_MAX of Linux."""
_REFRESH_BYTES = 1 << 20


class Files(Protocol):
    """What a segment directory needs of a disk."""

    def open(self, path: Path) -> int:
        """A descriptor to read and append, the file created when missing and the name durable."""
        ...

    def append(self, fd: int, parts: Sequence[Buffer]) -> None:
        """Write all parts at the end of the file. On an error some bytes may have landed."""
        ...

    def sync(self, fd: int) -> None:
        """Return when the file's data is durable (fdatasync). Never retried after an error."""
        ...

    def truncate(self, fd: int, size: int) -> None: ...

    def refresh(self, path: Path, start: int, end: int) -> None:
        """Write the same bytes again and make them durable. After a failed sync the kernel may
        hold pages that it calls clean and the disk has never seen."""
        ...

    def read(self, fd: int, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def replace(self, path: Path, data: bytes) -> None:
        """Put `data` in place of `path`, durably and at once."""
        ...

    def remove(self, path: Path) -> None:
        """Unlink, durably; a missing file is fine."""
        ...

    def reserve(self, path: Path, size: int) -> None:
        """Make a file that takes up `size` bytes of the disk."""
        ...

    def free_bytes(self, path: Path) -> int: ...


class OsFiles:
    """The operating system's."""

    def open(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_CREAT, 0o600)
            self._sync_directory(path.parent)
            return fd

    def append(self, fd: int, parts: Sequence[Buffer]) -> None:
        for start in range(0, len(parts), _PARTS_MAX):
            self._append(fd, parts[start : start + _PARTS_MAX])

    def _append(self, fd: int, parts: Sequence[Buffer]) -> None:
        size = sum(len(part) for part in parts)
        written = os.writev(fd, parts)
        if written < size:  # a full disk or a signal: the next write says which
            rest = memoryview(b"".join(parts))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def refresh(self, path: Path, start: int, end: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for offset in range(start, end, _REFRESH_BYTES):
                data = self.read(fd, offset, min(_REFRESH_BYTES, end - offset))
                os.pwrite(fd, data, offset)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def read(self, fd: int, offset: int, size: int) -> bytes:
        data = os.pread(fd, size, offset)
        while 0 < len(data) < size:
            more = os.pread(fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def replace(self, path: Path, data: bytes) -> None:
        draft = path.with_name(path.name + ".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(draft, path)
        self._sync_directory(path.parent)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._sync_directory(path.parent)

    def reserve(self, path: Path, size: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize

    @staticmethod
    def _sync_directory(path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_note(path: Path, files: Files, note: object) -> None:
    """Put a small thing in place of `path`, durably. Raises OSError."""
    body = msgspec.msgpack.encode(note)
    files.replace(path, hash_bytes(body) + body)


def read_note(path: Path, shape: type[T]) -> tuple[T | None, bool]:
    """What `write_note` wrote, None for nothing; and whether it is damaged. Raises OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, False
    if hash_bytes(data[32:]) != data[:32]:
        return None, True
    return msgspec.msgpack.decode(data[32:], type=shape), False


class FaultyFiles(OsFiles):
    """A real disk that fails on demand. Each fault stays until it is taken back.

    `room_bytes` is what still fits before ENOSPC, None for no bound; `sync_error`,
    `append_error`, `read_error` and `open_error` are errno values raised by those calls, 0 for
    none.
    """

    def __init__(self) -> None:
        self.room_bytes: int | None = None
        self.append_error = 0
        self.sync_error = 0
        self.read_error = 0
        self.open_error = 0
        self.syncs = 0

    def append(self, fd: int, parts: Sequence[Buffer]) -> None:
        if self.append_error:
            raise OSError(self.append_error, os.strerror(self.append_error))
        if self.room_bytes is not None:
            data = b"".join(parts)
            fits = data[: self.room_bytes]
            self.room_bytes -= len(fits)
            super().append(fd, [fits])
            if len(fits) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        super().append(fd, parts)

    def open(self, path: Path) -> int:
        if self.open_error:
            raise OSError(self.open_error, os.strerror(self.open_error))
        return super().open(path)

    def read(self, fd: int, offset: int, size: int) -> bytes:
        if self.read_error:
            raise OSError(self.read_error, os.strerror(self.read_error))
        return super().read(fd, offset, size)

    def sync(self, fd: int) -> None:
        self.syncs += 1
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(fd)

    def free_bytes(self, path: Path) -> int:
        return super().free_bytes(path) if self.room_bytes is None else self.room_bytes
