"""Just enough protobuf: what we write reads back, and garbage is refused."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.access.protobuf import field, fields, varint
from holdfast.errors import PeerFault

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""


def test_known_bytes() -> None:
    assert varint(300) == b"\xac\x02"
    assert field(1, 150) == b"\x08\x96\x01"
    assert field(2, "testing") == b"\x12\x07testing"


@UNHURRIED
@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2**63) | st.binary(max_size=300))))
def test_what_is_written_reads_back(items: list[tuple[int, int | bytes]]) -> None:
    data = b"".join(field(number, value) for number, value in items)
    assert list(fields(data)) == items


@UNHURRIED
@given(st.binary(max_size=60))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    try:
        list(fields(data))
    except PeerFault:
        return


@pytest.mark.parametrize("data", [b"\x08", b"\x12\x05abc", b"\x0d\0\0\0\0", b"\x80" * 12])
def test_what_is_cut_or_unknown_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        list(fields(data))
