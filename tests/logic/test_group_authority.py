"""Adding and removing at the same time: p2panda's strong removal with Keyhive's tie-break (D16).

Issue 5: "All honest replicas fold to one state under any delivery order", "a removed member reads
nothing sent after; removal under partition included".
"""

from __future__ import annotations

import itertools

import pytest
from tests.logic.test_group_reducer import ALICE, BOB, CAROL, GROUP, MALLORY, NONCE, Op, op

from holdfast.limits.people import CLAIMS_MAX
from holdfast.logic.group import members
from holdfast.logic.group.authority import Level
from holdfast.logic.group.members import (
    Added,
    Entry,
    Genesis,
    MemberEntries,
    Profile,
    Rekey,
    Removed,
    Wrapping,
)
from holdfast.logic.group.operation import Kind
from holdfast.logic.group.reducer import GroupState, Outcome
from holdfast.sim.membership import NOTHING, Story, campaign

DAVE = b"\x05" * 32
GENESIS = op(ALICE, Kind.GENESIS, Genesis(NONCE, "alice", person=ALICE))


def says(author: bytes, *entries: Entry, after: tuple[Op, ...]) -> Op:
    return op(author, Kind.MEMBER, MemberEntries(entries), *(parent[0] for parent in after))


def adds(author: bytes, key: bytes, *after: Op, level: Level = Level.MANAGER) -> Op:
    return says(author, Added(key, "", level=level), after=after or (GENESIS,))


def removes(author: bytes, key: bytes, *after: Op) -> Op:
    return says(author, Removed(key), after=after)


def word(author: bytes, *after: Op) -> Op:
    return op(author, Kind.KEYRING, NOTHING, *(parent[0] for parent in after))


def fold(*operations: Op) -> GroupState:
    """In every order when there are few, and always the same."""
    orders = list(itertools.permutations(operations)) if len(operations) < 7 else [operations]
    states = []
    for order in orders:
        state = GroupState(GROUP)
        for operation, body in order:
            state.add(operation, body)
            if state.stale:
                state = GroupState.load(GROUP, order[: order.index((operation, body)) + 1])
        states.append(state)
    assert len({state.digest() for state in states}) == 1
    return states[0]


def keys(state: GroupState) -> list[bytes]:
    return [member.device for member in state.members.all()]


ADD_BOB, ADD_CAROL = adds(ALICE, BOB), adds(ALICE, CAROL)


# --- the four rules ------------------------------------------------------------------------------
def test_rule_1_a_removal_voids_what_its_target_claims_at_the_same_time() -> None:
    state = fold(GENESIS, ADD_BOB, removes(ALICE, BOB, ADD_BOB), adds(BOB, MALLORY, ADD_BOB))
    assert keys(state) == [ALICE]


def test_rule_1_what_the_target_claimed_before_stays() -> None:
    by_bob = adds(BOB, CAROL, ADD_BOB)
    assert keys(fold(GENESIS, ADD_BOB, by_bob, removes(ALICE, BOB, by_bob))) == [ALICE, CAROL]


def test_rule_1_a_demotion_voids_concurrent_claims_too() -> None:
    demoted = adds(ALICE, BOB, ADD_BOB, level=Level.WRITER)
    state = fold(GENESIS, ADD_BOB, demoted, adds(BOB, MALLORY, ADD_BOB), word(BOB, ADD_BOB))
    assert keys(state) == [ALICE, BOB]
    assert len(state.folded()) == 1, "a writer's words count all the same"


def test_rule_2_mutual_removals_both_hold() -> None:
    both = removes(ALICE, BOB, ADD_BOB, ADD_CAROL), removes(BOB, ALICE, ADD_BOB, ADD_CAROL)
    extra = adds(BOB, MALLORY, ADD_BOB, ADD_CAROL)
    assert keys(fold(GENESIS, ADD_BOB, ADD_CAROL, *both, extra)) == [CAROL]


def test_rule_3_led_in_again_and_what_was_void_stays_void() -> None:
    out = removes(ALICE, BOB, ADD_BOB)
    void, again = adds(BOB, MALLORY, ADD_BOB), adds(ALICE, BOB, out)
    later = adds(BOB, CAROL, again)
    assert keys(fold(GENESIS, ADD_BOB, out, void, again, later)) == [ALICE, BOB, CAROL]


def test_rule_4_what_leans_on_a_void_claim_is_void() -> None:
    void = adds(BOB, MALLORY, ADD_BOB)
    puppet = adds(MALLORY, DAVE, void)
    state = fold(GENESIS, ADD_BOB, removes(ALICE, BOB, ADD_BOB), void, puppet, word(DAVE, puppet))
    assert keys(state) == [ALICE]
    assert not state.folded()


