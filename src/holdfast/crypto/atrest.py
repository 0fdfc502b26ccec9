"""What a device keeps in its database is sealed under one key, made of two halves (D22).

    key   = derive("holdfast v1 at rest", A | B)
    nonce = first 12 bytes of H(derive("holdfast v1 at rest nonce", key); where | data)
    kept  = nonce | ChaCha20-Poly1305(key, nonce, data, where)

A grows from the device's own key, which a passphrase locks; B, where there is one, lies with
carriers and comes to a device only while it works. `where` names the column. Equal values are kept
equal, so that they can be told apart by a unique index; nothing else shows.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.crypto.pure import derive_key, keyed_hash
from holdfast.errors import OperationFault


def own_half(device_seed: bytes) -> bytes:
    """A: the reader's half, from the seed of the device's key."""
    return derive_key("holdfast v1 at rest own half", device_seed)


class AtRest:
    """Seals and opens what is kept. `half` is B; empty while nobody carries one."""

    def __init__(self, device_seed: bytes, half: bytes = b"") -> None:
        assert len(half) in (0, 32)
        key = derive_key("holdfast v1 at rest", own_half(device_seed) + half)
        self._aead = ChaCha20Poly1305(key)
        self._nonces = derive_key("holdfast v1 at rest nonce", key)

    def seal(self, where: str, data: bytes) -> bytes:
        """`data` as it is kept in the column `where`."""
        name = where.encode()
        nonce = keyed_hash(self._nonces, name + b"\x00", data)[:12]
        return nonce + self._aead.encrypt(nonce, data, name)

    def open(self, where: str, kept: bytes) -> bytes:
        """What was kept. Raises OperationFault when the key does not fit, or the disk lied."""
        try:
            return self._aead.decrypt(kept[:12], kept[12:], where.encode())
        except (InvalidTag, ValueError) as error:
            raise OperationFault(
                "what this device keeps does not open: a half of its key is missing or wrong",
                retryable=False,
            ) from error
