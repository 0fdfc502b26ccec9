"""The fleet: one machine made of eight, changed only through `step` (DESIGN §1, D25-D29).

`Tiers` says how sure HQ is that a server is gone, `Guard` whether HQ may trust itself, `Healing`
gets machines, `Seating` gives them seats, `Slots` keeps records, groups and debts, `Providers`
knows who can deliver, `Rebalancing` evens the load, `Rotation` renews machines. This module is
their conductor: it turns one event into evidence or news, settles every server whose situation may
have changed, and returns the changed rows, the orders and the audit lines. A seat needs a machine,
or it does not, whatever event brought it up.

`now` is Unix seconds that never go back (the driver sees to it); limits are scaled by `Pace`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.crypto.pure import base32
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet import events
from holdfast.logic.fleet.allocation import Candidate
from holdfast.logic.fleet.causes import Cause, cause_of
from holdfast.logic.fleet.events import Event, Granted, Send
from holdfast.logic.fleet.guard import Guard, Thaw
from holdfast.logic.fleet.healing import Healing, needs_machine
from holdfast.logic.fleet.liveness import Heartbeats
from holdfast.logic.fleet.model import ACCESS, Load, Tier
from holdfast.logic.fleet.providers import Providers
from holdfast.logic.fleet.rebalance import Rebalancing
from holdfast.logic.fleet.rotation import Rotation
from holdfast.logic.fleet.rows import (
    FreezeRow,
    IntentRow,
    IntentState,
    NodeState,
    ServerRow,
    ServerState,
)
from holdfast.logic.fleet.seating import Seating
from holdfast.logic.fleet.slots import Slots
from holdfast.logic.fleet.state import DOWN, FleetState
from holdfast.logic.fleet.tiers import Change, Tiers, Witnessed, is_gray
from holdfast.logic.fleet.topology import plan_launch


class Fleet:
    """The machine. Give it the loaded state; `start` once, then `step` for every event."""

    def __init__(
        self, state: FleetState, now: float, *, liveness: Heartbeats | None = None
    ) -> None:
        self.state = state
        self.liveness = liveness or Heartbeats(state.pace.silent_s)
        self.tiers = Tiers(state, self.liveness, now)
        self.guard = Guard(state, self.liveness, now)
        self.healing = Healing(state)
        self.slots = Slots(state)
        self.seating = Seating(state, self.liveness, self.tiers, self.healing, self.slots)
        self.providers = Providers(state, self.healing)
        self.rebalancing = Rebalancing(state, self.slots, self._candidate)
        self.rotation = Rotation(state, self.slots)
        self._dirty: set[str] = set()
        self._busy = True
        self._now = now
        self._forgot_at = now
        self._repay_at = now

    @property
    def now(self) -> float:
        """The time of the last step."""
        return self._now

    def start(self, now: float) -> Effects:
        """The first step after loading: everything that rows alone call for."""
        self._now = now
        audit: list[Audit] = []
        for server in self.state.active():
            self.liveness.expect(server.name, now)
            self.seating.point(server.name)
            self.seating.founding.add(server.region)
            if not self.state.is_member(server.node):
                audit += self._judge(server.name, now)
        for node in [row for row in self.state.nodes.values() if self.seating.is_new(row)]:
            audit += self.seating.joined(node, now)
        for slot in self.state.slots.values():
            self.slots.debts(slot, now)
        self._dirty.update(self.state.servers)
        return self._finish([], audit, now)

    def step(self, event: Event, now: float) -> Effects:
        """Take one event. Orders in `send` may leave once `persist` is durable."""
        assert now >= self._now, "time runs forward"
        stood_s = now - self._now
        if stood_s > self.state.pace.stall_s:
            self.liveness.deaf(stood_s)  # whatever comes first after it stood still
        if stood_s > self.state.pace.evidence_s:
            self.tiers.listen(now)
        self._now = now
        send: list[Send] = []
        match event:
            case events.Beat():
                audit = self._beat(event, now)
            case Witnessed():
                audit = self._witnessed(event, now)
            case events.Allocate():
                slot = self.slots.allocate(event.region, self._fit)
                send.append(Granted(slot.slot if slot else None))
                audit = []
            case events.Populate():
                shares = self.slots.populate(event.region, event.groups, self._fit)
                send.append(events.Populated(shares))
                audit = []
            case events.StandsBy():
                self.healing.standbys.heard(event.intent, now)
                audit = []
            case events.Tick():
                audit = self._tick(now)
                send += self.providers.surveys(now)
            case _:
                audit = self._news(event, now)
                self._busy = True
        return self._finish(send, audit, now)

    # --- The end of every step -------------------------------------------------------------------
    def _finish(self, send: list[Send], audit: list[Audit], now: float) -> Effects:
        while self._dirty:
            self._busy = True
            dirty, self._dirty = sorted(self._dirty), set()  # sorted: the same trace every time
            for name in dirty:
                audit += self._settle(name, now)
        for region in sorted(self.seating.founding):
            audit += self.slots.found(region, self._candidate, now)
        self.seating.founding.clear()
        audit += self.slots.refresh(now)
        if self._busy:
            self._busy = False
            send += self.seating.points(now)
            if not self.guard.frozen:
                send += self.healing.dispatch(now, self._is_well_founded)
        return Effects(self.state.take_changes(), tuple(send), (), tuple(audit))

    def _settle(self, name: str, now: float) -> list[Audit]:
        """Make the intents and nodes of one logical server agree with its row."""
        audit: list[Audit] = []
        spawn = self.healing.spawn(name)
        if spawn is not None and spawn.state is IntentState.JOINED:
            audit += self.seating.try_seat(spawn, now)
        server = self.state.servers[name]
        reason = needs_machine(server, self._gray_s(name, now), self.state.pace.red_s)
        if reason == "heal" and self.tiers.is_hearsay(name, now):
            return audit
        if reason is not None and not self.guard.frozen:
            audit += self.healing.want(name, reason, now)
        elif reason is None and spawn is not None and spawn.reason in ("heal", "drain"):
            audit += self.healing.drop(name, "the server is well again", now)
        return audit + self.healing.release(name, now)

    def _is_well_founded(self, intent: IntentRow) -> bool:
        """Whether an order may go out: not on the word of an HQ before this one alone."""
        if intent.reason != "heal" or intent.name not in self.state.servers:
            return True
        return not self.tiers.is_hearsay(intent.name, self._now)

    # --- Testimony -------------------------------------------------------------------------------
    def _beat(self, event: events.Beat, now: float) -> list[Audit]:
        name = self.state.name_of.get(event.node)
        if name is None:
            return self._stray_beat(event, now)
        self._hear(name, now, event.load)
        server = self.state.servers[name]
        audit = self.seating.moved(name, event.addresses, now)
        if event.filled != server.filled:
            self._fill(name, event, now)
        if is_gray(event.load) or self.tiers.gray_since(name):
            self.tiers.loaded(name, event.load, now)
            audit += self._judge(name, now)
        if server.tier is Tier.BLACK:
            audit += self.providers.spoke(server.provider, now)
        if audit:
            self._busy = True
        return audit

    def _stray_beat(self, event: events.Beat, now: float) -> list[Audit]:
        """A node without a seat: a guest that waits for one, or one that came back too late."""
        self.seating.heard(event.node, now)
        row = self.state.nodes.get(event.node)
        if row is not None and not self.state.is_up(row.provider):
            return self.providers.spoke(row.provider, now)
        return []

    def _fill(self, name: str, event: events.Beat, now: float) -> None:
        """Believe a newcomer that it is filled only when it means its present records."""
        if event.filled and not (
            self.slots.is_recorded(name) and self._is_of_now(name, event, now)
        ):
            return
        self.state.put(msgspec.structs.replace(self.state.servers[name], filled=event.filled))
        self._dirty.add(name)

    def _is_of_now(self, name: str, event: events.Beat, now: float) -> bool:
        if event.filled_of:
            return event.filled_of == self.slots.digest(name)
        return now >= self.slots.recorded_at(name) + self.state.pace.fill_settle_s

    def _witnessed(self, event: Witnessed, now: float) -> list[Audit]:
        if not self.tiers.witnessed(event, now):
            return []
        self._hear(self.state.name_of[event.witness], now)
        return self._judge(event.name, now)

    def _hear(self, name: str, now: float, load: Load | None = None) -> None:
        self.liveness.hear(name, now, load)
        self.guard.heard(name)

    def _judge(self, name: str, now: float) -> list[Audit]:
        change = self.tiers.judge(name, now)
        server = self.state.servers[name]
        draining = server.leaving or bool(self.tiers.gray_since(name))
        if server.draining != draining:
            self.state.put(msgspec.structs.replace(server, draining=draining))
            self._dirty.add(name)
        if change is None:
            return []
        self._dirty.add(name)
        audit = [self._told(change, now)]
        if change.server.tier is Tier.ORANGE:
            place = self.healing.place(name, now)
            detail = {"provider": place[0], "region": place[1]} if place else {}
            audit.append(Audit("spawn.prepared", name, detail))
        if change.server.tier is Tier.RED:
            audit += self._lose(server.provider, now)
        return audit

    # --- Time ------------------------------------------------------------------------------------
    def _tick(self, now: float) -> list[Audit]:
        audit: list[Audit] = []
        for name in self.tiers.open_cases(now):
            audit += self._judge(name, now)
        self.tiers.judged(now)
        audit += self._look(now)
        for provider in sorted({self.state.servers[name].provider for name in self.state.down}):
            audit += self._lose(provider, now)
        audit += self.healing.overdue(now)
        self._dirty |= self.state.needy | self.state.spawn_of.keys()
        if not self.guard.frozen:
            audit += self.healing.keep_standbys(now)
        if not self.guard.frozen and now >= self._repay_at:
            self._repay_at = now + self.state.pace.repay_s
            audit += self._repay(now)
        if not self.guard.frozen:
            audit += self._plans(now)
        if now - self._forgot_at >= self.state.pace.intent_kept_s / 24:
            self._forgot_at = now
            self.healing.forget(now)
        self._busy = True
        return audit

    def _plans(self, now: float) -> list[Audit]:
        """What operators asked for goes on."""
        audit = self.rebalancing.tick(now) + self.rotation.tick(now)
        self._dirty |= self.rebalancing.settled | self.rotation.begun
        self.rebalancing.settled.clear()
        self.rotation.begun.clear()
        return audit

    def _look(self, now: float) -> list[Audit]:
        seen = self.guard.look(now)
        if isinstance(seen, FreezeRow):
            detail = {"dead": seen.dead, "fleet": seen.fleet, "providers": list(seen.providers)}
            return [Audit("freeze.began", "fleet", detail)]
        if seen is None:
            return []
        self.tiers.listen(now)
        return [_thawed(seen, "")]

    def _lose(self, provider: str, now: float) -> list[Audit]:
        """Declare a provider lost when it is, and mark what it takes with it (§4.4)."""
        audit: list[Audit] = []
        row = self.state.providers.get(provider)
        lost = row is not None and row.state == "lost"
        if not lost and not self.tiers.lost_provider(provider, now):
            return []
        victims = self.tiers.share_fate(provider, now)
        if not lost and self.providers.lose(provider, now):
            slots = {slot for name in victims for slot in self.state.slots_of.get(name, ())}
            groups = sum(self.state.slots[slot].groups for slot in slots)
            detail = {"servers": victims, "slots": len(slots), "groups": groups}
            audit.append(Audit("provider.lost", provider, detail))
        for name in victims:
            change = self.tiers.blacken(name, now)
            if change is not None:
                self._dirty.add(name)
                audit.append(self._told(change, now))
        return audit

    def _repay(self, now: float) -> list[Audit]:
        """Move one seat at a time, per slot and role, to where its slot is diverse again."""
        audit: list[Audit] = []
        for name in sorted(self.state.debts_of):
            server = self.state.servers[name]
            if name in self.state.spawn_of or not self._is_settled(server):
                continue
            names = {
                other
                for slot in self.state.slots_of[name]
                for other in self.state.group(self.state.slots[slot], server.role)
            }
            rest = [self.state.servers[other] for other in names - {name}]
            quiet = all(
                row.name not in self.state.spawn_of and self._is_settled(row) for row in rest
            )
            if not quiet or not self.slots.may_change(name, now):
                continue
            owed = len(self.state.debts_of[name])
            audit += self.healing.want(name, "repay", now, conflicts_max=owed - 1)
            self._busy = True
        return audit

    def _is_settled(self, server: ServerRow) -> bool:
        """In service, filled, and nobody doubts it."""
        return server.filled and server.tier not in DOWN and not server.leaving

    # --- News ------------------------------------------------------------------------------------
    def _news(self, event: Event, now: float) -> list[Audit]:
        match event:
            case events.Joined():
                self._dirty.add(event.row.name)
                return self.seating.joined(event.row, now)
            case events.Launch():
                return self._launch(event)
            case events.Left():
                return self._left(event, now)
            case events.Retire():
                return self._retire(event)
            case events.Revoked():
                return self._revoked(event, now)
            case events.KeepStandbys():
                return self.healing.standbys.want(event.per_place)
            case events.Confirm():
                thaw = self.guard.confirm()
                return [_thawed(thaw, event.author)] if thaw else []
            case events.Rebalance():
                return self.rebalancing.start(event, now)
            case events.StopRebalance():
                return self.rebalancing.stop(event.author)
            case events.Rotate():
                return self.rotation.ask(event, now)
            case events.ScheduleRotation():
                return self.rotation.schedule(event, now)
            case events.Surveyed():
                self._dirty |= self.state.spawn_of.keys()
                return self.providers.surveyed(event.provider, event.machines, now)
            case events.Pointed():
                return self.seating.pointed(event.name, event.node)
            case events.PointFailed():
                return self.seating.point_failed(event.name, event.error, now)
            case _:
                return self._delivered(event, now)

    def _delivered(self, event: Event, now: float) -> list[Audit]:
        """What became of an order."""
        match event:
            case events.Ordered():
                audit = self.healing.ordered(event.intent, now)
            case events.OrderFailed():
                audit = self.healing.order_failed(event.intent, event.error, event.final, now)
            case events.Reaped():
                audit = self.healing.reaped(event.intent, now)
            case events.ReapFailed():
                self.healing.reap_failed(event.intent, event.error, now)
                audit = []
            case _:
                raise AssertionError(f"no such event: {event}")
        intent = self.state.intents.get(event.intent)
        if intent is not None and intent.name:
            self._dirty.add(intent.name)
        return audit

    def _launch(self, event: events.Launch) -> list[Audit]:
        rows = plan_launch(event.providers, event.regions, event.per_region)
        self.providers.add(tuple(event.providers), tuple(event.regions))
        new = [row for row in rows if row.name not in self.state.servers]
        for row in new:
            self.state.put(row)
        self._dirty.update(self.state.needy)
        detail = {"providers": list(event.providers), "regions": list(event.regions)}
        return [Audit("fleet.launched", "fleet", detail | {"servers": len(new)})] if new else []

    def _left(self, event: events.Left, now: float) -> list[Audit]:
        name, row = self.state.name_of.get(event.node), self.state.nodes.get(event.node)
        if row is None:
            return []
        self._dirty.add(row.name)
        if name is None:
            gone = row.state is not NodeState.ACTIVE
            return [] if gone else self.healing.retire(row, event.reason)
        server = self.state.servers[name]
        self.state.put(msgspec.structs.replace(server, leaving=True, draining=True))
        detail = {"node": base32(event.node), "reason": event.reason}
        return [Audit("node.leaving", name, detail)]

    def _retire(self, event: events.Retire) -> list[Audit]:
        """A node without slots ends its service; its name is free for good."""
        row = self.state.nodes.get(event.node)
        if row is None or row.role not in ACCESS or row.state is not NodeState.ACTIVE:
            return []
        server = self.state.servers.get(row.name)
        if server is not None and server.node == row.node:
            self.state.put(msgspec.structs.replace(server, state=ServerState.RETIRED))
        return self.healing.retire(row, event.reason)

    def _revoked(self, event: events.Revoked, now: float) -> list[Audit]:
        row = self.state.nodes.get(event.node)
        if row is None:
            return []
        self.state.put(msgspec.structs.replace(row, state=NodeState.REVOKED))
        self._dirty.update({row.name} & self.state.servers.keys())
        name = self.state.name_of.get(event.node)
        return self._judge(name, now) if name is not None else []

    def cause(self, name: str) -> Cause:
        """What ails a server now."""
        server = self.state.servers[name]
        return cause_of(
            server,
            member=self.state.is_member(server.node),
            beating=name not in self.liveness.overdue(self._now),
            sick=bool(self.tiers.gray_since(name)),
            frozen=self.guard.frozen,
        )

    def _told(self, change: Change, now: float) -> Audit:
        """A change of tier with the evidence for it (§4.1-§4.3)."""
        said = [item.said for item in change.evidence]
        failing = [item for item in change.evidence if item.said.probe_ok is False]
        detail: dict[str, Any] = {
            "before": change.before.value,
            "because": change.signal.value,
            "cause": self.cause(change.server.name).value,
            "clients": max((item.clients for item in said), default=0),
            "clients_active": max((item.clients_active for item in said), default=0),
            "regions": sorted({region for item in said for region in item.regions}),
            "witnesses": sorted(item.witness for item in failing),
            "failures": max((item.said.failures for item in failing), default=0),
        }
        since = min((item.since for item in failing), default=now)
        return Audit(
            f"server.{change.server.tier.value}",
            change.server.name,
            detail | {"failed_s": round(now - since, 3)},
        )

    # --- Asked by the parts ----------------------------------------------------------------------
    def _gray_s(self, name: str, now: float) -> float:
        """How long the server has said that it is no use; what it said before it fell silent, or
        HQ deaf, is old news."""
        since = self.tiers.gray_since(name)
        return now - since if since and name not in self.liveness.overdue(now) else 0.0

    def _fit(self, name: str) -> bool:
        return self._candidate(name).fit

    def _candidate(self, name: str) -> Candidate:
        server = self.state.servers[name]
        provider = self.state.providers.get(server.provider)
        return Candidate(
            server=server,
            load=self.liveness.load(name),
            groups=sum(self.state.slots[s].groups for s in self.state.slots_of.get(name, ())),
            jurisdiction=provider.jurisdiction if provider else "",
            silent=name in self.liveness.overdue(self._now),
        )


def _thawed(thaw: Thaw, author: str) -> Audit:
    return Audit("freeze.ended", "fleet", {"because": thaw.value, "author": author})
