"""A headquarters, entries, cores and clients as processes of one network namespace.

Cores leave for no private address, so the "internet" of a drill needs public ones. `enter` runs a
command in a namespace of its own (no root needed) whose loopback has the documentation ranges
(RFC 5737): entries live in 198.51.100.0/24, cores in 203.0.113.0/24, servers in 192.0.2.0/24.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdfast.crypto.certificates import Authority, create_root, sign_intermediate
from holdfast.crypto.pure import base32
from holdfast.errors import HoldfastError, OperationFault
from holdfast.hq.access import DeviceMade
from holdfast.hq.access_admin import (
    AccessState,
    Acknowledged,
    CellOrder,
    DeviceOrder,
    MemberOrder,
)
from holdfast.hq.admin import Done, RevokeOrder, Status, TokenMade, TokenOrder
from holdfast.hq.config import HqConfig, save_config
from holdfast.hq.home import HqHome
from holdfast.logic.access.model import Cell, CellId, DeviceId, ExitPolicy, Member
from holdfast.logic.fleet.model import Role
from holdfast.node.home import Home, Report
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.https_client import JsonClient
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.ports import answers
from holdfast.rim.process import Child, holdfast_command, kill_tree, spawn
from holdfast.wire.access import SubscriptionView
from holdfast.wire.ceremony import check_request, parse_request

DOMAIN: Final = "holdfast.example"
HQ_PORT: Final = 7400
PORT: Final = 443
SERVER_NET: Final = "192.0.2"
ENTRY_NET: Final = "198.51.100"
CORE_NET: Final = "203.0.113"
INSIDE: Final = "HOLDFAST_INSIDE"
START_S: Final = 180.0
"""Real seconds for a process to serve: three on an idle machine, a minute on an overloaded one."""
USERS_AT_ONCE: Final = 64
"""Users of a drill wait for the network in a thread each; asyncio itself has six on two cores."""
HEARTBEAT_S: Final = 1.0
_POLL_S: Final = 0.05
T = TypeVar("T")


def enter(command: Sequence[str]) -> tuple[str, ...]:
    """`command` in a namespace of its own, with the addresses of a drill on its loopback."""
    nets = (SERVER_NET, ENTRY_NET, CORE_NET)
    setup = " && ".join(["ip link set lo up", *(f"ip addr add {net}.0/24 dev lo" for net in nets)])
    script = f'{setup} && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh", *command)


def is_inside() -> bool:
    """Whether this process runs where `enter` leads."""
    return os.environ.get(INSIDE) == "1"


class GroundNode:
    """One agent with its role, as a process."""

    def __init__(
        self, name: str, role: Role, cell: CellId, home: Path, address: str, child: Child[Any]
    ) -> None:
        self.name = name
        self.role = role
        self.cell = cell
        self.home = home
        self.address = address
        self.child = child
        self.command: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        """The node id in base32."""
        member = Home(self.home).member()
        assert member is not None, "it has joined"
        return base32(member.node)

    def report(self) -> Report | None:
        """What its agent says of itself."""
        return Home(self.home).report()

    def kill(self) -> None:
        """SIGKILL to the agent and all below it."""
        kill_tree(self.child.pid)


class AccessGround:
    """Start it inside a namespace; everything it starts ends with `stop`, or with us."""

    def __init__(
        self, directory: Path, *, clock: Clock, entropy: Entropy, scale: float = 1.0
    ) -> None:
        self.directory = directory.absolute()
        self._clock = clock
        self._entropy = entropy
        self.scale = scale
        self.home = HqHome(self.directory / "hq")
        self._hq: Child[Any] | None = None
        self.nodes: dict[str, GroundNode] = {}
        self._children: list[Child[Any]] = []
        self._counts: dict[Role, int] = {}
        self._root: Authority | None = None

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Found a network and start its headquarters."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(USERS_AT_ONCE))
        now = self._clock.wall()
        network = self._entropy.bytes(16)
        root = self._root = create_root(self._entropy.bytes(32), network, DOMAIN, now)
        config = HqConfig(
            domain=DOMAIN,
            listen=f"127.0.0.1:{HQ_PORT}",
            dns_listen="127.0.0.1:7453",
            regions=("eu",),
            time_scale=self.scale,
            heartbeat_s=HEARTBEAT_S * self.scale,
        )
        line = self.home.init(config, [root.certificate], self._entropy)
        request = parse_request(line)
        certificate = sign_intermediate(
            root,
            spki=check_request(request, network),
            network=network,
            identity_public=request.identity,
            now=now,
        )
        self.home.install(certificate, now)
        await self.start_hq()

    async def start_hq(self) -> None:
        """Start headquarters and wait until it leads."""
        (self.home.directory / "admin.json").unlink(missing_ok=True)
        command = holdfast_command("hq", "serve", f"--dir={self.home.directory}")
        self._hq = await spawn(command, log=self.directory / "hq.log")

        async def leads() -> bool:
            status: Status = await self.call("GET", "/status", None, Status)
            return status.leading

        await self.until("headquarters", leads)

    async def restart_hq(self, scale: float) -> None:
        """Kill headquarters and start it again with another scale of time."""
        self.kill_hq()
        assert self._hq is not None
        await self._hq.wait()
        config = msgspec.structs.replace(self.home.config(), time_scale=scale)
        config = msgspec.structs.replace(config, heartbeat_s=HEARTBEAT_S * scale)
        save_config(self.home.directory, config)
        await self.start_hq()

    def kill_hq(self) -> None:
        """SIGKILL to headquarters."""
        assert self._hq is not None, "start it first"
        self._hq.kill()

    async def stop(self) -> None:
        """End everything."""
        for node in self.nodes.values():
            node.kill()
        for child in self._children:
            child.kill()
        if self._hq is not None:
            await self._hq.stop(self._clock, 5.0)

    async def until(self, what: str, ready: Any, wait_s: float = START_S) -> None:
        """Wait until `ready()` is true. Raises OperationFault when it takes too long."""
        try:
            async with self._clock.real_timeout(wait_s):
                while True:
                    try:
                        if await ready():
                            return
                    except HoldfastError:
                        pass
                    await self._clock.sleep_real(_POLL_S)
        except TimeoutError:
            raise OperationFault(
                f"{what} did not come up within {wait_s:g} s; look into {self.directory}",
                retryable=False,
            ) from None

    # --- The operator ----------------------------------------------------------------------------
    async def call(self, method: str, path: str, body: object, reply: type[T]) -> T:
        """One verb of the admin port."""
        admin = self.home.admin()
        client = LoopbackClient(admin.address, admin.key, self._clock)
        return await client.call(method, "/admin/v1" + path, body, reply)

    async def cell(self, id: CellId) -> Cell:
        """A new cell, named under the network's domain."""
        order = CellOrder(id, f"{id}.{DOMAIN}", f"{id}-core.{DOMAIN}")
        return await self.call("POST", "/access/cells", order, Cell)

    async def state(self) -> AccessState:
        """The access layer as HQ sees it."""
        return await self.call("GET", "/access", None, AccessState)

    async def member(self, owner: str = "", **more: Any) -> Member:
        """A new member."""
        return await self.call("POST", "/access/members", MemberOrder(owner, **more), Member)

    async def device(self, member: Member, cell: CellId) -> DeviceMade:
        """A new device with its subscription."""
        order = DeviceOrder(member.id, cell)
        return await self.call("POST", "/access/devices", order, DeviceMade)

    async def revoke_device(self, device: DeviceId) -> None:
        """Shut a device out."""
        await self.call("POST", f"/access/devices/{device}/revoke", None, Acknowledged)

    async def policy(self, core: str, policy: ExitPolicy) -> None:
        """What a core's owner allows."""
        await self.call("PUT", f"/access/policies/{core}", policy, ExitPolicy)

    async def revoke(self, node: GroundNode) -> None:
        """Exclude a node."""
        order = RevokeOrder(reason="drill", node=node.node)
        await self.call("POST", "/revoke", order, Done)

    async def subscription(self, token: str) -> SubscriptionView:
        """What a client fetches, over HQ's own port."""
        hq = JsonClient((f"127.0.0.1:{HQ_PORT}",), self.home.roots(), None, self._clock)
        try:
            path = f"/v1/access/subscriptions/{token}"
            return await hq.call("GET", path, None, SubscriptionView)
        finally:
            await hq.close()

    # --- Nodes -----------------------------------------------------------------------------------
    async def node(
        self, role: Role, cell: CellId, owner: str = "ada", region: str = "eu"
    ) -> GroundNode:
        """Admit, start and wait for one entry or core."""
        number = self._counts[role] = self._counts.get(role, 0) + 1
        order = TokenOrder(role=role, region=region, owner=owner, provider="drill", cell=cell)
        made = await self.call("POST", "/tokens", order, TokenMade)
        return await self._start_node(made.name, role, cell, made.token, number)

    async def start_node(self, name: str, role: Role, cell: CellId, token: str) -> GroundNode:
        """Start and wait for a node whose token somebody has made."""
        number = self._counts[role] = self._counts.get(role, 0) + 1
        return await self._start_node(name, role, cell, token, number)

    async def _start_node(
        self, name: str, role: Role, cell: CellId, secret: str, number: int
    ) -> GroundNode:
        net = ENTRY_NET if role is Role.ENTRY else CORE_NET
        address = f"{net}.{number}:{PORT}"
        home = self.directory / name
        home.mkdir(parents=True)
        token = self.directory / f"{name}.token"
        token.write_text(secret)
        command = holdfast_command(
            "node",
            "run",
            f"--dir={home}",
            f"--token-file={token}",
            f"--listen={address}",
            "--provider=drill",
            f"--time-scale={self.scale}",
        )
        child: Child[Any] = await spawn(command, log=self.directory / f"{name}.log")
        node = self.nodes[name] = GroundNode(name, role, cell, home, address, child)
        node.command = command
        await self.serves(node)
        return node

    async def restart(self, node: GroundNode) -> None:
        """Start a node that was killed, with the disk it had."""
        (node.home / "status.json").unlink(missing_ok=True)
        node.child = await spawn(node.command, log=self.directory / f"{node.name}.log")

    async def serves(self, node: GroundNode, wait_s: float = START_S) -> None:
        """Wait until a node's role serves."""

        async def ready() -> bool:
            report = node.report()
            return report is not None and report.pid == node.child.pid and report.phase == "serving"

        await self.until(node.name, ready, wait_s)

    # --- Clients ---------------------------------------------------------------------------------
    async def client(self, config: dict[str, Any], name: str) -> Child[Any]:
        """A user's Xray with this configuration, as a process, listening on loopback."""
        child = await self.xray(config, name)
        port = config["inbounds"][0]["port"]

        async def listens() -> bool:
            return await answers(f"127.0.0.1:{port}", self._clock)

        await self.until(name, listens)
        return child

    async def xray(self, config: dict[str, Any], name: str) -> Child[Any]:
        """An Xray with this configuration, as a process."""
        path = self.directory / f"{name}.json"
        path.write_bytes(msgspec.json.encode(config))
        command = (*holdfast_command()[:1], "-m", "holdfast.access.xray_process", str(path))
        child: Child[Any] = await spawn(command, log=self.directory / f"{name}.log")
        self._children.append(child)
        return child
