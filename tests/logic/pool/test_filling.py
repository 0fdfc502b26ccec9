"""Whether a server holds what its slot holds (D11, D13)."""

from __future__ import annotations

from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.filling import Filling

RELAYS = [(bytes([n]) * 32, Role.RELAY) for n in range(1, 4)]
REPLICAS = [(bytes([n]) * 32, Role.REPLICA) for n in range(4, 6)]
PEERS = RELAYS + REPLICAS


def test_filled_after_two_of_those_it_reaches() -> None:
    filling = Filling()
    filling.compared(RELAYS[0][0], whole=True)
    filling.compared(RELAYS[1][0], whole=False)
    assert not filling.settle(Role.RELAY, PEERS)
    filling.compared(RELAYS[1][0], whole=True)
    assert filling.settle(Role.RELAY, PEERS)


def test_one_is_enough_when_only_one_is_left() -> None:
    filling = Filling()
    filling.compared(RELAYS[0][0], whole=True)
    filling.unreachable(RELAYS[1][0])
    assert filling.settle(Role.RELAY, PEERS)


def test_whoever_reaches_nobody_is_not_filled() -> None:
    assert not Filling().settle(Role.RELAY, PEERS)
    assert Filling().settle(Role.RELAY, []), "a server without peers has nothing to fetch"


def test_a_replica_is_not_filled_by_relays_while_replicas_answer() -> None:
    """Relays have forgotten the old days; only a replica knows what an archive holds."""
    filling = Filling()
    for node, _ in RELAYS:
        filling.compared(node, whole=True)
    filling.compared(REPLICAS[0][0], whole=False)
    assert not filling.settle(Role.REPLICA, PEERS)
    filling.compared(REPLICAS[0][0], whole=True)
    assert filling.settle(Role.REPLICA, PEERS)


def test_filled_stays_filled() -> None:
    filling = Filling()
    filling.compared(RELAYS[0][0], whole=True)
    assert filling.settle(Role.RELAY, PEERS)
    filling.compared(RELAYS[1][0], whole=False)
    assert filling.settle(Role.RELAY, PEERS)


def test_a_peer_that_lost_its_seat_counts_for_nothing() -> None:
    filling = Filling()
    filling.compared(RELAYS[0][0], whole=True)
    filling.compared(RELAYS[1][0], whole=False)
    assert not filling.settle(Role.RELAY, RELAYS[1:] + REPLICAS)
