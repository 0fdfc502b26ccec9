"""Calling a relay or replica: HTTP/1.1 over TLS 1.3, a few kept connections, one frame each way.

Written on asyncio.Protocol because a push must cost little: about 25 us of CPU, where a general
HTTP client takes seventy times that. It speaks the dialect of our own server only: POST, a
Content-Length in both directions, no redirects, no cookies, no compression.

A connection carries one request at a time; calls beyond `connections_max` wait their turn. `watch`
holds a connection for a minute, so long polls are not counted. A kept connection that the server
has closed meanwhile (a rotated certificate, an idle limit) is noticed when the request gets no
byte of an answer; the call is then made once more on a new one. All verbs are idempotent.

Every connection is judged for itself: the chain must lead to a pinned root, through an HQ of the
same network, to a relay or replica with the node id and name that the caller expects.
"""

from __future__ import annotations

import _ssl
import asyncio
import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from holdfast.crypto.certificates import verify_chain
from holdfast.crypto.certinfo import NodeName, cert_info
from holdfast.crypto.pure import sha256
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits import (
    CONNECTIONS_PER_SERVER,
    POOL_CONNECT_S,
    POOL_REQUEST_S,
    REPLY_BYTES_MAX,
    RESPONSE_HEAD_BYTES_MAX,
)
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.wire.address import split_address
from holdfast.wire.codec import Message
from holdfast.wire.faults import from_reply
from holdfast.wire.frame import join, split
from holdfast.wire.pool import CONTENT_TYPE, ErrorReply

T = TypeVar("T")
_PATIENT = frozenset({"watch"})
_ROLES = (Role.RELAY, Role.REPLICA)


class _Stale(Exception):
    """A kept connection turned out to be closed before any byte of an answer came."""


class _Connection(asyncio.Protocol):
    """One TLS connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._chunks: list[bytes] = []
        self._received = 0
        self._expected = -1
        self._status = 0
        self._body_at = 0
        self._keep = True
        self.used = False
        self.closed = False

    # --- asyncio.Protocol ------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._received:
            self._fail(OperationFault("the server hung up in the middle of an answer"))
        elif self.used:
            self._fail(_Stale())
        else:
            self._fail(OperationFault("the server hung up without an answer"))

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # an answer nobody asked for
            return
        self._received += len(data)
        self._chunks.append(data)
        if self._expected < 0 and not self._read_head():
            return
        if self._received >= self._expected:
            self._finish()

    # --- One exchange ----------------------------------------------------------------------------
    def exchange(self, request: bytes, timeout_s: float) -> asyncio.Future[tuple[int, bytes]]:
        """Send a whole request; resolves to (status, response body). Raises _Stale."""
        assert self._waiter is None, "one request at a time"
        if self.closed:
            raise _Stale
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._received, self._expected = 0, -1
        self._timer = loop.call_later(timeout_s, self._expire)
        self._transport.write(request)
        return self._waiter

    def _read_head(self) -> bool:
        """Parse status line and headers once they are complete."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > RESPONSE_HEAD_BYTES_MAX:
                self._refuse("an answer without an end to its headers")
            self._chunks = [data]
            return False
        self._chunks = [data]
        try:
            self._expected = end + 4 + self._parse_head(data[:end].lower())
        except ValueError:
            self._refuse("not an HTTP/1.1 answer")
            return False
        self._body_at = end + 4
        return True

    def _parse_head(self, head: bytes) -> int:
        """The length of the body. Raises ValueError."""
        lines = head.split(b"\r\n")
        if not lines[0].startswith(b"http/1.1 "):
            raise ValueError(lines[0])
        self._status = int(lines[0][9:12])
        length = -1
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value.strip() == b"close":
                self._keep = False
        if not 0 <= length <= REPLY_BYTES_MAX:
            raise ValueError(length)
        return length

    def _finish(self) -> None:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        if self._received > self._expected:
            self._refuse("more bytes than the answer has")
            return
        self.used = True
        self._settle((self._status, data[self._body_at :]))
        if not self._keep:
            self.abort()

    def _settle(self, result: tuple[int, bytes]) -> None:
        waiter, self._waiter = self._waiter, None
        if self._timer is not None:
            self._timer.cancel()
        if waiter is not None and not waiter.done():
            waiter.set_result(result)

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if self._timer is not None:
            self._timer.cancel()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _expire(self) -> None:
        self._fail(OperationFault("no answer in time"))
        self.abort()

    def _refuse(self, reason: str) -> None:
        self._fail(PeerFault(reason, code="nonsense"))
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def chain(self) -> list[bytes]:
        """The certificates the server sent, DER, leaf first."""
        return _peer_chain(self._transport.get_extra_info("ssl_object"))


def _peer_chain(connection: Any) -> list[bytes]:
    """Public only since Python 3.13; before, the same call sits on the object inside."""
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    chain = connection._sslobj.get_unverified_chain()
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain]


