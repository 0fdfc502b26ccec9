"""Leaders killed, hung and cut off over a real etcd, members too, while there is work to decide.

Three members with TLS, several headquarters, three providers. Machines die all the time, so there
is always a replacement under way when a fault strikes; meanwhile callers ask for join tokens and
slots and remember every answer they got. A fault is one of

| fault         | what happens                                                             |
|---------------|--------------------------------------------------------------------------|
| leader-kill   | SIGKILL to the headquarters that leads; started again after the failover |
| leader-hang   | SIGSTOP past the end of its lease, then SIGCONT: it wakes up deposed     |
| leader-cut    | its connections to etcd are cut and hang; it runs on, and must not act   |
| member-kill   | SIGKILL to a member of etcd, started again                               |
| member-hang   | SIGSTOP of a member, then SIGCONT                                        |

Judged from outside: `double_actions` from the providers' own logs (machines ordered for a server
beyond one for each death, machines running beyond one for each server), `lost_decisions` with
etcdctl (answers that were given and are not in the store). `failover_s` counts from the fault to
the next slot anybody is granted, which only an acting leader can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.local import LocalNetwork
from holdfast.cli.local_files import ETCD
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.admin import AuditVerdict, TokenMade, TokenOrder
from holdfast.hq.tokens import TOKENS
from holdfast.logic.fleet.model import Role, SlotRecord
from holdfast.logic.fleet.rows import SLOTS
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.control import etcd_members
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.rim.https import JsonClient
from holdfast.rim.wires import Wire
from holdfast.sim.percentile import percentile
from holdfast.wire.cloud import Server
from holdfast.wire.hq import SlotReply, SlotRequest
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple

REGION: Final = "eu"
FAULTS: Final = ("leader-kill", "leader-hang", "leader-cut", "member-kill", "member-hang")
HANG_S: Final = 8.0
"""Longer than the leader's lease."""
WORKING_S: Final = 4.0
"""A fault strikes within this after a machine died: while it is noticed, ordered, joined."""
FAILOVER_S_MAX: Final = 60.0
HEAL_ELAPSED_S: Final = 3_000.0
MARGIN_S: Final = 120.0
ASK_PERIOD_S: Final = 0.25
ASK_S: Final = 2.0
SLOTS_MAX: Final = 2_000
"""Slots asked for by the load; those that measure a failover come on top."""


class EtcdReport(msgspec.Struct):
    """What was done to it and what it cost. Times are real seconds."""

    kills: int
    headquarters: int
    members: int = 0
    faults: dict[str, int] = {}
    deaths: int = 0
    orders: int = 0
    """Machines ordered, by the providers' own logs, beyond those of the start."""
    decisions: int = 0
    """Tokens and slots that a caller was given."""
    terms: int = 0
    double_actions: int = 0
    lost_decisions: int = 0
    failover_p50_s: float = 0.0
    failover_p99_s: float = 0.0
    audit_ok: bool = False
    healed: bool = False
    seconds: float = 0.0
    seed: int = 0

    @property
    def held(self) -> bool:
        """Nothing done twice, nothing forgotten, and somebody leads again soon."""
        whole = self.audit_ok and self.healed and self.decisions > 0
        return whole and not self.double_actions and not self.lost_decisions


