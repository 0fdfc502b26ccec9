"""A secret of 32 bytes in a file that a passphrase opens: Argon2id and ChaCha20-Poly1305.

    "holdfast lock 1\\n" | memory KiB u32 | passes u32 | lanes u32 | salt 16 | nonce 12 | ciphertext

The costs lie in the file, so that they can rise; a file that asks for more than `MEMORY_KIB_MAX` is
refused. Everything before the ciphertext is authenticated.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from holdfast.errors import UsageError
from holdfast.limits.people import LOCK_LANES, LOCK_MEMORY_KIB, LOCK_PASSES

MAGIC: Final = b"holdfast lock 1\n"
MEMORY_KIB_MAX: Final = 4 * 1024 * 1024
_COSTS: Final = struct.Struct(">III")
_HEAD_BYTES: Final = len(MAGIC) + _COSTS.size + 16 + 12
SECRET_BYTES: Final = 32


def is_locked(data: bytes) -> bool:
    """Whether a key file is one of these."""
    return data.startswith(MAGIC)


def lock(secret: bytes, passphrase: str) -> bytes:
    """`secret` as a file that `passphrase` opens. Raises UsageError for an empty one."""
    assert len(secret) == SECRET_BYTES
    if not passphrase.strip():
        raise UsageError("an empty passphrase locks nothing; choose one")
    costs = _COSTS.pack(LOCK_MEMORY_KIB, LOCK_PASSES, LOCK_LANES)
    head = MAGIC + costs + os.urandom(16) + os.urandom(12)
    return head + ChaCha20Poly1305(_key(head, passphrase)).encrypt(head[-12:], secret, head)


def unlock(data: bytes, passphrase: str) -> bytes:
    """The secret. Raises UsageError for a wrong passphrase or a damaged file."""
    if not is_locked(data) or len(data) != _HEAD_BYTES + SECRET_BYTES + 16:
        raise UsageError("this is no locked key file; restore this device from its words")
    head = data[:_HEAD_BYTES]
    try:
        return ChaCha20Poly1305(_key(head, passphrase)).decrypt(head[-12:], data[len(head) :], head)
    except InvalidTag as error:
        raise UsageError("the passphrase is wrong; type it again") from error


def _key(head: bytes, passphrase: str) -> bytes:
    memory_kib, passes, lanes = _COSTS.unpack_from(head, len(MAGIC))
    if not (8 <= memory_kib <= MEMORY_KIB_MAX and 1 <= passes <= 64 and 1 <= lanes <= 64):
        raise UsageError("key file with costs that no device of ours wrote")
    salt = head[len(MAGIC) + _COSTS.size :][:16]
    kdf = Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=max(memory_kib, 8 * lanes)
    )
    return kdf.derive(" ".join(passphrase.split()).encode())
