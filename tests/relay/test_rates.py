"""Token buckets (D17)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.limits import KIB
from holdfast.relay.rates import Bucket, Rates, cost_of
from holdfast.wire.faults import Refusal


def test_a_request_costs_one_and_a_unit_for_each_64_kib() -> None:
    assert cost_of(0) == 1.0
    assert cost_of(64 * KIB) == 2.0
    assert cost_of(1_024 * KIB) == 17.0


def test_a_bucket_says_when_to_come_back() -> None:
    bucket = Bucket(rate=10.0, burst=20.0, now=0.0)
    assert all(bucket.take(1.0, 0.0) == 0.0 for _ in range(20))
    assert bucket.take(1.0, 0.0) == pytest.approx(0.1)
    assert bucket.take(1.0, 0.05) == pytest.approx(0.05)
    assert bucket.take(1.0, 0.11) == 0.0


def test_a_cost_above_the_burst_is_paid_off_afterwards() -> None:
    bucket = Bucket(rate=10.0, burst=5.0, now=0.0)
    assert bucket.take(25.0, 0.0) == 0.0
    assert bucket.take(1.0, 1.0) > 0.0
    assert bucket.take(1.0, 2.2) == 0.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 30)), max_size=50))
def test_nobody_gets_more_than_burst_and_rate(steps: list[tuple[float, float]]) -> None:
    bucket = Bucket(rate=3.0, burst=7.0, now=0.0)
    now = taken = 0.0
    for wait, cost in steps:
        now += wait
        if bucket.take(cost, now) == 0.0:
            taken += cost
            assert taken <= 7.0 + 3.0 * now + max(0.0, cost - 7.0) + 1e-6


def test_keys_do_not_share_a_bucket_and_idle_ones_are_forgotten() -> None:
    rates = Rates(Bucket(100.0, 100.0, 0.0), keys_max=2)
    rates.charge(b"a", 1.0, 1.0, 1.0, 0.0)
    with pytest.raises(Refusal) as refused:
        rates.charge(b"a", 1.0, 1.0, 1.0, 0.0)
    assert (refused.value.code, refused.value.retry_after_s) == ("rate", pytest.approx(1.0))
    rates.charge(b"b", 1.0, 1.0, 1.0, 0.0)
    rates.charge(b"c", 1.0, 1.0, 1.0, 0.0)
    assert len(rates._buckets) == 2
