"""A service with routes that misbehave on request, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from tests.rim.pki import DOMAIN, NETWORK, NOW, Pki

from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.trust.revocation import RevocationList
from holdfast.rim.clock import ManualClock
from holdfast.rim.https import (
    EXCEPTION_HANDLERS,
    HttpsServer,
    JsonClient,
    peer,
    peer_certificate,
)
from holdfast.rim.tls import Credentials, ServerTls
from holdfast.wire.codec import Message, pack_json
from holdfast.wire.hq import RootReply

PKI = Pki()
OTHER = Pki(b"o", network=b"o" * 16)


class Note(Message):
    text: str


class Seen(Message):
    name: str
    text: str = ""
    serial: str = ""


class Service:
    """Routes that misbehave on request."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.polling = asyncio.Event()
        self.answer_polls = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/who", self.who),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/raise/{kind}", self.fail, methods=["GET", "POST"]),
                Route("/poll", self.poll),
                Route("/stream", self.stream),
                Route("/text", self.text),
                Route("/v1/root", self.root),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )
        self.roots = PKI.roots

    async def who(self, request: Request) -> Response:
        self.calls.append("who")
        found = peer_certificate(request.scope)
        name = peer(request.scope)
        seen = Seen("nobody") if name is None else Seen(name.role)
        if found is not None:
            seen = msgspec.structs.replace(seen, serial=found.serial)
        return Response(pack_json(seen))

    async def echo(self, request: Request) -> Response:
        self.calls.append("echo")
        note = msgspec.json.decode(await request.body(), type=Note)
        return Response(pack_json(Seen("echo", note.text)))

    async def fail(self, request: Request) -> Response:
        self.calls.append("raise")
        kind = request.path_params["kind"]
        if kind == "usage":
            raise UsageError("ask for something else")
        if kind == "bug":
            raise AssertionError("a bug")
        if kind == "later":
            raise OperationFault("disk is full")
        if kind == "never":
            raise OperationFault("disk is gone", retryable=False)
        raise PeerFault("no, because of the rules", code=kind)

    async def poll(self, _request: Request) -> Response:
        self.polling.set()
        await self.answer_polls.wait()
        return Response(pack_json(Seen("polled")))

    async def stream(self, _request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b'{"name":', b'"stream"', b"}"):
                yield piece

        return StreamingResponse(pieces())

    async def text(self, _request: Request) -> Response:
        return Response("not JSON")

    async def root(self, _request: Request) -> Response:
        return Response(pack_json(RootReply(NETWORK, DOMAIN, self.roots)))


class Running:
    def __init__(self, service: Service, server: HttpsServer, clock: ManualClock) -> None:
        self.service = service
        self.server = server
        self.clock = clock
        self.clients: list[JsonClient] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def client(
        self, credentials: Credentials | None = None, addresses: list[str] | None = None
    ) -> JsonClient:
        addresses = addresses or [self.address]
        client = JsonClient(addresses, PKI.roots, credentials, self.clock)
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def running(
    credentials: Credentials | None = None,
    revocations: RevocationList | None = None,
    **options: int,
) -> AsyncIterator[Running]:
    clock = ManualClock(wall_s=NOW)
    tls = ServerTls(PKI.roots, credentials or PKI.server(), clock, revocations)
    service = Service()
    server = await HttpsServer(**options).start(service.app, "127.0.0.1", 0, tls)
    run = Running(service, server, clock)
    try:
        yield run
    finally:
        for client in run.clients:
            await client.close()
        await server.stop(grace_s=0.1)
        for _ in range(20):
            await asyncio.sleep(0)
