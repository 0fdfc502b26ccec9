"""Putting files together in the staging directory, in the worker threads.

Every chunk is checked against its hash before it is written, whether it came from a pack or from
another file of this disk. A file of one chunk is written and placed in one go; a longer one gets
its chunks in any order, and what an earlier try left behind is kept where its hash is right.
"""

from __future__ import annotations

import errno
import os

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.device.folder.chunk import cut, decode
from holdfast.device.folder.hands import Hand
from holdfast.device.folder.index import Row
from holdfast.device.folder.place import Placed, Placer, is_ours, set_times
from holdfast.device.folder.plan import FileTask
from holdfast.device.folder.recipe import Digest
from holdfast.errors import PeerFault
from holdfast.limits import CHUNK_BYTES_AVG
from holdfast.logic.group.changeset import Piece
from holdfast.logic.group.folder import CODEC_ZSTD

FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})
"""Errors that speak of the disk or the process, not of one file."""


class Build(msgspec.Struct, eq=False):
    """A file under construction. `remaining` chunks are still to come; `held` files are staged
    and placed later; one that is not `fresh` has content of an earlier try."""

    task: FileTask
    remaining: int
    held: bool = False
    fresh: bool = True
    problem: str = ""

    @property
    def is_long(self) -> bool:
        """Whether it is put together from several chunks."""
        return self.task.is_long