def tls_context(roots: Sequence[bytes]) -> ssl.SSLContext:
    """TLS 1.3, trusting nothing but the pinned roots. Names are ours to check, not OpenSSL's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=b"".join(roots))
    return context


class PoolClient:
    """One server, as seen by one caller."""

    def __init__(
        self,
        address: str,
        *,
        roots: Sequence[bytes],
        node: bytes | None = None,
        server_name: str | None = None,
        clock: Clock,
        connections_max: int = CONNECTIONS_PER_SERVER,
    ) -> None:
        """`node` and `server_name` are what the certificate must say, None for whatever it says.
        Raises PeerFault for a bad address."""
        self.address = address
        self._host, self._port = split_address(address)
        self._roots = tuple(roots)
        self._node = node
        self._server_name = server_name
        self._clock = clock
        self._connections_max = connections_max
        self._context: ssl.SSLContext | None = None
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._peer: NodeName | None = None
        self.chain: tuple[bytes, ...] = ()
        self.leaf = b""
        """SHA-256 of the leaf (DER) that the newest connection showed."""

    @property
    def peer(self) -> NodeName:
        """Who the server is, as its certificate says; after the first connection."""
        assert self._peer is not None, "connect first"
        return self._peer

    async def connect(self) -> None:
        """Make sure that one connection stands. Raises OperationFault and PeerFault."""
        if not any(not connection.closed for connection in self._idle):
            self._idle.append(await self._open())

    async def call(
        self,
        verb: str,
        header: Message,
        reply: type[T],
        attachments: Iterable[bytes | memoryview] = (),
        timeout_s: float = POOL_REQUEST_S,
    ) -> tuple[T, memoryview]:
        """One request: the reply's header and its attachment bytes.

        Raises PeerFault with the server's code, Refusal when the server cannot now, and
        OperationFault (retryable) when the network fails or time runs out.
        """
        body = join(header, attachments)
        head = (
            f"POST /v1/{verb} HTTP/1.1\r\nhost: {self._server_name or self._host}\r\n"
            f"content-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        status, answer = await self._exchange(verb, head.encode() + body, timeout_s)
        if status == 200:
            try:
                return split(reply, answer, header_bytes_max=REPLY_BYTES_MAX)
            except PeerFault as fault:
                text = f"{self.address} answered what is no answer: {fault}"
                raise PeerFault(text, code="nonsense") from fault
        try:
            error, _ = split(ErrorReply, answer)
        except PeerFault:
            raise OperationFault(f"{self.address} answered with status {status}") from None
        raise from_reply(error)

    async def page(self, path: str, timeout_s: float = POOL_REQUEST_S) -> tuple[int, bytes]:
        """Status and body of a public page. Raises OperationFault and PeerFault."""
        head = f"GET {path} HTTP/1.1\r\nhost: {self._server_name or self._host}\r\n\r\n"
        return await self._exchange("page", head.encode(), timeout_s)

    async def close(self) -> None:
        """Close every connection; calls in flight fail."""
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()

    # --- Connections -----------------------------------------------------------------------------
    async def _exchange(self, verb: str, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        counted = verb not in _PATIENT
        if counted:
            await self._turn(timeout_s)
        try:
            while True:
                connection = self._kept() or await self._open()
                try:
                    answer = await connection.exchange(request, timeout_s)
                except _Stale:
                    continue  # the next kept one, at last a new one
                except asyncio.CancelledError:
                    connection.abort()
                    raise
                if not connection.closed:
                    self._idle.append(connection)
                return answer
        finally:
            if counted:
                self._pass_on()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def _turn(self, timeout_s: float) -> None:
        """Wait until fewer than `connections_max` calls are under way."""
        if self._busy < self._connections_max:
            self._busy += 1
            return
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(ticket)
        try:
            async with self._clock.real_timeout(timeout_s):
                await ticket
        except BaseException as error:
            if ticket.done() and not ticket.cancelled():
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise OperationFault(f"{self.address}: no connection became free") from error
            raise

    def _pass_on(self) -> None:
        while self._queue:
            ticket = self._queue.popleft()
            if not ticket.done():
                ticket.set_result(None)
                return
        self._busy -= 1

    async def _open(self) -> _Connection:
        """A new connection to the right server. Raises OperationFault and PeerFault."""
        try:
            try:
                connection = await self._dial()
            except ConnectionResetError:
                # Waiting to be accepted by a server that was just told to finish (a rotation).
                connection = await self._dial()
        except ssl.SSLCertVerificationError as error:
            text = f"{self.address} shows a certificate of no network we know"
            raise PeerFault(f"{text}: {error.verify_message}", code="certificate") from error
        except (OSError, TimeoutError) as error:
            raise OperationFault(f"cannot reach {self.address}: {error or 'time out'}") from error
        try:
            self._judge(connection.chain())
        except PeerFault:
            connection.abort()
            raise
        self._all = {known for known in self._all if not known.closed}
        self._all.add(connection)
        return connection

    async def _dial(self) -> _Connection:
        if self._context is None:
            self._context = tls_context(self._roots)
        async with self._clock.real_timeout(POOL_CONNECT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection,
                self._host,
                self._port,
                ssl=self._context,
                server_hostname=self._server_name or self._host,
            )
        return connection

    def _judge(self, chain: Sequence[bytes]) -> None:
        """Whether this server is the one we mean. Raises PeerFault with code `certificate`."""
        peer = verify_chain(self._roots, chain, self._clock.wall())
        if peer.role not in _ROLES:
            raise PeerFault(f"{self.address} is a {peer.role}", code="certificate")
        if self._node is not None and peer.node != self._node:
            raise PeerFault(f"{self.address} is another node than expected", code="certificate")
        dns = cert_info(chain[0]).dns
        if self._server_name is not None and dns != self._server_name:
            raise PeerFault(f"{self.address} is {dns}, not {self._server_name}", code="certificate")
        self._peer = peer
        self.chain = tuple(chain)
        self.leaf = sha256(chain[0])
