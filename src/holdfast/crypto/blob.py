"""Sealing and opening blobs (D10).

    blob       = version u8 | suite u8 | born u32 | salt 32 | ciphertext
    ciphertext = ChaCha20-Poly1305(key, nonce 0, plaintext, aad), tag included
    plaintext  = class u8 | index u32 | total u32 | payload length u32 | payload | zeros
    aad        = version u8 | suite u8 | born u32 | network 16 | era u32
    salt       = BLAKE3-keyed(salt key, aad | plaintext)
    key        = BLAKE3-keyed(content key, class u8 | salt)

Integers are big-endian. `born` is days since 1970-01-01. Zeros fill the blob up to one of six
sizes. The opener recomputes the salt: that commits to the key and makes an identical retry an
identical blob. The id is BLAKE3 of the whole blob, so a keyless server can verify it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes, keyed_hash
from holdfast.errors import PeerFault
from holdfast.limits import BLOB_BUCKETS, BLOB_BYTES_MAX

VERSION = 1
SUITE_CHACHA20_POLY1305 = 1
HEADER = struct.Struct(">BBI32s")
INNER = struct.Struct(">BIII")
_AAD = struct.Struct(">BBI16sI")
_TAG_BYTES = 16
OVERHEAD_BYTES = HEADER.size + INNER.size + _TAG_BYTES
PAYLOAD_BYTES_MAX = BLOB_BYTES_MAX - OVERHEAD_BYTES
_NONCE = bytes(12)


class Opened(msgspec.Struct, frozen=True):
    """What a blob held. `index` of `total` blobs of one thing; a manifest of ids binds order."""

    payload: bytes
    blob_class: int
    index: int
    total: int
    born: int


class Header(NamedTuple):
    """What any server can read of a blob."""

    version: int
    suite: int
    born: int
    salt: bytes


def read_header(blob: bytes | memoryview) -> Header:
    """Parse and check the public part of a blob. Raises PeerFault."""
    if len(blob) not in BLOB_BUCKETS:
        raise PeerFault(f"blob of {len(blob)} bytes", code="size")
    header = Header(*HEADER.unpack_from(blob))
    if header.version != VERSION or header.suite != SUITE_CHACHA20_POLY1305:
        raise PeerFault(f"blob version {header.version} suite {header.suite}", code="version")
    return header


def blob_id(blob: bytes | memoryview) -> bytes:
    """BLAKE3 of the blob as it travels."""
    return hash_bytes(blob)


def seal(
    era: Era, blob_class: int, payload: bytes, born: int, *, index: int = 0, total: int = 1
) -> bytes:
    """The blob that holds `payload`, at most `PAYLOAD_BYTES_MAX` bytes of it."""
    assert len(payload) <= PAYLOAD_BYTES_MAX, "cut payloads before sealing"
    assert 0 <= index < total
    size = next(bucket for bucket in BLOB_BUCKETS if bucket >= len(payload) + OVERHEAD_BYTES)
    plaintext = INNER.pack(blob_class, index, total, len(payload)) + payload
    plaintext = plaintext.ljust(size - HEADER.size - _TAG_BYTES, b"\x00")
    aad = _AAD.pack(VERSION, SUITE_CHACHA20_POLY1305, born, era.network, era.number)
    salt = keyed_hash(era.salt_key, aad, plaintext)
    key = keyed_hash(era.content_key, bytes((blob_class,)), salt)
    sealed = ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, aad)
    return HEADER.pack(VERSION, SUITE_CHACHA20_POLY1305, born, salt) + sealed


def unseal(era: Era, blob_class: int, blob: bytes | memoryview) -> Opened:
    """Open a blob of this era. Raises PeerFault when it is anything else."""
    header = read_header(blob)
    key = keyed_hash(era.content_key, bytes((blob_class,)), header.salt)
    aad = _AAD.pack(header.version, header.suite, header.born, era.network, era.number)
    try:
        plaintext = ChaCha20Poly1305(key).decrypt(_NONCE, bytes(blob[HEADER.size :]), aad)
    except InvalidTag as error:
        raise PeerFault("blob does not open under this era", code="unopenable") from error
    if keyed_hash(era.salt_key, aad, plaintext) != header.salt:
        raise PeerFault("blob does not commit to this era's key", code="unopenable")
    inner_class, index, total, length = INNER.unpack_from(plaintext)
    if inner_class != blob_class or index >= total or length > len(plaintext) - INNER.size:
        raise PeerFault("blob with an impossible inner header", code="malformed")
    payload = plaintext[INNER.size : INNER.size + length]
    return Opened(payload, inner_class, index, total, header.born)
