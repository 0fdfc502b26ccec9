"""asyncio on pyOpenSSL: TLS 1.3 between a TCP transport and an ordinary asyncio protocol.

The stdlib's `ssl` is bound to the system's OpenSSL, which may lack post-quantum groups;
`cryptography` brings its own. So records are made in memory: bytes from TCP go into OpenSSL's
input BIO, what OpenSSL wants to say comes out of its output BIO, and this module moves both.

Rules:

* The inner protocol learns of a connection only after the handshake *and* after the judge has
  named the peer; a connection that fails before that never existed for it.
* OpenSSL walks the chain up to the pinned roots and calls back for each certificate. At the leaf
  the callback hands what was collected to the judge, which decides by our own rules
  (`verify_chain`, revocation, expected name). Errors of time are left to the judge, since the
  product's wall clock decides them. A refusal becomes a TLS alert. When the handshake is done, the
  peer's certificate must be the one that was judged: no shortcut (a resumed session) gets round it.
* A peer that ends TCP without `close_notify` has cut the stream off: the inner protocol is told
  `connection_lost` with a fault, never `eof_received`. `close_notify` alone closes one direction.
* Waiting has an end: `TLS_HANDSHAKE_S` for the handshake, `TLS_CLOSE_S` for the last bytes.

Back pressure passes through: the TCP transport's `pause_writing` reaches the inner protocol, and
`pause_reading` stops both TCP and what OpenSSL has already decrypted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.limits import TLS_CLOSE_S, TLS_HANDSHAKE_S
from holdfast.rim.tls_verdict import Judge, Peer, TlsInfo, Verdict, translate

_RECORD_BYTES: Final = 16 * 1024
_DELIVER_BYTES: Final = 256 * 1024
_FLUSH_BYTES: Final = 256 * 1024


class Secured(asyncio.Protocol):
    """One TLS connection: the protocol of a TCP transport, the transport of an inner protocol."""

    def __init__(
        self,
        context: SSL.Context,
        judge: Judge,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        server: bool,
        server_name: str | None = None,
        opened: asyncio.Future[Secured] | None = None,
        connections: set[Secured] | None = None,
    ) -> None:
        self._context = context
        self._judge = judge
        self._factory = factory
        self._server = server
        self._server_name = server_name
        self._opened = opened
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._closing = False
        self._end_received = False
        self._end_delivered = False
        self._end_sent = False
        self._fault: HoldfastError | None = None
        self._verdict = Verdict(judge)
        self._tls = SSL.Connection(context, None)
        self.inner: asyncio.Protocol | None = None
        self.transport: InnerTransport | None = None
        self.raw: asyncio.Transport | None = None
        self.peer: Peer | None = None

    # --- From TCP --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast(asyncio.Transport, transport)
        if self._connections is not None:
            self._connections.add(self)
        self._tls.set_app_data(self._verdict)
        if self._server:
            self._tls.set_accept_state()
        else:
            self._tls.set_connect_state()
            if self._server_name:
                self._tls.set_tlsext_host_name(self._server_name.encode("idna"))
        self._timer = self._loop.call_later(TLS_HANDSHAKE_S, self._too_slow)
        self._advance()

    def data_received(self, data: bytes) -> None:
        if self._fault is None:
            self._tls.bio_write(data)
            self._advance()

    def eof_received(self) -> bool:
        if not self._end_received and not self._closing:
            self.fail(OperationFault("the other side cut the connection off"))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel_timer()
        if self._connections is not None:
            self._connections.discard(self)
        self._closing = True
        fault: Exception | None = self._fault
        if fault is None and error is not None:
            fault = OperationFault(f"connection lost: {error}")
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(fault or OperationFault("connection closed in handshake"))
        if self.inner is not None:
            self.inner.connection_lost(fault)

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    # --- Handshake -------------------------------------------------------------------------------
    def _advance(self) -> None:
        if self.inner is None and not self._shake():
            return
        self.deliver()

    def _shake(self) -> bool:
        """One step of the handshake; whether the inner protocol has been told of a connection."""
        try:
            self._tls.do_handshake()
            self._flush()
            self._admit()
        except SSL.WantReadError:
            self._flush()
            return False
        except SSL.Error as error:
            self._flush()
            self.fail(self._verdict.fault or translate(error))
            return False
        except HoldfastError as fault:
            self.fail(fault)
            return False
        self._cancel_timer()
        self.transport = InnerTransport(self)
        self.inner = cast(asyncio.Protocol, self._factory())
        self.inner.connection_made(self.transport)
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(self)
        return True

    def _admit(self) -> None:
        """The certificate that OpenSSL ended up with is the one the judge named, or there is none.

        The judge looks again: a revocation may have come between certificate and last flight.
        """
        certificate = self._tls.get_peer_certificate(as_cryptography=True)
        peer = self._verdict.peer
        if certificate is not None:
            der = certificate.public_bytes(Encoding.DER)
            checked = self._context.get_verify_mode() != SSL.VERIFY_NONE
            if checked and (peer is None or peer.chain[0] != der):
                raise PeerFault("a certificate that was not checked", code="certificate")
        self._judge.admit(peer)
        self.peer = peer

    def _too_slow(self) -> None:
        self._fault = OperationFault(f"no TLS handshake within {TLS_HANDSHAKE_S:g} s")
        assert self.raw is not None
        self.raw.abort()

    # --- Records ---------------------------------------------------------------------------------
    def deliver(self) -> None:
        """Hand decrypted bytes to the inner protocol until it pauses or there are no more."""
        assert self.inner is not None
        while not (self._paused or self._closing or self._end_received):
            data = self._decrypt()
            if data:
                self.inner.data_received(data)
            if len(data) < _DELIVER_BYTES:
                break
        self._flush()
        if self._end_received and not (self._end_delivered or self._closing):
            self._end_delivered = True
            if not self.inner.eof_received():
                self.close()

    def _decrypt(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _DELIVER_BYTES:
                pieces.append(self._tls.recv(_RECORD_BYTES))
                size += len(pieces[-1])
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._end_received = True
        except SSL.Error as error:
            self.fail(translate(error))
        return b"".join(pieces)

    def _flush(self) -> None:
        """Move what OpenSSL wants to say to TCP."""
        assert self.raw is not None
        try:
            while not self.raw.is_closing():
                self.raw.write(self._tls.bio_read(_FLUSH_BYTES))
        except SSL.Error:
            return

    # --- From the inner protocol -----------------------------------------------------------------
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; silently dropped after the end, as asyncio's own transports do."""
        if not data or self._closing or self._end_sent or self._fault is not None:
            return
        try:
            self._tls.sendall(data)
        except SSL.Error as error:
            self.fail(translate(error))
        self._flush()

    def write_eof(self) -> None:
        """End our direction with `close_notify`; the other side may go on."""
        if not self._end_sent and self._fault is None:
            self._end_sent = True
            try:
                self._tls.shutdown()
            except SSL.Error:
                pass
            self._flush()

    def close(self) -> None:
        """Send what is written and `close_notify`, then end; cut after `TLS_CLOSE_S`."""
        if self._closing:
            return
        self.write_eof()
        self._closing = True
        self._end_raw()

    def fail(self, fault: HoldfastError) -> None:
        """End because something broke; the inner protocol's `connection_lost` gets `fault`."""
        if self._fault is None:
            self._fault = fault
            self._closing = True
            self._end_raw()

    def abort(self, fault: HoldfastError | None = None) -> None:
        """End at once: not a byte more in either direction."""
        self._fault = self._fault or fault
        self._closing = True
        if self.raw is not None:
            self.raw.abort()

    def _end_raw(self) -> None:
        assert self.raw is not None
        self.raw.close()
        self._cancel_timer()
        self._timer = self._loop.call_later(TLS_CLOSE_S, self.raw.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_reading(self) -> None:
        """Stop TCP and the delivery of what is already decrypted."""
        self._paused = True
        if self.raw is not None and not self._closing:
            self.raw.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`; what waited in OpenSSL is delivered in the loop's next round."""
        if self._paused and not self._closing and self.raw is not None:
            self._paused = False
            self.raw.resume_reading()
            self._loop.call_soon(self._deliver_late)

    def _deliver_late(self) -> None:
        if not self._closing and self._fault is None:
            self.deliver()

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether bytes are delivered as they come."""
        return not self._paused and not self._closing

    # --- What is known of the connection ---------------------------------------------------------
    def info(self, name: str, default: Any = None) -> Any:
        """asyncio's extra info, and `holdfast.peer`, `ssl_object`, `sslcontext` of our own kind."""
        match name:
            case "holdfast.peer":
                return self.peer
            case "ssl_object":
                return TlsInfo(self._tls)
            case "sslcontext":
                return self._context
            case _:
                return default if self.raw is None else self.raw.get_extra_info(name, default)


class InnerTransport(asyncio.Transport):
    """The transport that the inner protocol holds; all work is `Secured`'s."""

    def __init__(self, secured: Secured) -> None:
        super().__init__()
        assert secured.raw is not None
        self._secured = secured
        self._raw = secured.raw

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._secured.info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._secured.inner = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._secured.inner is not None
        return self._secured.inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._secured.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._secured.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self._secured.write_eof()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._secured.close()

    def abort(self) -> None:
        self._secured.abort()

    def is_closing(self) -> bool:
        return self._secured.is_closing()

    def pause_reading(self) -> None:
        self._secured.pause_reading()

    def resume_reading(self) -> None:
        self._secured.resume_reading()

    def is_reading(self) -> bool:
        return self._secured.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()
