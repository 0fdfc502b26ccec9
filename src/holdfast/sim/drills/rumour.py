"""A fleet under forged death reports, in simulated time (seed 004 §4, §9.1).

The judges are the production ones: an `Observer` for each server, and headquarters' `Fleet`. Around
them a world in dictionaries: providers that deliver machines, probes that answer or not, messages
that are lost. Liars report every server dead to every other, all the while; some servers really
die. What providers were ordered to make is counted from outside.

A server's probes say whether the other one answers. With `verify` off they say what the reports
say: a server that somebody reported lately fails its probe. That is the one thing between a rumour
and a machine, and without it rumours must kill.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet import events
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import Load, Role, Tier
from holdfast.logic.fleet.observer import (
    Active,
    AlertOut,
    Observer,
    Peer,
    Peers,
    Probed,
    Reported,
    StartProbing,
    StopProbing,
    Tick,
)
from holdfast.logic.fleet.rows import NodeRow, SlotRow, key_of
from holdfast.logic.fleet.state import FleetState
from holdfast.logic.fleet.tiers import Witnessed
from holdfast.rim.entropy import Dice

PROVIDERS: Final = ("amber", "birch", "cedar")
REGIONS: Final = ("eu", "ap", "am")
"""The launch topology: 18 servers, a slot in each region (§11.1)."""
STEP_S: Final = 5.0
BEAT_S: Final = 30.0
SPAWN_S: Final = 30.0
FILL_S: Final = 90.0
GROUPS: Final = 200
"""Tags that liars have, each with blobs here, as one that is believed must."""
SLOW_FAILS: Final = 0.3
"""Share of the probes of a slow server that run out of time whatever they ask."""
LAUNCH_S: Final = 3_000.0
CONTROL_MIN: Final = 12.0
_GOOD: Final = Load(free_bytes=1 << 40, stored_bytes=1)


class Weather(msgspec.Struct, frozen=True):
    """What the world does to them."""

    reports_per_min: int = 100_000
    loss: float = 0.2
    """Of packets. An alert or heartbeat that is lost is lost; a probe asks three times, as TCP
    would in the ten seconds it has."""
    slow: float = 0.05
    """Share of servers whose own probes often run out of time."""
    deaths: int = 3
    verify: bool = True


class Tally(msgspec.Struct):
    """What came of it. `spawns` are machines ordered for servers that are well."""

    reports: int = 0
    deaths: int = 0
    true_red: int = 0
    false_red: int = 0
    spawns: int = 0
    replaced: int = 0
    """Machines ordered for the dead."""
    yellow: int = 0
    """Servers under suspicion that were well: the reports were heard."""
    slow_observers: int = 0
    minutes: float = 0.0


class Rumour:
    """One world. `run` once."""

    def __init__(self, weather: Weather, seed: int) -> None:
        self._weather = weather
        self._dice = Dice(seed)
        self.now = 1_000_000.0
        self._machines: dict[str, dict[str, float]] = {name: {} for name in PROVIDERS}
        self._ordered: list[str] = []
        """The names machines were ordered for, in order."""
        self._alive: set[bytes] = set()
        self._joined: dict[str, NodeRow] = {}
        self._seated_at: dict[bytes, float] = {}
        self._outbox: list[Any] = []
        self._audit: list[Audit] = []
        self._watchers: dict[bytes, _Watcher] = {}
        self._slow: set[bytes] = set()
        self._fleet = Fleet(FleetState(b"n" * 16, term=1), self.now)
        self._take(self._fleet.start(self.now))

    def run(self, minutes: float) -> Tally:
        """Launch, then `minutes` of rumours."""
        self._step(events.Launch(PROVIDERS, REGIONS))
        until = self.now + LAUNCH_S
        while not self._is_whole():
            assert self.now < until, "the launch topology does not come up"
            self._pass(0)
        tally = Tally(minutes=minutes, slow_observers=len(self._slow))
        self._ordered.clear()
        self._audit.clear()
        began, dead = self.now, set[str]()
        share = round(self._weather.reports_per_min * STEP_S / 60)
        while self.now - began < 60 * minutes:
            tally.reports += self._pass(share)
            due = self._weather.deaths * (self.now - began) / (30 * minutes)
            while len(dead) < min(self._weather.deaths, due):
                dead.add(self._kill(dead))
        red = {line.subject for line in self._audit if line.verb == "server.red"}
        yellow = {line.subject for line in self._audit if line.verb == "server.yellow"}
        tally.deaths, tally.true_red = len(dead), len(red & dead)
        tally.false_red, tally.yellow = len(red - dead), len(yellow - dead)
        tally.replaced = sum(name in dead for name in self._ordered)
        tally.spawns = len(self._ordered) - tally.replaced
        return tally

    def _kill(self, dead: Iterable[str]) -> str:
        """A server dies, on no other slot than servers that are well."""
        rows = self._fleet.state.servers
        near = {peer for name in dead for peer in self._fleet.state.peers(name)} | set(dead)
        names = sorted(n for n in rows if rows[n].node in self._alive and n not in near)
        name = self._dice.choice(names or sorted(set(rows) - set(dead)))
        self._alive.discard(rows[name].node)
        return name

    # --- Time ------------------------------------------------------------------------------------
    def _pass(self, reports: int) -> int:
        """Five seconds; how many reports were taken."""
        before, self.now = self.now, self.now + STEP_S
        self._boot()
        self._watch()
        taken = self._lie(reports)
        for watcher in list(self._watchers.values()):
            self._probe(watcher)
            self._send(watcher, watcher.observer.step(Tick(), self.now))
        if before // BEAT_S != self.now // BEAT_S:
            self._beat()
        self._step(events.Tick())
        pending, self._outbox = self._outbox, []
        for order in pending:
            answer = self._carry_out(order)
            if answer is not None:
                self._step(answer)
        return taken

    def _lie(self, count: int) -> int:
        """Reports of anybody about anybody, spread over the servers that live."""
        watchers = [w for w in self._watchers.values() if w.names]
        for number in range(count if watchers else 0):
            watcher = watchers[number % len(watchers)]
            name = self._dice.choice(watcher.names)
            tag = b"liar %d" % self._dice.randrange(GROUPS)
            watcher.rumoured[name] = self.now
            region = self._dice.choice(REGIONS)
            self._send(watcher, watcher.observer.step(Reported(tag, name, region), self.now))
        return count if watchers else 0

    # --- Servers ---------------------------------------------------------------------------------
    def _watch(self) -> None:
        """Every seated server that lives has an observer that knows its peers."""
        state = self._fleet.state
        seated = {n for n in state.name_of if n in self._alive}
        for node in self._watchers.keys() - seated:
            del self._watchers[node]
        for node in sorted(seated):
            name = state.name_of[node]
            watcher = self._watchers.get(node)
            if watcher is None:
                slow = len(self._slow) < self._weather.slow * len(state.servers)
                self._slow |= {node} if slow else set()
                watcher = _Watcher(node, Observer(state.servers[name].region), slow=slow)
                self._watchers[node] = watcher
            peers = tuple(
                Peer(row.name, row.node, row.region, slots)
                for row in (state.servers[peer] for peer in sorted(state.peers(name)))
                if row.node
                and (
                    slots := tuple(s for s in state.slots_of[name] if s in state.slots_of[row.name])
                )
            )
            if peers == watcher.peers:
                continue
            watcher.peers, watcher.names = peers, [peer.name for peer in peers]
            self._send(watcher, watcher.observer.step(Peers(peers), self.now))
            for slot in {slot for peer in peers for slot in peer.slots}:
                for number in range(GROUPS):
                    tag = b"member %d" % number
                    watcher.observer.step(Active(tag, slot), self.now)

    def _probe(self, watcher: _Watcher) -> None:
        for name, (order, due) in list(watcher.probing.items()):
            if due > self.now:
                continue
            watcher.probing[name] = (order, self.now + order.period_s)
            ok = order.node in self._alive
            if not self._weather.verify:
                ok = watcher.rumoured.get(name, 0.0) < self.now - order.period_s
            if self._dice.random() < self._weather.loss**3:
                ok = False
            if watcher.slow and self._dice.random() < SLOW_FAILS:
                ok = False
            self._send(
                watcher, watcher.observer.step(Probed(name, order.node, ok, self.now), self.now)
            )

    def _send(self, watcher: _Watcher, effects: Effects) -> None:
        for effect in effects.send:
            match effect:
                case StartProbing(name, _, period_s):
                    known = name in watcher.probing
                    wait_s = 0.0 if known else self._dice.random() * period_s
                    watcher.probing[name] = (effect, self.now + wait_s)
                case StopProbing(name):
                    watcher.probing.pop(name, None)
                case AlertOut():
                    if self._dice.random() >= self._weather.loss:
                        self._step(_testimony(watcher.node, effect, self.now))

    def _beat(self) -> None:
        for node in sorted(self._alive):
            if self._dice.random() < self._weather.loss:
                continue
            name = self._fleet.state.name_of.get(node)
            filled = name is not None and self._fleet.slots.is_recorded(name)
            if filled:
                since = self._seated_at.setdefault(node, self.now)
                filled = self.now - since >= FILL_S
            row = self._fleet.state.nodes[node]
            self._step(events.Beat(node, _GOOD, row.addresses, filled))

    # --- Headquarters and providers --------------------------------------------------------------
    def _step(self, event: events.Event) -> None:
        self._take(self._fleet.step(event, self.now))

    def _take(self, effects: Effects) -> None:
        for _, row in effects.persist:
            if isinstance(row, SlotRow) and not row.staple:
                self._fleet.state.signed(msgspec.structs.replace(row, staple=b"signed"))
        self._audit += effects.audit
        self._outbox += effects.send

    def _carry_out(self, order: Any) -> events.Event | None:
        match order:
            case events.Order(intent):
                if intent.id not in self._machines[intent.provider]:
                    self._ordered.append(intent.name)
                    self._machines[intent.provider][intent.id] = self.now
                return events.Ordered(intent.id)
            case events.Reap(intent):
                self._machines[intent.provider].pop(intent.resource, None)
                row = self._joined.get(intent.resource)
                if row is not None:
                    self._alive.discard(row.node)
                return events.Reaped(intent.id)
            case events.Survey(provider):
                listed = (events.Machine(name, True) for name in self._machines[provider])
                return events.Surveyed(provider, tuple(listed))
            case events.Point(name, _, node, _):
                return events.Pointed(name, node)
        return None

    def _boot(self) -> None:
        """Machines join half a minute after they were ordered."""
        for provider, machines in self._machines.items():
            for intent_id, at in list(machines.items()):
                intent = self._fleet.state.intents.get(intent_id)
                if intent_id in self._joined or intent is None or self.now - at < SPAWN_S:
                    continue
                count = len(self._joined) + 1
                row = NodeRow(
                    node=hash_bytes(b"node %d" % count),
                    identity=b"",
                    name=intent.name,
                    role=Role(intent.role),
                    region=intent.region,
                    provider=provider,
                    owner=intent.owner,
                    addresses=(f"127.0.{count // 250}.{count % 250 + 1}:443",),
                    serial=str(count),
                    cert_expires_at=0,
                    joined_at=self.now,
                    intent=intent_id,
                )
                assert key_of(row)
                self._joined[intent_id] = row
                self._alive.add(row.node)
                self._step(events.Joined(row))

    def _is_whole(self) -> bool:
        rows = self._fleet.state.servers.values()
        return bool(rows) and all(
            row.tier is Tier.GREEN and row.node in self._alive and row.filled for row in rows
        )


class _Watcher:
    """One server's observer and its probes."""

    def __init__(self, node: bytes, observer: Observer, *, slow: bool) -> None:
        self.node = node
        self.observer = observer
        self.slow = slow
        self.peers: tuple[Peer, ...] = ()
        self.names: list[str] = []
        self.probing: dict[str, tuple[StartProbing, float]] = {}
        self.rumoured: dict[str, float] = {}
        """When somebody last reported a name here."""


def _testimony(witness: bytes, alert: AlertOut, now: float) -> Witnessed:
    failed_s = now - alert.first_failed_at if alert.first_failed_at else 0.0
    return Witnessed(
        witness=witness,
        name=alert.name,
        node=alert.node,
        tier=alert.tier,
        clients=alert.clients,
        clients_active=alert.clients_active,
        regions=alert.regions,
        probe_ok=alert.probe_ok,
        failures=alert.probe_failures,
        failed_s=failed_s,
    )


def rumours_alone(seed: int) -> tuple[Tally, Tally]:
    """The same rumours with probes that verify and with probes that believe; nobody dies."""
    weather = Weather(reports_per_min=1_000, loss=0.0, slow=0.0, deaths=0)
    gullible = msgspec.structs.replace(weather, verify=False)
    return Rumour(weather, seed).run(CONTROL_MIN), Rumour(gullible, seed).run(CONTROL_MIN)
