"""Splitting a secret so that any k of n shares give it back and k - 1 say nothing (D22).

Shamir's scheme over GF(256) (polynomial 0x11b), byte by byte; share x is the value of a random
polynomial of degree k - 1 at x = 1 ... 255, the secret its value at 0. Multiplication runs the same
steps whatever the operands are. A share carries no check of its own: whoever joins shares knows a
hash of the secret.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from operator import xor

SHARES_MAX = 255


def split(secret: bytes, threshold: int, count: int) -> dict[int, bytes]:
    """`count` shares by x, of which `threshold` give `secret` back."""
    assert 2 <= threshold <= count <= SHARES_MAX
    higher = [os.urandom(len(secret)) for _ in range(threshold - 1)]
    return {x: _at(x, [secret, *higher]) for x in range(1, count + 1)}


def join(shares: Mapping[int, bytes]) -> bytes:
    """The secret of exactly as many shares as the threshold; fewer give garbage."""
    assert len(shares) >= 2
    assert len({len(share) for share in shares.values()}) == 1
    size = len(next(iter(shares.values())))
    total = bytes(size)
    for x, share in shares.items():
        factor = 1
        for other in shares:
            if other != x:
                factor = _times(factor, _times(other, _inverse(other ^ x)))
        total = bytes(a ^ _times(factor, b) for a, b in zip(total, share, strict=True))
    return total


def _at(x: int, parts: list[bytes]) -> bytes:
    """The polynomials with coefficients `parts`, constant first, at x."""
    powers = [1]
    for _ in parts[1:]:
        powers.append(_times(powers[-1], x))
    columns = zip(*parts, strict=True)
    return bytes(reduce(xor, map(_times, powers, column)) for column in columns)


def _times(a: int, b: int) -> int:
    """Product in GF(256)."""
    total = 0
    for bit in range(8):
        total ^= a * (b >> bit & 1)
        a = (a << 1) ^ (0x11B * (a >> 7 & 1))
    return total


def _inverse(a: int) -> int:
    """a to the 254th power."""
    assert a
    result = 1
    for bit in (1, 1, 1, 1, 1, 1, 1, 0):
        result = _times(result, result)
        if bit:
            result = _times(result, a)
    return result
