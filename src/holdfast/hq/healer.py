"""The brain's hands: carries out orders at clouds and DNS, and reports what became of them.

Every order is carried out so that repeating it does no harm: a spawn lists before it creates,
under the intent's id; a deletion of what is not there is done; DNS that says so already is left
alone. The machine repeats what it hears no answer to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.brain_ports import IssueToken, Zone
from holdfast.logic.fleet.events import (
    Event,
    Machine,
    Order,
    Ordered,
    OrderFailed,
    Point,
    Pointed,
    PointFailed,
    Reap,
    Reaped,
    ReapFailed,
    Survey,
    Surveyed,
)
from holdfast.logic.fleet.rows import IntentRow
from holdfast.rim.cloud.port import Cloud
from holdfast.wire.address import split_address
from holdfast.wire.cloud import CreateServer

CALLS_PER_CLOUD_MAX: Final = 8
"""Calls in flight to one provider: below every rate limit, enough for a minute's spawns."""
Task = Order | Reap | Point | Survey


class Healer:
    """`carry_out` an order, get the event that answers it."""

    def __init__(self, clouds: Mapping[str, Cloud], zone: Zone, issue_token: IssueToken) -> None:
        self._clouds = clouds
        self._zone = zone
        self._issue_token = issue_token
        self._lanes = {name: asyncio.Semaphore(CALLS_PER_CLOUD_MAX) for name in clouds}
        self._dns_lane = asyncio.Lock()  # fair: two moves of one name stay in order

    async def carry_out(self, task: Task) -> Event:
        """Never raises a fault of the world: it comes back as an event."""
        match task:
            case Point():
                return await self._point(task)
            case Survey():
                return await self._survey(task.provider)
            case Order():
                return await self._order(task.intent)
            case Reap():
                return await self._reap(task.intent)

    async def _order(self, intent: IntentRow) -> Event:
        cloud = self._clouds.get(intent.provider)
        if cloud is None:
            return OrderFailed(intent.id, f"no account at {intent.provider}", True)
        try:
            if intent.warm:
                await self._issue_token(intent)
                return Ordered(intent.id)
            async with self._lanes[intent.provider]:
                state = await _state_of(cloud, intent.id)
                if state == "":
                    await self._create(cloud, intent)
                    state = "running"
        except OperationFault as fault:
            return OrderFailed(intent.id, str(fault), not fault.retryable)
        except (UsageError, PeerFault) as fault:
            return OrderFailed(intent.id, str(fault), True)
        if state == "gone":
            return OrderFailed(intent.id, "the machine is gone already", True)
        return Ordered(intent.id)

    async def _create(self, cloud: Cloud, intent: IntentRow) -> None:
        """Raises UsageError also when the name is taken: an earlier order came up since we looked.
        Its token ended with the one that is new here, so it can never join, and is reaped."""
        token = await self._issue_token(intent)
        await cloud.create(CreateServer(name=intent.id, region=intent.region, user_data=token))

    async def _reap(self, intent: IntentRow) -> Event:
        cloud = self._clouds.get(intent.provider)
        if cloud is None:
            return ReapFailed(intent.id, f"no account at {intent.provider}")
        try:
            async with self._lanes[intent.provider]:
                await cloud.delete(intent.resource)
        except (OperationFault, UsageError, PeerFault) as fault:
            return ReapFailed(intent.id, str(fault))
        return Reaped(intent.id)

    async def _survey(self, provider: str) -> Event:
        machines: tuple[Machine, ...] | None = None
        cloud = self._clouds.get(provider)
        if cloud is not None:
            with contextlib.suppress(OperationFault, UsageError, PeerFault):
                async with self._lanes[provider]:
                    listed = await cloud.list()
                machines = tuple(Machine(item.name, item.state != "gone") for item in listed)
        return Surveyed(provider, machines)

    async def _point(self, task: Point) -> Event:
        try:
            places = [split_address(text) for text in task.addresses]
            if not places:
                raise UsageError(f"{task.name} has no address")
            hosts = tuple(dict.fromkeys(host for host, _ in places))
            async with self._dns_lane:
                await self._zone.replace(
                    task.name, hosts, places[0][1], task.node, task.previous or None
                )
        except (OperationFault, UsageError, PeerFault) as fault:
            return PointFailed(task.name, str(fault))
        return Pointed(task.name, task.node)


async def _state_of(cloud: Cloud, name: str) -> str:
    """`running`, `gone`, or empty for a machine the provider does not list."""
    for server in await cloud.list():
        if server.name == name:
            return "gone" if server.state == "gone" else "running"
    return ""
