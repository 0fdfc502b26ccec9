"""An entry: clients come in by VLESS under the cell's name, and leave for a core of their lane."""

from __future__ import annotations

import logging
from typing import Any

from holdfast.access import envoy_config as envoy
from holdfast.access.proxies import XRAY, Proxies
from holdfast.access.role import AccessConfig, AccessRole
from holdfast.access.spool import UsageSpool
from holdfast.access.xray_config import LOOPBACK, entry_config
from holdfast.errors import HoldfastError
from holdfast.limits.access import LANES_MAX
from holdfast.logic.fleet.model import Load, NodeId, Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.ports import HeldPort
from holdfast.wire.access import EntryOrders, UsageReport, User
from holdfast.wire.address import split_address
from holdfast.wire.control import Status
from holdfast.wire.hq import Desired

_log = logging.getLogger("holdfast.access.entry")


class Entry(AccessRole):
    """One entry's proxies and what they were last told."""

    peer_role = Role.CORE

    def __init__(self, config: AccessConfig, clock: Clock, entropy: Entropy) -> None:
        proxies = Proxies(config.state / "run", config.name, clock, self._xray)
        super().__init__(config, clock, proxies)
        self._entropy = entropy
        self._orders: EntryOrders | None = None
        self._lanes: dict[str, HeldPort] = {}
        self._users: dict[str, User] = {}
        self._cores: dict[NodeId, tuple[str, int]] = {}
        self.spool = UsageSpool(config.state, entropy)
        proxies.on_start = self._restarted

    async def apply(self, desired: Desired) -> None:
        """Follow new orders: whom to believe and dial, paths, lanes, users; then cut who is out."""
        orders = desired.entry
        if orders is None:
            return
        known = {target.node: target.address for lane in orders.lanes for target in lane.targets}
        cores = {node: split_address(address) for node, address in known.items()}
        gone = {where for node, where in self._cores.items() if node not in cores}
        self._orders, self._cores = orders, cores
        new_lanes = self._open_lanes(orders)
        self._write(orders)
        if not self.serving:
            self._users = {user.device: user for user in orders.users}
            await self._start()
        else:
            for label in new_lanes:
                await self.api.add_lane(label, self._lanes[label].port)
            await self._follow_users({user.device: user for user in orders.users})
        if gone:
            await self.cut("a core is out", lambda c: (c.remote_host, c.remote_port) in gone)

    async def stop(self) -> None:
        """End both proxies, with the last bytes counted."""
        try:
            await self.count()
        except HoldfastError as error:
            _log.warning("the last counters are lost: %s", error)
        await super().stop()
        for held in self._lanes.values():
            held.release()

    async def status(self) -> Status:
        """Clients connected now."""
        if not self.serving:
            return Status(Load(), filled=True)
        return Status(Load(sessions=await self.api.users_online()), filled=True)

    async def count(self) -> None:
        """Read Xray's counters; durable when this returns. Raises OperationFault."""
        if self.serving:
            found = await self.api.counters()
            self.spool.read({name.partition("@")[0]: total for name, total in found.items()})

    def usage(self) -> UsageReport | None:
        """What was counted and is not known to HQ."""
        return self.spool.report()

    # --- Files -----------------------------------------------------------------------------------
    def _write(self, orders: EntryOrders) -> None:
        write, resources = self.proxies.write, envoy.resources
        self._write_identity()
        self._trust(frozenset(self._cores), orders.crls, lenient=False)
        for lane in orders.lanes:
            write(envoy.endpoints_file(lane.label), resources([envoy.lane_endpoints(lane)]))
        front = self.front()
        write(envoy.ROUTES, resources([envoy.entry_routes(orders.epochs, front)]))
        clusters = envoy.entry_clusters(self._lanes, orders.core_domain, front)
        write(envoy.CLUSTERS, resources(clusters))
        config = self.config
        listeners = envoy.entry_listeners(
            config.host, config.port, orders.domain, self._ports(), orders.core_domain, front
        )
        write(envoy.LISTENERS, resources(listeners))

    def _open_lanes(self, orders: EntryOrders) -> list[str]:
        """Loopback ports for lanes that have none yet; their labels."""
        fresh = [lane.label for lane in orders.lanes if lane.label not in self._lanes]
        fresh = fresh[: LANES_MAX - len(self._lanes)]
        for label in fresh:
            self._lanes[label] = HeldPort(LOOPBACK, self._entropy)
        return fresh

    def _ports(self) -> dict[str, int]:
        return {label: held.port for label, held in self._lanes.items()}

    def _restarted(self, which: str) -> None:
        if which == XRAY:
            self.spool.meter.restarted()

    def _xray(self) -> dict[str, Any]:
        return entry_config(self._users.values(), self._ports())

    # --- Users -----------------------------------------------------------------------------------
    async def _follow_users(self, wanted: dict[str, User]) -> None:
        """Add and remove devices in the running Xray; end what the removed ones have open."""
        out = [user for id, user in self._users.items() if wanted.get(id) != user]
        fresh = [user for id, user in wanted.items() if self._users.get(id) != user]
        self._users = wanted  # what an Xray that is started now would begin with
        hosts: set[str] = set()
        try:
            for user in out:
                hosts |= await self.api.online(user)
                await self.api.remove_user(user)
            for user in fresh:
                await self.api.add_user(user)
        except HoldfastError as error:
            _log.error("Xray does not follow (%s); starting it again", error)
            await self.proxies.restart(XRAY)
            return
        if hosts:
            port = self.config.port
            await self.cut(
                "a device is out", lambda c: c.local_port == port and c.remote_host in hosts
            )
