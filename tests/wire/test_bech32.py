"""Lines that people copy: bech32m's own vectors, damage, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PeerFault
from holdfast.wire.bech32 import decode_line, encode_line


def test_bip350_vectors() -> None:
    """BIP 350, "Test vectors for Bech32m"; the checksum over an empty data part and over bytes."""
    assert encode_line("a", b"") == "a1lqfn3a"
    assert decode_line("a", "A1LQFN3A") == b""
    assert encode_line("abcdef", bytes.fromhex("ffbbcdeb38bdab49ca307b9ac5a928398a418820")) == (
        "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx"
    )


@given(st.binary(max_size=2_000))
def test_round_trip(data: bytes) -> None:
    line = encode_line("hfloc", data)
    assert decode_line("hfloc", line) == data
    assert decode_line("hfloc", line.upper()) == data
    assert decode_line("hfloc", f"  {line[:20]}\n {line[20:]} ") == data


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_wrong_letter_is_found(data: bytes, draw: st.DataObject) -> None:
    line = encode_line("hfloc", data)
    index = draw.draw(st.integers(6, len(line) - 1))
    letter = draw.draw(st.sampled_from([c for c in "qpzry9x8gf2tvdw0" if c != line[index]]))
    with pytest.raises(PeerFault):
        decode_line("hfloc", line[:index] + letter + line[index + 1 :])


@given(st.text(max_size=300))
def test_garbage_is_a_peer_fault(text: str) -> None:
    with pytest.raises(PeerFault):
        decode_line("hfinv", text)


def test_refusals_say_what_is_wrong() -> None:
    line = encode_line("hfloc", b"abc")
    for damaged, words in (
        (line[:-1], "checksum"),
        (line[:10].upper() + line[10:], "mixed case"),
        ("hfinv" + line[5:], "does not start"),
        (line.replace("1", "1b", 1), "cannot hold"),
        ("q" * 9_000, "limit"),
    ):
        with pytest.raises(PeerFault, match=words):
            decode_line("hfloc", damaged)
