"""Many nodes race for each join token, at two HQ processes on one store (D8, D26).

Judged from outside: what each racer received, and, once both processes have been killed, the
certificate rows and the transparency log as they lie in the store's file. A token is bound to one
logical name, so two certificates for one name are two for one token.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.crypto.certificates import (
    Authority,
    cert_info,
    create_root,
    make_csr,
    sign_intermediate,
)
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.hq.admin import Status, TokenMade, TokenOrder
from holdfast.hq.config import HqConfig
from holdfast.hq.home import HqHome
from holdfast.hq.join import CERTIFICATES
from holdfast.hq.transparency import CERTIFICATE, LOG, Leaf
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import CertificateRow
from holdfast.rim.clock import Clock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.entropy import Dice, Entropy
from holdfast.rim.https import JsonClient
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.ports import free_port
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.wire.ceremony import check_request, parse_request
from holdfast.wire.envelope import sign
from holdfast.wire.hq import JoinReply, JoinRequest, NodeIdentity
from holdfast.wire.signed import Type
from holdfast.wire.token import JoinToken, parse_token

HOST: Final = "127.0.0.1"
DOMAIN: Final = "race.example"
START_S: Final = 60.0
JOIN_S: Final = 60.0
ENOUGH: Final = 1e9
"""Refusals allowed at HQ: here fifteen of sixteen requests are refused on purpose."""


class JoinRaceReport(msgspec.Struct):
    """What came of the races. `doubles` counts certificates beyond the first of any token."""

    tokens: int
    clients: int
    hq_processes: int
    certificates: int = 0
    """In the store, for nodes."""
    received: int = 0
    """Certificates that racers were given."""
    refused: int = 0
    """Racers who were told that the token is used."""
    unanswered: int = 0
    """Racers who got any other answer or none."""
    doubles: int = 0
    unknown: int = 0
    """Certificates given that are not in the store, or rows that are not in the log."""
    won_at: tuple[int, ...] = ()
    """Races won at each HQ process."""
    seconds: float = 0.0
    seed: int = 0

    @property
    def held(self) -> bool:
        """Exactly one certificate for each token, everybody else refused by name."""
        return (
            self.certificates == self.received == self.tokens
            and self.refused == self.tokens * (self.clients - 1)
            and not (self.doubles or self.unknown or self.unanswered)
        )


class Issued(msgspec.Struct, frozen=True):
    """One certificate: its serial and the logical name it is for."""

    serial: str
    name: str


class _Racer:
    """One client: for each race a new identity and key, all over the same connections."""

    def __init__(
        self, ways: Sequence[str], roots: Sequence[bytes], network: bytes, tools: _Tools
    ) -> None:
        self._clients = [JsonClient([way], roots, None, tools.clock) for way in ways]
        self._network = network
        self._entropy = tools.entropy

    def prepare(self, token: JoinToken) -> JoinRequest:
        """Everything but sending, so that the race is among requests and not among key makers."""
        identity = SigningKey(self._entropy.bytes(32))
        key = TlsKey.from_bytes(self._entropy.bytes(32))
        statement = NodeIdentity(self._network, key.spki())
        return JoinRequest(
            secret=token.secret,
            csr=make_csr(key),
            identity=identity.public,
            identity_signature=sign(identity, Type.NODE_IDENTITY, statement).signature,
            addresses=("127.77.0.1:7443",),
            provider="race",
        )

    async def run(self, at: int, request: JoinRequest) -> Issued | str:
        """What was received, or the code of the refusal."""
        try:
            reply = await self._clients[at].call("POST", "/v1/join", request, JoinReply, JOIN_S)
        except PeerFault as fault:
            return fault.code
        except HoldfastError as error:
            return str(error)
        info = cert_info(reply.chain[0])
        return Issued(info.serial, reply.name)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


class _Tools(msgspec.Struct, frozen=True):
    clock: Clock
    entropy: Entropy


class JoinRace:
    """The drill, in one empty directory."""

    def __init__(self, directory: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._directory = directory
        self._tools = _Tools(clock, entropy)
        self._dice = Dice(seed)
        self._seed = seed
        self._children: list[Child[Any]] = []

    async def run(self, tokens: int, clients: int, processes: int = 2) -> JoinRaceReport:
        """Race `clients` for each of `tokens`. Raises OperationFault when HQ does not come up."""
        report = JoinRaceReport(tokens, clients, processes, seed=self._seed)
        clock, network = self._tools.clock, self._tools.entropy.bytes(16)
        root = create_root(self._tools.entropy.bytes(32), network, DOMAIN, clock.wall())
        homes = [self._home(f"hq{number}", root, network) for number in range(processes)]
        try:
            for home in homes:
                await self._serve(home)
            ways = [home.config().listen for home in homes]
            racers = [
                _Racer(ways, (root.certificate,), network, self._tools) for _ in range(clients)
            ]
            began = clock.elapsed()
            outcomes = [await self._race(homes, racers) for _ in range(tokens)]
            report.seconds = round((clock.elapsed() - began) / clock.scale, 1)
            for racer in racers:
                await racer.close()
        finally:
            for child in self._children:
                child.kill()
                await child.wait()
        issued, logged = await read_certificates(self._directory / "control.db", clock)
        judge(report, outcomes, issued, logged)
        return report

    async def _race(
        self, homes: Sequence[HqHome], racers: Sequence[_Racer]
    ) -> list[tuple[int, Issued | str]]:
        """One token, everybody at once; (HQ process, outcome) of each."""
        token = await self._token(self._dice.choice(homes))
        entries = [
            (self._dice.randrange(len(homes)), racer, racer.prepare(token)) for racer in racers
        ]
        self._dice.shuffle(entries)
        outcomes = await asyncio.gather(*(racer.run(at, request) for at, racer, request in entries))
        return [(at, outcome) for (at, _, _), outcome in zip(entries, outcomes, strict=True)]

    async def _token(self, home: HqHome) -> JoinToken:
        order = TokenOrder(role=Role.RELAY, region="eu")
        made = await self._admin(home).call("POST", "/admin/v1/tokens", order, TokenMade)
        return parse_token(made.token)

    def _admin(self, home: HqHome) -> LoopbackClient:
        about = home.admin()
        return LoopbackClient(about.address, about.key, self._tools.clock)

    def _home(self, name: str, root: Authority, network: bytes) -> HqHome:
        """A headquarters with keys and a signed intermediate, on the store they share."""
        clock, entropy = self._tools.clock, self._tools.entropy
        api, dns = (free_port(HOST, entropy) for _ in range(2))
        config = HqConfig(
            domain=DOMAIN,
            listen=f"{HOST}:{api}",
            dns_listen=f"{HOST}:{dns}",
            store=str(self._directory / "control.db"),
            regions=("eu",),
            refusals_per_s=ENOUGH,
            refusals_burst=ENOUGH,
        )
        home = HqHome(self._directory / name)
        request = parse_request(home.init(config, [root.certificate], entropy))
        certificate = sign_intermediate(
            root,
            spki=check_request(request, network),
            network=network,
            identity_public=request.identity,
            now=clock.wall(),
        )
        home.install(certificate, clock.wall())
        return home

    async def _serve(self, home: HqHome) -> None:
        """Start one process and wait until its admin port answers."""
        command = holdfast_command("hq", "serve", f"--dir={home.directory}", "--no-page")
        log = self._directory / f"{home.directory.name}.log"
        child: Child[Any] = await spawn(command, log=log)
        self._children.append(child)
        clock = self._tools.clock
        try:
            async with clock.real_timeout(START_S):
                while child.status is None:
                    try:
                        await self._admin(home).call("GET", "/admin/v1/status", None, Status)
                        return
                    except HoldfastError:
                        await clock.sleep_real(0.1)
        except TimeoutError:
            pass
        raise OperationFault(f"headquarters did not come up; look into {log}", retryable=False)


async def read_certificates(store: Path, clock: Clock) -> tuple[list[Issued], list[Issued]]:
    """Certificates of nodes in a control store's file: its rows, and the leaves of its log."""
    control = await SqliteStore.open(store, clock)
    try:
        rows = (await control.range(CERTIFICATES)).items
        leaves = (await control.range(LOG)).items
    finally:
        await control.close()
    issued = [msgspec.msgpack.decode(kv.value, type=CertificateRow).der for kv in rows]
    logged = [msgspec.msgpack.decode(kv.value, type=Leaf) for kv in leaves]
    return _issued(issued), _issued(leaf.body for leaf in logged if leaf.kind == CERTIFICATE)


