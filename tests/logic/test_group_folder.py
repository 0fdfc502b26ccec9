"""The folder reducer: order never matters, conflicts keep both sides, big folders fold fast."""

from __future__ import annotations

import gc
import resource
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import NAME_BYTES_MAX, OPERATION_BYTES_MAX, PATH_BYTES_MAX
from holdfast.logic.group.changeset import (
    ENTRIES_BYTES_MAX,
    Change,
    Changeset,
    Deletion,
    DirectoryChange,
    FileChange,
    LinkChange,
    Piece,
    to_pieces,
)
from holdfast.logic.group.folder import (
    Chunk,
    File,
    FolderEntries,
    FolderState,
    content_digest,
    identity,
    tree_digest,
)
from holdfast.logic.group.operation import VersionId, decode_entries, encode_entries
from holdfast.logic.group.paths import STAGING_NAME, conflict_path, path_fault

A, B = b"a" * 32, b"b" * 32
LABELS = {A: "laptop", B: "phone"}


def label(device: bytes) -> str:
    return LABELS.get(device, "?")


def piece(content: bytes) -> Piece:
    return Piece(
        hash_bytes(b"pack" + content), 0, len(content), len(content), 0, hash_bytes(content)
    )


def file(path: bytes, content: bytes, *replaces: VersionId, mtime_ns: int = 0) -> FileChange:
    pieces = (piece(content),) if content else ()
    return FileChange(path, replaces, 0o644, mtime_ns, len(content), pieces)


def entries(*changes: Change) -> bytes:
    changeset = Changeset()
    for change in changes:
        assert changeset.add(change) is not None
    return changeset.finish()


class Log:
    """Operations by a made-up id, folded in the order in which they are written or delivered."""

    def __init__(self) -> None:
        self.operations: list[tuple[bytes, bytes, bytes]] = []

    def write(self, author: bytes, *changes: Change) -> bytes:
        body = entries(*changes)
        operation = hash_bytes(author + body)
        self.operations.append((operation, author, body))
        return operation

    def state(self, order: Any = None) -> FolderState:
        state = FolderState()
        for index in order if order is not None else range(len(self.operations)):
            state.fold(*self.operations[index])
        return state


def shown(state: FolderState) -> dict[bytes, bytes]:
    return {
        path: identity(n.version.entry if n.version else None)
        for path, n in state.tree(label).items()
    }


def of(content: bytes) -> bytes:
    return b"f" + (hash_bytes(content) if content else content_digest(()))


# --- conflicts -----------------------------------------------------------------------------------
def test_an_edit_replaces_what_it_was_made_on() -> None:
    log = Log()
    first = log.write(A, file(b"x", b"1"))
    log.write(B, file(b"x", b"2", (first, 0)))
    assert shown(log.state()) == {b"x": of(b"2")}
    assert shown(log.state([1, 0])) == {b"x": of(b"2")}


def test_two_edits_at_once_keep_both() -> None:
    log = Log()
    base = log.write(A, file(b"d/x.txt", b"1"))
    log.write(A, file(b"d/x.txt", b"from a", (base, 0), mtime_ns=5))
    log.write(B, file(b"d/x.txt", b"from b", (base, 0), mtime_ns=9))
    tree = shown(log.state())
    assert tree.pop(b"d") == b"d"
    assert tree.pop(b"d/x.txt") == of(b"from b"), "the newest keeps the name"
    [(copy, content)] = tree.items()
    assert content == of(b"from a")
    assert copy.startswith(b"d/x (conflict, laptop, ")
    assert copy.endswith(b").txt")


def test_deleting_a_conflict_copy_settles_it() -> None:
    log = Log()
    base = log.write(A, file(b"x", b"1"))
    loser = log.write(A, file(b"x", b"from a", (base, 0), mtime_ns=5))
    log.write(B, file(b"x", b"from b", (base, 0), mtime_ns=9))
    log.write(B, Deletion(b"x", ((loser, 0),)))
    assert shown(log.state()) == {b"x": of(b"from b")}


def test_an_edit_survives_a_delete_at_the_same_time() -> None:
    log = Log()
    base = log.write(A, file(b"x", b"1"))
    log.write(A, Deletion(b"x", ((base, 0),)))
    log.write(B, file(b"x", b"2", (base, 0)))
    assert shown(log.state()) == {b"x": of(b"2")}
    state = log.state()
    assert len(state.replaces(b"x", None, of(b"2"))) == 2, "the next edit also clears the deletion"


