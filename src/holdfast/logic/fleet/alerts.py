"""What calls for a person: one table, a row for each kind of alert.

A row says what must be so, for how long, whom it concerns, how grave it is, and what to type.
Whether it is so is asked of `Facts`: rows and events that headquarters has anyway.
`logic.fleet.alarm` turns what is so now into alerts that begin and end. Pure.

| severity | means                                                                          |
|----------|--------------------------------------------------------------------------------|
| critical | nothing mends this by itself, and somebody's data or access is at risk         |
| warning  | it holds for now; somebody should act in a day                                 |
| notice   | nobody is at risk; whoever runs the network should know                        |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from holdfast.limits import SPAWN_PER_MIN_MAX
from holdfast.limits.operating import (
    ALERT_EVENT_KEPT_S,
    CHECKPOINT_LATE_S,
    CLEAR_S,
    CONDUCT_HOLD_S,
    DEBT_HOLD_S,
    DISK_FREE_SHARE_MIN,
    DISK_FREE_SHARE_OK,
    HOLD_S,
    INTERMEDIATE_ALERT_DAYS,
    INTERMEDIATE_CRITICAL_DAYS,
    NODE_CERT_ALERT_DAYS,
    SNAPSHOT_LATE_S,
)
from holdfast.logic.fleet.conduct import unexplained
from holdfast.logic.fleet.model import ACCESS, OPERATOR, STORES, Load, Role, Tier

_DAY_S: Final = 86_400.0
_DOWN: Final = frozenset({Tier.RED, Tier.BLACK})


class Severity(StrEnum):
    """See the module."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"


class Concerns(StrEnum):
    """Who can do something about it."""

    OPERATOR = "operator"
    OWNER = "owner of the node"
    MEMBER = "member"


class Kind(StrEnum):
    """Every alert there is."""

    COPIES_LOW = "copies-low"
    SERVER_UNREPLACED = "server-unreplaced"
    ACCESS_DOWN = "access-down"
    AGENT_SILENT = "agent-silent"
    CANNOT_STORE = "cannot-store"
    DISK_FULL = "disk-nearly-full"
    CERTIFICATE_ENDS = "certificate-ends"
    CONDUCT = "unlike-its-role"
    PROVIDER_LOST = "provider-lost"
    DIVERSITY_DEBT = "diversity-debt"
    SPAWN_BUDGET = "spawn-budget"
    HQ_FROZEN = "hq-frozen"
    INTERMEDIATE_ENDS = "intermediate-ends"
    CHECKPOINT_LATE = "checkpoint-late"
    SNAPSHOT_LATE = "snapshot-late"
    SNAPSHOT_HERE = "snapshot-not-away"
    SECOND_AWAITED = "second-awaited"
    CREDENTIAL_DUE = "credential-due"
    RELEASE_REGRESSED = "release-regressed"
    MACHINE_UNKNOWN = "machine-unknown"
    MACHINE_VANISHED = "machine-vanished"
    LOG_DISPUTED = "log-disputed"
    SERVER_LIED = "server-lied"


# --- Facts ---------------------------------------------------------------------------------------
class ServerFacts(msgspec.Struct, frozen=True):
    """A logical server that has a node. `cert_expires_at` is 0 where it is not known."""

    name: str
    role: Role
    region: str
    provider: str
    owner: str = OPERATOR
    tier: Tier = Tier.GREEN
    silent: bool = False
    filled: bool = True
    spawning: bool = False
    load: Load = Load()
    cert_expires_at: float = 0.0


class SnapshotFacts(msgspec.Struct, frozen=True):
    """One shelf. `away`: not on headquarters' own disk."""

    shelf: str
    at: float
    error: str = ""
    away: bool = False


class Waiting(msgspec.Struct, frozen=True):
    """An action that a second person must agree to."""

    id: str
    verb: str
    author: str


class Happened(msgspec.Struct, frozen=True):
    """An audit line that nobody mends by waiting: verb, subject, detail."""

    verb: str
    subject: str
    detail: Mapping[str, Any]


