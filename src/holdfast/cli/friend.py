"""`holdfast friend`: people you know, met in person."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from holdfast.cli.device import STORED_S
from holdfast.cli.devices import HOME, Dir, Json, Scale, opened
from holdfast.cli.output import emit
from holdfast.cli.service import clock_of, host_port, start_log
from holdfast.crypto.pure import base32, node_id
from holdfast.device.agent import Agent
from holdfast.device.friends import friend_named, friends, keep, unpair
from holdfast.device.peering.meeting import Waiting, guest, host
from holdfast.device.peering.peers import offer, peers
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.tend import tend
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.group.friends import Friend
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock
from holdfast.wire.qr import qr_terminal

app = cyclopts.App(name="friend", help_format="plaintext", help="People you met in person.")


@app.command
def pair(
    code: str = "",
    *,
    at: str = "",
    listen: str = "0.0.0.0:0",
    relay: Annotated[bool, Parameter(help="Be found through your relays too.")] = True,
    call_me: str = "",
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Become friends with somebody who stands beside you.

    One of you runs this without a code and says or shows what it prints; the other gives that code.
    Both then see the same five words: compare them.

    Parameters
    ----------
    code
        The two words you were told, with --at; or the line that starts with hfpair1.
    at
        The address that was said with the code.
    listen
        Where to wait, host:port.
    call_me
        What your friend is to call you; this device's name when empty.
    """
    start_log("warning")
    clock, home = clock_of(time_scale), dir.expanduser()
    if at and host_port(at)[1] == 0:
        raise UsageError(f"{at!r} has no port; give --at as it was said with the code")
    if code:
        met = asyncio.run(_guest(code, at, call_me, home, clock))
    else:
        met = asyncio.run(_host(host_port(listen), relay, call_me, home, clock, quiet=json))
    text = f"you and {met['name']} are friends; both of you see:\n\n  {met['words']}"
    emit(met, as_json=json, text=text)


async def _host(
    listen: tuple[str, int], relay: bool, call_me: str, home: Path, clock: Clock, *, quiet: bool
) -> dict[str, Any]:
    console = Console(stderr=True, highlight=False)

    def show(waiting: Waiting) -> None:
        if quiet:
            console.print(f"{waiting.code} {waiting.addresses[0]}", soft_wrap=True)
        else:
            _show(console, waiting)

    async with opened(home, clock) as runtime:
        told = offer(runtime, call_me)
        friend = await host(runtime, told, listen=listen, relay=relay, on_waiting=show)
        return await _met(runtime, friend)


def _show(console: Console, waiting: Waiting) -> None:
    drawn = qr_terminal(waiting.line)
    if max(len(row) for row in drawn.splitlines()) <= console.width:
        console.print(drawn, soft_wrap=True)
    console.print(f"\ncode: {waiting.code}\nat:   {' or '.join(waiting.addresses)}")
    console.print(f"\nor the whole line:\n{waiting.line}", soft_wrap=True)
    console.print("\ngood once, for ten minutes; Ctrl-C ends this")


async def _guest(code: str, at: str, call_me: str, home: Path, clock: Clock) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        friend = await guest(runtime, offer(runtime, call_me), code, at)
        return await _met(runtime, friend)


async def _met(runtime: DeviceRuntime, friend: Friend) -> dict[str, Any]:
    await keep(runtime, friend)
    stored = await runtime.reach(Stage.STORED, STORED_S)
    return _about(friend) | {"stored": stored}


def _about(friend: Friend) -> dict[str, Any]:
    return {
        "name": friend.name,
        "person": base32(node_id(friend.person)),
        "words": friend.words,
        "devices": [
            {"name": d.name, "device": base32(d.key), "addresses": list(d.addresses)}
            for d in friend.devices
        ],
        "met_at": friend.met_at,
    }


@app.command(name="list")
def list_friends(*, dir: Dir = HOME, time_scale: Scale = 1.0, json: Json = False) -> None:
    """Your friends and the words you both saw."""
    start_log("warning")
    found = asyncio.run(_list(dir.expanduser(), clock_of(time_scale)))
    rows = [f"{f['name']}\t{len(f['devices'])} devices\t{f['words']}" for f in found]
    emit({"friends": found}, as_json=json, text="\n".join(rows) or "no friends yet")


async def _list(home: Path, clock: Clock) -> list[dict[str, Any]]:
    async with opened(home, clock) as runtime:
        await _look(runtime)
        return [_about(friend) for friend in friends(runtime)]


async def _look(runtime: DeviceRuntime) -> None:
    try:
        await tend(runtime)
    except OperationFault as fault:
        Console(stderr=True).print(f"offline: {fault}")


@app.command(name="unpair")
def part(
    name: str,
    *,
    lose_copies: Annotated[bool, Parameter(help="Even if copies are lost.", negative="")] = False,
    dir: Dir = HOME,
    time_scale: Scale = 1.0,
    json: Json = False,
) -> None:
    """Be no friends any more. Groups you share are another matter: see holdfast group remove.

    Refuses while anything of yours would be left with fewer than two copies.
    """
    start_log("warning")
    done = asyncio.run(_unpair(name, lose_copies, dir.expanduser(), clock_of(time_scale)))
    emit(done, as_json=json, text=f"{name} is no friend any more")


async def _check_copies(runtime: DeviceRuntime, names: list[str]) -> None:
    """Level first, then see what is left without these holders."""
    agent = Agent(runtime)
    try:
        await agent.sweep()
        await agent.check_drop(names)
    finally:
        await agent.stop()


async def _unpair(name: str, lose_copies: bool, home: Path, clock: Clock) -> dict[str, Any]:
    async with opened(home, clock) as runtime:
        await _look(runtime)
        friend = friend_named(runtime, name)
        theirs = [peer.name for peer in peers(runtime) if peer.person == friend.person]
        if theirs and not lose_copies:
            await _check_copies(runtime, theirs)
        await unpair(runtime, friend)
        stored = await runtime.reach(Stage.STORED, STORED_S)
        return _about(friend) | {"stored": stored}
