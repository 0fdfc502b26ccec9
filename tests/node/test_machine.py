"""The agent's decisions, without a file, a clock or an HQ (D8, D25, D28; seed 004 §4, §5)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.errors import PeerFault
from holdfast.logic.effects import NOTHING
from holdfast.logic.fleet.model import Load, Role, Tier
from holdfast.node.machine import ALERTS_MAX, RESTART_S, STEADY_S, Machine, Memory, Phase
from holdfast.wire.control import Apply, Ready, Status, Stop
from holdfast.wire.hq import Alert, Desired

WANTED = Desired(
    version=3, term=2, name="relay-eu-001", role=Role.RELAY, slots=(), revocations=None
)
READY = Ready(("127.1.0.1:7443",))


def alert(name: str = "relay-ap-002", at: float = 1.0, tier: Tier = Tier.YELLOW) -> Alert:
    return Alert(
        name=name,
        node=b"n" * 32,
        tier=tier,
        clients=11,
        clients_active=40,
        regions=("eu",),
        first_reported_at=0.5,
        probe=None,
        observed_at=at,
    )


def serving(memory: Memory = Memory()) -> Machine:  # noqa: B008 - frozen
    machine = Machine(Role.RELAY, memory)
    machine.started()
    machine.ready(READY, 0.0)
    return machine


def test_the_last_desired_is_applied_to_every_new_role_without_hq() -> None:
    """DESIGN §3: with HQ gone the fleet serves, for months."""
    machine = Machine(Role.RELAY, Memory(desired=WANTED))
    for _ in range(3):
        assert machine.started().send == (Apply(WANTED),)
        machine.exited(-9, 0.0)


def test_a_node_that_heard_nothing_yet_starts_its_role_and_waits() -> None:
    machine = Machine(Role.RELAY, Memory())
    assert machine.started() == NOTHING
    assert machine.phase is Phase.STARTING


def test_desired_is_durable_before_it_is_applied() -> None:
    effects = serving().desire(WANTED)
    assert effects.persist == (Memory(desired=WANTED),)
    assert effects.send == (Apply(WANTED),)


def test_desired_while_the_role_is_down_is_only_remembered() -> None:
    machine = Machine(Role.RELAY, Memory())
    effects = machine.desire(WANTED)
    assert effects.persist
    assert effects.send == ()
    assert machine.started().send == (Apply(WANTED),)


@pytest.mark.parametrize(
    ("term", "version", "taken"),
    [(2, 3, False), (2, 2, False), (2, 4, True), (1, 99, False), (3, 1, True)],
)
def test_agents_refuse_lower_terms_and_repeats(term: int, version: int, taken: bool) -> None:
    """D25: a deposed HQ moves nothing, whatever version it says."""
    machine = serving(Memory(desired=WANTED))
    effects = machine.desire(replace(WANTED, term=term, version=version))
    assert bool(effects.send) == taken
    assert (machine.term, machine.desired_version) == ((term, version) if taken else (2, 3))


def test_a_desired_for_another_role_is_refused() -> None:
    with pytest.raises(PeerFault, match="replica"):
        serving().desire(replace(WANTED, role=Role.REPLICA))


def test_retired_stops_the_role_for_good() -> None:
    machine = serving(Memory(desired=WANTED))
    effects = machine.desire(replace(WANTED, version=4, retired=True))
    assert effects.send == (Stop(),)
    assert machine.phase is Phase.RETIRED
    assert machine.exited(0, 1.0) == NOTHING
    assert machine.desire(replace(WANTED, version=5)) == NOTHING
    assert Machine(Role.RELAY, machine.memory).phase is Phase.RETIRED


def test_retired_while_the_role_is_down_needs_no_stop() -> None:
    machine = Machine(Role.RELAY, Memory())
    assert machine.desire(replace(WANTED, retired=True)).send == ()
    assert machine.phase is Phase.RETIRED


def test_a_role_that_dies_comes_back_ever_more_slowly_and_quickly_after_a_long_life() -> None:
    machine = Machine(Role.RELAY, Memory())
    delays = []
    for _ in range(len(RESTART_S) + 2):
        machine.started()
        machine.ready(READY, 0.0)
        delays += machine.exited(1, STEADY_S - 1).timers
    assert tuple(delays) == (*RESTART_S, RESTART_S[-1], RESTART_S[-1])
    machine.started()
    machine.ready(READY, 0.0)
    assert machine.exited(1, STEADY_S).timers == (RESTART_S[0],)


def test_an_exit_is_audited_and_ends_the_sessions_it_had() -> None:
    machine = serving()
    machine.status(Status(Load(sessions=7, blobs=5), filled=True))
    (audit,) = machine.exited(-9, 1.0).audit
    assert audit.detail["status"] == -9
    assert (machine.load.sessions, machine.load.blobs, machine.filled) == (0, 5, True)


def test_ready_is_only_for_a_running_role_and_names_an_address() -> None:
    with pytest.raises(PeerFault):
        Machine(Role.RELAY, Memory()).ready(READY, 0.0)
    machine = Machine(Role.RELAY, Memory())
    machine.started()
    with pytest.raises(PeerFault):
        machine.ready(Ready(()), 0.0)


def test_the_newest_alert_of_a_server_wins_and_outlives_the_delivery_of_an_older() -> None:
    machine = serving()
    first, second = alert(at=1.0), alert(at=2.0, tier=Tier.ORANGE)
    assert machine.raised(first).persist == (Memory(alerts=(first,)),)
    machine.raised(second)
    assert machine.raised(first) == NOTHING, "late news"
    assert machine.delivered(first) == NOTHING
    assert machine.next_alert() == second
    assert machine.delivered(second).persist == (Memory(),)
    assert machine.next_alert() is None


def test_alerts_are_bounded() -> None:
    machine = serving(Memory(alerts=tuple(alert(f"relay-{n}") for n in range(ALERTS_MAX))))
    machine.raised(alert("relay-new"))
    assert len(machine.memory.alerts) == ALERTS_MAX
    assert machine.memory.alerts[-1].name == "relay-new"
    assert machine.memory.alerts[0].name == "relay-1", "the oldest gives way"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("start")),
        st.tuples(st.just("ready")),
        st.tuples(st.just("exit"), st.floats(0, 1e6)),
        st.tuples(
            st.just("desire"), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.booleans()
        ),
        st.tuples(st.just("alert"), st.sampled_from("abc"), st.floats(0, 100)),
        st.tuples(st.just("deliver")),
        st.tuples(st.just("crash")),
    ),
    max_size=40,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_whatever_happens_the_disk_and_the_machine_agree(events: list[tuple[object, ...]]) -> None:
    """The order law: what was persisted rebuilds the machine, and (term, version) only grow."""
    disk = Memory()
    machine = Machine(Role.RELAY, disk)
    seen = (0, 0)
    for event, *given_values in events:
        effects = NOTHING
        if event == "start" and machine.phase is Phase.WAITING:
            effects = machine.started()
        elif event == "ready" and machine.phase is not Phase.WAITING:
            effects = machine.ready(READY, 0.0)
        elif event == "exit" and machine.phase in (Phase.STARTING, Phase.SERVING):
            effects = machine.exited(1, float(str(given_values[0])))
            assert len(effects.timers) == 1
        elif event == "desire":
            term, version, retired, draining = given_values
            effects = machine.desire(
                replace(WANTED, term=term, version=version, retired=retired, draining=draining)
            )
        elif event == "alert":
            effects = machine.raised(alert(str(given_values[0]), float(str(given_values[1]))))
        elif event == "deliver" and (waiting := machine.next_alert()):
            effects = machine.delivered(waiting)
        elif event == "crash":
            machine = Machine(Role.RELAY, disk)
        disk = effects.persist[-1] if effects.persist else disk
        assert machine.memory == disk
        assert (machine.term, machine.desired_version) >= seen
        seen = (machine.term, machine.desired_version)
        assert len({held.name for held in disk.alerts}) == len(disk.alerts)
        if disk.desired is not None and disk.desired.retired:
            assert machine.phase is Phase.RETIRED
