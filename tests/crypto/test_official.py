"""What `wrap` seals with, against the published vectors.

* X-Wing: `spec/test-vectors.json` of draft-connolly-cfrg-xwing-kem.
* HPKE with MLKEM768-X25519, HKDF-SHA256, ChaCha20-Poly1305: `test-vectors.json` of
  draft-ietf-hpke-pq, the case of our very suite.

The library shows neither shared secrets nor additional data, so the algorithms stand here once
more, in forty lines from the drafts. They must give the published numbers, and then open what the
library seals.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.crypto.wrap import WrapKey, wrap

HERE = Path(__file__).parent / "official"
X_WING: list[dict[str, str]] = json.loads((HERE / "xwing.json").read_bytes())
HPKE: dict[str, Any] = json.loads((HERE / "hpke_pq.json").read_bytes())
LABEL = bytes.fromhex("5c2e2f2f5e5c")
"""The draft's XWingLabel, a little picture of an X-wing."""
SUITE = b"HPKE" + bytes.fromhex("647a00010003")
"""KEM MLKEM768-X25519, KDF HKDF-SHA256, AEAD ChaCha20-Poly1305."""


def of_hex(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


def decapsulate(seed: bytes, sealed: bytes) -> bytes:
    """X-Wing, section 5.5 of its draft."""
    spread = hashlib.shake_256(seed).digest(96)
    lattice = MLKEM768PrivateKey.from_seed_bytes(spread[:64])
    curve = X25519PrivateKey.from_private_bytes(spread[64:])
    first = lattice.decapsulate(sealed[:1088])
    second = curve.exchange(X25519PublicKey.from_public_bytes(sealed[1088:]))
    public = curve.public_key().public_bytes_raw()
    return hashlib.sha3_256(first + second + sealed[1088:] + public + LABEL).digest()


def extract(salt: bytes, label: bytes, key: bytes) -> bytes:
    """LabeledExtract, RFC 9180 section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + key, "sha256")


def expand(secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand, RFC 9180 section 4; one block is enough here."""
    data = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info + b"\x01"
    return hmac.digest(secret, data, "sha256")[:length]


def schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """(key, base nonce) of base mode, RFC 9180 section 5.1."""
    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)


@pytest.mark.parametrize("vector", X_WING, ids=lambda vector: vector["sk"][:8])
def test_x_wing_vectors(vector: dict[str, str]) -> None:
    seed = of_hex(vector, "sk")
    assert WrapKey(seed).public == of_hex(vector, "pk")
    assert decapsulate(seed, of_hex(vector, "ct")) == of_hex(vector, "ss")


def test_hpke_vector_of_our_suite() -> None:
    assert (HPKE["kem_id"], HPKE["kdf_id"], HPKE["aead_id"], HPKE["mode"]) == (0x647A, 1, 3, 0)
    seed, enc, info = (of_hex(HPKE, name) for name in ("skRm", "enc", "info"))
    assert WrapKey(seed).public == of_hex(HPKE, "pkRm")
    shared = decapsulate(seed, enc)
    key, nonce = schedule(shared, info)
    found = (shared, key, nonce)
    assert found == tuple(of_hex(HPKE, name) for name in ("shared_secret", "key", "base_nonce"))
    for case in HPKE["encryptions"]:
        opened = ChaCha20Poly1305(key).decrypt(
            of_hex(case, "nonce"), of_hex(case, "ct"), of_hex(case, "aad")
        )
        assert opened == of_hex(case, "pt")


def test_the_library_seals_what_the_drafts_open() -> None:
    seed = of_hex(HPKE, "skRm")
    sealed = wrap(WrapKey(seed).public, b"era secret", b"purpose")
    key, nonce = schedule(decapsulate(seed, sealed[:1120]), b"purpose")
    assert ChaCha20Poly1305(key).decrypt(nonce, sealed[1120:], None) == b"era secret"