class Wanted(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A chunk and where it belongs."""

    build: Build
    offset: int
    piece: Piece


class Written(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A chunk that is where it belongs; `placed` when that finished a file of one chunk."""

    wanted: Wanted
    placed: Placed | None = None
    problem: str = ""


def write_pack(hand: Hand, placer: Placer, payload: bytes, wanted: list[Wanted]) -> list[Written]:
    """Write every chunk of one pack to wherever it belongs. Raises OSError when the disk is out
    of room or broken; what concerns one file alone is its problem."""
    done: list[Written] = []
    last: bytes = b""
    plain: bytes | bytearray | memoryview = b""
    for one in wanted:
        if one.piece.hash != last or one.piece.plain != len(plain):
            try:
                plain = decode(one.piece, payload)
            except PeerFault as fault:
                done.append(Written(one, problem=str(fault)))
                continue
            last = one.piece.hash
        done.append(_guarded(hand, placer, one, plain))
    return done


def _guarded(
    hand: Hand, placer: Placer, one: Wanted, plain: bytes | bytearray | memoryview
) -> Written:
    try:
        if one.build.is_long:
            _write_chunk(hand, one, plain)
            return Written(one)
        return Written(one, write_whole(hand, placer, one.build, plain))
    except OSError as error:
        return Written(one, problem=disk_problem(error))


def _is_zeros(data: bytes | bytearray | memoryview) -> bool:
    """Whether leaving a hole says the same."""
    return len(data) > 0 and data[0] == 0 and not bytes(data).strip(b"\0")


def disk_problem(error: OSError) -> str:
    """What an error says of one file. Re-raises it when it says something of the whole disk."""
    if error.errno in FATAL:
        raise error
    return error.strerror or "the disk refused"


def _write_chunk(hand: Hand, one: Wanted, plain: bytes | bytearray | memoryview) -> None:
    disk = hand.disk
    fd = disk.create(one.build.task.staged, fresh=False)
    try:
        hole = one.build.fresh and one.piece.codec == CODEC_ZSTD and _is_zeros(plain)
        if not hole:
            disk.write(fd, plain, one.offset)
    finally:
        os.close(fd)


def write_whole(
    hand: Hand, placer: Placer, build: Build, plain: bytes | bytearray | memoryview
) -> Placed | None:
    """Stage a file of at most one chunk, and place it unless it is held."""
    disk, task = hand.disk, build.task
    fd = disk.create(task.staged, task.entry.mode)
    try:
        if plain:
            disk.write(fd, plain, 0)
        set_times(fd, task.entry.mode, task.entry.mtime_ns)
    finally:
        os.close(fd)
    return None if build.held else placer.place(task.staged, task.path, task.row)


def prepare_long(hand: Hand, build: Build) -> None:
    """A staged file of the right length for chunks to be written into."""
    fd = hand.disk.create(build.task.staged, fresh=build.fresh)
    try:
        os.ftruncate(fd, build.task.entry.size)
    finally:
        os.close(fd)


def finish_long(hand: Hand, placer: Placer, build: Build) -> Placed | None:
    """All chunks are there: times, permissions, and its place unless it is held."""
    task = build.task
    fd = hand.disk.create(task.staged, fresh=False)
    try:
        set_times(fd, task.entry.mode, task.entry.mtime_ns)
    finally:
        os.close(fd)
    return None if build.held else placer.place(task.staged, task.path, task.row)


def chunks_present(hand: Hand, build: Build, wanted: list[Wanted]) -> list[Wanted]:
    """Those chunks that an earlier try wrote already."""
    fd = hand.disk.open_read(build.task.staged)
    try:
        return [one for one in wanted if _holds(fd, one.offset, one.piece)]
    finally:
        os.close(fd)


def _holds(fd: int, offset: int, piece: Piece) -> bool:
    data = os.pread(fd, piece.plain, offset)
    return len(data) == piece.plain and hash_bytes(data) == piece.hash


def copy_chunk(hand: Hand, one: Wanted, source: bytes, offset: int) -> bool:
    """Take a chunk from another file of this disk, if it is really there."""
    try:
        fd = hand.disk.open_read(source)
    except OSError:
        return False
    try:
        data = _read(fd, one.piece.plain, offset)
    finally:
        os.close(fd)
    if len(data) != one.piece.plain or hash_bytes(data) != one.piece.hash:
        return False
    _write_chunk(hand, one, data)
    return True


def link_whole(hand: Hand, task: FileTask, source: Row) -> bool:
    """Give a file that is about to lose its name the staged name as well. No byte is moved, and
    none is read: the row says that this very inode was hashed and not touched since."""
    disk = hand.disk
    try:
        if not is_ours(disk, source.path, source):
            return False
        disk.link(source.path, task.staged)
    except OSError:
        return False
    try:
        fd = disk.open_read(task.staged)
        try:
            set_times(fd, task.entry.mode, task.entry.mtime_ns)
        finally:
            os.close(fd)
    except OSError:
        disk.unlink(task.staged)
        return False
    return True


def copy_whole(hand: Hand, task: FileTask, source: Row) -> bool:
    """Stage a file as a copy of another one of this disk, checked while it is copied."""
    disk = hand.disk
    try:
        read = disk.open_read(source.path)
    except OSError:
        return False
    try:
        write = disk.create(task.staged, task.entry.mode)
        try:
            if not _copy(hand, read, write, task):
                return False
            set_times(write, task.entry.mode, task.entry.mtime_ns)
        finally:
            os.close(write)
    finally:
        os.close(read)
    return True


def _copy(hand: Hand, read: int, write: int, task: FileTask) -> bool:
    """Copy and compare; a source that cannot be read is as good as one that differs."""
    size = task.entry.size
    if size <= CHUNK_BYTES_AVG:
        data = _read(read, size + 1, 0)
        hand.disk.write(write, data, 0)
        return len(data) == size and b"f" + hash_bytes(data) == task.identity
    digest, offset = Digest(), 0

    def read_into(view: memoryview) -> int:
        nonlocal offset
        data = _read(read, len(view), offset)
        view[: len(data)] = data
        if not _is_zeros(data):
            hand.disk.write(write, data, offset)
        offset += len(data)
        return len(data)

    for chunk in cut(read_into):
        digest.add(hash_bytes(chunk))
    os.ftruncate(write, offset)
    return offset == size and b"f" + digest.value() == task.identity


def _read(fd: int, count: int, offset: int) -> bytes:
    try:
        return os.pread(fd, count, offset)
    except OSError:
        return b""
