"""The log of a group: its graph, its members, what an older device does with newer operations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import PeerFault
from holdfast.limits import PARENTS_MAX
from holdfast.logic.group.changeset import Changeset, DirectoryChange
from holdfast.logic.group.dag import Dag
from holdfast.logic.group.folder import tree_digest
from holdfast.logic.group.keyring import Dropped, Key, KeyringEntries
from holdfast.logic.group.members import Added, Genesis, MemberEntries, Profile
from holdfast.logic.group.operation import (
    Kind,
    Operation,
    check_operation,
    encode_entries,
    group_id,
    operation_id,
)
from holdfast.logic.group.reducer import GroupState, Outcome

ALICE, BOB, CAROL, MALLORY = (bytes((n,)) * 32 for n in (1, 2, 3, 4))
NONCE = b"n" * 32
GROUP = group_id(ALICE, NONCE)

Op = tuple[bytes, Operation]


def op(author: bytes, kind: str, entries: Any, *parents: bytes, version: int = 1) -> Op:
    data = entries if isinstance(entries, bytes) else encode_entries(entries)
    body = Operation(GROUP, author, tuple(sorted(parents)), kind, version, data)
    return operation_id(encode_entries(body), author, bytes(64)), body


GENESIS = op(ALICE, Kind.GENESIS, Genesis(NONCE, "alice's laptop"))
ADD_BOB = op(ALICE, Kind.MEMBER, MemberEntries((Added(BOB, "bob"),)), GENESIS[0])
ADD_CAROL = op(BOB, Kind.MEMBER, MemberEntries((Added(CAROL, "carol"),)), ADD_BOB[0])


def folder(author: bytes, path: bytes, *parents: bytes) -> Op:
    changeset = Changeset()
    changeset.add(DirectoryChange(path, (), 0o755))
    return op(author, Kind.FOLDER, changeset.finish(), *(parents or (GENESIS[0],)))


def state_of(*operations: Op) -> GroupState:
    state = GroupState(GROUP)
    for operation, body in operations:
        state.add(operation, body)
    return state


# --- members -------------------------------------------------------------------------------------
def test_members_are_those_added_by_members() -> None:
    state = state_of(GENESIS, ADD_BOB, ADD_CAROL)
    assert [m.device for m in state.members.all()] == [ALICE, BOB, CAROL]
    assert state.members.label(BOB) == "bob"


def test_what_a_stranger_writes_waits_until_somebody_adds_them() -> None:
    by_carol = folder(CAROL, b"hers")
    state = state_of(GENESIS, by_carol)
    assert not state.tree()
    assert state.waiting() == (CAROL,)
    assert state.add(*ADD_CAROL) is Outcome.WAITING
    assert state.add(*ADD_BOB) is Outcome.FOLDED
    assert list(state.tree()) == [b"hers"]
    assert state.waiting() == ()


def test_a_stranger_cannot_add_themselves() -> None:
    forged = op(MALLORY, Kind.MEMBER, MemberEntries((Added(MALLORY, "me"),)), GENESIS[0])
    state = state_of(GENESIS, forged, folder(MALLORY, b"theirs"))
    assert MALLORY not in state.members
    assert not state.tree()


def test_only_the_founder_can_make_the_genesis() -> None:
    forged = op(MALLORY, Kind.GENESIS, Genesis(NONCE, "mallory"))
    state = GroupState(GROUP)
    assert state.add(*forged) is Outcome.FAULTY
    assert state.add(*GENESIS) is Outcome.FOLDED
    assert [m.device for m in state.members.all()] == [ALICE]


def test_a_device_names_itself_and_others_cannot_outrank_it() -> None:
    named = op(BOB, Kind.MEMBER, MemberEntries((Profile(1, "bob's phone"),)), ADD_BOB[0])
    again = op(ALICE, Kind.MEMBER, MemberEntries((Added(BOB, "zzz"),)), ADD_BOB[0])
    for order in ([GENESIS, ADD_BOB, named, again], [again, named, ADD_BOB, GENESIS]):
        state = state_of(*order)
        assert state.members.label(BOB) == "bob's phone"
        assert state.members.next_n(BOB) == 2


def test_the_group_writes_the_lowest_format_that_all_fold() -> None:
    """D19: raised once all devices advertise it."""
    old = op(ALICE, Kind.MEMBER, MemberEntries((Added(BOB, "bob", 1),)), GENESIS[0])
    assert state_of(GENESIS, old).members.format() == 1


@pytest.mark.parametrize("bad", ["x" * 65, "two\nlines", "\x00"])
def test_a_label_that_is_no_label_is_refused(bad: str) -> None:
    body = {"entries": [[1, BOB, bad, 1]]}
    state = state_of(GENESIS)
    assert state.add(*op(ALICE, Kind.MEMBER, body, GENESIS[0])) is Outcome.FAULTY
    assert BOB not in state.members


# --- versions ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "version"), [("folder", 2), ("poll", 1)])
def test_an_older_device_stores_without_folding_and_says_so(kind: str, version: int) -> None:
    """D19."""
    newer = op(ALICE, kind, b"\xc0 anything", GENESIS[0], version=version)
    child = folder(ALICE, b"after", newer[0])
    state = state_of(GENESIS, newer, child)
    assert state.update_needed() == ((kind, version),)
    assert newer[0] in state.dag
    assert list(state.tree()) == [b"after"], "what it knows it still folds"
    assert not state.faults


def test_a_faulty_operation_is_kept_and_never_folded() -> None:
    bad = op(ALICE, Kind.FOLDER, b"garbage", GENESIS[0])
    state = state_of(GENESIS, bad)
    assert list(state.faults) == [bad[0]]
    assert state.add(*bad) is Outcome.DUPLICATE


# --- what must hold before folding ---------------------------------------------------------------
def test_author_group_and_parents_are_checked() -> None:
    check_operation(ADD_BOB[1], GROUP, ALICE)
    bad_parents = Operation(GROUP, ALICE, (b"b" * 32, b"a" * 32), Kind.FOLDER, 1, b"")
    orphan = Operation(GROUP, ALICE, (), Kind.FOLDER, 1, b"")
    for body, signer in ((ADD_BOB[1], BOB), (bad_parents, ALICE), (orphan, ALICE)):
        with pytest.raises(PeerFault):
            check_operation(body, GROUP, signer)
    with pytest.raises(PeerFault):
        check_operation(ADD_BOB[1], group_id(BOB, NONCE), ALICE)


# --- graph ---------------------------------------------------------------------------------------
def test_a_missing_parent_is_known_and_can_be_named_a_gap() -> None:
    """D18: a parent missing after all servers are exhausted is a named gap."""
    dag = Dag()
    assert dag.add(b"child", [b"parent"])
    assert dag.missing() == (b"parent",)
    dag.name_gap(b"parent")
    assert dag.missing() == ()
    assert dag.gaps() == (b"parent",)
    assert dag.add(b"parent", [])
    assert dag.gaps() == ()
    assert dag.heads() == {b"child"}
    assert not dag.add(b"parent", [])


@given(st.data())
def test_heads_and_missing_do_not_depend_on_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    edges = {
        b"%d" % i: data.draw(st.lists(st.integers(0, i - 1), unique=True) if i else st.just([]))
        for i in range(count)
    }
    absent = {b"%d" % i for i in data.draw(st.sets(st.integers(0, count - 1)))}
    seen = set()
    for _ in range(2):
        dag = Dag()
        for name in data.draw(st.permutations(sorted(edges.keys() - absent))):
            dag.add(name, [b"%d" % parent for parent in edges[name]])
        seen.add((dag.heads(), dag.missing()))
    assert len(seen) == 1


def test_parents_are_bounded_and_none_is_forgotten() -> None:
    dag = Dag()
    for i in range(PARENTS_MAX + 5):
        dag.add(b"%032d" % i, [])
    parents = dag.parents()
    assert len(parents) == PARENTS_MAX
    dag.add(b"merge", parents)
    assert len(dag.parents()) == 6


# --- any order -----------------------------------------------------------------------------------
@settings(max_examples=150)
@given(st.data())
def test_the_state_of_a_group_does_not_depend_on_order(data: st.DataObject) -> None:
    operations = [
        GENESIS,
        ADD_BOB,
        ADD_CAROL,
        op(CAROL, Kind.MEMBER, MemberEntries((Profile(3, "c3"), Profile(2, "c2"))), GENESIS[0]),
        op(MALLORY, Kind.MEMBER, MemberEntries((Added(MALLORY, "m"),)), GENESIS[0]),
        folder(CAROL, b"hers"),
        folder(MALLORY, b"theirs"),
        op(BOB, Kind.FOLDER, b"garbage", GENESIS[0]),
    ]
    order = list(data.draw(st.permutations(operations)))
    order += data.draw(st.lists(st.sampled_from(operations)))
    state, expected = state_of(*order), state_of(*operations)
    assert state.members.all() == expected.members.all()
    assert tree_digest(state.tree()) == tree_digest(expected.tree())
    assert state.waiting() == expected.waiting() == (MALLORY,)
    assert state.faults == expected.faults
    assert state.dag.heads() == expected.dag.heads()


# --- keyring -------------------------------------------------------------------------------------
def key(name: str, *replaces: tuple[bytes, int], era: int = 0, group: bytes = b"g" * 32) -> Key:
    return Key(group, replaces, "folder", name, era, b"s" * 32, b"l" * 16, b"w" * 16)


def ring(*entries: Key | Dropped) -> Op:
    return op(ALICE, Kind.KEYRING, KeyringEntries(entries), GENESIS[0])


def test_the_keyring_gives_one_answer() -> None:
    first = ring(key("photos"))
    renamed = ring(key("pictures", (first[0], 0)))
    rekeyed = ring(key("photos", (first[0], 0), era=1))
    dropped = ring(Dropped(b"g" * 32, ((first[0], 0),)))
    for order in ([first, renamed, rekeyed, dropped], [dropped, rekeyed, renamed, first]):
        keyring = state_of(GENESIS, *order).keyring
        found = keyring.get(b"g" * 32)
        assert found is not None
        assert found.era == 1, "the newest era wins, and a removal loses"
        assert len(keyring.replaces(b"g" * 32)) == 3
        assert keyring.all() == (found,)
    assert b"s" * 8 not in repr(found).encode(), "the secret is in no log"


def test_a_dropped_group_is_gone() -> None:
    first = ring(key("photos"))
    dropped = ring(Dropped(b"g" * 32, ((first[0], 0),)))
    keyring = state_of(GENESIS, first, dropped).keyring
    assert keyring.get(b"g" * 32) is None
    assert keyring.all() == ()
    other = ring(key("music", group=b"h" * 32))
    assert state_of(GENESIS, first, other).keyring.digest() != keyring.digest()
