"""X.509 for nodes: root, intermediate, leaf, and the only rules by which a chain is believed (D6).

    root          P-256, offline, path length 1, URI holdfast://<network hex>/root
    intermediate  one per HQ, path length 0, URI holdfast://<network hex>/hq/<b32 of HQ's node id>
    leaf          90 days, server and client, DNS <logical name>.<domain>,
                  URI holdfast://<network hex>/<role>/<b32 of the node id>

A chain is exactly leaf and intermediate; roots are pinned by their bytes and come as a *set*, so
that a second root can be trusted before the first is retired. All three URIs name one network, and
the intermediate carries a DNS name constraint, so a stolen intermediate of one network (or domain)
says nothing in another. Signatures and path building are `cryptography.x509.verification`'s work;
what it leaves open (exactly P-256 and SHA-256, exactly one DNS name and one URI, the network, the
role) is checked here on top.

Times are Unix seconds from the caller's wall clock. `not_before` is set back by `BACKDATE_S`, since
nodes' clocks differ. The same inputs give the same certificate. ECDSA signatures are malleable,
therefore nothing here or elsewhere identifies a certificate by a hash of its file: serial and SPKI
do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from holdfast.crypto.certinfo import (
    CERTIFICATE_BYTES_MAX,
    CertInfo,
    NodeName,
    cert_info,
    fingerprint,
    first_line,
    from_pem,
    is_self_signed,
    issued,
    parse_uri,
    read,
    to_pem,
)
from holdfast.crypto.pure import base32, node_id, sha256
from holdfast.crypto.tlskey import PARSE_ERRORS, TlsKey, load_spki, p256_spki, refused
from holdfast.errors import PeerFault, UsageError
from holdfast.limits import INTERMEDIATE_DAYS, ROOT_DAYS

BACKDATE_S: Final = 3600
"""Clocks of honest nodes may be this far behind the issuer's."""
CRL_DAYS: Final = 3_650
HQ_ROLE: Final = "hq"
ROOT_ROLE: Final = "root"
_DAY_S: Final = 86_400
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,200}}$){_LABEL}(?:\.{_LABEL})*")

__all__ = [
    "BACKDATE_S",
    "Authority",
    "CertInfo",
    "NodeName",
    "TlsKey",
    "cert_info",
    "create_root",
    "crl_pem",
    "csr_spki",
    "draw_serial",
    "fingerprint",
    "from_pem",
    "issue_intermediate",
    "issue_leaf",
    "make_crl",
    "make_csr",
    "parse_uri",
    "sign_intermediate",
    "to_pem",
    "verify_chain",
    "verify_hq_proof",
]


class Authority(msgspec.Struct, frozen=True):
    """A certificate (DER) that may sign others, with its key."""

    certificate: bytes
    key: TlsKey


