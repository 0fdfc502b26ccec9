"""Eras and blobs (section 4): from one secret to immutable ciphertext named by its hash."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .wire import H, derive, keyed, public

LOG, BULK = 1, 2
SIZES = tuple(kib * 1024 for kib in (1, 4, 16, 64, 256, 1024))
VERSION, SUITE = 1, 1
HEADER = 1 + 1 + 4 + 32  # version, suite, born, salt
PREFIX = 1 + 4 + 4 + 4  # class, index, total, length
OVERHEAD = HEADER + PREFIX + 16  # and the authentication tag
NONCE = bytes(12)  # a key is used for one plaintext only: the salt depends on all of it


class SealError(Exception):
    """A blob that this era did not seal, or that somebody changed."""


@dataclass(frozen=True)
class Opened:
    """What is in a blob."""

    blob_class: int
    index: int
    total: int
    born: int
    payload: bytes


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return value.to_bytes(4, "big")


class Era:
    """Everything that follows from an era's secret."""

    def __init__(self, secret: bytes, network: bytes, number: int) -> None:
        self.network = network
        self.number = number
        self.content_key = derive("holdfast v1 era content", secret)
        self.salt_key = derive("holdfast v1 era salt", secret)
        self.access_seed = derive("holdfast v1 era access", secret)
        self.access = Ed25519PrivateKey.from_private_bytes(self.access_seed)
        self.tag = H(public(self.access))

    def _aad(self, version: int, suite: int, born: int) -> bytes:
        return bytes([version, suite]) + u32(born) + self.network + u32(self.number)

    def _cipher(self, blob_class: int, salt: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(keyed(self.content_key, bytes([blob_class]) + salt))

    def seal(
        self, payload: bytes, blob_class: int, born: int, index: int = 0, total: int = 1
    ) -> bytes:
        """A blob of the smallest size that holds the payload."""
        size = next((size for size in SIZES if size >= OVERHEAD + len(payload)), None)
        if size is None:
            raise SealError("the payload is too long for one blob")
        plaintext = bytes([blob_class]) + u32(index) + u32(total) + u32(len(payload)) + payload
        plaintext = plaintext.ljust(size - HEADER - 16, b"\x00")
        aad = self._aad(VERSION, SUITE, born)
        salt = keyed(self.salt_key, aad + plaintext)
        sealed = self._cipher(blob_class, salt).encrypt(NONCE, plaintext, aad)
        return bytes([VERSION, SUITE]) + u32(born) + salt + sealed

    def open(self, blob: bytes, blob_class: int) -> Opened:
        """Decrypt a blob of this class, and refuse it unless it is exactly as a sealer makes it."""
        if len(blob) not in SIZES or blob[0] != VERSION or blob[1] != SUITE:
            raise SealError("not a blob of this version")
        born, salt = int.from_bytes(blob[2:6], "big"), blob[6:HEADER]
        aad = self._aad(VERSION, SUITE, born)
        try:
            plaintext = self._cipher(blob_class, salt).decrypt(NONCE, blob[HEADER:], aad)
        except InvalidTag as error:
            raise SealError("it does not decrypt") from error
        if not hmac.compare_digest(salt, keyed(self.salt_key, aad + plaintext)):
            raise SealError("the salt is not that of the plaintext")
        index, total, length = (int.from_bytes(plaintext[i : i + 4], "big") for i in (1, 5, 9))
        if plaintext[0] != blob_class or length > len(plaintext) - PREFIX or index >= total:
            raise SealError("the plaintext contradicts itself")
        if any(plaintext[PREFIX + length :]):
            raise SealError("the padding is not zeros")
        return Opened(blob_class, index, total, born, plaintext[PREFIX : PREFIX + length])
