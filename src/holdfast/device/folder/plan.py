"""The difference between what is on disk and what the log shows, as work to do.

A plan is made from the index (what was in step at the last scan) and the reducer's tree. It never
looks at the disk: whoever carries it out compares each name with its row before touching it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.device.folder.decide import kind_of, mode_of
from holdfast.device.folder.index import DIRECTORY, FILE, LINK, Row
from holdfast.device.folder.scan import is_busy
from holdfast.logic.group.folder import File, Link, Node, Tree, identity
from holdfast.logic.group.paths import STAGING_NAME

IMPLIED_MODE = 0o755
"""Permissions of a directory that nobody recorded, or whose record was deleted under a new file:
the same everywhere."""


class FileTask(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A file whose content must be put at `node.path`, over `row` if there is one."""

    node: Node
    entry: File
    identity: bytes
    row: Row | None

    @property
    def path(self) -> bytes:
        return self.node.path

    @property
    def is_long(self) -> bool:
        """Whether it has several chunks."""
        return self.entry.recipe is not None or len(self.entry.chunks) > 1

    @property
    def staged(self) -> bytes:
        """Where it is put together: the same name on every try, so that a try can be resumed."""
        version = self.node.version
        assert version is not None
        name = hash_bytes(b"%s %d %s" % (version.id[0], version.id[1], self.node.path))
        return STAGING_NAME + b"/" + name[:20].hex().encode()


class Plan(msgspec.Struct):
    """Work, in the order in which it is done."""

    in_the_way: list[Row] = []
    """Files where a directory must be, directories where something else must be, and what is in
    them; deepest first."""
    directories: list[Node] = []
    """To be made; parents first."""
    links: list[tuple[Node, Row | None]] = []
    files: list[FileTask] = []
    modes: list[tuple[Node, Row]] = []
    """Same content: only permissions, time or version differ."""
    removals: list[Row] = []
    """Deepest first."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.in_the_way
            or self.directories
            or self.links
            or self.files
            or self.modes
            or self.removals
        )

    def bytes(self) -> int:
        """Content to be put in place."""
        return sum(task.entry.size for task in self.files)


def make_plan(
    rows: dict[bytes, Row],
    tree: Tree,
    busy: Iterable[bytes] = (),
    only: set[bytes] | None = None,
) -> Plan:
    """What must be done so that the disk shows `tree`; names in `busy` are left alone. `only` those
    names are looked at where every other is known to be as the tree shows it."""
    plan = Plan([], [], [], [], [], [])
    blocked = set(busy)
    removed: list[Row] = []
    turned: set[bytes] = set()
    for path in sorted(tree if only is None else only & tree.keys()):
        if is_busy(path, blocked):
            continue
        node, row = tree[path], rows.get(path)
        entry = node.version.entry if node.version else None
        kind = kind_of(entry)
        if row is not None and row.kind != kind and DIRECTORY in (row.kind, kind):
            turned.add(path)
            removed.append(row)
            row = None
        _place(plan, node, row, kind, identity(entry))
    known = rows.items() if only is None else [(p, rows[p]) for p in only if p in rows]
    removed += [r for p, r in known if p not in tree and not is_busy(p, blocked)]
    for row in sorted(removed, key=lambda r: r.path, reverse=True):
        where = plan.in_the_way if is_busy(row.path, turned) else plan.removals
        where.append(row)
    return plan


def _place(plan: Plan, node: Node, row: Row | None, kind: int, same: bytes) -> None:
    if row is not None and row.kind == kind and row.identity == same:
        if _differs(node, row):
            plan.modes.append((node, row))
    elif kind == DIRECTORY:
        plan.directories.append(node)
    elif kind == LINK:
        plan.links.append((node, row))
    else:
        assert kind == FILE
        assert node.version is not None
        assert isinstance(node.version.entry, File)
        plan.files.append(FileTask(node, node.version.entry, same, row))


def _differs(node: Node, row: Row) -> bool:
    version = node.version
    if version is None:
        return row.version is not None or row.mode != IMPLIED_MODE
    mode = mode_of(version.entry)
    return row.version != version.id or (mode is not None and mode != row.mode)


def doomed(plan: Plan) -> Iterator[Row]:
    """Rows of regular files whose names the plan takes away: their content may be moved."""
    for row in (*plan.in_the_way, *plan.removals):
        if row.kind == FILE:
            yield row
    for task in plan.files:
        if task.row is not None and task.row.kind == FILE:
            yield task.row


def link_target(node: Node) -> bytes:
    """Target of a link to be made."""
    assert node.version is not None
    assert isinstance(node.version.entry, Link)
    return node.version.entry.target
