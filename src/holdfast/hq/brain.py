"""The brain: one loop that feeds the fleet machine, makes its changes durable, then acts.

The law of `Effects` is kept here. Events wait in one queue; the loop takes what has come, steps
the machine, writes the changed rows in transactions that compare the term, logs, and only then
hands out orders, which run beside the loop and answer with events. If a write fails, nothing is
sent and the machine is built anew from the store. If the term has moved on, the brain is deposed
and stops for good.

Time is the wall clock at start, carried on by elapsed time, so that a stepped clock never makes a
server RED; limits are scaled by the clock's scale.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.crypto.certinfo import NodeName
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.brain_news import audit_tail, sign_of_life, testimony
from holdfast.hq.brain_ports import AuditSink, IssueToken, RecordLog, SignRecord, Zone
from holdfast.hq.brain_rows import Change, Deposed, Rows
from holdfast.hq.brain_slots import SlotViews
from holdfast.hq.brain_view import FleetView, Timeline, build_view
from holdfast.hq.evidence import evidence_counts
from holdfast.hq.healer import Healer, Task
from holdfast.limits import RELAYS_PER_SLOT
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.fleet import events
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import NodeId, SlotId, SlotRecord
from holdfast.logic.fleet.rows import FleetRow, NodeRow, SlotRow
from holdfast.logic.fleet.state import FleetState
from holdfast.logic.fleet.topology import plan_launch
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.port import Cloud
from holdfast.rim.control.store import ControlStore
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack, unpack
from holdfast.wire.hq import Alert, Heartbeat
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX

TICK_S: Final = 1.0
TICK_REAL_S_MIN: Final = 0.05
BATCH_MAX: Final = 256
"""Events that share one transaction."""
QUEUE_MAX: Final = 10_000
"""Past this, whoever brings news waits: alerts repeat themselves, and HQ stays small."""
RETRY_REAL_S: Final = 1.0
TIMELINE_LOADED: Final = 200
"""Lines of the audit log read back at start."""
VIEW_REAL_S: Final = 5.0
"""A sixth of a heartbeat, and as often as the page looks."""
UNLOGGED_MAX: Final = 10_000
"""Audit lines kept while the audit log does not take them."""
_log = logging.getLogger("holdfast.hq.brain")

_Asked = tuple[events.Event, "asyncio.Future[SlotId | None] | None"]


class Brain:
    """See the module. Start it when this HQ leads; stop it when it does not."""

    def __init__(
        self,
        *,
        store: ControlStore,
        clock: Clock,
        entropy: Entropy,
        clouds: Mapping[str, Cloud],
        zone: Zone,
        sign_record: SignRecord,
        issue_token: IssueToken,
        audit: AuditSink,
        network: bytes,
        domain: str,
        ticking: bool = True,
        log: RecordLog | None = None,
    ) -> None:
        self._store = store
        self._rows = Rows(store, log)
        self._clock = clock
        self._entropy = entropy
        self._clouds = clouds
        self._healer = Healer(clouds, zone, issue_token)
        self._sign_record = sign_record
        self._audit = audit
        self._network = network
        self._domain = domain
        self._ticking = ticking
        self._queue: asyncio.Queue[_Asked] = asyncio.Queue(QUEUE_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._orders: set[asyncio.Task[events.Event]] = set()  # in flight to clouds and DNS
        self._fleet: Fleet | None = None
        self._timeline = Timeline()
        self._unlogged: deque[Audit] = deque(maxlen=UNLOGGED_MAX)
        self._version = 0
        self._accused: dict[NodeId, int] = {}
        self._view: FleetView | None = None
        self._viewed_at = 0.0
        self._slots = SlotViews()
        self._moved = asyncio.Event()
        self._wall_at_start = clock.wall()
        self._elapsed_at_start = clock.elapsed()
        self._looping: asyncio.Task[None] | None = None
        self._bug: BaseException | None = None
        self.deposed = asyncio.Event()
        """Set when another HQ has taken the lead, or a task died: nothing is decided here."""

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Load the fleet and go on where the last HQ stopped. Raises OperationFault, Deposed."""
        for row, line in await audit_tail(self._store, TIMELINE_LOADED):
            self._timeline.add([line], row.at, row.sequence)
        self._accused = await evidence_counts(self._store)
        await self._build()
        self._looping = self._spawn(self._loop())
        if self._ticking:
            self._spawn(self._tick_for_ever())

    async def look(self) -> None:
        """Load the fleet to show it, and decide nothing: whoever asks for more is told so."""
        for row, line in await audit_tail(self._store, TIMELINE_LOADED):
            self._timeline.add([line], row.at, row.sequence)
        self._accused = await evidence_counts(self._store)
        await self._load()
        self._version += 1
        self.deposed.set()

    async def lost(self) -> None:
        """Return when this HQ is deposed; raise the bug that ended the brain, if one did."""
        assert self._looping is not None, "the brain is started"
        await asyncio.shield(asyncio.gather(self._looping, return_exceptions=True))
        if self._bug is not None:
            raise self._bug

    async def stop(self) -> None:
        """Stop deciding. Orders in flight are dropped; the next start finds and repeats them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the brain failed", exc_info=error)
            self._bug = self._bug or error
            if self._looping is not None:
                self._looping.cancel()  # sets `deposed` and refuses whoever waits

    async def _tick_for_ever(self) -> None:
        period_s = max(TICK_S, TICK_REAL_S_MIN * self._clock.scale)
        await self._clock.sleep(self._entropy.uniform(0.0, period_s))  # two HQs, two rhythms
        while not self.deposed.is_set():
            await self._queue.put((events.Tick(), None))
            await self._clock.sleep(period_s)

    # --- News ------------------------------------------------------------------------------------
    async def alert(self, sender: NodeName, alert: Alert) -> None:
        """A verified node's testimony. Nothing it says of itself or of strangers counts."""
        if sender.network != self._network:
            raise PeerFault("an alert from another network", code="certificate")
        await self._tell(testimony(sender.node, alert))

    async def heartbeat(self, node: bytes, beat: Heartbeat) -> None:
        """A verified node's sign of life. Raises PeerFault for addresses nobody could dial."""
        await self._tell(sign_of_life(node, beat))

    async def joined(self, row: NodeRow) -> None:
        """A node's certificate and row are durable. Returns when it is seated, or waits."""
        await self._ask(events.Joined(row))

    async def left(self, node: bytes, reason: str) -> None:
        """A node asks to go; it serves on until its seat is taken."""
        await self._ask(events.Left(node, reason))

    async def retire(self, node: bytes, reason: str) -> None:
        """An entry or a core has nothing left to do."""
        await self._ask(events.Retire(node, reason))

    async def revoked(self, node: bytes) -> None:
        """A node is on the revocation list."""
        await self._ask(events.Revoked(node))

    async def allocate(self, region: str) -> Staple:
        """The newest record of the slot for one new group, which counts from now on.

        Raises OperationFault (retryable) while no slot exists.
        """
        slot = await self._ask(events.Allocate(region))
        if slot is None:
            raise OperationFault("no slot is ready yet; try again when six servers have joined")
        staple = self.record(slot)
        assert staple is not None, "an allocated slot has its record"
        return staple

    async def launch(self, regions: Sequence[str]) -> None:
        """Plan and order a relay and a replica in every region at every provider. Idempotent.

        Raises UsageError for a region that cannot be one, or without any provider.
        """
        providers = tuple(sorted(self._clouds))
        plan_launch(providers, regions)
        await self._ask(events.Launch(providers, tuple(regions)))

    async def stands_by(self, intent: str) -> None:
        """The machine of a standby intent asked whether it is called."""
        await self._tell(events.StandsBy(intent))

    def standbys(self) -> tuple[int, int, int]:
        """(wanted per place, machines that would hear a call, machines ordered)."""
        ready, ordered = self._machine.healing.standbys.count(self._now())
        return self._machine.state.standby.per_place, ready, ordered

    async def keep_standbys(self, per_place: int) -> None:
        """Keep so many machines standing by in every region of every provider in use."""
        await self._ask(events.KeepStandbys(per_place))

    async def order(self, event: events.Event) -> None:
        """What an operator asks of the fleet; returns once it is durable."""
        await self._ask(event)

    async def confirm(self, author: str) -> None:
        """The operator says that the loss is real: the freeze ends (D29)."""
        await self._ask(events.Confirm(author))

    def accuse(self, node: NodeId, line: Audit) -> None:
        """A proof against a node was kept and logged: show it. Nothing is decided by it."""
        self._accused[node] = self._accused.get(node, 0) + 1
        self.show(line)

    def show(self, line: Audit) -> None:
        """Put a line that was logged by others on the timeline."""
        self._timeline.add([line], self._clock.wall())
        self._version += 1
        self._moved.set()
        self._moved = asyncio.Event()

    async def tick(self) -> None:
        """Let time be noticed. The brain does it by itself once a second."""
        await self._ask(events.Tick())

    # --- What it shows ---------------------------------------------------------------------------
    def record(self, slot: SlotId) -> Staple | None:
        """The newest record of a slot."""
        row = self._machine.state.slots.get(slot)
        if row is None:
            return None
        return unpack(Staple, row.staple, bytes_max=2 * SIGNED_BYTES_MAX)

    @property
    def fleet(self) -> Fleet:
        """The machine, to look at."""
        return self._machine

    def view(self) -> FleetView:
        """The fleet now; the same object until something changes. Heartbeats change no row: what
        they say is at most `VIEW_REAL_S` old."""
        now = self._clock.elapsed() / self._clock.scale
        stale = now - self._viewed_at >= VIEW_REAL_S
        if self._view is None or self._view.version != self._version or stale:
            self._viewed_at = now
            self._view = build_view(
                self._machine,
                self._timeline,
                accused=self._accused,
                version=self._version,
                domain=self._domain,
                scale=self._clock.scale,
                known=self._slots,
            )
        return self._view

    async def changes(self) -> AsyncIterator[int]:
        """The version now, and each newer one; versions in between may be skipped."""
        seen = -1
        while True:
            while seen == self._version:
                await self._moved.wait()
            seen = self._version
            yield seen

    @property
    def _machine(self) -> Fleet:
        assert self._fleet is not None, "the brain is started before it is asked"
        return self._fleet

    # --- The loop --------------------------------------------------------------------------------
    async def _tell(self, event: events.Event) -> None:
        """Queue news nobody waits for."""
        self._check_leading()
        await self._queue.put((event, None))

    async def _ask(self, event: events.Event) -> SlotId | None:
        """Queue an event and wait until what it changed is durable."""
        self._check_leading()
        done: asyncio.Future[SlotId | None] = asyncio.get_running_loop().create_future()
        await self._queue.put((event, done))
        if self.deposed.is_set():  # it happened while we waited for room
            self._refuse_waiting(Deposed())
        return await done

    def _check_leading(self) -> None:
        if self.deposed.is_set():
            raise Deposed

    async def _loop(self) -> None:
        """Until deposed, stopped or broken; whoever waits then is told."""
        fault = OperationFault("headquarters is stopping; try again")
        try:
            while True:
                await self._turn()
        except Deposed as deposed:
            fault = deposed
            _log.warning("deposed: %s", deposed)
        finally:
            self.deposed.set()
            self._refuse_waiting(fault)

    async def _turn(self) -> None:
        """Everything that has come, in one go."""
        asked = [await self._queue.get()]
        while len(asked) < BATCH_MAX and not self._queue.empty():
            asked.append(self._queue.get_nowait())
        try:
            await self._work(asked)
        except Deposed as fault:
            self._answer(asked, fault)
            raise
        except OperationFault as fault:
            _log.warning("the control store failed: %s", fault)
            self._answer(asked, fault)
            await self._rebuild()
        except BaseException:
            self._answer(asked, OperationFault("headquarters is stopping; try again"))
            raise

    async def _work(self, asked: list[_Asked]) -> None:
        """Step through the events, then act on all of them at once."""
        now = self._now()
        changes: list[Change] = []
        send: list[Any] = []
        audit: list[Audit] = []
        grants: list[SlotId | None] = []
        for event, _ in asked:
            effects = self._machine.step(event, now)
            changes += effects.persist
            audit += effects.audit
            granted: SlotId | None = None
            for item in effects.send:
                if isinstance(item, events.Granted):
                    granted = item.slot
                elif not isinstance(item, events.Populated):
                    send.append(item)
            grants.append(granted)
        await self._act(changes, send, audit)
        for (_, done), granted in zip(asked, grants, strict=True):
            if done is not None and not done.done():
                done.set_result(granted)

    async def _act(self, changes: Sequence[Change], send: list[Task], audit: list[Audit]) -> None:
        """Durable first, then the log, then the world."""
        if changes:
            await self._rows.save(changes, self._sign)
        await self._tell_story(audit)
        if changes or audit:
            self._version += 1
            self._moved.set()
            self._moved = asyncio.Event()
        for task in send:
            self._spawn(self._carry_out(task))

    async def _carry_out(self, task: Task) -> None:
        self._orders.add(order := asyncio.create_task(self._healer.carry_out(task)))
        order.add_done_callback(self._orders.discard)
        await self._queue.put((await order, None))

    def _sign(self, row: FleetRow | None) -> FleetRow | None:
        """A slot row without a staple gets one."""
        if not isinstance(row, SlotRow) or row.staple:
            return row
        record = SlotRecord(
            network=self._network,
            slot=row.slot,
            version=row.version,
            issued_at=int(self._machine.now),
            relays=row.seats[:RELAYS_PER_SLOT],
            replicas=row.seats[RELAYS_PER_SLOT:],
        )
        signed = msgspec.structs.replace(row, staple=pack(self._sign_record(record)))
        self._machine.state.signed(signed)
        return signed

    async def _tell_story(self, audit: list[Audit]) -> None:
        self._timeline.add(audit, self._clock.wall())
        self._unlogged.extend(audit)
        if not self._unlogged:
            return
        lines = list(self._unlogged)
        try:
            await self._audit(lines)
        except OperationFault as fault:
            _log.warning("audit lines wait: %s", fault)
            return
        for _ in lines:
            self._unlogged.popleft()

    # --- From the store --------------------------------------------------------------------------
    async def _build(self) -> None:
        """The machine from what is durable, and the first step of a new HQ."""
        now = await self._load()
        effects: Effects = self._machine.start(now)
        await self._act(effects.persist, list(effects.send), list(effects.audit))
        self._version += 1

    async def _load(self) -> float:
        """The machine from what is durable, as of now."""
        rows = await self._rows.load()
        now = self._now()
        state = FleetState(
            self._network, scale=self._clock.scale, term=self._rows.term, epoch=self._rows.epoch
        )
        state.load(rows)
        self._fleet = Fleet(state, now)
        return now

    async def _rebuild(self) -> None:
        """Build anew once orders in flight have ended: a second takes back the first's token."""
        while self._orders:
            await asyncio.wait(self._orders)
        while True:
            try:
                return await self._build()
            except Deposed:
                raise
            except OperationFault as fault:
                _log.warning("still no control store: %s", fault)
                await self._clock.sleep_real(RETRY_REAL_S)

    def _now(self) -> float:
        elapsed_s = self._clock.elapsed() - self._elapsed_at_start
        return self._wall_at_start + elapsed_s / self._clock.scale

    # --- Answers ---------------------------------------------------------------------------------
    def _answer(self, asked: list[_Asked], fault: OperationFault) -> None:
        for _, done in asked:
            if done is not None and not done.done():
                done.set_exception(fault)

    def _refuse_waiting(self, fault: OperationFault) -> None:
        while not self._queue.empty():
            self._answer([self._queue.get_nowait()], fault)