class Facts(msgspec.Struct, frozen=True):
    """What headquarters knows at `at` (Unix seconds). `slots_low` counts slots with fewer than two
    relays or two filled replicas, `debts` seats by provider; `happened` is what is new."""

    at: float
    servers: tuple[ServerFacts, ...] = ()
    lost: tuple[str, ...] = ()
    debts: Mapping[str, int] = {}
    slots_low: int = 0
    groups_low: int = 0
    spawns_waiting: int = 0
    frozen: bool = False
    dead: int = 0
    fleet: int = 0
    intermediate_expires_at: float = 0.0
    checkpoint_late_s: float = 0.0
    snapshots: tuple[SnapshotFacts, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    credentials_due: tuple[str, ...] = ()
    """Providers whose key is older than its schedule."""
    happened: tuple[Happened, ...] = ()


class Sighting(msgspec.Struct, frozen=True):
    """Something is so now: about whom, in words, and what to do. `owner` of a server's machine."""

    subject: str
    what: str
    step: str
    owner: str = OPERATOR
    grave: bool = False
    """One degree graver than its row says."""


IsOpen = Callable[[str], bool]
"""Whether an alert about this subject is open already: what ends later than it begins asks."""
Find = Callable[[Facts, IsOpen], Iterator[Sighting]]


class Rule(msgspec.Struct, frozen=True):
    """A row. It must hold for `hold_s` to begin and be gone for `clear_s` to end; one that `lasts`
    is an event: it ends when acknowledged, or after `clear_s`. Elapsed seconds."""

    kind: Kind
    severity: Severity
    concerns: Concerns
    find: Find
    hold_s: float = HOLD_S
    clear_s: float = CLEAR_S
    lasts: bool = False


# --- Servers -------------------------------------------------------------------------------------
def _bring(server: ServerFacts) -> str:
    return (
        f"holdfast hq token create --role {server.role} --region {server.region} "
        f"--owner {server.owner} --name {server.name}"
    )


def _unreplaced(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if facts.frozen:
        return
    for server in facts.servers:
        if server.role in STORES and server.tier in _DOWN and not server.spawning:
            what = f"is {server.tier} and no machine is coming: no provider has a place for it"
            step = f"start it again, or bring a machine: {_bring(server)}"
            yield Sighting(server.name, what, step, server.owner)


def _access_down(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for server in facts.servers:
        if server.role in ACCESS and server.silent:
            what = f"{server.role} has sent no heartbeat lately; its cell does without it"
            yield Sighting(server.name, what, "there: holdfast doctor --dir NODE", server.owner)


def _silent(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for server in facts.servers:
        if server.role in STORES and server.silent and server.tier is Tier.GREEN:
            what = "its agent does not call, and no peer complains: it hears of no order"
            yield Sighting(server.name, what, "there: holdfast doctor --dir NODE", server.owner)


def _cannot_store(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for server in facts.servers:
        if not server.load.writable and server.tier not in _DOWN:
            what = "says that it cannot store: its disk is full, read-only or failing"
            step = f"make room or repair it, or: holdfast hq drain {server.name}"
            yield Sighting(server.name, what, step, server.owner)


def _disk(facts: Facts, is_open: IsOpen) -> Iterator[Sighting]:
    for server in facts.servers:
        room = server.load.free_bytes + server.load.stored_bytes
        if server.role not in STORES or not room or not server.load.writable:
            continue
        share = server.load.free_bytes / room
        if share < (DISK_FREE_SHARE_OK if is_open(server.name) else DISK_FREE_SHARE_MIN):
            what = f"has {share * 100:.0f} % of its room left"
            step = f"enlarge its disk, or: holdfast hq drain {server.name}"
            yield Sighting(server.name, what, step, server.owner)


def _certificates(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for server in facts.servers:
        left_s = server.cert_expires_at - facts.at
        if server.cert_expires_at and left_s < NODE_CERT_ALERT_DAYS * _DAY_S:
            what = f"has a certificate for {max(0.0, left_s) / _DAY_S:.0f} more days: not renewed"
            yield Sighting(server.name, what, "there: holdfast doctor --dir NODE", server.owner)


def _conduct(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for server in facts.servers:
        odd = unexplained(server.role, server.load, filled=server.filled)
        if odd and not server.silent:
            step = "ask its owner what runs there; if nobody knows, replace it: "
            verb = "access" if server.role in ACCESS else "hq"
            step += f"holdfast {verb} drain {server.name}"
            yield Sighting(server.name, "; ".join(odd), step, server.owner)


# --- The fleet -----------------------------------------------------------------------------------
def _copies_low(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if facts.slots_low:
        what = f"{facts.slots_low:,} slots with {facts.groups_low:,} groups have one copy or none"
        yield Sighting("fleet", what, "keep your devices on line; follow it: holdfast hq slots")


def _lost(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for provider in facts.lost:
        what = "is lost as a whole; its servers are replaced elsewhere"
        yield Sighting(provider, what, "call the provider; follow it: holdfast hq servers")


def _debt(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for provider, seats in sorted(facts.debts.items()):
        what = f"{seats:,} seats there share a failure domain with another of their slot"
        step = "bring a machine of another provider: holdfast hq token create --role ROLE "
        yield Sighting(provider or "unknown", what, step + "--region REGION --owner OWNER")


def _budget(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if facts.spawns_waiting > SPAWN_PER_MIN_MAX:
        what = f"{facts.spawns_waiting:,} machines wait: {SPAWN_PER_MIN_MAX} a minute are ordered"
        step = "see who wants so many; it goes on by itself: holdfast hq audit list"
        yield Sighting("fleet", what, step)


def _frozen(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if facts.frozen:
        what = f"{facts.dead:,} of {facts.fleet:,} servers look dead at once, so HQ suspects itself"
        step = "look at HQ's own network; if the loss is real: holdfast hq confirm-unfreeze"
        yield Sighting("fleet", what, step)


# --- Headquarters --------------------------------------------------------------------------------
def _intermediate(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    days = (facts.intermediate_expires_at - facts.at) / _DAY_S
    if facts.intermediate_expires_at and days < INTERMEDIATE_ALERT_DAYS:
        what = f"headquarters' certificate ends in {max(0.0, days):.0f} days; then nobody renews"
        step = "holdfast hq request; it prints what the root must sign"
        yield Sighting("hq", what, step, grave=days < INTERMEDIATE_CRITICAL_DAYS)


def _checkpoint(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if facts.checkpoint_late_s >= CHECKPOINT_LATE_S:
        minutes = facts.checkpoint_late_s / 60
        what = f"two owners have not cosigned the log for {minutes:.0f} min: clients follow nothing"
        yield Sighting("log", what, "at the witnesses: holdfast node status --dir NODE")


def _snapshots(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if not facts.snapshots:
        what = "no snapshots are taken: a lost disk loses headquarters"
        step = (
            "holdfast hq snapshots key --out FILE, then "
            "holdfast hq snapshots set --recipient AGE --pool-region REGION, and restart it"
        )
        yield Sighting("hq", what, step)
    for shelf in facts.snapshots:
        late_s = facts.at - shelf.at
        if late_s > SNAPSHOT_LATE_S:
            age = f"{late_s / _DAY_S:.0f} days old" if shelf.at else "missing"
            why = f": {shelf.error}" if shelf.error else ""
            what = f"the newest snapshot on {shelf.shelf} is {age}{why}"
            yield Sighting(shelf.shelf, what, "holdfast hq snapshots status")


def _not_away(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    if facts.snapshots and not any(shelf.away and shelf.at for shelf in facts.snapshots):
        what = "every snapshot lies on headquarters' own disk"
        step = "keep one in the pool: "
        step += "holdfast hq snapshots set --recipient AGE --pool-region REGION"
        yield Sighting("hq", what, step)


def _second(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for item in facts.waiting:
        what = f"{item.author} asked for {item.verb}; it waits for a second person"
        yield Sighting(item.id, what, f"holdfast hq agree {item.id}")


def _credentials(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
    for provider in facts.credentials_due:
        step = f"holdfast provider credential rotate {provider}"
        yield Sighting(provider, "has a key that is older than its schedule", step)


# --- What happened -------------------------------------------------------------------------------
def _event(verb: str, what: Callable[[Happened], str], step: str) -> Find:
    def find(facts: Facts, _open: IsOpen) -> Iterator[Sighting]:
        for item in facts.happened:
            if item.verb == verb:
                yield Sighting(item.subject, what(item), step)

    return find


def _resource(item: Happened) -> str:
    return str(item.detail.get("resource", ""))[:80]


_UNKNOWN: Final = _event(
    "machine.unknown",
    lambda item: f"runs {_resource(item)}, which HQ did not order: somebody has our key there",
    "change the key at the provider, end the machine there; see: holdfast hq audit list",
)
_VANISHED: Final = _event(
    "machine.vanished",
    lambda item: f"has {_resource(item)} no more, and HQ did not give it back",
    "ask the provider; if it was none of you, change the key; see: holdfast hq audit list",
)
_DISPUTED: Final = _event(
    "log.disputed",
    lambda item: f"saw two faces of the log: {item.detail.get('reason', '')}",
    "compare both notes: holdfast hq audit list; if both are ours, HQ's key is stolen",
)
_REGRESSED: Final = _event(
    "rollout.regression",
    lambda item: f"did not do well with the new release: {item.detail.get('why', '')}",
    "it is being taken back; look: holdfast hq upgrade status",
)
_LIED: Final = _event(
    "server.misbehaved",
    lambda item: f"is proven to have lied: it {item.detail.get('text', '')}",
    "holdfast hq evidence list, then holdfast hq revoke --node NODE --reason REASON",
)

_C, _W, _N = Severity.CRITICAL, Severity.WARNING, Severity.NOTICE
_OPERATOR, _OWNER = Concerns.OPERATOR, Concerns.OWNER
TABLE: Final[tuple[Rule, ...]] = (
    Rule(Kind.HQ_FROZEN, _C, _OPERATOR, _frozen, hold_s=0.0),
    Rule(Kind.COPIES_LOW, _C, Concerns.MEMBER, _copies_low),
    Rule(Kind.SERVER_UNREPLACED, _C, _OPERATOR, _unreplaced),
    Rule(Kind.PROVIDER_LOST, _C, _OPERATOR, _lost, hold_s=0.0),
    Rule(Kind.CHECKPOINT_LATE, _W, _OPERATOR, _checkpoint, hold_s=0.0),
    Rule(Kind.INTERMEDIATE_ENDS, _W, _OPERATOR, _intermediate),
    Rule(Kind.SPAWN_BUDGET, _W, _OPERATOR, _budget, hold_s=HOLD_S / 2),
    Rule(Kind.SNAPSHOT_LATE, _W, _OPERATOR, _snapshots, hold_s=DEBT_HOLD_S),
    Rule(Kind.SNAPSHOT_HERE, _N, _OPERATOR, _not_away, hold_s=DEBT_HOLD_S),
    Rule(Kind.DIVERSITY_DEBT, _N, _OPERATOR, _debt, hold_s=DEBT_HOLD_S),
    Rule(Kind.SECOND_AWAITED, _N, _OPERATOR, _second, hold_s=0.0, clear_s=0.0),
    Rule(Kind.CREDENTIAL_DUE, _W, _OPERATOR, _credentials, hold_s=0.0),
    Rule(Kind.CANNOT_STORE, _W, _OWNER, _cannot_store),
    Rule(Kind.DISK_FULL, _W, _OWNER, _disk),
    Rule(Kind.ACCESS_DOWN, _W, _OWNER, _access_down),
    Rule(Kind.AGENT_SILENT, _W, _OWNER, _silent),
    Rule(Kind.CERTIFICATE_ENDS, _W, _OWNER, _certificates),
    Rule(Kind.CONDUCT, _W, _OWNER, _conduct, hold_s=CONDUCT_HOLD_S),
    Rule(Kind.MACHINE_UNKNOWN, _C, _OPERATOR, _UNKNOWN, 0.0, ALERT_EVENT_KEPT_S, lasts=True),
    Rule(Kind.MACHINE_VANISHED, _W, _OPERATOR, _VANISHED, 0.0, ALERT_EVENT_KEPT_S, lasts=True),
    Rule(Kind.LOG_DISPUTED, _C, _OPERATOR, _DISPUTED, 0.0, ALERT_EVENT_KEPT_S, lasts=True),
    Rule(Kind.RELEASE_REGRESSED, _W, _OPERATOR, _REGRESSED, 0.0, ALERT_EVENT_KEPT_S, lasts=True),
    Rule(Kind.SERVER_LIED, _W, _OPERATOR, _LIED, 0.0, ALERT_EVENT_KEPT_S, lasts=True),
)
RULES: Final[Mapping[Kind, Rule]] = {rule.kind: rule for rule in TABLE}
EVENTS: Final = frozenset(
    {
        "machine.unknown",
        "machine.vanished",
        "log.disputed",
        "rollout.regression",
        "server.misbehaved",
    }
)
"""Audit verbs that rows of the table ask for."""
