"""Getting machines: intents from the wish to the seat, and from the seat to the scrapyard (D25).

    spawn     written -> ordered -> joined -> done         or failed, and another is written
    standby   written -> ordered                            until it becomes a spawn (`standby`)
    reap      written -> done                               tried until the provider says so

An intent is durable before anything is ordered. The provider's name for the machine is the
intent's id, so an order repeated after a crash finds the machine instead of making a second one;
what joins second on one intent never gets the seat and is reaped. Everything here is asked of the
rows each time ("does this seat need a machine? does this machine have a seat?"), so a restart
between any two steps goes on where it stopped. Only back-off times are forgotten.

A name has one open spawn at most, however often its server comes and goes: N toggles cost one
spawn. An order not yet given is dropped when the server recovers; one that is given is carried
through, and the seat goes to the newcomer.

The former machine of a seat is retired at once when it was down (it is fenced if it ever comes
back), else when the newcomer says it is filled. It is reaped only then: until its successor is
filled, its disk may be the only copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import Final

import msgspec

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.limits import SPAWN_PER_MIN_MAX, SPAWN_TRIES_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.allocation import Placement, choose_replacement
from holdfast.logic.fleet.events import Order, Reap
from holdfast.logic.fleet.model import ACCESS, OPERATOR, NodeId, Role
from holdfast.logic.fleet.rows import (
    IntentRow,
    IntentState,
    NodeRow,
    NodeState,
    ServerRow,
    ServerState,
)
from holdfast.logic.fleet.standby import Standbys, standby_name
from holdfast.logic.fleet.state import DOWN, FleetState

BACKOFF_DOUBLINGS_MAX: Final = 8
REASONS: Final = {"launch", "heal", "drain", "repay"}


def spawn_id(name: str, taken: Container[str], now: float) -> str:
    """A readable resource name that no other intent has: `relay-eu-001-k3x9q2mfaa`."""
    for count in range(1_000):
        mark = hash_bytes(b"\0".join((name.encode(), repr(now).encode(), bytes((count % 256,)))))
        key = f"{name}-{base32(mark)[:10]}"
        if key not in taken:
            return key
    raise AssertionError("a thousand spawns of one name in one moment")


class Healing:
    """The machine over all intents. `Fleet` calls it and seats what has joined."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._in_flight: set[str] = set()
        self._not_before: dict[str, float] = {}  # by intent id and by server name
        self._avoid: dict[str, dict[str, float]] = {}  # name -> provider that failed it -> until
        self._failures: dict[str, int] = {}
        ordered = (row.ordered_at for row in state.intents.values() if row.action != "reap")
        self._orders = deque(sorted(at for at in ordered if at))  # the budget outlives a restart
        self.standbys = Standbys(state)
        self._perhaps_called = {row.id for row in state.intents.values() if row.warm}
        """By the headquarters before this one: they may join by that name any moment."""
        self._called: dict[str, float] = {}  # warm intents: when this headquarters first saw them

    # --- Wishes ----------------------------------------------------------------------------------
    def want(
        self, name: str, reason: str, now: float, *, conflicts_max: int | None = None
    ) -> list[Audit]:
        """Write a spawn intent for `name` unless one is open, it is too soon after a failure, or
        the best place to be had shares a domain in more than `conflicts_max` slots. A dead
        server's seat goes to a machine that stands by at that place, if there is one."""
        assert reason in REASONS, reason
        state = self._state
        if name in state.spawn_of or self._not_before.get(name, 0.0) > now:
            return []
        server = state.servers[name]
        place = self._place(server, now)
        if place is None or (conflicts_max is not None and place.conflicts > conflicts_max):
            return []
        ready = None
        if reason == "heal":
            ready = self.standbys.ready(place.provider, place.region, now)
        intent = ready or self._new(name, server.role, place.provider, place.region, now)
        intent = msgspec.structs.replace(
            intent,
            action="spawn",
            name=name,
            role=server.role,
            reason=reason,
            state=IntentState.WRITTEN,
            term=state.term,
            created_at=now,
            replaces=server.node,
            warm=ready is not None,
        )
        state.put(intent)
        detail = {
            "intent": intent.id,
            "reason": reason,
            "provider": place.provider,
            "region": place.region,
            "debt_slots": place.conflicts,
            "standby": intent.warm,
        }
        return [Audit("spawn.intended", name, detail)]

    def _new(self, name: str, role: Role, provider: str, region: str, now: float) -> IntentRow:
        """An intent for a machine that is not there yet."""
        return IntentRow(
            id=spawn_id(name, self._state.intents, now),
            term=self._state.term,
            action="standby",
            name="",
            role=role,
            provider=provider,
            region=region,
            reason="standby",
            state=IntentState.WRITTEN,
            created_at=now,
            owner=OPERATOR,
        )

    def keep_standbys(self, now: float) -> list[Audit]:
        """Order what is lacking, give back what nobody wants or hears any more."""
        if not self.standbys.concern:
            return []
        audit: list[Audit] = []
        for intent, why in self.standbys.lost(now):
            audit += self.fail(intent, why, now)
        for provider, region in self.standbys.lacking():
            if self._not_before.get(standby_name(provider, region), 0.0) <= now:
                name = f"standby-{region}"
                self._state.put(self._new(name, Role.RELAY, provider, region, now))
        for intent in self.standbys.surplus():
            audit += self.fail(intent, "not wanted any more", now, blame=False)
        return audit

    def place(self, name: str, now: float) -> tuple[str, str] | None:
        """Provider and region a replacement would get: ORANGE prepares it and orders nothing."""
        place = self._place(self._state.servers[name], now)
        return (place.provider, place.region) if place else None

    def drop(self, name: str, why: str, now: float) -> list[Audit]:
        """Take back a spawn that was not ordered yet."""
        intent = self.spawn(name)
        if intent is None or intent.state is not IntentState.WRITTEN:
            return []
        if intent.id in self._in_flight or intent.id in self._perhaps_called:
            return []  # the order may have reached the provider, or its machine
        if intent.attempts and not intent.warm:
            return self.fail(intent, why, now, blame=False)  # and so does its end
        if intent.warm:
            self._state.put(self.standbys.stand_down(intent))
            return [Audit("spawn.dropped", name, {"intent": intent.id, "why": why})]
        self._end(intent, IntentState.FAILED, now, error=why)
        return [Audit("spawn.dropped", name, {"intent": intent.id, "why": why})]

    def spawn(self, name: str) -> IntentRow | None:
        """The open spawn of `name`."""
        known = self._state.spawn_of.get(name)
        return self._state.intents[known] if known else None

    def _place(self, server: ServerRow, now: float) -> Placement | None:
        up = [row.name for row in self._state.providers.values() if row.state == "up"]
        failed = self._avoid.get(server.name, {})
        avoid = {name for name, until in failed.items() if until > now} | self._state.unreachable
        return choose_replacement(server, self._state, up, avoid=avoid, owner=OPERATOR)

    # --- Orders ----------------------------------------------------------------------------------
    def dispatch(
        self, now: float, is_well_founded: Callable[[IntentRow], bool]
    ) -> list[Order | Reap]:
        """The orders that may go out now: oldest first, within the budget, to providers up."""
        while self._orders and now - self._orders[0] >= self._state.pace.spawn_window_s:
            self._orders.popleft()
        send: list[Order | Reap] = []
        waiting = [self._state.intents[key] for key in self._state.open]
        for intent in sorted(waiting, key=lambda row: row.action == "standby"):
            key = intent.id
            if intent.state is not IntentState.WRITTEN or key in self._in_flight:
                continue
            if self._not_before.get(key, 0.0) > now or not self._state.is_up(intent.provider):
                continue
            if intent.action == "reap":
                send.append(Reap(intent))
            elif not is_well_founded(intent):
                continue
            elif intent.warm:
                send.append(Order(intent))  # it was paid for when it was ordered
            elif len(self._orders) < SPAWN_PER_MIN_MAX:
                self._orders.append(now)
                send.append(Order(intent))
            else:
                continue
            self._in_flight.add(key)
        return send

    def ordered(self, key: str, now: float) -> list[Audit]:
        """The provider has the order."""
        self._in_flight.discard(key)
        intent = self._state.intents.get(key)
        if intent is None or intent.state is not IntentState.WRITTEN:
            if intent is not None and intent.state is IntentState.FAILED:
                self.reap_machine(intent.id, intent, now)
            return []
        self._state.put(_with(intent, state=IntentState.ORDERED, ordered_at=now))
        server = self._state.servers.get(intent.name)
        if server is not None and server.state is ServerState.PLANNED:
            self._state.put(msgspec.structs.replace(server, state=ServerState.SPAWNING))
        detail = {"intent": key, "provider": intent.provider, "region": intent.region}
        return [Audit(f"{intent.action}.ordered", _subject(intent), detail)]

    def order_failed(self, key: str, error: str, final: bool, now: float) -> list[Audit]:
        """The provider said no, or nothing."""
        self._in_flight.discard(key)
        intent = self._state.intents.get(key)
        if intent is None or intent.state is not IntentState.WRITTEN:
            return []
        intent = _with(intent, attempts=intent.attempts + 1, error=error)
        self._state.put(intent)
        detail = {"intent": key, "provider": intent.provider, "error": error}
        audit = [Audit(f"{intent.action}.refused", _subject(intent), detail)]
        if final or intent.attempts >= SPAWN_TRIES_MAX:
            return audit + self.fail(intent, error, now)
        self._not_before[key] = now + self._backoff(intent.attempts)
        return audit

    def fail(self, intent: IntentRow, why: str, now: float, *, blame: bool = True) -> list[Audit]:
        """Give a spawn up. Its machine, if there is one, is reaped; the seat will want another."""
        self._end(intent, IntentState.FAILED, now, error=why)
        if blame and not intent.warm:
            subject = _subject(intent)
            until = now + self._state.pace.spawn_avoid_s
            self._avoid.setdefault(subject, {})[intent.provider] = until
            count = self._failures[subject] = self._failures.get(subject, 0) + 1
            self._not_before[subject] = now + self._backoff(count)
        if intent.ordered_at or intent.attempts or intent.id in self._in_flight:
            self.reap_machine(intent.id, intent, now)
        server = self._state.servers.get(intent.name)
        if server is not None and server.state is ServerState.SPAWNING:
            self._state.put(msgspec.structs.replace(server, state=ServerState.PLANNED))
        return [
            Audit(f"{intent.action}.failed", _subject(intent), {"intent": intent.id, "why": why})
        ]

    def overdue(self, now: float) -> list[Audit]:
        """Spawns that have taken too long, or whose provider is lost, are given up."""
        audit: list[Audit] = []
        for key in list(self._state.open):
            intent = self._state.intents[key]
            if intent.action == "reap":
                continue
            patience_s = self._state.pace.spawn_timeout_s
            since = max(intent.ordered_at, self._state.listens_from)  # it was asked, not heard
            if intent.warm:
                patience_s = self._state.pace.standby_silent_s
                since = max(since, self._called.setdefault(key, now))
            if intent.state is not IntentState.JOINED and not self._state.is_up(intent.provider):
                audit += self.fail(intent, "the provider is lost", now, blame=False)
            elif (
                intent.action == "spawn"
                and intent.state is IntentState.ORDERED
                and now - since >= patience_s
            ):
                audit += self.fail(intent, "did not join in time", now)
        return audit

    def _backoff(self, failures: int) -> float:
        pace = self._state.pace
        doublings = min(max(0, failures - 1), BACKOFF_DOUBLINGS_MAX)
        return float(min(pace.spawn_retry_s * 2**doublings, pace.spawn_retry_s_max))

    def _end(self, intent: IntentRow, state: IntentState, now: float, *, error: str = "") -> None:
        self._state.put(_with(intent, state=state, ended_at=now, error=error))
        self._not_before.pop(intent.id, None)
        self._called.pop(intent.id, None)

    # --- Joining ---------------------------------------------------------------------------------
    def joined(self, intent: IntentRow, node: NodeId) -> IntentRow:
        """The first node of an open intent."""
        assert intent.state in (IntentState.WRITTEN, IntentState.ORDERED)
        self._in_flight.discard(intent.id)
        intent = _with(intent, state=IntentState.JOINED, node=node)
        self._state.put(intent)
        self._avoid.get(intent.name, {}).pop(intent.provider, None)
        self._failures.pop(intent.name, None)
        self._not_before.pop(intent.name, None)
        return intent

    def seated(self, intent: IntentRow, now: float) -> None:
        """Its node has the seat."""
        self._end(intent, IntentState.DONE, now)

    # --- Retiring and reaping --------------------------------------------------------------------
    def release(self, name: str, now: float) -> list[Audit]:
        """Retire and reap what machines of `name` have no use any more."""
        state = self._state
        server = state.servers[name]
        spawn = self.spawn(name)
        guest = spawn.node if spawn is not None else b""
        audit: list[Audit] = []
        for node in sorted(state.nodes_of.get(name, ())):
            row = state.nodes[node]
            if node in (server.node, guest) or row.reaped_at:
                continue
            leaves = state.is_leaving(node)  # it has the copy that a moved slot is filled from
            useless = (state.is_filled(server) and not leaves) or not self._had_seat(row)
            if row.state is NodeState.ACTIVE and useless:
                audit += self.retire(row, "superseded")
            if useless and row.intent:
                self.reap_machine(row.intent, row, now)
        return audit

    def retire(self, row: NodeRow, why: str) -> list[Audit]:
        """The node will never be active again: its agent is told so when it asks."""
        assert row.state is NodeState.ACTIVE
        self._state.put(msgspec.structs.replace(row, state=NodeState.RETIRED))
        return [Audit("node.retired", row.name, {"node": base32(row.node), "why": why})]

    def reap_machine(
        self, resource: str, of: IntentRow | NodeRow, now: float, *, again: bool = False
    ) -> None:
        """Write a reap intent for a machine, once. `of` says whose it was and where.

        `again`: the machine was seen running, whatever an earlier reap was told: an order that
        timed out may be carried out later than the deletion.
        """
        known = self._state.intents.get("reap-" + resource)
        if known is not None and (known.state is IntentState.WRITTEN or not again):
            return
        self._state.put(
            IntentRow(
                id="reap-" + resource,
                term=self._state.term,
                action="reap",
                name=of.name,
                role=of.role,
                provider=of.provider,
                region=of.region,
                reason="returned" if isinstance(of, NodeRow) else "surplus",
                state=IntentState.WRITTEN,
                created_at=now,
                resource=resource,
                node=of.node,
            )
        )

    def reaped(self, key: str, now: float) -> list[Audit]:
        """The provider says that the machine is gone."""
        self._in_flight.discard(key)
        intent = self._state.intents.get(key)
        if intent is None or intent.state is not IntentState.WRITTEN:
            return []
        self._end(intent, IntentState.DONE, now)
        row = self._state.nodes.get(intent.node)
        if row is not None:
            self._state.put(msgspec.structs.replace(row, reaped_at=now))
        detail = {"resource": intent.resource, "provider": intent.provider}
        return [Audit("machine.reaped", intent.name, detail)]

    def reap_failed(self, key: str, error: str, now: float) -> None:
        """Try again later, for ever: a machine nobody wants is an open bill."""
        self._in_flight.discard(key)
        intent = self._state.intents.get(key)
        if intent is not None and intent.state is IntentState.WRITTEN:
            self._state.put(_with(intent, attempts=intent.attempts + 1, error=error))
            self._not_before[key] = now + self._backoff(intent.attempts + 1)

    def _had_seat(self, row: NodeRow) -> bool:
        """False for a node that came second, or too late, on its intent."""
        intent = self._state.intents.get(row.intent)
        if intent is None:
            return True
        return intent.state is not IntentState.FAILED and intent.node == row.node

    # --- Housekeeping ----------------------------------------------------------------------------
    def forget(self, now: float) -> None:
        """Drop intents that ended long ago. A failed spawn stays until its machine is reaped."""
        for intent in list(self._state.intents.values()):
            done = intent.state in (IntentState.DONE, IntentState.FAILED)
            if not done or now - intent.ended_at < self._state.pace.intent_kept_s:
                continue
            reap = self._state.intents.get("reap-" + intent.id)
            if reap is None or reap.state is IntentState.DONE:
                self._state.drop_intent(intent)


def _with(intent: IntentRow, **changes: object) -> IntentRow:
    return msgspec.structs.replace(intent, **changes)


def _subject(intent: IntentRow) -> str:
    """What an intent is about: a logical name, or the place of a standby."""
    return intent.name or standby_name(intent.provider, intent.region)


def needs_machine(server: ServerRow, gray_s: float, red_s: float) -> str | None:
    """Why this seat needs a new machine, None when it does not. `gray_s` is 0 when not gray."""
    if server.state is ServerState.RETIRED or server.role in ACCESS:
        return None  # entries and cores are their owners'; cells do without one that is gone
    if not server.node:
        return "launch"
    if server.tier in DOWN:
        return "heal"
    if server.leaving or (server.draining and gray_s >= red_s):
        return "drain"
    return None
