"""Which core: the owner's own first, reserves within quotas, then locality and load (seed 000)."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.logic.access.choice import may_serve, reserve_left, targets, weight_of
from holdfast.logic.access.model import SHARED_LANE, Core, ExitPolicy


def core(name: str, owner: str, region: str = "eu", **more: object) -> Core:
    made = Core(
        name, name.encode().ljust(32, b"."), "c1", region, owner, (f"192.0.2.1:{len(name)}",)
    )
    return msgspec.structs.replace(made, **more)


ADA = core("core-eu-001", "ada")
BOB = core("core-eu-002", "bob")
EVE = core("core-ap-001", "eve", region="ap")


def test_seed0_the_owners_own_core_comes_first_and_others_are_reserve() -> None:
    found = targets("ada", "eu", [EVE, BOB, ADA])
    assert [(t.name, t.priority, t.own) for t in found] == [
        ("core-eu-001", 0, True),
        ("core-eu-002", 1, False),
        ("core-ap-001", 2, False),
    ]


def test_without_the_own_core_the_nearest_reserve_comes_first() -> None:
    gone = msgspec.structs.replace(ADA, draining=True)
    assert [(t.name, t.priority) for t in targets("ada", "eu", [gone, EVE, BOB])] == [
        ("core-eu-002", 0),
        ("core-ap-001", 1),
    ]


def test_members_without_a_core_have_reserves_only() -> None:
    assert not any(t.own for t in targets(SHARED_LANE, "eu", [ADA, BOB]))
    nobodys = core("core-eu-009", SHARED_LANE)
    assert not any(t.own for t in targets(SHARED_LANE, "eu", [nobodys]))


@pytest.mark.parametrize(
    "change",
    [
        {"policy": ExitPolicy(reserve=False)},
        {"policy": ExitPolicy(reserve_bytes=100), "reserve_used": 100},
        {"policy": ExitPolicy(reserve_bytes=100, monthly_bytes=50), "total_used": 50},
        {"draining": True},
        {"addresses": ()},
    ],
)
def test_a_core_that_may_not_carry_others_is_not_asked(change: dict[str, object]) -> None:
    assert targets("ada", "eu", [msgspec.structs.replace(BOB, **change)]) == ()


def test_the_owner_may_use_a_core_whose_reserve_is_spent_but_not_past_the_monthly_cap() -> None:
    spent = core("core-eu-001", "ada", policy=ExitPolicy(reserve_bytes=1), reserve_used=1)
    assert may_serve(spent, "ada")
    capped = msgspec.structs.replace(spent, policy=ExitPolicy(monthly_bytes=10), total_used=10)
    assert not may_serve(capped, "ada")


def test_the_monthly_cap_bounds_the_reserve() -> None:
    policy = ExitPolicy(reserve_bytes=100, monthly_bytes=80)
    assert reserve_left(core("c", "bob", policy=policy, total_used=30, reserve_used=10)) == 50


def test_load_weighs_in_steps() -> None:
    assert weight_of(core("c", "o", load=0.0)) == 100
    assert weight_of(core("c", "o", load=0.52)) == weight_of(core("c", "o", load=0.48)) == 50
    assert weight_of(core("c", "o", load=7.0)) == 1
