"""An echo service behind TLS and clients that note how it ends, for the tests of handshakes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

from tests.rim.pki import NETWORK, NOW, Pki

from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.rim.clock import ManualClock
from holdfast.rim.tls import (
    ClientTls,
    Credentials,
    Expected,
    Listener,
    ServerTls,
    connect,
    listen,
)
from holdfast.rim.tls_transport import Secured

DAY_S = 86_400
PKI = Pki()
AN_HQ = Expected(roles=("hq",))


class Echo(asyncio.Protocol):
    """Says who it thinks the client is, then echoes; notes how it ended."""

    seen: ClassVar[list[Echo]] = []

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: list[str] = []
        self.fault: Exception | None = None
        self.keep_half_open = False
        Echo.seen.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        peer = transport.get_extra_info("holdfast.peer")
        name = "nobody" if peer is None else f"{peer.name.role} {peer.name.node.hex()[:4]}"
        transport.write(name.encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def eof_received(self) -> bool:
        self.ended.append("eof")
        return self.keep_half_open

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.append("lost")
        self.fault = error


class Client(asyncio.Protocol):
    """Collects what comes and how it ends."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.changed = asyncio.Event()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def eof_received(self) -> bool:
        self.eof = True
        self.changed.set()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        self.changed.set()

    async def until(self, size: int) -> bytes:
        return await self._until(lambda: len(self.received) >= size)

    async def until_says(self, text: bytes) -> None:
        await self._until(lambda: self.received.endswith(text))
        assert self.received.endswith(text)

    async def _until(self, enough: Callable[[], bool]) -> bytes:
        async with asyncio.timeout(10):
            while not enough() and not self.lost.done():
                self.changed.clear()
                await self.changed.wait()
        return bytes(self.received)


@contextlib.asynccontextmanager
async def serving(
    credentials: Credentials | None = None,
    *,
    roots: tuple[bytes, ...] = PKI.roots,
    **options: object,
) -> AsyncIterator[tuple[Listener, ServerTls, ManualClock]]:
    clock = ManualClock(wall_s=NOW)
    revocations = options.pop("revocations", None)
    assert revocations is None or isinstance(revocations, RevocationList)
    side = ServerTls(roots, credentials or PKI.server(), clock, revocations)
    listener = await listen(Echo, "127.0.0.1", 0, side, **options)  # type: ignore[arg-type]
    Echo.seen.clear()
    try:
        yield listener, side, clock
    finally:
        listener.abort()
        await settle()


async def drained(listener: Listener, count: int = 0) -> None:
    """Until no more than `count` connections are open."""
    async with asyncio.timeout(10):
        while len(listener) > count:  # noqa: ASYNC110 - the listener has no event for this
            await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def dial(
    listener: Listener,
    credentials: Credentials | None = None,
    *,
    roots: tuple[bytes, ...] = PKI.roots,
    expected: Expected = AN_HQ,
    now: float = NOW,
    revocations: RevocationList | None = None,
) -> Secured:
    side = ClientTls(roots, credentials, ManualClock(wall_s=now), revocations)
    return await connect(Client, f"127.0.0.1:{listener.port}", side, expected=expected)


def client_of(layer: Secured) -> Client:
    assert isinstance(layer.inner, Client)
    return layer.inner


async def greeting(layer: Secured) -> str:
    return (await client_of(layer).until(1)).decode().strip()


async def ending(layer: Secured) -> Exception | None:
    async with asyncio.timeout(10):
        return await client_of(layer).lost


def revoking(*entries: Revoked) -> RevocationList:
    revocations = RevocationList(NETWORK)
    revocations.fold(Revocations(NETWORK, Version(0, 1), 1, entries))
    return revocations


async def refused_by_server(listener: Listener, credentials: Credentials) -> None:
    """The client's handshake may end first; the service never hears of the connection."""
    fault: Exception | None
    try:
        layer = await dial(listener, credentials)
    except PeerFault as early:
        fault = early
    else:
        fault = await ending(layer)
        assert not client_of(layer).received
    assert isinstance(fault, PeerFault)
    assert fault.code == "refused"
    await settle()
    assert Echo.seen == []
    assert listener.peers() == []
