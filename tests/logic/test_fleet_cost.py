"""The bill of the fleet that runs: ours by provider, theirs apart, what is coming paid as well."""

from __future__ import annotations

from holdfast.logic.fleet.cost import MACHINE_EUR_PER_MONTH, cost
from holdfast.logic.fleet.model import OPERATOR


def test_the_seed_s_launch_costs_what_the_plan_says() -> None:
    """Seed 004 §11.6: six hosts and six volumes are 330 euros a month."""
    fleet = [(f"provider-{n % 3}", OPERATOR) for n in range(18)]
    assert cost(fleet, [], 0, {}).monthly_eur == 330.0


def test_prices_of_a_provider_and_machines_of_others() -> None:
    fleet = [("alder", OPERATOR)] * 3 + [("birch", OPERATOR), ("home", "ann"), ("alder", "bob")]
    found = cost(fleet, ["birch", "elm"], 2_000, {"alder": 4.0, "elm": 0.0})
    assert [(b.provider, b.machines, b.coming, b.monthly_eur) for b in found.bills] == [
        ("alder", 3, 0, 12.0),
        ("birch", 1, 1, round(2 * MACHINE_EUR_PER_MONTH, 2)),
        ("elm", 0, 1, 0.0),
    ]
    assert (found.machines, found.theirs) == (4, 2)
    assert found.eur_per_1000_groups == round(found.monthly_eur / 2, 2)
