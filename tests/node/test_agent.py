"""The agent with a real role process and a stand-in HQ over real TLS (D6, D8, D25; seed 004 §4)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.node.stand_in_hq import Serving, TestClock, replace_desired, stand_in
from tests.node.test_machine import WANTED, alert
from tests.rim.pki import NOW

from holdfast.crypto.certinfo import fingerprint
from holdfast.errors import RETIRED_STATUS, OperationFault, PeerFault
from holdfast.limits import NODE_CERT_RENEW_DAYS
from holdfast.logic.fleet.model import Tier
from holdfast.node import agent as agent_module
from holdfast.node import membership, role
from holdfast.node.agent import Agent
from holdfast.node.home import Home, Member
from holdfast.node.machine import Memory, Phase
from holdfast.rim import process as rim
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.codec import pack
from holdfast.wire.hq import Accusation
from holdfast.wire.token import JoinToken

SCRIPT = Path(__file__).with_name("role_script.py")
LISTEN = "127.0.0.1:7443"
DAY_S = 86_400


class Fixture:
    """A node that has joined, its HQ, and the directory in which its role takes orders."""

    def __init__(self, home: Home, member: Member, serving: Serving, clock: TestClock) -> None:
        self.home = home
        self.member = member
        self.serving = serving
        self.hq = serving.hq
        self.clock = clock
        self.orders = home.role_directory
        self.orders.mkdir(exist_ok=True)

    def agent(self) -> Agent:
        return Agent(
            self.home,
            self.member,
            role_command=lambda _home, _member: (
                *(sys.executable, str(SCRIPT)),
                *(str(self.orders), LISTEN),
            ),
            clock=self.clock,
            entropy=SystemEntropy(),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        agent = self.agent()
        task = asyncio.create_task(agent.run())
        try:
            await soon(lambda: task.done() or agent.machine.phase is Phase.SERVING)
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def lines(self, name: str) -> list[str]:
        path = self.orders / name
        return path.read_text().splitlines() if path.exists() else []


async def soon(true: Callable[[], bool], seconds: float = 15.0) -> None:
    clock = TestClock(NOW)
    async with clock.real_timeout(seconds):
        while not true():
            await clock.sleep_real(0.01)


@contextlib.asynccontextmanager
async def joined(tmp_path: Path, scale: float = 1.0) -> AsyncIterator[Fixture]:
    clock = TestClock(NOW, scale)
    async with stand_in(clock) as serving:
        home = Home(tmp_path / "node")
        member = await membership.join(
            home,
            serving_token(serving),
            listen=LISTEN,
            addresses=(LISTEN,),
            provider="alder",
            clock=clock,
            entropy=SystemEntropy(),
        )
        yield Fixture(home, member, serving, clock)


def serving_token(serving: Serving, **changes: object) -> JoinToken:
    """A token of the stand-in's network."""
    pki = serving.hq.pki
    token = JoinToken(
        network=pki.network,
        hq=(serving.address,),
        roots=tuple(fingerprint(root) for root in pki.roots),
        role=WANTED.role,
        name="relay-eu-001",
        cell="",
        expires_at=int(NOW) + 3600,
        secret=b"s" * 32,
    )
    return replace(token, **changes)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with TestClock(NOW).real_timeout(60):
            await work

    asyncio.run(main())


def test_the_role_runs_and_hq_hears_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node, node.running():
            await soon(lambda: any(beat.load.blobs for beat in node.hq.heartbeats))
            beat = node.hq.heartbeats[-1]
            assert beat.addresses == (LISTEN,)
            assert (beat.load.sessions, beat.load.blobs, beat.filled) == (3, 7, True)
            assert beat.cert_serial == node.home.certificate().serial
            await soon(lambda: len(node.hq.heartbeats) > 3)

    run(main())


def test_what_hq_wants_reaches_the_role_and_the_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node, node.running():
            node.hq.want(WANTED)
            await soon(lambda: "Apply 3" in node.lines("told"))
            assert node.home.memory().desired == WANTED
            node.hq.want(replace_desired(WANTED))
            await soon(lambda: "Apply 4" in node.lines("told"))
            node.hq.want(replace(WANTED, version=9, term=1))
            polls = node.hq.polls
            await soon(lambda: node.hq.polls > polls + 1)
            assert node.lines("told") == ["Apply 3", "Apply 4"], "a lower term is refused"

    run(main())


def test_a_node_starts_and_serves_without_hq(tmp_path: Path) -> None:
    """DESIGN §3: with HQ gone the fleet serves, for months."""

    async def main() -> None:
        async with joined(tmp_path) as node:
            async with node.running():
                node.hq.want(WANTED)
                await soon(lambda: "Apply 3" in node.lines("told"))
            await node.serving.away()
            async with node.running() as agent:
                await soon(lambda: node.lines("told") == ["Apply 3"] * 2)
                assert agent.machine.phase is Phase.SERVING
                beats = len(node.hq.heartbeats)
                await node.serving.back()
                await soon(lambda: len(node.hq.heartbeats) > beats)

    run(main())


