"""What one TLS handshake learns of the other side, between OpenSSL's callback and our own rules."""

from __future__ import annotations

from typing import Final

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from holdfast.crypto.certificates import NodeName
from holdfast.errors import HoldfastError, PeerFault
from holdfast.logic.trust.revocation import Presented

_TIME_ERRORS: Final = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Peer(msgspec.Struct, frozen=True):
    """A verified other side: its name, and its leaf and intermediate."""

    name: NodeName
    dns: str
    chain: tuple[bytes, ...]
    certificates: tuple[Presented, ...]

    @property
    def serial(self) -> str:
        """Serial of the leaf, decimal digits."""
        return self.certificates[0].serial


class Judge:
    """What `Secured` asks about a peer; `rim.tls` has the real ones. Both raise HoldfastError."""

    def judge(self, chain: tuple[bytes, ...]) -> Peer:
        """Name the owner of `chain` (leaf, intermediate, root; DER) or refuse it."""
        raise NotImplementedError

    def admit(self, peer: Peer | None) -> None:
        """Last look when the handshake is done; `peer` is None for one without a certificate."""
        raise NotImplementedError


class Verdict:
    """What one handshake has seen of the peer's certificates. OpenSSL's callback writes here."""

    __slots__ = ("_judge", "_seen", "fault", "peer")

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._seen: dict[int, bytes] = {}
        self.peer: Peer | None = None
        self.fault: HoldfastError | None = None

    def see(self, certificate: bytes, error: int, depth: int) -> bool:
        """One step of OpenSSL's walk from the root (highest depth) down to the leaf (0)."""
        self._seen[depth] = certificate
        if error and error not in _TIME_ERRORS:
            return self._refuse(PeerFault(f"X.509 error {error}", code="certificate"))
        if self.fault is not None or depth > 0:
            return self.fault is None
        try:
            self.peer = self._judge.judge(tuple(self._seen[at] for at in sorted(self._seen)))
        except HoldfastError as fault:
            return self._refuse(fault)
        return True

    def _refuse(self, fault: HoldfastError) -> bool:
        """The first reason stands; whatever was believed before is forgotten."""
        self.fault = self.fault or fault
        self.peer = None
        return False


def on_certificate(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, _ok: int
) -> bool:
    """OpenSSL's verify callback; the verdict hangs on the connection."""
    verdict = connection.get_app_data()
    assert isinstance(verdict, Verdict)
    return verdict.see(certificate.to_cryptography().public_bytes(Encoding.DER), error, depth)


class TlsInfo:
    """The part of `ssl.SSLObject` that servers ask for, and the group."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def getpeercert(self, binary_form: bool = False) -> bytes | None:
        """DER of the peer's certificate; only the binary form exists here."""
        assert binary_form, "ask for the binary form"
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else certificate.public_bytes(Encoding.DER)

    def version(self) -> str:
        """`TLSv1.3`."""
        return self._connection.get_protocol_version_name()

    def cipher(self) -> tuple[str | None, str, int | None]:
        """Name, protocol, secret bits."""
        connection = self._connection
        return connection.get_cipher_name(), self.version(), connection.get_cipher_bits()

    def group(self) -> str | None:
        """The key exchange, such as `X25519MLKEM768`."""
        return self._connection.get_group_name()

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol, if one was agreed."""
        return self._connection.get_alpn_proto_negotiated().decode() or None


def translate(error: SSL.Error) -> HoldfastError:
    """An OpenSSL error as one of ours: an alert says that the other side refuses us.

    A judge's refusal leaves OpenSSL without an X.509 error of its own, so it travels as the alert
    "internal error".
    """
    stack = error.args[0] if error.args else None
    text = str(stack[-1][-1]) if isinstance(stack, list) and stack else repr(error)
    if "alert" not in text:
        return PeerFault(f"not TLS 1.3 as spoken here: {text}", code="tls")
    if any(word in text for word in ("certificate", "unknown ca", "internal error")):
        return PeerFault(f"the other side refuses our certificate ({text})", code="refused")
    return PeerFault(f"the other side ended the handshake ({text})", code="tls")
