"""A machine that does what its role does not explain raises an alarm, and others raise none."""

from __future__ import annotations

import pytest

from holdfast.limits.operating import CONDUCT_HOLD_S
from holdfast.logic.fleet.alarm import Alarm
from holdfast.logic.fleet.alerts import Facts, Kind, ServerFacts
from holdfast.logic.fleet.conduct import unexplained
from holdfast.logic.fleet.model import Load, Role

MB = 1_000_000.0
BUSY_RELAY = Load(requests_per_s=4_000.0, busy=0.97, sent_bytes_per_s=400 * MB)
IDLE = Load(busy=0.03, received_bytes_per_s=9_000.0, sent_bytes_per_s=9_000.0)
MINER = Load(requests_per_s=3.0, busy=0.99, sent_bytes_per_s=40_000.0)
SOURCE = Load(requests_per_s=3.0, busy=0.2, received_bytes_per_s=60 * MB, sent_bytes_per_s=60 * MB)
FORWARDS = Load(sessions=300, busy=0.9, received_bytes_per_s=50 * MB, sent_bytes_per_s=49 * MB)
FLOODS = Load(sessions=300, busy=0.5, received_bytes_per_s=2 * MB, sent_bytes_per_s=60 * MB)
MINES = Load(sessions=2, busy=1.4, received_bytes_per_s=20_000.0, sent_bytes_per_s=20_000.0)


@pytest.mark.parametrize(
    ("role", "load", "said"),
    [
        (Role.RELAY, BUSY_RELAY, ""),
        (Role.REPLICA, IDLE, ""),
        (Role.RELAY, Load(), ""),
        (Role.RELAY, MINER, "99 % busy with 3 requests"),
        (Role.REPLICA, SOURCE, "sends 60.0 MB/s; its requests explain 8.3 MB/s"),
        (Role.ENTRY, FORWARDS, ""),
        (Role.CORE, FORWARDS, ""),
        (Role.ENTRY, IDLE, ""),
        (Role.CORE, Load(sessions=4, busy=1.5), ""),
        (Role.ENTRY, MINES, "100 % busy and forwards 0.0 MB/s"),
        (Role.CORE, FLOODS, "sends 60.0 MB/s and receives 2.0 MB/s"),
        (Role.HQ, MINES, ""),
    ],
)
def test_what_a_role_explains(role: Role, load: Load, said: str) -> None:
    found = "; ".join(unexplained(role, load))
    assert said in found if said else found == ""


def test_a_filling_server_may_be_busy() -> None:
    assert unexplained(Role.REPLICA, MINER, filled=False) == ()


def test_it_must_go_on_to_be_an_alert() -> None:
    """One heartbeat is a backup; ten of them concern the owner, by name and with a command."""
    alarm = Alarm()

    def look(at: float, load: Load) -> list[str]:
        server = ServerFacts("relay-eu-001", Role.RELAY, "eu", "alder", "ann", load=load)
        other = ServerFacts("relay-eu-002", Role.RELAY, "eu", "birch", "bob", load=BUSY_RELAY)
        change = alarm.look(Facts(at, (server, other)))
        return [row.subject for row in change.begun if row.kind is Kind.CONDUCT]

    assert look(0.0, MINER) == []
    assert look(100.0, IDLE) == []
    assert look(110.0, MINER) == []
    assert look(110.0 + CONDUCT_HOLD_S - 1, MINER) == []
    assert look(110.0 + CONDUCT_HOLD_S, MINER) == ["relay-eu-001"]
    (row,) = [row for row in alarm.rows() if row.kind is Kind.CONDUCT]
    assert (row.owner, row.concerns) == ("ann", "owner of the node")
    assert "holdfast hq drain relay-eu-001" in row.step
