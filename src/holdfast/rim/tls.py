"""Who may talk to whom: TLS contexts, and the judges that decide on a peer's certificate (D6).

TLS 1.3 only, key exchange X25519MLKEM768 and then X25519, no session resumption. A server asks for
a client certificate and goes on without one, since joining and public reads have none; the service
reads `Peer | None` from the connection. A client always demands a server's. Certificates,
roots and the revocation list are read at every handshake, so `reload` changes new connections while
old ones live on, and `Listener.cut` ends those whose certificate has just been revoked.

Setting the groups needs one name of pyOpenSSL's private bindings; `self_test` checks it once per
process, before the first context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from OpenSSL import SSL, crypto
from OpenSSL import _util as pyopenssl

from holdfast.crypto.certificates import TlsKey, cert_info, from_pem, to_pem, verify_chain
from holdfast.crypto.certinfo import is_self_signed, read
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.limits import CONNECTIONS_MAX, TLS_HANDSHAKE_S
from holdfast.logic.trust.revocation import RevocationList, Revoked, matches
from holdfast.rim.clock import Clock
from holdfast.rim.tls_transport import Secured
from holdfast.rim.tls_verdict import Judge, Peer, on_certificate
from holdfast.wire.address import split_address
from holdfast.wire.staple import presented

GROUPS: Final = b"X25519MLKEM768:X25519"
"""Hybrid post-quantum first; the second for peers whose library is older."""


OnCertificate = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


class Credentials(msgspec.Struct, frozen=True):
    """Our own chain (leaf, intermediate; DER) and the leaf's key."""

    chain: tuple[bytes, ...]
    key: TlsKey

    @classmethod
    def from_pem(cls, chain_pem: bytes, key_pem: bytes) -> Credentials:
        """Raises UsageError when the files are no chain and key, or do not belong together."""
        try:
            chain = from_pem(chain_pem)
            matching = cert_info(chain[0]).spki
        except PeerFault as fault:
            raise UsageError(f"certificate file: {fault}") from fault
        key = TlsKey.from_pem(key_pem)
        if key.spki() != matching:
            raise UsageError("certificate and key do not belong together: renew or join again")
        return cls(chain, key)

    @classmethod
    def from_files(cls, chain_path: Path, key_path: Path) -> Credentials:
        """As `from_pem`. Raises OperationFault when a file cannot be read."""
        try:
            return cls.from_pem(chain_path.read_bytes(), key_path.read_bytes())
        except OSError as error:
            raise OperationFault(f"cannot read {error.filename}: {error.strerror}") from error

    def pem(self) -> tuple[bytes, bytes]:
        """(chain, key) as PEM files hold them."""
        return to_pem(self.chain), self.key.pem()


class Expected(msgspec.Struct, frozen=True):
    """Whom a client means to reach; empty fields accept any. A name is never optional in effect:
    the chain already names network, role and node."""

    roles: tuple[str, ...] = ()
    node: bytes = b""
    dns: str = ""

    def check(self, peer: Peer) -> None:
        """Raises PeerFault when `peer` is somebody else."""
        if self.roles and peer.name.role not in self.roles:
            raise PeerFault(f"the server is a {peer.name.role}", code="certificate")
        if self.node and peer.name.node != self.node:
            raise PeerFault("the server is another node than expected", code="certificate")
        if self.dns and peer.dns != self.dns:
            raise PeerFault(f"the server is {peer.dns}, not {self.dns}", code="certificate")


ANYONE: Final = Expected()


