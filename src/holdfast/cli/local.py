"""A whole network on this machine's loopback: what `up`, the tour and the tests stand on.

Theory of operation. One process owns the network and is the parent of everything:

    owner -> HQ, or several of them
          -> members of etcd, when several share it
          -> provider daemon (own session) -> agent -> role      three of these, many of those

Every child is on a lifeline (`rim.process`), so a network whose owner is killed ends with it and
nothing is left behind. `kill_provider` is the loss of a provider: SIGKILL to the process group of
its daemon. All state lies in one directory (`cli.local_files`) and survives a restart.

Starting: the control store, providers (the power comes back, the servers start), then HQ. Stopping:
HQ first, so that it does not take the end of the others for a catastrophe.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from holdfast.cli import local_hq
from holdfast.cli.local_files import (
    ETCD,
    HOST,
    SQLITE,
    Choice,
    NetworkFile,
    ProcessInfo,
    Settings,
    check_free,
    choose_settings,
    forget_network,
    load_settings,
    network_file,
    save_network,
    save_settings,
    tail,
)
from holdfast.cli.local_hq import HQ, hq_names, hq_ports
from holdfast.cli.root import DEFAULT_DOMAIN
from holdfast.crypto.certificates import cert_info
from holdfast.crypto.pure import sha256
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.admin import Done, Launch, Link, Status
from holdfast.hq.brain_view import FleetView
from holdfast.hq.config import ContinuityConfig
from holdfast.hq.home import HqHome
from holdfast.limits import GROUP_BYTES_MAX, SESSION_REQUESTS_BURST, SESSION_REQUESTS_PER_S
from holdfast.logic.fleet.rows import ServerState
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.daemon import DaemonFile, provider_key
from holdfast.rim.cloud.process import ProcessCloud
from holdfast.rim.control import etcd_members
from holdfast.rim.control.etcd_members import Members
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import lock_directory, make_private_directory, read_file
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.ports import answers
from holdfast.rim.process import Child, alive, group_members, holdfast_command, kill_group, spawn
from holdfast.wire.hq import Terms, TicketTerms
from holdfast.wire.locator import Locator

START_S: Final = 60.0
"""Real seconds for one process to say that it serves; a loaded machine takes ten."""
ACTIVE_S: Final = 240.0
"""Real seconds for all servers to join and serve."""
STOP_GRACE_S: Final = 20.0
KILL_S: Final = 2.0
"""A killed process is gone sooner than this."""
POLL_S: Final = 0.1
ETCD_MEMBERS: Final = 3
PLAIN_TICKETS: Final = (
    TicketTerms("plain", GROUP_BYTES_MAX, SESSION_REQUESTS_PER_S, SESSION_REQUESTS_BURST),
)
"""The one class of a network that is told to ask for tickets: the servers' own terms."""


EtcdWays = Callable[[str, Sequence[str]], Awaitable[Sequence[str]]]
"""(headquarters, addresses of the members) -> addresses by which it reaches them."""


class Step(msgspec.Struct, frozen=True):
    """Progress: `what` is being done, `done` of `total` of it."""

    what: str
    done: int = 0
    total: int = 0


