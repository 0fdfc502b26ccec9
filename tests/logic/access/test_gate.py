"""The gate of a core: a quota to the byte, a rate, and the owner first."""

from __future__ import annotations

import pytest

from holdfast.limits.access import RESERVE_FLOOR_BYTES_PER_S
from holdfast.logic.access.gate import SHARE, Gate


def test_the_quota_is_cut_at_the_byte_whichever_way() -> None:
    gate = Gate(0.0)
    assert not gate.allow(1_000, 0)
    assert gate.take(400, up=True) == 400
    assert gate.take(700, up=False) == 600
    assert gate.take(1, up=True) == 0
    assert (gate.upload, gate.download) == (400, 600)


def test_nothing_passes_before_orders_have_come() -> None:
    assert Gate(0.0).take(1, up=True) == 0


def test_a_lowered_quota_says_that_what_is_open_must_close() -> None:
    gate = Gate(0.0)
    gate.allow(1_000, 0)
    gate.take(500, up=True)
    assert gate.allow(500, 0)
    assert gate.take(1, up=True) == 0
    assert not gate.allow(501, 0)
    assert gate.take(9, up=True) == 1


def test_without_a_rate_nobody_waits() -> None:
    gate = Gate(0.0)
    gate.allow(10**12, 0)
    gate.take(10**9, up=False)
    assert gate.wait_s(0.0) == 0.0


def test_a_rate_holds_over_time() -> None:
    gate = Gate(0.0)
    gate.allow(10**12, 1_000_000)
    now, passed = 0.0, 0
    while now < 10.0:
        passed += gate.take(50_000, up=False)
        now += gate.wait_s(now) + 0.001
    assert passed == pytest.approx(10 * 1_000_000, rel=0.05)


def test_seed0_the_owner_goes_first_and_others_keep_a_floor() -> None:
    gate = Gate(0.0)
    gate.allow(10**12, 0)
    gate.own(100_000_000.0)
    assert gate.rate == 100_000_000.0 * SHARE
    gate.own(100_000.0)
    assert gate.rate == RESERVE_FLOOR_BYTES_PER_S
    gate.own(0.0)
    assert gate.rate == 0


def test_the_policys_rate_bounds_what_the_owner_leaves() -> None:
    gate = Gate(0.0)
    gate.allow(10**12, 1_000_000)
    gate.own(10**9)
    assert gate.rate == 1_000_000
    gate.own(0.0)
    assert gate.rate == 1_000_000
