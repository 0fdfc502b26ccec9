"""One line that a person can copy: `<prefix>1<data><checksum>`, lower-case letters and digits.

The alphabet and the BCH checksum are bech32m's (BIP 350). Ours are longer than the 90 characters
for which that code names the wrong character, so it only detects: a damaged line passes with a
chance of 2^-30. Upper case is accepted whole (QR codes hold upper case in fewer modules), mixed
case is not; white space, which mail programs and line breaks add, is dropped.
"""

from __future__ import annotations

from typing import Final

from holdfast.errors import PeerFault

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32: Final = 1
_BECH32M: Final = 0x2BC830A3
_CHECKSUM_LETTERS: Final = 6
LINE_LETTERS_MAX: Final = 8_192
"""Twice what the largest QR code holds."""


def encode_line(prefix: str, data: bytes) -> str:
    """`data` as one line that starts with `prefix` and `1`."""
    assert prefix.isascii()
    assert prefix == prefix.lower()
    values = _to_fives(data)
    checksum = _polymod([*_expand(prefix), *values, *([0] * _CHECKSUM_LETTERS)]) ^ _BECH32M
    tail = [(checksum >> 5 * (5 - index)) & 31 for index in range(_CHECKSUM_LETTERS)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in (*values, *tail))


def encode_bech32(prefix: str, data: bytes) -> str:
    """As `encode_line`, with the checksum of BIP 173: for lines that others define, age's keys."""
    values = _to_fives(data)
    checksum = _polymod([*_expand(prefix), *values, *([0] * _CHECKSUM_LETTERS)]) ^ _BECH32
    tail = [(checksum >> 5 * (5 - index)) & 31 for index in range(_CHECKSUM_LETTERS)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in (*values, *tail))


def decode_line(prefix: str, line: str) -> bytes:
    """Inverse of `encode_line`. Raises PeerFault; its text says what is wrong with the line."""
    text = "".join(line.split())
    if len(text) > LINE_LETTERS_MAX:
        raise PeerFault(f"line of {len(text)} letters, limit {LINE_LETTERS_MAX}", code="too-large")
    if text != text.lower() and text != text.upper():
        raise PeerFault("line in mixed case: copy it again")
    text = text.lower()
    if not text.startswith(prefix + "1"):
        raise PeerFault(f"line does not start with {prefix}1: is it something else?")
    body = text[len(prefix) + 1 :]
    if len(body) < _CHECKSUM_LETTERS or any(letter not in _VALUES for letter in body):
        raise PeerFault("line is cut short or holds a letter it cannot hold: copy it again")
    values = [_VALUES[letter] for letter in body]
    if _polymod([*_expand(prefix), *values]) != _BECH32M:
        raise PeerFault("checksum of the line does not match: a letter is wrong or missing")
    return _from_fives(values[:-_CHECKSUM_LETTERS])


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(values: list[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                state ^= generator
    return state


def _to_fives(data: bytes) -> list[int]:
    bits = int.from_bytes(data, "big") << (-len(data) * 8) % 5
    count = -(-len(data) * 8 // 5)
    return [(bits >> 5 * (count - 1 - index)) & 31 for index in range(count)]


def _from_fives(values: list[int]) -> bytes:
    bits = 0
    for value in values:
        bits = bits << 5 | value
    spare = len(values) * 5 % 8
    if spare >= 5 or bits & ((1 << spare) - 1):
        raise PeerFault("line is not padded with zero bits")
    return (bits >> spare).to_bytes(len(values) * 5 // 8, "big")
