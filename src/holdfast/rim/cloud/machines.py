"""The servers of a process provider: directories, addresses and the processes in them (D31).

A server is a directory with a disk, a loopback address and one agent process, which starts its
role below itself. What this provider was told and did goes to `events.jsonl`, its own log: one
line for each event, synced before anybody is answered.

Order law: a server is on disk before it runs, and its end is on disk before it is reported. After
a power cut the servers that were not deleted start again with their disks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import RETIRED_STATUS, OperationFault, PeerFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.files import make_private_directory, read_file, write_file
from holdfast.rim.process import Child, spawn, trim_log
from holdfast.wire.cloud import CloudEvent, CreateServer, Server

RUNNING: Final = "running"
GONE: Final = "gone"
GONE_KEPT_MAX: Final = 1_000
"""Deleted servers that are still listed; beyond this the oldest are forgotten."""
RESTART_S: Final = (0.1, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Real seconds before a crashed agent is started again, as systemd would."""
STEADY_S: Final = 10.0
"""An agent that ran this long (real seconds) crashed for a new reason: the waits start over. Its
start takes a second of a core, so one that goes on crashing costs a tenth of it."""
STOP_GRACE_S: Final = 10.0
LOG_CHECK_S: Final = 60.0
CONSOLE: Final = "console.log"

AgentCommand = Callable[[Path, str], Sequence[str]]
"""(directory of the server, its address) -> the command line of its agent."""


class Inventory(msgspec.Struct, frozen=True):
    """What is on disk in `servers.json`. `allocated` counts addresses ever handed out."""

    allocated: int = 0
    servers: tuple[Server, ...] = ()


def address_at(subnet: str, index: int) -> str:
    """Host `index` of a loopback subnet given as its first two or three numbers (`127.11`)."""
    try:
        network = ipaddress.ip_network(
            f"{subnet}.0.0/16" if subnet.count(".") == 1 else f"{subnet}.0/24"
        )
    except ValueError as error:
        raise UsageError(f"{subnet} is no subnet; give two or three numbers, 127.11") from error
    if not network.is_loopback:
        raise UsageError(f"{subnet} is not loopback; a process provider uses 127.x only")
    return str(network[1 + index % (network.num_addresses - 2)])


