"""`holdfast drill lateral`: what a thief of one whole node can do to the others (seed 001).

The thief has the disk and the memory of one node and tries, for every node in turn:

* each key and chain that lies there, as an entry, at every other node's port;
* every secret of the others (keys, the other cell's paths and credentials), looked for in all files
  and in the memory of all processes of the node;
* from an entry, whose tunnels are its job: through a core to loopback, to private ranges, to HQ.

An entry's tunnel into a core of its own cell is what entries are for and no entering. Control: with
another cell's key planted on the disk, the same search gets in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.access.xray_config import HOP_CREDENTIAL
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet
from holdfast.rim.probing import tunnel
from holdfast.rim.process import descendants, memory
from holdfast.sim.access.ground import DOMAIN, SERVER_NET, AccessGround, GroundNode

WEB: Final = (f"{SERVER_NET}.1", 80)
FORBIDDEN: Final = (
    ("127.0.0.1", 7400),
    ("127.0.0.1", 8099),
    ("localhost", 8099),
    ("10.0.0.1", 8099),
    ("169.254.169.254", 80),
    ("192.168.0.1", 80),
    ("::1", 8099),
)


class LateralReport(msgspec.Struct):
    """What the thief got into."""

    nodes: int = 0
    attempts: int = 0
    other_nodes_entered: int = 0
    other_cells_entered: int = 0
    secrets_found: int = 0
    """Of other nodes and cells, on a disk or in a memory."""
    private_reached: int = 0
    tool_works: bool = False
    """The thief's tunnel does work where it may: an entry into its own cell's core."""
    control: bool = False
    """With a key of another cell planted, the thief gets in."""
    held: bool = False


class LateralDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self._inside = Internet("127.0.0.1", 8099, 8053)
        self._cells: dict[str, str] = {}
        self.report = LateralReport()

    async def run(self) -> LateralReport:
        """Every node is the thief's once."""
        report, ground = self.report, self._ground
        self._web.start()
        self._inside.start()
        try:
            await ground.start()
            for cell in ("c1", "c2"):
                await ground.cell(cell)
                await ground.device(await ground.member("ada"), cell)
                for role in (Role.CORE, Role.CORE, Role.ENTRY):
                    node = await ground.node(role, cell, f"owner-{cell}")
                    self._cells[node.name] = cell
            nodes = list(ground.nodes.values())
            report.nodes = len(nodes)
            for thief in nodes:
                report.secrets_found += await self._search(thief)
                await self._attack(thief, count=True)
            entry = next(n for n in nodes if n.role is Role.ENTRY)
            core = next(n for n in nodes if n.role is Role.CORE)
            report.tool_works = await self._opens(entry, core, WEB)
            for target in FORBIDDEN:
                report.private_reached += await self._opens(entry, core, target)
            report.control = await self._control(nodes)
        finally:
            self._web.stop()
            self._inside.stop()
            await ground.stop()
        entered = report.other_nodes_entered + report.other_cells_entered
        report.held = (
            entered + report.secrets_found + report.private_reached == 0
            and report.tool_works
            and report.control
        )
        return report

    # --- The disk and the memory -----------------------------------------------------------------
    async def _search(self, thief: GroundNode) -> int:
        """How many secrets of others lie on a node's disk or in its processes."""
        secrets = await self._secrets_of_others(thief)
        pids = (thief.child.pid, *descendants(thief.child.pid))
        found = set()
        for where in (*_files(thief.home), *(m for pid in pids for m in memory(pid))):
            found |= {secret for secret in secrets if secret in where}
        return len(found)

    async def _secrets_of_others(self, thief: GroundNode) -> set[bytes]:
        state = await self._ground.state()
        cell = self._cells[thief.name]
        secrets = {e.secret.hex().encode() for c in state.cells if c.id != cell for e in c.epochs}
        secrets |= {d.credential.encode() for d in state.devices if d.cell != cell}
        for node in self._ground.nodes.values():
            if node is not thief:
                pem = (node.home / "tls" / "current" / "key.pem").read_bytes()
                secrets.add(b"".join(pem.splitlines()[1:-1])[40:100])
                secrets.add((node.home / "identity.key").read_bytes())
        return secrets

    # --- The doors -------------------------------------------------------------------------------
    async def _attack(self, thief: GroundNode, *, count: bool) -> int:
        """Try everything that looks like credentials at every other node; how many doors opened."""
        entered = 0
        for pair in _pairs(thief.home):
            for victim in self._ground.nodes.values():
                same = self._cells[victim.name] == self._cells[thief.name]
                its_job = same and thief.role is Role.ENTRY and victim.role is Role.CORE
                if victim is thief or its_job:
                    continue
                self.report.attempts += 1
                if await self._try(victim, pair, WEB):
                    entered += 1
                    if count:
                        self.report.other_nodes_entered += 1
                        self.report.other_cells_entered += not same
        return entered

    async def _opens(self, thief: GroundNode, core: GroundNode, target: tuple[str, int]) -> bool:
        return await self._try(core, next(iter(_pairs(thief.home))), target)

    async def _try(
        self, victim: GroundNode, pair: tuple[Path, Path], target: tuple[str, int]
    ) -> bool:
        """Whether a tunnel with these credentials leads through `victim` to `target`."""
        host, _, port = victim.address.rpartition(":")
        name = f"{self._cells[victim.name]}-core.{DOMAIN}"
        request = b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n"
        first = _vless(target) + request
        where = (host, int(port))
        answer = await asyncio.to_thread(tunnel, where, name, pair, first)
        return b" 200 OK" in answer  # VLESS itself answers two bytes before anything is reached

    async def _control(self, nodes: list[GroundNode]) -> bool:
        """Plant the other cell's entry on a core's disk: the same search must get in."""
        thief = next(n for n in nodes if n.role is Role.CORE and self._cells[n.name] == "c1")
        donor = next(n for n in nodes if n.role is Role.ENTRY and self._cells[n.name] == "c2")
        shared = thief.home / "shared"
        shared.mkdir()
        for name in ("chain.pem", "key.pem"):
            source = donor.home / "tls" / "current" / name
            (shared / name).write_bytes(source.read_bytes())
        return await self._attack(thief, count=False) > 0


def _vless(target: tuple[str, int]) -> bytes:
    """A VLESS request as an entry's Xray sends it (reference: proxy/vless/encoding)."""
    host, port = target
    credential = bytes.fromhex(HOP_CREDENTIAL.replace("-", ""))
    head = b"\0" + credential + b"\0\1" + port.to_bytes(2, "big")
    parts = host.split(".")
    if len(parts) == 4 and all(part.isdigit() for part in parts):
        return head + b"\1" + bytes(map(int, parts))
    if host == "::1":
        return head + b"\3" + bytes(15) + b"\1"
    return head + b"\2" + bytes([len(host)]) + host.encode()


def _pairs(home: Path) -> Iterator[tuple[Path, Path]]:
    """Chains and keys that lie beside each other somewhere on a disk."""
    for chain in sorted(home.rglob("chain.pem")):
        key = chain.with_name("key.pem")
        if key.exists() and not chain.parent.is_symlink():
            yield chain, key


def _files(home: Path) -> Iterator[bytes]:
    for path in home.rglob("*"):
        if path.is_file():
            with contextlib.suppress(OSError):
                yield path.read_bytes().replace(b"\n", b"")
