"""Reading files, in the worker threads: stat, hash, cut, compress, stat again.

Small files are read whole, many to a task. A long file is read by a `LongRead`, a step at a time,
so that memory holds a window of it and never the file. A file whose stat differs after reading is
read once more if it is small, and otherwise left for the next scan.

Two threads may meet the same new chunk at once. `Claims` lets the first one compress it; the other
hands on the hash alone and the snapshot finds the place when it is there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.device.folder.chunk import Compressor, cut
from holdfast.device.folder.hands import Hand
from holdfast.device.folder.index import FILE, FolderIndex, Placing, Stat
from holdfast.device.folder.recipe import Digest
from holdfast.device.folder.scan import Seen, stat_of
from holdfast.limits import CHUNK_BYTES_AVG
from holdfast.logic.group.changeset import Piece

STEP_BYTES = 2 * 1024 * 1024
"""Read and compressed by one step of a long file, or by one task of small ones."""
HASHED_BYTES = 16 * 1024 * 1024
"""The same, when a step only hashes."""
_TRIES = 2
EMPTY = b"f" + Digest().value()
"""Identity of a file without content."""
_PROBLEMS = {
    "FileNotFoundError": "gone",
    "PermissionError": "not readable",
}


class Job(msgspec.Struct, frozen=True, gc=False):
    """A file to read. Content whose identity is in `known` need not be stored: either nothing
    changed or the log has it already. `placing` tells a torn file from an edited one."""

    seen: Seen
    known: tuple[bytes, ...]
    placing: Placing | None = None


class RawChunk(msgspec.Struct, frozen=True, gc=False):
    """A chunk as a thread hands it over: stored already (`piece`), new (`stored`), or being
    handled by another thread (neither)."""

    hash: bytes
    plain: int
    codec: int = 0
    stored: bytes = b""
    piece: Piece | None = None


class Read(msgspec.Struct, frozen=True, gc=False):
    """A file that was read. `problem` says why it was not, and then the rest means nothing."""

    job: Job
    stat: Stat
    identity: bytes = b""
    chunk: RawChunk | None = None
    problem: str = ""

    @property
    def is_torn(self) -> bool:
        """Put in place by us, then cut short by a crash: the time is ours, the content is not."""
        placing = self.job.placing
        return (
            placing is not None
            and self.stat.mtime_ns == placing.mtime_ns
            and self.identity != placing.identity
        )


class Claims:
    """Which thread compresses a chunk that several have met, and what is stored already."""

    def __init__(self, index: FolderIndex) -> None:
        self._index = index
        self._has_chunks = index.has_chunks()
        self._claimed: dict[bytes, object] = {}

    def look_up(self, hashes: list[bytes]) -> dict[bytes, Piece]:
        """Those that are stored already."""
        return self._index.chunks(hashes) if self._has_chunks else {}

    def claim(self, digest: bytes) -> bool:
        """True for the one caller who must bring the content of a chunk."""
        token = object()
        return self._claimed.setdefault(digest, token) is token

    def settle(self, digests: list[bytes]) -> None:
        """These chunks are in the index now."""
        self._has_chunks = True
        for digest in digests:
            self._claimed.pop(digest, None)


def raw_chunk(
    compressor: Compressor,
    claims: Claims,
    digest: bytes,
    data: bytes | memoryview,
    piece: Piece | None,
) -> RawChunk:
    """`data` as a chunk: where it lies already, compressed, or left to the thread that has it."""
    if piece is not None:
        return RawChunk(digest, len(data), piece=piece)
    if not claims.claim(digest):
        return RawChunk(digest, len(data))
    codec, stored = compressor.encode(data)
    return RawChunk(digest, len(data), codec, stored)


def read_small(hand: Hand, jobs: list[Job], claims: Claims) -> list[Read]:
    """Read files of at most one chunk each."""
    done: list[Read] = []
    contents: list[tuple[Job, Stat, bytes, bytes]] = []
    for job in jobs:
        outcome = _read_whole(hand, job)
        if isinstance(outcome, Read):
            done.append(outcome)
        else:
            contents.append((job, *outcome))
    wanted = [d for job, _, _, d in contents if b"f" + d not in job.known]
    stored = claims.look_up(wanted) if wanted else {}
    for job, stat, data, digest in contents:
        identity = b"f" + digest
        chunk = None
        if identity not in job.known:
            chunk = raw_chunk(hand.compressor, claims, digest, data, stored.get(digest))
        done.append(Read(job, stat, identity, chunk))
    return done


def _problem(job: Job, error: OSError) -> Read:
    text = _PROBLEMS.get(type(error).__name__, error.strerror or "not readable")
    return Read(job, job.seen.stat, problem=text)


def _read_whole(hand: Hand, job: Job) -> Read | tuple[Stat, bytes, bytes]:
    """(stat, content, hash), or the finished `Read` of a file without content or with a problem."""
    try:
        fd = hand.disk.open_read(job.seen.path)
    except OSError as error:
        return _problem(job, error)
    try:
        for _ in range(_TRIES):
            before = stat_of(os.fstat(fd))
            if before is None or before.kind != FILE or before.size > CHUNK_BYTES_AVG:
                return Read(job, job.seen.stat, problem="changed while it was read")
            data = os.pread(fd, before.size + 1, 0) if before.size else b""
            if len(data) == before.size and stat_of(os.fstat(fd)) == before:
                if not data:
                    return Read(job, before, EMPTY)
                return before, data, hash_bytes(data)
    except OSError as error:
        return _problem(job, error)
    finally:
        os.close(fd)
    return Read(job, job.seen.stat, problem="changed while it was read")


class LongRead:
    """A file of several chunks, read step by step; steps may run in different threads.

    When the content may be known the first pass only hashes; if it was new after all, a second
    pass stores it.
    """

    def __init__(self, job: Job, claims: Claims) -> None:
        self.job = job
        self.hashing = bool(job.known)
        """Whether this pass only hashes: its chunks are not to be stored."""
        self.outcome: Read | None = None
        """Set by the last step."""
        self._claims = claims
        self._fd = -1
        self._before: Stat | None = None
        self._digest = Digest()
        self._chunks: Iterator[memoryview] = iter(())
        self._offset = 0
        self._is_sparse = False

    def step(self, hand: Hand) -> list[RawChunk]:
        """The next chunks of this pass, in order; none at the end of a pass or of everything."""
        try:
            if self._fd < 0:
                self._open(hand)
            return [] if self.outcome else self._next(hand)
        except OSError as error:
            self.outcome = _problem(self.job, error)
            return []
        finally:
            if self.outcome is not None:
                self.close()

    def close(self) -> None:
        """Give the descriptor back; a read that was broken off needs it too."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, hand: Hand) -> None:
        self._fd = hand.disk.open_read(self.job.seen.path)
        info = os.fstat(self._fd)
        self._before = stat_of(info)
        self._is_sparse = info.st_blocks * 512 < info.st_size
        self._rewind()
        if (
            self._before is None
            or self._before.kind != FILE
            or self._before.size <= CHUNK_BYTES_AVG
        ):
            self._changed()

    def _rewind(self) -> None:
        self._digest = Digest()
        self._offset = 0
        self._chunks = cut(self._read_into)

    def _read_into(self, view: memoryview) -> int:
        count = self._hole(len(view))
        if count:
            view[:count] = bytes(count)
        else:
            count = os.preadv(self._fd, [view], self._offset)
        self._offset += count
        return count

    def _hole(self, count_max: int) -> int:
        """Bytes of a hole that starts here: zeros that need not go through the page cache."""
        assert self._before is not None
        left = self._before.size - self._offset
        if not self._is_sparse or left <= 0:
            return 0
        try:
            data = os.lseek(self._fd, self._offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return 0
            data = self._before.size  # nothing but a hole up to the end
        return min(count_max, left, data - self._offset)

    def _next(self, hand: Hand) -> list[RawChunk]:
        done: list[RawChunk] = []
        size = 0
        while size < (HASHED_BYTES if self.hashing else STEP_BYTES):
            chunk = next(self._chunks, None)
            if chunk is None:
                if not done:
                    self._end_pass()
                break
            digest = hash_bytes(chunk)
            self._digest.add(digest)
            if self.hashing:
                done.append(RawChunk(digest, len(chunk)))
            else:
                piece = self._claims.look_up([digest]).get(digest)
                done.append(raw_chunk(hand.compressor, self._claims, digest, chunk, piece))
            size += len(chunk)
        return done

    def _end_pass(self) -> None:
        assert self._before is not None
        if stat_of(os.fstat(self._fd)) != self._before or self._offset != self._before.size:
            self._changed()
            return
        identity = b"f" + self._digest.value()
        if self.hashing and identity not in self.job.known:
            self.hashing = False
            self._rewind()
        else:
            self.outcome = Read(self.job, self._before, identity)

    def _changed(self) -> None:
        self.outcome = Read(self.job, self.job.seen.stat, problem="changed while it was read")
