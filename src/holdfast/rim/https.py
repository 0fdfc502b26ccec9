"""HTTPS for nodes: uvicorn's HTTP/1.1 protocol on our TLS, and the JSON client that talks to it.

The server hands every request the verified client certificate, in
`scope["extensions"]["holdfast"]["peer"]`; `peer(scope)` reads the node's name from it, None for a
client without certificate. Routes decide what a nobody may do.

What a hostile client may cost is bounded here, so that no route has to think of it: connections,
handshake time, header size and time, body size and time. A `HoldfastError` that leaves a route
becomes a `Problem` (a Starlette app needs `EXCEPTION_HANDLERS` for that), which `JsonClient` turns
back into the same family:

| raised in a route    | status                                    | raised by JsonClient       |
|----------------------|-------------------------------------------|----------------------------|
| UsageError           | 422                                       | UsageError                 |
| PeerFault            | by its code, see `STATUS_OF_CODE`, or 400 | PeerFault, with the code   |
| PeerFault `too-many` | 429                                       | OperationFault, retryable  |
| OperationFault       | 503 (500 when not retryable)              | OperationFault             |
| anything else: a bug | 500, logged                               | OperationFault             |

Lifespan events are not sent: who composes the service starts and stops its parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from holdfast.crypto.certificates import NodeName
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits import (
    API_BODY_BYTES_MAX,
    CONNECTIONS_MAX,
    HTTP_BODY_S,
    HTTP_HEADER_BYTES_MAX,
    HTTP_HEADER_S,
    HTTP_KEEP_ALIVE_S,
)
from holdfast.logic.trust.revocation import Revoked
from holdfast.rim.https_client import JsonClient, fetch_pinned_roots, fetch_unverified_root
from holdfast.rim.tls import Credentials, Listener, ServerTls, listen
from holdfast.rim.tls_verdict import Peer
from holdfast.wire.codec import pack_json
from holdfast.wire.hq import Problem

STATUS_OF_CODE: Final[Mapping[str, int]] = {
    "unauthorized": 401,
    "forbidden": 403,
    "certificate": 403,
    "revoked": 403,
    "not-found": 404,
    "timeout": 408,
    "conflict": 409,
    "gone": 410,
    "too-large": 413,
    "too-many": 429,
}
"""HTTP status of a PeerFault; codes not named here are 400."""
_LAST_WORDS: Final = frozenset({408, 413, 503})
"""Answers after which the connection ends: the rest of the body would follow, or the server."""


def peer(scope: Mapping[str, Any]) -> NodeName | None:
    """The node whose certificate the client of this request has shown; None for none."""
    found = peer_certificate(scope)
    return None if found is None else found.name


def peer_certificate(scope: Mapping[str, Any]) -> Peer | None:
    """As `peer`, with serial, DNS name and chain."""
    found = scope.get("extensions", {}).get("holdfast", {}).get("peer")
    assert found is None or isinstance(found, Peer)
    return found


def problem_of(error: HoldfastError) -> tuple[int, Problem]:
    """Status and body for an error that a route raised."""
    if isinstance(error, UsageError):
        return 422, Problem("usage", str(error))
    if isinstance(error, PeerFault):
        return STATUS_OF_CODE.get(error.code, 400), Problem(error.code, str(error))
    assert isinstance(error, OperationFault)
    if error.retryable:
        return 503, Problem("unavailable", str(error))
    return 500, Problem("failed", str(error))


class HttpsServer:
    """An ASGI app behind TLS. `server = await HttpsServer().start(app, host, port, tls)`."""

    def __init__(
        self,
        *,
        connections_max: int = CONNECTIONS_MAX,
        body_bytes_max: int = API_BODY_BYTES_MAX,
    ) -> None:
        self._connections_max = connections_max
        self._body_bytes_max = body_bytes_max
        self._state = ServerState()
        self._listener: Listener | None = None
        self._tls: ServerTls | None = None

    async def start(self, app: ASGIApp, host: str, port: int, tls: ServerTls) -> HttpsServer:
        """Serve `app` at `host:port` (0 picks a port). Raises OperationFault when it is taken."""
        assert self._listener is None, "a server starts once"
        self._tls = tls
        config = Config(
            app=cast(Any, _Bounded(app, self._body_bytes_max)),
            http=_Http,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(HTTP_KEEP_ALIVE_S),
            h11_max_incomplete_event_size=HTTP_HEADER_BYTES_MAX,
        )
        config.load()

        def protocol() -> _Http:
            return _Http(config=config, server_state=self._state, app_state={})

        self._listener = await listen(
            protocol, host, port, tls, connections_max=self._connections_max
        )
        return self

    @property
    def port(self) -> int:
        """The port that is served."""
        return self._running.port

    @property
    def listener(self) -> Listener:
        """The TLS port itself: live peers, counts."""
        return self._running

    def reload(
        self, chain_pem: bytes, key_pem: bytes, roots: Sequence[bytes] | None = None
    ) -> None:
        """New certificate (and roots) for new connections. Raises UsageError for bad files."""
        assert self._tls is not None
        self._tls.reload(Credentials.from_pem(chain_pem, key_pem), roots)

    def cut(self, predicate: Callable[[Peer], bool]) -> int:
        """Abort live connections whose verified client matches; how many."""
        return self._running.cut(predicate)

    def cut_revoked(self, entries: Iterable[Revoked]) -> int:
        """Abort live connections that fresh revocation entries match; how many."""
        return self._running.cut_revoked(entries)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Accept no more, let requests finish for `grace_s` real seconds, then end the rest.

        What still runs then (a long poll) is cancelled and answered 503. One that never started has
        nothing to stop.
        """
        listener = self._listener
        if listener is None:
            return
        listener.stop_listening()
        for connection in list(self._state.connections):
            connection.shutdown()
        running = set(self._state.tasks)
        if running:
            await asyncio.wait(running, timeout=grace_s)
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=1.0)
        listener.abort()

    @property
    def _running(self) -> Listener:
        assert self._listener is not None, "start the server first"
        return self._listener


