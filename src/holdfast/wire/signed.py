"""Signed bytes (D9): the signature covers exactly the bytes that travelled.

A signed object is `Signed(body, signer, signature)`. `body` is one type byte and the MessagePack
of the message; `signer` is a 32-byte Ed25519 public key; the signature covers

    "holdfast v1 " | context | 0x00 | body

Verify first, then decode; never re-encode. A type byte with its context is declared here, once:
an undeclared type cannot be signed or accepted.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar

import msgspec

from holdfast.errors import PeerFault
from holdfast.wire.codec import pack, unpack

T = TypeVar("T")
SIGNED_BYTES_MAX = 1024 * 1024


class Type(IntEnum):
    """Every kind of signed object. Numbers are wire format and never reused."""

    SLOT_RECORD = 1
    REVOCATIONS = 2
    RECEIPT_BATCH = 3
    OPERATION = 4
    DEVICE_STATEMENT = 5
    NODE_IDENTITY = 6
    SESSION = 7
    LEAVE = 8
    INVITE_REQUEST = 9
    INVITE_ANSWER = 10
    WITNESSES = 11
    OVERRIDE = 12
    TICKET_KEYS = 13
    PAIR_CARD = 20
    LETTER = 21
    PRESENCE = 22
    SIGHTING = 23
    ATTESTATION = 16
    FRONT_KEY = 30
    STORE_COPY = 31
    HQ_ADDRESSES = 32
    RELEASE = 33


CONTEXTS: dict[Type, str] = {
    Type.SLOT_RECORD: "slot record",
    Type.REVOCATIONS: "revocations",
    Type.RECEIPT_BATCH: "receipt batch",
    Type.OPERATION: "operation",
    Type.DEVICE_STATEMENT: "device statement",
    Type.NODE_IDENTITY: "node identity",
    Type.SESSION: "session",
    Type.LEAVE: "leave",
    Type.INVITE_REQUEST: "invite request",
    Type.INVITE_ANSWER: "invite answer",
    Type.WITNESSES: "witnesses",
    Type.OVERRIDE: "override",
    Type.TICKET_KEYS: "ticket keys",
    Type.PAIR_CARD: "pair card",
    Type.LETTER: "letter",
    Type.PRESENCE: "presence",
    Type.SIGHTING: "sighting",
    Type.ATTESTATION: "attestation",
    Type.FRONT_KEY: "front key",
    Type.STORE_COPY: "store copy",
    Type.HQ_ADDRESSES: "headquarters addresses",
    Type.RELEASE: "release",
}
assert set(CONTEXTS) == set(Type), "every signed type has a context"


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[body, signer, signature]` on the wire."""

    body: bytes
    signer: bytes
    signature: bytes


def body_of(kind: Type, message: object) -> bytes:
    """Type byte and MessagePack: the body that is signed and travels."""
    return bytes((kind,)) + pack(message)


def signing_input(body: bytes) -> bytes:
    """The bytes under the signature. Raises PeerFault for an undeclared type byte."""
    try:
        kind = Type(body[0])
    except (IndexError, ValueError) as error:
        raise PeerFault("signed body of an undeclared type") from error
    return b"holdfast v1 " + CONTEXTS[kind].encode() + b"\x00" + body


def decode_body(kind: Type, shape: type[T], signed: Signed) -> T:
    """Decode a body whose signature the caller has verified. Raises PeerFault."""
    if not signed.body or signed.body[0] != kind:
        raise PeerFault(f"signed object is not a {CONTEXTS[kind]}")
    return unpack(shape, memoryview(signed.body)[1:], bytes_max=SIGNED_BYTES_MAX)


def unpack_signed(data: bytes | memoryview) -> Signed:
    """Decode a `Signed` envelope, nothing verified. Raises PeerFault."""
    signed: Any = unpack(Signed, data, bytes_max=SIGNED_BYTES_MAX)
    if len(signed.signer) != 32 or len(signed.signature) != 64:
        raise PeerFault("signed envelope with a key or signature of the wrong size")
    assert isinstance(signed, Signed)
    return signed
