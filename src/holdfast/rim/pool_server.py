"""The door of a relay or replica: Granian in this process's own event loop, TLS 1.3, HTTP/1.1.

`POST /v1/<verb>` goes to the handler as bytes and comes back as bytes; `GET` goes to the handler's
public pages. Sizes are checked against Content-Length before a body is read, the sum of bodies in
flight is bounded, and a body that does not arrive in time is given up.

Granian sets no time for a TLS handshake: `rim.stalled` ends connections that hang on and say
nothing.

Certificates rotate by a second server on the same port (SO_REUSEPORT): it is asked for its new
leaf over a real connection, and only then is the old one told to finish. What is in flight there
is answered; kept connections are closed between two requests, and clients open new ones. While
both serve, `leaves` holds both leaves, since a session may be opened over either.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Final, Protocol

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from holdfast.crypto.certinfo import from_pem
from holdfast.crypto.pure import sha256
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits import (
    BODIES_IN_FLIGHT_BYTES_MAX,
    BODY_READ_S,
    DRAIN_S,
    HEAD_READ_S,
    LISTEN_BACKLOG,
    POOL_CONNECTIONS_MAX,
    QUIET_S,
    REQUEST_BYTES_MAX,
    SERVER_START_S,
    TLS_HANDSHAKE_S,
)
from holdfast.rim.clock import Clock
from holdfast.rim.stalled import StalledConnections
from holdfast.wire.address import join_address
from holdfast.wire.faults import to_reply
from holdfast.wire.frame import join
from holdfast.wire.pool import CONTENT_TYPE

_PREFIX: Final = "/v1/"
_HEADERS: Final = [("content-type", CONTENT_TYPE)]
_CLOSING: Final = [*_HEADERS, ("connection", "close")]
_LOG: Final = {
    "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "loggers": {
        "_granian": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        "granian.access": {"handlers": [], "level": "ERROR", "propagate": False},
    },
}
"""Granian logs to stdout unless told otherwise, and stdout may be a control channel."""


_Running = tuple[Any, asyncio.Task[None], bytes]
"""A Granian server, the task that serves, the hash of its leaf."""


class PoolHandler(Protocol):
    """What stands behind the door."""

    def answer(self, verb: str, body: bytes) -> Awaitable[tuple[int, bytes]]:
        """Status and frame for one request. Raises nothing but bugs."""
        ...

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a public GET."""
        ...


