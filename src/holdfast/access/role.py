"""What an entry and a core have in common: orders in, two proxies out.

Order law of a change: first whom to believe, then whom to dial, then who may come, and last the
live connections of whoever is out. So nobody is cut before the way back is closed to him.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from holdfast.access import envoy_config as envoy
from holdfast.access import files
from holdfast.access.proxies import ENVOY, Proxies
from holdfast.access.spool import UsageSpool
from holdfast.access.xray_api import XrayApi
from holdfast.crypto.certinfo import NodeName, cert_info, from_pem, to_pem
from holdfast.crypto.rootset import only_roots
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.fleet.model import Load, NodeId, Role
from holdfast.rim.clock import Clock
from holdfast.rim.files import read_file
from holdfast.rim.ports import answers
from holdfast.rim.sockets import Connection, cut
from holdfast.wire.access import UsageReport
from holdfast.wire.address import join_address
from holdfast.wire.control import Status
from holdfast.wire.front import front_paths
from holdfast.wire.hq import Desired

READY_S: Final = 20.0
"""Real seconds for both proxies to serve; a loaded machine takes three."""
PUBLIC_DIRECTORY: Final = "public"
"""In the node's directory: chain.pem and key.pem of a public authority, where an entry's cell has a
name outside the network's domain. Put there by its owner, read at each renewal and each order."""
_POLL_S: Final = 0.05
_log = logging.getLogger("holdfast.access")


class AccessConfig(msgspec.Struct, frozen=True):
    """What the agent gives the role."""

    state: Path
    host: str
    port: int
    role: Role
    name: str
    region: str
    network: bytes
    chain: Path
    key: Path
    roots: Path
    time_scale: float = 1.0


class AccessRole:
    """Base of both roles. `peer_role` is who stands at the other end of the hop."""

    peer_role: Role
    spool: UsageSpool

    def __init__(self, config: AccessConfig, clock: Clock, proxies: Proxies) -> None:
        self.config = config
        self.clock = clock
        self.proxies = proxies
        self.api = XrayApi(f"{proxies.directory}/{Path(files.XRAY_API).name}", clock)
        self.cell = cert_info(from_pem(_read(config.chain))[0]).name
        self.serving = False
        self.front_port = 0
        """Where our agent carries calls for headquarters."""
        self.trusted: frozenset[NodeId] = frozenset()

    @property
    def address(self) -> str:
        """`host:port` where this role serves."""
        return join_address(self.config.host, self.config.port)

    async def apply(self, desired: Desired) -> None:
        """Do what headquarters wants. Raises OperationFault when a proxy does not follow."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End both proxies."""
        await self.api.close()
        await self.proxies.stop()

    async def status(self) -> Status:
        """Figures for the next heartbeat."""
        return Status(Load(), filled=True)

    async def count(self) -> None:
        """Read the counters; durable when this returns. Raises OperationFault."""

    def usage(self) -> UsageReport | None:
        """What was counted and is not known to HQ."""
        raise NotImplementedError

    def counted(self, sequence: int) -> None:
        """HQ has the report of `sequence`."""
        self.spool.confirmed(sequence)

    def rotate(self) -> None:
        """New certificate files lie in place: serve with them, keep connections."""
        self._write_identity()
        _log.info("serving with a new certificate")

    def front(self) -> envoy.Front | None:
        """The way to our agent, by the roots of now."""
        if not self.front_port:
            return None
        return envoy.Front(front_paths(from_pem(_read(self.config.roots))), self.front_port)

    # --- Parts -----------------------------------------------------------------------------------
    def _write_identity(self) -> None:
        chain, key = self.config.chain.resolve(), self.config.key.resolve()
        secret = envoy.identity(str(chain), str(key))
        self.proxies.write(envoy.IDENTITY, envoy.resources([secret]))
        public = self.config.chain.parents[2] / PUBLIC_DIRECTORY
        if (public / "chain.pem").exists() and (public / "key.pem").exists():
            chain, key = public / "chain.pem", public / "key.pem"
        secret = envoy.identity(str(chain), str(key), "public")
        if not self.proxies.write(envoy.PUBLIC, envoy.resources([secret])) and self.serving:
            self.proxies.touch(envoy.PUBLIC)  # the same files, perhaps with a new certificate

    def _trust(self, nodes: frozenset[NodeId], crls: tuple[bytes, ...], *, lenient: bool) -> None:
        """Believe these nodes of our cell and nobody else."""
        assert self.cell is not None, "checked by the agent: our certificate names us"
        roots = to_pem(only_roots(from_pem(_read(self.config.roots)))).decode()
        uris = [
            NodeName(self.config.network, self.peer_role.value, node, self.cell.cell).uri()
            for node in sorted(nodes)
        ]
        crl = b"".join(crls).decode()
        secret = envoy.trust(roots, uris, crl, lenient=lenient)
        self.proxies.write(envoy.TRUST, envoy.resources([secret]))
        self.trusted = nodes

    async def _start(self) -> None:
        """Start both proxies and wait until they serve."""
        await self.proxies.start(envoy.bootstrap(self.config.name))
        deadline = self.clock.elapsed() + READY_S * self.clock.scale
        while not await self._serves():
            if self.clock.elapsed() > deadline:
                raise OperationFault(
                    f"the proxies do not serve; look at {self.proxies.directory}/*.log"
                )
            await self.clock.sleep_real(_POLL_S)
        self.serving = True

    async def _serves(self) -> bool:
        socket = self.proxies.directory / Path(files.XRAY_API).name
        return socket.exists() and await answers(self.address, self.clock, 0.5)

    async def cut(self, what: str, which: Callable[[Connection], bool]) -> None:
        """Shut live connections of our Envoy; where the kernel refuses, restart it."""
        try:
            count = cut(self.proxies.pid(ENVOY), which)
            _log.warning("%s: cut %d connections", what, count)
        except OperationFault as fault:
            _log.warning("%s: %s; restarting Envoy", what, fault)
            await self.proxies.restart(ENVOY)


def _read(path: Path) -> bytes:
    data = read_file(path)
    if data is None:
        raise UsageError(f"{path} is missing")
    return data
