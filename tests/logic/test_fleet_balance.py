"""Slots are moved until loads are even, gradually, and no rule is broken (seed 004 §6.2).

What a plan does is followed here on a table of our own; the rules are counted from it anew.
"""

from __future__ import annotations

from itertools import combinations
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.logic.fleet_world import GOOD, World, counted_debts, debts, launched, role_names

from holdfast.crypto.pure import hash_bytes
from holdfast.limits.fleet import BALANCE_GOAL, MOVES_INTO_MAX, MOVES_SHOWN_MAX
from holdfast.logic.fleet import events
from holdfast.logic.fleet.allocation import Candidate, slot_debtors
from holdfast.logic.fleet.balance import Plan, plan_moves
from holdfast.logic.fleet.filled import digest_of
from holdfast.logic.fleet.model import OPERATOR, Load, Role, Tier, Version
from holdfast.logic.fleet.rows import (
    DebtRow,
    MoveRow,
    NodeRow,
    ServerRow,
    ServerState,
    SlotRow,
)
from holdfast.logic.fleet.slots import redundancy
from holdfast.logic.fleet.state import FleetState, seat

ROLES = (Role.RELAY, Role.REPLICA)
Table = dict[tuple[bytes, Role], tuple[str, ...]]


# --- The plan ------------------------------------------------------------------------------------
def a_fleet(seed: int) -> tuple[FleetState, dict[str, Candidate]]:
    """A fleet of up to ten servers of each role with slots anywhere, debts included."""
    dice = Random(seed)
    state = FleetState(b"n" * 16)
    candidates: dict[str, Candidate] = {}
    count = dice.randint(4, 10)
    for role in ROLES:
        for number in range(count):
            domain = dice.randrange(5)
            row = ServerRow(
                name=f"{role.value}-{number}",
                role=role,
                region="eu",
                provider=f"p{domain}",
                owner=dice.choice([OPERATOR, OPERATOR, "ann"]),
                state=ServerState.ACTIVE,
                node=hash_bytes(f"{role}{number}".encode()),
                tier=dice.choice([Tier.GREEN] * 5 + [Tier.RED]),
                filled=True,
            )
            state.put(row)
            stored = dice.randrange(900)
            candidates[row.name] = Candidate(
                row,
                load=Load(stored_bytes=stored, free_bytes=1_000 - stored),
                jurisdiction=f"j{domain % 3}",
            )
    for number in range(dice.randint(1, 24)):
        relays, replicas = (
            tuple(dice.sample([f"{role.value}-{n}" for n in range(count)], 3)) for role in ROLES
        )
        row = SlotRow(
            slot=bytes([number]) * 16,
            region="eu",
            version=Version(0, 1),
            relays=relays,
            replicas=replicas,
            changed_at=0.0,
            groups=dice.randrange(40),
            seats=tuple(seat(state.servers[name]) for name in relays + replicas),
        )
        state.put(row)
        for name, provider in slot_debtors(state, row).items():
            state.put(DebtRow(row.slot, name, provider, 0.0))
    return state, candidates


def clashes(state: FleetState, names: tuple[str, ...]) -> int:
    rows = [state.servers[name] for name in names]
    return sum(
        a.provider == b.provider or (a.owner == b.owner != OPERATOR)
        for a, b in combinations(rows, 2)
    )


def places(candidates: dict[str, Candidate], names: tuple[str, ...]) -> int:
    return len({candidates[name].jurisdiction for name in names})


def imbalance(state: FleetState, table: Table, role: Role) -> float:
    loads = {row.name: 0 for row in state.servers.values() if row.role is role}
    for (slot, of), names in table.items():
        for name in names if of is role else ():
            loads[name] += state.slots[slot].groups + 1
    return max(loads.values()) * len(loads) / sum(loads.values())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_a_plan_breaks_no_rule_ends_and_never_makes_it_worse(seed: int) -> None:
    state, candidates = a_fleet(seed)
    table: Table = {
        (row.slot, role): state.group(row, role) for row in state.slots.values() for role in ROLES
    }
    plan = plan_moves(state, candidates.__getitem__, MOVES_SHOWN_MAX)
    assert len(plan.moves) < MOVES_SHOWN_MAX, "it ends by itself"
    worst = max(imbalance(state, table, role) for role in ROLES)
    assert plan.before == pytest.approx(worst)
    for move in plan.moves:
        before = table[move.slot, move.role]
        was = imbalance(state, table, move.role)
        after = tuple(move.name if name == move.former else name for name in before)
        table[move.slot, move.role] = after
        assert state.servers[move.name].role is move.role
        assert state.servers[move.name].tier is Tier.GREEN
        assert len(set(after)) == 3, "no name twice"
        assert len(set(before) & set(after)) == 2, "one seat at a time"
        assert clashes(state, after) <= clashes(state, before), "diversity"
        assert places(candidates, after) >= places(candidates, before), "jurisdictions"
        assert imbalance(state, table, move.role) <= was + 1e-9
        if move.repays:
            assert clashes(state, after) < clashes(state, before)
        held = [slot for (slot, role), names in table.items() if move.former in names]
        assert held, "a server without slots would be founded anew with these names"
    assert plan.after == pytest.approx(max(imbalance(state, table, role) for role in ROLES))


