"""`holdfast drill observer`: what a wiretap between entries and cores, and a prober of both, learn.

The wiretap reads every ClientHello to a core: one name and one fingerprint for the whole cell, a
post-quantum group and nothing else, and no name of an owner or node in clear. The prober connects
with right, wrong and no name, with TLS 1.2, with a stranger's certificate and with garbage: every
node answers as the same web server. Control: one connection with a node's own name is flagged.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from holdfast.access.cover import WELCOME
from holdfast.crypto.certificates import create_root, issue_intermediate, issue_leaf
from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import OperationFault
from holdfast.logic.access.hello import Hello, read_hello
from holdfast.logic.access.xray_json import xray_json
from holdfast.logic.fleet.model import Role
from holdfast.rim.capture import Capture
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.internet import Internet, fetch
from holdfast.rim.probing import Seen, babble, probe
from holdfast.sim.access.ground import CORE_NET, DOMAIN, PORT, SERVER_NET, AccessGround, GroundNode

WEB: Final = (f"{SERVER_NET}.1", 80)
SOCKS: Final = 16_000
X25519MLKEM768: Final = 0x11EC
OWNERS: Final = ("ada-lovelace", "bob-the-builder")


class ObserverReport(msgspec.Struct):
    """What was seen."""

    hellos: int = 0
    names: tuple[str, ...] = ()
    fingerprints: int = 0
    post_quantum_only: bool = False
    clear_names: int = 0
    """Names of owners or nodes in clear on the wire to cores."""
    probes: int = 0
    cover_only: bool = False
    """Every probe got the cover site or a closed connection, alike from every node of a role."""
    names_shown: int = 0
    """Names of owners or nodes in answers or certificates."""
    odd: tuple[str, ...] = ()
    control: bool = False
    """A node with a name of its own is flagged."""
    held: bool = False


class ObserverDrill:
    """One run, in a namespace of its own."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._home = home
        self._ground = AccessGround(home, clock=clock, entropy=entropy)
        self._web = Internet(WEB[0])
        self.report = ObserverReport()

    async def run(self) -> ObserverReport:
        """Tap, then probe, then the control."""
        report, ground = self.report, self._ground
        self._web.start()
        tap = Capture()
        tap.start()
        try:
            await ground.start()
            await ground.cell("c1")
            token = (await ground.device(await ground.member(OWNERS[0]), "c1")).token
            for role in (Role.CORE, Role.ENTRY):
                for owner in OWNERS:
                    await ground.node(role, "c1", owner)
            await self._use(token)
            tap.stop()
            self._judge_tap(tap)
            await self._probe()
            report.control = await self._control()
        finally:
            self._web.stop()
            await ground.stop()
        report.held = (
            len(report.names) == report.fingerprints == 1
            and report.post_quantum_only
            and report.clear_names == report.names_shown == 0
            and report.cover_only
            and report.control
        )
        return report

    async def _use(self, token: str) -> None:
        view = await self._ground.subscription(token)
        await self._ground.client(xray_json(view, socks_port=SOCKS), "client")

        async def through() -> bool:
            await asyncio.to_thread(fetch, ("127.0.0.1", SOCKS), WEB, 100_000, 5.0)
            return True

        await self._ground.until("the way through", through)
        for _ in range(10):
            try:
                await asyncio.to_thread(fetch, ("127.0.0.1", SOCKS), WEB, 100_000, 5.0)
            except OperationFault:
                continue
        await self._clock.sleep_real(2.0)

    # --- The tap ---------------------------------------------------------------------------------
    def _judge_tap(self, tap: Capture) -> None:
        report = self.report
        hellos = _hellos(tap)
        report.hellos = len(hellos)
        report.names = tuple(sorted({hello.name for hello in hellos}))
        report.fingerprints = len({hello.fingerprint for hello in hellos})
        report.post_quantum_only = all(hello.groups == (X25519MLKEM768,) for hello in hellos)
        clear = b"".join(item.data for item in tap.segments if item.target[0].startswith(CORE_NET))
        report.clear_names = sum(word in clear for word in self._telling())

    def _telling(self) -> list[bytes]:
        """Words that would tell whose a node is, or which."""
        names = [*OWNERS, *self._ground.nodes]
        return [name.encode() for name in names]

    # --- The prober ------------------------------------------------------------------------------
    async def _probe(self) -> None:
        report = self.report
        odd: list[str] = []
        answers: dict[tuple[Role, str], set[tuple[str, str]]] = {}
        for node in self._ground.nodes.values():
            for kind, seen in await asyncio.to_thread(self._probes_of, node):
                report.probes += 1
                answers.setdefault((node.role, kind), set()).add((seen.outcome, seen.body))
                shown = seen.certificate + (seen.head + seen.body).encode()
                report.names_shown += sum(word in shown for word in self._telling())
                if not _is_cover(kind, seen):
                    odd.append(f"{node.name} {kind}: {seen.outcome}")
        odd += [f"{role} {kind} differs" for (role, kind), a in answers.items() if len(a) > 1]
        report.odd = tuple(odd)
        report.cover_only = not odd

    def _probes_of(self, node: GroundNode) -> list[tuple[str, Seen]]:
        host, _, port = node.address.rpartition(":")
        where = (host, int(port))
        right = f"c1.{DOMAIN}" if node.role is Role.ENTRY else f"c1-core.{DOMAIN}"
        guess = "/api.v2.rpc.0123456789abcdef/Tun"
        return [
            ("right name", probe(where, right)),
            ("wrong name", probe(where, "www.example.com")),
            ("no name", probe(where, "")),
            ("guessed path", probe(where, right, path=guess)),
            ("health path", probe(where, right, path="/.well-known/health")),
            ("tls 1.2", probe(where, right, tls12=True)),
            ("strange certificate", probe(where, right, credentials=self._stranger())),
            ("random bytes", babble(where, self._entropy.bytes(512))),
            ("plain http", babble(where, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")),
        ]

    def _stranger(self) -> tuple[Path, Path]:
        """An entry of cell c1 of some other network."""
        chain, key_file = self._home / "strange-chain.pem", self._home / "strange-key.pem"
        if not chain.exists():
            network, now = bytes(16), self._clock.wall()
            root = create_root(b"s" * 32, network, DOMAIN, now)
            hq = SigningKey(b"h" * 32)
            ca = issue_intermediate(root, TlsKey.from_bytes(b"i" * 32), network, hq.public, now)
            key = TlsKey.from_bytes(b"k" * 32)
            leaf = issue_leaf(
                ca,
                spki=key.spki(),
                network=network,
                role=Role.ENTRY.value,
                node=b"n" * 32,
                dns_name=f"c1.{DOMAIN}",
                serial=7,
                now=now,
                days=2,
                cell="c1",
            )
            chain.write_bytes(to_pem([leaf, ca.certificate]))
            key_file.write_bytes(key.pem())
        return chain, key_file

    # --- The control -----------------------------------------------------------------------------
    async def _control(self) -> bool:
        """One connection to a core under a name of its own: the tap tells it from the others."""
        tap = Capture()
        tap.start()
        core = next(n for n in self._ground.nodes.values() if n.role is Role.CORE)
        host = core.address.partition(":")[0]
        await asyncio.to_thread(probe, (host, PORT), f"{core.name}.{DOMAIN}")
        await self._clock.sleep_real(0.5)
        tap.stop()
        return any(hello.name not in self.report.names for hello in _hellos(tap))


def _hellos(tap: Capture) -> list[Hello]:
    """The ClientHellos to cores."""
    found = [
        read_hello(item.data)
        for item in tap.segments
        if item.target[0].startswith(CORE_NET) and item.target[1] == PORT
    ]
    return [hello for hello in found if hello is not None]


def _is_cover(kind: str, seen: Seen) -> bool:
    """Whether a probe saw the web server and nothing else."""
    if kind in ("random bytes", "plain http"):
        return seen.outcome.startswith("closed") or seen.body in ("", *_ALERTS)
    if kind in ("guessed path", "health path"):
        return seen.outcome.startswith("HTTP/1.1 404") and "nginx" in seen.head
    return seen.outcome.startswith("HTTP/1.1 200") and seen.body.startswith(WELCOME[:200])


_ALERTS: Final = ("15030100020232", "15030100020246", "1503010002020a", "1503030002020a")
"""What any TLS server says to what is no TLS: a fatal alert."""
