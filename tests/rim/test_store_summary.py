"""Day summaries: the same whatever the order, and equal exactly when the items are (D11)."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from holdfast.crypto.pure import hash_bytes
from holdfast.rim.store.summary import Summaries, item_hash

Item = tuple[bytes, int, bytes, bytes, int]
ITEMS = st.lists(
    st.tuples(
        st.sampled_from([b"a" * 16, b"b" * 16]),
        st.integers(20_000, 20_002),
        st.sampled_from([b"t" * 32, b"u" * 32]),
        st.integers(0, 40).map(lambda n: hash_bytes(bytes((n,)))),
        st.sampled_from([1, 2]),
    ),
    unique=True,
    max_size=40,
)


def _summed(items: list[Item]) -> Summaries:
    summaries = Summaries()
    for item in items:
        summaries.add([item])
    return summaries


def test_the_hash_of_an_item_is_that_of_the_protocol() -> None:
    """PROTOCOL.md §5: `H(tag | blob id | class u8)`, little-endian."""
    digest = hash_bytes(b"t" * 32 + b"b" * 32 + b"\x02")
    assert item_hash(b"t" * 32, b"b" * 32, 2) == int.from_bytes(digest, "little")


@given(ITEMS)
def test_days_and_buckets_are_sums_of_their_items(items: list[Item]) -> None:
    summaries = _summed(items)
    for slot in (b"a" * 16, b"b" * 16):
        days: dict[int, list[Item]] = defaultdict(list)
        for item in items:
            if item[0] == slot:
                days[item[1]].append(item)
        assert [(d.born, d.count) for d in summaries.days(slot)] == [
            (born, len(of_day)) for born, of_day in sorted(days.items())
        ]
        for day in summaries.days(slot):
            total = sum(item_hash(*item[2:]) for item in days[day.born]) % 2**256
            assert int.from_bytes(day.total, "little") == total
            buckets = summaries.buckets(slot, day.born)
            assert {b.bucket for b in buckets} == {item[3][0] for item in days[day.born]}
            parts = sum(int.from_bytes(b.total, "little") for b in buckets) % 2**256
            assert parts == total
            assert sum(b.count for b in buckets) == day.count


@given(ITEMS, st.randoms())
def test_order_and_detours_do_not_matter(items: list[Item], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = _summed(shuffled)
    for item in items[::2]:
        other.remove(item)
    other.add(items[::2])
    summaries = _summed(items)
    for slot in (b"a" * 16, b"b" * 16):
        assert summaries.days(slot) == other.days(slot)
        for day in summaries.days(slot):
            assert summaries.buckets(slot, day.born) == other.buckets(slot, day.born)


@given(ITEMS, ITEMS)
def test_many_at_once_are_the_same_as_one_by_one(first: list[Item], second: list[Item]) -> None:
    """Also on top of what is there."""
    summaries = _summed(first)
    more = [item for item in second if item not in first]
    summaries.load(more)
    other = _summed(first + more)
    for slot in (b"a" * 16, b"b" * 16):
        assert summaries.days(slot) == other.days(slot)
        for day in summaries.days(slot):
            assert summaries.buckets(slot, day.born) == other.buckets(slot, day.born)


@given(ITEMS.filter(bool))
def test_one_item_less_is_another_sum(items: list[Item]) -> None:
    whole, less = _summed(items), _summed(items[1:])
    slot = items[0][0]
    assert whole.days(slot) != less.days(slot)
