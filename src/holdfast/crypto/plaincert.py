"""A small authority of its own for a foreign service that speaks TLS (etcd, a directory).

Such a service knows nothing of networks, roles or node ids, so its certificates do not descend
from the network root: who steals one of them gets into that service and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.crypto.certificates import (
    Authority,
    builder_for,
    serial_for,
    usage,
    with_key_ids,
)
from holdfast.crypto.certinfo import read
from holdfast.crypto.tlskey import TlsKey
from holdfast.limits import INTERMEDIATE_DAYS


def create_plain_authority(seed: bytes, name: str, now: float) -> Authority:
    """A self-signed authority that may sign leaves only. `seed` is 32 random bytes."""
    key = TlsKey.from_bytes(seed)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    serial = serial_for(key.spki(), now)
    builder = builder_for(key.spki(), subject, now, INTERMEDIATE_DAYS, serial=serial)
    builder = (
        builder.issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(usage(sign_certificates=True), True)
    )
    return Authority(key.sign_certificate(with_key_ids(builder, key.spki(), key.spki())), key)


def issue_plain_leaf(
    authority: Authority, key: TlsKey, name: str, hosts: Sequence[str], now: float
) -> bytes:
    """DER of a certificate for a server at `hosts` (addresses or names) and as a client."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    serial = serial_for(key.spki(), now)
    builder = builder_for(key.spki(), subject, now, INTERMEDIATE_DAYS, serial=serial)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        builder.issuer_name(read(authority.certificate).subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(usage(sign_certificates=False), True)
        .add_extension(x509.ExtendedKeyUsage(purposes), False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, False)
    return authority.key.sign_certificate(with_key_ids(builder, key.spki(), authority.key.spki()))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