def _issued(certificates: Iterable[bytes]) -> list[Issued]:
    """Those of relays and replicas, headquarters' own left out."""
    found = []
    for der in certificates:
        info = cert_info(der)
        if info.name is not None and info.name.role in (Role.RELAY, Role.REPLICA):
            found.append(Issued(info.serial, info.dns.removesuffix(f".{DOMAIN}")))
    return found


def judge(
    report: JoinRaceReport,
    outcomes: Sequence[Sequence[tuple[int, Issued | str]]],
    issued: Sequence[Issued],
    logged: Sequence[Issued],
) -> None:
    """Count, into `report`, what the racers got against what the store says."""
    given = [
        (at, outcome) for race in outcomes for at, outcome in race if isinstance(outcome, Issued)
    ]
    answers = Counter(
        outcome for race in outcomes for _, outcome in race if isinstance(outcome, str)
    )
    report.certificates = len(issued)
    report.received = len(given)
    report.refused = answers["token-used"]
    report.unanswered = answers.total() - report.refused
    report.won_at = tuple(
        sum(at == number for at, _ in given) for number in range(report.hq_processes)
    )
    everything = {*issued, *logged, *(outcome for _, outcome in given)}
    names = Counter(item.name for item in everything)
    twice = sum(sum(isinstance(outcome, Issued) for _, outcome in race) > 1 for race in outcomes)
    report.doubles = max(sum(count - 1 for count in names.values()), twice)
    report.unknown = len(everything - set(issued)) + len(everything - set(logged))
