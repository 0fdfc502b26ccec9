"""Chunk lists too long for the log.

A file of more than `CHUNKS_INLINE_MAX` chunks is recorded by its recipe: its chunk list, cut into
segments of at most `RECIPE_SEGMENT_CHUNKS_MAX`, each stored as a chunk like any other. One level is
enough: 4,096 segments of 8,192 chunks of at least 64 KiB (but for the last) are 2 TiB of the worst
case, 10 TiB of the usual one, and 230 KB in the log.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from holdfast.device.folder.pack import Place
from holdfast.errors import OperationFault
from holdfast.limits import (
    CHUNK_BYTES_MAX,
    CHUNKS_INLINE_MAX,
    RECIPE_SEGMENT_CHUNKS_MAX,
    RECIPE_SEGMENTS_MAX,
)
from holdfast.logic.group.changeset import Piece, to_chunks, to_pieces
from holdfast.logic.group.folder import RecipeSegment, check_chunks, content_digest
from holdfast.logic.group.operation import decode_entries, encode_entries

_CHUNK_BYTES_MAX = 1 + 5 + 5 + 5 + 5 + 1 + 34
_PACK_BYTES = 34
assert RECIPE_SEGMENT_CHUNKS_MAX * _CHUNK_BYTES_MAX < CHUNK_BYTES_MAX
"""The chunk list fits; the pack table is checked as it is built (a pack holds several chunks)."""


class Digest:
    """Content digest of a file, fed with its chunk hashes in order; see `content_digest`."""

    def __init__(self) -> None:
        self._count = 0
        self._first = b""
        self._rest = blake3(derive_key_context="holdfast v1 file chunks")

    def add(self, chunk_hash: bytes) -> None:
        """The next chunk."""
        self._count += 1
        if self._count == 1:
            self._first = chunk_hash
        self._rest.update(chunk_hash)

    def value(self) -> bytes:
        """The digest of the chunks so far."""
        if self._count == 1:
            return content_digest((self._first,))
        return self._rest.digest()


class RecipeBuilder:
    """Collects a file's places and hands out segments when there are too many to hold."""

    def __init__(self) -> None:
        self._pending: list[Place] = []
        self._segments: list[Place] = []
        self._count = 0

    def add(self, place: Place) -> None:
        """The next chunk of the file."""
        self._pending.append(place)
        self._count += 1

    @property
    def is_full(self) -> bool:
        """Whether a segment should be taken before anything is added."""
        return len(self._pending) >= RECIPE_SEGMENT_CHUNKS_MAX

    @property
    def is_long(self) -> bool:
        """Whether the file needs a recipe at all."""
        return self._count > CHUNKS_INLINE_MAX

    @property
    def is_sealed(self) -> bool:
        """Whether all that the log will name has its pack: the chunks, or the segments."""
        if self.is_long:
            return not self._pending and all(place.pack for place in self._segments)
        return all(place.pack for place in self._pending)

    def pending(self) -> Sequence[Place]:
        """Places not in a segment yet; all must be sealed before `take`."""
        return self._pending

    def take(self) -> bytes:
        """Plaintext of the next segment, as many of the pending places as fit one chunk."""
        assert self._pending
        packs: dict[bytes, int] = {}
        taken: list[Piece] = []
        size = 64
        for place in self._pending[:RECIPE_SEGMENT_CHUNKS_MAX]:
            size += _CHUNK_BYTES_MAX + (_PACK_BYTES if place.pack not in packs else 0)
            if size > CHUNK_BYTES_MAX:
                break
            packs.setdefault(place.pack, len(packs))
            taken.append(place.piece())
        del self._pending[: len(taken)]
        chunks = to_chunks(tuple(taken), packs)
        return encode_entries(RecipeSegment(tuple(packs), chunks))

    def stored(self, place: Place) -> None:
        """A taken segment has a place."""
        self._segments.append(place)
        if len(self._segments) > RECIPE_SEGMENTS_MAX:
            raise OperationFault("file of more than 2 TiB cannot be shared", retryable=False)

    def pieces(self) -> tuple[Piece, ...]:
        """The chunk list of a short file."""
        assert not self.is_long
        return tuple(place.piece() for place in self._pending)

    def segments(self) -> tuple[Piece, ...]:
        """The recipe of a long file."""
        assert self.is_long
        assert not self._pending
        return tuple(place.piece() for place in self._segments)


def read_segment(plain: bytes | bytearray | memoryview) -> tuple[Piece, ...]:
    """The chunks that one segment lists. Raises PeerFault."""
    segment = decode_entries(RecipeSegment, bytes(plain))
    check_chunks(segment.chunks, segment.packs)
    return to_pieces(segment.chunks, segment.packs)
