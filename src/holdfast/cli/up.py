"""`holdfast up` and `holdfast down`: a whole network on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from holdfast.cli.local import PLAIN_TICKETS, LocalNetwork, StartFault, Step
from holdfast.cli.local_files import SQLITE, NetworkFile, default_directory, network_file
from holdfast.cli.local_hq import HQ
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.service import clock_of, stop_signal
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.admin import Link
from holdfast.hq.brain_view import FleetView
from holdfast.hq.home import HqHome
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.process import alive

WATCH_S: Final = 0.5
DOWN_S: Final = 60.0
"""Real seconds until `down` gives up: twice what a stop is allowed to take."""

Dir = Annotated[Path | None, Parameter(name="--dir", help="Directory of the network.")]
Json = Annotated[bool, Parameter(negative="", help="One JSON object as the last line.")]
Flag = Parameter(negative="")


class Summary(msgspec.Struct, frozen=True):
    """`up --status`: what runs, and how the fleet is."""

    running: bool
    directory: str
    known: bool = True
    """Whether headquarters could be asked; the figures below mean nothing otherwise."""
    servers: int = 0
    tiers: dict[str, int] = {}
    slots: int = 0
    relays_min: int = 0
    replicas_min: int = 0
    diversity_debt: int = 0
    frozen: bool = False
    gone: tuple[str, ...] = ()
    """Processes of the network that have died: headquarters, providers."""
    page: str = ""
    hq: str = ""
    dns: str = ""
    locator: str = ""
    time_scale: float = 1.0


def up(
    *,
    home: Dir = None,
    time_scale: float = 1.0,
    providers: int = 3,
    regions: str = "eu,ap",
    store: str = SQLITE,
    headquarters: int = 1,
    tickets: Annotated[bool, Flag] = False,
    status: Annotated[bool, Flag] = False,
    revive: Annotated[bool, Flag] = False,
    json: Json = False,
) -> int:
    """Run a whole network on this machine until Ctrl-C: providers, servers, headquarters, page.

    Everything it knows lies in one directory; the next `up` goes on where this one stopped. Kill
    what you like meanwhile and watch it heal.

    Parameters
    ----------
    time_scale
        Elapsed seconds per real second: 60 makes a five-minute wait five seconds.
    providers
        How many hosting providers; counts at the first start.
    regions
        Regions, comma-separated; counts at the first start.
    store
        What headquarters stands on: a sqlite file, or etcd (three members, which Debian's
        etcd-server provides); counts at the first start.
    headquarters
        How many processes of headquarters share an etcd; counts at the first start.
    tickets
        Ask for a ticket before a new group's first blob; see `holdfast hq grant`.
    status
        Say how the network that runs is, with a fresh login link, and do nothing else.
    revive
        Let the network that runs start again what was killed, and do nothing else.
    """
    directory = home or default_directory()
    if status:
        return _status(directory, json)
    if revive:
        _signal(_running(directory), signal.SIGUSR1)
        emit({"revived": True}, as_json=json, text="starting what is missing")
        return EXIT_OK
    names = tuple(filter(None, regions.split(",")))
    clock_of(time_scale)
    console = Console(stderr=True, highlight=False)
    network = LocalNetwork(
        directory,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        providers=providers,
        regions=names,
        store=store,
        headquarters=headquarters,
        time_scale=time_scale,
        tickets=PLAIN_TICKETS if tickets else (),
    )
    return asyncio.run(_up(network, console, json))


async def _up(network: LocalNetwork, console: Console, json: bool) -> int:
    """Start, say so, watch, and stop when asked: also when asked while still starting."""
    async with stop_signal() as stop:
        starting = asyncio.create_task(_start(network, console))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return EXIT_OK
        about = starting.result()
        try:
            emit(about, as_json=json, text=_welcome(about))
            await _watch(network, console, stop)
        finally:
            stopping.cancel()
            with console.status("stopping"):
                await network.stop()
    return EXIT_OK


async def _start(network: LocalNetwork, console: Console) -> NetworkFile:
    """Bring it up under a progress line; on failure show the end of the culprit's log."""
    with console.status("starting") as line:

        def show(step: Step) -> None:
            count = f" {step.done} of {step.total}" if step.total else ""
            line.update(f"{step.what}{count}")
            if not console.is_terminal:
                console.print(f"{step.what}{count}")

        network.on_step = show
        try:
            return await network.start()
        except StartFault as fault:
            console.print(escape(fault.log), style="dim")
            raise


async def _watch(network: LocalNetwork, console: Console, stop: asyncio.Event) -> None:
    """Until `stop`: tell of what dies, and start it again when asked (SIGUSR1, `--revive`)."""
    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, wanted.set)
    clock = SystemClock()
    names = (*network.headquarters, *network.members, *network.providers)
    running = set(names)
    while not stop.is_set():
        now = {name for name in names if network.running(name)}
        for name in sorted(running - now):
            console.print(f"{_title(name)} is gone; bring it back with holdfast up --revive")
        running = now
        if wanted.is_set():
            wanted.clear()
            try:
                for name in await network.start_missing():
                    console.print(f"{_title(name)} is back")
            except HoldfastError as error:
                console.print(escape(f"holdfast: {error}"))
            continue
        await clock.sleep_real(WATCH_S)


