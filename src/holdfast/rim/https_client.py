"""The JSON client of HQ's API: HTTP/1.1 over our TLS, one connection per call in flight.

Connections are kept and used again. Addresses are tried in turn, the one that last answered first:
the next one is asked when an address cannot be reached, is not who it should be, says 503 or, for a
call that may be repeated, breaks off midway. A long poll is an ordinary call with a long
`timeout_s`; it holds one connection and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, TypeVar

import h11

from holdfast.crypto.certificates import fingerprint
from holdfast.crypto.rootset import only_roots
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits import (
    API_REPLY_BYTES_MAX,
    CLIENT_CONNECTIONS_MAX,
    HTTP_HEADER_BYTES_MAX,
    HTTP_IDLE_S,
)
from holdfast.logic.fleet.model import Role
from holdfast.logic.trust.revocation import RevocationList
from holdfast.rim.clock import Clock
from holdfast.rim.tls import ClientTls, Credentials, Expected, UnverifiedTls, connect
from holdfast.rim.tls_transport import Secured
from holdfast.rim.tls_verdict import Peer
from holdfast.wire.codec import Message, pack_json, unpack_json
from holdfast.wire.hq import Problem, RootReply

T = TypeVar("T")
Identity = Credentials | tuple[Path, Path] | None
"""Who the client is: loaded, as files (chain, key) in PEM, or nobody."""
AN_HQ: Final = Expected(roles=(Role.HQ.value,))
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_READ_BYTES: Final = 65_536
_UNAVAILABLE: Final = 503


class JsonClient:
    """Calls HQ, which must prove to be one of this network: a verified chain and the role."""

    def __init__(
        self,
        addresses: Sequence[str],
        roots: Sequence[bytes],
        credentials: Identity,
        clock: Clock,
        *,
        expected: Expected = AN_HQ,
        revocations: RevocationList | None = None,
    ) -> None:
        own = (
            Credentials.from_files(*credentials) if isinstance(credentials, tuple) else credentials
        )
        self._setup(addresses, ClientTls(roots, own, clock, revocations), expected)

    @classmethod
    def unverified(cls, addresses: Sequence[str], clock: Clock) -> JsonClient:
        """A client that believes any server. `fetch_pinned_roots` is its only right use."""
        client = cls.__new__(cls)
        client._setup(addresses, UnverifiedTls(clock), Expected())
        return client

    def _setup(self, addresses: Sequence[str], tls: ClientTls, expected: Expected) -> None:
        assert addresses, "a client needs an address"
        self._tls = tls
        self._expected = expected
        self._addresses = list(addresses)
        self._idle: dict[str, list[_Connection]] = {}
        self._slots = asyncio.Semaphore(CLIENT_CONNECTIONS_MAX)

    @property
    def addresses(self) -> tuple[str, ...]:
        """`host:port`, the one that last answered first."""
        return tuple(self._addresses)

    def redirect(self, addresses: Sequence[str]) -> None:
        """Call these from now on; what is in flight ends where it went."""
        assert addresses, "a client needs an address"
        self._addresses = list(addresses)

    async def call(
        self,
        method: str,
        path: str,
        body: Message | None,
        reply: type[T],
        timeout_s: float = 10.0,
        *,
        repeatable: bool | None = None,
    ) -> T:
        """One request: JSON of `body` there, `reply` back. `timeout_s` is real, per address.

        `repeatable` says that doing it twice does no harm (by default GET, PUT, DELETE): then a
        call that breaks off is tried at the next address. Raises UsageError, PeerFault (with the
        `code` that HQ gave, or `certificate` and `refused` for TLS) or OperationFault.
        """
        payload = b"" if body is None else pack_json(body)
        again = method in _REPEATABLE if repeatable is None else repeatable
        async with self._slots:
            status, data = await self._anywhere(_Request(method, path, payload), timeout_s, again)
        if 200 <= status < 300:
            return unpack_json(reply, data, bytes_max=API_REPLY_BYTES_MAX)
        raise error_of(status, data)

    async def fetch(self, path: str, timeout_s: float = 10.0) -> bytes:
        """GET of a page that is no JSON, such as a tile of the log. Raises as `call` does."""
        async with self._slots:
            status, data = await self._anywhere(_Request("GET", path, b""), timeout_s, True)
        if 200 <= status < 300:
            return data
        raise error_of(status, data)

    async def exchange(
        self,
        method: str,
        path: str,
        payload: bytes,
        *,
        timeout_s: float = 10.0,
        repeatable: bool = True,
        bytes_max: int = API_REPLY_BYTES_MAX,
    ) -> tuple[int, bytes]:
        """Bytes there and bytes back, whatever the status. Raises OperationFault and PeerFault."""
        request = _Request(method, path, payload, bytes_max)
        async with self._slots:
            return await self._anywhere(request, timeout_s, repeatable)

    def reload(
        self,
        credentials: Identity,
        roots: Sequence[bytes] | None = None,
    ) -> None:
        """Use a renewed certificate (and roots) from the next connection on; idle ones end."""
        own = (
            Credentials.from_files(*credentials) if isinstance(credentials, tuple) else credentials
        )
        self._tls.reload(own, roots)
        self._drop(lambda _: True)

    def cut(self, predicate: Callable[[Peer], bool]) -> None:
        """Drop idle connections to servers that match, as when HQ's certificate is revoked."""
        self._drop(lambda item: item.layer.peer is not None and predicate(item.layer.peer))

    def _drop(self, matches: Callable[[_Connection], bool]) -> None:
        for address, connections in self._idle.items():
            for item in connections:
                if matches(item):
                    item.abort()
            self._idle[address] = [item for item in connections if not matches(item)]

    async def close(self) -> None:
        """End idle connections. Calls in flight finish on their own."""
        self._drop(lambda _: True)

    # --- One call --------------------------------------------------------------------------------
    async def _anywhere(
        self, request: _Request, timeout_s: float, repeatable: bool
    ) -> tuple[int, bytes]:
        last: HoldfastError | None = None
        answer: tuple[int, bytes] | None = None
        for address in list(self._addresses):
            progress = _Progress()
            try:
                answer = await self._once(address, request, timeout_s, progress)
            except (OperationFault, PeerFault) as fault:
                last, answer = fault, None
                if progress.sent and not repeatable:
                    raise
                continue
            if answer[0] != _UNAVAILABLE:
                if address in self._addresses:  # not redirected meanwhile
                    self._addresses.remove(address)
                    self._addresses.insert(0, address)
                return answer
        if answer is not None:
            return answer
        assert last is not None
        raise last

    async def _once(
        self, address: str, request: _Request, timeout_s: float, progress: _Progress
    ) -> tuple[int, bytes]:
        connection: _Connection | None = None
        try:
            async with self._tls.clock.real_timeout(timeout_s):
                connection = self._take_idle(address) or await self._open(address, timeout_s)
                progress.sent = True
                answer = await connection.exchange(request)
        except TimeoutError as error:
            text = f"no answer from {address} within {timeout_s:g} s"
            raise OperationFault(text) from error
        finally:
            if connection is not None:
                self._give_back(address, connection)
        return answer

    async def _open(self, address: str, timeout_s: float) -> _Connection:
        layer = await connect(
            _Stream, address, self._tls, expected=self._expected, timeout_s=timeout_s
        )
        return _Connection(layer, address)

    def _take_idle(self, address: str) -> _Connection | None:
        connections = self._idle.get(address, [])
        while connections:
            connection = connections.pop()
            if connection.usable(self._tls.clock):
                return connection
            connection.abort()
        return None

    def _give_back(self, address: str, connection: _Connection) -> None:
        if connection.finished:
            connection.idle_since = self._tls.clock.elapsed()
            self._idle.setdefault(address, []).append(connection)
        else:
            connection.abort()


