"""Watching the servers of our slots: canaries through the clients' own port (seed 004 §3.2, §4).

The observer machine decides whom to probe how often and what to say; this is its driver. A probe
is a new connection, a session, a write and a read of a canary, as a client would do it. `/health`
alone would call a server healthy whose disk is full.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from holdfast.crypto.blob import HEADER, SUITE_CHACHA20_POLY1305, VERSION
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.limits import KIB, PROBE_TIMEOUT_S
from holdfast.logic.effects import Effects
from holdfast.logic.fleet.model import Seat
from holdfast.logic.fleet.observer import (
    Active,
    AlertOut,
    Event,
    Observer,
    Peer,
    Probed,
    Reported,
    StartProbing,
    StopProbing,
    Tick,
    unix_s,
)
from holdfast.logic.fleet.observer import Peers as PeersNow
from holdfast.relay.desk import Desk
from holdfast.relay.peers import UNAWARE, connect, open_peer
from holdfast.relay.seats import Seated
from holdfast.relay.verbs import canary_tag
from holdfast.rim.entropy import Entropy
from holdfast.wire.faults import Refusal
from holdfast.wire.hq import Alert, ProbeResult
from holdfast.wire.pool import BlobClass

_log = logging.getLogger("holdfast.relay.probes")
_TICK_S: Final = 5.0
_ALIVE: Final = UNAWARE | {"rate", "busy", "draining"}
"""Refusals to open a session, by a server that is alive: it may not have our newest record yet, be
flooded, or be leaving. Another machine would help against none of that."""


class Watchman:
    """Drives the observer: probes, ticks, alerts."""

    def __init__(
        self, desk: Desk, region: str, entropy: Entropy, raise_alert: Callable[[Alert], None]
    ) -> None:
        self._desk = desk
        self._entropy = entropy
        self._raise = raise_alert
        self._observer = Observer(region)
        self._probing: dict[str, asyncio.Task[None]] = {}
        desk.note_active = lambda tag, slot: self._feed(Active(tag, slot))
        desk.note_report = lambda tag, name, region: self._feed(Reported(tag, name, region))

    def seats_changed(self) -> None:
        """The slot records changed: tell the observer who the peers are."""
        peers: dict[str, Peer] = {}
        for seated in self._desk.seats.all():
            for seat in seated.peers():
                known = peers.get(seat.name)
                slots = (*(known.slots if known else ()), seated.record.slot)
                peers[seat.name] = Peer(seat.name, seat.node, seat.region, slots)
        self._feed(PeersNow(tuple(peers.values())))

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await self._desk.clock.sleep(_TICK_S)
            self._feed(Tick())

    async def close(self) -> None:
        """Stop all probing."""
        tasks = list(self._probing.values())
        self._probing.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- The machine -----------------------------------------------------------------------------
    def _feed(self, event: Event) -> None:
        self._act(self._observer.step(event, self._desk.clock.elapsed()))

    def _act(self, effects: Effects) -> None:
        for effect in effects.send:
            match effect:
                case StartProbing():
                    self._start(effect)
                case StopProbing(name):
                    self._stop(name)
                case AlertOut():
                    self._raise(self._alert(effect))
                case _:
                    raise AssertionError(f"an effect nobody knows: {effect}")

    def _start(self, order: StartProbing) -> None:
        self._stop(order.name)
        self._probing[order.name] = asyncio.create_task(self._probe_on(order))

    def _stop(self, name: str) -> None:
        task = self._probing.pop(name, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _alert(self, out: AlertOut) -> Alert:
        clock = self._desk.clock
        now, wall_s = clock.elapsed(), clock.wall()

        def unix(at: float) -> float:
            return unix_s(at, now, wall_s, clock.scale)

        probe = None
        if out.probe_ok is not None:
            probe = ProbeResult(
                out.name, out.node, out.probe_ok, out.probe_failures, unix(out.first_failed_at)
            )
        return Alert(
            name=out.name,
            node=out.node,
            tier=out.tier,
            clients=out.clients,
            clients_active=out.clients_active,
            regions=out.regions,
            first_reported_at=unix(out.first_reported_at),
            probe=probe,
            observed_at=unix(out.observed_at),
        )

    # --- Probing ---------------------------------------------------------------------------------
    async def _probe_on(self, order: StartProbing) -> None:
        """Probe one peer every period until told otherwise."""
        me = asyncio.current_task()
        while True:
            began_at = self._desk.clock.elapsed()
            due = began_at + order.period_s
            found = self._seat(order)
            if found is None:
                return
            ok = await self._probe(*found)
            self._desk.counts["probes_ok" if ok else "probes_failed"] += 1
            self._feed(Probed(order.name, order.node, ok, began_at))
            if self._probing.get(order.name) is not me:
                return  # the answer led to another period, and to another task
            await self._desk.clock.sleep(due - self._desk.clock.elapsed())

    def _seat(self, order: StartProbing) -> tuple[Seated, Seat] | None:
        for seated in self._desk.seats.all():
            for seat in seated.peers():
                if (seat.name, seat.node) == (order.name, order.node):
                    return seated, seat
        return None

    async def _probe(self, seated: Seated, seat: Seat) -> bool:
        try:
            async with self._desk.clock.real_timeout(PROBE_TIMEOUT_S):
                await self._canary(seated, seat)
        except TimeoutError:
            return False
        except HoldfastError as error:
            _log.info("probe of %s: %s", seat.name, error)
            return False
        return True

    async def _canary(self, seated: Seated, seat: Seat) -> None:
        """Write and read. Raises OperationFault and PeerFault."""
        client = await connect(self._desk, seat)
        try:
            try:
                session = await open_peer(self._desk, client, seated)
            except (PeerFault, Refusal) as refusal:
                if refusal.code in _ALIVE:
                    return
                raise
            salt = self._entropy.bytes(32)
            head = HEADER.pack(VERSION, SUITE_CHACHA20_POLY1305, self._desk.today(), salt)
            blob = head.ljust(KIB, b"\x00")
            tag = canary_tag(self._desk.node)
            await session.push(BlobClass.CANARY, [blob], tag=tag)
            bodies = await session.get([hash_bytes(blob)], tag=tag)
            if not bodies:
                raise OperationFault(f"{seat.name} lost a canary")
        finally:
            await client.close()
