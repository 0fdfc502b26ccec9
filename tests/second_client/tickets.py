"""Tickets: blind RSA as RFC 9474 says, and the plain signature that comes of it (section 11)."""

from __future__ import annotations

import hashlib

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .wire import WireError

PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


def message(prefix: bytes, network: bytes) -> bytes:
    """What is signed."""
    return prefix + b"holdfast v1 ticket\x00" + network


def public_key(spki: bytes) -> rsa.RSAPublicKey:
    """The class's key."""
    key = serialization.load_der_public_key(spki)
    if not isinstance(key, rsa.RSAPublicKey):
        raise WireError("a ticket key is RSA")
    return key


def check(ticket: bytes, spki: bytes, network: bytes) -> bytes:
    """The prefix of a ticket that holds."""
    key_id, prefix, signature = msgpack.unpackb(ticket)
    if key_id != hashlib.sha256(spki).digest() or len(prefix) != 32:
        raise WireError("a ticket of another key")
    try:
        public_key(spki).verify(signature, message(prefix, network), PSS, hashes.SHA384())
    except InvalidSignature as error:
        raise WireError("headquarters did not sign this ticket") from error
    return prefix


def unblind(blind_signature: bytes, inverse: int, spki: bytes) -> bytes:
    """The signature inside a blind one."""
    n = public_key(spki).public_numbers().n
    value = int.from_bytes(blind_signature, "big") * inverse % n
    return value.to_bytes(len(blind_signature), "big")


def unblinded_message(blinded: bytes, inverse: int, spki: bytes) -> int:
    """The encoded message inside a blinded one."""
    numbers = public_key(spki).public_numbers()
    return int.from_bytes(blinded, "big") * pow(inverse, numbers.e, numbers.n) % numbers.n


def recovered(signature: bytes, spki: bytes) -> int:
    """The encoded message that a signature is over."""
    numbers = public_key(spki).public_numbers()
    return pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
