"""The ground under the tour: what a bystander with access to the machine can see and break."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from holdfast.cli.local import LocalNetwork
from holdfast.errors import OperationFault
from holdfast.fabric.network import Network
from holdfast.limits import STORED_QUORUM
from holdfast.logic.fleet.model import SlotRecord
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.machines import GONE, Inventory
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file
from holdfast.rim.https import JsonClient
from holdfast.rim.resolver import Resolver
from holdfast.sim.crowd import WRITE_PERIOD_S, CrowdClient
from holdfast.sim.witness import Held, held_on
from holdfast.wire.address import split_address
from holdfast.wire.cloud import CloudEvent, Server
from holdfast.wire.hq import SlotReply, SlotRequest
from holdfast.wire.locator import Locator
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple


def hosts(addresses: Iterable[str]) -> set[str]:
    """The hosts in `addresses`, with or without ports."""
    return {split_address(text)[0] if ":" in text else text for text in addresses}


def machines(local: LocalNetwork) -> Iterator[tuple[str, Path, Server]]:
    """(provider, directory, machine) of every machine on disk, running or not."""
    for provider in local.providers:
        home = local.provider_directory(provider)
        data = read_file(home / "servers.json")
        for server in msgspec.json.decode(data, type=Inventory).servers if data else ():
            yield provider, home / "servers" / server.name, server


def bytes_on_disk(local: LocalNetwork) -> int:
    """Bytes in the segments of all machines."""
    return sum(
        path.stat().st_size
        for _, directory, _ in machines(local)
        for path in directory.glob("**/*.seg")
        if "canary" not in path.name
    )


def disk_of(local: LocalNetwork, addresses: Iterable[str]) -> Path:
    """The directory of the machine that answers at one of `addresses`."""
    wanted = hosts(addresses)
    for _, directory, server in machines(local):
        if server.state != GONE and hosts([server.address]) & wanted:
            return directory
    raise OperationFault(f"no machine answers at {', '.join(sorted(wanted))}", retryable=False)


async def destroy(local: LocalNetwork, machine: str) -> None:
    """Have its provider delete a machine, by the provider's own name of it."""
    (provider,) = [name for name, _, server in machines(local) if server.name == machine]
    await local.provider(provider).delete(machine)


async def destroy_all_but(local: LocalNetwork, region: str, keep: Iterable[str]) -> int:
    """Switch off and wipe every machine of `region` that is at none of `keep`; how many."""
    kept, count = hosts(keep), 0
    for provider, directory, server in list(machines(local)):
        if server.region != region or server.state == GONE or hosts([server.address]) & kept:
            continue
        await local.provider(provider).delete(server.name)
        shutil.rmtree(directory, ignore_errors=True)
        count += 1
    return count


def lost_blobs(local: LocalNetwork, acked: Iterable[Held]) -> int:
    """How many of `acked` lie on fewer disks of living machines than were promised."""
    disks = [held_on(home) for _, home, server in machines(local) if server.state != GONE]
    return sum(sum(held in disk for disk in disks) < STORED_QUORUM for held in acked)


def cloud_events(local: LocalNetwork) -> list[CloudEvent]:
    """What the providers say they were told and did, from their own logs."""
    lines = (
        line
        for provider in local.providers
        for line in (
            read_file(local.provider_directory(provider) / "events.jsonl") or b""
        ).splitlines()
    )
    return [msgspec.json.decode(line, type=CloudEvent) for line in lines]


def machines_made(local: LocalNetwork) -> list[str]:
    """The names of all machines ever made, an entry for each order carried out."""
    return [event.name for event in cloud_events(local) if event.verb == "create"]


def machines_ordered(local: LocalNetwork, since: float) -> int:
    """Machines ordered after Unix time `since`, by the providers' own logs."""
    events = cloud_events(local)
    return sum(event.verb == "create" and event.at > since for event in events)


async def client(
    local: LocalNetwork, region: str, clock: Clock, entropy: Entropy
) -> tuple[Network, Locator]:
    """What a new client of `region` works with: the network, and a slot that HQ gave it."""
    locator = local.locator()
    hq = JsonClient(locator.hq, locator.roots, None, clock)
    try:
        reply = await hq.call("POST", "/v1/slots", SlotRequest(region), SlotReply)
    finally:
        await hq.close()
    record = verify_staple(locator.roots, reply.record, Type.SLOT_RECORD, SlotRecord, clock.wall())
    network = Network(
        id=locator.network,
        domain=locator.domain,
        roots=locator.roots,
        clock=clock,
        entropy=entropy,
        resolver=Resolver(locator.resolvers),
        region=region,
    )
    return network, locator.with_record(record)


async def crowd_clients(
    local: LocalNetwork,
    region: str,
    home: Path,
    count: int,
    clock: Clock,
    entropy: Entropy,
    *,
    period_s: float = WRITE_PERIOD_S,
) -> list[CrowdClient]:
    """`count` clients of their own that will write every `period_s` real seconds, below `home`."""
    clients = []
    for number in range(count):
        network, locator = await client(local, region, clock, entropy)
        clients.append(CrowdClient(network, locator, home / f"{number:02d}", period_s=period_s))
    return clients
