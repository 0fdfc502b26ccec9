"""The campaign on the launch topology: what held, and that its judges see what does not."""

from __future__ import annotations

import pytest

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet.tiers import Tiers
from holdfast.logic.pool.cursors import Cursors, Moved, Spot
from holdfast.logic.pool.seats import Seats
from holdfast.sim.world.campaign import Outcome, Trial, short_trial
from holdfast.sim.world.chance import Chance
from holdfast.sim.world.disks import Disk, DiskFault
from holdfast.sim.world.repeat import compare, trace_of
from holdfast.sim.world.schedule import Trace
from holdfast.sim.world.stores import Full, Store

SLOT, TAG = b"s" * 16, b"t" * 32


def outcome(seed: int, hours: float = 1.0) -> Outcome:
    return Trial(seed, safety_s=hours * 3600.0, groups=20).run()


@pytest.mark.parametrize("seed", [1, 16])
def test_seeds_that_once_failed_hold(seed: int) -> None:
    """1: a path cut between servers, and three that clients used were replaced. 16: HQ stood still,
    took an alert before its first tick, and froze over a fleet that was well."""
    found = short_trial(seed).run()
    assert found.held, found.found
    assert found.faults > 0
    assert found.acked == found.written > 0


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [1011, 1017])
def test_whole_seeds_that_once_failed_hold(seed: int) -> None:
    """1011: a new HQ took its predecessor's RED for a reason to spawn while others reached the
    server. 1017: a liar with a thousand clients of its own, and two peers behind a cut path."""
    found = Trial(seed).run()
    assert found.held, found.found


def test_a_short_trial_is_the_same_twice() -> None:
    assert trace_of(5) == trace_of(5)


def test_a_difference_between_hash_seeds_is_named() -> None:
    report = compare(7, [[("a", 1), ("b", 1)], [("a", 1), ("c", 1)], [("a", 1), ("b", 1)]])
    assert report.differing == [8]
    assert not report.held


# --- Judges have teeth ---------------------------------------------------------------------------
def test_a_word_given_for_one_copy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: `stored` and `replicated` after one copy each (0k-sync's push)."""
    monkeypatch.setattr(Seats, "_quorum", lambda self, role, quorum, names: bool(names))
    found = outcome(1, hours=0.3).found
    assert any("called replicated by one relay" in line for line in found)


def test_a_cursor_carried_to_another_server_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: one cursor for all servers (0k-sync's pull) skips blobs."""

    def anywhere(self: Cursors, spot: Spot) -> int | None:
        return max(self._sequences.values(), default=None)

    def jump(self: Cursors, spot: Spot, after: int, numbers: list[int]) -> Moved | None:
        if not numbers:
            return None
        self._sequences[spot] = numbers[-1]
        return Moved(spot, numbers[-1])

    monkeypatch.setattr(Cursors, "at", anywhere)
    monkeypatch.setattr(Cursors, "passed", jump)
    assert any(not short_trial(seed).run().held for seed in (13, 3))


def test_a_spawn_without_need_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: one witness is enough."""
    monkeypatch.setattr(Tiers, "_is_confirmed", lambda self, server, failing, beating, now: True)
    assert any(outcome(seed).false_spawns for seed in (1, 2))


# --- The disk and the store ----------------------------------------------------------------------
def store() -> Store:
    chance = Chance(1, Trace())
    return Store(Disk(chance), chance)


def blob(number: int) -> tuple[bytes, int, bytes]:
    body = b"body %d" % number
    return hash_bytes(body), 20_000, body


def test_what_was_acknowledged_survives_a_power_cut() -> None:
    mine = store()
    mine.push(SLOT, TAG, 1, [blob(n) for n in range(20)], 0.0)
    mine.disk.append("020000.seg", b"half a record that was never synced")
    mine.disk.lose_power()
    mine.recover()
    assert all(mine.find(SLOT, blob(n)[0]) for n in range(20))
    assert mine.heads[SLOT, TAG] == 20


def test_rot_is_missing_and_said_to_be_so() -> None:
    mine = store()
    mine.push(SLOT, TAG, 1, [blob(1)], 0.0)
    before = mine.incarnation
    assert mine.disk.rot()
    mine.recover()
    assert mine.find(SLOT, blob(1)[0]) is None
    assert mine.incarnation != before


def test_a_full_disk_takes_nothing_back() -> None:
    mine = store()
    mine.push(SLOT, TAG, 1, [blob(1)], 0.0)
    mine.disk.room = 10
    with pytest.raises(Full):
        mine.push(SLOT, TAG, 1, [blob(2)], 0.0)
    assert mine.find(SLOT, blob(1)[0])
    assert mine.heads[SLOT, TAG] == 1


def test_after_a_failed_sync_nothing_is_written() -> None:
    mine = store()
    mine.push(SLOT, TAG, 1, [blob(1)], 0.0)
    mine.disk.sync_fails = True
    with pytest.raises(Full):
        mine.push(SLOT, TAG, 1, [blob(2)], 0.0)
    mine.disk.sync_fails = False
    with pytest.raises(Full):
        mine.push(SLOT, TAG, 1, [blob(2)], 0.0)
    with pytest.raises(DiskFault):
        Disk(Chance(1, Trace()), room=1).append("a", b"12")
