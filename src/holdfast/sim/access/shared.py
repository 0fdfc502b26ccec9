"""An access ground whose headquarters are several, over one etcd of three members.

Each headquarters has its own directory, identity and intermediate; `kill` takes any of them or of
the members. Snapshots are sealed to a person whose key file lies beside, not in headquarters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from holdfast.crypto.certificates import create_root, fingerprint, sign_intermediate
from holdfast.errors import HoldfastError, OperationFault
from holdfast.hq.admin import Status
from holdfast.hq.config import ContinuityConfig, HqConfig
from holdfast.hq.home import HqHome
from holdfast.logic.trust.admission import Policy
from holdfast.rim.clock import Clock
from holdfast.rim.control import etcd_members
from holdfast.rim.control.etcd_members import Members
from holdfast.rim.entropy import Entropy
from holdfast.rim.front_client import FrontClient, Where
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.access.ground import DOMAIN, HEARTBEAT_S, HQ_PORT, AccessGround
from holdfast.wire.access import SubscriptionView
from holdfast.wire.ceremony import check_request, parse_request
from holdfast.wire.front import CopyHead
from holdfast.wire.hq import TicketTerms

MEMBERS: Final = 3
DNS_PORT: Final = 7_453
HOST: Final = "127.0.0.1"
KIND: Final = "plain"
PATIENCE_S: Final = 5.0
"""An app that fetches its subscription gives up after this, and tries again."""
T = TypeVar("T")


class SharedGround(AccessGround):
    """`headquarters` of them. `recipient` is the age line to which copies are sealed."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        entropy: Entropy,
        recipient: str,
        headquarters: int = 2,
        scale: float = 1.0,
    ) -> None:
        super().__init__(directory, clock=clock, entropy=entropy, scale=scale)
        self._recipient = recipient
        names = ("hq", *(f"hq-{number + 2}" for number in range(headquarters - 1)))
        self.homes = {name: HqHome(self.directory / name) for name in names}
        self._processes: dict[str, Child[Any]] = {}
        self._members: Members | None = None
        self.fronts: Where | None = None
        """Through which nodes subscriptions are fetched; all that have joined when None."""

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Found a network; every headquarters serves and one leads when this returns."""
        now, where = self._clock.wall(), self.directory / "etcd"
        network = self._entropy.bytes(16)
        self._root = create_root(self._entropy.bytes(32), network, DOMAIN, now)
        members = etcd_members.prepare(where, HOST, MEMBERS, self._entropy, now)
        self._members = members
        for member in members.members:
            command = etcd_members.command(where, members, member)
            log = self.directory / f"{member.name}.log"
            self._processes[member.name] = await spawn(command, log=log)
        for number, home in enumerate(self.homes.values()):
            self._found(home, self.config(number), now, network)
        for name in self.homes:
            await self.start_one(name)
        await self.until("a leading headquarters", self.leader)

    def config(self, number: int) -> HqConfig:
        """`hq.json` of one of them."""
        assert self._members is not None
        everywhere = tuple(f"{HOST}:{HQ_PORT + each}" for each in range(len(self.homes)))
        names = tuple(f"{HOST}:{DNS_PORT + each}" for each in range(len(self.homes)))
        return HqConfig(
            domain=DOMAIN,
            listen=everywhere[number],
            addresses=everywhere,
            dns_listen=names[number],
            dns_addresses=names,
            etcd=self._members.access("../etcd"),
            regions=("eu",),
            admission=Policy.APPROVE,
            tickets=(TicketTerms(KIND, 1 << 30, 50.0, 200.0),),
            continuity=ContinuityConfig((self._recipient,), ("kept",)),
            time_scale=self.scale,
            heartbeat_s=HEARTBEAT_S * self.scale,
        )

    def _found(self, home: HqHome, config: HqConfig, now: float, network: bytes) -> None:
        assert self._root is not None
        request = parse_request(home.init(config, [self._root.certificate], self._entropy))
        certificate = sign_intermediate(
            self._root,
            spki=check_request(request, network),
            network=network,
            identity_public=request.identity,
            now=now,
        )
        home.install(certificate, now)

    async def start_one(self, name: str) -> None:
        """Start a headquarters and wait until its ports are open."""
        home = self.homes[name]
        (home.directory / "admin.json").unlink(missing_ok=True)
        command = holdfast_command("hq", "serve", f"--dir={home.directory}")
        self._processes[name] = await spawn(command, log=self.directory / f"{name}.log")

        async def serves() -> bool:
            return (home.directory / "admin.json").exists()

        await self.until(name, serves)

    def kill(self, name: str) -> None:
        """SIGKILL to a headquarters or a member of etcd."""
        self._processes[name].kill()

    def kill_all(self) -> None:
        """SIGKILL to every headquarters and every member."""
        for process in self._processes.values():
            process.kill()

    def adopt(self, home: HqHome, process: Child[Any]) -> None:
        """A headquarters that was made anew is the only one from now on."""
        self.home, self.homes = home, {"phoenix": home}
        self._processes["phoenix"] = process

    async def status(self) -> Status:
        """Of the headquarters that leads."""
        return await self.call("GET", "/status", None, Status)

    async def stop(self) -> None:
        """End everything."""
        await super().stop()
        for process in self._processes.values():
            process.kill()

    @property
    def members(self) -> tuple[str, ...]:
        """Names of etcd's members."""
        assert self._members is not None, "start it first"
        return tuple(member.name for member in self._members.members)

    # --- The operator ----------------------------------------------------------------------------
    async def leader(self) -> str:
        """Raises OperationFault while nobody leads."""
        for name in self.homes:
            try:
                if (await self._ask(name, "GET", "/status", None, Status)).leading:
                    return name
            except HoldfastError:
                continue  # dead, or not up yet
        raise OperationFault("no headquarters leads")

    async def _ask(self, name: str, method: str, path: str, body: object, reply: type[T]) -> T:
        admin = self.homes[name].admin()
        client = LoopbackClient(admin.address, admin.key, self._clock)
        return await client.call(method, "/admin/v1" + path, body, reply)

    async def call(self, method: str, path: str, body: object, reply: type[T]) -> T:
        """One verb of the admin port of the headquarters that leads."""
        return await self._ask(await self.leader(), method, path, body, reply)

    async def subscription(self, token: str) -> SubscriptionView:
        """What a client fetches, through any node."""
        client = FrontClient(self.fronts or self.where, self._clock, self._entropy)
        try:
            path = f"/v1/access/subscriptions/{token}"
            status, data = await client.exchange("GET", path, b"", "", patience_s=PATIENCE_S)
        finally:
            await client.close()
        return LoopbackClient.read(status, data, SubscriptionView)

    async def newest_copy(self) -> CopyHead:
        """The newest copy of the store that those nodes keep."""
        client = FrontClient(self.fronts or self.where, self._clock, self._entropy)
        try:
            head, _ = await client.newest_copy()
        finally:
            await client.close()
        return head

    @property
    def where(self) -> Where:
        """How callers reach headquarters through the nodes that have joined."""
        (root, *_) = self.home.roots()
        addresses = tuple(node.address for node in self.nodes.values())
        return Where(addresses, fingerprint(root))
