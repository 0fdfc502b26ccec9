"""Growth, its milestones and its bill, as seed 004 §11 has them."""

from __future__ import annotations

import pytest

from holdfast.logic.fleet.growth import assign, plan_growth


def test_seed_004_11_7_milestones() -> None:
    """seed 004 §11.7: 18, 27, 36 containers; six, nine, twelve relays."""
    stages = plan_growth(10_000).milestones
    assert [stage.containers for stage in stages] == [18, 27, 36]
    assert [stage.relays for stage in stages] == [6, 9, 12]
    assert [stage.users_max for stage in stages] == [2_000_000, 3_000_000, 4_000_000]


def test_seed_004_11_6_monthly_cost() -> None:
    """seed 004 §11.6: 210 + 120 = 330 euros a month at launch."""
    stage = plan_growth(10_000).stage
    assert (stage.compute_eur, stage.storage_eur, stage.monthly_eur) == (210, 120, 330)


def test_seed_004_11_4_assignment() -> None:
    """seed 004 §11.4: seven rows; the Americas with the EU until they have their own."""
    table = {row.home: (row.group, row.interim) for row in plan_growth(10_000).assignment}
    assert table == {
        "Europe": ("eu", False),
        "Africa": ("eu", False),
        "Middle East": ("eu", False),
        "Asia Pacific": ("ap", False),
        "Oceania": ("ap", False),
        "India": ("ap", False),
        "North America": ("eu", True),
        "South America": ("eu", True),
    }
    later = {row.home: row.group for row in assign(("eu", "ap", "us", "sa"))}
    assert (later["North America"], later["South America"]) == ("us", "sa")


@pytest.mark.parametrize(
    ("users", "name", "containers"),
    [
        (1, "launch", 18),
        (2_000_000, "launch", 18),
        (2_000_001, "milestone 1", 27),
        (4_000_000, "milestone 2", 36),
        (4_000_001, "milestone 3", 45),
    ],
)
def test_the_stage_that_so_many_users_need(users: int, name: str, containers: int) -> None:
    stage = plan_growth(users).stage
    assert (stage.name, stage.containers) == (name, containers)
