"""A headquarters: what its operator would want to know. It dials no node (they call it)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.cli.doctor import links, place, trust
from holdfast.cli.doctor.finding import Finding, bad, note, ok
from holdfast.crypto.pure import base32_decode
from holdfast.errors import HoldfastError, UsageError
from holdfast.hq import admin
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.hq.home import HqHome
from holdfast.logic.fleet.model import OPERATOR, Tier
from holdfast.rim.clock import Clock
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.process import alive


async def examine(directory: Path, clock: Clock) -> tuple[str, list[Finding]]:
    """Title and findings. Raises UsageError when `directory` holds no headquarters."""
    home, now = HqHome(directory), clock.wall()
    config = home.config()
    skews = links.Skews()
    found = await place.place(directory, _secrets(directory))
    try:
        keys = home.keys(now)
        step = "holdfast hq request, sign it where the root is, holdfast hq install"
        found += trust.intermediate(keys.intermediate.certificate, now, step)
    except UsageError as error:
        step = "or set the clock, if it is wrong; else: holdfast hq request, and the root signs"
        found.append(bad("intermediate", str(error).partition(";")[0], step))
    found += trust.pins(home.roots(), now)
    found += await _running(home, clock, skews)
    return f"headquarters of {config.domain} in {directory}", found


async def _running(home: HqHome, clock: Clock, skews: links.Skews) -> list[Finding]:
    """What only a running one can tell."""
    try:
        about = home.admin()
    except UsageError:
        about = None
    if about is None or not alive(about.pid):
        step = "holdfast hq serve, or holdfast service install; the fleet serves meanwhile"
        return [*place.descriptors(0), bad("process", "does not run", step)]
    found = list(place.descriptors(about.pid))
    client = LoopbackClient(about.address, about.key, clock)
    try:
        status = await client.call("GET", "/admin/v1/status", None, admin.Status)
        found.append(ok("process", f"process {about.pid}, term {status.term}"))
        config = home.config()
        addresses = config.addresses or (config.listen,)
        found += await links.hq_link(addresses, home.roots(), None, clock, skews)
        if not status.leading:
            text = "does not lead, so nothing heals from here"
            return [*found, note("lead", text, "normal while another headquarters leads")]
        view = await client.call("GET", "/admin/v1/fleet", None, FleetView)
    except HoldfastError as error:
        return [*found, bad("process", f"does not answer: {error}", "restart it; read its log")]
    found += fleet(view)
    seated = [
        links.Server(server.name, base32_decode(server.node), server.addresses)
        for server in view.servers
        if server.node
    ]
    return found + await links.names(seated, status.dns, status.domain)


def fleet(view: FleetView) -> Iterator[Finding]:
    """Servers, slots and freezes that wait for a person."""
    if view.frozen:
        step = "look at this machine's network; if the loss is real: holdfast hq confirm-unfreeze"
        yield bad("fleet", "frozen: half of it looks dead at once", step)
    for server in view.servers:
        yield from _server(server, view)
    short = [slot for slot in view.slots if slot.relays < 3 or slot.replicas < 3]
    if short:
        text = f"{len(short)} of {len(view.slots)} slots lack servers or are filling"
        yield note("slots", text, "holdfast hq slots; filling ends by itself")
    elif view.slots:
        yield ok("slots", f"{len(view.slots)}, all with three relays and three filled replicas")
    else:
        step = "three relays and three replicas must join: holdfast hq token create"
        yield bad("slots", "none yet, so no device can begin", step)
    if view.diversity_debt:
        text = f"{view.diversity_debt} seats share a failure domain"
        yield note("diversity", text, "add a machine of another provider or owner")


def _server(server: ServerView, view: FleetView) -> Iterator[Finding]:
    if server.tier in (Tier.GREEN, Tier.YELLOW):
        if server.silent:
            text = "serves, but its agent does not call"
            yield bad("server", text, "holdfast doctor on that machine", server.name)
        return
    replaceable = server.spawn or any(item.state == "up" for item in view.providers)
    if server.tier is Tier.ORANGE or replaceable:
        step = "headquarters replaces it after five minutes" if replaceable else "wait, or look"
        yield note("server", server.tier.value, step, server.name)
        return
    whose = "your machine" if server.owner == OPERATOR else f"{server.owner}'s machine"
    step = (
        "start it again (holdfast node run), or: holdfast hq token create "
        f"--role {server.role.value} --region {server.region} --owner {server.owner} "
        f"--provider {server.provider or 'NAME'} --name {server.name}"
    )
    yield bad("server", f"{server.tier.value}; {whose}, not ours to respawn", step, server.name)


def _secrets(directory: Path) -> list[Path]:
    keys = sorted((directory / "intermediate").glob("*.key"))
    return [directory / "identity.key", *keys]
