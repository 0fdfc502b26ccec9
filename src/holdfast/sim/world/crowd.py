"""Users: what they notice, what they tell, and how many of their relays answer.

A user is in touch 36 times a day (seed 004 §11.3: 11 pushes, 25 messages), every 2,400 seconds
from a moment of its own, with all six servers of its slot. What does not answer it reports to what
does, once for each run of failures (`logic.pool.health`). Records are followed under D4
(`logic.trust.adoption`).

Two forms of the same thing. `Singles` makes every contact happen and gives every user a `Health`
of its own. `Cohorts` keeps one of each for a slot and makes contacts happen only while something
is wrong with one of its six servers: what users would have done before that is told to the
observers at the moment it begins to matter. Both must lead to the same tiers and spawns, and
`holdfast sim run` checks that they do.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.limits import ACTIVE_WINDOW_S, RELAYS_PER_SLOT
from holdfast.logic.fleet.model import NodeId, Seat, SlotId, SlotRecord
from holdfast.logic.fleet.observer import Active, Reported
from holdfast.logic.fleet.rows import SlotRow
from holdfast.logic.pool.health import Health
from holdfast.logic.trust.adoption import Known, Verdict, judge
from holdfast.rim.entropy import Dice

if TYPE_CHECKING:
    from holdfast.sim.world.fleet import World
    from holdfast.sim.world.servers import Server

CONTACTS_PER_DAY: Final = 36
PERIOD_S: Final = 86_400 / CONTACTS_PER_DAY
HOME_FRACTION: Final = 0.8
"""The others live in a region that has no servers of its own (§11.4)."""
GUESTS: Final = {"eu": "af", "ap": "oc", "us": "ca", "sa": "mx"}

Names = tuple[str, ...]


class Slot:
    """One slot's users: `phases[u]` is when user u is first in touch, `away[u]` whether abroad."""

    def __init__(self, row: SlotRow, number: int, users: int, seed: int) -> None:
        dice = Dice(seed * 1_000_003 + number)
        self.id = row.slot
        self.number = number
        self.users = users
        self.phases = array("d", (dice.random() * PERIOD_S for _ in range(users)))
        self.away = bytes(dice.random() >= HOME_FRACTION for _ in range(users))
        self.known: Known | None = None
        self.health = Health()

    def tag(self, user: int) -> bytes:
        """The tag of one user."""
        return self.number.to_bytes(4, "big") + user.to_bytes(4, "big")


class Turn:
    """The users of some slots in the order in which they are in touch, once each `PERIOD_S`."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        phases = array("d")
        for slot in slots:
            phases.extend(slot.phases)
        order = sorted(range(len(phases)), key=phases.__getitem__)
        self._starts = [sum(slot.users for slot in slots[:index]) for index in range(len(slots))]
        self._order = array("l", order)
        self.phases = array("d", (phases[place] for place in order))

    def __len__(self) -> int:
        return len(self.phases)

    def who(self, place: int) -> tuple[int, int]:
        """Slot and user, both as indices, of one place in the order."""
        index = bisect_right(self._starts, self._order[place]) - 1
        return index, self._order[place] - self._starts[index]


class Paths(NamedTuple):
    """Seats that answer, with their machines and where those are; names of those that do not."""

    answering: tuple[tuple[Seat, Server], ...]
    endpoints: tuple[int, ...]
    silent: tuple[str, ...]


class Triple:
    """Six servers and the slots on them."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.slots: list[Slot] = []
        self.live = False
        self.impaired = False
        self.quiet_since = float("-inf")
        self.outages: dict[tuple[str, bool], list[list[float]]] = {}
        self.below: int = 0
        self.copies: tuple[int, ...] = ()
        self.turn = Turn(())
        self.paths: dict[tuple[int, bool], Paths] = {}
        """Who answers a slot's users at home and abroad; forgotten whenever that may change."""
        self.recorded_at: dict[NodeId, float] = {}