class _Side(Judge):
    """What both sides share: pinned roots, own credentials, the wall clock, the revocation list."""

    def __init__(
        self,
        roots: Sequence[bytes],
        credentials: Credentials | None,
        clock: Clock,
        revocations: RevocationList | None = None,
        *,
        verify_mode: int = SSL.VERIFY_PEER,
    ) -> None:
        self_test()
        self.clock = clock
        self.revocations = revocations
        self.roots = tuple(roots)
        self._verify_mode = verify_mode
        self.reload(credentials)

    def reload(self, credentials: Credentials | None, roots: Sequence[bytes] | None = None) -> None:
        """Serve new connections with these; connections that are open live on."""
        self.credentials = credentials
        if roots is not None:
            self.roots = tuple(roots)
        self.context = _context(self.roots, credentials, self._verify_mode)

    def judge(self, chain: tuple[bytes, ...]) -> Peer:
        """Leaf and intermediate by our own rules; the root was OpenSSL's and is ignored here."""
        name = verify_chain(self.roots, chain[:2], self.clock.wall())
        info = cert_info(chain[0])
        peer = Peer(name, info.dns, chain[:2], tuple(presented(der) for der in chain[:2]))
        self.admit(peer)
        return peer

    def admit(self, peer: Peer | None) -> None:
        if peer is None or self.revocations is None:
            return
        entry = self.revocations.find_in(peer.certificates)
        if entry is not None:
            raise PeerFault(f"certificate is revoked: {entry.reason}", code="revoked")


class ServerTls(_Side):
    """A server's side. Credentials are a must; a client may come without."""


class ClientTls(_Side):
    """A client's side: always knows that its server belongs to the network."""

    def admit(self, peer: Peer | None) -> None:
        if peer is None:
            raise PeerFault("the server showed no certificate", code="certificate")
        super().admit(peer)


class UnverifiedTls(ClientTls):
    """Believes any server. For one request: fetching the root that a token's fingerprint
    confirms (D8), after which the caller reconnects verified."""

    def __init__(self, clock: Clock) -> None:
        super().__init__((), None, clock, verify_mode=SSL.VERIFY_NONE)

    def admit(self, peer: Peer | None) -> None:
        assert peer is None, "nothing was verified"


class _Expecting(Judge):
    """A client's judge with one connection's expectation on top."""

    def __init__(self, side: ClientTls, expected: Expected) -> None:
        self._side = side
        self._expected = expected

    def judge(self, chain: tuple[bytes, ...]) -> Peer:
        peer = self._side.judge(chain)
        self._expected.check(peer)
        return peer

    def admit(self, peer: Peer | None) -> None:
        self._side.admit(peer)


async def connect(
    factory: Callable[[], asyncio.BaseProtocol],
    address: str,
    tls: ClientTls,
    *,
    expected: Expected = ANYONE,
    server_name: str | None = None,
    timeout_s: float = TLS_HANDSHAKE_S,
) -> Secured:
    """A verified connection to `address` (`host:port`) with `factory`'s protocol on it.

    `.transport` and `.inner` are asyncio's pair, `.peer` the verified server. `timeout_s` is in
    real seconds, for TCP and TLS together. Raises PeerFault when the server is not to be believed,
    OperationFault when it cannot be reached.
    """
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Secured] = loop.create_future()
    judge = _Expecting(tls, expected)

    def secured() -> Secured:
        return Secured(
            tls.context, judge, factory, server=False, server_name=server_name, opened=opened
        )

    layer: Secured | None = None
    try:
        async with tls.clock.real_timeout(timeout_s):
            _, layer = await loop.create_connection(secured, host, port)
            return await opened
    except TimeoutError as error:
        raise OperationFault(f"no TLS connection to {address} within {timeout_s:g} s") from error
    except OSError as error:
        raise OperationFault(f"cannot reach {address}: {error.strerror or error}") from error
    finally:
        if layer is not None and (not opened.done() or opened.cancelled()):
            layer.abort()
        elif opened.done() and not opened.cancelled():
            opened.exception()


