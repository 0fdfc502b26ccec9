"""Path epochs: nobody who may still hold a path is dropped, and nothing is served for ever."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.limits.access import (
    EPOCH_AGE_S_MAX,
    EPOCH_LEAD_S,
    EPOCH_OFFSET_S_MAX,
    EPOCH_OVERLAP_S,
    EPOCH_PERIOD_S,
    EPOCHS_MAX,
)
from holdfast.logic.access.epochs import announced, closed, holds, is_due, opened
from holdfast.logic.access.model import Cell

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

HOUR_S = 3_600.0


def a_cell(now: float = 0.0) -> Cell:
    return opened(Cell("c1", "edge.example.net", "core.example.net", (), now), bytes(8), 0.5, now)


def turned(cell: Cell, times: int) -> Cell:
    for _ in range(times):
        cell = opened(cell, bytes(8), 0.0, cell.turns_at)
        cell = announced(cell, cell.epochs[-1].opened_at + EPOCH_LEAD_S)
    return cell


def test_entries_have_an_epoch_before_clients_are_told() -> None:
    cell = a_cell()
    assert cell.newest().number == 1
    fresh = opened(cell, bytes(8), 0.0, cell.turns_at)
    at = fresh.epochs[-1].opened_at
    assert announced(fresh, at + EPOCH_LEAD_S - 0.1).newest().number == 1
    assert announced(fresh, at + EPOCH_LEAD_S).newest().number == 2


def test_seed1_paths_are_sigil_gates() -> None:
    epoch = a_cell().newest()
    assert epoch.service_name() == "api.v2.rpc.0000000000000000"
    assert epoch.path() == "/assets/0000000000000000/"


def test_an_epoch_is_due_after_its_period_and_offset() -> None:
    cell = a_cell()
    due = EPOCH_PERIOD_S + 0.5 * EPOCH_OFFSET_S_MAX
    assert not is_due(cell, due - 1)
    assert is_due(cell, due)


def test_no_more_epochs_than_may_be() -> None:
    cell = turned(a_cell(), EPOCHS_MAX - 1)
    assert len(cell.epochs) == EPOCHS_MAX
    assert not is_due(cell, cell.turns_at + 1)


def test_seed1_a_client_of_yesterday_is_still_served() -> None:
    """v2rayNG refreshes every 24 hours at best; the paths turn every two."""
    cell = turned(a_cell(), 100)
    now = cell.newest().opened_at
    fetched = now - 24 * HOUR_S
    held = holds(cell, fetched)
    assert held is not None
    assert held in closed(cell, [fetched, now], now).epochs


def test_an_epoch_closes_once_all_have_fetched_and_the_overlap_is_over() -> None:
    cell = turned(a_cell(), 1)
    old, new = cell.epochs
    fetched = new.opened_at + EPOCH_LEAD_S + 1
    early = new.opened_at + EPOCH_LEAD_S + EPOCH_OVERLAP_S - 1
    assert closed(cell, [fetched], early).epochs == (old, new)
    assert closed(cell, [fetched], early + 2).epochs == (new,)
    assert closed(cell, [fetched, old.opened_at + 1], early + 2).epochs == (old, new)


def test_one_device_that_never_refreshes_costs_no_more_than_the_age() -> None:
    cell = turned(a_cell(), 1)
    new = cell.newest()
    assert len(closed(cell, [1.0], new.opened_at + EPOCH_LEAD_S + EPOCH_AGE_S_MAX - 1).epochs) == 2
    assert closed(cell, [1.0], new.opened_at + EPOCH_LEAD_S + EPOCH_AGE_S_MAX).epochs == (new,)


def test_devices_that_never_fetched_hold_nothing() -> None:
    cell = turned(a_cell(), 1)
    now = cell.newest().opened_at + EPOCH_LEAD_S + EPOCH_OVERLAP_S
    assert closed(cell, [0.0, 0.0], now).epochs == (cell.newest(),)


@UNHURRIED
@given(
    ages=st.lists(st.floats(0, EPOCH_AGE_S_MAX - EPOCH_PERIOD_S - EPOCH_OFFSET_S_MAX), max_size=8),
    turns=st.integers(0, 200),
)
def test_whatever_a_young_enough_device_holds_is_served(ages: list[float], turns: int) -> None:
    cell = turned(a_cell(), turns)
    now = cell.newest().opened_at + HOUR_S
    fetched = [max(1.0, now - age) for age in ages]
    served = closed(cell, fetched, now)
    for at in fetched:
        assert holds(cell, at) in served.epochs
    assert served.newest() == cell.newest()
