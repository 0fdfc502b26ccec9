"""The access layer at headquarters: cells, devices, orders, subscriptions, usage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from tests.hq.headquarters import DOMAIN, Node, Operator, run

from holdfast.crypto.certinfo import cert_info
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.access import DeviceMade
from holdfast.hq.access_admin import (
    AccessState,
    CellOrder,
    DeviceOrder,
    MemberOrder,
    Move,
    Moved,
    Reason,
    Regenerate,
)
from holdfast.hq.admin import RevokeOrder
from holdfast.hq.main import Headquarters
from holdfast.logic.access.model import Cell, CellState, ExitPolicy, Member
from holdfast.logic.fleet.model import Load, Role, Version
from holdfast.rim.clock import SystemClock
from holdfast.rim.https_client import JsonClient
from holdfast.wire.access import (
    OWN,
    RESERVE,
    CoreOrders,
    Counter,
    EntryOrders,
    SubscriptionState,
    SubscriptionView,
    UsageReceipt,
    UsageReport,
)
from holdfast.wire.hq import Desired, Heartbeat, HeartbeatReply
from holdfast.wire.pool import Empty

SPOOL = bytes(16)


class World:
    """A cell with an entry and two cores, of ada and of bob."""

    def __init__(self, hq: Headquarters, operator: Operator) -> None:
        self.hq = hq
        self.operator = operator
        self.roots = hq.parts.authority.roots
        self.api = hq.parts.api_addresses

    async def found(self, cell: str = "c1") -> None:
        order = CellOrder(cell, f"{cell}.{DOMAIN}", f"{cell}-core.{DOMAIN}")
        await self.operator.call("POST", "/access/cells", order, Cell)
        self.entry = await self.node(Role.ENTRY, "ada", cell)
        self.ada = await self.node(Role.CORE, "ada", cell, "127.77.0.2:443")
        self.bob = await self.node(Role.CORE, "bob", cell, "127.77.0.3:443")

    async def node(
        self, role: Role, owner: str, cell: str = "c1", address: str = "127.77.0.1:443"
    ) -> Node:
        token = await self.operator.token(role=role, owner=owner, cell=cell)
        node = Node(self.api, self.roots)
        await node.join(token, addresses=(address,))
        return node

    async def member(self, **more: Any) -> Member:
        member: Member = await self.operator.call(
            "POST", "/access/members", MemberOrder(**more), Member
        )
        return member

    async def device(self, member: Member, cell: str = "c1") -> DeviceMade:
        made: DeviceMade = await self.operator.call(
            "POST", "/access/devices", DeviceOrder(member.id, cell), DeviceMade
        )
        return made

    async def state(self) -> AccessState:
        state: AccessState = await self.operator.call("GET", "/access", None, AccessState)
        return state

    async def state_when(self, ready: Callable[[AccessState], bool]) -> AccessState:
        """The first state for which `ready` holds: it follows the store a moment later."""
        async with asyncio.timeout(10):
            while not ready(state := await self.state()):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        return state

    async def told(self, token: str, state: SubscriptionState) -> None:
        """Return when a subscription says so: it follows the store a moment later."""
        async with asyncio.timeout(10):
            while (await self.fetch(token)).state is not state:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    async def orders(self, node: Node, ready: Any) -> Desired:
        """The first desired state of a node for which `ready` holds."""
        client, after = node.client(), 0
        try:
            while True:
                desired = await node.desired(client, after)
                if ready(desired):
                    return desired
                after = desired.version
        finally:
            await client.close()

    async def entry_orders(self, ready: Any = lambda orders: True) -> EntryOrders:
        found = await self.orders(self.entry, lambda d: d.entry is not None and ready(d.entry))
        assert found.entry is not None
        return found.entry

    async def core_orders(self, node: Node, ready: Any = lambda orders: True) -> CoreOrders:
        found = await self.orders(node, lambda d: d.core is not None and ready(d.core))
        assert found.core is not None
        return found.core

    async def report(self, node: Node, sequence: int, **counters: tuple[int, int]) -> int:
        client = node.client()
        rows = tuple(Counter(name, up, down) for name, (up, down) in counters.items())
        try:
            receipt = await client.call(
                "POST", "/v1/access/usage", UsageReport(SPOOL, sequence, rows), UsageReceipt
            )
        finally:
            await client.close()
        return receipt.sequence

    async def beat(self, node: Node, address: str) -> None:
        beat = Heartbeat(0, 0, Version(0, 0), Load(), (address,), "1", 0, True, "0")
        client = node.client()
        try:
            await client.call("POST", "/v1/heartbeat", beat, HeartbeatReply)
        finally:
            await client.close()

    async def fetch(self, token: str) -> SubscriptionView:
        client = JsonClient(self.api, self.roots, None, SystemClock())
        try:
            path = f"/v1/access/subscriptions/{token}"
            return await client.call("GET", path, None, SubscriptionView)
        finally:
            await client.close()


def test_orders_follow_what_happens_in_the_cell(tmp_path: Path) -> None:
    """Devices, lanes, cores, paths and exclusion reach an entry; entries reach a core."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        made = await world.device(await world.member(owner="ada"))
        orders = await world.entry_orders(lambda o: o.users and len(o.lanes[0].targets) == 2)
        assert [user.device for user in orders.users] == [made.device]
        own, other = orders.lanes[0].targets
        assert (own.address, own.priority, own.own) == ("127.77.0.2:443", 0, True)
        assert (other.address, other.priority, other.own) == ("127.77.0.3:443", 1, False)
        assert "ada" not in repr(orders)
        core = await world.core_orders(world.ada, lambda o: o.entries)
        assert core.entries == (world.entry.identity.node,)
        assert core.lane == orders.lanes[0].label
        await operator.call("POST", "/access/cells/c1/turn", None, Cell)
        assert len((await world.entry_orders(lambda o: len(o.epochs) == 2)).epochs) == 2
        await operator.revoke(world.ada.identity.node)
        left = await world.entry_orders(lambda o: len(o.lanes[0].targets) == 1)
        assert left.lanes[0].targets[0].node == world.bob.identity.node

    run(scenario, tmp_path)


