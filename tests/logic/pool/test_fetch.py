"""Fetching by id from many servers: failover, wrong bytes, and honest absence."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from holdfast.logic.pool.fetch import Fetch

IDS = [bytes([n]) * 32 for n in range(6)]


def test_servers_share_the_work() -> None:
    fetch = Fetch(IDS, ["a", "b"])
    first, second = fetch.take("a", 4), fetch.take("b", 4)
    assert sorted(first + second) == IDS
    for name, taken in (("a", first), ("b", second)):
        assert all(fetch.got(name, blob) for blob in taken)
    assert fetch.over
    assert fetch.missing == ()
    assert fetch.done == 6


def test_what_one_lacks_goes_to_the_other() -> None:
    fetch = Fetch(IDS[:1], ["a", "b"])
    (blob,) = fetch.take("a", 9)
    fetch.lacks("a", blob)
    assert fetch.take("a", 9) == ()
    assert not fetch.over
    assert fetch.take("b", 9) == (blob,)
    fetch.lacks("b", blob)
    assert fetch.over
    assert fetch.missing == (blob,)


def test_a_server_that_fails_hands_its_work_back() -> None:
    fetch = Fetch(IDS, ["a", "b"])
    taken = fetch.take("a", 6)
    fetch.failed("a")
    assert fetch.take("a", 6) == ()
    assert sorted(fetch.take("b", 6)) == sorted(taken)
    assert not fetch.got("a", IDS[0])


def test_with_every_server_gone_all_is_missing() -> None:
    fetch = Fetch(IDS, ["a"])
    fetch.failed("a")
    assert fetch.over
    assert len(fetch.missing) == 6


def test_a_short_reply_is_asked_for_again() -> None:
    fetch = Fetch(IDS, ["a"])
    taken = fetch.take("a", 6)
    assert fetch.got("a", taken[0])
    fetch.later("a", taken[1:])
    assert len(fetch.take("a", 6)) == 5


def test_a_blob_that_was_not_asked_for_is_not_taken() -> None:
    fetch = Fetch(IDS[:1], ["a", "b"])
    assert not fetch.got("b", IDS[0])
    assert not fetch.got("a", IDS[5])
    fetch.lacks("b", IDS[0])
    assert fetch.take("b", 1) == (IDS[0],)


@given(st.integers(0, 2**32))
def test_every_id_is_got_or_missing_and_missing_means_nobody_has_it(seed: int) -> None:
    random = Random(seed)
    disks = {name: {blob for blob in IDS if random.random() < 0.4} for name in "abc"}
    fetch, alive, got = Fetch(IDS, "abc"), set("abc"), set()
    while not fetch.over:
        name = random.choice(sorted(alive))
        taken = fetch.take(name, random.randint(1, 3))
        fate = random.choice(["works", "works", "works", "dies", "short"])
        if fate == "dies" and len(alive) > 1:
            alive.discard(name)
            fetch.failed(name)
            continue
        for index, blob in enumerate(taken):
            if fate == "short" and index:
                fetch.later(name, [blob])
            elif blob in disks[name]:
                assert fetch.got(name, blob)
                got.add(blob)
            else:
                fetch.lacks(name, blob)
    have = set().union(*(disks[name] for name in alive))
    assert set(fetch.missing) == set(IDS) - got
    assert not set(fetch.missing) & have
