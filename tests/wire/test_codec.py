"""The border of JSON: what it can say and we cannot keep (found by schemathesis)."""

from __future__ import annotations

import pytest

from holdfast.errors import PeerFault
from holdfast.wire.codec import Message, unpack_json


class Amount(Message):
    of: int


@pytest.mark.parametrize("of", [2**64 - 1, -(2**63), 10**18])
def test_integers_of_64_bits_are_taken(of: int) -> None:
    assert unpack_json(Amount, b'{"of":%d}' % of, bytes_max=100).of == of


@pytest.mark.parametrize("of", [2**64, -(2**63) - 1, 10**60])
def test_integers_that_nothing_can_keep_are_the_peers_fault(of: int) -> None:
    with pytest.raises(PeerFault):
        unpack_json(Amount, b'{"of":%d}' % of, bytes_max=100)
