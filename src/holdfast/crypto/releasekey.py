"""The key that signs releases, and the root's word for it (ADR 0041).

A release key is Ed25519, made where the root is and kept with people, never at headquarters:
whoever steals headquarters can hand out what was signed, and sign nothing. The root vouches with a
certificate that names the key, URI holdfast://<network hex>/release/<b32 of BLAKE3(key)>. It is
no authority and is issued by a root itself, so that no headquarters can make one. Its own subject
key is a P-256 key of the same seed, because certificates of this network have no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from holdfast.crypto.certificates import Authority, builder_for, serial_for, usage, with_key_ids
from holdfast.crypto.certinfo import cert_info, is_self_signed, issued, read
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import base32, node_id
from holdfast.crypto.tlskey import TlsKey, refused
from holdfast.errors import PeerFault, UsageError
from holdfast.limits.upgrade import RELEASE_KEY_DAYS

RELEASE_ROLE: Final = "release"


def certify_release_key(root: Authority, key: SigningKey, now: float) -> bytes:
    """DER of the root's certificate for a release key, valid `RELEASE_KEY_DAYS`."""
    info = cert_info(root.certificate)
    assert info.name is not None, "a root names its network"
    spki = TlsKey.from_bytes(key.seed).spki()
    node = node_id(key.public)
    subject = x509.Name(
        [x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, f"Holdfast release {base32(node)[:16]}")]
    )
    builder = builder_for(spki, subject, now, RELEASE_KEY_DAYS, serial=serial_for(spki, now))
    builder = builder.issuer_name(read(root.certificate).subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(usage(sign_certificates=False), True)
    uri = f"holdfast://{info.name.network.hex()}/{RELEASE_ROLE}/{base32(node)}"
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = with_key_ids(builder.add_extension(names, False), spki, root.key.spki())
    return root.key.sign_certificate(builder)


def verify_release_proof(roots: Sequence[bytes], proof: bytes, signer: bytes, now: float) -> bytes:
    """The network for which `signer` (Ed25519 public key) may sign releases, by `proof` (DER).

    Raises PeerFault with code `certificate`, UsageError when a pinned root does not parse.
    """
    info = cert_info(proof)
    name = info.name
    if info.authority or name is None or name.role != RELEASE_ROLE:
        raise refused("the proof is no release key's certificate")
    if name.node != node_id(signer):
        raise refused("the proof names another release key than the signer")
    if not info.not_before <= now <= info.not_after:
        raise refused("the release key's certificate is expired or not yet valid")
    for root in roots:
        try:
            pinned = cert_info(root)
        except PeerFault as error:
            raise UsageError(f"a pinned root does not parse: {error}") from error
        same = pinned.name is not None and pinned.name.network == name.network
        valid = pinned.not_before <= now <= pinned.not_after
        if same and valid and is_self_signed(root) and issued(root, proof):
            return name.network
    raise refused("no pinned root vouches for this release key")
