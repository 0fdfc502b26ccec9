"""Lines a person can copy (section 6): bech32m without its length limit."""

from __future__ import annotations

from collections.abc import Iterable

from .wire import WireError

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CONSTANT = 0x2BC830A3
GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _checksum(values: Iterable[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(GENERATORS):
            state ^= generator if top >> bit & 1 else 0
    return state


def _spread(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def encode(prefix: str, data: bytes) -> str:
    """`prefix`, `1`, the data in fives, six letters of checksum."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    check = _checksum([*_spread(prefix), *values, *[0] * 6]) ^ CONSTANT
    values += [check >> 5 * (5 - n) & 31 for n in range(6)]
    return prefix + "1" + "".join(ALPHABET[value] for value in values)


def decode(prefix: str, line: str) -> bytes:
    """Inverse of `encode`. Raises WireError."""
    text = "".join(line.split()).lower()
    if not text.startswith(prefix + "1"):
        raise WireError(f"not a {prefix} line")
    values = [ALPHABET.find(letter) for letter in text[len(prefix) + 1 :]]
    if min(values) < 0 or _checksum([*_spread(prefix), *values]) != CONSTANT:
        raise WireError("a letter is wrong or missing")
    bits = "".join(f"{value:05b}" for value in values[:-6])
    whole = len(bits) // 8 * 8
    if "1" in bits[whole:]:
        raise WireError("padding that is not zero")
    return bytes(int(bits[at : at + 8], 2) for at in range(0, whole, 8))
