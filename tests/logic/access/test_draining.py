"""When a node that drains may go: nobody who refreshes is dropped (seed 000)."""

from __future__ import annotations

from holdfast.limits.access import DRAIN_S, EPOCH_AGE_S_MAX, SWITCH_REAL_S_MIN, SWITCH_S
from holdfast.logic.access.draining import Drains

NODE = b"E" * 32
BEGAN = 1_000_000.0
LATER = BEGAN + DRAIN_S


def drains(scale: float = 1.0) -> Drains:
    made = Drains(scale)
    assert not made.may_go(NODE, [BEGAN - 5], BEGAN)
    return made


def test_an_entry_stays_until_the_last_device_fetched_and_switched() -> None:
    made = drains()
    assert not made.may_go(NODE, [LATER, BEGAN - 5], LATER + 1), "one has not fetched"
    assert not made.may_go(NODE, [LATER, LATER + 2], LATER + 2), "it is starting anew"
    assert not made.may_go(NODE, [LATER, LATER + 2], LATER + 1 + SWITCH_S)
    assert made.may_go(NODE, [LATER, LATER + 2], LATER + 2 + SWITCH_S)


def test_who_fetches_often_keeps_nobody() -> None:
    made = drains()
    for second in range(int(SWITCH_S)):
        assert not made.may_go(NODE, [LATER + second], LATER + second)
    assert made.may_go(NODE, [LATER + SWITCH_S], LATER + SWITCH_S)


def test_a_device_that_never_fetched_holds_nothing_and_one_that_is_lost_not_for_ever() -> None:
    made = drains()
    assert not made.may_go(NODE, [0.0], LATER)
    assert made.may_go(NODE, [0.0], LATER + SWITCH_S)
    made = drains()
    end = BEGAN + EPOCH_AGE_S_MAX
    assert not made.may_go(NODE, [BEGAN - 5], end - 1)
    assert not made.may_go(NODE, [BEGAN - 5], end)
    assert made.may_go(NODE, [BEGAN - 5], end + SWITCH_S)


def test_a_core_waits_for_no_device() -> None:
    made = drains()
    assert not made.may_go(NODE, [], BEGAN + DRAIN_S - 1)
    assert not made.may_go(NODE, [], LATER)
    assert made.may_go(NODE, [], LATER + SWITCH_S)


def test_who_drains_again_waits_again() -> None:
    made = drains()
    made.may_go(NODE, [], LATER)
    made.forget(NODE)
    assert not made.may_go(NODE, [], LATER + SWITCH_S)
    assert not made.may_go(NODE, [], LATER + SWITCH_S + DRAIN_S)


def test_fast_time_leaves_a_client_its_real_seconds() -> None:
    made = drains(scale=1_000.0)
    assert not made.may_go(NODE, [], BEGAN + 1)
    assert not made.may_go(NODE, [], BEGAN + 1 + SWITCH_REAL_S_MIN / 2)
    assert made.may_go(NODE, [], BEGAN + 1 + SWITCH_REAL_S_MIN)