class Crowd:
    """All users. `below_two` and `redundancy` are told by the world's truth, not by HQ."""

    def __init__(self, world: World, users_per_slot: int, *, singly: bool) -> None:
        self._world = world
        self._users = users_per_slot
        self._singly = singly
        self._triples: dict[Names, Triple] = {}
        self._by_name: dict[str, Triple] = {}
        self._slots: dict[SlotId, tuple[Triple, Slot]] = {}
        self._health: dict[tuple[int, int], Health] = {}
        self._began = world.schedule.now
        self.redundancy = [0] * (RELAYS_PER_SLOT + 1)
        """Users by how many relays answer them."""
        self.below_two_max = 0
        self.contacts = 0
        self.refused: dict[str, int] = {}
        """Records that clients would not follow, by verdict."""

    # --- Records ---------------------------------------------------------------------------------
    def recorded(self, row: SlotRow) -> None:
        """HQ has a new record. Clients see it stapled to their next session."""
        names = row.relays + row.replicas
        triple = self._triples.get(names)
        if triple is None:
            triple = self._triples[names] = Triple(row.region)
            for name in names:
                self._by_name[name] = triple
        if row.slot not in self._slots:
            slot = Slot(row, len(self._slots), self._users, self._world.seed)
            triple.slots.append(slot)
            self._slots[row.slot] = (triple, slot)
            self.redundancy[RELAYS_PER_SLOT] += slot.users
            triple.copies += (RELAYS_PER_SLOT,)
            triple.turn = Turn(())
            if self._singly:
                for user in range(slot.users):
                    at = self._began + slot.phases[user]
                    self._world.schedule.at(at, self._alone, triple, slot, user, 0)
        slot = self._slots[row.slot][1]
        now = self._world.schedule.now
        judgement = judge(slot.known, _record(row), now)
        if judgement.verdict is Verdict.ADOPT:
            before = {s.node for s in slot.known.record.seats()} if slot.known else set()
            for seat in row.seats:
                if seat.node not in before:
                    triple.recorded_at[seat.node] = now
            slot.known = judgement.known
            slot.health.seated({seat.name: seat.node for seat in row.seats})
        elif judgement.verdict is not Verdict.SAME:
            verdict = judgement.verdict.value
            self.refused[verdict] = self.refused.get(verdict, 0) + 1
            if judgement.verdict is Verdict.TOO_SOON:
                self._world.schedule.at(judgement.retry_at, self._again, row.slot)
        self.touch(row.relays[0])

    def _again(self, slot: SlotId) -> None:
        self.recorded(self._world.hq.records[slot])

    # --- Truth -----------------------------------------------------------------------------------
    def touch(self, name: str) -> None:
        """Something about this server, or the way to it, changed: look again."""
        triple = self._by_name.get(name)
        if triple is None:
            return
        now = self._world.schedule.now
        triple.paths.clear()
        self._count(triple)
        impaired = False
        for seat in self._seats(triple).items():
            for away in (False, True):
                ok = self._world.reaches(self._endpoint(triple, away), seat[1])
                self._note_outage(triple, seat[0], away, ok, now)
                impaired = impaired or not ok
        triple.impaired = impaired
        if impaired and not self._singly:
            self.go_live(triple)

    def wake(self, name: str) -> None:
        """Somebody says something of this server: its users matter for a while."""
        triple = self._by_name.get(name)
        if triple is not None and not self._singly:
            self.go_live(triple)

    def _seats(self, triple: Triple) -> dict[str, NodeId]:
        seats: dict[str, NodeId] = {}
        for slot in triple.slots:
            if slot.known is not None:
                seats.update({s.name: s.node for s in slot.known.record.seats()})
        return seats

    def _note_outage(self, triple: Triple, name: str, away: bool, ok: bool, now: float) -> None:
        spans = triple.outages.setdefault((name, away), [])
        open_now = bool(spans) and spans[-1][1] == float("inf")
        if not ok and not open_now:
            spans.append([now, float("inf")])
        elif ok and open_now:
            spans[-1][1] = now
            del spans[:-4]

    def _count(self, triple: Triple) -> None:
        """How many relays answer the users of each slot."""
        home = self._endpoint(triple, False)
        copies = []
        for slot, before in zip(triple.slots, triple.copies, strict=True):
            known = slot.known
            relays = known.record.relays if known else ()
            count = sum(self._world.reaches(home, seat.node) for seat in relays)
            if count != before:
                self.redundancy[before] -= slot.users
                self.redundancy[count] += slot.users
            copies.append(count)
        triple.copies = tuple(copies)
        self.below_two_max = max(self.below_two_max, self.redundancy[0] + self.redundancy[1])

    def _endpoint(self, triple: Triple, away: bool) -> int:
        return self._world.client_endpoint(self._region(triple, away))

    def _region(self, triple: Triple, away: bool) -> str:
        return GUESTS.get(triple.region, triple.region) if away else triple.region

    # --- One user after another ------------------------------------------------------------------
    def _alone(self, triple: Triple, slot: Slot, user: int, turn: int) -> None:
        health = self._health.get((slot.number, user))
        if health is None:
            health = self._health[slot.number, user] = Health()
        assert slot.known is not None
        health.seated({seat.name: seat.node for seat in slot.known.record.seats()})
        self._contact(triple, slot, user, health, alone=True)
        at = self._began + slot.phases[user] + (turn + 1) * PERIOD_S
        self._world.schedule.at(at, self._alone, triple, slot, user, turn + 1)

    # --- Cohorts ---------------------------------------------------------------------------------
    def go_live(self, triple: Triple) -> None:
        """From now on contacts happen; those of the last minutes are told to the observers."""
        if triple.live:
            return
        triple.live = True
        if not triple.turn:
            triple.turn = Turn(triple.slots)
        now = self._world.schedule.now
        turn, place = self._next(triple, now)
        self._replay(triple, max(now - ACTIVE_WINDOW_S, triple.quiet_since), turn, place)
        self._follow(triple, turn, place, now)

    def _next(self, triple: Triple, now: float) -> tuple[int, int]:
        """The turn and place of the first contact after `now`."""
        turn = int((now - self._began) // PERIOD_S)
        phases = triple.turn.phases
        place = bisect_right(phases, now - self._began - turn * PERIOD_S)
        return (turn, place) if place < len(phases) else (turn + 1, 0)

    def _replay(self, triple: Triple, since: float, turn: int, place: int) -> None:
        """Tell observers who was active since then, oldest first."""
        past: list[tuple[float, Slot, int]] = []
        while turn >= 0 and triple.turn:
            turn, place = (turn, place - 1) if place else (turn - 1, len(triple.turn) - 1)
            if turn < 0:
                break
            at = self._began + triple.turn.phases[place] + turn * PERIOD_S
            if at <= since:
                break
            index, user = triple.turn.who(place)
            past.append((at, triple.slots[index], user))
        for at, slot, user in reversed(past):
            active = Active(slot.tag(user), slot.id)
            assert slot.known is not None
            for seat in slot.known.record.seats():
                server = self._world.servers[seat.node]
                if server.up and at >= triple.recorded_at.get(seat.node, 0.0):
                    server.observer.step(active, server.elapsed_at(at))

    def _follow(self, triple: Triple, turn: int, place: int, now: float) -> None:
        """Schedule the next contact of a live triple."""
        at = self._began + triple.turn.phases[place] + turn * PERIOD_S
        self._world.schedule.at(at, self._step, triple, turn, place, now)

    def _step(self, triple: Triple, turn: int, place: int, woken: float) -> None:
        now = self._world.schedule.now
        if not triple.impaired and now - woken > ACTIVE_WINDOW_S:
            triple.live = False
            triple.quiet_since = now - 1e-6
            return
        index, user = triple.turn.who(place)
        slot = triple.slots[index]
        self._contact(triple, slot, user, slot.health, alone=False)
        place += 1
        if place == len(triple.turn):
            turn, place = turn + 1, 0
        self._follow(triple, turn, place, now if triple.impaired else woken)

    # --- A contact -------------------------------------------------------------------------------
    def _contact(
        self, triple: Triple, slot: Slot, user: int, health: Health, *, alone: bool
    ) -> None:
        """One user is in touch with its six servers, reports and is noted as active."""
        self.contacts += 1
        now = self._world.schedule.now
        away = bool(slot.away[user])
        paths = triple.paths.get((slot.number, away))
        if paths is None:
            paths = triple.paths[slot.number, away] = self._look(triple, slot, away)
        failing = health.failing()
        if failing or paths.silent:
            for seat, _ in paths.answering:
                health.answered(seat.name, now)
            for name in paths.silent:
                if now >= health.retry_at(name):
                    health.failed(name, now, now, 0.0)
            failing = health.failing()
        active = Active(slot.tag(user), slot.id)
        due = self._due(triple, slot, user, health) if failing and not alone else ()
        self._world.trace.note(now, slot.id, active.tag, paths.endpoints, due)
        for seat, server in paths.answering:
            server.hear(active)
            if alone and failing:
                due = self._owed(triple, slot, user, health, seat.name)
            for reported in due:
                server.hear(reported)

    def _due(self, triple: Triple, slot: Slot, user: int, health: Health) -> tuple[Reported, ...]:
        """What this user of a cohort says to every server that answers: of each failure that is new
        since its last contact. Nobody who answers is in the list, so all are told the same."""
        away, last_at = bool(slot.away[user]), self._world.schedule.now - PERIOD_S
        return tuple(
            Reported(slot.tag(user), report.name, self._region(triple, away))
            for report in health.reports_owed("")
            if not self._was_failing(triple, report.name, away, last_at)
        )

    def _owed(
        self, triple: Triple, slot: Slot, user: int, health: Health, recipient: str
    ) -> tuple[Reported, ...]:
        """What a user of its own has not told this server yet."""
        region = self._region(triple, bool(slot.away[user]))
        reports = health.reports_owed(recipient)
        health.told(reports)
        return tuple(Reported(slot.tag(user), report.name, region) for report in reports)

    def _look(self, triple: Triple, slot: Slot, away: bool) -> Paths:
        """Who answers the users of a slot now."""
        assert slot.known is not None
        home = self._endpoint(triple, away)
        answering, silent = [], []
        for seat in slot.known.record.seats():
            if self._world.reaches(home, seat.node):
                answering.append((seat, self._world.servers[seat.node]))
            else:
                silent.append(seat.name)
        endpoints = tuple(server.endpoint for _, server in answering)
        return Paths(tuple(answering), endpoints, tuple(silent))

    def _was_failing(self, triple: Triple, name: str, away: bool, at: float) -> bool:
        """Whether this user's last contact had failed already, so that it has told everybody."""
        return any(start <= at <= end for start, end in triple.outages.get((name, away), ()))


def _record(row: SlotRow) -> SlotRecord:
    """What clients are shown."""
    return SlotRecord(
        network=b"",
        slot=row.slot,
        version=row.version,
        issued_at=0,
        relays=row.seats[:RELAYS_PER_SLOT],
        replicas=row.seats[RELAYS_PER_SLOT:],
    )
