"""One relay or replica, whole: store, door, reconciling, retention, watching, figures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import IO

from holdfast.crypto.certificates import verify_chain
from holdfast.crypto.certinfo import from_pem
from holdfast.crypto.keys import SigningKey
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.logic.fleet.model import Load
from holdfast.relay.desk import Desk
from holdfast.relay.door import Door
from holdfast.relay.peers import Peers
from holdfast.relay.policy import RelayConfig
from holdfast.relay.probes import Watchman
from holdfast.relay.reconcile import Reconciler
from holdfast.relay.retention import Retention
from holdfast.relay.sessions import Kind
from holdfast.relay.tickets import TicketBook
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import lock_directory, read_file
from holdfast.rim.local_page import LocalPage
from holdfast.rim.pool_server import PoolHandler, PoolServer
from holdfast.rim.store import DiskStore, Files
from holdfast.wire.control import Status
from holdfast.wire.hq import Accusation, Alert, Desired
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple
from holdfast.wire.tickets import TicketKeys

_log = logging.getLogger("holdfast.relay")


class Relay:
    """A server of the pool. `start`, then `apply` what HQ wants, `stop` when done."""

    def __init__(
        self,
        config: RelayConfig,
        clock: Clock,
        entropy: Entropy,
        tell: Callable[[Alert | Accusation], None],
        files: Files | None = None,
        door: Callable[[Desk], PoolHandler] = Door,
    ) -> None:
        """`tell` takes what HQ should hear. `files` replaces the disk in tests of a faulty one,
        `door` the door in drills of a lying one."""
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._tell = tell
        self._files = files
        self._door = door
        self._tasks: list[asyncio.Task[None]] = []
        self._counted = (0, 0, 0.0)
        self._started_at = 0.0
        self._lock: IO[bytes] | None = None

    async def start(self) -> None:
        """Open the store and serve; slots come with `apply`.

        Raises UsageError for files that do not belong together, OperationFault otherwise."""
        config = self._config
        self._lock = lock_directory(config.state, "a relay")
        identity = SigningKey(_seed(config))
        roots = from_pem(_file(config, "roots"))
        network = self._own_network(identity, roots)
        self.store = await DiskStore.open(
            config.state / "store",
            identity=identity,
            clock=self._clock,
            entropy=self._entropy,
            policy=config.policy.store,
            files=self._files,
        )
        self.desk = Desk(
            identity=identity,
            network=network,
            role=config.role,
            roots=roots,
            store=self.store,
            policy=config.policy,
            clock=self._clock,
            entropy=self._entropy,
            tickets=TicketBook(config.state / "tickets.db", network, self._clock),
        )
        self.desk.accuse = self._tell
        self.store.subscribe(self.desk.watchers.committed)
        self._peers = Peers(self.desk)
        self.reconciler = Reconciler(self.desk, self._peers)
        self._retention = Retention(self.desk, self.reconciler)
        self._watchman = Watchman(self.desk, config.region, self._entropy, self._tell)
        self.server = PoolServer(self._door(self.desk), config.host, config.port, self._clock)
        self.desk.leaves = lambda: self.server.leaves
        self._metrics = LocalPage(config.state / "metrics.sock", self.metrics, self._clock)
        self._started_at = self.desk.real_s()
        try:
            await self.server.start(config.chain, config.key)
            await self._metrics.start()
        except OperationFault:
            await self.server.stop()
            await self.store.close()
            self.desk.tickets.close()
            raise
        work = (self._reconcile_on(), self._watchman.run(), self._sweep_sessions())
        self._tasks = [asyncio.create_task(each) for each in work]

    async def stop(self) -> None:
        """Answer what is in flight, commit what is queued, close."""
        self.desk.leaving = True
        self.desk.watchers.wake_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watchman.close()
        await self._peers.close()
        await self.server.stop()
        await self._metrics.stop()
        await self.store.close()
        self.desk.tickets.close()
        if self._lock is not None:
            self._lock.close()

    @property
    def address(self) -> str:
        """`host:port` of the clients' port."""
        return self.server.address

    # --- What HQ wants ---------------------------------------------------------------------------
    def apply(self, desired: Desired) -> None:
        """Take over revocations, slots and settings. What does not verify is passed over."""
        desk = self.desk
        if desired.role is not self._config.role:
            _log.error("HQ wants a %s, this is a %s; ignored", desired.role, self._config.role)
            return
        self._apply_statements(desired)
        changed, faults = desk.seats.apply(
            desired.slots, desk.revocations, self._clock.wall(), desired.left
        )
        for fault in faults:
            _log.error("a slot record was passed over: %s", fault)
        desk.retired = desired.retired
        desk.report_tag_age_s = desired.report_tag_age_s
        desk.terms = desired.terms
        self.store.allow(desk.store_bytes_max)
        self._end_sessions()
        if changed:
            _log.info("serving %d slots, %d changed", len(desk.seats), len(changed))
            desk.watchers.changed(changed)
            self._watchman.seats_changed()
            self.reconciler.wake()

    def _apply_statements(self, desired: Desired) -> None:
        statements, now = self.desk.statements, self._clock.wall()
        takers = (
            (desired.revocations, statements.take_revocations),
            (desired.witnesses, statements.take_witnesses),
            (desired.ticket_keys, self._take_ticket_keys),
        )
        for staple, take in takers:
            if staple is not None:
                try:
                    take(staple, now)
                except PeerFault as fault:
                    _log.error("a statement of HQ was passed over: %s", fault)

    def _take_ticket_keys(self, staple: Staple, now: float) -> None:
        desk = self.desk
        keys = verify_staple(
            desk.roots, staple, Type.TICKET_KEYS, TicketKeys, now, revocations=desk.revocations
        )
        if desk.tickets.take_keys(keys):
            desk.sessions.each(desk.readmit)

    def _end_sessions(self) -> None:
        """Sessions of excluded nodes, of slots we lost and of nodes that lost their seat."""
        desk = self.desk

        def condemned(kind: Kind, slot: bytes, node: bytes) -> bool:
            seated = desk.seats.get(slot)
            if seated is None or (desk.retired and kind is Kind.GROUP):
                return True
            if kind is Kind.GROUP:
                return False
            return seated.record.seat_of(node) is None or desk.is_revoked(node)

        ended = desk.sessions.drop(lambda c: condemned(c.kind, c.slot, c.node))
        if ended:
            desk.counts["sessions_ended"] += ended
            desk.watchers.wake_all()

    async def rotate(self) -> None:
        """New certificate files lie in place. Raises OperationFault; the old ones then serve on."""
        self.desk.watchers.wake_all()  # so that long polls do not hold up the old server
        await self.server.rotate(self._config.chain, self._config.key)

    # --- Figures ---------------------------------------------------------------------------------
    def load(self) -> Load:
        """Figures for a heartbeat."""
        figures, desk = self.store.figures(), self.desk
        return Load(
            sessions=len(desk.sessions),
            groups=figures.groups,
            blobs=figures.blobs,
            stored_bytes=figures.stored_bytes,
            free_bytes=figures.free_bytes,
            requests_per_s=self._requests_per_s,
            commit_p99_ms=figures.commit_p99_ms,
            writable=not figures.trouble,
            faults_share=self._faults_share,
        )

    _requests_per_s = 0.0
    _faults_share = 0.0

    def status(self) -> Status:
        """What the agent is told every few seconds."""
        count, failed, at = self._counted
        now, requests, faults = self.desk.real_s(), self.desk.requests, self.desk.faults
        if now - at >= 1.0:
            self._requests_per_s = (requests - count) / (now - at)
            self._faults_share = (faults - failed) / max(requests - count, 1)
            self._counted = (requests, faults, now)
        filled_of = self.reconciler.filled_of()
        return Status(self.load(), bool(filled_of), filled_of)

    def metrics(self) -> str:
        """The page of the socket file."""
        from holdfast.relay.metrics import metrics_text  # its library slows a start

        uptime_s = self.desk.real_s() - self._started_at
        self.desk.counts["stalled"] = self.server.stalled.ended
        return metrics_text(self.desk, self.load(), self.reconciler.filled(), uptime_s)

    # --- Background ------------------------------------------------------------------------------
    async def _reconcile_on(self) -> None:
        while True:
            await self.reconciler.wait()
            try:
                await self.reconciler.round()
                await self._retention.sweep()
            except HoldfastError as error:
                _log.warning("reconciling stopped short: %s", error)

    async def _sweep_sessions(self) -> None:
        while True:
            await self._clock.sleep_real(self.desk.sessions.idle_s / 10)
            self.desk.sessions.expire()

    def _own_network(self, identity: SigningKey, roots: tuple[bytes, ...]) -> bytes:
        """Our network, from our certificate, which must be ours. Raises UsageError."""
        chain = from_pem(_file(self._config, "chain"))
        try:
            name = verify_chain(roots, chain, self._clock.wall())
        except PeerFault as fault:
            raise UsageError(f"{self._config.chain}: {fault}; join or renew") from fault
        if name.node != identity.node or name.role != self._config.role:
            raise UsageError(f"{self._config.chain} is not this {self._config.role}'s certificate")
        if self._config.network not in (b"", name.network):
            raise UsageError(f"{self._config.chain} is of network {name.network.hex()}")
        return name.network


def _file(config: RelayConfig, what: str) -> bytes:
    path = getattr(config, what)
    data = read_file(path)
    if data is None:
        raise UsageError(f"{path} does not exist; join the network first")
    return data


def _seed(config: RelayConfig) -> bytes:
    seed = _file(config, "identity")
    if len(seed) != 32:
        raise UsageError(f"{config.identity} is no identity key")
    return seed
