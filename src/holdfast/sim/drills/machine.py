"""One server in this process: joined for real, serving for real, without an agent's child process.

It does what the agent does: heartbeats, orders by long poll, witnessing; and what the role does.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from holdfast import __version__
from holdfast.errors import HoldfastError, OperationFault
from holdfast.logic.fleet.model import Role, Version
from holdfast.node import membership
from holdfast.node.home import Home
from holdfast.node.witnessing import Witnessing
from holdfast.relay.policy import RelayConfig
from holdfast.relay.service import Relay
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.https import JsonClient
from holdfast.rim.ports import free_port
from holdfast.wire.hq import Desired, Heartbeat, HeartbeatReply
from holdfast.wire.token import JoinToken

HOST: Final = "127.0.0.1"
PERIOD_S: Final = 1.0
POLL_TIMEOUT_S: Final = 75.0
_log = logging.getLogger("holdfast.sim.machine")


class Machine:
    """`join` and it serves; or `serve` with a certificate from elsewhere, and `tell` it things."""

    def __init__(self, directory: Path, clock: Clock, entropy: Entropy) -> None:
        self.home = Home(directory)
        self._clock = clock
        self._entropy = entropy
        self._identity = self.home.identity(entropy)
        self._port = free_port(HOST, entropy)
        self._relay: Relay | None = None
        self._hq: JsonClient | None = None
        self._witnessing: Witnessing | None = None
        self._desired = Desired(0, 0, "", Role.RELAY, (), None)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def node(self) -> bytes:
        """Its node id."""
        return self._identity.node

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"{HOST}:{self._port}"

    @property
    def witnessed(self) -> int:
        """Leaves of the log that it has cosigned."""
        return self._witnessing.size if self._witnessing is not None else 0

    def has_evidence(self) -> bool:
        """Whether it keeps the proof of a log with two faces."""
        return any((self.home.directory / "evidence").glob("log-*"))

    async def join(self, token: JoinToken) -> None:
        """Become a member, serve, and keep in touch with headquarters."""
        member = await membership.join(
            self.home,
            token,
            listen=self.address,
            addresses=(self.address,),
            provider="",
            clock=self._clock,
            entropy=self._entropy,
        )
        await self.serve(member.role, member.name, self.home.chain_file, self.home.key_file)
        hq = self._hq = membership.connect(self.home, member, self._clock)
        witnessing = Witnessing(self.home, member, hq, self._clock, self._entropy)
        self._witnessing = witnessing
        work = (self._heartbeats(hq), self._desires(hq), witnessing.run())
        self._tasks = [asyncio.create_task(each) for each in work]

    async def serve(self, role: Role, name: str, chain: Path, key: Path) -> None:
        """Serve with this certificate. Raises UsageError, OperationFault."""
        config = RelayConfig(
            state=self.home.role_directory,
            host=HOST,
            port=self._port,
            role=role,
            region="eu",
            chain=chain,
            key=key,
            identity=self.home.identity_file,
            roots=self.home.roots_file,
            name=name,
            time_scale=self._clock.scale,
        )
        self._relay = Relay(config, self._clock, self._entropy, lambda alert: None)
        await self._relay.start()

    def tell(self, desired: Desired) -> None:
        """As headquarters would."""
        self._desired = desired
        if self._relay is not None:
            self._relay.apply(desired)

    async def silence(self) -> None:
        """Stop serving clients; the rest goes on."""
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.stop()

    async def stop(self) -> None:
        """Stop altogether."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.silence()
        if self._hq is not None:
            await self._hq.close()

    async def _heartbeats(self, hq: JsonClient) -> None:
        certificate = self.home.certificate()
        while True:
            if self._relay is not None:
                beat = Heartbeat(
                    term=self._desired.term,
                    desired=self._desired.version,
                    revocations=Version(0, 0),
                    load=self._relay.load(),
                    addresses=(self.address,),
                    cert_serial=certificate.serial,
                    cert_expires_at=certificate.not_after,
                    filled=self._relay.reconciler.filled(),
                    version=__version__,
                )
                try:
                    await hq.call("POST", "/v1/heartbeat", beat, HeartbeatReply)
                except HoldfastError as error:
                    _log.info("heartbeat: %s", error)
            await self._clock.sleep_real(PERIOD_S)

    async def _desires(self, hq: JsonClient) -> None:
        while True:
            path = f"/v1/desired?after={self._desired.version}"
            try:
                desired = await hq.call("GET", path, None, Desired, timeout_s=POLL_TIMEOUT_S)
            except (HoldfastError, OperationFault) as error:
                _log.info("desired: %s", error)
                await self._clock.sleep_real(PERIOD_S)
                continue
            newer = (desired.term, desired.version) > (self._desired.term, self._desired.version)
            if newer:
                self.tell(desired)
