"""Drawing RSA keys for tickets: the library draws its own primes, so it happens at the rim."""

from __future__ import annotations

from holdfast.crypto.blindrsa import BlindSigningKey


def new_blind_key() -> BlindSigningKey:
    """A key nobody else has; takes a tenth of a second."""
    return BlindSigningKey.generate()
