"""Two HQ processes on one store: one acts, both admit, and the lead passes on (D25, D26)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hq.headquarters import ENTROPY, Node, Operator, make_home, make_root, serving

from holdfast.crypto.pure import base32
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.hq.admin import CertificateItems, Status
from holdfast.hq.audit import audit_rows, verify_audit
from holdfast.hq.main import Headquarters
from holdfast.logic.audit import ExportLine, export_line
from holdfast.rim.clock import SystemClock
from holdfast.rim.https import JsonClient
from holdfast.wire.hq import JoinReply, SlotReply, SlotRequest
from holdfast.wire.token import JoinToken


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not ready():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def lines_of(hq: Headquarters) -> list[ExportLine]:
    return [export_line(row) async for row in audit_rows(hq.parts.store)]


async def join(node: Node, token: JoinToken) -> str:
    """ "joined", or the code of the refusal."""
    client = JsonClient(node.hq, node.roots, None, SystemClock())
    try:
        node.reply = await client.call("POST", "/v1/join", node.request(token), JoinReply)
    except PeerFault as fault:
        return fault.code
    finally:
        await client.close()
    return "joined"


class Pair:
    """Two processes' worth of headquarters; the first one leads."""

    def __init__(self, first: Headquarters, second: Headquarters) -> None:
        self.first, self.second = first, second
        self.one, self.two = Operator(first.home), Operator(second.home)
        self.ways = [first.parts.api_addresses, second.parts.api_addresses]
        self.roots = first.parts.authority.roots

    async def race(self) -> Node:
        """Forty nodes, one token, two doors: one certificate, every loser named."""
        token = await self.two.token()
        nodes = [Node(self.ways[index % 2], self.roots) for index in range(40)]
        outcomes = await asyncio.gather(*(join(node, token) for node in nodes))
        assert sorted(outcomes) == ["joined"] + ["token-used"] * 39
        path = "/certificates"
        items: CertificateItems = await self.one.call("GET", path, None, CertificateItems)
        assert len(items.items) == 1
        lines = await lines_of(self.first)
        losers = {line.detail["node"] for line in lines if line.verb == "join.refused"}
        assert len(losers) == 39
        assert len({line.author for line in lines if line.verb.startswith("join.")}) == 2
        (winner,) = [node for node in nodes if node.reply is not None]
        return winner

    async def both_know(self, node: Node) -> None:
        """The leader's brain has seated it, whoever admitted it; both tell it what HQ wants."""
        brain = self.first.parts.brain
        assert brain is not None
        assert node.reply is not None
        name = base32(node.identity.node)
        await until(lambda: any(server.node == name for server in brain.view().servers))
        for way in self.ways:
            node.hq = way
            client = node.client()
            assert (await node.desired(client)).name == node.reply.name
            await client.close()

    async def decisions_find_the_leader(self) -> None:
        client = JsonClient([*self.ways[1], *self.ways[0]], self.roots, None, SystemClock())
        with pytest.raises(OperationFault, match="no slot is ready"):  # the leader's own answer
            await client.call("POST", "/v1/slots", SlotRequest("eu"), SlotReply)
        await client.close()

    async def revoked_at_one_cut_at_the_other(self, node: Node) -> None:
        node.hq = self.ways[0]
        client = node.client()
        version = (await node.desired(client)).version

        async def listen() -> None:
            while True:  # what else changes for it may answer it in between
                await node.desired(client, version + 1_000)

        waiting = asyncio.create_task(listen())
        await until(lambda: len(self.first._servers.api.listener.peers()) > 0)
        await self.two.revoke(node.identity.node)
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(outcome, HoldfastError)


def test_a_pair(tmp_path: Path) -> None:
    async def main() -> None:
        root, shared = make_root(), str(tmp_path / "control.db")
        homes = [make_home(tmp_path / name, root, store=shared) for name in ("a", "b")]
        first = Headquarters(homes[0], SystemClock(), ENTROPY)
        await first.start()
        await first.leading()
        async with serving(homes[1]) as second:
            pair = Pair(first, second)
            status: Status = await pair.two.call("GET", "/status", None, Status)
            assert not status.leading
            winner = await pair.race()
            await pair.both_know(winner)
            await pair.decisions_find_the_leader()
            await pair.revoked_at_one_cut_at_the_other(winner)
            await first.stop()
            await second.leading()
            status = await pair.two.call("GET", "/status", None, Status)
            assert (status.leading, status.term) == (True, 2)
            leads = [line.subject for line in await lines_of(second) if line.verb == "hq.leads"]
            authors = [base32(hq.parts.authority.node) for hq in (first, second)]
            assert leads == authors
            assert (await verify_audit(second.parts.store))[1] == []

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(bounded())