def _title(name: str) -> str:
    if name.startswith("etcd-"):
        return f"the control store's member {name}"
    title = "headquarters" if name == HQ else f"headquarters {name}"
    return title if name.startswith(HQ) else f"provider {name}"


def _welcome(about: NetworkFile) -> str:
    scale = f", time runs {about.time_scale:g} times faster" if about.time_scale != 1 else ""
    return "\n".join(
        (
            f"{about.servers} servers at {len(about.providers)} providers in "
            f"{len(about.regions)} regions, {about.slots} slots{scale}",
            f"page     {about.page}",
            f"names    dig @{about.dns.rpartition(':')[0]} -p {about.dns.rpartition(':')[2]} "
            f"SRV _holdfast._tcp.relay-{about.regions[0]}-001.{about.domain}",
            f"locator  {about.locator}",
            "Ctrl-C stops it; the next up goes on from here.",
        )
    )


# --- down and --status ---------------------------------------------------------------------------
def down(*, home: Dir = None, json: Json = False) -> int:
    """Stop the network that `holdfast up` runs, and wait until it is gone."""
    directory = home or default_directory()
    about = network_file(directory)
    if about is None:
        emit({"stopped": False}, as_json=json, text=f"no network of {directory} runs")
        return EXIT_OK
    _signal(about, signal.SIGTERM)
    asyncio.run(_gone(about.pid, SystemClock()))
    emit({"stopped": True}, as_json=json, text="stopped")
    return EXIT_OK


async def _gone(pid: int, clock: Clock) -> None:
    try:
        async with clock.real_timeout(DOWN_S):
            while alive(pid):
                await clock.sleep_real(0.1)
    except TimeoutError:
        raise OperationFault(f"process {pid} does not stop; kill it with kill -9 {pid}") from None


def _running(directory: Path) -> NetworkFile:
    about = network_file(directory)
    if about is None:
        raise UsageError(f"no network runs in {directory}; start it with holdfast up")
    return about


def _signal(about: NetworkFile, number: int) -> None:
    try:
        os.kill(about.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise UsageError(f"process {about.pid} belongs to somebody else") from error


def _status(directory: Path, json: bool) -> int:
    about = network_file(directory)
    if about is None:
        summary = Summary(running=False, directory=str(directory))
        emit(summary, as_json=json, text=f"no network runs in {directory}")
        return EXIT_NO
    summary = asyncio.run(_summary(about))
    if json:
        emit(summary, as_json=True)
    else:
        _show(summary)
    return EXIT_NO if summary.gone else EXIT_OK


async def _summary(about: NetworkFile) -> Summary:
    gone = tuple(item.name for item in about.processes if not alive(item.pid))
    summary = Summary(
        running=True,
        directory=about.directory,
        gone=gone,
        hq=about.hq,
        dns=about.dns,
        locator=about.locator,
        time_scale=about.time_scale,
    )
    try:
        admin = HqHome(Path(about.directory) / HQ).admin()
        client = LoopbackClient(admin.address, admin.key, SystemClock())
        fleet = await client.call("GET", "/admin/v1/fleet", None, FleetView)
        page = (await client.call("POST", "/admin/v1/login-link", None, Link)).url
    except (OperationFault, UsageError):
        return msgspec.structs.replace(summary, known=False, gone=tuple({*gone, HQ}))
    tiers: dict[str, int] = {}
    for server in fleet.servers:
        tiers[server.tier.value] = tiers.get(server.tier.value, 0) + 1
    return msgspec.structs.replace(
        summary,
        servers=len(fleet.servers),
        tiers=tiers,
        slots=len(fleet.slots),
        relays_min=fleet.relays_min,
        replicas_min=fleet.replicas_min,
        diversity_debt=fleet.diversity_debt,
        frozen=fleet.frozen,
        page=page,
    )


def _show(summary: Summary) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    tiers = ", ".join(f"{count} {tier}" for tier, count in sorted(summary.tiers.items()))
    table.add_row("servers", f"{summary.servers} ({tiers})" if tiers else "headquarters is away")
    poorest = f"{summary.relays_min} relays and {summary.replicas_min} filled replicas"
    slots = f"{summary.slots}, the poorest has {poorest}"
    table.add_row("slots", slots if summary.known else "unknown")
    if summary.diversity_debt:
        table.add_row("debt", f"{summary.diversity_debt} seats share a provider")
    if summary.frozen:
        table.add_row("frozen", "headquarters suspects itself and spawns nothing")
    if summary.gone:
        table.add_row("gone", ", ".join(map(_title, summary.gone)))
        table.add_row("", "bring it back with holdfast up --revive")
    table.add_row("page", summary.page)
    table.add_row("dns", summary.dns)
    Console(file=sys.stdout, highlight=False, soft_wrap=True).print(table)
