"""`holdfast root release-key`: the key that signs releases, made where the root is (ADR 0041)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from holdfast.crypto.certificates import Authority, cert_info, from_pem, to_pem
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.releasekey import certify_release_key
from holdfast.errors import UsageError
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, write_file

KEY_FILE: Final = "release.key"
CERTIFICATE_FILE: Final = "release.crt"


def make_release_key(root: Authority, directory: Path, now: float, entropy: Entropy) -> bytes:
    """A release key and the root's certificate for it, in a new directory; the certificate, DER.
    A directory that has a key gets a new certificate for it."""
    make_private_directory(directory)
    seed = read_file(directory / KEY_FILE)
    if seed is None:
        seed = entropy.bytes(32)
        write_file(directory / KEY_FILE, seed)
    certificate = certify_release_key(root, _key(directory, seed), now)
    write_file(directory / CERTIFICATE_FILE, to_pem([certificate]), mode=0o644)
    return certificate


def read_release_key(directory: Path) -> tuple[SigningKey, bytes, bytes]:
    """(key, its certificate in DER, the network). Raises UsageError."""
    seed, pem = read_file(directory / KEY_FILE), read_file(directory / CERTIFICATE_FILE)
    if seed is None or pem is None:
        raise UsageError(
            f"{directory} holds no release key; it is made where the root is: holdfast root"
            " release-key"
        )
    certificate = from_pem(pem)[0]
    name = cert_info(certificate).name
    if name is None:
        raise UsageError(f"{directory / CERTIFICATE_FILE} is no release key's certificate")
    return _key(directory, seed), certificate, name.network


def _key(directory: Path, seed: bytes) -> SigningKey:
    if len(seed) != 32:
        raise UsageError(f"{directory / KEY_FILE} is damaged")
    return SigningKey(seed)
