"""Cursors (D14) and "caught up" (D13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PeerFault
from holdfast.logic.pool.cursors import CaughtUp, Cursors, Moved, Spot

A = Spot(b"a" * 32, b"1" * 16, b"t" * 32)
B = Spot(b"b" * 32, b"1" * 16, b"t" * 32)
A_RESTORED = Spot(b"a" * 32, b"2" * 16, b"t" * 32)


def test_defect_2_a_cursor_is_never_used_on_another_server() -> None:
    """0k-sync replays relay A's cursor in relay B's cursor space: blobs skipped in silence."""
    cursors = Cursors([Moved(A, 41)])
    assert cursors.at(A) == 41
    assert cursors.at(B) is None
    with pytest.raises(AssertionError):
        cursors.passed(B, 41, [42])


def test_a_restored_store_is_another_numbering() -> None:
    """D14: unknown incarnation: reconcile by id, never resume."""
    cursors = Cursors([Moved(A, 41)])
    assert cursors.at(A_RESTORED) is None
    assert cursors.reconciled(A_RESTORED, 7) == Moved(A_RESTORED, 7)
    assert cursors.at(A_RESTORED) == 7
    assert cursors.at(A) == 41


def test_defect_3_only_items_move_a_cursor() -> None:
    """0k-sync: `PushAck` sets the cursor to the highest seen: blobs of others are never pulled."""
    cursors = Cursors([Moved(A, 5)])
    assert cursors.passed(A, 5, [6, 9, 12]) == Moved(A, 12)
    assert cursors.passed(A, 12, []) is None
    assert cursors.at(A) == 12
    assert not [name for name in dir(cursors) if "push" in name or "receipt" in name]


@pytest.mark.parametrize("sequences", [[5], [4, 6], [6, 6], [7, 6], [6, 8, 7]])
def test_pages_out_of_order_are_a_peer_fault(sequences: list[int]) -> None:
    cursors = Cursors([Moved(A, 5)])
    with pytest.raises(PeerFault):
        cursors.passed(A, 5, sequences)
    assert cursors.at(A) == 5


def test_a_page_must_be_asked_for_from_where_the_cursor_is() -> None:
    cursors = Cursors([Moved(A, 5)])
    with pytest.raises(AssertionError):
        cursors.passed(A, 4, [6])


@given(st.lists(st.lists(st.integers(1, 5), max_size=5), max_size=20))
def test_a_cursor_never_moves_back(pages: list[list[int]]) -> None:
    cursors = Cursors()
    cursors.reconciled(A, 0)
    for steps in pages:
        after = cursors.at(A)
        assert after is not None
        sequences = [after + sum(steps[: n + 1]) for n in range(len(steps))]
        cursors.passed(A, after, sequences)
        assert cursors.at(A) == (sequences[-1] if sequences else after)
    assert cursors.reconciled(A, 0).sequence == cursors.at(A)


def test_caught_up_needs_two_relays() -> None:
    caught = CaughtUp(quorum=2)
    caught.read("a", to_the_end=True, lacking=0)
    assert not caught.yes
    caught.read("a", to_the_end=True, lacking=0)
    assert not caught.yes, "one relay twice is one relay"
    caught.read("b", to_the_end=False, lacking=0)
    assert not caught.yes
    caught.read("b", to_the_end=True, lacking=0)
    assert caught.yes
    assert caught.agreeing == {"a", "b"}


def test_an_empty_replacement_does_not_agree() -> None:
    caught = CaughtUp(quorum=2)
    caught.read("a", to_the_end=True, lacking=0)
    caught.read("fresh", to_the_end=True, lacking=1)
    assert not caught.yes


def test_news_ask_again() -> None:
    caught = CaughtUp(quorum=2)
    caught.read("a", to_the_end=True, lacking=0)
    caught.read("b", to_the_end=True, lacking=0)
    caught.news()
    assert not caught.yes
