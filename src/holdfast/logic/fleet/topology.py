"""The launch topology: what to plan for a list of providers and regions (seed 004 §11.1).

For each region and role one logical server at each provider, `relay-eu-001` at the first,
`relay-eu-002` at the second and so on, and never fewer than a slot needs: with two providers the
third server shares one, and the slots built on it carry a debt.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import UsageError
from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.model import OPERATOR, Role
from holdfast.logic.fleet.rows import ServerRow

SEATS = {Role.RELAY: RELAYS_PER_SLOT, Role.REPLICA: REPLICAS_PER_SLOT}


def server_name(role: Role, region: str, number: int) -> str:
    """`relay-eu-001`: what DNS, certificates and people call a logical server."""
    return f"{role.value}-{region}-{number:03d}"


def plan_launch(
    providers: Sequence[str], regions: Sequence[str], per_region: int = 0
) -> tuple[ServerRow, ...]:
    """The planned servers, region by region: `per_region` of each role, if that is more than one
    at each provider and enough for a slot. Raises UsageError without a provider or region.
    """
    if not providers or not regions:
        raise UsageError("a launch needs at least one provider and one region")
    rows = []
    for region in regions:
        if not region.isalnum() or region != region.lower():
            raise UsageError(f"region {region!r}: use lower-case letters and digits, as in eu")
        for role, seats in SEATS.items():
            for index in range(max(seats, len(providers), per_region)):
                rows.append(
                    ServerRow(
                        name=server_name(role, region, index + 1),
                        role=role,
                        region=region,
                        provider=providers[index % len(providers)],
                        owner=OPERATOR,
                    )
                )
    return tuple(rows)
