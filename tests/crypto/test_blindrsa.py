"""Blind RSA against the test vectors of RFC 9474, Appendix A (`rfc9474.json`, as printed there)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from holdfast.crypto.blindrsa import (
    PREFIX_BYTES,
    SALT_BYTES,
    BlindPublicKey,
    BlindSigningKey,
    prepare,
)
from holdfast.errors import PeerFault, UsageError

VECTORS = json.loads(Path(__file__).with_name("rfc9474.json").read_text())


def number(vector: dict[str, Any], name: str) -> int:
    return int(vector[name], 16)


def key_of(vector: dict[str, Any]) -> BlindSigningKey:
    p, q, d = (number(vector, name) for name in "pqd")
    public = rsa.RSAPublicNumbers(number(vector, "e"), number(vector, "n"))
    numbers = rsa.RSAPrivateNumbers(
        p,
        q,
        d,
        rsa.rsa_crt_dmp1(d, p),
        rsa.rsa_crt_dmq1(d, q),
        rsa.rsa_crt_iqmp(p, q),
        public,
    )
    return BlindSigningKey(numbers.private_key())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_the_vectors_of_the_rfc(vector: dict[str, Any]) -> None:
    key = key_of(vector)
    n = number(vector, "n")
    prefix, message = bytes.fromhex(vector["msg_prefix"]), bytes.fromhex(vector["msg"])
    prepared = prepare(prefix, message) if prefix else message
    assert prepared == bytes.fromhex(vector["prepared_msg"])
    r = pow(number(vector, "inv"), -1, n)
    factor = r.to_bytes(key.public.factor_bytes, "big")
    blinded, inverse = key.public.blind(prepared, bytes.fromhex(vector["salt"]), factor)
    assert inverse == number(vector, "inv")
    assert blinded.hex() == vector["blinded_msg"]
    signed = key.sign_blinded(blinded, os.urandom(key.public.factor_bytes))
    assert signed.hex() == vector["blind_sig"]
    signature = int.from_bytes(signed, "big") * inverse % n
    assert f"{signature:0{len(vector['sig'])}x}" == vector["sig"]
    if len(bytes.fromhex(vector["salt"])) == SALT_BYTES:
        assert key.public.finalize(prepared, signed, inverse).hex() == vector["sig"]


def test_an_ordinary_library_verifies_it_and_a_cheating_signer_is_found() -> None:
    key = BlindSigningKey.generate()
    public = BlindPublicKey(key.public.spki)
    message = prepare(os.urandom(PREFIX_BYTES), b"a ticket")
    blinded, inverse = public.blind(message, os.urandom(48), os.urandom(public.factor_bytes))
    signed = key.sign_blinded(blinded, os.urandom(public.factor_bytes))
    signature = public.finalize(message, signed, inverse)
    plain = serialization.load_der_public_key(public.spki)
    assert isinstance(plain, rsa.RSAPublicKey)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    plain.verify(signature, message, pss, hashes.SHA384())
    assert not public.verify(message + b"x", signature)
    assert not public.verify(message, signature[:-1])
    small = b"\x00" + blinded[1:]  # below every modulus: the other key's may be the smaller one
    other = BlindSigningKey.generate().sign_blinded(small, os.urandom(272))
    with pytest.raises(PeerFault, match="no signature"):
        public.finalize(message, other, inverse)
    with pytest.raises(PeerFault, match="wrong size"):
        public.finalize(message, signed[1:], inverse)
    for bad in (b"", bytes(256), b"\xff" * 256, blinded + b"\x00"):
        with pytest.raises(PeerFault):
            key.sign_blinded(bad, os.urandom(272))


def test_keys_travel_and_others_are_refused() -> None:
    key = BlindSigningKey.generate()
    assert BlindSigningKey.from_pem(key.pem()).public.spki == key.public.spki
    assert "PRIVATE" not in repr(key)
    small = rsa.generate_private_key(65_537, 1024).public_key()
    der = small.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for bad in (b"", der, key.pem()):
        with pytest.raises(PeerFault):
            BlindPublicKey(bad)
    with pytest.raises(UsageError):
        BlindSigningKey.from_pem(b"no key")


def test_every_ticket_fits_every_request() -> None:
    """What both sides saw, and that it links nothing: for every pair of what the signer saw (a
    blinded message and its answer) and what a server saw (a message and its signature) there is
    a blinding factor that leads from one to the other, so each pair is as likely as any."""
    key, factors = BlindSigningKey.generate(), 3
    public, n = key.public, key._n
    signer_saw, server_saw = [], []
    for _ in range(factors):
        message = prepare(os.urandom(PREFIX_BYTES), b"ticket")
        blinded, inverse = public.blind(message, os.urandom(48), os.urandom(272))
        answer = key.sign_blinded(blinded, os.urandom(272))
        signer_saw.append((blinded, answer))
        server_saw.append((message, public.finalize(message, answer, inverse)))
    assert links(key, signer_saw, server_saw, n) == factors**2
    # Control: without blinding, the signer recognises each ticket, and nothing else fits.
    open_saw = [(pow(int.from_bytes(s, "big"), key._e, n), s) for _, s in server_saw]
    unblinded = [(encoded.to_bytes(256, "big"), s) for encoded, s in open_saw]
    matches = [
        sum(
            pow(int.from_bytes(s, "big"), key._e, n).to_bytes(256, "big") == b for b, _ in unblinded
        )
        for _, s in server_saw
    ]
    assert matches == [1] * factors
    recognised = [
        any(
            pow(int.from_bytes(s, "big"), key._e, n).to_bytes(256, "big") == b
            for b, _ in signer_saw
        )
        for _, s in server_saw
    ]
    assert recognised == [False] * factors


def links(
    key: BlindSigningKey,
    signer_saw: list[tuple[bytes, bytes]],
    server_saw: list[tuple[bytes, bytes]],
    n: int,
) -> int:
    """Pairs that some blinding factor explains."""
    fitting = 0
    for blinded, answer in signer_saw:
        for _, signature in server_saw:
            encoded = pow(int.from_bytes(signature, "big"), key._e, n)
            r = int.from_bytes(answer, "big") * pow(int.from_bytes(signature, "big"), -1, n) % n
            fitting += encoded * pow(r, key._e, n) % n == int.from_bytes(blinded, "big")
    return fitting