class StartFault(OperationFault):
    """A process of the network did not come up; `log` is the end of what it printed."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message, retryable=False)
        self.log = log


class LocalNetwork:
    """One network in one directory. `start`, then whatever you like, then `stop`."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        entropy: Entropy,
        providers: int = 3,
        regions: Sequence[str] = ("eu", "ap"),
        domain: str = DEFAULT_DOMAIN,
        store: str = SQLITE,
        headquarters: int = 1,
        time_scale: float = 1.0,
        report_tag_age_s: float = 86_400.0,
        terms: Terms | None = None,
        tickets: tuple[TicketTerms, ...] = (),
        keep_disks: bool = False,
        etcd_ways: EtcdWays | None = None,
        continuity: ContinuityConfig | None = None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """`providers`, `regions`, `domain`, `store` and `headquarters` count at the first start
        only. `time_scale` is what the processes run at; `clock` is the caller's own. `etcd_ways`
        leads a headquarters to its etcd by other addresses than the members' own: wires to cut."""
        self.directory = directory.absolute()
        self.time_scale = time_scale
        self._clock = clock
        self._entropy = entropy
        self._first = Choice(providers, tuple(regions), domain, store, headquarters)
        self._report_tag_age_s = report_tag_age_s
        self._terms = terms
        self._tickets = tickets
        self._keep_disks = keep_disks
        self.on_step = on_step
        self._last_step: Step | None = None
        self._children: dict[str, Child[Any]] = {}
        self._settings: Settings | None = None
        self._members: Members | None = None
        self._etcd_ways = etcd_ways
        self._continuity = continuity
        self._lock: IO[bytes] | None = None
        self.about: NetworkFile | None = None
        self.hq_environment: dict[str, str] = {}
        """Variables of headquarters that are started from now on: another version's source."""

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> NetworkFile:
        """Bring everything up and wait until every server serves and every region has a slot.

        Raises UsageError when a network already runs here or a port is taken, StartFault with the
        culprit's log otherwise. Then nothing is left running.
        """
        self._lock = lock_directory(self.directory, "a network")
        try:
            self._settings = await self._prepare()
            await self._start_all()
            self.about = await self._describe()
            save_network(self.directory, self.about)
        except BaseException:
            await self.stop()
            raise
        return self.about

    async def stop(self) -> None:
        """Stop everything cleanly; what does not stop in time is killed."""
        self._step(Step("stopping"))
        children, self._children = self._children, {}
        minds = [child for name, child in children.items() if name.startswith(HQ)]
        await asyncio.gather(*(child.stop(self._clock, STOP_GRACE_S) for child in minds))
        others = [child for child in children.values() if child not in minds]
        await asyncio.gather(*(self._stop_provider(child) for child in others))
        forget_network(self.directory)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> LocalNetwork:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _stop_provider(self, child: Child[Any]) -> None:
        await child.stop(self._clock, STOP_GRACE_S)
        if group_members(child.pid):
            kill_group(child.pid)

    # --- What a caller may do to it --------------------------------------------------------------
    @property
    def settings(self) -> Settings:
        """Names, addresses and ports, once started."""
        assert self._settings is not None, "start it first"
        return self._settings

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the providers, killed ones included."""
        return self.settings.providers

    @property
    def domain(self) -> str:
        return self.settings.domain

    @property
    def dns(self) -> str:
        """`host:port` of the first name server."""
        return f"{HOST}:{self.settings.dns_port}"

    @property
    def hq(self) -> str:
        """`host:port` of the first HQ's API."""
        return f"{HOST}:{self.settings.hq_port}"

    @property
    def headquarters(self) -> tuple[str, ...]:
        """Names of all headquarters, killed ones included."""
        return hq_names(self.settings)

    def roots(self) -> tuple[bytes, ...]:
        """The network's roots, DER."""
        return HqHome(self.directory / HQ).roots()

    def locator(self) -> Locator:
        """The network locator: what a new device needs to find a slot."""
        roots = self.roots()
        name = cert_info(roots[0]).name
        assert name is not None, "a root names its network"
        return Locator(
            network=name.network,
            domain=self.domain,
            pins=tuple(sha256(root) for root in roots),
            roots=roots,
            slot=b"",
            relays=(),
            replicas=(),
            resolvers=local_hq.resolvers(self.settings),
            hq=local_hq.addresses(self.settings),
        )

    def running(self, name: str) -> bool:
        """Whether the process called `hq`, or a provider's daemon, runs."""
        child = self._children.get(name)
        return child is not None and child.status is None and alive(child.pid)

    def kill_provider(self, name: str) -> None:
        """Lose a provider: SIGKILL to its daemon's process group, all its servers with it."""
        assert self.running(name), f"provider {name} does not run"
        kill_group(self._children[name].pid)

    async def start_provider(self, name: str) -> None:
        """The provider is back: its daemon starts, and the servers it had with their disks."""
        settings = self.settings
        await self._gone(name)
        index = settings.providers.index(name)
        home = self.provider_directory(name)
        command = holdfast_command(
            "provider",
            "serve",
            f"--dir={home}",
            f"--name={name}",
            f"--listen={HOST}:{settings.provider_ports[index]}",
            f"--subnet={settings.subnets[index]}",
            f"--regions={','.join(settings.regions)}",
            f"--node-port={settings.node_port}",
            f"--time-scale={self.time_scale}",
            *(("--keep-disks",) if self._keep_disks else ()),
        )
        (home / "daemon.json").unlink(missing_ok=True)
        child: Child[Any] = await spawn(command, log=self.log(name), own_session=True)
        self._children[name] = child

        async def serves() -> bool:
            data = read_file(home / "daemon.json")
            return data is not None and msgspec.json.decode(data, type=DaemonFile).pid == child.pid

        await self._until(f"provider {name}", serves, START_S)
        self._note_processes()

    def kill_hq(self, name: str = HQ) -> None:
        """SIGKILL to a headquarters: no server may notice."""
        self.kill(name)

    def kill(self, name: str) -> None:
        """SIGKILL to one process: a headquarters, a member of etcd."""
        assert self.running(name), f"{name} does not run"
        self._children[name].kill()

    def pid(self, name: str) -> int:
        """Process id of a headquarters, a member of etcd or a provider's daemon."""
        return self._children[name].pid

    async def start_hq(self, name: str = HQ) -> None:
        """Start a headquarters and wait until it leads; one of several need only serve."""
        await self._gone(name)
        home = self.directory / name
        command = holdfast_command("hq", "serve", f"--dir={home}")
        (home / "admin.json").unlink(missing_ok=True)
        self._children[name] = await spawn(
            command, log=self.log(name), environment=self.hq_environment
        )
        alone = len(self.headquarters) == 1

        async def serves() -> bool:
            return (home / "admin.json").exists() and (
                (await self.status(name)).leading or not alone
            )

        await self._until("headquarters", serves, START_S)
        self._note_processes()

    async def leader(self) -> str:
        """The name of the headquarters that leads now. Raises OperationFault when none does."""
        for name in self.headquarters:
            try:
                if self.running(name) and (await self.status(name)).leading:
                    return name
            except HoldfastError:
                continue  # it is dying, or not up yet: ask the next
        raise OperationFault("no headquarters leads")

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members of etcd; none where the store is a file."""
        return tuple(each.name for each in self._members.members) if self._members else ()

    @property
    def etcd_endpoints(self) -> tuple[str, ...]:
        """`host:port` of every member of etcd."""
        return tuple(each.client for each in self._members.members) if self._members else ()

    async def start_member(self, name: str) -> None:
        """Start a member of etcd. It serves once it has found the others."""
        assert self._members is not None, "this network has no etcd"
        await self._gone(name)
        (member,) = [each for each in self._members.members if each.name == name]
        command = etcd_members.command(self.directory / ETCD, self._members, member)
        self._children[name] = await spawn(command, log=self.log(name))

    async def _gone(self, name: str) -> None:
        """Wait for the end of one that was killed. Raises UsageError for one that lives on."""
        child = self._children.get(name)
        try:
            async with self._clock.real_timeout(KILL_S):
                if child is not None:
                    await child.wait()
        except TimeoutError:
            raise UsageError(f"{name} runs already") from None

    async def start_missing(self) -> tuple[str, ...]:
        """Start again whatever has died; its names."""
        missing = [name for name in self.settings.providers if not self.running(name)]
        for name in missing:
            await self.start_provider(name)
        for name in self.members:
            if not self.running(name):
                await self.start_member(name)
                missing.append(name)
        for name in self.headquarters:
            if not self.running(name):
                await self.start_hq(name)
                missing.append(name)
        return tuple(missing)

    def admin(self, clock: Clock | None = None, name: str = HQ) -> LoopbackClient:
        """A client of an HQ's admin port. Raises UsageError while there is none."""
        about = HqHome(self.directory / name).admin()
        return LoopbackClient(about.address, about.key, clock or self._clock)

    async def status(self, name: str = HQ) -> Status:
        """An HQ at a glance."""
        return await self.admin(name=name).call("GET", "/admin/v1/status", None, Status)

    async def fleet(self) -> FleetView:
        """The fleet as the brain of the HQ that leads sees it."""
        name = HQ if len(self.headquarters) == 1 else await self.leader()
        return await self.admin(name=name).call("GET", "/admin/v1/fleet", None, FleetView)

    async def login_link(self) -> str:
        """A new one-time link to the fleet page."""
        return (await self.admin().call("POST", "/admin/v1/login-link", None, Link)).url

    def provider(self, name: str) -> ProcessCloud:
        """A client of a provider's API, its own log included."""
        port = self.settings.provider_ports[self.settings.providers.index(name)]
        key = provider_key(self.provider_directory(name), self._entropy)
        return ProcessCloud(f"{HOST}:{port}", key, self._clock)

    def provider_directory(self, name: str) -> Path:
        """Where a provider's servers, key and log lie."""
        return self.directory / "providers" / name

    def log(self, name: str) -> Path:
        """The log file of HQ or of a provider's daemon."""
        return self.directory / "logs" / f"{name}.log"

    def _step(self, step: Step) -> None:
        """Tell of progress, when there is some."""
        if step != self._last_step:
            self._last_step = step
            self.on_step(step)

    # --- Starting --------------------------------------------------------------------------------
    async def _prepare(self) -> Settings:
        """Everything on disk that the processes need; done before where it lies there already."""
        self._step(Step("preparing"))
        settings = load_settings(self.directory)
        if settings is None:
            settings = choose_settings(self._first, self._entropy)
            save_settings(self.directory, settings)
        check_free(settings)
        for name in settings.providers:
            make_private_directory(self.provider_directory(name))
            provider_key(self.provider_directory(name), self._entropy)
        await self._prepare_hq(settings)
        return settings

    async def _prepare_hq(self, settings: Settings) -> None:
        now = self._clock.wall()
        root = local_hq.embedded_root(self.directory / "root", settings.domain, now, self._entropy)
        etcd = None
        if settings.store == ETCD:
            where = self.directory / ETCD
            self._members = etcd_members.prepare(where, HOST, ETCD_MEMBERS, self._entropy, now)
            etcd = self._members.access(str(where))
        for name in hq_names(settings):
            files = local_hq.provider_keys(
                self.directory / name,
                {each: self.provider_directory(each) for each in settings.providers},
                now,
                self._entropy,
            )
            if etcd is not None and self._etcd_ways is not None:
                ways = tuple(await self._etcd_ways(name, self.etcd_endpoints))
                etcd = msgspec.structs.replace(etcd, endpoints=ways)
            config = local_hq.config_of(
                settings,
                name,
                key_files=files,
                etcd=etcd,
                time_scale=self.time_scale,
                report_tag_age_s=self._report_tag_age_s,
                terms=self._terms,
                tickets=self._tickets,
                continuity=self._continuity,
            )
            home = HqHome(self.directory / name)
            local_hq.prepare(home, config, root, self._clock, self._entropy)

    async def _start_all(self) -> None:
        for name in self.members:
            await self.start_member(name)
        names = self.settings.providers
        for index, name in enumerate(names):
            self._step(Step("starting providers", index, len(names)))
            await self.start_provider(name)
        self._step(Step("starting headquarters"))
        for name in self.headquarters:
            await self.start_hq(name)
        await self._until("headquarters", self._launched, START_S)
        await self._until("the servers", self._all_serve, ACTIVE_S)

    async def _launched(self) -> bool:
        leader = self.admin(name=await self.leader())
        await leader.call("POST", "/admin/v1/launch", Launch(), Done)
        return True

    async def _all_serve(self) -> bool:
        """Whether every server has a node, every node answers and every region has a slot."""
        fleet = await self.fleet()
        active = [row for row in fleet.servers if row.state is ServerState.ACTIVE]
        checks = [answers(row.addresses[0], self._clock) for row in active if row.addresses]
        serving = sum(await asyncio.gather(*checks))
        self._step(Step("starting servers", serving, len(fleet.servers)))
        regions = {slot.region for slot in fleet.slots}
        return serving == len(fleet.servers) > 0 and regions >= set(self.settings.regions)

    async def _until(self, what: str, ready: Callable[[], Awaitable[bool]], limit_s: float) -> None:
        """Poll `ready` until it is true. Raises StartFault when a process ends or time is up."""
        reason = ""
        try:
            async with self._clock.real_timeout(limit_s):
                while True:
                    self._check_alive()
                    try:
                        if await ready():
                            return
                    except HoldfastError as error:
                        reason = f": {error}"
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError:
            log = self.log(HQ)
            text = f"{what} did not come up within {limit_s:.0f} s{reason}; look into {log}"
            raise StartFault(text, tail(log)) from None

    def _check_alive(self) -> None:
        for name, child in self._children.items():
            if child.status is not None and self.about is None:
                log = self.log(name)
                text = f"{name} ended with status {child.status}; look into {log}"
                raise StartFault(text, tail(log))

    async def _describe(self) -> NetworkFile:
        settings, locator = self.settings, self.locator()
        fleet = await self.fleet()
        return NetworkFile(
            directory=str(self.directory),
            pid=os.getpid(),
            network=locator.network.hex(),
            domain=settings.domain,
            locator=str(locator),
            hq=self.hq,
            dns=self.dns,
            admin=HqHome(self.directory / HQ).admin().address,
            roots=str(self.directory / HQ / "roots.pem"),
            regions=settings.regions,
            providers=settings.providers,
            time_scale=self.time_scale,
            servers=len(fleet.servers),
            slots=len(fleet.slots),
            page=await self.login_link(),
            processes=tuple(self._processes()),
        )

    def _note_processes(self) -> None:
        """A process was started again: `network.json` has the wrong id."""
        if self.about is not None:
            about = msgspec.structs.replace(self.about, processes=tuple(self._processes()))
            self.about = about
            save_network(self.directory, about)

    def _processes(self) -> list[ProcessInfo]:
        settings = self.settings
        ports = dict(zip(settings.providers, settings.provider_ports, strict=True))
        ports |= {name: hq_ports(settings, name).api for name in self.headquarters}
        if self._members is not None:
            members = self._members.members
            ports |= {each.name: int(each.client.rpartition(":")[2]) for each in members}
        return [
            ProcessInfo(
                name=name,
                pid=child.pid,
                group=os.getpgid(child.pid),
                address=f"{HOST}:{ports[name]}",
                log=str(self.log(name)),
            )
            for name, child in self._children.items()
            if child.status is None
        ]


__all__ = ["LocalNetwork", "StartFault", "Step", "network_file"]