class _Request:
    """Method, path and JSON body of a call, and how much may come back."""

    def __init__(
        self, method: str, path: str, body: bytes, bytes_max: int = API_REPLY_BYTES_MAX
    ) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.bytes_max = bytes_max


class _Progress:
    """Whether the server may have seen the request."""

    sent = False


class _Stream(asyncio.Protocol):
    """Received bytes as a queue that a coroutine reads."""

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._changed = asyncio.Event()
        self.ended = False
        self.fault: Exception | None = None

    def data_received(self, data: bytes) -> None:
        self._pieces += data
        self._changed.set()

    def eof_received(self) -> bool:
        self.ended = True
        self._changed.set()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.fault = error
        self._changed.set()

    async def read(self) -> bytes:
        """What has come, at least a byte; empty at a clean end. Raises HoldfastError."""
        while not self._pieces:
            if self.fault is not None:
                raise self.fault
            if self.ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._pieces)
        self._pieces.clear()
        return data


class _Connection:
    """One HTTP/1.1 connection: a request and its answer, then free for the next."""

    def __init__(self, layer: Secured, address: str) -> None:
        assert isinstance(layer.inner, _Stream)
        self.layer = layer
        self.idle_since = 0.0
        self.finished = False
        self._host = address
        self._stream = layer.inner
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HTTP_HEADER_BYTES_MAX)

    def usable(self, clock: Clock) -> bool:
        """Whether an idle connection is young and has not been ended by the server."""
        idle_s = (clock.elapsed() - self.idle_since) / clock.scale
        return idle_s < HTTP_IDLE_S and not self._stream.ended and not self.layer.is_closing()

    def abort(self) -> None:
        """End it, whatever is in flight."""
        self.layer.abort()

    async def exchange(self, request: _Request) -> tuple[int, bytes]:
        """Status and body. Raises PeerFault for what is no HTTP, OperationFault for a cut."""
        self.finished = False
        self._send(request)
        try:
            status, body = await self._answer(request.bytes_max)
        except h11.RemoteProtocolError as error:
            raise PeerFault(f"{self._host} does not speak HTTP: {error}") from error
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self.finished = True
        return status, body

    def _send(self, request: _Request) -> None:
        headers = [("host", self._host), ("accept", "application/json")]
        if request.body:
            headers.append(("content-type", "application/json"))
        if request.body or request.method not in ("GET", "HEAD"):
            headers.append(("content-length", str(len(request.body))))
        head = h11.Request(method=request.method, target=request.path, headers=headers)
        pieces = [self._http.send(head)]
        if request.body:
            pieces.append(self._http.send(h11.Data(data=request.body)))
        pieces.append(self._http.send(h11.EndOfMessage()))
        self.layer.write(b"".join(piece for piece in pieces if piece))

    async def _answer(self, bytes_max: int) -> tuple[int, bytes]:
        status, body = 0, bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._stream.read()
                if not data and not status:
                    raise OperationFault(f"{self._host} closed the connection without an answer")
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > bytes_max:
                    raise PeerFault(f"answer over {bytes_max} bytes", code="too-large")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)


