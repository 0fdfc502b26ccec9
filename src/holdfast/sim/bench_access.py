"""`holdfast bench access`: the whole chain beside plain Xray, in one run.

Rounds go through all ways in turn, so that a busy moment of the machine hits them alike; each
figure is the median of its rounds. Client, servers and both ends share the machine: a way with more
processes has less of it, which is the price that the ratios state.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.logic.access.model import Transport
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet, fetch, hold
from holdfast.rim.process import cpu_s
from holdfast.sim.access import baselines
from holdfast.sim.access.ground import DOMAIN, SERVER_NET, AccessGround
from holdfast.sim.percentile import percentile

WEB: Final = (f"{SERVER_NET}.1", 80)
HOST: Final = f"{SERVER_NET}.100"
OURS: Final = 16_000
ONE: Final = 16_001
TWO: Final = 16_002
PLAIN: Final = 16_003
WAYS: Final = {OURS: "ours", ONE: "one hop", TWO: "two hops", PLAIN: "two hops, second plain"}
SNI: Final = f"c1.{DOMAIN}"
RATIO_ONE_MIN: Final = 0.65
RATIO_TWO_MIN: Final = 0.9
ADDED_MS_MAX: Final = 1.0
SESSIONS_MIN: Final = 1_000


class AccessFigures(msgspec.Struct):
    """Rates are MB/s (10^6), times real milliseconds."""

    transport: Transport = Transport.GRPC
    """Of every client, and between plain Xrays."""
    ours_mb_s: float = 0.0
    one_hop_mb_s: float = 0.0
    two_hop_mb_s: float = 0.0
    two_hop_plain_mb_s: float = 0.0
    """As two hops, but with no TLS at all between the two servers."""
    ratio_one_hop: float = 0.0
    ratio_two_hop: float = 0.0
    ratio_two_hop_plain: float = 0.0
    ours_p50_ms: float = 0.0
    """A new connection to the first byte of its answer."""
    one_hop_p50_ms: float = 0.0
    added_p50_ms: float = 0.0
    added_p99_ms: float = 0.0
    sessions_held: int = 0
    cpu_s_per_gb: float = 0.0
    """Of an entry and a core together; the client and both ends are not counted."""
    one_hop_cpu_s_per_gb: float = 0.0
    rounds: int = 0
    held: bool = False


class AccessBench:
    """One run, in a namespace of its own."""

    def __init__(
        self, home: Path, clock: Clock, entropy: Entropy, transport: Transport = Transport.GRPC
    ) -> None:
        self._clock = clock
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self._home = home
        self.figures = AccessFigures(transport)

    async def run(self, rounds: int, megabytes: int, requests: int, sessions: int) -> AccessFigures:
        """Throughput, then latency, then many connections at once."""
        figures, ground = self.figures, self._ground
        figures.rounds = rounds
        self._web.start()
        try:
            await ground.start()
            await ground.cell("c1")
            core = await ground.node(Role.CORE, "c1", "ada")
            entry = await ground.node(Role.ENTRY, "c1", "ada")
            token = (await ground.device(await ground.member("ada"), "c1")).token
            view = await ground.subscription(token)
            config = xray_json(view, socks_port=OURS, transport=figures.transport)
            await ground.client(config, "client-ours")
            one = await self._baselines(entry.home, view.roots)
            for port in WAYS:
                await self._works(port)
            await self._throughput(rounds, megabytes * MIB, [core.child.pid, entry.child.pid], one)
            await self._latency(requests)
            figures.sessions_held = await asyncio.to_thread(
                hold, ("127.0.0.1", OURS), WEB, sessions
            )
        finally:
            self._web.stop()
            await ground.stop()
        figures.held = (
            figures.ratio_one_hop >= RATIO_ONE_MIN
            and figures.ratio_two_hop >= RATIO_TWO_MIN
            and figures.added_p50_ms < ADDED_MS_MAX
            and figures.sessions_held >= min(sessions, SESSIONS_MIN)
        )
        return figures

    async def _baselines(self, home: Path, roots: str) -> int:
        """Start the plain Xrays; the process id of the one-hop server."""
        tls = home / "tls" / "current"
        chain, key = (tls / "chain.pem").resolve(), (tls / "key.pem").resolve()
        free, way = baselines.freedom(), self.figures.transport
        to_second = baselines.to_tls(HOST, 8003, SNI, roots, way)
        to_plain = baselines.to_plain(HOST, 8005, way)
        servers: dict[str, dict[str, Any]] = {
            "one": baselines.server(HOST, 8001, chain, key, free, way),
            "two-first": baselines.server(HOST, 8002, chain, key, to_second, way),
            "two-second": baselines.server(HOST, 8003, chain, key, free, way),
            "plain-first": baselines.server(HOST, 8004, chain, key, to_plain, way),
            "plain-second": baselines.plain_server(HOST, 8005, free, way),
        }
        pids = {}
        for name, config in servers.items():
            child = await self._ground.xray(config, name)
            pids[name] = child.pid
        for port, server in ((ONE, 8001), (TWO, 8002), (PLAIN, 8004)):
            config = baselines.client(port, HOST, server, SNI, roots, way)
            await self._ground.client(config, f"client-{port}")
        return pids["one"]

    async def _works(self, port: int) -> None:
        async def through() -> bool:
            await asyncio.to_thread(fetch, ("127.0.0.1", port), WEB, 1_000, 5.0)
            return True

        await self._ground.until(WAYS[port], through)

    async def _throughput(self, rounds: int, size: int, ours: list[int], one: int) -> None:
        rates: dict[int, list[float]] = {port: [] for port in WAYS}
        costs: dict[int, list[float]] = {OURS: [], ONE: []}
        trees = {OURS: ours, ONE: [one]}
        for number in range(rounds + 1):
            for port in WAYS:
                before = sum(map(cpu_s, trees.get(port, [])))
                got = await asyncio.to_thread(fetch, ("127.0.0.1", port), WEB, size, 60.0)
                if got.received != size:
                    raise OperationFault(f"{WAYS[port]}: a download was cut")
                if not number:
                    continue  # a round to warm up
                rates[port].append(size / got.total_s / 1e6)
                if port in costs:
                    spent = sum(map(cpu_s, trees[port])) - before
                    costs[port].append(spent / (size / 1e9))
        figures = self.figures
        figures.ours_mb_s = percentile(rates[OURS], 0.5, 1)
        figures.one_hop_mb_s = percentile(rates[ONE], 0.5, 1)
        figures.two_hop_mb_s = percentile(rates[TWO], 0.5, 1)
        figures.two_hop_plain_mb_s = percentile(rates[PLAIN], 0.5, 1)
        figures.ratio_one_hop = round(figures.ours_mb_s / figures.one_hop_mb_s, 3)
        figures.ratio_two_hop = round(figures.ours_mb_s / figures.two_hop_mb_s, 3)
        figures.ratio_two_hop_plain = round(figures.ours_mb_s / figures.two_hop_plain_mb_s, 3)
        figures.cpu_s_per_gb = percentile(costs[OURS], 0.5)
        figures.one_hop_cpu_s_per_gb = percentile(costs[ONE], 0.5)

    async def _latency(self, requests: int) -> None:
        """One small request at a time, by both ways in turn."""
        ours: list[float] = []
        one: list[float] = []
        for _ in range(requests):
            for port, times in ((OURS, ours), (ONE, one)):
                got = await asyncio.to_thread(fetch, ("127.0.0.1", port), WEB, 1, 10.0)
                times.append(got.first_byte_s * 1e3)
        figures = self.figures
        figures.ours_p50_ms = percentile(ours, 0.5, 3)
        figures.one_hop_p50_ms = percentile(one, 0.5, 3)
        figures.added_p50_ms = round(figures.ours_p50_ms - figures.one_hop_p50_ms, 3)
        figures.added_p99_ms = round(percentile(ours, 0.99, 3) - percentile(one, 0.99, 3), 3)