class Listener:
    """A listening TLS port and its live connections."""

    def __init__(self, server: asyncio.Server, connections: set[Secured]) -> None:
        self._server = server
        self._connections = connections
        self.port = int(server.sockets[0].getsockname()[1])
        """The port, also where 0 was asked for."""

    def peers(self) -> list[Peer]:
        """The verified peers now connected."""
        return [item.peer for item in self._connections if item.peer is not None]

    def __len__(self) -> int:
        """Connections now open, with and without a client certificate, in handshake or past it."""
        return len(self._connections)

    def cut(self, predicate: Callable[[Peer], bool], reason: str = "certificate is revoked") -> int:
        """Abort live connections whose peer matches, without another byte; how many."""
        fault = PeerFault(reason, code="revoked")
        matching = [item for item in self._connections if item.peer and predicate(item.peer)]
        for item in matching:
            item.abort(fault)
        return len(matching)

    def cut_revoked(self, entries: Iterable[Revoked]) -> int:
        """`cut` by fresh revocation entries (what `RevocationList.fold` returned)."""
        fresh = tuple(entries)
        return self.cut(lambda peer: any(matches(fresh, item) for item in peer.certificates))

    def stop_listening(self) -> None:
        """Accept no more; open connections live on."""
        self._server.close()

    def abort(self) -> None:
        """Stop listening and end every connection now."""
        self._server.close()
        for item in list(self._connections):
            item.abort()


async def listen(
    factory: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    tls: ServerTls,
    *,
    connections_max: int = CONNECTIONS_MAX,
) -> Listener:
    """Serve `factory`'s protocol over TLS at `host:port` (0 picks a port).

    Past `connections_max` open connections a new one is closed before its handshake. Raises
    OperationFault when the port is taken.
    """
    assert tls.credentials is not None, "a server needs a certificate"
    connections: set[Secured] = set()

    def secured() -> asyncio.Protocol:
        if len(connections) >= connections_max:
            return _Full()
        return Secured(tls.context, tls, factory, server=True, connections=connections)

    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(secured, host, port, backlog=1024)
    except OSError as error:
        raise OperationFault(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return Listener(server, connections)


class _Full(asyncio.Protocol):
    """What a connection over the limit meets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()


# --- Contexts ------------------------------------------------------------------------------------
def bare_context(verify_mode: int, on_certificate: OnCertificate) -> SSL.Context:
    """TLS 1.3 as it is spoken here, with no roots and no certificate yet."""
    self_test()
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if not _set_groups(context, GROUPS):
        raise OperationFault("OpenSSL lacks X25519MLKEM768", retryable=False)
    context.set_verify(verify_mode, on_certificate)
    return context


def _context(
    roots: Sequence[bytes], credentials: Credentials | None, verify_mode: int
) -> SSL.Context:
    context = bare_context(verify_mode, on_certificate)
    store = context.get_cert_store()
    assert store is not None
    for root in filter(is_self_signed, roots):
        store.add_cert(crypto.X509.from_cryptography(read(root)))
    if credentials is not None:
        context.use_certificate(read(credentials.chain[0]))
        for der in credentials.chain[1:]:
            context.add_extra_chain_cert(read(der))
        context.use_privatekey(credentials.key.private)
    return context


def _set_groups(context: SSL.Context, groups: bytes) -> bool:
    handle = context._context
    done = bool(pyopenssl.lib.SSL_CTX_set1_curves_list(handle, groups) == 1)
    if not done:
        pyopenssl.lib.ERR_clear_error()
    return done


@cache
def self_test() -> None:
    """Check, once, that pyOpenSSL's private name for setting groups still does so.

    A library that ignored the call would quietly speak without post-quantum exchange, so a group
    that does not exist must be refused. Raises OperationFault, not retryable.
    """
    try:
        context = SSL.Context(SSL.TLS_METHOD)
        works = _set_groups(context, GROUPS) and not _set_groups(context, b"no-such-group")
    except (AttributeError, TypeError, SSL.Error) as error:
        raise OperationFault(
            f"this pyOpenSSL cannot set key exchange groups: {error}", retryable=False
        ) from error
    if not works:
        raise OperationFault("no X25519MLKEM768: upgrade cryptography", retryable=False)


__all__ = [
    "ANYONE",
    "ClientTls",
    "Credentials",
    "Expected",
    "Listener",
    "Peer",
    "ServerTls",
    "UnverifiedTls",
    "bare_context",
    "connect",
    "listen",
    "self_test",
]