def test_equal_content_is_no_conflict() -> None:
    log = Log()
    log.write(A, file(b"x", b"same", mtime_ns=1))
    log.write(B, file(b"x", b"same", mtime_ns=2))
    state = log.state()
    assert shown(state) == {b"x": of(b"same")}
    assert len(state.replaces(b"x", None, of(b"same"))) == 2


def test_a_directory_keeps_its_name_against_a_file() -> None:
    log = Log()
    log.write(A, DirectoryChange(b"x", (), 0o755), file(b"x/inside", b"1"))
    log.write(B, file(b"x", b"I am a file", mtime_ns=10**18))
    tree = shown(log.state())
    assert tree[b"x"] == b"d"
    assert tree[b"x/inside"] == of(b"1")
    assert of(b"I am a file") in tree.values()
    assert len(tree) == 3


def test_a_directory_deleted_under_a_new_file_stays() -> None:
    log = Log()
    made = log.write(A, DirectoryChange(b"d", (), 0o700))
    log.write(A, Deletion(b"d", ((made, 0),)))
    log.write(B, file(b"d/new", b"1"))
    assert shown(log.state()) == {b"d": b"d", b"d/new": of(b"1")}


def test_a_version_of_one_path_cannot_replace_another_path() -> None:
    log = Log()
    first = log.write(A, file(b"x", b"1"), file(b"y", b"2"))
    log.write(B, Deletion(b"x", ((first, 1),)))
    for order in ([0, 1], [1, 0]):
        assert shown(log.state(order)) == {b"x": of(b"1"), b"y": of(b"2")}


def test_a_copy_never_takes_the_name_of_a_real_file() -> None:
    log = Log()
    log.write(A, file(b"x", b"old", mtime_ns=1))
    log.write(B, file(b"x", b"new", mtime_ns=2))
    [copy] = log.state().tree(label).keys() - {b"x"}
    log.write(B, file(copy, b"a real file of that name"))
    tree = shown(log.state())
    assert tree[copy] == of(b"a real file of that name")
    assert sorted(tree.values()) == sorted([of(b"old"), of(b"new"), tree[copy]])


# --- any order -----------------------------------------------------------------------------------
PATHS = [b"a", b"a/b", b"a/b/c", b"d", b"\xff\n", b"a/b (conflict, laptop, 00)"]


@st.composite
def histories(draw: st.DrawFn) -> Log:
    """Devices write on top of whatever part of the log they have seen."""
    log = Log()
    for _ in range(draw(st.integers(1, 8))):
        author = draw(st.sampled_from([A, B]))
        count = len(log.operations)
        seen = log.state(draw(st.lists(st.integers(0, count - 1), unique=True)) if count else [])
        changes: list[Change] = []
        for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=4)):
            live = sorted(seen.live(path))
            kept = draw(st.lists(st.sampled_from(live), unique=True)) if live else []
            changes.append(draw(change_of(path, tuple(kept))))
        log.write(author, *changes)
    return log


def change_of(path: bytes, replaces: tuple[VersionId, ...]) -> st.SearchStrategy[Change]:
    return st.one_of(
        st.builds(
            lambda content, mtime: file(path, content, *replaces, mtime_ns=mtime),
            st.sampled_from([b"", b"1", b"2"]),
            st.integers(0, 2),
        ),
        st.just(DirectoryChange(path, replaces, 0o755)),
        st.just(LinkChange(path, replaces, b"../away")),
        st.just(Deletion(path, replaces)),
    )


@settings(max_examples=200, deadline=None)
@given(log=histories(), data=st.data())
def test_any_order_and_any_duplication_fold_to_one_state(log: Log, data: st.DataObject) -> None:
    count = len(log.operations)
    order = list(data.draw(st.permutations(range(count))))
    order += data.draw(st.lists(st.integers(0, count - 1)))
    expected, got = log.state(), log.state(order)
    for path in PATHS:
        assert got.live(path) == expected.live(path)
    assert got.tree(label) == expected.tree(label)
    assert tree_digest(got.tree(label)) == tree_digest(expected.tree(label))


@settings(max_examples=100, deadline=None)
@given(log=histories())
def test_a_tree_can_be_laid_out_on_a_disk(log: Log) -> None:
    """Every parent is there and is a directory, every content is kept under some name."""
    state = log.state()
    tree = state.tree(label)
    for path in tree:
        assert not path_fault(path)
        parent = path.rpartition(b"/")[0]
        assert (
            not parent
            or identity(tree[parent].version.entry if tree[parent].version else None) == b"d"
        )
    kept = {identity(n.version.entry if n.version else None) for n in tree.values()}
    for path in PATHS:
        assert {identity(v.entry) for v in state.live(path).values()} - {b""} <= kept


