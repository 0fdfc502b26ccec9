"""Sealing one call to several headquarters, and the answer to whoever called (ADR 0044).

    request = version u8 | count u8 | count times (key id 8 | wrapped 1,168) | ciphertext
    wrapped = HPKE to one front key of a fresh 32-byte content key, info = "holdfast v1 front"
    answer  = version u8 | salt 32 | ciphertext

Both ciphertexts are ChaCha20-Poly1305 with nonce 0 under a key used once: a request's content key,
and `derive("holdfast v1 front answer", reply key | salt)`, the reply key being inside the request.
The plaintext is `length u32 | payload | zeros`, filled up to a size class, so that a size tells a
class and nothing else. The associated data of a request is everything before the ciphertext.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.crypto.wrap import WRAP_OVERHEAD_BYTES, WrapKey, wrap
from holdfast.errors import PeerFault

VERSION: Final = 1
KEY_ID_BYTES: Final = 8
SECRET_BYTES: Final = 32
RECIPIENTS_MAX: Final = 16
"""Headquarters of one network that fronts know."""
_WRAPPED_BYTES: Final = SECRET_BYTES + WRAP_OVERHEAD_BYTES
_PIECE_BYTES: Final = KEY_ID_BYTES + _WRAPPED_BYTES
_LENGTH_BYTES: Final = 4
_NONCE: Final = bytes(12)
_INFO: Final = b"holdfast v1 front"


def key_id(public: bytes) -> bytes:
    """What names a front key in a request."""
    return hash_bytes(public)[:KEY_ID_BYTES]


def seal_request(
    payload: bytes, recipients: Sequence[bytes], content_key: bytes, classes: Sequence[int]
) -> bytes:
    """`payload` for whichever headquarters of `recipients` (front keys) gets it.

    `content_key` is 32 fresh random bytes. Raises PeerFault for a key that is none.
    """
    assert 0 < len(recipients) <= RECIPIENTS_MAX
    assert len(content_key) == SECRET_BYTES
    head = bytes((VERSION, len(recipients)))
    for public in recipients:
        head += key_id(public) + wrap(public, content_key, _INFO)
    return head + _encrypt(content_key, padded(payload, classes), head)


def open_request(sealed: bytes, keys: Mapping[bytes, WrapKey]) -> bytes:
    """The payload, opened by whichever of our `keys` (by id) it names.

    Raises PeerFault; the code is `front-key` when it names none of ours.
    """
    if len(sealed) < 2 or sealed[0] != VERSION or not 0 < sealed[1] <= RECIPIENTS_MAX:
        raise PeerFault("not a sealed request", code="malformed")
    end = 2 + sealed[1] * _PIECE_BYTES
    if len(sealed) <= end:
        raise PeerFault("a sealed request cut short", code="malformed")
    for start in range(2, end, _PIECE_BYTES):
        key = keys.get(sealed[start : start + KEY_ID_BYTES])
        if key is not None:
            content_key = key.unwrap(sealed[start + KEY_ID_BYTES : start + _PIECE_BYTES], _INFO)
            if len(content_key) != SECRET_BYTES:
                raise PeerFault("a content key of the wrong size", code="malformed")
            return unpadded(_decrypt(content_key, sealed[end:], sealed[:end]))
    raise PeerFault("sealed to no key of this headquarters", code="front-key")


def seal_answer(payload: bytes, reply_key: bytes, salt: bytes, classes: Sequence[int]) -> bytes:
    """`payload` for whoever drew `reply_key`. `salt` is 32 fresh random bytes."""
    assert len(salt) == SECRET_BYTES
    head = bytes((VERSION,)) + salt
    return head + _encrypt(_answer_key(reply_key, salt), padded(payload, classes), head)


def open_answer(sealed: bytes, reply_key: bytes) -> bytes:
    """Inverse of `seal_answer`. Raises PeerFault."""
    end = 1 + SECRET_BYTES
    if len(sealed) <= end or sealed[0] != VERSION:
        raise PeerFault("not a sealed answer", code="malformed")
    return unpadded(_decrypt(_answer_key(reply_key, sealed[1:end]), sealed[end:], sealed[:end]))


def _answer_key(reply_key: bytes, salt: bytes) -> bytes:
    return derive_key("holdfast v1 front answer", reply_key + salt)


def padded(payload: bytes, classes: Sequence[int]) -> bytes:
    """`length u32 | payload | zeros`, as long as the smallest class that holds it."""
    needed = _LENGTH_BYTES + len(payload)
    size = next((size for size in classes if size >= needed), None)
    if size is None:
        raise PeerFault(f"{len(payload)} bytes to seal, limit {max(classes)}", code="too-large")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload + bytes(size - needed)


def unpadded(data: bytes) -> bytes:
    """Inverse of `padded`. Raises PeerFault."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if len(data) < _LENGTH_BYTES + length:
        raise PeerFault("padding that is none", code="malformed")
    return data[_LENGTH_BYTES : _LENGTH_BYTES + length]


def _encrypt(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, aad)


def _decrypt(key: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, aad)
    except InvalidTag as error:
        raise PeerFault("sealed bytes do not open", code="unopenable") from error
