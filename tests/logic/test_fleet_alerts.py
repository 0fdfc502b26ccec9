"""Every row of the alert table: what makes it begin, what does not, and how it ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast.limits import SPAWN_PER_MIN_MAX
from holdfast.limits.operating import (
    ALERT_EVENT_KEPT_S,
    ALERTS_NAMED_MAX,
    CHECKPOINT_LATE_S,
    CLEAR_S,
    HOLD_S,
)
from holdfast.logic.fleet.alarm import OTHERS, Alarm, AlertRow
from holdfast.logic.fleet.alerts import (
    EVENTS,
    RULES,
    TABLE,
    Concerns,
    Facts,
    Happened,
    Kind,
    ServerFacts,
    Severity,
    SnapshotFacts,
    Waiting,
)
from holdfast.logic.fleet.model import Load, Role, Tier

DAY = 86_400.0
NOW = 1_800_000_000.0
LONG = 4_000.0
"""Longer than any condition must hold."""
AWAY = SnapshotFacts("pool", NOW, away=True)
ROOM = Load(free_bytes=50, stored_bytes=50)


def server(name: str = "relay-eu-001", **fields: Any) -> ServerFacts:
    defaults: dict[str, Any] = {"role": Role.RELAY, "region": "eu", "provider": "alder"}
    return ServerFacts(name, **(defaults | {"load": ROOM} | fields))


def calm(**fields: Any) -> Facts:
    """A fleet that nobody needs to look at, with some facts changed."""
    facts = Facts(NOW, (server(),), intermediate_expires_at=NOW + 400 * DAY, snapshots=(AWAY,))
    return msgspec.structs.replace(facts, **fields)


def later(facts: Facts, seconds: float) -> Facts:
    """The same, with everything that is dated moved along."""
    moved = tuple(msgspec.structs.replace(s, at=s.at + seconds) for s in facts.snapshots)
    return msgspec.structs.replace(facts, at=facts.at + seconds, snapshots=moved)


def began(alarm: Alarm, facts: Facts) -> set[Kind]:
    return {row.kind for row in alarm.look(facts).begun}


def happened(verb: str, subject: str = "alder", **detail: Any) -> tuple[Happened, ...]:
    return (Happened(verb, subject, detail),)


RED = server(tier=Tier.RED)
CASES: dict[Kind, tuple[dict[str, Any], dict[str, Any]]] = {
    Kind.COPIES_LOW: ({"slots_low": 3, "groups_low": 40}, {"slots_low": 0}),
    Kind.SERVER_UNREPLACED: (
        {"servers": (RED,)},
        {"servers": (msgspec.structs.replace(RED, spawning=True),)},
    ),
    Kind.ACCESS_DOWN: (
        {"servers": (server(role=Role.ENTRY, silent=True),)},
        {"servers": (server(role=Role.ENTRY),)},
    ),
    Kind.AGENT_SILENT: (
        {"servers": (server(silent=True),)},
        {"servers": (server(silent=True, tier=Tier.RED, spawning=True),)},
    ),
    Kind.CANNOT_STORE: (
        {"servers": (server(load=Load(writable=False)),)},
        {"servers": (server(),)},
    ),
    Kind.DISK_FULL: (
        {"servers": (server(load=Load(free_bytes=9, stored_bytes=91)),)},
        {"servers": (server(load=Load(free_bytes=11, stored_bytes=89)), server(load=Load()))},
    ),
    Kind.CERTIFICATE_ENDS: (
        {"servers": (server(cert_expires_at=NOW + 10 * DAY),)},
        {"servers": (server(cert_expires_at=NOW + 40 * DAY),)},
    ),
    Kind.CONDUCT: (
        {"servers": (server(load=Load(busy=0.99, free_bytes=5, stored_bytes=5)),)},
        {"servers": (server(load=Load(busy=0.99, requests_per_s=900.0)),)},
    ),
    Kind.PROVIDER_LOST: ({"lost": ("alder",)}, {"lost": ()}),
    Kind.DIVERSITY_DEBT: ({"debts": {"alder": 4}}, {"debts": {}}),
    Kind.SPAWN_BUDGET: (
        {"spawns_waiting": SPAWN_PER_MIN_MAX + 1},
        {"spawns_waiting": SPAWN_PER_MIN_MAX},
    ),
    Kind.HQ_FROZEN: ({"frozen": True, "dead": 6, "fleet": 12}, {"frozen": False}),
    Kind.INTERMEDIATE_ENDS: (
        {"intermediate_expires_at": NOW + 80 * DAY},
        {"intermediate_expires_at": NOW + 100 * DAY},
    ),
    Kind.CHECKPOINT_LATE: (
        {"checkpoint_late_s": CHECKPOINT_LATE_S},
        {"checkpoint_late_s": CHECKPOINT_LATE_S - 1},
    ),
    Kind.SNAPSHOT_LATE: (
        {"snapshots": (AWAY, SnapshotFacts("/backup", NOW - 3 * DAY, "no room"))},
        {"snapshots": (AWAY, SnapshotFacts("/backup", NOW - DAY))},
    ),
    Kind.SNAPSHOT_HERE: (
        {"snapshots": (SnapshotFacts("/var/hq/snapshots", NOW),)},
        {"snapshots": (SnapshotFacts("/var/hq/snapshots", NOW), AWAY)},
    ),
    Kind.SECOND_AWAITED: ({"waiting": (Waiting("ab12", "POST /revoke", "ann"),)}, {"waiting": ()}),
    Kind.CREDENTIAL_DUE: ({"credentials_due": ("alder",)}, {"credentials_due": ()}),
    Kind.RELEASE_REGRESSED: (
        {"happened": happened("rollout.regression", "relay-eu-001", why="it died")},
        {"happened": happened("rollout.kept", "relay-eu-001")},
    ),
    Kind.MACHINE_UNKNOWN: (
        {"happened": happened("machine.unknown", resource="miner-1")},
        {"happened": happened("machine.reaped")},
    ),
    Kind.MACHINE_VANISHED: (
        {
            "happened": happened(
                "machine.vanished", resource="relay-eu-001-x", server="relay-eu-001"
            )
        },
        {"happened": ()},
    ),
    Kind.LOG_DISPUTED: (
        {"happened": happened("log.disputed", "relay-eu-001", reason="fork")},
        {"happened": happened("slot.override", "00")},
    ),
    Kind.SERVER_LIED: (
        {"happened": happened("server.misbehaved", "relay-eu-001", text="lost a blob")},
        {"happened": happened("server.accused", "relay-eu-001", text="x", by="relay-eu-002")},
    ),
}


def test_every_row_has_a_case() -> None:
    assert set(CASES) == set(Kind) == set(RULES)
    assert len(TABLE) == len(RULES)


def play(facts: Facts) -> tuple[Alarm, set[Kind]]:
    """What begins while `facts` hold for long."""
    alarm, seen = Alarm(), set[Kind]()
    seen |= began(alarm, facts)
    return alarm, seen | began(alarm, later(msgspec.structs.replace(facts, happened=()), LONG))


@pytest.mark.parametrize("kind", list(Kind))
def test_a_row_begins_when_it_should_and_only_then(kind: Kind) -> None:
    so, not_so = CASES[kind]
    alarm, seen = play(calm(**so))
    assert kind in seen
    (row, *_) = [row for row in alarm.rows() if row.kind is kind]
    assert row.what
    assert row.step
    assert row.concerns in set(Concerns)
    assert kind not in play(calm(**not_so))[1]


def test_a_calm_fleet_is_quiet() -> None:
    assert play(calm())[1] == set()


@pytest.mark.parametrize("kind", [rule.kind for rule in TABLE if not rule.lasts])
def test_a_condition_has_hysteresis(kind: Kind) -> None:
    """It must hold to begin, be gone to end, and what comes back in between is the same alert."""
    rule, facts, rest = RULES[kind], calm(**CASES[kind][0]), calm()
    alarm = Alarm()
    if rule.hold_s:
        assert kind not in began(alarm, facts)
        assert kind not in began(alarm, later(facts, rule.hold_s - 1))
        assert kind in began(alarm, later(facts, rule.hold_s))
    else:
        assert kind in began(alarm, facts)
    at = rule.hold_s + 10
    assert kind not in began(alarm, later(facts, at)), "one alert, however often it is seen"
    if rule.clear_s:
        assert not [r for r in alarm.look(later(rest, at + 1)).ended if r.kind is kind]
        assert kind not in began(alarm, later(facts, at + rule.clear_s - 1)), "it did not end"
        assert not [r for r in alarm.look(later(rest, at + rule.clear_s)).ended if r.kind is kind]
    ended = alarm.look(later(rest, at + 2 * rule.clear_s + 1)).ended
    assert [r.kind for r in ended if r.kind is kind] == [kind]
    assert kind not in {row.kind for row in alarm.rows()}


@pytest.mark.parametrize("kind", [rule.kind for rule in TABLE if rule.lasts])
def test_an_event_lasts_until_somebody_has_seen_it(kind: Kind) -> None:
    facts = calm(**CASES[kind][0])
    alarm = Alarm()
    assert kind in began(alarm, facts)
    (id,) = [row.id for row in alarm.rows() if row.kind is kind]
    quiet = msgspec.structs.replace(facts, happened=())
    assert alarm.look(later(quiet, DAY)).ended == ()
    restarted = Alarm(alarm.rows())
    assert restarted.look(later(quiet, 2 * DAY)).ended == (), "a restart forgets nothing"
    seen = restarted.acknowledge(id, "ann", NOW + 2 * DAY)
    assert seen is not None
    assert [r.id for r in restarted.look(later(quiet, 2 * DAY + 1)).ended] == [id]
    assert kind in began(restarted, later(facts, 3 * DAY)), "again is news"
    assert [r.id for r in alarm.look(later(quiet, ALERT_EVENT_KEPT_S)).ended] == [id]


def test_the_table_and_the_events_agree() -> None:
    asked = {verb for verb in EVENTS if play(calm(happened=happened(verb)))[1]}
    assert asked == EVENTS


def test_a_disk_between_the_two_marks_neither_begins_nor_ends() -> None:
    def at(free: int, seconds: float) -> Facts:
        return later(
            calm(servers=(server(load=Load(free_bytes=free, stored_bytes=100 - free)),)), seconds
        )

    alarm = Alarm()
    assert began(alarm, at(12, 0)) | began(alarm, at(12, LONG)) == set()
    assert began(alarm, at(9, LONG + 1)) | began(alarm, at(9, 2 * LONG)) == {Kind.DISK_FULL}
    assert alarm.look(at(12, 3 * LONG)).ended == alarm.look(at(12, 4 * LONG)).ended == ()
    (row,) = alarm.rows()
    assert "12 % of its room" in row.what, "an open alert says how it is now"
    alarm.look(at(16, 5 * LONG))
    assert [r.kind for r in alarm.look(at(16, 6 * LONG)).ended] == [Kind.DISK_FULL]


def test_an_acknowledged_condition_is_quiet_and_last() -> None:
    alarm = Alarm()
    facts = calm(lost=("alder",), frozen=True)
    alarm.look(facts)
    assert alarm.acknowledge("provider-lost:alder", "ann", NOW) is not None
    assert alarm.acknowledge("provider-lost:elm", "ann", NOW) is None
    alarm.look(later(facts, 5))
    assert [(row.kind, row.acknowledged_by) for row in alarm.rows()] == [
        (Kind.HQ_FROZEN, ""),
        (Kind.PROVIDER_LOST, "ann"),
    ]
    ended = alarm.look(later(calm(), 10)).ended + alarm.look(later(calm(), 10 + CLEAR_S)).ended
    assert {row.kind for row in ended} == {Kind.HQ_FROZEN, Kind.PROVIDER_LOST}


def test_a_thousand_of_a_kind_are_one_thing_to_do() -> None:
    fleet = tuple(server(f"relay-eu-{n:04}", tier=Tier.BLACK) for n in range(1_000))
    alarm = Alarm()
    facts = calm(servers=fleet)
    alarm.look(facts)
    alarm.look(later(facts, HOLD_S))
    rows = [row for row in alarm.rows() if row.kind is Kind.SERVER_UNREPLACED]
    assert len(rows) == ALERTS_NAMED_MAX + 1
    (others,) = [row for row in rows if row.subject == OTHERS]
    assert others.what.startswith("980 more")
    # The named ones stay the same ones, so nothing flaps as others come and go.
    named = {row.subject for row in rows}
    alarm.look(later(calm(servers=(server("relay-aa-0000", tier=Tier.RED), *fleet)), HOLD_S + 5))
    assert {r.subject for r in alarm.rows() if r.kind is Kind.SERVER_UNREPLACED} == named


def test_the_last_fortnight_of_headquarters_is_critical() -> None:
    facts = calm(intermediate_expires_at=NOW + 13 * DAY)
    alarm, _ = play(facts)
    assert [row.severity for row in alarm.rows()] == [Severity.CRITICAL]


def test_a_drill_runs_on_its_own_time() -> None:
    alarm, facts = Alarm(scale=10.0), calm(slots_low=1)
    assert began(alarm, facts) == set()
    assert began(alarm, later(facts, HOLD_S / 10)) == {Kind.COPIES_LOW}


def test_rows_survive_the_store() -> None:
    alarm, _ = play(calm(lost=("alder",)))
    for row in alarm.rows():
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=AlertRow) == row