def test_a_role_that_dies_is_started_again_with_what_hq_wanted(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node, node.running() as agent:
            node.hq.want(WANTED)
            await soon(lambda: "Apply 3" in node.lines("told"))
            (node.orders / "die").write_text("3")
            await soon(lambda: len(node.lines("starts")) == 2)
            await soon(lambda: node.lines("told") == ["Apply 3"] * 2)
            assert agent._role is not None
            os.kill(agent._role.pid, signal.SIGKILL)
            await soon(lambda: len(node.lines("starts")) == 3)

    run(main())


def test_a_role_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node, node.running():
            (node.orders / "hang").touch()
            await soon(lambda: len(node.lines("starts")) == 2)

    monkeypatch.setattr(role, "SILENT_S", 1.0)
    run(main())


def test_alerts_wait_for_hq_and_the_newest_of_a_server_arrives(tmp_path: Path) -> None:
    """Seed 004 §3.2: the surviving relays tell headquarters, whenever it can hear."""

    async def raised(node: Fixture, agent: Agent, at: float, tier: Tier) -> None:
        (node.orders / "raise.new").write_bytes(pack(alert(at=at, tier=tier)))
        (node.orders / "raise.new").rename(node.orders / "raise")
        await soon(lambda: agent.machine.next_alert() == alert(at=at, tier=tier))

    async def main() -> None:
        async with joined(tmp_path) as node:
            async with node.running() as agent:
                await node.serving.away()
                await raised(node, agent, 1.0, Tier.YELLOW)
                await raised(node, agent, 2.0, Tier.ORANGE)
            assert node.home.memory().alerts == (alert(at=2.0, tier=Tier.ORANGE),)
            await node.serving.back()
            async with node.running():
                await soon(lambda: node.hq.alerts == [alert(at=2.0, tier=Tier.ORANGE)])
                await soon(lambda: node.home.memory().alerts == ())

    run(main())


def test_what_the_role_accuses_a_peer_of_reaches_hq(tmp_path: Path) -> None:
    """D11: sums are not signed, so the accuser's word is all there is."""

    async def main() -> None:
        said = Accusation("relay-2", b"n" * 32, "false-sums")

        async def accuse() -> None:
            (node.orders / "accuse.new").write_bytes(pack(said))
            (node.orders / "accuse.new").rename(node.orders / "accuse")
            await soon(lambda: not (node.orders / "accuse").exists())

        async with joined(tmp_path) as node, node.running():
            node.hq.want(WANTED)
            await accuse()
            await soon(lambda: node.hq.accusations == [said])
            node.hq.refusal = PeerFault("who is that?", code="not-found")
            await accuse()
            node.hq.refusal = None
            await accuse()
            await soon(lambda: len(node.hq.accusations) >= 2)

    run(main())


def test_an_alert_that_hq_refuses_is_dropped_and_one_it_cannot_take_is_kept(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node:
            node.home.save_memory(Memory(alerts=(alert(),)))
            node.hq.refusal = OperationFault("the store is away")
            async with node.running() as agent:
                await soon(lambda: node.hq.polls > 0)
                assert agent.machine.next_alert() == alert()
                node.hq.refusal = PeerFault("who is that?", code="unknown")
                await soon(lambda: agent.machine.next_alert() is None)

    run(main())


def test_retired_stops_the_role_and_ends_with_its_own_status(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node:
            task = asyncio.create_task(node.agent().run())
            await soon(lambda: bool(node.hq.heartbeats))
            node.hq.want(replace(WANTED, retired=True))
            assert await task == RETIRED_STATUS
            assert node.lines("told") == ["Stop"]
            report = node.home.report()
            assert report is not None
            assert report.phase == Phase.RETIRED
            assert await node.agent().run() == RETIRED_STATUS, "and for good"
            assert len(node.lines("starts")) == 1

    run(main())


def test_renewal_at_day_30_with_a_new_key_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D6: 90 days, renewed at day 30 with a new key."""

    async def main() -> None:
        async with joined(tmp_path) as node, node.running():
            old = node.home.certificate()
            node.clock.wall_s += NODE_CERT_RENEW_DAYS * DAY_S - 60
            beats = len(node.hq.heartbeats)
            await soon(lambda: len(node.hq.heartbeats) > beats + 5)
            assert node.hq.renewals == []
            node.clock.wall_s += 120
            await soon(lambda: node.home.certificate().serial != old.serial)
            new = node.home.certificate()
            assert new.spki != old.spki
            assert new.not_after > old.not_after
            await soon(lambda: "Certificates" in node.lines("told"))
            assert len(node.lines("starts")) == 1, "while serving"
            await soon(lambda: node.hq.heartbeats[-1].cert_serial == new.serial)
            assert len(node.hq.renewals) == 1

    monkeypatch.setattr(agent_module, "RENEWAL_S_MIN", 0.01)
    monkeypatch.setattr(agent_module, "RENEWAL_S_MAX", 0.05)
    run(main())


def test_a_renewal_whose_reply_is_lost_asks_for_the_same_key_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node, node.running() as agent:
            old = node.home.certificate()
            node.hq.refusal = OperationFault("right after signing")
            with pytest.raises(OperationFault):
                await agent.renew_now()
            assert node.home.certificate() == old
            node.hq.refusal = None
            await agent.renew_now()
            first, second = node.hq.renewals
            assert first.csr == second.csr
            assert node.home.certificate().spki != old.spki

    run(main())


def test_a_stopped_agent_leaves_no_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node:
            async with node.running() as agent:
                assert agent._role is not None
                pid = agent._role.pid
                assert rim.alive(pid)
            assert not rim.alive(pid)

    run(main())


def test_a_heartbeat_says_what_the_machine_does_unless_it_is_shared(tmp_path: Path) -> None:
    """Servers on loopback share one machine, whose work is nobody's of them."""

    async def main() -> None:
        async with joined(tmp_path) as node:
            async with node.running():
                await soon(lambda: len(node.hq.heartbeats) > 3)
                assert node.hq.heartbeats[-1].load.busy == 0
            node.member = replace(node.member, addresses=("203.0.113.7:7443",))
            node.hq.heartbeats.clear()
            async with node.running():
                await soon(lambda: any(beat.load.busy > 0 for beat in node.hq.heartbeats))
                assert node.hq.heartbeats[-1].load.sent_bytes_per_s >= 0

    asyncio.run(main())
