"""Which core carries a lane: the owner's own, then reserves (seed 000: owner first).

The answer is a list in the form an entry's proxy works by itself: *priority* 0 while any of it
answers, then 1, and so on; within a priority by *weight*. So a core that dies is left within a
second and without asking anybody, and headquarters only moves what changes slowly.

| priority | cores                                                    |
|----------|----------------------------------------------------------|
| 0        | the lane owner's own                                     |
| next     | reserves of the entry's region, within their quotas      |
| next     | reserves elsewhere, within their quotas                  |
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.limits.access import CORE_WEIGHT_MAX
from holdfast.logic.access.model import SHARED_LANE, Core
from holdfast.logic.fleet.model import NodeId


class Target(msgspec.Struct, frozen=True):
    """One core of a lane. `weight` is 1 to 100; `own` says whether it serves its owner here."""

    name: str
    node: NodeId
    address: str
    priority: int
    weight: int
    own: bool


def reserve_left(core: Core) -> int:
    """Bytes that others may still use of this core this month."""
    left = max(0, core.policy.reserve_bytes - core.reserve_used) if core.policy.reserve else 0
    if core.policy.monthly_bytes:
        left = min(left, max(0, core.policy.monthly_bytes - core.total_used))
    return left


def may_serve(core: Core, lane: str) -> bool:
    """Whether this core may carry this lane now, as its owner set it. Whether it lives each entry
    checks for itself: a core whose agent is mute may serve well."""
    if core.draining or not core.addresses:
        return False
    if lane != SHARED_LANE and core.owner == lane:
        cap = core.policy.monthly_bytes
        return not cap or core.total_used < cap
    return reserve_left(core) > 0


def targets(lane: str, region: str, cores: Iterable[Core]) -> tuple[Target, ...]:
    """The cores of a lane as an entry of `region` should try them, in order."""
    ranked: dict[int, list[Core]] = {0: [], 1: [], 2: []}
    for core in cores:
        if may_serve(core, lane):
            own = lane != SHARED_LANE and core.owner == lane
            ranked[0 if own else 1 if core.region == region else 2].append(core)
    taken = [(rank, group) for rank, group in ranked.items() if group]
    return tuple(
        Target(core.name, core.node, core.addresses[0], priority, weight_of(core), rank == 0)
        for priority, (rank, group) in enumerate(taken)
        for core in sorted(group, key=lambda core: core.name)
    )


def weight_of(core: Core) -> int:
    """1 to 100, in steps of ten: load that trembles moves nobody."""
    idle = 1.0 - min(max(core.load, 0.0), 1.0)
    return max(1, round(idle * 10) * CORE_WEIGHT_MAX // 10)
