"""Headquarters as a driver of the production fleet machine, over rows that outlive it.

The law of `Effects` is kept as in `hq.brain`: rows first, a hundred and twenty-eight in one
transaction, then orders. It may die between any two transactions, and between an order and its
answer; what comes back is built from rows alone. Joins are ruled by `logic.trust.join`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.crypto.pure import hash_bytes, node_id
from holdfast.limits import JOIN_TOKEN_S_MAX, TXN_OPERATIONS_MAX
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet import events
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import OPERATOR, NodeId, Role, SlotId
from holdfast.logic.fleet.rows import (
    FleetRow,
    IntentRow,
    NodeRow,
    NodeState,
    SlotRow,
    TokenRow,
    key_of,
)
from holdfast.logic.fleet.state import FleetState
from holdfast.logic.trust.join import (
    Attempt,
    Held,
    Outcome,
    Proof,
    Ruling,
    rule,
    standing_of,
    token_hash,
)
from holdfast.sim.world.clouds import Refused
from holdfast.sim.world.network import BASE_DELAY_S
from holdfast.sim.world.servers import Server

if TYPE_CHECKING:
    from holdfast.sim.world.fleet import World

TICK_S: Final = 1.0
STAPLE: Final = b"signed"
NETWORK: Final = b"simulated-net-01"


class Died(Exception):
    """HQ dies at this point."""


class Joiner(msgspec.Struct):
    """What a machine that wants to join has: an identity, a TLS key, a token."""

    identity: bytes
    key_hash: bytes
    token: bytes


class Headquarters:
    """One HQ, its control store, and the story it tells. `fleet` is None while it is down."""

    def __init__(self, world: World, rows: dict[str, FleetRow]) -> None:
        self.world = world
        self.rows = rows
        self.nodes: dict[NodeId, NodeRow] = {
            row.node: row for row in rows.values() if isinstance(row, NodeRow)
        }
        self.fleet: Fleet | None = None
        self.tokens: dict[bytes, TokenRow] = {}
        self.keys: dict[NodeId, bytes] = {}
        self.audit: list[tuple[float, Audit]] = []
        self.slots_at: dict[NodeId, dict[SlotId, None]] = {}
        self.records: dict[SlotId, SlotRow] = {}
        self.restarts = 0
        self.crash_probability = 0.0
        self.term = 0
        self.stalled = False
        """The process stands still: it hears, decides and answers nothing, and forgets nothing."""
        self.on_order: Callable[[IntentRow], None] = lambda intent: None
        self.on_reap: Callable[[IntentRow], None] = lambda intent: None
        self.on_freeze: Callable[[], None] = lambda: None
        self._seated: dict[SlotId, tuple[NodeId, ...]] = {}

    # --- Life ------------------------------------------------------------------------------------
    def start(self) -> None:
        """Load the rows and go on where the last HQ stopped."""
        assert self.fleet is None
        self.term += 1
        state = FleetState(NETWORK, term=self.term)
        state.load(self.rows.values())
        now = self.world.schedule.now
        self.fleet = Fleet(state, now)
        self.world.trace.note("hq", self.term, now)
        self._obey(lambda fleet: fleet.start(now))
        self.world.schedule.after(TICK_S, self._tick, self.term)

    def stop(self) -> None:
        """Everything but the rows is gone."""
        self.fleet = None

    @property
    def up(self) -> bool:
        return self.fleet is not None and not self.stalled

    def _tick(self, term: int) -> None:
        if term == self.term and self.fleet is not None:
            if not self.stalled:
                self.step(events.Tick())
            self.world.schedule.after(TICK_S, self._tick, term)

    # --- Steps -----------------------------------------------------------------------------------
    def allocate(self, region: str) -> SlotId | None:
        """A slot for a new group."""
        effects = self.step(events.Allocate(region))
        granted = [item.slot for item in effects.send if isinstance(item, events.Granted)]
        return granted[0] if granted else None

    def step(self, event: events.Event) -> Effects:
        """Feed one event. HQ may die of it."""
        world = self.world
        now = world.schedule.now
        if isinstance(event, events.Surveyed):
            world.trace.note(now, 0, event.provider, len(event.machines or ()))
        elif not isinstance(event, events.Tick):
            world.trace.note(now, 0, event)
        world.machine_steps += 1
        return self._obey(lambda fleet: fleet.step(event, now))

    def _obey(self, work: Callable[[Fleet], Effects]) -> Effects:
        assert self.fleet is not None
        effects = work(self.fleet)
        if not (effects.persist or effects.send or effects.audit):
            return effects
        self.world.trace.note(effects.persist, effects.send)
        try:
            self._persist(effects)
        except Died:
            self._die()
            return effects
        now = self.world.schedule.now
        self.audit += [(now, line) for line in effects.audit]
        if any(line.verb == "freeze.began" for line in effects.audit):
            self.on_freeze()
        for order in effects.send:
            self._hand_out(order)
        return effects

    def _persist(self, effects: Effects) -> None:
        assert self.fleet is not None
        for index, (key, row) in enumerate(effects.persist):
            if index % TXN_OPERATIONS_MAX == 0 and self._dies():
                raise Died
            if isinstance(row, SlotRow) and not row.staple:
                row = msgspec.structs.replace(row, staple=STAPLE)
                self.fleet.state.signed(row)
            if row is None:
                self.rows.pop(key, None)
                continue
            self.rows[key] = row
            if isinstance(row, SlotRow):
                self._recorded(row)
            elif isinstance(row, NodeRow):
                self.nodes[row.node] = row
                if row.state is not NodeState.ACTIVE:
                    self.world.wake(row.node)
        if effects.persist and self._dies():
            raise Died

    def _dies(self) -> bool:
        return self.world.chance.happens(self.crash_probability)

    def _die(self) -> None:
        self.restarts += 1
        self.stop()
        self.world.trace.note("hq died", self.world.schedule.now)
        self.world.schedule.after(self.world.chance.between(2.0, 30.0), self._revive)

    def _revive(self) -> None:
        if self.fleet is None and not self.world.hq_held_down:
            self.start()

    def _recorded(self, row: SlotRow) -> None:
        """A slot record is durable: those it names, and named, will hear of it."""
        before = self._seated.get(row.slot, ())
        now = tuple(seat.node for seat in row.seats)
        known = self.records.get(row.slot)
        self.records[row.slot] = row
        if known is not None and known.version == row.version:
            return
        self._seated[row.slot] = now
        for node in before:
            if node not in now:
                self.slots_at[node].pop(row.slot, None)
                self.world.wake(node)
        for node in now:
            self.slots_at.setdefault(node, {})[row.slot] = None
            self.world.wake(node)
        self.world.crowd.recorded(row)

    # --- What nodes ask --------------------------------------------------------------------------
    def desired(self, node: NodeId) -> tuple[bool, list[SlotRow]]:
        """Whether the node is retired, and the records that name it."""
        row = self.nodes.get(node)
        retired = row is not None and row.state is not NodeState.ACTIVE
        return retired, [self.records[slot] for slot in self.slots_at.get(node, ())]

    def join(self, joiner: Joiner, server: Server) -> Ruling:
        """Rule on a join; when it is granted, the row is durable before the brain hears of it."""
        now = self.world.schedule.now
        node = node_id(joiner.identity)
        key = token_hash(joiner.token)
        known = self.nodes.get(node)
        held = Held(
            self.tokens.get(key),
            self.keys.get(node, b""),
            standing_of(known.state if known else None),
        )
        attempt = Attempt(Proof.GOOD, joiner.identity, joiner.key_hash, NETWORK, server.role)
        ruling = rule(attempt, held, NETWORK, now)
        self.world.trace.note("join", now, server.endpoint, ruling)
        if ruling.outcome is Outcome.ISSUE:
            assert held.token is not None
            self.tokens[key] = msgspec.structs.replace(held.token, used_by=node)
            self.keys[node] = joiner.key_hash
            row = _node_row(held.token, joiner, server, now)
            self.nodes[node] = row
            self.rows[key_of(row)] = row
            self.step(events.Joined(row))
        return ruling

    def is_burned(self, secret: bytes) -> bool:
        """Whether somebody joined with this token."""
        row = self.tokens.get(token_hash(secret))
        return row is not None and bool(row.used_by)

    def issue_token(self, intent: IntentRow) -> bytes:
        """The one token of a spawn; one issued before is taken back."""
        secret = hash_bytes(b"token\0" + intent.id.encode() + bytes([self.term % 256]))
        for key in [key for key, row in self.tokens.items() if row.intent == intent.id]:
            if not self.tokens[key].used_by:
                del self.tokens[key]
        self.tokens[token_hash(secret)] = TokenRow(
            role=intent.role,
            name=intent.name,
            region=intent.region,
            provider=intent.provider,
            owner=intent.owner or OPERATOR,
            cell="",
            expires_at=self.world.schedule.now + JOIN_TOKEN_S_MAX,
            intent=intent.id,
        )
        return secret

    def ask(self, secret: bytes) -> tuple[str, Role] | None:
        """The seat of a machine that stands by, once it is called (`hq.standby`)."""
        row = self.tokens.get(token_hash(secret))
        if row is None:
            return None
        if not row.name:
            self.step(events.StandsBy(row.intent))
            return None
        return row.name, row.role

    def _call(self, intent: IntentRow) -> events.Event:
        for key, row in self.tokens.items():
            if row.intent == intent.id:
                named = msgspec.structs.replace(row, name=intent.name, role=intent.role)
                self.tokens[key] = named
                self.world.called(intent.id)
                return events.Ordered(intent.id)
        return events.OrderFailed(intent.id, "no token for the machine that stands by", True)

    # --- Orders ----------------------------------------------------------------------------------
    def _hand_out(self, order: events.Send) -> None:
        world = self.world
        if isinstance(order, events.Order):
            self.on_order(order.intent)
        if isinstance(order, events.Reap):
            self.on_reap(order.intent)
        match order:
            case events.Granted() | events.Populated():
                return
            case events.Point():
                delay = world.zone.delay()
            case events.Survey(provider):
                delay = world.clouds[provider].delay()
            case events.Order(intent) if intent.warm:
                delay = BASE_DELAY_S
            case events.Order(intent) | events.Reap(intent):
                delay = world.clouds[intent.provider].delay()
        world.schedule.after(delay, self._carry_out, order, self.term)

    def _carry_out(self, order: events.Send, term: int) -> None:
        """The order reaches its cloud. That of an HQ that has died since may do so as well, and
        nobody is there for the answer."""
        late = self.fleet is None or term != self.term
        if late and self.world.chance.happens(0.5):
            return
        self._answered(self._do(order), term)

    def _answered(self, answer: events.Event, term: int) -> None:
        if self.stalled:
            self.world.schedule.after(1.0, self._answered, answer, term)
            return
        if self.fleet is not None and term == self.term:
            self.step(answer)

    def _do(self, order: events.Send) -> events.Event:
        world = self.world
        match order:
            case events.Order(intent):
                return self._spawn(intent)
            case events.Reap(intent):
                try:
                    world.delete_machine(intent.provider, intent.resource)
                except Refused as refusal:
                    return events.ReapFailed(intent.id, str(refusal))
                return events.Reaped(intent.id)
            case events.Survey(provider):
                try:
                    return events.Surveyed(provider, world.clouds[provider].list())
                except Refused:
                    return events.Surveyed(provider, None)
            case events.Point(name, addresses, node, previous):
                said = world.zone.point(name, addresses, node, previous)
                return events.PointFailed(name, said) if said else events.Pointed(name, node)
            case _:
                raise AssertionError(f"an order nobody knows: {order}")

    def _spawn(self, intent: IntentRow) -> events.Event:
        """List, then create under the intent's id, as `hq.healer` does; or call who stands by."""
        if intent.warm:
            return self._call(intent)
        cloud = self.world.clouds[intent.provider]
        try:
            if not cloud.has(intent.id):
                self.world.create_machine(intent, self.issue_token(intent))
            cloud.answered()
        except Refused as refusal:
            return events.OrderFailed(intent.id, str(refusal), False)
        return events.Ordered(intent.id)


def _node_row(token: TokenRow, joiner: Joiner, server: Server, now: float) -> NodeRow:
    return NodeRow(
        node=server.node,
        identity=joiner.identity,
        name=token.name,
        role=token.role,
        region=token.region,
        provider=token.provider,
        owner=token.owner,
        addresses=server.address,
        serial=str(server.endpoint),
        cert_expires_at=0,
        joined_at=now,
        intent=token.intent,
    )