class Etcd:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(
        self, home: Path, clock: Clock, entropy: Entropy, seed: int, headquarters: int
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._report = EtcdReport(0, headquarters, seed=seed)
        self._decided: set[str] = set()
        self._failovers: list[float] = []
        self._killed: dict[str, str] = {}
        """The node that each server's machine had when it was destroyed."""
        self._wires: dict[str, list[Wire]] = {}
        self._callers: list[JsonClient] = []
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            store=ETCD,
            headquarters=headquarters,
            time_scale=clock.scale,
            report_tag_age_s=0.0,
            etcd_ways=self._way,
        )

    async def run(self, kills: int, faults: Sequence[str]) -> EtcdReport:
        """`kills` faults, the kinds by turns. Raises OperationFault."""
        report, began = self._report, self._clock.elapsed()
        try:
            await self.network.start()
            locator = self.network.locator()
            self._callers = [
                JsonClient([way], locator.roots, None, self._clock) for way in locator.hq
            ]
            before = Counter(map(_server_of, ground.machines_made(self.network)))
            load = asyncio.create_task(self._load())
            try:
                for number in range(kills):
                    await self._trial(faults[number % len(faults)])
            finally:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
            report.healed = await self._healed()
            await self._judge(before)
        finally:
            await self._close()
        report.seconds = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        return report

    async def _close(self) -> None:
        for caller in self._callers:
            await caller.close()
        await self.network.stop()
        for wires in self._wires.values():
            for wire in wires:
                await wire.stop()

    async def _way(self, name: str, endpoints: Sequence[str]) -> Sequence[str]:
        """A wire of its own between a headquarters and each member."""
        wires = self._wires[name] = [Wire(endpoint) for endpoint in endpoints]
        for wire in wires:
            await wire.start()
        return [wire.address for wire in wires]

    # --- Work to decide --------------------------------------------------------------------------
    async def _load(self) -> None:
        """Tokens from everybody, slots from whoever leads; only answers count."""
        slots = 0
        while True:
            await self._clock.sleep_real(ASK_PERIOD_S)
            with contextlib.suppress(HoldfastError, TimeoutError):
                async with self._clock.real_timeout(ASK_S):
                    await self._ask_token(self._dice.choice(self.network.headquarters))
            if slots < SLOTS_MAX:
                with contextlib.suppress(HoldfastError, TimeoutError):
                    await self._ask_slot(self._dice.choice(self._callers))
                    slots += 1

    async def _ask_token(self, name: str) -> None:
        order = TokenOrder(role=Role.RELAY, region=REGION)
        admin = self.network.admin(name=name)
        made = await admin.call("POST", "/admin/v1/tokens", order, TokenMade)
        self._decided.add(TOKENS + made.hash)

    async def _ask_slot(self, caller: JsonClient) -> None:
        """Raises HoldfastError, TimeoutError when this one grants nothing."""
        async with self._clock.real_timeout(ASK_S):
            reply = await caller.call("POST", "/v1/slots", SlotRequest(REGION), SlotReply)
        roots, now = self.network.roots(), self._clock.wall()
        record = verify_staple(roots, reply.record, Type.SLOT_RECORD, SlotRecord, now)
        self._decided.add(SLOTS + record.slot.hex())

    async def _somebody_leads(self) -> None:
        """Return when one of them grants a slot."""
        while True:
            asked = [asyncio.create_task(self._ask_slot(caller)) for caller in self._callers]
            results = await asyncio.gather(*asked, return_exceptions=True)
            if any(result is None for result in results):
                return
            await self._clock.sleep_real(0.1)

    # --- Faults ----------------------------------------------------------------------------------
    async def _trial(self, fault: str) -> None:
        """A machine dies, and while it is being replaced the fault strikes."""
        await self._kill_machine()
        await self._clock.sleep_real(self._dice.uniform(0.0, WORKING_S))
        leader = await self._leader()
        member = self._dice.choice(self.network.members)
        began = self._clock.elapsed()
        match fault:
            case "leader-kill":
                self.network.kill(leader)
            case "leader-hang":
                os.kill(self.network.pid(leader), signal.SIGSTOP)
            case "leader-cut":
                for wire in self._wires[leader]:
                    wire.cut()
            case "member-kill":
                self.network.kill(member)
            case _:
                os.kill(self.network.pid(member), signal.SIGSTOP)
        try:
            async with self._clock.real_timeout(FAILOVER_S_MAX):
                await self._somebody_leads()
        except TimeoutError:
            raise OperationFault(f"nobody leads {FAILOVER_S_MAX:.0f} s after {fault}") from None
        took = (self._clock.elapsed() - began) / self._clock.scale
        self._failovers.append(took)
        await self._undo(fault, leader, member, took)
        self._report.kills += 1
        self._report.faults[fault] = self._report.faults.get(fault, 0) + 1

    async def _undo(self, fault: str, leader: str, member: str, took_s: float) -> None:
        """What hangs hangs for a while, then everything is back."""
        if fault.endswith(("-hang", "-cut")):
            await self._clock.sleep_real(max(0.0, HANG_S - took_s))
        match fault:
            case "leader-kill":
                await self.network.start_hq(leader)
            case "leader-hang":
                os.kill(self.network.pid(leader), signal.SIGCONT)
            case "leader-cut":
                for wire in self._wires[leader]:
                    wire.mend()
            case "member-kill":
                await self.network.start_member(member)
            case _:
                os.kill(self.network.pid(member), signal.SIGCONT)

    async def _leader(self) -> str:
        try:
            async with self._clock.real_timeout(FAILOVER_S_MAX):
                while True:
                    with contextlib.suppress(OperationFault):
                        return await self.network.leader()
                    await self._clock.sleep_real(0.1)
        except TimeoutError:
            raise OperationFault("no headquarters leads") from None

    async def _kill_machine(self) -> None:
        """Destroy one machine behind headquarters' back, at a provider that has no other loss:
        two together would be the provider's loss, and orders would rightly move elsewhere."""
        try:
            async with self._clock.real_timeout(HEAL_ELAPSED_S / self._clock.scale + MARGIN_S):
                while not (whole := await self._whole()):
                    await self._clock.sleep_real(0.2)
        except TimeoutError:
            raise OperationFault("no provider recovers from its losses") from None
        provider, node, victim = self._dice.choice(whole)
        await self.network.provider(provider).delete(victim.name)
        self._killed[_server_of(victim.name)] = node
        self._report.deaths += 1

    async def _whole(self) -> list[tuple[str, str, Server]]:
        """(provider, node, machine) of all that could be destroyed now; none while nobody leads.
        A server that was destroyed ails until another node has its seat, whoever knows of it."""
        try:
            fleet = await self.network.fleet()
        except HoldfastError:
            return []
        nodes = {row.name: row.node for row in fleet.servers}
        ailing = {
            row.provider
            for row in fleet.servers
            if row.tier.value != "green" or self._killed.get(row.name) == row.node
        }
        return [
            (provider, nodes[_server_of(server.name)], server)
            for provider, _, server in ground.machines(self.network)
            if server.state != GONE and provider not in ailing
        ]

    async def _healed(self) -> bool:
        """Wait until every server is green on a machine of its own."""
        limit = HEAL_ELAPSED_S / self._clock.scale + MARGIN_S
        with contextlib.suppress(TimeoutError):
            async with self._clock.real_timeout(limit):
                while True:
                    with contextlib.suppress(HoldfastError):
                        fleet = await self.network.fleet()
                        running = Counter(self._running())
                        if all(
                            row.tier.value == "green" and running[row.name] == 1
                            for row in fleet.servers
                        ):
                            return True
                    await self._clock.sleep_real(0.5)
        return False

    # --- Judging ---------------------------------------------------------------------------------
    def _running(self) -> list[str]:
        """The server of every machine that runs."""
        machines = ground.machines(self.network)
        return [_server_of(server.name) for _, _, server in machines if server.state != GONE]

    async def _judge(self, before: Counter[str]) -> None:
        report = self._report
        names = ground.machines_made(self.network)
        report.orders = len(names) - before.total()
        again = sum(count - 1 for count in Counter(names).values())
        beyond = max(0, report.orders - report.deaths)
        crowded = sum(count - 1 for count in Counter(self._running()).values())
        report.double_actions = again + beyond + crowded
        report.members = len(self.network.members)
        report.decisions = len(self._decided)
        report.lost_decisions = len(self._decided - await self._stored())
        leader = await self._leader()
        report.terms = (await self.network.status(leader)).term
        admin = self.network.admin(name=leader)
        report.audit_ok = (await admin.call("GET", "/admin/v1/audit/verify", None, AuditVerdict)).ok
        report.failover_p50_s = percentile(self._failovers, 0.5)
        report.failover_p99_s = percentile(self._failovers, 0.99)

    async def _stored(self) -> set[str]:
        """Every key in the store, as etcdctl tells it."""
        return await etcd_members.keys(self.network.directory / ETCD, self.network.etcd_endpoints)


def _server_of(machine: str) -> str:
    """The logical server a machine was made for: its name without the order's."""
    return machine.rpartition("-")[0]


def etcd(
    *,
    kills: int = 100,
    headquarters: int = 2,
    faults: str = ",".join(FAULTS),
    time_scale: float = 60.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Kill, hang and cut off leaders and members of etcd while machines die.

    Parameters
    ----------
    kills
        How many faults, the kinds by turns.
    headquarters
        How many processes share the store.
    faults
        Kinds of faults, comma-separated.
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        Which machines and members, and when.
    json
        One JSON object as the last line.
    """
    kinds = tuple(faults.split(","))
    if kills < 1 or headquarters < 2 or not set(kinds) <= set(FAULTS):
        raise UsageError(f"--kills from 1, --headquarters from 2; --faults of {', '.join(FAULTS)}")
    clock, entropy = clock_of(time_scale), SystemEntropy()
    return play(
        "etcd",
        lambda home: Etcd(home, clock, entropy, seed, headquarters).run(kills, kinds),
        keep=keep,
        json=json,
    )
