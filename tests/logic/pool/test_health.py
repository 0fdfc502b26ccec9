"""Failover and reports (seed 004 §3.1, §7.1, §7.2)."""

from __future__ import annotations

import pytest

from holdfast.logic.pool.health import Health, Report

NODES = {name: name.encode().ljust(32, b".") for name in ("a", "b", "c")}


def healthy() -> Health:
    health = Health()
    assert set(health.seated(NODES)) == {"a", "b", "c"}
    return health


def test_backoff_one_two_four_to_thirty() -> None:
    """0k-sync §12.2: 1, 2, 4, 8, 16, 30 s and jitter."""
    health, waits = healthy(), []
    for _ in range(8):
        waits.append(health.failed("a", 0.0, 1_000.0, 0.0))
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert health.failures("a") == 8
    assert health.retry_at("a") == 30.0
    assert health.retry_at("b") == 0.0


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 1.0), (0.5, 1.25), (1.0, 1.5)])
def test_jitter_is_a_share_of_the_wait(jitter: float, wait: float) -> None:
    assert healthy().failed("a", 0.0, 0.0, jitter) == wait


def test_seed_004_7_1_survivors_are_told_once_per_episode_with_the_first_failure() -> None:
    """ "dead relay's logical name, timestamp of first failure" to the surviving relay."""
    health = healthy()
    health.failed("a", 0.0, 1_000.0, 0.0)
    health.failed("a", 1.0, 1_001.0, 0.0)
    owed = health.reports_owed("b")
    assert owed == (Report("b", "a", 1_000.0),)
    assert health.reports_owed("b") == owed, "still owed until delivered"
    health.told(owed)
    assert health.reports_owed("b") == ()
    health.failed("a", 2.0, 1_002.0, 0.0)
    assert health.reports_owed("b") == ()
    assert health.reports_owed("c") == (Report("c", "a", 1_000.0),)
    assert health.reports_owed("a") == ()


def test_a_new_episode_is_told_again() -> None:
    health = healthy()
    health.failed("a", 0.0, 1_000.0, 0.0)
    late = health.reports_owed("b")
    assert health.answered("a", 5.0)
    assert not health.answered("a", 5.0)
    assert health.reports_owed("b") == ()
    health.failed("a", 9.0, 1_009.0, 0.0)
    health.told(late)
    assert health.reports_owed("b") == (Report("b", "a", 1_009.0),)
    assert health.failures("a") == 1


def test_a_server_that_was_away_too_is_told_when_it_returns() -> None:
    health = healthy()
    health.failed("a", 0.0, 1_000.0, 0.0)
    health.failed("b", 0.0, 1_000.0, 0.0)
    assert health.failing() == {"a", "b"}
    assert health.reports_owed("b") == ()
    health.answered("b", 1.0)
    assert health.reports_owed("b") == (Report("b", "a", 1_000.0),)


def test_a_busy_server_is_left_alone_and_not_reported() -> None:
    health = healthy()
    assert health.asked_to_wait("a", 10.0, 5.0) == 15.0
    assert health.asked_to_wait("a", 10.0, 0.0) == 11.0
    assert health.asked_to_wait("a", 10.0, 9_999.0) == 40.0
    assert health.failing() == frozenset()
    assert health.reports_owed("b") == ()


def test_another_node_behind_the_name_ends_the_episode() -> None:
    health = healthy()
    health.failed("a", 0.0, 1_000.0, 0.0)
    assert health.seated(NODES) == ()
    assert health.failing() == {"a"}
    assert health.seated(NODES | {"a": b"new".ljust(32)}) == ("a",)
    assert health.failing() == frozenset()
    assert health.retry_at("a") == 0.0


def test_a_name_without_a_seat_is_forgotten() -> None:
    health = healthy()
    health.failed("a", 0.0, 1_000.0, 0.0)
    health.seated({name: NODES[name] for name in ("b", "c")})
    assert health.reports_owed("b") == ()
    assert health.failing() == frozenset()


def test_an_answer_to_an_older_question_ends_no_episode() -> None:
    """A server that is shutting down finishes what it had begun."""
    health = healthy()
    health.failed("a", 7.0, 1_000.0, 0.0)
    assert not health.answered("a", 6.9)
    assert health.failing() == {"a"}
    assert health.answered("a", 7.0)
