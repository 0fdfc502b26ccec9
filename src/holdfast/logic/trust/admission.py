"""Who may become a member: the network's admission policy as a table (D8).

A join token is issued on *grounds*, and the policy says which grounds count:

| policy  | an operator invites | an application                                              |
|---------|---------------------|-------------------------------------------------------------|
| invite  | token               | refused: ask an operator (the default)                      |
| approve | token               | waits in a queue for an operator's yes or no, with a reason |
| vote    | refused             | waits for the owners of the network's servers to vote       |
| open    | token               | token at once, so many a day                                |

Machines that HQ orders itself (an intent, D25) need no admission: the owner who asked for them is a
member. Everything not in `TABLE` is refused.

An application lives `queued -> approved | declined`, and an answer is final: who was declined may
apply again, a decision is never turned round (a token may have been used by then). A vote counts
owners, not servers, so that many servers buy no votes; it ends early once the outcome cannot
change, and at its deadline by simple majority if enough have voted. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from holdfast.errors import PeerFault
from holdfast.limits import (
    APPLICATION_S,
    APPLICATION_TEXT_MAX,
    APPLICATIONS_MAX,
    APPLICATIONS_PER_OWNER_MAX,
    OPEN_JOINS_PER_DAY_MAX,
    VOTE_QUORUM_FRACTION,
    VOTE_S,
)
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet.model import OPERATOR, Role
from holdfast.logic.fleet.rows import ApplicationRow, Ballot


class Policy(StrEnum):
    """How a network admits."""

    INVITE = "invite"
    APPROVE = "approve"
    VOTE = "vote"
    OPEN = "open"


class State(StrEnum):
    """Where an application stands; `ABSENT` is one that has not been made."""

    ABSENT = "absent"
    QUEUED = "queued"
    APPROVED = "approved"
    DECLINED = "declined"


class Verb(StrEnum):
    """What can happen to an application."""

    APPLY = "apply"
    APPROVE = "approve"
    DECLINE = "decline"
    BALLOT = "ballot"
    TICK = "tick"


class Apply(msgspec.Struct, frozen=True):
    """A stranger asks. `sponsor` is an owner who speaks for them, or empty."""

    id: str
    role: Role
    owner: str
    reason: str
    sponsor: str = ""
    region: str = ""


class Approve(msgspec.Struct, frozen=True):
    """An operator says yes."""

    author: str
    reason: str = ""


class Decline(msgspec.Struct, frozen=True):
    """An operator says no; the applicant reads `reason`."""

    author: str
    reason: str


class Vote(msgspec.Struct, frozen=True):
    """An owner of servers votes."""

    owner: str
    yes: bool


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


Event = Apply | Approve | Decline | Vote | Tick


class Setting(msgspec.Struct, frozen=True):
    """What the machine may know of the network at this moment.

    `owners` are those of active servers; `waiting` and `waiting_of_owner` count queued
    applications; `opened_today` counts tokens issued under the open policy in the last 24 hours.
    """

    policy: Policy
    owners: frozenset[str] = frozenset()
    sponsor_required: bool = False
    waiting: int = 0
    waiting_of_owner: int = 0
    opened_today: int = 0


class IssueToken(msgspec.Struct, frozen=True):
    """To HQ: mint one token for this application, and keep it with the row."""

    application: str
    role: Role
    owner: str
    grounds: str


Handler = Callable[[ApplicationRow, Event, Setting, float], Effects]


def step(row: ApplicationRow | None, event: Event, setting: Setting, now: float) -> Effects:
    """One event. `persist` holds the application's new row, `send` an `IssueToken` if it won.

    Raises PeerFault (code `admission`, `too-many` or `malformed`) for what the policy forbids;
    nothing has changed then.
    """
    state = State.ABSENT if row is None else State(row.state)
    handler = TABLE.get((setting.policy, state, verb_of(event)))
    if handler is None:
        raise PeerFault(_why_not(setting.policy, state, verb_of(event)), code="admission")
    if row is None:
        assert isinstance(event, Apply)
        row = _checked(event, setting, now)
    return handler(row, event, setting, now)


def may_invite(policy: Policy) -> bool:
    """Whether an operator may hand out a token without an application."""
    return policy in _INVITING


def verb_of(event: Event) -> Verb:
    """The row of the table that an event belongs to."""
    match event:
        case Apply():
            return Verb.APPLY
        case Approve():
            return Verb.APPROVE
        case Decline():
            return Verb.DECLINE
        case Vote():
            return Verb.BALLOT
        case Tick():
            return Verb.TICK


# --- Handlers ------------------------------------------------------------------------------------
def _queue(row: ApplicationRow, _event: Event, setting: Setting, _now: float) -> Effects:
    if setting.waiting >= APPLICATIONS_MAX:
        raise PeerFault("the queue of applications is full; try again later", code="too-many")
    if setting.waiting_of_owner >= APPLICATIONS_PER_OWNER_MAX:
        raise PeerFault("you have applications waiting; await their answer", code="too-many")
    detail = {"role": row.role.value, "owner": row.owner, "sponsor": row.sponsor}
    return Effects(persist=(row,), audit=(Audit("applied", row.id, detail),))


def _open(row: ApplicationRow, _event: Event, setting: Setting, _now: float) -> Effects:
    if setting.opened_today >= OPEN_JOINS_PER_DAY_MAX:
        raise PeerFault("enough have joined today; try again tomorrow", code="too-many")
    return _approved(row, "open", "")


def _approve(row: ApplicationRow, event: Event, _setting: Setting, _now: float) -> Effects:
    assert isinstance(event, Approve)
    return _approved(row, f"approved by {event.author}", event.reason)


def _decline(row: ApplicationRow, event: Event, _setting: Setting, _now: float) -> Effects:
    assert isinstance(event, Decline)
    if not event.reason.strip():
        raise PeerFault("a decline needs a reason: the applicant reads it")
    return _declined(row, event.reason, f"declined by {event.author}")


def _expire(row: ApplicationRow, _event: Event, _setting: Setting, now: float) -> Effects:
    if now - row.at < APPLICATION_S:
        return Effects(timers=(row.at + APPLICATION_S,))
    return _declined(row, "nobody answered in time; apply again", "expired")


def _ballot(row: ApplicationRow, event: Event, setting: Setting, now: float) -> Effects:
    assert isinstance(event, Vote)
    if event.owner not in setting.owners:
        raise PeerFault("only owners of servers of this network vote", code="admission")
    if now - row.at >= VOTE_S:
        raise PeerFault("the vote has ended", code="admission")
    others = tuple(item for item in row.ballots if item.owner != event.owner)
    ballots = (*others, Ballot(event.owner, event.yes, now))
    row = msgspec.structs.replace(row, ballots=ballots)
    cast = Audit("voted", row.id, {"owner": event.owner, "yes": event.yes})
    yes, no = tally(row, setting)
    if yes * 2 > len(setting.owners):
        return Effects(audit=(cast,)) + _approved(row, _result(yes, no, setting), "")
    if no * 2 >= len(setting.owners):
        return Effects(audit=(cast,)) + _declined(
            row, "the owners voted no", _result(yes, no, setting)
        )
    return Effects(persist=(row,), timers=(row.at + VOTE_S,), audit=(cast,))


def _count(row: ApplicationRow, _event: Event, setting: Setting, now: float) -> Effects:
    if now - row.at < VOTE_S:
        return Effects(timers=(row.at + VOTE_S,))
    yes, no = tally(row, setting)
    if yes + no < quorum(setting):
        return _declined(row, "too few owners voted; apply again", _result(yes, no, setting))
    if yes > no:
        return _approved(row, _result(yes, no, setting), "")
    return _declined(row, "the owners voted no", _result(yes, no, setting))


def tally(row: ApplicationRow, setting: Setting) -> tuple[int, int]:
    """(yes, no) among those who own servers now: who left the network has no say."""
    counted = [item.yes for item in row.ballots if item.owner in setting.owners]
    return counted.count(True), counted.count(False)


def quorum(setting: Setting) -> int:
    """How many must have voted at the deadline; never none."""
    return max(1, -int(-len(setting.owners) * VOTE_QUORUM_FRACTION // 1))


TABLE: Final[dict[tuple[Policy, State, Verb], Handler]] = {
    (Policy.APPROVE, State.ABSENT, Verb.APPLY): _queue,
    (Policy.APPROVE, State.QUEUED, Verb.APPROVE): _approve,
    (Policy.APPROVE, State.QUEUED, Verb.DECLINE): _decline,
    (Policy.APPROVE, State.QUEUED, Verb.TICK): _expire,
    (Policy.VOTE, State.ABSENT, Verb.APPLY): _queue,
    (Policy.VOTE, State.QUEUED, Verb.BALLOT): _ballot,
    (Policy.VOTE, State.QUEUED, Verb.TICK): _count,
    (Policy.OPEN, State.ABSENT, Verb.APPLY): _open,
    # A policy that has become stricter or laxer leaves a queue behind: an operator may clear it.
    (Policy.INVITE, State.QUEUED, Verb.DECLINE): _decline,
    (Policy.INVITE, State.QUEUED, Verb.TICK): _expire,
    (Policy.OPEN, State.QUEUED, Verb.DECLINE): _decline,
    (Policy.OPEN, State.QUEUED, Verb.TICK): _expire,
}
"""Everything that is not here is refused."""
_INVITING: Final = frozenset({Policy.INVITE, Policy.APPROVE, Policy.OPEN})


def _checked(event: Apply, setting: Setting, now: float) -> ApplicationRow:
    texts = (event.id, event.owner, event.reason, event.sponsor, event.region)
    if any(len(text) > APPLICATION_TEXT_MAX or not text.isprintable() for text in texts):
        raise PeerFault("a field of the application is too long or unprintable")
    if not event.owner.strip() or not event.reason.strip():
        raise PeerFault("an application names its owner and a reason")
    if event.owner == OPERATOR:
        raise PeerFault("say whose machine it is; it cannot be the operator's")
    if event.role is Role.HQ:
        raise PeerFault("a headquarters is made by the root, not by an application")
    if event.owner in setting.owners and setting.policy in (Policy.VOTE, Policy.OPEN):
        raise PeerFault("this owner is a member already; ask an operator", code="admission")
    if event.sponsor and event.sponsor not in setting.owners:
        raise PeerFault("the sponsor is no owner in this network", code="admission")
    if setting.sponsor_required and not event.sponsor:
        raise PeerFault(
            "this network asks for a sponsor: an owner who speaks for you", code="admission"
        )
    return ApplicationRow(
        id=event.id,
        role=event.role,
        owner=event.owner,
        reason=event.reason,
        sponsor=event.sponsor,
        state=State.QUEUED.value,
        at=now,
        region=event.region,
    )


def _approved(row: ApplicationRow, grounds: str, answer: str) -> Effects:
    row = msgspec.structs.replace(row, state=State.APPROVED.value, answer=answer)
    detail = {"role": row.role.value, "owner": row.owner, "grounds": grounds}
    return Effects(
        persist=(row,),
        send=(IssueToken(row.id, row.role, row.owner, grounds),),
        audit=(Audit("admitted", row.id, detail),),
    )


def _declined(row: ApplicationRow, answer: str, grounds: str) -> Effects:
    row = msgspec.structs.replace(row, state=State.DECLINED.value, answer=answer)
    detail = {"owner": row.owner, "grounds": grounds, "answer": answer}
    return Effects(persist=(row,), audit=(Audit("declined", row.id, detail),))


def _result(yes: int, no: int, setting: Setting) -> str:
    return f"{yes} yes, {no} no of {len(setting.owners)} owners"


def _why_not(policy: Policy, state: State, verb: Verb) -> str:
    if state in (State.APPROVED, State.DECLINED):
        return f"this application was {state} already, and that is final"
    if state is State.ABSENT and verb is not Verb.APPLY:
        return "there is no such application"
    if verb is Verb.APPLY:
        return "this network admits by invitation; ask an operator for a token"
    return f"the policy {policy} knows no {verb}"