def test_a_ring_is_cut_at_the_most_senior_removal() -> None:
    """Keyhive: nearest to the founder first; making more keys only takes one further away."""
    add_dave = adds(BOB, DAVE, ADD_BOB)
    top = (add_dave, ADD_CAROL)
    ring = removes(BOB, CAROL, *top), removes(CAROL, DAVE, *top), removes(DAVE, BOB, *top)
    state = fold(GENESIS, ADD_BOB, ADD_CAROL, add_dave, *ring)
    assert state.rings == 1
    assert BOB in state.members or CAROL in state.members
    junior = removes(DAVE, BOB, *top)
    assert junior[0] not in {claim.operation for claim in state.eras.removals} or (
        BOB not in state.members
    )
    for order in itertools.permutations(ring):
        assert fold(*order, GENESIS, ADD_BOB, ADD_CAROL, add_dave).digest() == state.digest()


# --- who may say what ----------------------------------------------------------------------------
def test_a_writer_neither_adds_nor_removes_but_leaves() -> None:
    add_bob = adds(ALICE, BOB, level=Level.WRITER)
    state = fold(GENESIS, add_bob, adds(BOB, MALLORY, add_bob), removes(BOB, ALICE, add_bob))
    assert keys(state) == [ALICE, BOB]
    assert keys(fold(GENESIS, add_bob, removes(BOB, BOB, add_bob))) == [ALICE]


def test_a_reader_does_not_write() -> None:
    add_bob = adds(ALICE, BOB, level=Level.READER)
    assert not fold(GENESIS, add_bob, word(BOB, add_bob)).folded()


def test_a_person_adds_and_removes_their_own_devices_and_nobody_elses() -> None:
    root = says(ALICE, Added(BOB, "root", level=Level.WRITER, person=BOB), after=(GENESIS,))
    phone = says(BOB, Added(CAROL, "phone", level=Level.WRITER, person=BOB), after=(root,))
    above = says(BOB, Added(MALLORY, "", level=Level.MANAGER, person=BOB), after=(root,))
    foreign = says(BOB, Added(DAVE, "", level=Level.WRITER, person=DAVE), after=(root,))
    assert keys(fold(GENESIS, root, phone, above, foreign)) == [ALICE, BOB, CAROL]
    gone = removes(CAROL, BOB, phone)
    assert BOB in fold(GENESIS, root, phone, gone).members, "no device removes its own root"
    lost = removes(BOB, CAROL, phone)
    assert keys(fold(GENESIS, root, phone, lost, word(CAROL, phone))) == [ALICE, BOB]


def test_removing_a_root_removes_all_devices_also_those_added_meanwhile() -> None:
    root = says(ALICE, Added(BOB, "root", person=BOB), after=(GENESIS,))
    phone = says(BOB, Added(CAROL, "phone", person=BOB), after=(root,))
    meanwhile = says(CAROL, Added(DAVE, "tablet", person=BOB), after=(phone,))
    state = fold(GENESIS, root, phone, removes(ALICE, BOB, phone), meanwhile)
    assert keys(state) == [ALICE]


def test_nobody_is_made_another_persons_device_by_a_stranger() -> None:
    """A claim of kinship that is void gives no power to remove."""
    add_bob = says(ALICE, Added(BOB, "", level=Level.WRITER, person=BOB), after=(GENESIS,))
    kin = says(BOB, Added(ALICE, "", level=Level.MANAGER, person=BOB), after=(add_bob,))
    coup = removes(BOB, ALICE, kin)
    assert ALICE in fold(GENESIS, add_bob, kin, coup).members


# --- content -------------------------------------------------------------------------------------
def test_words_before_the_removal_stay_and_concurrent_ones_are_taken_back() -> None:
    before = word(BOB, ADD_BOB)
    out = removes(ALICE, BOB, before)
    beside = word(BOB, before)
    state = fold(GENESIS, ADD_BOB, before, beside, out)
    assert state.folded() == {before[0]}
    assert state.waiting() == (BOB,)


def test_a_folded_word_that_becomes_void_makes_the_state_stale() -> None:
    beside, out = word(BOB, ADD_BOB), removes(ALICE, BOB, ADD_BOB)
    state = GroupState(GROUP)
    for operation in (GENESIS, ADD_BOB):
        state.add(*operation)
    assert state.add(*beside) is Outcome.FOLDED
    state.add(*out)
    assert state.stale


