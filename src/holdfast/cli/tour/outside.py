"""Judging HQ from outside: what it shows over time, what DNS answers, whether its story holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from holdfast.cli.tour.report import TIERS
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault
from holdfast.hq.admin import AuditPage
from holdfast.hq.brain_view import FleetView
from holdfast.logic.audit import ExportLine, check, export_line
from holdfast.rim.clock import Clock
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.resolver import Resolver

POLL_REAL_S: Final = 0.2


class FleetWatch:
    """Polls HQ's operator port and remembers the extremes."""

    def __init__(self, client: LoopbackClient, clock: Clock, region: str) -> None:
        self._client = client
        self._clock = clock
        self._region = region
        self.view: FleetView | None = None
        self.tiers: set[str] = set()
        self.redundancy_min = 3
        self.debt_max = 0

    def begin(self) -> None:
        """The network is whole: extremes count from now on."""
        self.tiers.clear()
        self.redundancy_min, self.debt_max = 3, 0

    async def run(self) -> None:
        """Poll until cancelled; an HQ that does not answer for a moment is no news."""
        while True:
            try:
                self._note(await self.look())
            except OperationFault:
                pass
            await self._clock.sleep_real(POLL_REAL_S)

    async def look(self) -> FleetView:
        """The fleet now."""
        return await self._client.call("GET", "/admin/v1/fleet", None, FleetView)

    async def until(
        self, holds: Callable[[FleetView], bool], real_s: float, what: str
    ) -> FleetView:
        """The first view for which `holds` is true. Raises OperationFault after `real_s`."""
        try:
            async with self._clock.real_timeout(real_s):
                while self.view is None or not holds(self.view):
                    await self._clock.sleep_real(POLL_REAL_S)
                return self.view
        except TimeoutError as error:
            raise OperationFault(f"waited {real_s:.0f} s for {what}") from error

    def copies(self, view: FleetView) -> int:
        """The poorest slot of the region: the lesser of its serving relays and filled replicas."""
        return min(
            (min(slot.relays, slot.replicas) for slot in view.slots if slot.region == self._region),
            default=0,
        )

    def _note(self, view: FleetView) -> None:
        self.view = view
        self.redundancy_min = min(self.redundancy_min, self.copies(view))
        self.debt_max = max(self.debt_max, view.diversity_debt)
        self.tiers |= {server.tier.value for server in view.servers} & set(TIERS)


class Story(msgspec.Struct, frozen=True):
    """The audit log as somebody outside read it."""

    lines: int
    breaks: int
    tiers: frozenset[str]
    seated: tuple[tuple[float, str], ...]
    """(Unix seconds, logical server) of every seat that was taken."""


async def read_story(client: LoopbackClient) -> Story:
    """Fetch the whole audit log and check its chain here, not there."""
    lines: list[ExportLine] = []
    while True:
        after = lines[-1].sequence if lines else 0
        page = await client.call("GET", f"/admin/v1/audit?after={after}", None, AuditPage)
        if not page.lines:
            break
        lines += (export_line(line.row) for line in page.lines)  # only stored bytes count
    tiers = {line.verb.removeprefix("server.") for line in lines} & set(TIERS)
    if any(line.verb == "provider.lost" for line in lines):
        tiers.add("black")
    return Story(
        lines=len(lines),
        breaks=len(check(line.row for line in lines)[1]),
        tiers=frozenset(tiers),
        seated=tuple((line.at, line.subject) for line in lines if line.verb == "server.seated"),
    )


async def ask_dns(server: str, names: Iterable[str], domain: str) -> dict[str, str]:
    """`name -> node id and addresses` as DNS answers them, in words that can be compared."""
    resolver = Resolver((server,))
    wanted = list(names)
    answers = await asyncio.gather(*(resolver.resolve(name, domain) for name in wanted))
    return {
        name: f"{base32(found.node) if found.node else '-'} {' '.join(sorted(found.addresses))}"
        for name, found in zip(wanted, answers, strict=True)
    }


def dns_by_view(view: FleetView) -> dict[str, str]:
    """The same, as HQ shows the fleet."""
    return {
        server.name: f"{server.node} {' '.join(sorted(server.addresses))}"
        for server in view.servers
    }
