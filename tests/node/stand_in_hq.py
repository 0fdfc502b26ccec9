"""The other end of the agent's line: HQ's API over real TLS, with its answers in a test's hand.

Certificates and signatures are real. It decides nothing: a test says what it refuses and wants.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.rim.pki import DOMAIN, Pki

from holdfast.crypto.certificates import csr_spki, issue_leaf
from holdfast.crypto.pure import node_id, verify_ed25519
from holdfast.errors import HoldfastError, PeerFault
from holdfast.logic.fleet.model import Role, Version
from holdfast.logic.trust.checkpoint import Checkpoint, log_origin
from holdfast.logic.trust.merkle import Tree
from holdfast.logic.trust.note import Note, signature_line
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.https import EXCEPTION_HANDLERS, HttpsServer, peer
from holdfast.rim.tls import ServerTls
from holdfast.wire.codec import pack_json, unpack_json
from holdfast.wire.hq import (
    Accusation,
    Alert,
    CheckpointReply,
    Cosignature,
    Desired,
    Heartbeat,
    HeartbeatReply,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    LogFault,
    NodeIdentity,
    RenewRequest,
    RootReply,
)
from holdfast.wire.pool import Empty
from holdfast.wire.signed import Type, body_of, signing_input

NAME = "relay-eu-001"
POLL_S = 0.5


class TestClock(SystemClock):
    """Real elapsed time, a wall clock that a test moves."""

    __test__ = False

    def __init__(self, wall_s: float, scale: float = 1.0) -> None:
        super().__init__(scale)
        self.wall_s = wall_s

    def wall(self) -> float:
        return self.wall_s


class StandInHq:
    """What it was told lies in its lists; what it answers in its fields."""

    def __init__(self, pki: Pki, clock: Clock) -> None:
        self.pki = pki
        self.clock = clock
        self.joins: list[JoinRequest] = []
        self.renewals: list[RenewRequest] = []
        self.heartbeats: list[Heartbeat] = []
        self.alerts: list[Alert] = []
        self.accusations: list[Accusation] = []
        self.leaves: list[LeaveRequest] = []
        self.archives: dict[str, bytes] = {}
        self.fetch_faults: list[HoldfastError] = []
        """What the next fetches of a release end in."""
        self.polls = 0
        self.log: Tree | None = None
        self.log_key = pki.hq
        self.cosignatures: list[Cosignature] = []
        self.log_faults: list[LogFault] = []
        self.refusal: HoldfastError | None = None
        self.drop_replies = 0
        self.heartbeat_s = 0.1
        self.roots = pki.roots
        self.issued: list[bytes] = []
        self._serial = 1000
        self._desired: Desired | None = None
        self._changed = asyncio.Event()
        routes = [
            Route("/v1/root", self._root),
            Route("/v1/join", self._join, methods=["POST"]),
            Route("/v1/renew", self._renew, methods=["POST"]),
            Route("/v1/heartbeat", self._heartbeat, methods=["POST"]),
            Route("/v1/desired", self._poll),
            Route("/v1/releases/{id}", self._release),
            Route("/v1/alerts", self._alert, methods=["POST"]),
            Route("/v1/accusations", self._accuse, methods=["POST"]),
            Route("/v1/leave", self._leave, methods=["POST"]),
            Route("/v1/checkpoint", self._checkpoint),
            Route("/v1/cosignatures", self._cosign, methods=["POST"]),
            Route("/v1/log-faults", self._log_fault, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)

    def want(self, desired: Desired) -> None:
        """Answer polls with this from now on."""
        self._desired = desired
        self._changed.set()

    def _answer(self, message: object) -> Response:
        if self.refusal is not None:
            raise self.refusal
        if self.drop_replies:
            self.drop_replies -= 1
            raise asyncio.CancelledError
        return Response(pack_json(message))

    async def _root(self, _request: Request) -> Response:
        return Response(pack_json(RootReply(self.pki.network, DOMAIN, self.roots)))

    async def _join(self, request: Request) -> Response:
        message = unpack_json(JoinRequest, await request.body(), bytes_max=65_536)
        self.joins.append(message)
        body = body_of(Type.NODE_IDENTITY, NodeIdentity(self.pki.network, csr_spki(message.csr)))
        if not verify_ed25519(message.identity, message.identity_signature, signing_input(body)):
            raise PeerFault("the identity did not sign this key", code="signature")
        return self._answer(self._certify(message.csr, node_id(message.identity)))

    def _certify(self, csr: bytes, node: bytes) -> JoinReply:
        self._serial += 1
        leaf = issue_leaf(
            self.pki.intermediate,
            spki=csr_spki(csr),
            network=self.pki.network,
            role=Role.RELAY,
            node=node,
            dns_name=f"{NAME}.{DOMAIN}",
            serial=self._serial,
            now=self.clock.wall(),
            days=90,
        )
        self.issued.append(leaf)
        return JoinReply(
            chain=(leaf, self.pki.intermediate.certificate),
            node=node,
            name=NAME,
            role=Role.RELAY,
            region="eu",
            provider="alder",
            owner="ann",
            roots=self.roots,
            heartbeat_s=self.heartbeat_s,
        )

    async def _renew(self, request: Request) -> Response:
        name = peer(request.scope)
        assert name is not None, "renewing shows the old certificate"
        message = unpack_json(RenewRequest, await request.body(), bytes_max=65_536)
        self.renewals.append(message)
        return self._answer(self._certify(message.csr, name.node))

    async def _heartbeat(self, request: Request) -> Response:
        assert peer(request.scope) is not None
        self.heartbeats.append(unpack_json(Heartbeat, await request.body(), bytes_max=65_536))
        return self._answer(HeartbeatReply(desired=0, revocations=Version(0, 0), term=1))

    async def _poll(self, request: Request) -> Response:
        assert peer(request.scope) is not None
        self.polls += 1
        after = int(request.query_params["after"])
        if self._desired is None or self._desired.version <= after:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with self.clock.real_timeout(POLL_S):
                    await self._changed.wait()
        if self._desired is None:
            raise PeerFault("nothing wanted yet", code="not-found")
        return self._answer(self._desired)

    async def _release(self, request: Request) -> Response:
        assert peer(request.scope) is not None
        if self.fetch_faults:
            raise self.fetch_faults.pop()
        archive = self.archives.get(request.path_params["id"])
        if archive is None:
            raise PeerFault("no such release", code="not-found")
        return Response(archive)

    async def _alert(self, request: Request) -> Response:
        message = unpack_json(Alert, await request.body(), bytes_max=65_536)
        reply = self._answer(Empty())
        self.alerts.append(message)
        return reply

    async def _accuse(self, request: Request) -> Response:
        message = unpack_json(Accusation, await request.body(), bytes_max=65_536)
        reply = self._answer(Empty())
        self.accusations.append(message)
        return reply

    async def _leave(self, request: Request) -> Response:
        assert peer(request.scope) is not None
        self.leaves.append(unpack_json(LeaveRequest, await request.body(), bytes_max=65_536))
        return self._answer(Empty())

    # --- the log -----------------------------------------------------------------------------
    async def _checkpoint(self, request: Request) -> Response:
        """The newest checkpoint of `log`, with whatever proof there is."""
        if self.log is None:
            raise PeerFault("no log here", code="not-found")
        after, size = int(request.query_params["after"]), len(self.log)
        if after == size:
            await asyncio.sleep(0.05)
        origin, key = log_origin(DOMAIN, self.pki.network), self.log_key
        text = Checkpoint(origin, size, self.log.root()).text()
        line = signature_line(origin, key.public, key.sign(text.encode()))
        proof = self.log.consistency(after) if after <= size else ()
        intermediate = self.pki.intermediate.certificate
        note = Note(text, (line,)).render()
        return self._answer(CheckpointReply(note, key.public, intermediate, after, proof))

    async def _cosign(self, request: Request) -> Response:
        message = unpack_json(Cosignature, await request.body(), bytes_max=65_536)
        self.cosignatures.append(message)
        return self._answer(Empty())

    async def _log_fault(self, request: Request) -> Response:
        message = unpack_json(LogFault, await request.body(), bytes_max=65_536)
        self.log_faults.append(message)
        return self._answer(Empty())


class Serving:
    """A stand-in at an address; `away` and `back` take it off the network."""

    def __init__(self, hq: StandInHq, clock: Clock) -> None:
        self.hq = hq
        self._clock = clock
        self._server: HttpsServer | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def back(self) -> None:
        tls = ServerTls(self.hq.pki.roots, self.hq.pki.server(), self._clock, None)
        self._server = await HttpsServer().start(self.hq.app, "127.0.0.1", self.port, tls)
        self.port = self._server.port

    async def away(self) -> None:
        if self._server is not None:
            await self._server.stop(grace_s=0.0)
        self._server = None


@contextlib.asynccontextmanager
async def stand_in(clock: Clock, pki: Pki | None = None) -> AsyncIterator[Serving]:
    """A stand-in HQ of a fresh network, serving."""
    serving = Serving(StandInHq(pki or Pki(), clock), clock)
    await serving.back()
    try:
        yield serving
    finally:
        await serving.away()
        await asyncio.sleep(0)


def replace_desired(desired: Desired, **changes: object) -> Desired:
    """`desired` at its next version."""
    return msgspec.structs.replace(desired, version=desired.version + 1, **changes)
