"""Growth and what it costs: the launch topology, its milestones, its bill (seed 004 §11).

A *group* is a region: three relays, three replicas and three archive nodes, one of each at each of
three providers, nine containers on three hosts. The launch has two, EU and APAC. A region gets a
group of its own when there are users enough; until then its users belong to the nearest, by the
very table that places them (`allocation.nearest`). Past the last milestone the fullest groups are
split, by as many groups as keep each below a million users.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.limits.fleet import (
    HOST_EUR_PER_MONTH,
    USERS_PER_GROUP_MAX,
    VOLUME_EUR_PER_MONTH,
)
from holdfast.logic.fleet.allocation import nearest

PROVIDERS_PER_GROUP: Final = 3
CONTAINERS_PER_HOST: Final = 3
"""A relay, a replica, an archive node (§11.2)."""
STAGES: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("launch", ("eu", "ap"), "the first day"),
    ("milestone 1", ("eu", "ap", "us"), "more than 10,000 US subscribers, or latency complaints"),
    ("milestone 2", ("eu", "ap", "us", "sa"), "growth in Latin America"),
)
SPLIT: Final = ("milestone 3", "any relay near 500,000 users")
HOMES: Final[tuple[tuple[str, str], ...]] = (
    ("Europe", "eu"),
    ("Africa", "af"),
    ("Middle East", "me"),
    ("Asia Pacific", "ap"),
    ("Oceania", "oc"),
    ("India", "in"),
    ("North America", "us"),
    ("South America", "sa"),
)


class Stage(msgspec.Struct, frozen=True):
    """The fleet at one stage. `users_max` is how many it carries; money is whole euros a month."""

    name: str
    trigger: str
    groups: int
    regions: tuple[str, ...]
    relays: int
    replicas: int
    archive_nodes: int
    containers: int
    hosts: int
    users_max: int
    compute_eur: int
    storage_eur: int
    monthly_eur: int


class Assignment(msgspec.Struct, frozen=True):
    """Where the users of a region belong (§11.4). `interim`: until a nearer group is built."""

    home: str
    code: str
    group: str
    interim: bool


class Growth(msgspec.Struct, frozen=True):
    """The stage that so many users need, who belongs where then, and all stages."""

    users: int
    stage: Stage
    assignment: tuple[Assignment, ...]
    milestones: tuple[Stage, ...]


def plan_growth(users: int) -> Growth:
    """What `users` users need."""
    assert users > 0
    milestones = tuple(_stage(name, trigger, len(r), r) for name, r, trigger in STAGES)
    stage = next((item for item in milestones if users <= item.users_max), None)
    if stage is None:
        regions = STAGES[-1][1]
        stage = _stage(*SPLIT, -(-users // USERS_PER_GROUP_MAX), regions)
    return Growth(users, stage, assign(stage.regions), milestones)


def assign(regions: tuple[str, ...]) -> tuple[Assignment, ...]:
    """The assignment table when there are groups in `regions`."""
    later = {region for _, built, _ in STAGES for region in built}
    rows = []
    for home, code in HOMES:
        group = nearest(code, regions)
        assert group is not None
        rows.append(Assignment(home, code, group, code in later and code != group))
    return tuple(rows)


def _stage(name: str, trigger: str, groups: int, regions: tuple[str, ...]) -> Stage:
    hosts = groups * PROVIDERS_PER_GROUP
    compute, storage = hosts * HOST_EUR_PER_MONTH, hosts * VOLUME_EUR_PER_MONTH
    return Stage(
        name=name,
        trigger=trigger,
        groups=groups,
        regions=regions,
        relays=hosts,
        replicas=hosts,
        archive_nodes=hosts,
        containers=hosts * CONTAINERS_PER_HOST,
        hosts=hosts,
        users_max=groups * USERS_PER_GROUP_MAX,
        compute_eur=compute,
        storage_eur=storage,
        monthly_eur=compute + storage,
    )