def test_a_debt_is_repaid_before_loads_are_evened() -> None:
    world = skewed()
    state = world.fleet.state
    for name in ("relay-eu-002", "relay-eu-004"):
        provider = {"relay-eu-002": "amber", "relay-eu-004": "birch"}[name]
        state.put(msgspec.structs.replace(world.server(name), provider=provider))
    for row in list(state.slots.values()):
        world.fleet.slots.debts(row, world.now)
    assert debts(world) == 16, "two relays of every slot at one provider"
    plan = plan_moves(state, world.fleet._candidate, 1_000)
    repaying = [move.repays for move in plan.moves]
    assert all(repaying[:15]), "all that can be repaid at once"
    assert not repaying[15], "who owes keeps one slot"
    assert plan.after <= plan.before


def test_who_is_nearly_full_takes_nothing() -> None:
    world = launched(regions=("eu",))
    join(world, "relay-eu-004")
    state = world.fleet.state
    full = Load(stored_bytes=85, free_bytes=15)

    def planned(load: Load) -> Plan:
        def candidate(name: str) -> Candidate:
            return Candidate(
                state.servers[name], load if name == "relay-eu-004" else Load(160, 0, 0, 160, 40)
            )

        return plan_moves(state, candidate, 100)

    assert len(planned(Load()).moves) == 12, "the control: room enough"
    moves = [move for move in planned(full).moves if move.name == "relay-eu-004"]
    assert not moves, "each slot would bring ten, and ten must stay free"


# --- The machine ---------------------------------------------------------------------------------
def join(world: World, name: str, provider: str = "dogwood") -> None:
    """Somebody's own machine joins as a new logical server."""
    role, region, _ = name.split("-")
    row = NodeRow(
        node=hash_bytes(name.encode()),
        identity=b"",
        name=name,
        role=Role(role),
        region=region,
        provider=provider,
        owner=OPERATOR,
        addresses=("127.9.9.9:443",),
        serial=name,
        cert_expires_at=0,
        joined_at=world.now,
    )
    world.join_row(row)


def skewed(**options: object) -> World:
    """Three loaded servers of each role, and a fourth without a slot."""
    world = launched(regions=("eu",), **options)
    for _ in range(160):
        world.step(events.Allocate("eu"))
    join(world, "relay-eu-004")
    join(world, "replica-eu-004")
    world.run(240)
    assert not world.server("relay-eu-004").filled, "it has no slot to be filled with"
    world.records.clear()
    return world


def groups(world: World, role: Role) -> dict[str, int]:
    state = world.fleet.state
    return {
        name: sum(state.slots[slot].groups for slot in state.slots_of.get(name, ()))
        for name in role_names(world, "eu", role)
    }


def watch(world: World, seconds: float) -> None:
    """Let time go by and look at what must hold at every moment."""
    changed: dict[bytes, float] = {}
    seen = 0
    end = world.now + seconds
    while (world.now < end and world.fleet.state.rebalance is not None) or world.fleet.state.moves:
        assert world.now < end, "it comes to its end"
        world.run(5)
        state = world.fleet.state
        into: dict[str, int] = {}
        for move in state.moves.values():
            into[move.name] = into.get(move.name, 0) + 1
        assert max(into.values(), default=0) <= MOVES_INTO_MAX
        for at, row in world.records[seen:]:
            assert at - changed.get(row.slot, -1e9) >= 600, "one change in ten minutes"
            changed[row.slot] = at
        seen = len(world.records)
        for row in state.slots.values():
            relays, replicas = redundancy(state, row)
            moving = row.slot in state.moves
            assert relays == 3
            assert replicas >= 3 - moving
        assert debts(world) == counted_debts(world) == 0


def test_the_loaded_give_to_the_light_and_it_ends() -> None:
    world = skewed()
    world.step(events.Rebalance("ann", 12))
    watch(world, 4_000)
    for role in ROLES:
        loads = groups(world, role)
        assert max(loads.values()) * len(loads) / sum(loads.values()) <= BALANCE_GOAL
        assert sum(loads.values()) == 480
    (ended,) = world.lines("rebalance.ended")
    assert ended.detail["why"] == "no move is left"
    assert ended.detail["moved"] == len(world.lines("slot.moved")) == len(world.records)
    assert ended.detail["before"] > 1.3 > BALANCE_GOAL >= ended.detail["after"]
    assert not [row for row in world.rows.values() if isinstance(row, MoveRow)]


