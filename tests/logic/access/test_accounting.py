"""Counters: no loss and no double count through restarts, repeats and disorder."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.logic.access.accounting import Meter, Spool, Total, credit

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

Told = tuple[tuple[str, Total], ...]


def meter(spool: Spool | None = None) -> Meter:
    return Meter(spool or Spool(bytes(16), 0, {}))


def test_readings_become_totals_that_survive_a_restart_of_the_proxy() -> None:
    one = meter()
    assert one.read({"d": Total(10, 100)})
    assert one.read({"d": Total(15, 100)})
    one.restarted()
    assert one.read({"d": Total(1, 2)})
    assert one.spool.totals["d"] == Total(16, 102)
    assert not one.read({"d": Total(1, 2)})


def test_a_counter_that_was_reset_behind_our_back_is_all_new() -> None:
    one = meter()
    one.read({"d": Total(10, 10)})
    one.read({"d": Total(3, 10)})
    assert one.spool.totals["d"] == Total(13, 10)


def test_a_restarted_agent_goes_on_where_its_spool_ended() -> None:
    one = meter()
    one.read({"d": Total(10, 10)})
    two = meter(one.spool)
    two.read({"d": Total(4, 4)})
    assert two.report() == (2, (("d", Total(14, 14)),))


def test_what_is_confirmed_is_not_told_again_and_what_moved_since_is() -> None:
    one = meter()
    one.read({"a": Total(1, 1), "b": Total(1, 1)})
    sequence, told = one.report()
    one.confirmed(sequence, [s for s, _ in told])
    assert one.report()[1] == ()
    one.read({"b": Total(2, 2), "a": Total(1, 1)})
    assert [s for s, _ in one.report()[1]] == ["b"]
    sequence, told = one.report()
    one.read({"a": Total(5, 5), "b": Total(2, 2)})
    one.confirmed(sequence, [s for s, _ in told])
    assert {s for s, _ in one.report()[1]} == {"a", "b"}


@UNHURRIED
@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans()), max_size=20),
    order=st.randoms(use_true_random=False),
)
def test_reports_lost_repeated_and_shuffled_count_every_byte_once(
    steps: list[tuple[str, int, bool]], order: Random
) -> None:
    one, real, shown, sent = meter(), Counter[str](), Counter[str](), list[Told]()
    for subject, size, restart in steps:
        if restart:
            one.restarted()
            shown.clear()
        shown[subject] += size
        real[subject] += size
        one.read({s: Total(n, 0) for s, n in shown.items()})
        sent.append(one.report()[1])
    sent += sent
    order.shuffle(sent)
    known: dict[str, Total] = {}
    counted = Counter[str]()
    for told in sent:
        known, gains = credit(known, told)
        counted.update({s: total.upload for s, total in gains.items()})
    assert +counted == +real
