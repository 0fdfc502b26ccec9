"""The filter before the index: never a miss, few false alarms, also when it has grown."""

from __future__ import annotations

from holdfast.crypto.pure import hash_bytes
from holdfast.rim.store.seen import Seen


def _ids(start: int, count: int) -> list[bytes]:
    return [hash_bytes(number.to_bytes(8, "big")) for number in range(start, start + count)]


def test_what_is_in_is_found_and_what_is_not_mostly_is_not() -> None:
    """Six layers: 64, 256, ... 65,536. Each is wrong for 1.4 % of the others when full."""
    seen = Seen(room=64)
    inside = _ids(0, 30_000)
    for blob in inside:
        seen.add(blob)
    assert all(blob in seen for blob in inside)
    wrong = sum(blob in seen for blob in _ids(1_000_000, 10_000))
    assert 0 < wrong < 1_000


def test_an_empty_one_knows_nothing() -> None:
    assert not any(blob in Seen() for blob in _ids(0, 100))