def test_a_budget_and_a_stop() -> None:
    world = skewed()
    world.step(events.Rebalance("ann", 2))
    world.run(60)
    assert len(world.lines("slot.moving")) == 2
    world.run(60)
    assert 3 <= len(world.lines("slot.moving")) <= 4
    world.step(events.StopRebalance("ben"))
    count = len(world.lines("slot.moving"))
    world.run(1_200)
    assert len(world.lines("slot.moving")) == count
    assert len(world.lines("slot.moved")) == count, "what was under way is carried through"
    assert world.lines("rebalance.ended")[0].detail["why"] == "stopped by ben"


def test_whoever_had_the_slot_is_needed_until_the_new_one_is_filled() -> None:
    world = skewed()
    mute = world.server("relay-eu-004").node
    world.mute.add(mute)
    world.mute.add(world.server("replica-eu-004").node)
    world.step(events.Rebalance("ann", 1))
    world.until(lambda: bool(world.fleet.state.moves), 30)
    (move,) = world.fleet.state.moves.values()
    assert world.fleet.state.is_leaving(world.server(move.former).node)
    world.step(events.StopRebalance("ann"))
    world.run(240)
    assert world.fleet.state.moves, "it has not said that it is filled"
    world.mute.clear()
    world.run(240)
    assert not world.fleet.state.moves


def test_a_server_is_believed_when_it_speaks_of_its_records_of_now() -> None:
    """It was filled before it was given the slot, and has not heard that it was."""
    world = skewed()
    world.step(events.Rebalance("ann", 1))
    world.until(lambda: bool(world.fleet.state.moves), 30)
    (move,) = world.fleet.state.moves.values()
    node = world.server(move.name).node
    world.mute.add(node)
    world.run(600)
    slots = (world.fleet.state.slots[slot] for slot in world.fleet.state.slots_of[move.name])
    rest = [(row.slot, row.version) for row in slots if row.slot != move.slot]
    world.step(events.Beat(node, GOOD, filled=True, filled_of=digest_of(rest)))
    assert not world.server(move.name).filled
    world.step(events.Beat(node, GOOD, filled=True, filled_of=world.fleet.slots.digest(move.name)))
    assert world.server(move.name).filled


def test_who_is_silent_for_a_moment_is_waited_for() -> None:
    world = skewed()
    new = {world.server(f"{role}-eu-004").node for role in ("relay", "replica")}
    world.mute |= new
    world.run(120)
    world.step(events.Rebalance("ann", 12))
    world.run(60)
    assert not world.lines("slot.moving"), "nobody else may take anything"
    assert world.fleet.state.rebalance is not None
    world.mute -= new
    watch(world, 4_000)
    assert world.lines("slot.moved")
    world.mute |= new
    world.step(events.Rebalance("ann", 12))
    world.run(30)
    (_, ended) = world.lines("rebalance.ended")
    assert ended.detail["moved"] == 0, "even already: nothing to wait for"


def test_no_slot_of_a_dead_or_leaving_server_is_touched() -> None:
    world = skewed()
    world.step(events.Left(world.server("relay-eu-001").node, "drill"))
    world.step(events.Rebalance("ann", 100))
    world.run(20)
    assert not world.lines("slot.moving"), "all slots have that server"
    watch(world, 9_000)
    assert groups(world, Role.RELAY)["relay-eu-004"] >= 100


@pytest.mark.parametrize("at", range(1, 60, 3))
def test_a_headquarters_that_dies_anywhere_goes_on(at: int) -> None:
    world = skewed()
    world.boundaries, world.crash_at = 0, at
    world.step(events.Rebalance("ann", 12))
    if world.fleet.state.rebalance is None:
        world.step(events.Rebalance("ann", 12))  # it died before it was durable: asked again
    watch(world, 6_000)
    assert world.restarts == 1
    for role in ROLES:
        loads = groups(world, role)
        assert max(loads.values()) * len(loads) / sum(loads.values()) <= BALANCE_GOAL
    for row in world.fleet.state.slots.values():
        assert [item.name for item in row.seats] == [*row.relays, *row.replicas]


def test_a_move_whose_second_half_was_never_written_did_not_happen() -> None:
    world = skewed()
    slot = next(iter(world.fleet.state.slots))
    gone = MoveRow(slot, Role.RELAY, "relay-eu-001", b"a" * 32, "relay-eu-004", b"b" * 32, 1.0)
    world.rows[world.key(gone)] = gone
    world.restart()
    assert not world.fleet.state.moves
    assert world.key(gone) not in world.rows