# --- borders -------------------------------------------------------------------------------------
BAD_PATHS = [
    b"",
    b"/etc/passwd",
    b"../x",
    b"a/../../x",
    b"a//b",
    b"a/",
    b".",
    b"a/./b",
    b"a\x00b",
    STAGING_NAME + b"/x",
    b"n" * (NAME_BYTES_MAX + 1),
    b"/".join([b"n" * 200] * 30),
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_leaves_the_folder_is_refused(path: bytes) -> None:
    body = encode_entries({"packs": [], "replaced": [], "entries": [[4, path, []]]})
    with pytest.raises(PeerFault):
        FolderState().fold(b"o" * 32, A, body)


def chunk(**changes: Any) -> list[Any]:
    fields: dict[str, Any] = {
        "pack": 0,
        "offset": 0,
        "stored": 5,
        "plain": 5,
        "codec": 0,
        "hash": b"h" * 32,
    }
    return list({**fields, **changes}.values())


@pytest.mark.parametrize(
    "entry",
    [
        [1, b"x", [], 0o644, 0, 6, [chunk()], None],
        [1, b"x", [], 0o4755, 0, 5, [chunk()], None],
        [1, b"x", [], 0o644, 0, 5, [chunk(pack=1)], None],
        [1, b"x", [], 0o644, 0, 5, [chunk(stored=4)], None],
        [1, b"x", [], 0o644, 0, 5, [chunk(codec=2)], None],
        [1, b"x", [], 0o644, 0, 5, [chunk(hash=b"h")], None],
        [1, b"x", [], 0o644, 0, 5, [chunk(offset=2**20)], None],
        [1, b"x", [], 0o644, 0, 2**63, [chunk()], None],
        [1, b"x", [], 0o644, 0, 5, [chunk()], [b"d" * 32, [chunk()]]],
        [1, b"x", [[0, 0]], 0o644, 0, 5, [chunk()], None],
        [3, b"x", [], b""],
        [3, b"x", [], b"a\x00b"],
        [4, b"x"],
        [5, b"x", []],
    ],
)
def test_an_impossible_entry_is_refused_whole(entry: list[Any]) -> None:
    good = [2, b"good", [], 0o755]
    body = encode_entries({"packs": [b"p" * 32], "replaced": [], "entries": [good, entry]})
    state = FolderState()
    with pytest.raises(PeerFault):
        state.fold(b"o" * 32, A, body)
    assert not len(state)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_a_peer_fault_and_nothing_else(data: bytes) -> None:
    try:
        FolderState().fold(b"o" * 32, A, data)
    except PeerFault:
        return


NAMES = st.binary(min_size=1, max_size=NAME_BYTES_MAX).filter(lambda n: not path_fault(n))


@given(NAMES, st.text(max_size=40), st.sampled_from(["a1b2c3", "f" * 64]))
def test_conflict_names_are_names(name: bytes, device: str, short: str) -> None:
    copy = conflict_path(b"dir/" + name, device, short)
    assert not path_fault(copy)
    assert copy.startswith(b"dir/")
    assert short.encode() in copy


def test_conflict_names_read_well() -> None:
    assert conflict_path(b"a/x.tar.gz", "my phone", "1f") == b"a/x.tar (conflict, my phone, 1f).gz"
    assert conflict_path(b".bashrc", "pc", "1f") == b".bashrc (conflict, pc, 1f)"
    long = conflict_path("ä".encode() * 127, "pc", "1f")
    assert len(long) <= NAME_BYTES_MAX
    long.decode()
    deep = b"/".join([b"d" * 250] * 16)
    assert len(conflict_path(deep + b"/" + b"n" * 75, "pc", "1f")) <= PATH_BYTES_MAX


# --- changesets ----------------------------------------------------------------------------------
def test_a_changeset_is_cut_to_the_size_of_an_operation() -> None:
    first = b"o" * 32
    changes: list[Change] = [
        file(b"dir/%08d" % i, b"%d" % i, (hash_bytes(b"%d" % i), i)) for i in range(20_000)
    ]
    bodies, changeset, placed = [], Changeset(), 0
    for change in changes:
        if changeset.add(change) is None:
            bodies.append(changeset.finish())
            changeset = Changeset()
            assert changeset.add(change) == 0
        placed += 1
    bodies.append(changeset.finish())
    assert placed == len(changes)
    assert all(len(body) <= ENTRIES_BYTES_MAX < OPERATION_BYTES_MAX for body in bodies)
    assert len(bodies[0]) > ENTRIES_BYTES_MAX - 4096, "operations are filled"
    state = FolderState()
    for index, body in enumerate(bodies):
        state.fold(first[:31] + bytes((index,)), A, body)
    assert len(state) == len(changes)
    node = state.tree(label)[b"dir/00019999"]
    assert node.version
    assert isinstance(node.version.entry, File)
    assert to_pieces(node.version.entry.chunks, node.version.packs) == (piece(b"19999"),)


def test_tables_name_a_repeated_id_once() -> None:
    one, two = piece(b"one"), piece(b"two")
    shared = msgspec.structs.replace(two, pack=one.pack, offset=3)
    body = entries(
        FileChange(b"x", ((A, 0),), 0o600, 0, 6, (one, shared)),
        FileChange(b"y", ((A, 1),), 0o600, 0, 3, (shared,)),
    )
    decoded = decode_entries(FolderEntries, body)
    assert decoded.packs == (one.pack,)
    assert decoded.replaced == (A,)
    assert decoded.entries[1].replaces == ((0, 1),)
    chunks = decoded.entries[0].chunks if isinstance(decoded.entries[0], File) else ()
    assert [c.pack for c in chunks] == [0, 0]
    assert isinstance(chunks[0], Chunk)


def test_a_file_cannot_pose_as_the_chunks_of_another() -> None:
    one, two = hash_bytes(b"one"), hash_bytes(b"two")
    assert content_digest((one, two)) != hash_bytes(one + two)
    assert content_digest((one,)) == one


def test_fifty_thousand_entries_fold_fast() -> None:
    """The folder of seed 004's size class: 50,000 files, one state, under 1.5 s."""
    bodies, changeset = [], Changeset()
    for i in range(50_000):
        content = piece(b"%d" % i)
        change = FileChange(
            b"lib/python3.11/site-packages/package%d/module%d.py" % (i // 100, i),
            (),
            0o644,
            1_700_000_000_000_000_000 + i,
            content.plain,
            (content,),
        )
        if changeset.add(change) is None:
            bodies.append(changeset.finish())
            changeset = Changeset()
            changeset.add(change)
    bodies.append(changeset.finish())
    gc.collect()
    start = resource.getrusage(resource.RUSAGE_THREAD)
    state = FolderState()
    for index, body in enumerate(bodies):
        state.fold(index.to_bytes(32, "big"), A, body)
    tree = state.tree(label)
    end = resource.getrusage(resource.RUSAGE_THREAD)
    seconds = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    assert len(tree) == 50_000 + 500 + 3
    print(f"50,000 entries in {len(bodies)} operations folded in {seconds:.2f} s of CPU")
    assert seconds < 1.5


NAMES = (b"a", b"b", b"a/x", b"a/y", b"b/x", b"a/x/deep")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(("file", "directory", "delete")),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=24,
)


@given(STEPS)
@settings(max_examples=400, deadline=None)
def test_a_tree_kept_up_to_date_is_the_tree_made_anew(
    steps: list[tuple[bytes, str, int, bool]],
) -> None:
    state, folded = FolderState(), []
    before = state.tree(label)
    for number, (path, kind, content, concurrent) in enumerate(steps):
        live = () if concurrent else tuple(sorted(state.live(path)))
        change: Change
        if kind == "file":
            change = file(path, b"%d" % content, *live, mtime_ns=number)
        elif kind == "directory":
            change = DirectoryChange(path, live, 0o755)
        else:
            change = Deletion(path, live)
        operation = hash_bytes(b"%d" % number)
        folded.append((operation, A if content % 2 else B, entries(change)))
        state.fold(*folded[-1])
        kept, tree = dict(before), state.tree(label)
        assert before == kept, "a tree once given does not change"
        anew = FolderState()
        for item in folded:
            anew.fold(*item)
        assert tree == anew.tree(label)
        before = tree


def test_nodes_that_did_not_change_are_the_same_objects() -> None:
    state = FolderState()
    state.fold(b"1" * 32, A, entries(DirectoryChange(b"d", (), 0o755), file(b"d/a", b"1")))
    before = state.tree(label)
    state.fold(b"2" * 32, A, entries(file(b"d/b", b"2")))
    after = state.tree(label)
    assert after.keys() - before.keys() == {b"d/b"}
    assert all(after[path] is node for path, node in before.items())
