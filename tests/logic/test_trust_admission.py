"""Who gets a token under which policy (D8): every cell of the table, and nothing beside it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PeerFault
from holdfast.limits import (
    APPLICATION_S,
    APPLICATION_TEXT_MAX,
    APPLICATIONS_MAX,
    APPLICATIONS_PER_OWNER_MAX,
    OPEN_JOINS_PER_DAY_MAX,
    VOTE_S,
)
from holdfast.logic.effects import Effects
from holdfast.logic.fleet.model import OPERATOR, Role
from holdfast.logic.fleet.rows import ApplicationRow
from holdfast.logic.trust.admission import (
    TABLE,
    Apply,
    Approve,
    Decline,
    Event,
    IssueToken,
    Policy,
    Setting,
    State,
    Tick,
    Verb,
    Vote,
    may_invite,
    quorum,
    step,
    verb_of,
)

NOW = 1_800_000_000.0
OWNERS = frozenset({"ada", "bob", "cyd", "dan"})
APPLY = Apply("a1", Role.RELAY, "eve", "I bring a server in Oslo", "ada")
ROW = ApplicationRow("a1", Role.RELAY, "eve", "I bring a server", "ada", "queued", NOW)
EVENTS: dict[Verb, Event] = {
    Verb.APPLY: APPLY,
    Verb.APPROVE: Approve("op", "welcome"),
    Verb.DECLINE: Decline("op", "we have enough in Oslo"),
    Verb.BALLOT: Vote("ada", True),
    Verb.TICK: Tick(),
}


def setting(policy: Policy, **changes: object) -> Setting:
    return msgspec.structs.replace(Setting(policy, OWNERS), **changes)


def row_of(effects: Effects) -> ApplicationRow:
    (row,) = effects.persist
    assert isinstance(row, ApplicationRow)
    return row


def tokens(effects: Effects) -> list[IssueToken]:
    return [item for item in effects.send if isinstance(item, IssueToken)]


def test_default_deny_cell_by_cell() -> None:
    """Every policy x state x verb: what is not in the table is refused and changes nothing."""
    assert set(EVENTS) == set(Verb)
    allowed = 0
    for policy, state, verb in itertools.product(Policy, State, Verb):
        row = None if state is State.ABSENT else msgspec.structs.replace(ROW, state=state.value)
        if (policy, state, verb) in TABLE:
            step(row, EVENTS[verb], setting(policy), NOW + 1)
            allowed += 1
        else:
            with pytest.raises(PeerFault) as caught:
                step(row, EVENTS[verb], setting(policy), NOW + 1)
            assert caught.value.code == "admission"
    assert allowed == len(TABLE) == 12


def test_an_answer_is_final() -> None:
    for policy, state, verb in TABLE:
        assert state in (State.ABSENT, State.QUEUED), (policy, verb)


def test_tokens_come_on_grounds_only() -> None:
    """Exactly these cells can ever issue one."""
    issuing = set()
    for (policy, state, verb), _ in TABLE.items():
        row = None if state is State.ABSENT else ROW
        for now in (NOW + 1, NOW + APPLICATION_S):
            for owners in (OWNERS, frozenset({"ada"})):
                try:
                    effects = step(row, EVENTS[verb], setting(policy, owners=owners), now)
                except PeerFault:
                    continue
                if tokens(effects):
                    issuing.add((policy, verb))
    assert issuing == {
        (Policy.APPROVE, Verb.APPROVE),
        (Policy.VOTE, Verb.BALLOT),
        (Policy.OPEN, Verb.APPLY),
    }
    assert {policy for policy in Policy if may_invite(policy)} == {
        Policy.INVITE,
        Policy.APPROVE,
        Policy.OPEN,
    }


def test_invite_is_the_strict_default() -> None:
    with pytest.raises(PeerFault, match="invitation"):
        step(None, APPLY, setting(Policy.INVITE), NOW)


def test_approve_queue_sponsor_reason_and_decline() -> None:
    queued = step(None, APPLY, setting(Policy.APPROVE), NOW)
    row = row_of(queued)
    assert (row.state, row.reason, row.sponsor, row.at) == ("queued", APPLY.reason, "ada", NOW)
    assert not queued.send
    yes = step(row, EVENTS[Verb.APPROVE], setting(Policy.APPROVE), NOW + 5)
    assert row_of(yes).state == "approved"
    assert tokens(yes) == [IssueToken("a1", Role.RELAY, "eve", "approved by op")]
    assert yes.audit[0].detail["grounds"] == "approved by op"
    no = step(row, EVENTS[Verb.DECLINE], setting(Policy.APPROVE), NOW + 5)
    assert (row_of(no).state, row_of(no).answer) == ("declined", "we have enough in Oslo")
    assert not no.send
    with pytest.raises(PeerFault, match="reason"):
        step(row, Decline("op", " "), setting(Policy.APPROVE), NOW)


def test_a_sponsor_is_an_owner_and_may_be_required() -> None:
    stranger = msgspec.structs.replace(APPLY, sponsor="mallory")
    nobody = msgspec.structs.replace(APPLY, sponsor="")
    with pytest.raises(PeerFault, match="sponsor"):
        step(None, stranger, setting(Policy.APPROVE), NOW)
    assert row_of(step(None, nobody, setting(Policy.APPROVE), NOW)).sponsor == ""
    with pytest.raises(PeerFault, match="sponsor"):
        step(None, nobody, setting(Policy.APPROVE, sponsor_required=True), NOW)


def test_an_unanswered_application_expires() -> None:
    early = step(ROW, Tick(), setting(Policy.APPROVE), NOW + APPLICATION_S - 1)
    assert early == Effects(timers=(NOW + APPLICATION_S,))
    late = step(ROW, Tick(), setting(Policy.APPROVE), NOW + APPLICATION_S)
    assert row_of(late).state == "declined"


def test_limits_are_tripped_by_applying() -> None:
    for policy in (Policy.APPROVE, Policy.VOTE):
        for full in (
            setting(policy, waiting=APPLICATIONS_MAX),
            setting(policy, waiting_of_owner=APPLICATIONS_PER_OWNER_MAX),
        ):
            with pytest.raises(PeerFault) as caught:
                step(None, APPLY, full, NOW)
            assert caught.value.code == "too-many"
    assert tokens(
        step(None, APPLY, setting(Policy.OPEN, opened_today=OPEN_JOINS_PER_DAY_MAX - 1), NOW)
    )
    with pytest.raises(PeerFault) as caught:
        step(None, APPLY, setting(Policy.OPEN, opened_today=OPEN_JOINS_PER_DAY_MAX), NOW)
    assert caught.value.code == "too-many"


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": " "},
        {"owner": OPERATOR},
        {"reason": "two\nlines"},
        {"reason": ""},
        {"reason": "x" * (APPLICATION_TEXT_MAX + 1)},
        {"role": Role.HQ},
    ],
)
def test_malformed_applications(changes: dict[str, object]) -> None:
    for policy in (Policy.APPROVE, Policy.VOTE, Policy.OPEN):
        with pytest.raises(PeerFault):
            step(None, msgspec.structs.replace(APPLY, **changes), setting(policy), NOW)


def votes(*words: tuple[str, bool], at: float = NOW + 1) -> Effects:
    row, effects = ROW, Effects()
    for owner, yes in words:
        effects = step(row, Vote(owner, yes), setting(Policy.VOTE), at)
        row = row_of(effects)
    return effects


def test_a_vote_ends_early_once_it_is_decided() -> None:
    assert row_of(votes(("ada", True), ("bob", True))).state == "queued"
    won = votes(("ada", True), ("bob", True), ("cyd", True))
    assert row_of(won).state == "approved"
    assert tokens(won)[0].grounds == "3 yes, 0 no of 4 owners"
    assert [item.verb for item in won.audit] == ["voted", "admitted"]
    lost = votes(("ada", True), ("bob", False), ("cyd", False))
    assert row_of(lost).state == "declined"


def test_one_owner_one_vote_and_a_change_of_mind() -> None:
    """Many servers, or many ballots, buy no votes."""
    row = row_of(votes(("ada", True), ("ada", True), ("ada", True)))
    assert (row.state, len(row.ballots)) == ("queued", 1)
    changed = row_of(votes(("ada", True), ("ada", False)))
    assert [item.yes for item in changed.ballots] == [False]
    with pytest.raises(PeerFault, match="only owners"):
        votes(("eve", True))


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ((), "declined"),
        ((("ada", True),), "declined"),
        ((("ada", True), ("bob", True)), "approved"),
        ((("ada", True), ("bob", False)), "declined"),
    ],
)
def test_the_deadline_decides_by_majority_of_a_quorum(
    words: tuple[tuple[str, bool], ...], state: str
) -> None:
    row = row_of(votes(*words)) if words else ROW
    early = step(row, Tick(), setting(Policy.VOTE), NOW + VOTE_S - 1)
    assert early == Effects(timers=(NOW + VOTE_S,))
    assert row_of(step(row, Tick(), setting(Policy.VOTE), NOW + VOTE_S)).state == state
    with pytest.raises(PeerFault, match="ended"):
        step(row, Vote("dan", True), setting(Policy.VOTE), NOW + VOTE_S)


def test_who_left_the_network_has_no_say() -> None:
    row = row_of(votes(("ada", True), ("bob", True)))
    left = setting(Policy.VOTE, owners=frozenset({"cyd", "dan"}))
    assert row_of(step(row, Tick(), left, NOW + VOTE_S)).state == "declined"


def test_an_empty_network_admits_nobody_by_vote() -> None:
    empty = setting(Policy.VOTE, owners=frozenset())
    assert quorum(empty) == 1
    assert row_of(step(ROW, Tick(), empty, NOW + VOTE_S)).state == "declined"


BALLOTS = st.lists(st.tuples(st.sampled_from(sorted(OWNERS)), st.booleans()), max_size=12)


@given(BALLOTS)
def test_at_most_one_token_whatever_is_voted(words: list[tuple[str, bool]]) -> None:
    row: ApplicationRow = ROW
    issued = 0
    for event in [*(Vote(owner, yes) for owner, yes in words), Tick(), Tick()]:
        now = NOW + (VOTE_S if isinstance(event, Tick) else 1)
        try:
            effects = step(row, event, setting(Policy.VOTE), now)
        except PeerFault:
            continue
        assert verb_of(event) in (Verb.BALLOT, Verb.TICK)
        issued += len(tokens(effects))
        row = row_of(effects)
    assert issued == (1 if row.state == "approved" else 0)
    assert row.state != "queued"


def test_nobody_is_admitted_unseen_under_the_name_of_a_member() -> None:
    """Owners are names: who takes a member's gets its vote and its good name."""
    for policy in (Policy.OPEN, Policy.VOTE):
        with pytest.raises(PeerFault, match="member already") as caught:
            step(None, msgspec.structs.replace(APPLY, owner="ada"), setting(policy), NOW)
        assert caught.value.code == "admission"
    seen = step(None, msgspec.structs.replace(APPLY, owner="ada"), setting(Policy.APPROVE), NOW)
    assert row_of(seen).state == "queued", "an operator looks at it"