async def fetch_unverified_root(
    addresses: Sequence[str], clock: Clock, timeout_s: float = 10.0
) -> RootReply:
    """What somebody at these addresses says the roots are. Prove it before use (D8)."""
    client = JsonClient.unverified(addresses, clock)
    try:
        return await client.call("GET", "/v1/root", None, RootReply, timeout_s)
    finally:
        await client.close()


async def fetch_pinned_roots(
    addresses: Sequence[str],
    fingerprints: Collection[bytes],
    clock: Clock,
    timeout_s: float = 10.0,
) -> tuple[bytes, ...]:
    """Root certificates that the token's `fingerprints` (SHA-256) confirm, fetched unverified.

    What they do not confirm is dropped: a second root comes to a node by its verified connection.
    Each address is asked until one has a pinned root. Raises PeerFault when none has.
    """
    last: HoldfastError | None = None
    for address in addresses:
        try:
            reply = await fetch_unverified_root([address], clock, timeout_s)
        except (OperationFault, PeerFault) as fault:
            last = fault
            continue
        pinned = tuple(root for root in reply.roots if fingerprint(root) in fingerprints)
        confirmed = only_roots(pinned)
        if confirmed:
            return confirmed
        last = PeerFault(
            f"{address} serves another network: no root has the token's fingerprint",
            code="certificate",
        )
    assert last is not None, "a token names an address"
    raise last


def _own(identity: Identity) -> Credentials | None:
    return Credentials.from_files(*identity) if isinstance(identity, tuple) else identity


def error_of(status: int, data: bytes) -> HoldfastError:
    """The error family of an answer that is no success."""
    try:
        problem = unpack_json(Problem, data, bytes_max=_READ_BYTES)
    except PeerFault:
        problem = Problem("malformed", f"answer with status {status} and no reason")
    if status >= 500 or status == 429:
        return OperationFault(problem.message, retryable=status != 500)
    if status == 422:
        return UsageError(problem.message)
    return PeerFault(problem.message, code=problem.error)
