"""Between HQ and the offline root: the request HQ writes and the root signs.

    line = bech32m("hfcert", u8 version = 1 | MessagePack array of the fields)

It is public: it travels on any stick or screen. Two signatures say that whoever wrote it has both
keys, so that a root never vouches for a key that somebody else holds.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.certificates import csr_spki
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import verify_ed25519
from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import NetworkId
from holdfast.wire.bech32 import decode_line, encode_line
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign
from holdfast.wire.hq import NodeIdentity
from holdfast.wire.signed import Type, body_of, signing_input

PREFIX: Final = "hfcert"
VERSION: Final = 1
REQUEST_BYTES_MAX: Final = 4_096


class IntermediateRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """HQ's identity and the certificate request of its intermediate key. `str()` is the line."""

    network: NetworkId
    identity: bytes
    csr: bytes
    identity_signature: bytes

    def __str__(self) -> str:
        return encode_line(PREFIX, bytes((VERSION,)) + pack(self))


def make_request(network: NetworkId, identity: SigningKey, csr: bytes) -> IntermediateRequest:
    """The request for the intermediate key that signed `csr`."""
    proof = sign(identity, Type.NODE_IDENTITY, NodeIdentity(network, csr_spki(csr)))
    return IntermediateRequest(network, identity.public, csr, proof.signature)


def parse_request(line: str) -> IntermediateRequest:
    """The request of `line`, decoded only. Raises PeerFault."""
    data = decode_line(PREFIX, line)
    if not data or data[0] != VERSION:
        raise PeerFault("request of a version this program does not know", code="version")
    return unpack(IntermediateRequest, data[1:], bytes_max=REQUEST_BYTES_MAX)


def check_request(request: IntermediateRequest, network: NetworkId) -> bytes:
    """The SPKI to certify, once both signatures hold. Raises PeerFault."""
    if request.network != network:
        raise PeerFault("the request is of another network than this root", code="network")
    spki = csr_spki(request.csr)
    body = body_of(Type.NODE_IDENTITY, NodeIdentity(network, spki))
    if not verify_ed25519(request.identity, request.identity_signature, signing_input(body)):
        raise PeerFault("the identity key did not sign the request", code="signature")
    return spki