# --- Issuing -------------------------------------------------------------------------------------
def create_root(seed: bytes, network: bytes, domain: str, now: float) -> Authority:
    """A network root of `ROOT_DAYS`. `network` is 16 bytes; raises UsageError for a bad domain."""
    assert len(network) == 16
    if not _DOMAIN.fullmatch(domain):
        raise UsageError(f"{domain!r} is not a domain: lower-case letters, digits, '-' and '.'")
    key = TlsKey.from_bytes(seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Holdfast {network.hex()} root")])
    builder = builder_for(key.spki(), name, now, ROOT_DAYS, serial=serial_for(key.spki(), now))
    builder = builder.issuer_name(name)
    uri = NodeName(network, ROOT_ROLE, b"").uri()
    builder = authority_extensions(builder, path_length=1, domain=domain, uri=uri)
    return Authority(key.sign_certificate(with_key_ids(builder, key.spki(), key.spki())), key)


def sign_intermediate(
    root: Authority, *, spki: bytes, network: bytes, identity_public: bytes, now: float
) -> bytes:
    """DER of the intermediate of the HQ with this TLS key (`spki`) and Ed25519 identity.

    The root never sees HQ's private key: this is the offline half. Raises PeerFault for a key that
    is not P-256.
    """
    info = cert_info(root.certificate)
    assert info.name is not None
    assert info.name.network == network, "a root signs for its own network only"
    name = NodeName(network, HQ_ROLE, node_id(identity_public))
    common = f"Holdfast HQ {base32(name.node)[:16]}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = builder_for(spki, subject, now, INTERMEDIATE_DAYS, serial=serial_for(spki, now))
    builder = builder.issuer_name(read(root.certificate).subject)
    builder = authority_extensions(builder, path_length=0, domain=info.domain, uri=name.uri())
    return root.key.sign_certificate(with_key_ids(builder, spki, root.key.spki()))


def issue_intermediate(
    root: Authority, key: TlsKey, network: bytes, identity_public: bytes, now: float
) -> Authority:
    """`sign_intermediate` where both keys are at hand: an embedded root, tests."""
    der = sign_intermediate(
        root, spki=key.spki(), network=network, identity_public=identity_public, now=now
    )
    return Authority(der, key)


def make_csr(key: TlsKey) -> bytes:
    """A PKCS#10 request (DER) that proves possession of `key` and asks for no name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key.sign_request(builder)


def csr_spki(csr: bytes) -> bytes:
    """SPKI of a request whose self-signature verifies. Raises PeerFault."""
    if len(csr) > CERTIFICATE_BYTES_MAX:
        raise PeerFault(f"certificate request of {len(csr)} bytes", code="too-large")
    try:
        request = x509.load_der_x509_csr(csr)
        if not request.is_signature_valid:
            raise PeerFault("certificate request is not signed by its own key", code="signature")
        return p256_spki(request.public_key())
    except (*PARSE_ERRORS, InvalidSignature) as error:
        raise PeerFault(f"not a certificate request: {error}") from error


def issue_leaf(
    ca: Authority,
    *,
    spki: bytes,
    network: bytes,
    role: str,
    node: bytes,
    dns_name: str,
    serial: int,
    now: float,
    days: float,
    cell: str = "",
) -> bytes:
    """DER of a node certificate for server and client use. `serial` is unique under this CA."""
    name = NodeName(network, role, node, cell)
    assert parse_uri(name.uri()) == name, f"not a node name: {name}"
    assert _DOMAIN.fullmatch(dns_name), f"not a DNS name: {dns_name}"
    assert 0 < serial < 2**159
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, base32(node))])
    builder = builder_for(spki, subject, now, days, serial=serial)
    builder = builder.issuer_name(read(ca.certificate).subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(usage(sign_certificates=False), True)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        False,
    )
    names = [x509.DNSName(dns_name), x509.UniformResourceIdentifier(name.uri())]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return ca.key.sign_certificate(with_key_ids(builder, spki, ca.key.spki()))


def make_crl(ca: Authority, serials: Iterable[int], now: float) -> bytes:
    """DER of an X.509 revocation list of `ca`, for programs that know no other kind.

    It never goes stale (`CRL_DAYS`): a list that is not renewed must stop nothing (D6).
    """
    at = datetime.fromtimestamp(int(now), tz=UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(read(ca.certificate).subject)
        .last_update(datetime.fromtimestamp(int(now) - BACKDATE_S, tz=UTC))
        .next_update(at + timedelta(days=CRL_DAYS))
    )
    for serial in sorted(serials):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
        builder = builder.add_revoked_certificate(entry.build())
    return ca.key.sign_crl(builder)


def crl_pem(der: bytes) -> bytes:
    """A revocation list as PEM."""
    return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)


def draw_serial(random: bytes) -> int:
    """A serial from 16 random bytes: unique over all issuers, so revocation needs no issuer."""
    assert len(random) == 16
    return int.from_bytes(random, "big") >> 1 | 1


# --- Reading and verifying -----------------------------------------------------------------------
def verify_chain(roots: Sequence[bytes], chain: Sequence[bytes], now: float) -> NodeName:
    """Who `chain` (leaf, intermediate) speaks for, if one of the pinned `roots` vouches for it.

    Raises PeerFault with code `certificate`. Says nothing of revocation: the caller asks its list
    about both certificates.
    """
    if len(chain) != 2:
        raise refused(f"a chain is leaf and intermediate, not {len(chain)} certificates")
    leaf, intermediate = cert_info(chain[0]), cert_info(chain[1])
    network = _check_intermediate(intermediate)
    if leaf.authority or leaf.name is None or not leaf.name.node or not leaf.dns:
        raise refused("the leaf is no node certificate")
    if leaf.name.network != network:
        raise refused("leaf and intermediate name different networks")
    trusted = [root for root in roots if _root_network(root) == network]
    _verify_path(trusted, chain[0], chain[1], now)
    if not leaf.dns.endswith("." + intermediate.domain):
        raise refused(f"{leaf.dns} lies outside {intermediate.domain}")
    return leaf.name


def verify_hq_proof(roots: Sequence[bytes], proof: bytes, signer: bytes, now: float) -> None:
    """Check that `signer` (Ed25519 public key) is the identity of an HQ with intermediate `proof`.

    Raises PeerFault with code `certificate`.
    """
    info = cert_info(proof)
    network = _check_intermediate(info)
    assert info.name is not None
    if info.name.node != node_id(signer):
        raise refused("the proof names another headquarters than the signer")
    for root in roots:
        if _root_network(root) == network and issued(root, proof) and _valid(root, now):
            if not _valid(proof, now):
                raise refused("the headquarters' certificate is expired or not yet valid")
            return
    raise refused("no pinned root vouches for this headquarters")


def _verify_path(trusted: Sequence[bytes], leaf: bytes, intermediate: bytes, now: float) -> None:
    if not trusted:
        raise refused("no pinned root of this network")
    store = Store([read(root) for root in trusted])
    policy = PolicyBuilder().store(store).time(datetime.fromtimestamp(now, tz=UTC))
    verifier = policy.max_chain_depth(1).build_client_verifier()
    try:
        verified = verifier.verify(read(leaf), [read(intermediate)])
    except (VerificationError, *PARSE_ERRORS) as error:
        # Some of a certificate is parsed only here: a subject that is no UTF-8 is a ValueError.
        raise refused(f"chain does not verify: {first_line(error)}") from error
    built = [item.public_bytes(serialization.Encoding.DER) for item in verified.chain]
    assert built[0] == leaf
    if built[1] != intermediate:
        raise refused("the chain does not run through its own intermediate")


def _check_intermediate(info: CertInfo) -> bytes:
    """The network an HQ's intermediate names. Raises PeerFault when it is none."""
    name = info.name
    if not info.authority or name is None or name.role != HQ_ROLE or not info.domain:
        raise refused("the issuer is no headquarters' intermediate")
    return name.network


def _root_network(der: bytes) -> bytes:
    """The network of a pinned root, empty for a link between two roots (`crypto.rootset`).

    Pins are ours, so a bad one is the operator's error.
    """
    try:
        info = cert_info(der)
    except PeerFault as error:
        raise UsageError(f"a pinned root does not parse: {error}") from error
    if not info.authority or info.name is None or info.name.role != ROOT_ROLE:
        raise UsageError("a pinned root is not a network root certificate")
    return info.name.network if is_self_signed(der) else b""


def _valid(der: bytes, now: float) -> bool:
    info = cert_info(der)
    return info.not_before <= now <= info.not_after


# --- Building ------------------------------------------------------------------------------------
def builder_for(
    spki: bytes, subject: x509.Name, now: float, days: float, *, serial: int
) -> x509.CertificateBuilder:
    start = int(now) - BACKDATE_S
    end = int(now + days * _DAY_S)
    assert 0 <= start < end
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(load_spki(spki))
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(start, tz=UTC))
        .not_valid_after(datetime.fromtimestamp(end, tz=UTC))
    )


def authority_extensions(
    builder: x509.CertificateBuilder, *, path_length: int, domain: str, uri: str
) -> x509.CertificateBuilder:
    constraints = x509.NameConstraints([x509.DNSName(domain)], None)
    alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), True)
        .add_extension(usage(sign_certificates=True), True)
        .add_extension(constraints, True)
        .add_extension(alternative, False)
    )


def with_key_ids(
    builder: x509.CertificateBuilder, spki: bytes, issuer_spki: bytes
) -> x509.CertificateBuilder:
    """Subject and authority key identifiers, so that verifiers find the way."""
    subject = x509.SubjectKeyIdentifier.from_public_key(load_spki(spki))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(load_spki(issuer_spki))
    return builder.add_extension(subject, False).add_extension(issuer, False)


def usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def serial_for(spki: bytes, now: float) -> int:
    """127 bits from key and time: distinct for every authority a root ever signs."""
    return draw_serial(sha256(spki, str(int(now)).encode())[:16])
