"""What a difference on disk means: nothing, a version that exists already, or a new version.

A new version replaces what was on disk when the person changed it (the row), never what has arrived
since: that is a conflict, and both sides are kept. Content that the log already shows at that name,
or that this device itself recorded there just before it was killed, is adopted instead of recorded
again: a folder that was on both devices from the start costs no transfer and makes no conflicts.
"""

from __future__ import annotations

import msgspec

from holdfast.device.folder.index import DIRECTORY, FILE, LINK, Row, Stat, row_of
from holdfast.device.folder.scan import Seen, settled
from holdfast.logic.group.changeset import Deletion
from holdfast.logic.group.folder import Deleted, Directory, Entry, File, FolderState, Tree, identity
from holdfast.logic.group.operation import VersionId


class Decision(msgspec.Struct, frozen=True):
    """`row` is what the index is to hold; without `replaces` at once, with it when the version is
    recorded. `before` must be recorded along with it."""

    row: Row
    replaces: tuple[VersionId, ...] | None = None
    before: tuple[Deletion, ...] = ()


def kind_of(entry: Entry | None) -> int:
    """FILE, DIRECTORY or LINK; a directory nobody recorded is one too."""
    if isinstance(entry, File):
        return FILE
    return DIRECTORY if entry is None or isinstance(entry, Directory) else LINK


def mode_of(entry: Entry | None) -> int | None:
    """Permissions where they are recorded."""
    return entry.mode if isinstance(entry, File | Directory) else None


def _is_same(row: Row, stat: Stat, same: bytes) -> bool:
    """Whether a difference in stat alone brought us here."""
    if (row.kind, row.identity) != (stat.kind, same):
        return False
    return stat.kind == LINK or row.mode == stat.mode


class Decider:
    """Judges differences against the log as it stands; `device` is our own key."""

    def __init__(self, state: FolderState, tree: Tree, device: bytes, now_ns: int) -> None:
        self._state = state
        self._tree = tree
        self._device = device
        self._now_ns = now_ns

    def known(self, seen: Seen) -> tuple[bytes, ...]:
        """Identities of file content at this name that need not be stored."""
        found = {same for same, _, _ in self._adoptable(seen.path, seen.stat, seen.row)}
        row = seen.row
        if row is not None and row.kind == FILE and row.mode == seen.stat.mode:
            found.add(row.identity)
        return tuple(found)

    def decide(self, seen: Seen, found: Stat, same: bytes) -> Decision:
        """`found` and `same` are stat and identity of what was read."""
        path, row = seen.path, seen.row
        stat = settled(found, self._now_ns)
        if row is not None and _is_same(row, stat, same):
            return Decision(row_of(path, stat, same, row.version, row.logical))
        for known, version, logical in self._adoptable(path, stat, row):
            if known == same:
                return Decision(row_of(path, stat, same, version, logical))
        fresh = row_of(path, stat, same, None)
        if row is None:
            return Decision(fresh, self._state.replaces(path, None, b""))
        if row.logical != path:
            gone = self.deletion(row)
            before = () if gone is None else (gone,)
            return Decision(fresh, self._state.replaces(path, None, b""), before)
        return Decision(fresh, self._state.replaces(path, row.version, row.identity))

    def torn(self, seen: Seen, found: Stat, same: bytes) -> Decision:
        """A file cut short by a crash while we placed it: on disk, and a version of nothing."""
        return Decision(row_of(seen.path, settled(found, self._now_ns), same, None))

    def deletion(self, row: Row) -> Deletion | None:
        """What records that `row` is gone; None when that says nothing new."""
        live = self._state.live(row.logical)
        if row.version is None:
            return None
        twin = any(identity(v.entry) == row.identity for v in live.values())
        if row.version not in live and not twin:
            return None
        return Deletion(row.logical, self._state.replaces(row.logical, row.version, row.identity))

    def _adoptable(
        self, path: bytes, stat: Stat, row: Row | None
    ) -> list[tuple[bytes, VersionId, bytes]]:
        """(identity, version, logical path) of versions this name may turn out to be.

        Permissions must agree, or be left to the log when the name was never in step with it.
        """
        found = []
        node = self._tree.get(path)
        if node is not None and node.version is not None:
            entry = node.version.entry
            mode = mode_of(entry)
            if kind_of(entry) == stat.kind and (row is None or mode in (None, stat.mode)):
                found.append((identity(entry), node.version.id, node.logical))
        for version in self._state.live(path).values():
            entry = version.entry
            if version.author != self._device or isinstance(entry, Deleted):
                continue
            if kind_of(entry) == stat.kind and mode_of(entry) in (None, stat.mode):
                found.append((identity(entry), version.id, path))
        return found
