"""Limits of persons, their devices, friends and what they keep for each other."""

from __future__ import annotations

from typing import Final

from holdfast.limits import KIB, MIB

ERA_SEALS_MAX: Final = 512
"""Readers a new era is sealed to in one operation: 512 x 1.2 KiB fits OPERATION_BYTES_MAX."""
WRAP_PUBLIC_BYTES: Final = 1_216
"""An X-Wing public key: 1,184 of ML-KEM-768 and 32 of X25519."""
WRAPPED_BYTES_MAX: Final = 2 * KIB
"""A 32-byte secret under HPKE with X-Wing takes 1,168."""
CLAIMS_MAX: Final = 4_096
"""Grants and removals a group decides on; each may be weighed against every other. A group that
went through more founds a successor."""
FRIEND_DEVICES_MAX: Final = 32
FRIEND_ADDRESSES_MAX: Final = 16
"""Public, home, and what the last few places gave; more is not an address any more."""
PAIR_S_MAX: Final = 600.0
"""Wall seconds a code is good for: two people stand beside each other."""
LETTER_BYTES_MAX: Final = 8 * MIB
"""A request or answer between devices: four full blobs and room for their envelope."""
LETTERS_AT_ONCE_MAX: Final = 64
"""Connections a device answers at the same time; friends are few."""
LETTER_S_MAX: Final = 30.0
"""Real seconds for one request and its answer."""
VAULT_ASK_MAX: Final = 512
"""Blob ids in one request between vaults: 16 KiB of them."""
VAULT_ANSWER_BYTES_MAX: Final = 4 * MIB
"""Bodies in one answer; the rest is asked for again."""
COPIES_MIN: Final = 2
"""Seed 003: at least two copies of all data on devices we choose."""
HALVES_MAX: Final = 1_024
"""Halves and shares one carrier keeps for others; each is 1.3 KiB."""
LOCK_MEMORY_KIB: Final = 64 * KIB
LOCK_PASSES: Final = 3
LOCK_LANES: Final = 4
"""Argon2id as RFC 9106 recommends where 2 GiB are too much: 0.2 s here, and 64 MiB a guess."""
