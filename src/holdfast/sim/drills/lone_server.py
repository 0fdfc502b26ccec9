"""One real pool server in a process of its own, with a throwaway root, and clients for it.

Everything is real but the key ceremony and the agent: this process sends what an agent would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from holdfast.crypto.certificates import create_root, issue_intermediate, issue_leaf
from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import HoldfastError, OperationFault
from holdfast.fabric.session import Session
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, write_file
from holdfast.rim.pool_client import PoolClient
from holdfast.rim.ports import free_port
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.wire.control import Apply, FromRole, Ready
from holdfast.wire.envelope import sign
from holdfast.wire.hq import Desired
from holdfast.wire.records import Revocations, Staple
from holdfast.wire.signed import Type

HOST: Final = "127.0.0.1"
DOMAIN: Final = "drill.example"
NAME: Final = "relay-eu-001"
REGION: Final = "eu"
START_S: Final = 60.0
CERT_DAYS: Final = 90


class LoneServer:
    """A relay with one slot. `await start()`; may be killed and started again."""

    def __init__(
        self,
        home: Path,
        clock: Clock,
        entropy: Entropy,
        *,
        state: Path | None = None,
        program: Sequence[str] = ("relay", "serve"),
    ) -> None:
        """`state` is where its blobs lie; below `home` unless given. `program` is the command that
        serves, if it is not the relay's own."""
        self._program = tuple(program)
        self.home = home
        self.clock = clock
        self.entropy = entropy
        self.state = state or home / "state"
        self.network = entropy.bytes(16)
        self.port = free_port(HOST, entropy)
        self.slot = entropy.bytes(16)
        self.child: Child[FromRole] | None = None
        self._listener: asyncio.Task[None] | None = None
        make_private_directory(home)
        self._write_keys()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        """Start the process, tell it its slot, wait until it serves it. Raises OperationFault."""
        log = self.home / "server.log"
        kind = cast("type[FromRole]", FromRole)
        child: Child[FromRole] = await spawn(self._command(), log=log, kind=kind)
        self.child = child
        try:
            async with self.clock.real_timeout(START_S):
                ready = await child.receive()
                if not isinstance(ready, Ready):
                    raise OperationFault(f"the server did not start; look into {log}")
                await child.send(Apply(self._desired()))
                self._listener = asyncio.create_task(self._listen(child))
                await self._serves()
        except TimeoutError as error:
            raise OperationFault(f"the server did not come up; look into {log}") from error

    async def kill(self) -> None:
        """SIGKILL it, if it runs."""
        child, self.child = self.child, None
        if child is not None:
            child.kill()
            await child.wait()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def client(self, connections_max: int = 2) -> PoolClient:
        """A client of it; the caller closes it."""
        return PoolClient(
            self.address,
            roots=self.roots,
            node=self._identity.node,
            clock=self.clock,
            connections_max=connections_max,
        )

    def era(self) -> Era:
        """The keys of a new group."""
        return Era(self.entropy.bytes(32), self.network)

    # --- Inside ----------------------------------------------------------------------------------
    def _write_keys(self) -> None:
        now = self.clock.wall()
        root = create_root(self.entropy.bytes(32), self.network, DOMAIN, now)
        self.roots = (root.certificate,)
        self._hq = SigningKey(self.entropy.bytes(32))
        self._identity = SigningKey(self.entropy.bytes(32))
        authority = issue_intermediate(
            root, TlsKey.from_bytes(self.entropy.bytes(32)), self.network, self._hq.public, now
        )
        self._proof = authority.certificate
        key = TlsKey.from_bytes(self.entropy.bytes(32))
        leaf = issue_leaf(
            authority,
            spki=key.spki(),
            network=self.network,
            role=Role.RELAY,
            node=self._identity.node,
            dns_name=f"{NAME}.{DOMAIN}",
            serial=1_000,
            now=now,
            days=CERT_DAYS,
        )
        for name, data in (
            ("identity.key", self._identity.seed),
            ("roots.pem", to_pem(self.roots)),
            ("chain.pem", to_pem([leaf, authority.certificate])),
            ("key.pem", key.pem()),
        ):
            write_file(self.home / name, data)

    def _command(self) -> tuple[str, ...]:
        return holdfast_command(
            *self._program,
            f"--dir={self.state}",
            f"--listen={self.address}",
            f"--role={Role.RELAY}",
            f"--region={REGION}",
            f"--name={NAME}",
            f"--network={self.network.hex()}",
            f"--identity={self.home / 'identity.key'}",
            f"--chain={self.home / 'chain.pem'}",
            f"--key={self.home / 'key.pem'}",
            f"--roots={self.home / 'roots.pem'}",
        )

    def _desired(self) -> Desired:
        """What HQ would want of it: one slot, nobody revoked."""
        now = int(self.clock.wall())
        seat = Seat(NAME, self._identity.node, (self.address,), "drill", "owner", REGION)
        record = SlotRecord(self.network, self.slot, Version(0, 1), now, (seat,), ())
        revocations = Revocations(self.network, Version(0, 0), now, ())
        return Desired(
            version=1,
            term=1,
            name=NAME,
            role=Role.RELAY,
            slots=(Staple(sign(self._hq, Type.SLOT_RECORD, record), self._proof),),
            revocations=Staple(sign(self._hq, Type.REVOCATIONS, revocations), self._proof),
            report_tag_age_s=0.0,
        )

    async def _listen(self, child: Child[FromRole]) -> None:
        """Hear its figures, so that its pipe does not fill."""
        while await child.receive() is not None:
            pass

    async def _serves(self) -> None:
        era = self.era()
        while True:
            client = self.client()
            try:
                await Session.open(client, era.access, self.slot)
                return
            except HoldfastError:
                await self.clock.sleep_real(0.02)
            finally:
                await client.close()
