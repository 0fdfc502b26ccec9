"""The session table and its challenges (D17, seed 004 §11.3)."""

from __future__ import annotations

import pytest

from holdfast.errors import PeerFault
from holdfast.limits import CHALLENGE_LIFE_S, SESSION_EVICT_S
from holdfast.relay.sessions import Challenges, Kind, Sessions
from holdfast.rim.clock import ManualClock
from holdfast.rim.entropy import SeededEntropy
from holdfast.wire.faults import Refusal

SLOT = b"s" * 16


def _table(clock: ManualClock, most: int = 3) -> Sessions:
    return Sessions(clock, SeededEntropy(1), most, idle_s=600.0)


def test_a_challenge_is_known_again_until_it_expires() -> None:
    clock = ManualClock()
    challenges = Challenges(clock, SeededEntropy(1))
    challenge = challenges.make()
    clock.advance(CHALLENGE_LIFE_S)
    challenges.check(challenge)
    clock.advance(1)
    with pytest.raises(PeerFault):
        challenges.check(challenge)


def test_a_challenge_of_another_process_or_a_changed_one_is_refused() -> None:
    clock = ManualClock()
    challenges = Challenges(clock, SeededEntropy(1))
    challenge = challenges.make()
    with pytest.raises(PeerFault):
        Challenges(clock, SeededEntropy(2)).check(challenge)
    for at in range(len(challenge)):
        with pytest.raises(PeerFault):
            challenges.check(challenge[:at] + bytes((challenge[at] ^ 1,)) + challenge[at + 1 :])
        with pytest.raises(PeerFault):
            challenges.check(challenge[:at])
    assert challenges.make() != challenges.make()


def test_sessions_expire_when_idle_and_live_when_used() -> None:
    clock = ManualClock()
    sessions = _table(clock)
    used = sessions.open(Kind.GROUP, SLOT, tag=b"a" * 32)
    idle = sessions.open(Kind.GROUP, SLOT, tag=b"b" * 32)
    clock.advance(400)
    sessions.find(used.token)
    clock.advance(400)
    assert sessions.find(used.token) is used
    with pytest.raises(PeerFault) as gone:
        sessions.find(idle.token)
    assert gone.value.code == "session"
    sessions.expire()
    assert len(sessions) == 1


def test_the_table_is_full_until_somebody_leaves() -> None:
    clock = ManualClock()
    sessions = _table(clock)
    for tag in (b"a", b"b", b"c"):
        sessions.open(Kind.GROUP, SLOT, tag=tag * 32)
    with pytest.raises(Refusal) as full:
        sessions.open(Kind.GROUP, SLOT, tag=b"d" * 32)
    assert full.value.code == "busy"
    clock.advance(601)
    sessions.open(Kind.GROUP, SLOT, tag=b"d" * 32)
    assert len(sessions) == 1


def test_a_full_table_gives_away_the_place_longest_unused() -> None:
    """A flood of openings must not keep everybody out for the whole idle time."""
    clock = ManualClock()
    sessions = _table(clock)
    opened = [sessions.open(Kind.GROUP, SLOT, tag=tag * 32) for tag in (b"a", b"b", b"c")]
    clock.advance(SESSION_EVICT_S)
    sessions.find(opened[0].token)
    sessions.open(Kind.GROUP, SLOT, tag=b"d" * 32)
    with pytest.raises(PeerFault):
        sessions.find(opened[1].token)
    assert sessions.find(opened[0].token) is opened[0]
    assert len(sessions) == 3


def test_servers_have_places_of_their_own() -> None:
    """A flood of strangers must not make the peers' probes fail (§9.1: it spawns nothing)."""
    sessions = _table(ManualClock())
    for tag in (b"a", b"b", b"c"):
        sessions.open(Kind.GROUP, SLOT, tag=tag * 32)
    assert sessions.open(Kind.NODE, SLOT, node=b"n" * 32)
    with pytest.raises(Refusal):
        sessions.open(Kind.GROUP, SLOT, tag=b"d" * 32)


def test_condemned_sessions_end_at_once() -> None:
    sessions = _table(ManualClock())
    group = sessions.open(Kind.GROUP, SLOT, tag=b"a" * 32)
    node = sessions.open(Kind.NODE, SLOT, node=b"n" * 32)
    assert sessions.drop(lambda caller: caller.kind is Kind.NODE) == 1
    sessions.find(group.token)
    with pytest.raises(PeerFault):
        sessions.find(node.token)


def test_tokens_are_not_guessable() -> None:
    sessions = _table(ManualClock())
    token = sessions.open(Kind.GROUP, SLOT, tag=b"a" * 32).token
    assert len(token) == 16
    for guess in (b"", token[:-1], token + b"\x00", bytes(16)):
        with pytest.raises(PeerFault):
            sessions.find(guess)
