"""A reader of age v1 files written from the specification (age-encryption.org/v1), for tests.

It shares nothing with the library under test: if it opens our files, so does stock `age`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CHUNK = 64 * 1024
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def open_with_passphrase(sealed: bytes, passphrase: str) -> bytes:
    arguments, body = _only_stanza(sealed, "scrypt")
    salt, work = _unbase64(arguments[0]), int(arguments[1])
    label = b"age-encryption.org/v1/scrypt" + salt
    key = Scrypt(salt=label, length=32, n=2**work, r=8, p=1).derive(passphrase.encode())
    return _payload(sealed, ChaCha20Poly1305(key).decrypt(bytes(12), body, b""))


def open_with_identity(sealed: bytes, identity: str) -> bytes:
    arguments, body = _only_stanza(sealed, "X25519")
    private = X25519PrivateKey.from_private_bytes(_bech32(identity.lower()))
    ephemeral = _unbase64(arguments[0])
    shared = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    own = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = _hkdf(shared, ephemeral + own, b"age-encryption.org/v1/X25519")
    return _payload(sealed, ChaCha20Poly1305(key).decrypt(bytes(12), body, b""))


def _only_stanza(sealed: bytes, kind: str) -> tuple[list[str], bytes]:
    lines = sealed.split(b"\n---", 1)[0].decode().split("\n")
    assert lines[0] == "age-encryption.org/v1"
    stanzas = [index for index, line in enumerate(lines) if line.startswith(f"-> {kind} ")]
    assert len(stanzas) == 1
    return lines[stanzas[0]].split(" ")[2:], _unbase64(lines[stanzas[0] + 1])


def _payload(sealed: bytes, file_key: bytes) -> bytes:
    split = sealed.index(b"\n---") + 4
    end = sealed.index(b"\n", split)
    tag = hmac.digest(_hkdf(file_key, b"", b"header"), sealed[:split], hashlib.sha256)
    assert hmac.compare_digest(tag, _unbase64(sealed[split + 1 : end].decode()))
    nonce, rest = sealed[end + 1 : end + 17], sealed[end + 17 :]
    cipher = ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))
    out, counter = b"", 0
    while rest:
        chunk, rest = rest[: CHUNK + 16], rest[CHUNK + 16 :]
        last = b"\x01" if not rest else b"\x00"
        out += cipher.decrypt(counter.to_bytes(11, "big") + last, chunk, b"")
        counter += 1
    return out


def _hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(key)


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


def _bech32(text: str) -> bytes:
    values = [CHARSET.index(letter) for letter in text.rpartition("1")[2][:-6]]
    bits = "".join(f"{value:05b}" for value in values)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8))
