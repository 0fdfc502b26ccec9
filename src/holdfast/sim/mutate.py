"""Making bad input out of good: the mutations that a decoder must survive.

Every choice comes from one seeded generator, so a failing input is named by (decoder, seed, number)
and can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.rim.entropy import Dice

_INTERESTING: Final = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\xc6\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\x91" * 64,
    b"[" * 64,
    b'{"a":' * 32,
    b"\xc0",
    b"\xc1",
)
"""Lengths that overflow, nesting that recurses, bytes that MessagePack never uses."""


class Mutator:
    """An endless source of bad inputs grown from a corpus."""

    def __init__(self, corpus: Sequence[bytes], seed: int) -> None:
        assert corpus, "a fuzzer without a corpus is blind"
        self._corpus = list(corpus)
        self._dice = Dice(seed)

    def next(self) -> bytes:
        """The next input: usually one or two mutations away from a valid one."""
        draw = self._dice.random()
        if draw < 0.02:
            return self._dice.randbytes(self._dice.randrange(0, 200))
        data = self._dice.choice(self._corpus)
        data = self._mutate(data)
        while self._dice.random() < 0.4:
            data = self._mutate(data)
        return data

    def _mutate(self, data: bytes) -> bytes:
        draw = self._dice
        kind = draw.randrange(8)
        at = draw.randrange(len(data) + 1)
        if kind == 0:
            return data[:at]
        if kind == 1:
            return data[:at] + draw.choice(_INTERESTING) + data[at:]
        if kind == 2:
            piece = draw.choice(_INTERESTING)
            return data[:at] + piece + data[at + len(piece) :]
        if kind == 3:
            other = draw.choice(self._corpus)
            return data[:at] + other[draw.randrange(len(other) + 1) :]
        if kind == 4:
            end = min(len(data), at + draw.randrange(1, 33))
            return data[:at] + data[end:]
        if kind == 5:
            end = min(len(data), at + draw.randrange(1, 33))
            return data[:end] + data[at:end] + data[end:]
        if kind == 6:
            return data[:at] + draw.randbytes(draw.randrange(1, 9)) + data[at:]
        return _flip(data, at, draw.randrange(8))


def _flip(data: bytes, at: int, bit: int) -> bytes:
    if at >= len(data):
        return data + bytes((1 << bit,))
    return data[:at] + bytes((data[at] ^ (1 << bit),)) + data[at + 1 :]
