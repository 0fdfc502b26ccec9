"""A core: tunnels of its cell's entries come in, and leave for the internet as its owner allows.

The owner's own tunnels go straight to Xray. Those of everybody else pass a gate in this process,
which counts them, cuts them at the byte where the owner's quota ends, and lets the owner go first.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

from holdfast.access import envoy_config as envoy
from holdfast.access import files
from holdfast.access.proxies import ENVOY, XRAY, Proxies
from holdfast.access.role import AccessConfig, AccessRole
from holdfast.access.spool import UsageSpool
from holdfast.access.xray_config import LOOPBACK, core_config
from holdfast.errors import OperationFault
from holdfast.logic.access.accounting import Total
from holdfast.logic.access.gate import Gate
from holdfast.logic.access.model import ExitPolicy
from holdfast.logic.fleet.model import Load, Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.forward import Forwarder
from holdfast.rim.ports import HeldPort
from holdfast.rim.process import busy
from holdfast.rim.unix_http import get
from holdfast.wire.access import OWN, RESERVE, CoreOrders, UsageReport
from holdfast.wire.control import Status
from holdfast.wire.hq import Desired

WATCH_REAL_S: Final = 0.1
"""How often the owner's traffic is looked at ..."""
WATCH_BUSY_REAL_S: Final = 0.02
"""... and while others are at work: how long they may be in its way."""
_STATS: Final = "/stats?filter=^cluster.own.upstream_cx_(rx|tx)_bytes_total$"
_log = logging.getLogger("holdfast.access.core")


class Core(AccessRole):
    """One core's proxies, its gate, and what they were last told."""

    peer_role = Role.ENTRY

    def __init__(self, config: AccessConfig, clock: Clock, entropy: Entropy) -> None:
        proxies = Proxies(config.state / "run", config.name, clock, self._xray)
        super().__init__(config, clock, proxies)
        self._policy = ExitPolicy()
        self._xray_port = HeldPort(LOOPBACK, entropy)
        self._gate = Gate(self._now())
        self._own = Total()
        self._own_base = Total()
        self._forwarder = Forwarder(
            proxies.directory / Path(files.GATE).name, (LOOPBACK, self._xray_port.port), self
        )
        self.spool = UsageSpool(config.state, entropy)
        held = self.spool.meter.spool.totals.get(RESERVE, Total())
        self._before = held.upload + held.download
        self._watch: asyncio.Task[None] | None = None
        self._orders: CoreOrders | None = None
        proxies.on_start = self._restarted

    async def apply(self, desired: Desired) -> None:
        """Follow new orders: whom to answer, what the owner allows; then cut who is out."""
        orders = desired.core
        if orders is None:
            return
        entries = frozenset(orders.entries)
        out = self.trusted - entries
        before = self._xray()
        self._policy, self._orders = orders.policy, orders
        changed = self._xray() != before
        self._write(orders)
        self._trust(entries, orders.crls, lenient=True)
        if self._gate.allow(self._limit(orders), orders.policy.bytes_per_s_max):
            self._forwarder.cut()
        if not self.serving:
            await self._forwarder.start()
            await self._start()
            self._watch = asyncio.create_task(self._watch_owner())
        elif changed:
            await self.proxies.restart(XRAY)
        if out:
            port = self.config.port
            await self.cut("an entry is out", lambda c: c.local_port == port)

    async def stop(self) -> None:
        """End everything, with what was counted on disk."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._count()
        await self._forwarder.stop()
        await super().stop()
        self._xray_port.release()

    async def status(self) -> Status:
        """How busy the machine is, and how many connections of others are open."""
        load = Load(sessions=self._forwarder.open, busy=round(busy(), 2))
        return Status(load, filled=True)

    def usage(self) -> UsageReport | None:
        """What was counted and is not known to HQ."""
        self._count()
        return self.spool.report()

    # --- The gate --------------------------------------------------------------------------------
    def pass_up(self, count: int) -> int:
        """Bytes of others towards the internet."""
        return self._gate.take(count, up=True)

    def pass_down(self, count: int) -> int:
        """Bytes of others back."""
        return self._gate.take(count, up=False)

    def wait_s(self) -> float:
        """Others rest while the owner works."""
        return self._gate.wait_s(self._now())

    def _limit(self, orders: CoreOrders) -> int:
        """What may pass the gate since this process began: HQ counts from the spool's beginning."""
        if orders.incarnation == self.spool.meter.spool.incarnation:
            return max(0, orders.reserve_until - self._before)
        return max(0, orders.reserve_until - orders.reserve_counted - self._before)

    async def _watch_owner(self) -> None:
        """Look at the owner's traffic, again and again, and let it go first."""
        at, seen = self._now(), -1
        counted_at, passed = at, self._gate.used
        while True:
            busy = self._gate.used != passed
            passed = self._gate.used
            await self.clock.sleep_real(WATCH_BUSY_REAL_S if busy else WATCH_REAL_S)
            try:
                await self._read_own()
            except OperationFault:
                continue  # Envoy is being started again
            now, total = self._now(), self._own.upload + self._own.download
            if seen >= 0 and now > at:
                self._gate.own(max(0, total - seen) / (now - at))
            at, seen = now, total
            if now - counted_at >= 1.0:
                counted_at = now
                self._count()

    async def _read_own(self) -> None:
        body = await get(str(self.proxies.directory / Path(files.ADMIN).name), _STATS, self.clock)
        values = {"rx": 0, "tx": 0}
        for line in body.decode().splitlines():
            name, _, value = line.partition(": ")
            for way in values:
                if name.endswith(f"_{way}_bytes_total"):
                    values[way] = int(value)
        base = self._own_base
        self._own = Total(base.upload + values["tx"], base.download + values["rx"])

    def _restarted(self, which: str) -> None:
        if which == ENVOY:
            self._own_base = self._own

    def _count(self) -> None:
        gate = self._gate
        reading = {OWN: self._own, RESERVE: Total(gate.upload, gate.download)}
        try:
            self.spool.read(reading)
        except OperationFault as fault:
            _log.error("usage is not durable: %s", fault)

    def _now(self) -> float:
        return self.clock.elapsed() / self.clock.scale

    # --- Files -----------------------------------------------------------------------------------
    def _write(self, orders: CoreOrders) -> None:
        write, resources = self.proxies.write, envoy.resources
        self._write_identity()
        front = self.front()
        write(envoy.CLUSTERS, resources(envoy.core_clusters(self._xray_port.port, front)))
        listeners = envoy.core_listeners(self.config.host, self.config.port, orders.lane, front)
        write(envoy.LISTENERS, resources(listeners))

    def _xray(self) -> dict[str, Any]:
        return core_config(self._policy, self._xray_port.port)