def test_a_subscription_is_given_by_its_token_and_ends_with_its_device(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        member = await world.member(owner="ada", quota_bytes=1_000)
        made = await world.device(member)
        view = await world.fetch(made.token)
        assert view.state is SubscriptionState.ACTIVE
        assert [(line.host, line.port) for line in view.endpoints] == [("127.77.0.1", 443)] * 2
        assert made.token not in repr(await world.state())
        assert member.id not in repr(view)
        with pytest.raises(PeerFault):
            await world.fetch("nobodys")
        await world.report(world.entry, 1, **{made.device: (400, 600)})
        await world.told(made.token, SubscriptionState.OVER_QUOTA)
        await world.entry_orders(lambda o: not o.users)
        await operator.call("POST", f"/access/devices/{made.device}/revoke", None, msgspec.Raw)
        await world.told(made.token, SubscriptionState.REVOKED)

    run(scenario, tmp_path)


def test_a_subscription_names_no_entry_that_is_silent(tmp_path: Path) -> None:
    """It is named again when it speaks; a core is nobody's but its entries' to judge."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        other = await world.node(Role.ENTRY, "bob", address="127.77.0.9:443")
        made = await world.device(await world.member(owner="ada"))

        async def hosts(wanted: set[str], *speaking: tuple[Node, str]) -> None:
            async with asyncio.timeout(20):
                while True:
                    for node, address in speaking:
                        await world.beat(node, address)
                    if {e.host for e in (await world.fetch(made.token)).endpoints} == wanted:
                        return
                    await asyncio.sleep(0.05)

        ada, bob = (world.entry, "127.77.0.1:443"), (other, "127.77.0.9:443")
        await hosts({"127.77.0.1", "127.77.0.9"}, ada, bob)
        await hosts({"127.77.0.9"}, bob)
        await hosts({"127.77.0.1", "127.77.0.9"}, ada, bob)

    run(scenario, tmp_path, time_scale=60.0)


def test_usage_is_counted_once_whatever_is_repeated(tmp_path: Path) -> None:
    """Marzban #1832: no loss and no double count through disconnection and restart."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        member = await world.member()
        made = await world.device(member)
        for sequence, counters in ((1, (5, 10)), (1, (5, 10)), (3, (7, 30)), (2, (6, 20))):
            assert await world.report(world.entry, sequence, **{made.device: counters}) == sequence
        usage = (await world.state()).usage[member.id]
        assert (usage.upload, usage.download) == (7, 30)
        for sequence, counted in ((1, 100), (2, 150), (1, 100)):
            await world.report(world.bob, sequence, **{RESERVE: (0, counted), OWN: (1, 1)})
        bob = next(c for c in (await world.state()).cores if c.owner == "bob")
        assert (bob.reserve_used, bob.total_used) == (150, 152)
        with pytest.raises(PeerFault):
            await world.report(world.bob, 4, **{RESERVE: (-1, 0)})

    run(scenario, tmp_path)


def test_a_spent_reserve_leaves_the_lanes_of_others(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        await world.device(await world.member(owner="ada"))
        await world.entry_orders(lambda o: o.lanes and len(o.lanes[0].targets) == 2)
        bob = next(c for c in (await world.state()).cores if c.owner == "bob")
        policy = ExitPolicy(reserve_bytes=1_000)
        await operator.call("PUT", f"/access/policies/{bob.name}", policy, ExitPolicy)
        orders = await world.core_orders(world.bob, lambda o: o.policy.reserve_bytes == 1_000)
        assert orders.reserve_until == 1_000
        await world.report(world.bob, 1, **{RESERVE: (0, 1_000)})
        await world.entry_orders(lambda o: len(o.lanes[0].targets) == 1)

    run(scenario, tmp_path)


def test_a_lost_cell_is_made_anew_and_its_devices_are_elsewhere(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found("c2")
        await world.found("c1")
        made = await world.device(await world.member())
        before = (await world.entry_orders(lambda o: o.users)).users[0]
        order = Regenerate("c3", f"c3.{DOMAIN}", f"c3-core.{DOMAIN}", "c2")
        await operator.call("POST", "/access/cells/c1/regenerate", order, Cell)
        state = await world.state_when(
            lambda found: len(found.cells) == 3 and found.devices[0].cell == "c2"
        )
        assert [(c.id, c.state) for c in state.cells] == [
            ("c1", CellState.RETIRED),
            ("c2", CellState.ACTIVE),
            ("c3", CellState.ACTIVE),
        ]
        assert (await world.fetch(made.token)).endpoints[0].sni == f"c2.{DOMAIN}"
        assert state.devices[0].credential != before.credential
        assert not (await world.entry_orders(lambda o: not o.users)).users
        await operator.call("POST", f"/access/devices/{made.device}/move", Move("c3", 1), Moved)
        await world.state_when(lambda found: found.devices[0].cell == "c3")

    run(scenario, tmp_path)


def test_one_certificate_is_excluded_by_its_serial(tmp_path: Path) -> None:
    """A stolen TLS key of an honest node: the node stays in its cell, that certificate does not."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        orders = await world.core_orders(world.ada, lambda o: o.entries and o.crls)
        assert not list(x509.load_pem_x509_crl(orders.crls[0]))
        assert world.entry.reply is not None
        serial = cert_info(world.entry.reply.chain[0]).serial
        order = RevokeOrder(reason="stolen", serial=serial)
        await operator.call("POST", "/revoke", order, msgspec.Raw)
        orders = await world.core_orders(
            world.ada, lambda o: len(x509.load_pem_x509_crl(o.crls[0])) == 1
        )
        (entry,) = x509.load_pem_x509_crl(orders.crls[0])
        assert str(entry.serial_number) == serial
        assert orders.entries == (world.entry.identity.node,)

    run(scenario, tmp_path)


def test_what_an_operator_may_not_do(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        for call in (
            operator.token(role=Role.ENTRY),
            operator.token(role=Role.RELAY, cell="c1"),
            operator.token(role=Role.CORE, cell="nowhere"),
            operator.call("POST", "/access/cells", CellOrder("c1", "a.net", "b.net"), Cell),
            operator.call("POST", "/access/cells", CellOrder("c9", f"c1.{DOMAIN}", "b.net"), Cell),
            operator.call("POST", "/access/nodes/nobody/drain", Reason("x"), msgspec.Raw),
        ):
            with pytest.raises((UsageError, PeerFault)):
                await call
        member = await world.member(devices_max=1)
        await world.device(member)
        with pytest.raises((UsageError, PeerFault)):
            await world.device(member)

    run(scenario, tmp_path)


def test_an_entry_is_no_relay(tmp_path: Path) -> None:
    """An entry may not raise alerts, and a relay may not report usage."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        world = World(hq, operator)
        await world.found()
        relay = Node(world.api, world.roots)
        await relay.join(await operator.token(role=Role.RELAY))
        client = relay.client()
        with pytest.raises(PeerFault):
            await client.call("POST", "/v1/access/usage", UsageReport(SPOOL, 1, ()), UsageReceipt)
        await client.close()
        client = world.entry.client()
        with pytest.raises(PeerFault):
            await client.call("POST", "/v1/alerts", {}, Empty)
        await client.close()

    run(scenario, tmp_path)
