"""The folder reducer: what a shared folder holds, whatever order its operations came in.

Each change to a path is a *version* (see `register`): a file, a directory, a symbolic link or a
deletion. A rename is a deletion and an addition that share chunks. From the live versions of all
paths `FolderState.tree` makes the one directory tree that every device shows:

* a deletion loses against anything that still lives: an edit survives a concurrent delete;
* versions with the same content are one, however many devices made them;
* a path that is a directory, or that anything lives under, is a directory;
* otherwise the newest modification time keeps the name, then the higher version id;
* every other content is kept beside it as `name (conflict, <device>, <short id>).ext`.

The tree is a function of the live versions and the device names, so it is the same everywhere.

Entries travel as arrays (`[tag, path, replaces, ...]`); ids that repeat are named once in the
tables `packs` and `replaced` of the operation and referred to by index. A chunk reference is
`[pack, offset, stored, plain, codec, hash]`: `stored` bytes at `offset` of the payload of bulk blob
`packs[pack]`, which decode (codec 0 raw, 1 zstd) to `plain` bytes whose BLAKE3 is `hash`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec

from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import (
    BLOB_BYTES_MAX,
    CHUNK_BYTES_MAX,
    CHUNKS_INLINE_MAX,
    LINK_BYTES_MAX,
    RECIPE_SEGMENTS_MAX,
    REPLACES_MAX,
)
from holdfast.logic.group.operation import Bytes32, OperationId, VersionId, decode_entries
from holdfast.logic.group.paths import free_conflict_path, parent_of, path_fault
from holdfast.logic.group.register import Put, Register

CODEC_RAW = 0
CODEC_ZSTD = 1
MODE_MASK = 0o777
"""Permission bits that travel. setuid, setgid and sticky bits stay at home."""

_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**20)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=BLOB_BYTES_MAX)]
_Mode = Annotated[int, msgspec.Meta(ge=0, le=MODE_MASK)]
Replaces = Annotated[tuple[tuple[_Index, _Index], ...], msgspec.Meta(max_length=REPLACES_MAX)]
"""Versions replaced: (index into the table `replaced`, index of the entry there)."""


class Chunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Where a piece of a file is, and what it must hash to."""

    pack: _Index
    offset: _Bytes
    stored: Annotated[int, msgspec.Meta(ge=1, le=BLOB_BYTES_MAX)]
    plain: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_BYTES_MAX)]
    codec: Annotated[int, msgspec.Meta(ge=0, le=CODEC_ZSTD)]
    hash: Bytes32