# --- eras ----------------------------------------------------------------------------------------
def rekey(number: int, *readers: bytes, tag: bytes = b"t" * 32) -> Rekey:
    return Rekey(number, tag, b"0" * 32, b"", tuple((reader, b"") for reader in readers))


def test_a_removal_needs_a_new_era_and_a_clean_one_is_written_in() -> None:
    out = removes(ALICE, BOB, ADD_BOB, ADD_CAROL)
    assert fold(GENESIS, ADD_BOB, ADD_CAROL, out).eras.rekey_needed
    fresh = says(ALICE, rekey(1, ALICE, CAROL), after=(out,))
    state = fold(GENESIS, ADD_BOB, ADD_CAROL, out, fresh)
    assert state.eras.current is not None
    assert state.eras.current.number == 1
    assert not state.eras.rekey_needed


def test_two_removals_under_partition_need_a_third_era() -> None:
    """Each side's era is sealed to somebody whom the other side removed."""
    top = (ADD_BOB, ADD_CAROL, adds(ALICE, DAVE))
    left = says(ALICE, Removed(BOB), rekey(1, ALICE, CAROL, DAVE, tag=b"l" * 32), after=top)
    right = says(DAVE, Removed(CAROL), rekey(1, ALICE, BOB, DAVE, tag=b"r" * 32), after=top)
    base = (GENESIS, *top)
    state = fold(*base, left, right)
    assert state.eras.current is None
    assert state.eras.rekey_needed
    joined = says(DAVE, rekey(2, ALICE, DAVE), after=(left, right))
    state = fold(*base, left, right, joined)
    assert state.eras.current is not None
    assert state.eras.current.number == 2


def test_two_clean_eras_of_one_number_are_one_choice() -> None:
    out = removes(ALICE, BOB, ADD_BOB, ADD_CAROL)
    twins = [says(author, rekey(1, ALICE, CAROL), after=(out,)) for author in (ALICE, CAROL)]
    state = fold(GENESIS, ADD_BOB, ADD_CAROL, out, *twins)
    assert state.eras.current is not None
    assert state.eras.current.operation == min(twin[0] for twin in twins)


def test_a_wrap_key_is_said_by_its_person_alone() -> None:
    public = bytes(members.WRAP_PUBLIC_BYTES)
    root = says(ALICE, Added(BOB, "root", person=BOB), after=(GENESIS,))
    own = says(BOB, Wrapping(1, BOB, public), after=(root,))
    false = says(ALICE, Wrapping(9, BOB, b"\x01" * len(public)), after=(root,))
    assert fold(GENESIS, root, own, false).wraps == {BOB: public}


# --- equivocation --------------------------------------------------------------------------------
def test_two_operations_of_one_number_prove_that_their_author_lies() -> None:
    def nth(author: bytes, n: int, *after: Op) -> Op:
        _, body = word(author, *after)
        from msgspec.structs import replace

        return op_of(replace(body, n=n))

    one, other = nth(BOB, 1, ADD_BOB), nth(BOB, 1, ADD_BOB, ADD_CAROL)
    state = fold(GENESIS, ADD_BOB, ADD_CAROL, one, other, nth(BOB, 2, one))
    assert state.forks() == ((BOB, 1, tuple(sorted((one[0], other[0])))),)
    assert state.next_n(BOB) == 3
    assert not fold(GENESIS, ADD_BOB, one, nth(BOB, 2, one)).forks()


def op_of(body: object) -> Op:
    from holdfast.logic.group.operation import Operation, encode_entries, operation_id

    assert isinstance(body, Operation)
    return operation_id(encode_entries(body), body.author, bytes(64)), body


# --- bounds and the campaign ---------------------------------------------------------------------
def test_a_group_of_too_many_claims_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLAIMS_MAX > 1_000
    monkeypatch.setattr("holdfast.logic.group.reducer.CLAIMS_MAX", 1)
    state = GroupState.load(GROUP, [GENESIS, ADD_BOB, ADD_CAROL])
    assert list(state.faults.values()) == ["group with too many grants and removals"]
    assert Profile(1, "x").n == 1


def test_any_order_of_delivery_ends_in_one_state() -> None:
    tally = campaign(3_000, seed=1)
    assert tally.held
    assert tally.rings > 5
    assert tally.sent_after_removal > 10
    assert tally.forks > 5


def test_the_secrecy_check_can_fail() -> None:
    """The same stories, with everybody writing in the first era for ever."""
    leaks = 0
    for seed in range(30):
        story = Story(seed)
        for index, sent in enumerate(story.sent):
            story.sent[index] = type(sent)(sent.operation, b"0" * 32, sent.out)
        leaks += story.leaks()
    assert leaks > 0
