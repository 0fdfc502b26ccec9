"""TLS between devices, and a listener that exists only while a window is open (D24, ADR 0039).

`Door.open` binds a port and `Door.shut` closes it; connections made meanwhile live on. A stranger
who does not begin with a right knock is cut off without a byte. Behind the knock is TLS 1.3 with
the device's own key; who is admitted is asked at every handshake.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from OpenSSL import SSL, crypto

from holdfast.crypto.certinfo import NodeName, read
from holdfast.crypto.devicecert import device_certificate, device_of, device_private
from holdfast.crypto.keys import SigningKey
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits.peers import LINK_CALL_S, LINK_FRAME_BYTES_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.stream import Stream
from holdfast.rim.tls import bare_context
from holdfast.rim.tls_transport import Secured
from holdfast.rim.tls_verdict import Judge, Peer, on_certificate

KNOCK_BYTES: Final = 48
KNOCK_WAIT_S: Final = 5.0
"""Real seconds for the first 48 bytes."""
DIAL_S: Final = 5.0
"""Real seconds for TCP; a knock is repeated anyway."""
STRANGERS_MAX: Final = 64
"""Connections that have not knocked yet; one more is closed at once."""
_SELF_SIGNED: Final = 18
"""X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: what a device's certificate is."""


def _on_device(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    tolerated = 0 if error == _SELF_SIGNED and depth == 0 else error
    return on_certificate(connection, certificate, tolerated, depth, ok)


class DeviceTls(Judge):
    """Our side. `known`: whether a device key is a peer's."""

    def __init__(self, key: SigningKey, clock: Clock, known: Callable[[bytes], bool]) -> None:
        self.clock = clock
        self._known = known
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        self.context = bare_context(mode, _on_device)
        self.context.use_certificate(read(device_certificate(key)))
        self.context.use_privatekey(device_private(key))

    def judge(self, chain: tuple[bytes, ...]) -> Peer:
        """One certificate, its own issuer, of a device we know."""
        device = device_of(chain[0])
        if not self._known(device):
            raise PeerFault("a device that nobody here has met", code="certificate")
        return Peer(NodeName(b"", "device", device), "", chain[:1], ())

    def admit(self, peer: Peer | None) -> None:
        """Raises PeerFault for nobody, and for a peer forgotten during the handshake."""
        if peer is None or not self._known(peer.name.node):
            raise PeerFault("no device that is known here", code="certificate")


class _Only(Judge):
    """A dialler's: that device and no other."""

    def __init__(self, side: DeviceTls, device: bytes) -> None:
        self._side = side
        self._device = device

    def judge(self, chain: tuple[bytes, ...]) -> Peer:
        peer = self._side.judge(chain)
        if peer.name.node != self._device:
            raise PeerFault("another device answers there", code="certificate")
        return peer

    def admit(self, peer: Peer | None) -> None:
        self._side.admit(peer)


class _Gate(asyncio.Protocol):
    """The first 48 bytes of a connection; a right knock hands it over to TLS."""

    def __init__(self, door: Door, secured: Callable[[], Secured]) -> None:
        self._door = door
        self._secured = secured
        self._said = b""
        self._raw: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        if len(self._door.strangers) >= STRANGERS_MAX:
            self._raw.abort()
            return
        self._door.strangers.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(KNOCK_WAIT_S, self._raw.abort)

    def data_received(self, data: bytes) -> None:
        assert self._raw is not None
        self._said += data
        if len(self._said) < KNOCK_BYTES:
            return
        said, rest = self._said[:KNOCK_BYTES], self._said[KNOCK_BYTES:]
        self._leave()
        if not any(hmac.compare_digest(said, right) for right in self._door.right(said[:16])):
            self._raw.abort()
            return
        secured = self._secured()
        self._raw.set_protocol(secured)
        secured.connection_made(self._raw)
        if rest:
            secured.data_received(rest)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._door.strangers.discard(self)
        if self._timer is not None:
            self._timer.cancel()


OnLink = Callable[[Stream, bytes], Awaitable[None]]
"""A connection and the device at its other end; it is closed when this returns."""


class Door:
    """Ports that open and close. `right`: for a nonce, every knock that is right now."""

    def __init__(
        self, tls: DeviceTls, right: Callable[[bytes], Sequence[bytes]], on_link: OnLink
    ) -> None:
        self.right = right
        self.strangers: set[_Gate] = set()
        self._tls = tls
        self._on_link = on_link
        self._servers: dict[int, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ports(self) -> tuple[int, ...]:
        """What is open now."""
        return tuple(sorted(self._servers))

    async def open(self, port: int) -> None:
        """Listen on all addresses. Raises OperationFault when the port is taken."""
        if port in self._servers:
            return
        loop = asyncio.get_running_loop()
        try:
            self._servers[port] = await loop.create_server(self._gate, None, port)
        except OSError as error:
            raise OperationFault(f"port {port} is taken: {error.strerror}") from error

    def shut(self, port: int) -> None:
        """Listen no more; connections live on."""
        server = self._servers.pop(port, None)
        if server is not None:
            server.close()

    async def close(self) -> None:
        """Shut everything and end every connection."""
        for port in self.ports:
            self.shut(port)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _gate(self) -> asyncio.Protocol:
        return _Gate(self, lambda: Secured(self._tls.context, self._tls, self._inner, server=True))

    def _inner(self) -> asyncio.Protocol:
        reader = asyncio.StreamReader()

        def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return asyncio.StreamReaderProtocol(reader, arrived)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("holdfast.peer")
        assert isinstance(peer, Peer)
        try:
            await self._on_link(_stream(reader, writer, self._tls.clock), peer.name.node)
        finally:
            writer.close()


async def dial(host: str, port: int, said: bytes, tls: DeviceTls, device: bytes) -> Stream:
    """A connection to `device`, knocked and verified. Raises OperationFault, PeerFault."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Secured] = loop.create_future()
    reader = asyncio.StreamReader()
    inner = asyncio.StreamReaderProtocol(reader)

    class Knocking(Secured):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).write(said)
            super().connection_made(transport)

    def made() -> Secured:
        judge = _Only(tls, device)
        return Knocking(tls.context, judge, lambda: inner, server=False, opened=opened)

    layer: Secured | None = None
    try:
        async with tls.clock.real_timeout(DIAL_S):
            _, layer = await loop.create_connection(made, host, port)
        secured = await opened
    except (OSError, TimeoutError) as error:
        raise OperationFault(f"nobody at {host}:{port}") from error
    finally:
        if layer is not None and (not opened.done() or opened.cancelled()):
            layer.abort()
        elif opened.done() and not opened.cancelled():
            opened.exception()
    assert secured.transport is not None
    writer = asyncio.StreamWriter(secured.transport, inner, reader, loop)
    return _stream(reader, writer, tls.clock)


def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: Clock) -> Stream:
    return Stream(reader, writer, clock, frame_bytes_max=LINK_FRAME_BYTES_MAX, frame_s=LINK_CALL_S)