class Machines:
    """The servers of one provider, their processes and the provider's own log."""

    def __init__(
        self,
        directory: Path,
        *,
        subnet: str,
        regions: Sequence[str],
        command: AgentCommand,
        clock: Clock,
        keep_disks: bool = False,
    ) -> None:
        address_at(subnet, 0)
        self._directory = directory
        self._subnet = subnet
        self._regions = tuple(regions)
        self._command = command
        self._clock = clock
        self._keep_disks = keep_disks
        make_private_directory(directory / "servers")
        self._inventory = self._load()
        self._children: dict[str, Child[object]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def _load(self) -> Inventory:
        data = read_file(self._directory / "servers.json")
        return msgspec.json.decode(data, type=Inventory) if data else Inventory()

    def _save(self, allocated: int, servers: Sequence[Server]) -> None:
        inventory = Inventory(allocated, tuple(servers))
        data = msgspec.json.format(msgspec.json.encode(inventory), indent=1)
        write_file(self._directory / "servers.json", data)
        self._inventory = inventory

    def now(self) -> float:
        """Unix seconds of the provider's clock."""
        return self._clock.wall()

    def note(self, verb: str, name: str) -> None:
        """Append one event to the provider's own log, durably."""
        line = msgspec.json.encode(CloudEvent(self._clock.wall(), verb, name)) + b"\n"
        with (self._directory / "events.jsonl").open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> tuple[CloudEvent, ...]:
        """The log so far; a line that a power cut tore is left out."""
        found = []
        for line in (read_file(self._directory / "events.jsonl") or b"").splitlines():
            try:
                found.append(msgspec.json.decode(line, type=CloudEvent))
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue
        return tuple(found)

    def list(self) -> tuple[Server, ...]:
        """Every server, in the order in which they were made; deleted ones as `gone`."""
        return self._inventory.servers

    def get(self, name: str) -> Server | None:
        """The server of that name, running or gone."""
        return next((server for server in self.list() if server.name == name), None)

    def pid(self, name: str) -> int | None:
        """Process id of a server's agent, while it runs."""
        child = self._children.get(name)
        return child.pid if child is not None and child.status is None else None

    async def power_on(self) -> None:
        """Start every server that was not deleted, as after a power cut."""
        self._keeper = asyncio.create_task(self._keep_logs())
        for server in self.list():
            if server.state == RUNNING:
                self.note("power-on", server.name)
                self._start(server)

    async def power_off(self) -> None:
        """Stop every server cleanly; their disks stay and `power_on` brings them back."""
        tasks = [*self._tasks.values(), *filter(None, (self._keeper,))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        children = [child for child in self._children.values() if child.status is None]
        await asyncio.gather(*(child.stop(self._clock, STOP_GRACE_S) for child in children))
        self._children.clear()

    async def create(self, request: CreateServer) -> tuple[Server, bool]:
        """(the server, whether it is new): a name is used once, for ever.

        Raises UsageError for a name or region we do not have.
        """
        async with self._turn:
            if (existing := self.get(request.name)) is not None:
                self.note("conflict", request.name)
                return existing, False
            self._check(request)
            index = self._free_index()
            server = Server(
                name=request.name,
                region=request.region,
                address=address_at(self._subnet, index),
                state=RUNNING,
                created_at=self._clock.wall(),
            )
            home = self._home(server.name)
            make_private_directory(home)
            write_file(home / "token", request.user_data.encode())
            self._save(index + 1, (*self.list(), server))
            self.note("create", server.name)
            self._start(server)
            return server, True

    def _check(self, request: CreateServer) -> None:
        name = request.name
        if not (0 < len(name) <= 100 and name.replace("-", "").isalnum() and name.isascii()):
            raise UsageError("a server name is letters, digits and hyphens, at most 100")
        if request.region not in self._regions:
            raise UsageError(f"no region {request.region!r}; there are {', '.join(self._regions)}")

    def _free_index(self) -> int:
        """The next address nobody uses, the one unused for longest first."""
        taken = {server.address for server in self.list() if server.state == RUNNING}
        first = self._inventory.allocated
        for index in range(first, first + 65_536):
            if address_at(self._subnet, index) not in taken:
                return index
        raise OperationFault("every address of the subnet is in use", retryable=False)

    async def delete(self, name: str) -> Server:
        """Destroy a server: its processes at once, its disk unless disks are kept.

        Raises PeerFault (`not-found`) for a name that never was.
        """
        async with self._turn:
            server = self.get(name)
            if server is None:
                raise PeerFault(f"no server {name!r}", code="not-found")
            if server.state == GONE:
                return server
            gone = msgspec.structs.replace(server, state=GONE)
            servers = [gone if other.name == name else other for other in self.list()]
            dead = [other.name for other in servers if other.state == GONE]
            forgotten = set(dead[: max(0, len(dead) - GONE_KEPT_MAX)])
            kept = [other for other in servers if other.name not in forgotten]
            self._save(self._inventory.allocated, kept)
            self.note("delete", name)
            await self._destroy(name)
            return gone

    async def _destroy(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        child = self._children.pop(name, None)
        if child is not None:
            child.kill()
            await child.wait()
        if self._keep_disks:
            make_private_directory(self._directory / "gone")
            self._home(name).replace(self._directory / "gone" / name)
        else:
            await asyncio.to_thread(shutil.rmtree, self._home(name), ignore_errors=True)

    def _home(self, name: str) -> Path:
        return self._directory / "servers" / name

    def _start(self, server: Server) -> None:
        self._tasks[server.name] = asyncio.create_task(self._keep_running(server))

    async def _keep_running(self, server: Server) -> None:
        """Run the agent, and again when it crashes, until it retires or the server is deleted."""
        failures = 0
        while True:
            started = self._clock.elapsed()
            status = await self._run_once(server)
            self.note(f"exit {status}", server.name)
            if status == RETIRED_STATUS:
                return
            steady = self._clock.elapsed() - started >= STEADY_S * self._clock.scale
            failures = 0 if steady else failures
            await self._clock.sleep_real(RESTART_S[min(failures, len(RESTART_S) - 1)])
            failures += 1
            self.note("restart", server.name)

    async def _keep_logs(self) -> None:
        """Consoles of servers that run for months must not fill the disk."""
        while True:
            await self._clock.sleep_real(LOG_CHECK_S)
            for name in tuple(self._children):
                trim_log(self._home(name) / CONSOLE)

    async def _run_once(self, server: Server) -> int:
        home = self._home(server.name)
        try:
            child: Child[object] = await spawn(
                self._command(home, server.address), log=home / CONSOLE
            )
        except OperationFault:
            return -1
        self._children[server.name] = child
        return await child.wait()