class _Http(H11Protocol):
    """uvicorn's protocol with the peer in the scope and an end to waiting for a header."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        inner = self.app
        extension = {"peer": transport.get_extra_info("holdfast.peer")}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})["holdfast"] = extension
            await inner(scope, receive, send)

        self.app = app
        self._watch_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_begun_header()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_begun_header()

    def _watch_begun_header(self) -> None:
        """A header that has begun must end in time, however its bytes drip; the time between
        requests is the keep-alive timer's."""
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._watch_header()
        else:
            self._unwatch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_header()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def _watch_header(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HTTP_HEADER_S, self.transport.abort)

    def _unwatch_header(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class _Bounded:
    """The app with bounds on request bodies and with errors as `Problem`s."""

    def __init__(self, app: ASGIApp, body_bytes_max: int) -> None:
        self._app = app
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, self._body_bytes_max)
        answer = _Answer(send)
        try:
            body.check_announced(scope)
            await self._app(scope, body.receive, answer.send)
        except ClientDisconnect:
            return
        except HoldfastError as error:
            if not await answer.problem(error):
                raise
        except asyncio.CancelledError:
            if not await answer.problem(OperationFault("the server is stopping")):
                raise


class _Body:
    """A request body as it arrives, counted and timed. Breaking a bound raises PeerFault."""

    def __init__(self, receive: Receive, bytes_max: int) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._seen = 0
        self._complete = False

    def check_announced(self, scope: Scope) -> None:
        """Refuse by content-length, before a byte of the body is read."""
        for name, value in scope.get("headers", ()):
            if name == b"content-length" and int(value) > self._bytes_max:
                raise self._too_large()

    async def receive(self) -> Message:
        """The next ASGI message."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(HTTP_BODY_S):
                message = await self._receive()
        except TimeoutError as error:
            raise PeerFault("the body of the request came too slowly", code="timeout") from error
        self._seen += len(message.get("body", b""))
        if self._seen > self._bytes_max:
            raise self._too_large()
        self._complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> PeerFault:
        return PeerFault(f"body over {self._bytes_max} bytes", code="too-large")


class _Answer:
    """The response as it leaves, so that an error is answered only where nothing has been."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False

    async def send(self, message: Message) -> None:
        self._started = True
        await self._send(message)

    async def problem(self, error: HoldfastError) -> bool:
        """Answer with a `Problem`, unless an answer has begun; whether it was sent."""
        if self._started:
            return False
        response = _response(error)
        start = {"status": response.status_code, "headers": response.raw_headers}
        await self.send({"type": "http.response.start", **start})
        await self.send({"type": "http.response.body", "body": response.body})
        return True


def _response(error: HoldfastError) -> Response:
    status, problem = problem_of(error)
    headers = {"connection": "close"} if status in _LAST_WORDS else None
    return Response(pack_json(problem), status, headers, "application/json")


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    return _response(error)


EXCEPTION_HANDLERS: Final[Mapping[Any, Any]] = {HoldfastError: _on_error}
"""For `Starlette(exception_handlers=...)`, which otherwise answers every error with 500 itself."""


__all__ = [
    "EXCEPTION_HANDLERS",
    "STATUS_OF_CODE",
    "HttpsServer",
    "JsonClient",
    "fetch_pinned_roots",
    "fetch_unverified_root",
    "peer",
    "peer_certificate",
    "problem_of",
]