class Recipe(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A chunk list too long for the log: `segments` are chunks that hold `RecipeSegment`s."""

    digest: Bytes32
    """Content digest of the whole file, as `content_digest` makes it from all its chunk hashes."""
    segments: Annotated[
        tuple[Chunk, ...], msgspec.Meta(min_length=1, max_length=RECIPE_SEGMENTS_MAX)
    ]


class RecipeSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plaintext of one recipe chunk: the next chunks of the file, with their own pack table."""

    packs: tuple[Bytes32, ...]
    chunks: tuple[Chunk, ...]


class File(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1, gc=False
):
    """A regular file. `chunks` add up to `size`; with a recipe they are empty."""

    path: bytes
    replaces: Replaces
    mode: _Mode
    mtime_ns: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
    size: _Count
    chunks: Annotated[tuple[Chunk, ...], msgspec.Meta(max_length=CHUNKS_INLINE_MAX)]
    recipe: Recipe | None = None


class Directory(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2, gc=False
):
    """A directory; recorded for its own sake, so that empty ones live and modes travel."""

    path: bytes
    replaces: Replaces
    mode: _Mode


class Link(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3, gc=False
):
    """A symbolic link, as a link: the target is never looked at."""

    path: bytes
    replaces: Replaces
    target: Annotated[bytes, msgspec.Meta(min_length=1, max_length=LINK_BYTES_MAX)]


class Deleted(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4, gc=False
):
    """The path is gone."""

    path: bytes
    replaces: Replaces


Entry = File | Directory | Link | Deleted


class FolderEntries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries of a `folder` operation."""

    packs: tuple[Bytes32, ...]
    replaced: tuple[Bytes32, ...]
    entries: tuple[Entry, ...]


class Version(msgspec.Struct, frozen=True, gc=False):
    """One live version of a path: who wrote it, what it says, and its pack table."""

    id: VersionId
    author: bytes
    entry: Entry
    packs: tuple[bytes, ...]


class Node(msgspec.Struct, frozen=True, gc=False):
    """One name of the tree. `logical` is the path it is a version of: another one for a conflict
    copy. `version` is None for a directory that exists only because something lives in it."""

    path: bytes
    logical: bytes
    version: Version | None


Tree = dict[bytes, Node]


def content_digest(hashes: tuple[bytes, ...]) -> bytes:
    """What identifies a file's content: the hash of its only chunk, or a hash over all of them in
    a domain of its own (a file may well hold the hashes of another file's chunks)."""
    if len(hashes) == 1:
        return hashes[0]
    return derive_key("holdfast v1 file chunks", b"".join(hashes))


def file_digest(entry: File) -> bytes:
    """Content digest of a file entry."""
    if entry.recipe is not None:
        return entry.recipe.digest
    return content_digest(tuple(chunk.hash for chunk in entry.chunks))


def identity(entry: Entry | None) -> bytes:
    """Equal for entries that are the same thing on disk, permissions and times aside."""
    if isinstance(entry, File):
        return b"f" + file_digest(entry)
    if isinstance(entry, Link):
        return b"l" + entry.target
    return b"d" if entry is None or isinstance(entry, Directory) else b""


def check_chunks(chunks: tuple[Chunk, ...], packs: tuple[bytes, ...]) -> int:
    """Plain bytes that `chunks` add up to. Raises PeerFault when they point nowhere."""
    total, count = 0, len(packs)
    for chunk in chunks:
        if chunk.pack >= count or chunk.offset + chunk.stored > BLOB_BYTES_MAX:
            raise PeerFault("chunk reference that points nowhere")
        if chunk.codec == CODEC_RAW and chunk.stored != chunk.plain:
            raise PeerFault("raw chunk with two lengths")
        total += chunk.plain
    return total


def _check_entry(entry: Entry, body: FolderEntries) -> None:
    fault = path_fault(entry.path)
    if fault:
        raise PeerFault(fault)
    if isinstance(entry, File):
        total = check_chunks(entry.chunks, body.packs)
        if entry.recipe is None:
            if total != entry.size:
                raise PeerFault("file whose chunks do not add up")
        else:
            check_chunks(entry.recipe.segments, body.packs)
            if entry.chunks:
                raise PeerFault("file with both chunks and a recipe")
    elif isinstance(entry, Link) and b"\x00" in entry.target:
        raise PeerFault("link target with a NUL")
    for table_index, _ in entry.replaces:
        if table_index >= len(body.replaced):
            raise PeerFault("replaced version that points nowhere")


def _rank(version: Version) -> tuple[bool, int, VersionId]:
    entry = version.entry
    return isinstance(entry, File), entry.mtime_ns if isinstance(entry, File) else 0, version.id


class FolderState:
    """All live versions of one folder."""

    def __init__(self) -> None:
        self._register: Register[Version] = Register()
        self._shown: Tree | None = None
        """The newest tree, while it is free of conflicts and so needs no device names."""
        self._changed: set[bytes] = set()
        """Paths folded since then."""

    def fold(self, operation: OperationId, author: bytes, entries: bytes) -> None:
        """Fold one operation's entries. Raises PeerFault, with nothing changed, when any entry
        breaks the rules: the same verdict on every device."""
        body = decode_entries(FolderEntries, entries)
        for entry in body.entries:
            _check_entry(entry, body)
        self._register.fold(operation, _puts(operation, author, body))
        if self._shown is not None:
            self._changed.update(entry.path for entry in body.entries)

    def live(self, path: bytes) -> dict[VersionId, Version]:
        """Live versions of `path`, deletions included."""
        return self._register.live(path)

    def replaces(self, path: bytes, base: VersionId | None, same: bytes) -> tuple[VersionId, ...]:
        """What a change made on top of version `base`, whose identity is `same`, replaces: it, its
        twins, and deletions. Other contents stay live: they are conflicts to be kept."""
        found = set() if base is None else {base}
        for version_id, version in self.live(path).items():
            if isinstance(version.entry, Deleted) or identity(version.entry) == same:
                found.add(version_id)
        return tuple(sorted(found)[:REPLACES_MAX])

    def tree(self, label: Callable[[bytes], str]) -> Tree:
        """The directory tree, parents not necessarily before children. `label` names a device.

        The caller's own; nodes that have not changed are the same objects as last time.
        """
        shown, changed = self._shown, self._changed
        self._shown, self._changed = None, set()
        if shown is None or not all(self._amend(shown, path) for path in sorted(changed)):
            shown, conflicts = self._whole_tree(label)
            if conflicts:
                return shown
        self._shown = shown
        return dict(shown)

    def _amend(self, tree: Tree, path: bytes) -> bool:
        """Bring one path of a tree without conflicts up to date; False where that takes the whole:
        conflicts, and directories that come or go with what lives in them."""
        before = tree.get(path)
        was_directory = before is not None and _is_directory(before)
        living = [v for v in self.live(path).values() if not isinstance(v.entry, Deleted)]
        parent = parent_of(path)
        above = tree.get(parent) if parent else None
        if len(living) > 1 or (parent and not (above and _is_directory(above))):
            return False
        if living:
            if before is not None and was_directory != isinstance(living[0].entry, Directory):
                return False
            if before is None or before.version is not living[0]:
                tree[path] = Node(path, path, living[0])
        elif was_directory or (above is not None and above.version is None):
            return False
        elif before is not None:
            del tree[path]
        return True

    def _whole_tree(self, label: Callable[[bytes], str]) -> tuple[Tree, bool]:
        """The tree, and whether it has conflicts."""
        alive: dict[bytes, list[Version]] = {}
        directories: set[bytes] = set()
        for path, versions in self._register:
            living = [v for v in versions.values() if not isinstance(v.entry, Deleted)]
            if not living:
                continue
            alive[path] = living
            if any(isinstance(v.entry, Directory) for v in living):
                directories.add(path)
            parent = parent_of(path)
            while parent and parent not in directories:
                directories.add(parent)
                parent = parent_of(parent)
        tree: Tree = {}
        losers: list[tuple[bytes, bytes, Version]] = []
        for path, living in alive.items():
            winner = _winner(living, path in directories)
            tree[path] = Node(path, path, winner)
            if len(living) > 1 or winner is None:
                losers += _losers(path, living, winner)
        for path in directories:
            if path not in tree:
                tree[path] = Node(path, path, None)
        for path, _, version in sorted(losers, key=lambda loser: loser[:2]):
            full_id = hash_bytes(version.id[0] + version.id[1].to_bytes(4, "big")).hex()
            copy = free_conflict_path(path, label(version.author), full_id, tree)
            tree[copy] = Node(copy, path, version)
        return tree, bool(losers)

    def __len__(self) -> int:
        return len(self._register)


def _is_directory(node: Node) -> bool:
    return node.version is None or isinstance(node.version.entry, Directory)


def _puts(operation: OperationId, author: bytes, body: FolderEntries) -> Iterator[Put[Version]]:
    replaced, packs = body.replaced, body.packs
    for index, entry in enumerate(body.entries):
        victims = [(replaced[table], place) for table, place in entry.replaces]
        yield entry.path, index, victims, Version((operation, index), author, entry, packs)


def _winner(living: list[Version], is_directory: bool) -> Version | None:
    if is_directory:
        directories = [v for v in living if isinstance(v.entry, Directory)]
        return max(directories, key=lambda v: v.id) if directories else None
    return living[0] if len(living) == 1 else max(living, key=_rank)


def _losers(
    path: bytes, living: list[Version], winner: Version | None
) -> Iterator[tuple[bytes, bytes, Version]]:
    """One version for each content that did not get the name."""
    kept = identity(winner.entry if winner else None)
    others: dict[bytes, Version] = {}
    for version in living:
        same = identity(version.entry)
        if same != kept and (same not in others or _rank(others[same]) < _rank(version)):
            others[same] = version
    for same, version in others.items():
        yield path, same, version


def tree_digest(tree: Tree) -> bytes:
    """BLAKE3 over everything a person can see of a tree: equal trees, equal digests."""
    parts = []
    for path in sorted(tree):
        version = tree[path].version
        entry = version.entry if version else None
        mode = entry.mode if isinstance(entry, File | Directory) else 0
        seen = identity(entry)
        parts.append(
            b"%d %s %d %s %o\n" % (len(path), path, len(seen), seen, mode),
        )
    return hash_bytes(b"".join(parts))
