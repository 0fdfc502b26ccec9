"""Clients vanish while heartbeats live: name blocked, not node dead (Sigil Gate, failover)."""

from __future__ import annotations

from holdfast.limits.access import BLOCK_WINDOW_S
from holdfast.logic.access.blocked import Detector, Verdict


def watched(before: dict[str, int], after: dict[str, int | None]) -> Detector:
    detector = Detector()
    for entry, clients in before.items():
        detector.beat(entry, clients, 0.0)
    for entry, left in after.items():
        if left is not None:
            detector.beat(entry, left, BLOCK_WINDOW_S)
    return detector


def test_all_entries_lose_their_clients_and_live() -> None:
    detector = watched({"a": 40, "b": 30}, {"a": 2, "b": 0})
    assert detector.judge(BLOCK_WINDOW_S) == (Verdict.NAME_BLOCKED, ("a", "b"))


def test_one_entry_loses_its_clients() -> None:
    detector = watched({"a": 40, "b": 30}, {"a": 0, "b": 31})
    assert detector.judge(BLOCK_WINDOW_S) == (Verdict.ADDRESS_BLOCKED, ("a",))


def test_a_dead_node_is_no_blocked_name() -> None:
    detector = watched({"a": 40, "b": 30}, {"a": None, "b": 30})
    assert detector.judge(BLOCK_WINDOW_S) == (Verdict.FINE, ())
    detector = watched({"a": 40, "b": 30}, {"a": None, "b": None})
    assert detector.judge(BLOCK_WINDOW_S) == (Verdict.FINE, ())


def test_few_clients_and_slow_evenings_prove_nothing() -> None:
    assert watched({"a": 5}, {"a": 0}).judge(BLOCK_WINDOW_S) == (Verdict.FINE, ())
    assert watched({"a": 40}, {"a": 15}).judge(BLOCK_WINDOW_S) == (Verdict.FINE, ())


def test_an_entry_that_drains_is_forgotten() -> None:
    detector = watched({"a": 40}, {"a": 0})
    detector.forget("a")
    assert detector.judge(BLOCK_WINDOW_S) == (Verdict.FINE, ())
