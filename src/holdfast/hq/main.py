"""One HQ process: builds the parts, serves, campaigns for the lead, and keeps itself in order.

    keys, store -> audit, log, tokens, joining, revocations, desired, zone      every process
    API over TLS, DNS, admin port                                               every process
    brain                                                                       the leader

Every process serves joins, renewals, reads and DNS from the one control store; what needs a
decision is answered 503 by those that do not lead, and callers ask the next address. Parts that
follow the store end only by failing: then the process stops, so that it is started again whole.

What is mounted beside the admin routes (the web page) is made by whoever composes the program and
handed in as `Mount`: services know nothing of pages.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.pure import base32
from holdfast.crypto.rootset import only_roots
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.access import Access
from holdfast.hq.access_book import AccessBook
from holdfast.hq.access_crl import CrlKeeper
from holdfast.hq.admin import Admin
from holdfast.hq.alerts import AlertBook
from holdfast.hq.api import Api
from holdfast.hq.applications import Applications
from holdfast.hq.audit import AuditAnchor, AuditLog
from holdfast.hq.authority import HQ_NAME, Authority
from holdfast.hq.brain import Brain
from holdfast.hq.brain_ports import IssueToken
from holdfast.hq.brain_view import FleetView, empty_view
from holdfast.hq.checkpoints import Checkpoints
from holdfast.hq.config import listen_address
from holdfast.hq.copies import Copies
from holdfast.hq.credentials import CredentialBook
from holdfast.hq.desired import Constants, DesiredBook
from holdfast.hq.evidence import EvidenceBook
from holdfast.hq.front import FrontDesk
from holdfast.hq.front_keys import FrontKeyring
from holdfast.hq.gate import Gate
from holdfast.hq.home import AdminFile, HqHome
from holdfast.hq.join import Joining
from holdfast.hq.keeper import Keeper
from holdfast.hq.leader import FencedStore, Leadership
from holdfast.hq.names import make_publisher
from holdfast.hq.newcomers import Newcomers
from holdfast.hq.operators import Operators
from holdfast.hq.parts import Parts
from holdfast.hq.records import SlotRecords
from holdfast.hq.releases import ReleaseBook
from holdfast.hq.restored import last_restore
from holdfast.hq.revocation import RevocationBook
from holdfast.hq.rollouts import Rollouts
from holdfast.hq.shelves import Shelves
from holdfast.hq.standby import StandbyDesk
from holdfast.hq.subscriptions import SubscriptionApp, Subscriptions
from holdfast.hq.tickets import TicketOffice
from holdfast.hq.tokens import Tokens
from holdfast.hq.transparency import CERTIFICATE, Leaf, TransparencyLog
from holdfast.hq.vault import Vault
from holdfast.hq.witnesses import WitnessBook
from holdfast.limits import NODE_CERT_RENEW_DAYS
from holdfast.limits.access import SUBSCRIPTION_CONNECTIONS_MAX
from holdfast.limits.continuity import OBSERVE_S
from holdfast.logic.access.subscription import Face
from holdfast.logic.fleet.alarm import AlertRow
from holdfast.logic.trust.revocation import Revoked
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.make import make_cloud
from holdfast.rim.cloud.port import Cloud
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import ControlStore
from holdfast.rim.dns.server import DnsServer
from holdfast.rim.dns.zone import Zone
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory
from holdfast.rim.https import HttpsServer
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.rim.tls import ServerTls
from holdfast.wire.address import split_address

if TYPE_CHECKING:
    from holdfast.rim.dns.primary import Publisher

CHORES_REAL_S: Final = 3_600.0
"""How often HQ looks after its own certificate, its list and old tokens."""
INTERMEDIATE_WARN_DAYS: Final = 90
_DAY_S: Final = 86_400
_log = logging.getLogger("holdfast.hq")


@dataclass
class Mounted:
    """What somebody hangs on the admin port: routes, a task that runs meanwhile, a login link."""

    routes: Sequence[BaseRoute] = ()
    run: Callable[[], Awaitable[None]] | None = None
    link: Callable[[], str] | None = None


Mount = Callable[["Headquarters"], Mounted]


@dataclass
class _Servers:
    """The ports. `subscriptions` only where the configuration names one."""

    api: HttpsServer = field(default_factory=HttpsServer)
    dns: DnsServer | None = None
    admin: LoopbackServer | None = None
    subscriptions: LoopbackServer | None = None


class Headquarters:
    """One process. `await start()`, then `await run()` until cancelled, then `await stop()`."""

    def __init__(
        self,
        home: HqHome,
        clock: Clock,
        entropy: Entropy,
        *,
        mount: Mount | None = None,
    ) -> None:
        self.home = home
        self.clock = clock
        self.config = home.config()
        self._entropy = entropy
        self._mount = mount
        self._servers = _Servers()
        self._tasks: list[asyncio.Task[None]] = []
        self._led = asyncio.Event()
        self._own_since = 0.0
        self._parts: Parts | None = None
        self._store: ControlStore | None = None
        self._last_view: FleetView | None = None
        self.publisher: Publisher | None = None

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Open the store, serve, and campaign. Raises UsageError, OperationFault."""
        keys = self.home.keys(self.clock.wall())
        make_private_directory(self.home.directory)
        self._store = await self._open_store()
        authority = Authority(keys, self.config.domain, self.clock, self._entropy)
        parts = self._parts = await self._build(self._store, authority)
        self.publisher = await make_publisher(parts, self.home.directory)
        await self._serve(parts)
        self._leadership = Leadership(self._store, self.clock, base32(authority.node), self._lead)
        self._task(self._leadership.run())
        self._task(self._chores())
        for followed in (parts.desired, parts.revocations, parts.witnesses, parts.checkpoints):
            self._tasks += followed.tasks
        self._tasks += [*parts.zone.tasks, *parts.access.book.tasks]

    async def _open_store(self) -> ControlStore:
        """Raises UsageError, OperationFault."""
        directory, config = self.home.directory, self.config
        if config.etcd is not None:
            try:
                from holdfast.rim.control.etcd import EtcdStore
            except ImportError as error:
                raise UsageError("etcd needs an extra: pip install 'holdfast[etcd]'") from error
            return await EtcdStore.open(config.etcd, directory, self.clock)
        return await SqliteStore.open(directory / config.store, self.clock)

    async def run(self) -> None:
        """Until cancelled. A part that ends has failed, and so has HQ."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        raise OperationFault("a part of headquarters stopped; start it again", retryable=False)

    async def stop(self) -> None:
        """Close the ports, give up the lead, let the store go."""
        self.home.forget_admin()
        for server in (self._servers.admin, self._servers.subscriptions):
            if server is not None:
                await server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._parts is not None:
            await self._parts.desired.stop()
            await self._parts.access.book.stop()
            await self._servers.api.stop(grace_s=1.0)
            await self._parts.revocations.stop()
            await self._parts.witnesses.stop()
            await self._parts.checkpoints.stop()
            await self._parts.zone.stop()
        if self._servers.dns is not None:
            await self._servers.dns.stop()
        if self._store is not None:
            await self._store.close()

    def _task(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    # --- What it shows ---------------------------------------------------------------------------
    @property
    def parts(self) -> Parts:
        """The parts, once started."""
        assert self._parts is not None, "start it first"
        return self._parts

    @property
    def port(self) -> int:
        """The API's port."""
        return self._servers.api.port

    @property
    def subscriptions_address(self) -> str:
        """`host:port` of the plain port for subscriptions; empty where there is none."""
        front = self._servers.subscriptions
        return front.address if front is not None else ""

    @property
    def admin_address(self) -> str:
        """`host:port` of the admin port."""
        assert self._servers.admin is not None
        return self._servers.admin.address

    async def leading(self) -> None:
        """Return once this process leads and its brain has started."""
        await self._led.wait()

    def view(self) -> FleetView:
        """The fleet as the brain shows it; the last one known while another HQ leads."""
        brain = self.parts.brain
        if brain is not None:
            self._last_view = brain.view()
        return self._last_view or self._nothing_yet()

    def alerts(self) -> tuple[AlertRow, ...]:
        """What calls for a person; nothing while another HQ leads."""
        return self.parts.alerts.rows() if self.parts.alerts is not None else ()

    async def changes(self) -> AsyncIterator[int]:
        """A growing number after each change of `view`."""
        number = 0
        while True:
            await self._led.wait()
            brain = self.parts.brain
            assert brain is not None, "set and cleared together"
            async for _ in brain.changes():
                number += 1
                yield number
                if self.parts.brain is not brain:
                    break

    # --- Building --------------------------------------------------------------------------------
    async def _build(self, store: ControlStore, authority: Authority) -> Parts:
        config, clock = self.config, self.clock
        log = TransparencyLog(store)
        await log.open()
        api = config.addresses or (config.listen,)
        dns = config.dns_addresses or (config.dns_listen,)
        constants = Constants(config.report_tag_age_s, dns, config.terms)
        face = Face(config.title or config.domain, to_pem(only_roots(authority.roots)).decode())
        book = AccessBook(store, clock, authority.network, authority.domain, face)
        desired = DesiredBook(
            store,
            clock,
            constants,
            lambda staple: checkpoints.attach(authority.current(staple)),
            book,
        )
        witnesses = WitnessBook(store, authority, log, desired, clock)
        checkpoints = Checkpoints(store, authority, log, clock, lambda: witnesses.current, desired)
        audit = AuditLog(store, clock, base32(authority.node), lambda: desired.term)
        revocations = RevocationBook(store, authority, log, audit, clock, self._on_revoked)
        tokens = Tokens(store, authority, clock, self._entropy, api)
        servers = list(dict.fromkeys(split_address(text)[0] for text in dns))
        zone = Zone(store, clock, config.domain, servers, ttl_s=config.dns_ttl_s)
        tickets = TicketOffice(
            self.home.directory,
            store,
            authority,
            log,
            audit,
            clock,
            self._entropy,
            config.tickets,
        )
        self._records = SlotRecords(store, authority, log)
        access = Access(store, book, audit, clock, self._entropy)
        await revocations.start()
        await tickets.start()
        await desired.start()
        await witnesses.start()
        await checkpoints.start()
        self._crls = CrlKeeper(store, authority, clock)
        await self._crls.refresh(revocations.entries)
        await book.start()
        await zone.start()
        return Parts(
            config=config,
            clock=clock,
            store=store,
            authority=authority,
            audit=audit,
            log=log,
            tokens=tokens,
            joining=Joining(store, authority, log, audit, clock, config.heartbeat_s),
            applications=Applications(store, tokens, audit, clock, self._entropy, config),
            revocations=revocations,
            desired=desired,
            witnesses=witnesses,
            checkpoints=checkpoints,
            tickets=tickets,
            zone=zone,
            evidence=EvidenceBook(store, audit, desired, clock),
            access=access,
            subscriptions=Subscriptions(access, clock),
            credentials=await self._open_credentials(store, audit, authority.network),
            copies=Copies(authority, self.clock),
            releases=ReleaseBook(self.home.directory, store, authority, revocations, clock),
            api_addresses=api,
            dns_addresses=dns,
        )

    async def _open_credentials(
        self, store: ControlStore, audit: AuditLog, network: bytes
    ) -> CredentialBook:
        """The providers' keys, sealed from now on."""
        home, config = self.home.directory, self.config
        vault = Vault(home, config.seal_key_file, self._entropy)
        about = (store, audit, self.clock, network, config.providers)
        book = CredentialBook(home, vault, *about)
        await book.start()
        return book

    async def _serve(self, parts: Parts) -> None:
        """Open the ports."""
        host, port = listen_address(parts.config.dns_listen)
        dns = self._servers.dns = DnsServer(parts.zone, self.clock)
        await dns.start(host, port)
        credentials = parts.authority.own_credentials()
        await self._announce(parts, credentials.chain[0])
        tls = ServerTls(parts.authority.roots, credentials, self.clock, parts.revocations.entries)
        host, port = listen_address(parts.config.listen)
        await self._servers.api.start(Api(parts).application(), host, port, tls)
        await self._open_front(parts, *await self._open_admin(parts))
        if parts.config.subscriptions_listen:
            app = SubscriptionApp(parts.subscriptions, parts.config.subscriptions_url)
            front = LoopbackServer(app, connections_max=SUBSCRIPTION_CONNECTIONS_MAX)
            self._servers.subscriptions = front
            await front.start(*listen_address(parts.config.subscriptions_listen))

    def _nothing_yet(self) -> FleetView:
        """The view of a process that has not led yet."""
        authority = self.parts.authority
        names = authority.network.hex(), authority.domain
        return empty_view(*names, self.parts.desired.term, self.clock.wall(), self.clock.scale)

    async def _open_front(self, parts: Parts, admin: Starlette, gate: Gate) -> None:
        """Take calls that come through nodes, from now on."""
        directory, authority = self.home.directory, parts.authority
        keys = FrontKeyring(
            directory, parts.store, authority, parts.revocations, self.clock, self._entropy
        )
        await keys.refresh()
        desk = FrontDesk(parts, keys, self._entropy)
        desk.open(Api(parts).application(), admin, gate)
        parts.front = desk

    async def _open_admin(self, parts: Parts) -> tuple[Starlette, Gate]:
        key = self._entropy.bytes(32).hex()
        operators = Operators(parts.store, self.clock, self._entropy)
        gate = Gate(operators, parts.audit, key)
        admin = Admin(parts, gate, self.view)
        mounted = self._mount(self) if self._mount is not None else Mounted()
        admin.login_link = mounted.link
        application = admin.application(mounted.routes)
        server = self._servers.admin = LoopbackServer(application)
        host, port = listen_address(parts.config.admin_listen)
        await server.start(host, port)
        if mounted.run is not None:
            self._task(mounted.run())
        self.home.save_admin(AdminFile(server.address, key, os.getpid()))
        return application, gate

    async def _announce(self, parts: Parts, leaf: bytes) -> None:
        """Our own certificate goes into the log before anybody sees it, as all others do."""
        parts.log.note(Leaf(CERTIFICATE, leaf))
        await parts.log.settle()
        self._own_since = self.clock.wall()

    # --- Leading ---------------------------------------------------------------------------------
    async def _lead(self, term: int) -> None:
        """Decide, for as long as this is the term."""
        parts = self.parts
        await self._observe()
        await self._records.catch_up()
        store = FencedStore(parts.store, term)
        tokens = Tokens(store, parts.authority, self.clock, self._entropy, parts.api_addresses)
        desk = StandbyDesk(store, self.clock, tokens.for_intent)
        brain = self._brain(store, desk.issue)
        newcomers = Newcomers(store, brain, self.clock)
        await newcomers.load()
        try:
            await brain.start()
            operators = Operators(parts.store, self.clock, self._entropy)
            alerts = AlertBook(parts, brain, store, self.home.directory, operators)
            await alerts.open()
            rollouts = Rollouts(store, brain, parts.audit, self.clock, self._entropy)
            parts.brain, parts.standbys, parts.alerts = brain, desk, alerts
            parts.rollouts = rollouts
            self._led.set()
            await self._take_up(parts, brain)
            turning = Access(
                store, parts.access.book, parts.audit, self.clock, self._entropy, brain.retire
            )
            shelves = Shelves(parts, brain, store, self.home.directory, self._entropy)
            work = [
                asyncio.create_task(parts.witnesses.tend()),
                asyncio.create_task(AuditAnchor(store, parts.log, self.clock).run()),
                asyncio.create_task(newcomers.run()),
                asyncio.create_task(turning.turn_for_ever()),
                asyncio.create_task(alerts.run()),
                asyncio.create_task(rollouts.run()),
                asyncio.create_task(brain.deposed.wait()),
                *self._keeping(parts, store, shelves),
                *self._publishing(),
            ]
            try:
                await _first(work)
            finally:
                await shelves.close()
        finally:
            self._led.clear()
            parts.brain = parts.standbys = parts.alerts = parts.rollouts = None
            parts.keeper = parts.snapshot_locator = None
            parts.copies.forget()
            await brain.stop()

    def _brain(self, store: ControlStore, issue_token: IssueToken) -> Brain:
        parts = self.parts
        return Brain(
            store=store,
            clock=self.clock,
            entropy=self._entropy,
            clouds=self._clouds(),
            zone=parts.zone,
            sign_record=self._records,
            log=self._records,
            issue_token=issue_token,
            audit=parts.audit,
            network=parts.authority.network,
            domain=parts.authority.domain,
        )

    async def look(self, store: ControlStore) -> tuple[Starlette, str]:
        """The operator's port over a store that nobody else has, and its key; nothing is served,
        nothing decided. `stop` ends it."""
        self._store = store
        keys = self.home.keys(self.clock.wall())
        authority = Authority(keys, self.config.domain, self.clock, self._entropy)
        parts = self._parts = await self._build(store, authority)
        parts.brain = self._brain(store, parts.tokens.for_intent)
        await parts.brain.look()
        key = self._entropy.bytes(32).hex()
        operators = Operators(store, self.clock, self._entropy)
        gate = Gate(operators, parts.audit, key)
        return Admin(parts, gate, self.view).application(), key

    async def _observe(self) -> None:
        """A restored headquarters listens for one detection window before it decides (D3)."""
        restored = await last_restore(self.parts.store)
        rest_s = restored.at + OBSERVE_S / self.clock.scale - self.clock.wall()
        if restored.epoch and rest_s > 0:
            _log.info("restored for the %d. time; listening for %.0f s", restored.epoch, rest_s)
            await self.clock.sleep_real(min(rest_s, OBSERVE_S))

    def _keeping(
        self, parts: Parts, store: ControlStore, shelves: Shelves
    ) -> Sequence[asyncio.Task[None]]:
        """The task that takes snapshots, when somebody may open them."""
        continuity = parts.config.continuity
        if continuity is None:
            return ()
        network = parts.authority.network
        parts.keeper = Keeper(
            store,
            self.home.directory,
            parts.config,
            network,
            self.clock,
            shelves.all(),
            parts.copies,
        )
        if continuity.pool_region:
            parts.snapshot_locator = partial(shelves.locator, continuity.pool_region)
        return (asyncio.create_task(parts.keeper.run()),)

    def _publishing(self) -> Sequence[asyncio.Task[None]]:
        """The task that keeps another name server current, when one is named."""
        publisher = self.publisher
        return () if publisher is None else (asyncio.create_task(publisher.run()),)

    async def _take_up(self, parts: Parts, brain: Brain) -> None:
        """What a new leader does once."""
        await parts.audit.line("hq.leads", base32(parts.authority.node), term=parts.desired.term)
        await parts.credentials.remind()
        for entry in parts.revocations.entries.snapshot_entries():
            if entry.node:
                await brain.revoked(entry.node)
        hosts = [split_address(text) for text in parts.api_addresses]
        if all(_is_literal(host) for host, _ in hosts):
            where = [host for host, _ in hosts]
            await parts.zone.replace(HQ_NAME, where, hosts[0][1], parts.authority.node)

    def _clouds(self) -> dict[str, Cloud]:
        network, key = self.parts.authority.network.hex(), self.parts.credentials.key
        return {
            item.name: make_cloud(item, network, partial(key, item.name), self.clock)
            for item in self.config.providers
        }

    async def _on_revoked(self, fresh: Sequence[Revoked]) -> None:
        """Somebody was excluded, here or at another HQ process: cut what is open now."""
        parts = self.parts
        cut = self._servers.api.cut_revoked(fresh)
        _log.info("%d revoked, %d connections cut", len(fresh), cut)
        await self._crls.refresh(parts.revocations.entries)
        for entry in fresh:
            if entry.node and parts.brain is not None:
                await parts.brain.revoked(entry.node)

    # --- Chores ----------------------------------------------------------------------------------
    async def _chores(self) -> None:
        """Certificates, lists and tokens, once an hour. A fault of the store waits an hour."""
        while True:
            await self.clock.sleep_real(CHORES_REAL_S)
            try:
                await self.chores()
            except HoldfastError as error:
                _log.error("chores: %s", error)

    async def chores(self) -> None:
        """One round. Certificates live on the wall clock (D30)."""
        parts, now = self.parts, self.clock.wall()
        if now - self._own_since > NODE_CERT_RENEW_DAYS * _DAY_S:
            credentials = parts.authority.own_credentials()
            await self._announce(parts, credentials.chain[0])
            self._servers.api.reload(*credentials.pem())
        left_days = (parts.authority.expires_at - now) / _DAY_S
        if left_days < INTERMEDIATE_WARN_DAYS:
            _log.error("our intermediate ends in %d days; run: holdfast hq request", left_days)
        await parts.revocations.refresh()
        await parts.tickets.refresh()
        await parts.applications.tick()
        await parts.tokens.forget_old()
        if parts.brain is not None:
            await parts.credentials.remind()
        if parts.front is not None:
            await parts.front.keys.refresh()
            await parts.front.forget()


async def _first(work: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for the first to end; cancel the rest; raise what it raised."""
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    for task in done:
        task.result()


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