class PoolServer:
    """Serves a handler at one address until stopped."""

    def __init__(self, handler: PoolHandler, host: str, port: int, clock: Clock) -> None:
        """`port` 0 takes a free one."""
        self._handler = handler
        self._host = host
        self._wanted = port
        self._clock = clock
        self._hold: socket.socket | None = None
        self._running: list[_Running] = []
        self._finishing: list[_Running] = []
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._reading_bytes = 0
        self._sweepers: list[asyncio.Task[None]] = []
        self._rotating = asyncio.Lock()
        self.gone = asyncio.Event()
        """Set when serving ended although nobody asked for it."""

    @property
    def port(self) -> int:
        """The bound port."""
        assert self._hold is not None, "start first"
        return int(self._hold.getsockname()[1])

    @property
    def address(self) -> str:
        """`host:port` as bound."""
        return join_address(self._host, self.port)

    @property
    def leaves(self) -> frozenset[bytes]:
        """SHA-256 of every leaf (DER) that a connection may have seen."""
        return frozenset(leaf for _, _, leaf in self._running)

    async def start(self, chain: Path, key: Path) -> None:
        """Bind and serve. Raises OperationFault."""
        self._loop = asyncio.get_running_loop()
        self._hold = _reserve(self._host, self._wanted)
        try:
            await self._launch(chain, key)
        except OperationFault:
            self._hold.close()
            raise
        self.stalled = StalledConnections(
            self.port, self._clock, handshake_s=TLS_HANDSHAKE_S, quiet_s=QUIET_S
        )
        work = (self._sweep(), self.stalled.run())
        self._sweepers = [asyncio.create_task(each) for each in work]

    async def rotate(self, chain: Path, key: Path) -> None:
        """Serve with another certificate from now on. Raises OperationFault; the old one then
        goes on serving."""
        async with self._rotating:
            old = list(self._running)
            await self._launch(chain, key)
            for entry in old:
                await self._finish(entry)

    async def stop(self) -> None:
        """Answer what is in flight and close."""
        for sweeper in self._sweepers:
            sweeper.cancel()
        for entry in list(self._running):
            await self._finish(entry)
        if self._hold is not None:
            self._hold.close()

    # --- Granian ---------------------------------------------------------------------------------
    async def _launch(self, chain: Path, key: Path) -> None:
        try:
            leaf = _leaf(chain)
            server: Any = Server(
                self._serve,
                address=self._host,
                port=self.port,
                interface=Interfaces.RSGI,
                http=HTTPModes.http1,
                websockets=False,
                backlog=LISTEN_BACKLOG,
                backpressure=POOL_CONNECTIONS_MAX,
                http1_settings=HTTP1Settings(header_read_timeout=int(HEAD_READ_S * 1_000)),
                log_level=LogLevels.error,
                log_dictconfig=_LOG,
                ssl_cert=chain,
                ssl_key=key,
            )
        except (OSError, PeerFault, IndexError) as error:
            raise OperationFault(f"cannot serve with {chain}: {error}") from error
        task = asyncio.create_task(server.serve())
        entry = (server, task, leaf)
        self._running.append(entry)
        task.add_done_callback(lambda _: self._ended(entry))
        try:
            async with self._clock.real_timeout(SERVER_START_S):
                while not task.done() and await self._shown_leaf(chain) != leaf:
                    await self._clock.sleep_real(0.005)
        except TimeoutError as error:
            await self._finish(entry)
            raise OperationFault(f"{self.address} does not come up") from error
        if task.done():
            self._running.remove(entry)
            raise OperationFault(f"{self.address} went down: {task.exception()}")

    async def _shown_leaf(self, chain: Path) -> bytes:
        """SHA-256 of the leaf that a new connection sees now; empty when it sees none. The
        chain's own intermediate is trusted: the question is who answers, not whom to believe."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cafile=chain)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        try:
            _, writer = await asyncio.open_connection(host, self.port, ssl=context)
        except OSError:
            return b""
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return sha256(certificate)

    async def _finish(self, entry: _Running) -> None:
        server, task, _ = entry
        self._finishing.append(entry)
        server.stop()
        try:
            async with self._clock.real_timeout(DRAIN_S):
                await asyncio.shield(task)
        except TimeoutError:
            task.cancel()
        self._finishing.remove(entry)
        if entry in self._running:
            self._running.remove(entry)

    def _ended(self, entry: _Running) -> None:
        if entry not in self._finishing:
            self.gone.set()

    # --- Requests --------------------------------------------------------------------------------
    async def _serve(self, scope: Any, proto: Any) -> None:
        if scope.proto != "http":
            return
        if scope.method == "GET":
            status, content_type, page = self._handler.page(scope.path)
            proto.response_bytes(status, [("content-type", content_type)], page)
            return
        path = scope.path
        if scope.method != "POST" or not path.startswith(_PREFIX):
            self._refuse(proto, PeerFault("no such page", code="verb"))
            return
        try:
            body = await self._body(scope, proto)
        except (PeerFault, OperationFault) as error:
            self._refuse(proto, error)
            return
        status, answer = await self._handler.answer(path[len(_PREFIX) :], body)
        proto.response_bytes(status, _HEADERS, answer)

    async def _body(self, scope: Any, proto: Any) -> bytes:
        size = _content_length(scope)
        if self._reading_bytes + size > BODIES_IN_FLIGHT_BYTES_MAX:
            raise OperationFault("too many requests are arriving at once")
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._reading[task] = self._clock.elapsed()
        self._reading_bytes += size
        try:
            body: bytes = await proto()
        except asyncio.CancelledError as error:
            task.uncancel()
            raise PeerFault("the body did not arrive in time") from error
        finally:
            self._reading_bytes -= size
            self._reading.pop(task, None)
        return body

    async def _sweep(self) -> None:
        """Give up bodies that trickle. One timer for all of them costs nothing per request."""
        while True:
            await self._clock.sleep_real(BODY_READ_S / 4)
            limit = self._clock.elapsed() - BODY_READ_S * self._clock.scale
            for task, since in list(self._reading.items()):
                if since < limit:
                    task.cancel()

    @staticmethod
    def _refuse(proto: Any, error: PeerFault | OperationFault) -> None:
        """Answer without having read the body, so the connection cannot be used again."""
        status, reply = to_reply(error)
        proto.response_bytes(status, _CLOSING, join(reply))


def _leaf(chain: Path) -> bytes:
    """SHA-256 of the leaf (DER) in a chain file. Raises OSError, PeerFault and IndexError."""
    return sha256(from_pem(chain.read_bytes())[0])


def _content_length(scope: Any) -> int:
    """The announced size of a body. Raises PeerFault when it is none or too much."""
    text = scope.headers.get("content-length")
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 12:
        raise PeerFault("a request needs a Content-Length")
    if int(text) > REQUEST_BYTES_MAX:
        raise PeerFault(f"request of {text} bytes, limit {REQUEST_BYTES_MAX}", code="too-large")
    return int(text)


def _reserve(host: str, port: int) -> socket.socket:
    """Hold a port without listening, so that servers may come and go on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise OperationFault(f"cannot bind {join_address(host, port)}: {error}") from error
    return held
