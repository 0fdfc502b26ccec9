"""Cutting many changes of a folder into the entries of as few operations as fit their limit.

Changes name packs and replaced versions in full; the tables of each operation are filled here, and
each entry is encoded once, so the size of an operation is known exactly before it is signed.
"""

from __future__ import annotations

import msgspec

from holdfast.limits import OPERATION_BYTES_MAX
from holdfast.logic.group.folder import (
    Chunk,
    Deleted,
    Directory,
    Entry,
    File,
    Link,
    Recipe,
)
from holdfast.logic.group.operation import OperationId, VersionId
from holdfast.logic.group.paths import path_fault

ENVELOPE_BYTES: int = 8 * 1024
"""Kept free for the operation around its entries: 64 parents, two keys, a signature."""
ENTRIES_BYTES_MAX: int = OPERATION_BYTES_MAX - ENVELOPE_BYTES
_TABLE_ROW_BYTES = 34
_FRAME_BYTES = 64
_ENCODER = msgspec.msgpack.Encoder()


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A chunk and the bulk blob that holds it, named in full."""

    pack: bytes
    offset: int
    stored: int
    plain: int
    codec: int
    hash: bytes


class FileChange(msgspec.Struct, frozen=True):
    """A file to record. `segments` is the recipe of a long chunk list; then `pieces` is empty."""

    path: bytes
    replaces: tuple[VersionId, ...]
    mode: int
    mtime_ns: int
    size: int
    pieces: tuple[Piece, ...]
    segments: tuple[Piece, ...] = ()
    digest: bytes = b""


class DirectoryChange(msgspec.Struct, frozen=True):
    """A directory to record."""

    path: bytes
    replaces: tuple[VersionId, ...]
    mode: int


class LinkChange(msgspec.Struct, frozen=True):
    """A symbolic link to record."""

    path: bytes
    replaces: tuple[VersionId, ...]
    target: bytes


class Deletion(msgspec.Struct, frozen=True):
    """A path to record as gone."""

    path: bytes
    replaces: tuple[VersionId, ...]


Change = FileChange | DirectoryChange | LinkChange | Deletion


class Changeset:
    """Entries of one operation under construction."""

    def __init__(self, bytes_max: int = ENTRIES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._packs: dict[bytes, int] = {}
        self._replaced: dict[OperationId, int] = {}
        self._entries: list[msgspec.Raw] = []
        self._bytes = _FRAME_BYTES

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, change: Change) -> int | None:
        """Index of the entry made of `change`; None when it does not fit: finish, start anew.

        A change always fits an empty changeset.
        """
        assert not path_fault(change.path), "only paths of a folder are recorded"
        packs, replaced = len(self._packs), len(self._replaced)
        entry = msgspec.Raw(_ENCODER.encode(self._entry(change)))
        rows = len(self._packs) - packs + len(self._replaced) - replaced
        grown = self._bytes + len(entry) + rows * _TABLE_ROW_BYTES
        if grown > self._bytes_max and self._entries:
            _forget(self._packs, packs)
            _forget(self._replaced, replaced)
            return None
        assert grown <= self._bytes_max, "one entry is far smaller than an operation"
        self._bytes = grown
        self._entries.append(entry)
        return len(self._entries) - 1

    def finish(self) -> bytes:
        """The `entries` bytes of the operation, decodable as `folder.FolderEntries`."""
        body = _ENCODER.encode(
            {
                "packs": list(self._packs),
                "replaced": list(self._replaced),
                "entries": self._entries,
            }
        )
        assert len(body) <= self._bytes_max
        return body

    def _entry(self, change: Change) -> Entry:
        replaces = tuple(
            (self._replaced.setdefault(operation, len(self._replaced)), index)
            for operation, index in change.replaces
        )
        if isinstance(change, FileChange):
            recipe = None
            if change.segments:
                recipe = Recipe(change.digest, self._chunks(change.segments))
            chunks = self._chunks(change.pieces)
            return File(
                change.path, replaces, change.mode, change.mtime_ns, change.size, chunks, recipe
            )
        if isinstance(change, DirectoryChange):
            return Directory(change.path, replaces, change.mode)
        if isinstance(change, LinkChange):
            return Link(change.path, replaces, change.target)
        return Deleted(change.path, replaces)

    def _chunks(self, pieces: tuple[Piece, ...]) -> tuple[Chunk, ...]:
        return to_chunks(pieces, self._packs)


def to_chunks(pieces: tuple[Piece, ...], packs: dict[bytes, int]) -> tuple[Chunk, ...]:
    """References into the pack table `packs`, which grows as needed."""
    return tuple(
        Chunk(
            packs.setdefault(piece.pack, len(packs)),
            piece.offset,
            piece.stored,
            piece.plain,
            piece.codec,
            piece.hash,
        )
        for piece in pieces
    )


def to_pieces(chunks: tuple[Chunk, ...], packs: tuple[bytes, ...]) -> tuple[Piece, ...]:
    """Inverse of `to_chunks`; indexes were checked when the operation was folded."""
    return tuple(
        Piece(packs[chunk.pack], chunk.offset, chunk.stored, chunk.plain, chunk.codec, chunk.hash)
        for chunk in chunks
    )


def _forget(table: dict[bytes, int], size: int) -> None:
    while len(table) > size:
        table.popitem()
