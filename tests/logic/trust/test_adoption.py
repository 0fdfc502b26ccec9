"""Following a slot record gradually (D4)."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from holdfast.limits import RECORD_CHANGE_S_MIN
from holdfast.logic.fleet.model import Seat, SlotRecord, Version
from holdfast.logic.trust.adoption import Judgement, Known, Verdict, judge


def seat(name: str, node: int, address: str = "127.0.0.1:1") -> Seat:
    return Seat(name, bytes([node]) * 32, (address,), f"provider-{node % 3}", "owner", "eu")


def record(n: int, relays: dict[str, int], replicas: dict[str, int]) -> SlotRecord:
    return SlotRecord(
        network=bytes(16),
        slot=bytes(16),
        version=Version(0, n),
        issued_at=n,
        relays=tuple(seat(name, node) for name, node in relays.items()),
        replicas=tuple(seat(name, node) for name, node in replicas.items()),
    )


RELAYS = {"a": 1, "b": 2, "c": 3}
REPLICAS = {"x": 4, "y": 5, "z": 6}
FIRST = record(1, RELAYS, REPLICAS)
KNOWN = Known(FIRST)


def replaced(n: int, **changes: int) -> SlotRecord:
    relays = {name: changes.get(name, node) for name, node in RELAYS.items()}
    replicas = {name: changes.get(name, node) for name, node in REPLICAS.items()}
    return record(n, relays, replicas)


def adopted(judgement: Judgement) -> Known:
    assert judgement.verdict is Verdict.ADOPT
    assert judgement.known is not None
    return judgement.known


def test_the_first_record_is_followed_and_unwitnessed() -> None:
    known = adopted(judge(None, FIRST, 5.0))
    assert known.record == FIRST
    assert known.unwitnessed
    assert not adopted(judge(None, FIRST, 5.0, witnesses=2)).unwitnessed


def test_one_relay_and_one_replica_may_change() -> None:
    offered = replaced(2, a=11, x=14)
    known = adopted(judge(KNOWN, offered, 5.0))
    assert known == Known(offered, 5.0, 5.0)


def test_a_new_node_behind_an_old_name_is_a_change_of_the_seat() -> None:
    for offered in (replaced(2, a=11, b=12), replaced(2, x=14, y=15)):
        judgement = judge(KNOWN, offered, 5.0)
        assert judgement.verdict is Verdict.TOO_DIFFERENT
        assert judgement.known is KNOWN
        assert min(judgement.relays_kept, judgement.replicas_kept) == 1


def test_an_old_node_under_a_new_name_is_a_change_too() -> None:
    offered = record(2, {"a": 1, "d": 2, "e": 3}, REPLICAS)
    assert judge(KNOWN, offered, 5.0).verdict is Verdict.TOO_DIFFERENT


def test_a_node_that_moves_between_roles_is_not_kept() -> None:
    offered = record(2, {"a": 1, "b": 2, "x": 4}, {"c": 3, "y": 5, "z": 6})
    judgement = judge(KNOWN, offered, 5.0)
    assert judgement.verdict is Verdict.ADOPT
    assert (judgement.relays_kept, judgement.replicas_kept) == (2, 2)


def test_ten_minutes_between_changes_and_not_a_second_less() -> None:
    known = adopted(judge(KNOWN, replaced(2, a=11), 100.0))
    offered = replaced(3, a=11, b=12)
    early = judge(known, offered, 100.0 + RECORD_CHANGE_S_MIN - 0.1)
    assert early.verdict is Verdict.TOO_SOON
    assert early.retry_at == 100.0 + RECORD_CHANGE_S_MIN
    assert early.known is known
    adopted(judge(known, offered, early.retry_at))


def test_relay_then_replica_in_two_steps_is_what_one_record_may_do() -> None:
    """A lost provider takes one of each; HQ may heal them one after the other."""
    known = adopted(judge(KNOWN, replaced(2, a=11), 100.0))
    known = adopted(judge(known, replaced(3, a=11, x=14), 101.0))
    assert judge(known, replaced(4, a=21, x=14), 102.0).verdict is Verdict.TOO_SOON
    assert judge(known, replaced(4, a=11, x=24), 102.0).verdict is Verdict.TOO_SOON


def test_new_addresses_are_followed_at_once_and_start_no_clock() -> None:
    moved = msgspec.structs.replace(
        FIRST,
        version=Version(0, 2),
        relays=(seat("a", 1, "127.0.0.9:9"), *FIRST.relays[1:]),
    )
    known = adopted(judge(Known(FIRST, 99.0, 99.0), moved, 100.0, witnesses_needed=2))
    assert known == Known(moved, 99.0, 99.0)


def test_extra_seats_are_no_way_in() -> None:
    """D4: strangers seated beside the old six would change everything without a change."""
    evil = {"e": 11, "f": 12, "g": 13}
    crowds = (
        record(2, evil | RELAYS, REPLICAS),
        record(2, RELAYS, {"u": 14, "v": 15, "w": 16} | REPLICAS),
        record(2, {"a": 1, "b": 2}, REPLICAS),
        record(2, {"a": 1, "b": 2, "c": 2}, REPLICAS),
        record(2, {"a": 1, "b": 2, "x": 3}, REPLICAS),
        msgspec.structs.replace(FIRST, version=Version(0, 2), relays=FIRST.relays[:1] * 3),
    )
    for offered in crowds:
        judgement = judge(KNOWN, offered, 5.0)
        assert (judgement.verdict, judgement.known) == (Verdict.MISSHAPEN, KNOWN)
        assert judge(None, offered, 5.0).known is None, "nor is it followed as the first"


def test_versions_decide_first() -> None:
    second = Known(replaced(2, a=11))
    assert judge(second, FIRST, 5.0).verdict is Verdict.OLDER
    assert judge(second, replaced(2, a=11), 5.0).verdict is Verdict.SAME
    assert judge(second, replaced(2, a=12), 5.0).verdict is Verdict.CONFLICT
    restored = msgspec.structs.replace(replaced(1, a=11), version=Version(1, 0))
    assert judge(second, restored, 5.0).verdict is Verdict.ADOPT
    for field in ("network", "slot"):
        foreign = msgspec.structs.replace(replaced(3), **{field: b"f" * 16})
        assert judge(second, foreign, 5.0).verdict is Verdict.FOREIGN


def test_witnesses_are_asked_for_where_there_are_some() -> None:
    offered = replaced(2, a=11)
    short = judge(KNOWN, offered, 5.0, witnesses=1, witnesses_needed=2)
    assert short.verdict is Verdict.UNWITNESSED
    adopted(judge(KNOWN, offered, 5.0, witnesses=2, witnesses_needed=2))


@given(
    st.lists(
        st.tuples(st.sampled_from("abcxyz"), st.integers(20, 40), st.floats(0.0, 700.0)),
        max_size=30,
    )
)
def test_no_sequence_of_records_moves_two_seats_of_a_role_in_ten_minutes(
    steps: list[tuple[str, int, float]],
) -> None:
    """THREATS: a hostile HQ replaces at most one relay and one replica per ten minutes."""
    known, now, nodes = KNOWN, 0.0, dict(RELAYS | REPLICAS)
    moved: dict[str, list[float]] = {"relay": [], "replica": []}
    for n, (name, node, wait) in enumerate(steps, 2):
        now += wait
        nodes[name] = node
        offered = replaced(n, **nodes)
        judgement = judge(known, offered, now)
        if judgement.verdict is not Verdict.ADOPT or judgement.known is None:
            continue
        moved["relay"] += [now] * (3 - judgement.relays_kept)
        moved["replica"] += [now] * (3 - judgement.replicas_kept)
        known = judgement.known
    for times in moved.values():
        gaps = [later - sooner for sooner, later in pairwise(times)]
        assert all(gap >= RECORD_CHANGE_S_MIN for gap in gaps)
