"""Sealed calls: whoever is named opens them, sizes tell a class, bytes are bound (ADR 0044)."""

from __future__ import annotations

import pytest

from holdfast.crypto.sealedcall import (
    key_id,
    open_answer,
    open_request,
    padded,
    seal_answer,
    seal_request,
    unpadded,
)
from holdfast.crypto.wrap import WrapKey
from holdfast.errors import PeerFault

CLASSES = (64, 256)
ONE, TWO, OTHER = (WrapKey(bytes((n,)) * 32) for n in (1, 2, 3))
CONTENT = b"c" * 32


def ring(*keys: WrapKey) -> dict[bytes, WrapKey]:
    return {key_id(key.public): key for key in keys}


def test_any_named_headquarters_opens_it_and_no_other() -> None:
    sealed = seal_request(b"verb", [ONE.public, TWO.public], CONTENT, CLASSES)
    assert open_request(sealed, ring(ONE)) == open_request(sealed, ring(TWO)) == b"verb"
    with pytest.raises(PeerFault) as caught:
        open_request(sealed, ring(OTHER))
    assert caught.value.code == "front-key"


def test_a_size_tells_a_class() -> None:
    sizes = [len(seal_request(bytes(n), [ONE.public], CONTENT, CLASSES)) for n in (0, 1, 60, 61)]
    assert sizes[0] == sizes[1] == sizes[2] < sizes[3]
    answers = {len(seal_answer(bytes(n), b"r" * 32, b"s" * 32, CLASSES)) for n in (0, 5, 60)}
    assert len(answers) == 1
    with pytest.raises(PeerFault, match="limit 256"):
        padded(bytes(253), CLASSES)


@pytest.mark.parametrize("at", [0, 1, 5, 20, 1_100, 1_179, 1_190, -1])
def test_a_changed_byte_anywhere_is_refused(at: int) -> None:
    sealed = bytearray(seal_request(b"verb", [ONE.public], CONTENT, CLASSES))
    sealed[at] ^= 1
    with pytest.raises(PeerFault):
        open_request(bytes(sealed), ring(ONE))
    answer = bytearray(seal_answer(b"said", b"r" * 32, b"s" * 32, CLASSES))
    answer[at % len(answer)] ^= 1
    with pytest.raises(PeerFault):
        open_answer(bytes(answer), b"r" * 32)


def test_an_answer_opens_with_the_callers_key_alone() -> None:
    answer = seal_answer(b"said", b"r" * 32, b"s" * 32, CLASSES)
    assert open_answer(answer, b"r" * 32) == b"said"
    with pytest.raises(PeerFault):
        open_answer(answer, b"q" * 32)
    assert seal_answer(b"said", b"r" * 32, b"t" * 32, CLASSES) != answer


def test_padding_is_undone() -> None:
    for length in (0, 1, 59, 60, 252):
        assert unpadded(padded(b"x" * length, CLASSES)) == b"x" * length
    with pytest.raises(PeerFault):
        unpadded(b"\x00\x00\x00\x09short")
